//! `--make-ca DIR`: an authority for interception, as two files, and what to do with them.
//!
//! Nothing is ever overwritten: a second authority in the place of the first would make every device that has imported that
//! one refuse what is intercepted.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};

use crate::intercept::Authority;
use crate::sys::time;
use crate::wire::x509::write::MAX_COMMON_NAME;
use crate::wire::x509::{self, Time};

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// Characters of a line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// Makes an authority in `dir`, which need not exist yet, and says what to do with it.
///
/// # Errors
/// Why there is none, for a person.
pub(crate) fn make_ca(dir: &str) -> Result<String, String> {
    let dir = std::path::absolute(dir).map_err(|error| format!("--make-ca {dir}: {error}"))?;
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    if let Some(there) = [&certificate, &key].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(format!("{} is there already: nothing is overwritten", there.display()));
    }
    let now = time::now().secs;
    let (der, pkcs8) =
        Authority::make(&name(now), now).map_err(|error| format!("cannot make an authority: {error}"))?;
    let failed = |path: &Path, error: io::Error| format!("cannot write {}: {error}", path.display());
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&dir, error)),
        _ => {}
    }
    write(&key, &pem("PRIVATE KEY", pkcs8.secret_pkcs8_der()), 0o600).map_err(|error| failed(&key, error))?;
    write(&certificate, &pem("CERTIFICATE", &der), 0o644).map_err(|error| {
        // A key without its certificate is good for nothing, and in the way of the next attempt.
        let _ = std::fs::remove_file(&key);
        failed(&certificate, error)
    })?;
    let until = x509::parse(&der).map(|read| read.not_after);
    Ok(advice(&certificate, &key, until, &Sha256::digest(&der)))
}

/// `calamary myrouter 2026-03-01`: what devices show in their lists of authorities.
fn name(now: i64) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let today = time::local(now);
    let date = format!("{:04}-{:02}-{:02}", today.year, today.month, today.day);
    let room = MAX_COMMON_NAME.saturating_sub("calamary  ".len() + date.len());
    let host: String = host.trim().chars().filter(|c| c.is_ascii_graphic()).take(room).collect();
    format!("calamary {host} {date}")
}

fn write(path: &PathBuf, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut buffer = vec![0; Base64::encoded_len(der)];
    // The buffer is as long as the encoding.
    let mut rest = Base64::encode(der, &mut buffer).unwrap_or_default();
    let mut out = format!("-----BEGIN {label}-----\n");
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(out, "-----END {label}-----");
    out
}

fn advice(certificate: &Path, key: &Path, until: Option<Time>, fingerprint: &[u8]) -> String {
    let until = until.map(|time| format!("{:04}-{:02}-{:02}", time.year, time.month, time.day));
    let hex: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "''"));
    format!(
        "An authority for interception, valid until {until}:\n\
         \x20 {certificate}  its certificate: to be imported on every device that is intercepted\n\
         \x20 {key}  its key: who has it can read what these devices send, so it stays here\n\
         \n\
         Into the configuration:\n\
         \n\
         certs:\n\
         \x20 interceptPublic: {quoted_certificate}\n\
         \x20 interceptPrivate: {quoted_key}\n\
         rules:\n\
         \x20 - match: {{dns: '.example.com'}}\n\
         \x20   action: 'intercept'\n\
         \n\
         To import it:\n\
         \x20 Debian, Ubuntu  cp {certificate} /usr/local/share/ca-certificates/calamary.crt && update-ca-certificates\n\
         \x20 Fedora, Arch    trust anchor {certificate}\n\
         \x20 Windows         certutil -addstore Root ca.pem\n\
         \x20 macOS           security add-trusted-cert -d -k /Library/Keychains/System.keychain ca.pem\n\
         \x20 Firefox         Settings, Certificates, View Certificates, Authorities, Import\n\
         \x20 Android, iOS    open the file and follow the system's settings; there many programs trust no such authority\n\
         \n\
         Its SHA-256 fingerprint, to be compared there:\n\
         \x20 {fingerprint}\n",
        until = until.unwrap_or_default(),
        certificate = certificate.display(),
        key = key.display(),
        quoted_certificate = quoted(certificate),
        quoted_key = quoted(key),
        fingerprint = hex.join(":"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_has_lines_of_64_characters() {
        let check = |len: usize, lines: usize| {
            let text = pem("X", &vec![7; len]);
            let body: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
            assert_eq!(body.len(), lines, "{len}");
            assert!(body.iter().all(|line| line.len() <= 64) && text.ends_with("-----END X-----\n"));
        };
        check(0, 0);
        check(1, 1);
        check(48, 1);
        check(49, 2);
    }

    #[test]
    fn the_name_fits_a_common_name() {
        let name = name(1_772_323_200);
        assert!(name.len() <= MAX_COMMON_NAME && name.starts_with("calamary "), "{name}");
    }
}
