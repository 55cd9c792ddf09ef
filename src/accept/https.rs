//! HTTP proxy inside TLS: whether a client speaks TLS is told by its first byte.

/// Whether somebody took this for a port without TLS: no TLS record, of whatever type or version, begins with a printable
/// character, and every HTTP request and PROXY header in text does. What is neither is left for TLS to refuse.
pub fn is_plain_text(first: u8) -> bool {
    first.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_text_and_records_are_not() {
        for text in ["GET http://www.example.com/", "CONNECT a:443", "connect", "PROXY TCP4", "{}", "!"] {
            assert!(is_plain_text(text.as_bytes()[0]), "{text}");
        }
        // The types of records (RFC 8446 §5.1), a hello of SSL 2.0, SOCKS, nothing at all.
        for byte in [20, 21, 22, 23, 24, 0x80, 0xff, 4, 5, 0] {
            assert!(!is_plain_text(byte), "{byte}");
        }
    }
}
