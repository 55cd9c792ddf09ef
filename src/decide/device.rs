//! Devices of the local network: hardware addresses and names.

use std::fmt;
use std::str::FromStr;

/// The name of every device that has none.
pub const UNKNOWN: &str = "unknown";

/// A 48-bit hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// `aa:bb:cc:dd:ee:ff`
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ();

    /// Six pairs of hexadecimal digits between colons, or all between dashes.
    fn from_str(text: &str) -> Result<Mac, ()> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut pairs = text.split(separator);
        let mut mac = [0; 6];
        for byte in &mut mac {
            let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(pair.ok_or(())?, 16).map_err(|_| ())?;
        }
        if pairs.next().is_some() { Err(()) } else { Ok(Mac(mac)) }
    }
}

/// A device's name as rules compare it: without regard to case.
pub fn fold_device(name: &str) -> Box<str> {
    name.to_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        let mac = Mac([0xaa, 0xbb, 0xcc, 0x00, 0x01, 0xff]);
        for text in ["aa:bb:cc:00:01:ff", "AA:BB:CC:00:01:FF", "aa-bb-cc-00-01-ff"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "aa:bb:cc:00:01:ff");
        for text in [
            "",
            "aa:bb:cc:00:01",
            "aa:bb:cc:00:01:ff:00",
            "a:bb:cc:00:01:ff",
            "+a:bb:cc:00:01:ff",
            "aa-bb:cc:00:01:ff",
            "gg:bb:cc:00:01:ff",
            "aabbcc0001ff",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(()), "{text}");
        }
    }
}
