//! Basic credentials (RFC 7617): the value of an Authorization or Proxy-Authorization field.
//!
//! Other schemes, and base64 that an encoder would not have written (RFC 4648 §3.5), are no credentials.

use base64ct::{Base64, Encoding};

/// Bytes of decoded credentials at most: a name, a colon and a password, each longer than anybody's.
pub const MAX_DECODED: usize = 1024;

/// Decoded credentials.
pub struct Basic {
    bytes: [u8; MAX_DECODED],
    colon: usize,
    end: usize,
}

impl Basic {
    /// Reads `value`; nothing if these are no Basic credentials. The name ends at the first colon (RFC 7617 §2).
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let mut bytes = [0; MAX_DECODED];
        let decoded = Base64::decode(token.trim_matches(' '), &mut bytes).ok()?;
        let (colon, end) = (decoded.iter().position(|byte| *byte == b':')?, decoded.len());
        Some(Basic { bytes, colon, end })
    }

    /// The name, mostly UTF-8.
    pub fn name(&self) -> &[u8] {
        self.bytes.get(..self.colon).unwrap_or_default()
    }

    /// The password.
    pub fn password(&self) -> &[u8] {
        self.bytes.get(self.colon.saturating_add(1)..self.end).unwrap_or_default()
    }
}

/// The password does not outlive its use.
impl Drop for Basic {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Otherwise the compiler sees that nobody reads the zeros.
        std::hint::black_box(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords() {
        let check = |value: &str, want: Option<(&str, &str)>| {
            let basic = Basic::parse(value);
            let got = basic.as_ref().map(|basic| (basic.name(), basic.password()));
            assert_eq!(got, want.map(|(name, password)| (name.as_bytes(), password.as_bytes())), "{value}");
        };
        // The examples of RFC 7617 §2 and §2.1.
        check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame")));
        check("Basic dGVzdDoxMjPCow==", Some(("test", "123£")));
        check("basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ== ", Some(("Aladdin", "open sesame")));
        check("BASIC Og==", Some(("", "")));
        check("Basic YTpiOmM=", Some(("a", "b:c")));
        for none in [
            "",
            "Basic",
            "Basic ",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic:QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            // No colon.
            "Basic YWJj",
            // Without its padding, with too much, with a character of another alphabet, in two parts, not zero at the end.
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ===",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZ_==",
            "Basic QWxhZGRp bjpvcGVuIHNlc2FtZQ==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\t",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn what_is_longer_than_anybodys_is_none() {
        let of = |len: usize| format!("Basic {}", Base64::encode_string(&vec![b':'; len]));
        assert!(Basic::parse(&of(MAX_DECODED)).is_some());
        assert!(Basic::parse(&of(MAX_DECODED + 1)).is_none());
    }
}
