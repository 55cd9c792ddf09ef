//! `--hash-password`: a password in, its crypt(3) hash out, for `users` of the configuration.
//!
//! From a terminal it is asked for twice and not shown; from a pipe one line is read. It is never an argument, which
//! everybody on the machine could read.

use std::io::{self, BufRead, IsTerminal, Read};

use crate::auth::hash::SALT_BYTES;
use crate::auth::{CryptHash, MAX_BYTES};
use crate::sys::{random, terminal};

/// The hash of the password that somebody types or pipes in.
///
/// # Errors
/// Why there is none, for a person.
pub(crate) fn hash_password() -> Result<String, String> {
    let mut input = io::stdin().lock();
    let password = if input.is_terminal() {
        let mut ask = |prompt| {
            terminal::ask_silently(&mut input, &mut io::stderr().lock(), prompt)
                .map_err(|error| format!("the password cannot be read: {error}"))
        };
        let first = ask("Password: ")?;
        if ask("Again: ")? != first {
            return Err("these were two different passwords".to_owned());
        }
        first
    } else {
        read_line(&mut input)?
    };
    let salt =
        random::bytes::<SALT_BYTES>().map_err(|error| format!("no random numbers for a salt: {error}"))?;
    let hash = CryptHash::make(password.as_bytes(), salt)?;
    Ok(hash.as_str().to_owned())
}

/// The one line of `input`, without its line break.
fn read_line(input: &mut impl BufRead) -> Result<String, String> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(2);
    let mut line = String::new();
    input
        .take(limit)
        .read_line(&mut line)
        .map_err(|error| format!("the password cannot be read from standard input: {error}"))?;
    if line.ends_with('\n') {
        line.pop();
        if line.ends_with('\r') {
            line.pop();
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_read_and_too_long_a_password_is_not_cut() {
        let read = |text: &str| read_line(&mut text.as_bytes()).unwrap();
        assert_eq!(read("open sesame\n"), "open sesame");
        assert_eq!(read("open sesame"), "open sesame");
        assert_eq!(read(" a \r\nb\n"), " a ");
        assert_eq!(read(""), "");
        let long = "x".repeat(MAX_BYTES + 10);
        assert!(CryptHash::make(read(&long).as_bytes(), [0; SALT_BYTES]).is_err());
        let longest = "x".repeat(MAX_BYTES);
        assert_eq!(read(&format!("{longest}\r\n")), longest);
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
    }
}
