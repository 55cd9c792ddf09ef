//! NTP (RFC 5905 §7.3): whether a datagram is a packet of it. Nothing in it is read but version and mode.

/// Bytes of a packet without extension fields and authenticator.
const MIN_LEN: usize = 48;
/// RFC 1059 to RFC 5905; version 0 predates the field, and nobody speaks a fifth.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
/// Symmetric active and passive, client, server, broadcast; not control (6) and private use (7), which are another
/// format.
const MODES: std::ops::RangeInclusive<u8> = 1..=5;

/// Whether the datagram is an NTP packet of version 1 to 4 and mode 1 to 5.
///
/// Such a first byte stands in three of ten datagrams of random bytes: ask last.
pub fn is_packet(datagram: &[u8]) -> bool {
    // Leap indicator, version, mode: two, three and three bits.
    let fits = |first: &u8| VERSIONS.contains(&(first >> 3 & 7)) && MODES.contains(&(first & 7));
    datagram.len() >= MIN_LEN && datagram.first().is_some_and(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_modes_and_length() {
        let check = |first: u8, len: usize, expected: bool| {
            let mut datagram = vec![0; len];
            datagram[0] = first;
            assert_eq!(is_packet(&datagram), expected, "{first:#010b}, {len} bytes");
        };
        check(0b00_100_011, 48, true); // ntpdate, chrony
        check(0b11_100_011, 48, true); // the clock is not set
        check(0b00_011_001, 48, true);
        check(0b00_001_101, 48, true);
        check(0b00_100_100, 68, true); // with an authenticator
        check(0b00_100_011, 47, false);
        check(0b00_000_011, 48, false);
        check(0b00_101_011, 48, false);
        check(0b00_100_000, 48, false);
        check(0b00_010_110, 48, false); // ntpq
        check(0b00_010_111, 48, false); // ntpdc monlist
        assert!(!is_packet(b""));
    }
}
