//! JA4: a fingerprint of the client that made a hello.
//!
//! Follows FoxIO's reference implementations (`rust/ja4`, `python/ja4.py`) and their vectors. Where their description
//! says otherwise, as for ALPN values that are not ASCII, the fingerprints that exist in databases come from the
//! programs.

use sha2::{Digest, Sha256};

use super::{Version, hello::Carrier, is_grease};

/// Extensions that say where a connection goes, not who makes it: server_name and ALPN are left out of the hash.
const NOT_HASHED: [u16; 2] = [0x0000, 0x0010];
const EXT_SERVER_NAME: u16 = 0x0000;
/// Counts have two digits.
const MAX_COUNT: usize = 99;
/// Characters of a fingerprint whose ALPN ends are ASCII.
const FINGERPRINT_LEN: usize = 36;
/// Stands for the hash of nothing.
const EMPTY_HASH: &str = "000000000000";

/// The parts of a hello that the fingerprint is made of.
pub(super) struct Input<'a> {
    pub(super) carrier: Carrier,
    /// Of supported_versions, else legacy_version.
    pub(super) version: Version,
    /// In the client's order, GREASE included.
    pub(super) cipher_suites: &'a [[u8; 2]],
    /// Sorted, GREASE included.
    pub(super) extensions: &'a [u16],
    pub(super) first_alpn: Option<&'a [u8]>,
    /// In the client's order, GREASE included.
    pub(super) signature_algorithms: &'a [[u8; 2]],
}

/// For example `t13d1516h2_8daaf6152771_e5627efa2ab1`.
pub(super) fn fingerprint(input: &Input<'_>) -> Box<str> {
    let mut ciphers: Vec<u16> = without_grease(code_points(input.cipher_suites)).collect();
    ciphers.sort_unstable();
    let extensions = || without_grease(input.extensions.iter().copied());

    let carrier = match input.carrier {
        Carrier::Tcp => 't',
        Carrier::Quic => 'q',
    };
    let to = if input.extensions.contains(&EXT_SERVER_NAME) { 'd' } else { 'i' };
    let (first, last) = alpn_ends(input.first_alpn.unwrap_or_default());

    let mut cipher_hash = ListHash::new();
    cipher_hash.list(ciphers.iter().copied());
    let mut extension_hash = ListHash::new();
    extension_hash.list(extensions().filter(|kind| !NOT_HASHED.contains(kind)));
    // Without signature algorithms the string ends without an underscore, too.
    extension_hash.next_list();
    extension_hash.list(without_grease(code_points(input.signature_algorithms)));

    let mut text = String::with_capacity(FINGERPRINT_LEN);
    text.push(carrier);
    text.push_str(version_label(input.version));
    text.push(to);
    push_count(&mut text, ciphers.len());
    push_count(&mut text, extensions().count());
    text.extend([first, last, '_']);
    cipher_hash.finish(&mut text);
    text.push('_');
    extension_hash.finish(&mut text);
    text.into_boxed_str()
}

/// Two digits.
fn push_count(text: &mut String, count: usize) {
    let count = u32::try_from(count.min(MAX_COUNT)).unwrap_or_default();
    text.extend([count / 10, count % 10].iter().filter_map(|&digit| char::from_digit(digit, 10)));
}

fn code_points(list: &[[u8; 2]]) -> impl Iterator<Item = u16> {
    list.iter().copied().map(u16::from_be_bytes)
}

fn without_grease(list: impl Iterator<Item = u16>) -> impl Iterator<Item = u16> {
    list.filter(|&value| !is_grease(value))
}

fn version_label(version: Version) -> &'static str {
    match version.0 {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// The first and the last character of an ALPN value; what is missing is `0`.
///
/// The reference implementations read the value as tshark prints it: each byte beyond ASCII is one replacement
/// character, which they write as `9`, and control characters are escaped as in C.
fn alpn_ends(value: &[u8]) -> (char, char) {
    let (Some(&first), Some(&last)) = (value.first(), value.last()) else { return ('0', '0') };
    let (first, after_first) = printed(first);
    let last = match value.len() {
        1 => after_first.unwrap_or('0'),
        _ => {
            let (only, end) = printed(last);
            end.unwrap_or(only)
        }
    };
    (first, last)
}

/// The first character of a byte as tshark prints it and, if there are several, the last.
fn printed(byte: u8) -> (char, Option<char>) {
    match byte {
        0x07 => ('\\', Some('a')),
        0x08 => ('\\', Some('b')),
        b'\t' => ('\\', Some('t')),
        b'\n' => ('\\', Some('n')),
        0x0b => ('\\', Some('v')),
        0x0c => ('\\', Some('f')),
        b'\r' => ('\\', Some('r')),
        b'\\' => ('\\', Some('\\')),
        0x00..=0x1f | 0x7f => ('\\', char::from_digit(u32::from(byte & 0x0f), 16)),
        0x20..=0x7e => (char::from(byte), None),
        0x80.. => ('9', None),
    }
}

/// SHA-256 over lists of code points, in hex, separated by commas, without building the text.
struct ListHash {
    hash: Sha256,
    /// Stands before the next code point.
    separator: Option<u8>,
    empty: bool,
}

impl ListHash {
    fn new() -> Self {
        ListHash { hash: Sha256::new(), separator: None, empty: true }
    }

    fn list(&mut self, values: impl Iterator<Item = u16>) {
        for value in values {
            let [a, b, c, d] = [value >> 12, value >> 8, value >> 4, value].map(hex_digit);
            match self.separator.replace(b',') {
                Some(separator) => self.hash.update([separator, a, b, c, d]),
                None => self.hash.update([a, b, c, d]),
            }
            self.empty = false;
        }
    }

    /// What follows is another list.
    fn next_list(&mut self) {
        self.separator = Some(b'_');
    }

    /// The first twelve hex digits.
    fn finish(self, text: &mut String) {
        if self.empty {
            return text.push_str(EMPTY_HASH);
        }
        for &byte in self.hash.finalize().iter().take(EMPTY_HASH.len() / 2) {
            text.extend([byte >> 4, byte].map(|digit| char::from(hex_digit(digit.into()))));
        }
    }
}

/// The lowest four bits as a hex digit.
fn hex_digit(value: u16) -> u8 {
    match (value & 0x0f) as u8 {
        digit @ 0..10 => b'0' + digit,
        digit => b'a' + (digit - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpn_ends_are_those_of_the_reference_implementations() {
        // Values measured with FoxIO's Rust implementation; the first one is also a vector of theirs
        // (tls-non-ascii-alpn.pcapng).
        let check = |value: &[u8], expected: &str| {
            let (first, last) = alpn_ends(value);
            assert_eq!(format!("{first}{last}"), expected, "{value:x?}");
        };
        check(b"\xba\xad", "99");
        check(b"", "00");
        check(b"h2", "h2");
        check(b"http/1.1", "h1");
        check(b"h", "h0");
        check(b"\xab", "90");
        check(b"\x30\xab", "09");
        check(b"\x30\xab\xcd\x31", "01");
        check(b"\x20", " 0");
        check(b"\x61\x20", "a ");
        check(b"h\x1f", "hf");
        check(b"\n\n", "\\n");
    }
}
