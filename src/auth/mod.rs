//! Who a client says it is, and whether that is so.
//!
//! Pure: no socket, no clock, no log; randomness comes in as a key. [`users`] holds a listener's names with their password
//! [`hash`]es, [`memory`] what was right before, so that a slow CPU hashes once, [`throttle`] who has tried too often, [`queue`] whose
//! turn it is.
//! A check costs as much CPU as the hash asks for, up to a second on a small router: it is never made in a worker, see
//! `engine::verifier`. Nothing here shows a password: not in an error, not by `Debug`.

pub mod hash;
pub mod memory;
pub mod queue;
pub mod throttle;
pub mod users;

use std::fmt;

pub use hash::CryptHash;
pub use users::Users;

/// Bytes of a name or a password at most; what RFC 1929 §2 can carry. The hash's cost grows with the square of a
/// password's length.
pub const MAX_BYTES: usize = 255;

/// A name and the password that should prove it.
pub struct Credentials {
    name: Box<str>,
    password: Box<[u8]>,
}

impl Credentials {
    /// As a client sent them; nothing if one of them is longer than [`MAX_BYTES`], as nobody's are. A name that is not
    /// UTF-8 is nobody's either, but is kept to be checked and logged like any other.
    pub fn new(name: &[u8], password: &[u8]) -> Option<Self> {
        if name.len() > MAX_BYTES || password.len() > MAX_BYTES {
            return None;
        }
        Some(Credentials { name: String::from_utf8_lossy(name).into(), password: password.into() })
    }

    /// Who it claims to be.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The proof.
    pub fn password(&self) -> &[u8] {
        &self.password
    }
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The password does not outlive its use.
impl Drop for Credentials {
    fn drop(&mut self) {
        self.password.fill(0);
        // Otherwise the compiler sees that nobody reads the zeros.
        std::hint::black_box(&self.password);
    }
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The client is who it says it is.
    Right,
    /// No such user, or not that password.
    Wrong,
    /// It could not be checked now: too much is waiting.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let credentials = Credentials::new(b"alice", b"open sesame").unwrap();
        assert_eq!(format!("{credentials:?}"), r#"Credentials { name: "alice", .. }"#);
        assert_eq!((credentials.name(), credentials.password()), ("alice", &b"open sesame"[..]));
    }

    #[test]
    fn what_is_too_long_is_nobodys() {
        let long = [b'a'; MAX_BYTES + 1];
        assert!(Credentials::new(&long, b"").is_none());
        assert!(Credentials::new(b"", &long).is_none());
        assert!(Credentials::new(&long[1..], &long[1..]).is_some());
        assert_eq!(Credentials::new(b"\xff", b"\xff").unwrap().name(), "\u{fffd}");
    }
}
