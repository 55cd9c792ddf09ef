//! PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`), as a TCP listener receives it.
//!
//! Reads one header at the front of a connection. Addresses are left as they are written, v4-mapped ones too. TLVs are
//! skipped, but their lengths must add up, and a checksum among them must be right. What the document lets a receiver
//! ignore is ignored, everything else that differs from it is refused.

pub mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Parse;
use super::cursor::{Cursor, Short};

/// Longest version 1 header in bytes, with its CRLF (§2.1).
const MAX_V1: usize = 107;
/// Largest version 2 header in bytes: what the format can say.
pub const MAX_V2: usize = V2_FIXED + u16::MAX as usize;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length (§2.2).
const V2_FIXED: usize = 16;
/// PP2_TYPE_CRC32C (§2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// Whom a header speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    /// LOCAL (a health check) or UNKNOWN: the real endpoints count.
    Local,
    /// A proxied TCP connection.
    Tcp {
        /// The client.
        src: SocketAddr,
        /// Where it wanted to go.
        dest: SocketAddr,
    },
    /// A well-formed header of a kind that a TCP listener cannot take (UDP, unix sockets).
    Unsupported,
}

/// A whole header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Bytes it takes at the front.
    pub len: usize,
    /// Whom it speaks for.
    pub endpoints: Endpoints,
}

/// Parses the header at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Parse<Header> {
    let fits = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if fits(V1_START) {
        // No byte in common with the other, but for no bytes at all.
        parse_v1(bytes)
    } else if fits(V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Parse::Malformed
    }
}

fn parse_v1(bytes: &[u8]) -> Parse<Header> {
    let line = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(cr) = line.iter().position(|b| b.is_ascii_control()) else {
        return if line.len() < MAX_V1 { Parse::NeedMore } else { Parse::Malformed };
    };
    let (text, end) = line.split_at(cr);
    match end {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if line.len() < MAX_V1 => return Parse::NeedMore,
        _ => return Parse::Malformed,
    }
    match std::str::from_utf8(text).ok().and_then(v1_endpoints) {
        Some(endpoints) => Parse::Complete(Header { len: text.len().saturating_add(2), endpoints }),
        None => Parse::Malformed,
    }
}

fn v1_endpoints(line: &str) -> Option<Endpoints> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line is to be ignored.
        return Some(Endpoints::Local);
    }
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (src, dest) = (ip(words.next()?)?, ip(words.next()?)?);
    let (sport, port) = (v1_port(words.next()?)?, v1_port(words.next()?)?);
    let none_left = words.next().is_none();
    none_left.then(|| Endpoints::Tcp { src: SocketAddr::new(src, sport), dest: SocketAddr::new(dest, port) })
}

/// Decimal without sign or leading zeros.
fn v1_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn parse_v2(bytes: &[u8]) -> Parse<Header> {
    // Malformed as soon as it is, so that nobody waits for the rest of a length that is not meant.
    let (version_and_command, kind) = (bytes.get(12), bytes.get(13));
    let (length_high, length_low) = (bytes.get(14), bytes.get(15));
    if version_and_command.is_some_and(|byte| !matches!(byte, 0x20 | 0x21))
        || kind.is_some_and(|byte| byte >> 4 > 3 || byte & 0x0f > 2)
    {
        return Parse::Malformed;
    }
    let (Some(&high), Some(&low)) = (length_high, length_low) else {
        return Parse::NeedMore;
    };
    let len = V2_FIXED.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    let Some(header) = bytes.get(..len) else {
        return Parse::NeedMore;
    };
    match v2_endpoints(header) {
        Ok(endpoints) => Parse::Complete(Header { len, endpoints }),
        Err(Invalid) => Parse::Malformed,
    }
}

/// The lengths in a version 2 header don't add up, or its checksum is wrong.
struct Invalid;

impl From<Short> for Invalid {
    fn from(_: Short) -> Self {
        Invalid
    }
}

/// `header` is as long as it says.
fn v2_endpoints(header: &[u8]) -> Result<Endpoints, Invalid> {
    let mut cursor = Cursor::new(header);
    cursor.take(V2_SIGNATURE.len())?;
    let is_local = cursor.u8()? & 0x0f == 0;
    let (family, protocol) = match cursor.u8()? {
        kind if is_local || kind >> 4 == 0 || kind & 0x0f == 0 => {
            // LOCAL, or UNSPEC in either half: what follows is to be ignored.
            return Ok(Endpoints::Local);
        }
        kind => (kind >> 4, kind & 0x0f),
    };
    cursor.u16()?;
    let (src, dest): (IpAddr, IpAddr) = match family {
        1 => (cursor.array::<4>()?.into(), cursor.array::<4>()?.into()),
        2 => (cursor.array::<16>()?.into(), cursor.array::<16>()?.into()),
        _ => {
            // Two sun_path.
            cursor.take(216)?;
            check_tlvs(header, cursor)?;
            return Ok(Endpoints::Unsupported);
        }
    };
    let (sport, port) = (cursor.u16()?, cursor.u16()?);
    check_tlvs(header, cursor)?;
    Ok(match protocol {
        1 => Endpoints::Tcp { src: SocketAddr::new(src, sport), dest: SocketAddr::new(dest, port) },
        _ => Endpoints::Unsupported,
    })
}

/// Walks the TLVs in `rest`, which is the end of `header`.
fn check_tlvs(header: &[u8], mut rest: Cursor<'_>) -> Result<(), Invalid> {
    let mut is_checked = false;
    while !rest.is_empty() {
        let kind = rest.u8()?;
        let mut value = rest.vec16()?;
        if kind == TLV_CRC32C {
            // Once: thousands of them, each over all bytes, would take seconds.
            if std::mem::replace(&mut is_checked, true) {
                return Err(Invalid);
            }
            let sum = value.u32()?;
            // The sum is taken with its own four bytes as zeros.
            let behind = rest.rest();
            let before = header.len().checked_sub(behind.len().saturating_add(4)).ok_or(Invalid)?;
            let before = header.get(..before).ok_or(Invalid)?;
            let bytes = before.iter().chain(&[0; 4]).chain(behind);
            if !value.is_empty() || sum != crc32c(bytes) {
                return Err(Invalid);
            }
        }
    }
    Ok(())
}

/// RFC 9260 appendix A, bit by bit: headers are short, or at least few.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let sum = bytes.fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(src: &str, dest: &str) -> Endpoints {
        Endpoints::Tcp { src: src.parse().unwrap(), dest: dest.parse().unwrap() }
    }

    /// Each prefix needs more, the whole is `want`, and so is the whole with something behind it.
    fn check(header: &[u8], want: Endpoints) {
        for n in 0..header.len() {
            assert_eq!(parse(&header[..n]), Parse::NeedMore, "{n} bytes of {}", header.escape_ascii());
        }
        let want = Parse::Complete(Header { len: header.len(), endpoints: want });
        assert_eq!(parse(header), want, "{}", header.escape_ascii());
        for behind in [&b"\r\n"[..], b"\n", b"PROXY ", b"\0\x16\x03"] {
            assert_eq!(parse(&[header, behind].concat()), want, "{}", header.escape_ascii());
        }
    }

    /// Refused, and once a prefix is, every longer one is.
    fn check_refused(header: &[u8]) {
        assert_eq!(parse(header), Parse::Malformed, "{}", header.escape_ascii());
        let first =
            (0..header.len()).find(|&n| parse(&header[..n]) != Parse::NeedMore).unwrap_or(header.len());
        for n in first..header.len() {
            assert_eq!(parse(&header[..n]), Parse::Malformed, "{n} bytes of {}", header.escape_ascii());
        }
    }

    #[test]
    fn version_1() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n", tcp("192.0.2.1:51234", "198.51.100.2:443"));
        let all_ones = tcp("255.255.255.255:65535", "255.255.255.255:65535");
        check(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", all_ones);
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 80\r\n", tcp("[2001:db8::1]:0", "[2001:db8::2]:80"));
        check(b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", tcp("[::ffff:1.2.3.4]:1", "[::1]:2"));
        check(b"PROXY UNKNOWN\r\n", Endpoints::Local);
        check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Endpoints::Local);
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
        check(longest.as_bytes(), Endpoints::Local);
        check_refused(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15)).as_bytes());
        for line in [
            "TCP4 192.0.2.1 198.51.100.2 51234 443\n",
            "TCP4 192.0.2.1 198.51.100.2 51234 443\r\r\n",
            "TCP4 192.0.2.1 198.51.100.2 51234 443 \r\n",
            "TCP4 192.0.2.1 198.51.100.2 51234\r\n",
            "TCP4 192.0.2.1 198.51.100.2 51234 443 1\r\n",
            "TCP4  192.0.2.1 198.51.100.2 51234 443\r\n",
            "TCP4\t192.0.2.1 198.51.100.2 51234 443\r\n",
            "TCP4 192.0.2.01 198.51.100.2 51234 443\r\n",
            "TCP4 192.0.2 198.51.100.2 51234 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 051234 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
            "TCP4 192.0.2.1 198.51.100.2 1 00\r\n",
            "TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "TCP6 fe80::1%eth0 ::2 1 2\r\n",
            "TCP6 [::1] ::2 1 2\r\n",
            "UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
            "TCP4\r\n",
            "UNKNOWNX\r\n",
            "\r\n",
            "TCP4 192.0.2.1\0 198.51.100.2 1 2\r\n",
        ] {
            check_refused(format!("PROXY {line}").as_bytes());
        }
    }

    #[test]
    fn other_protocols_are_refused_at_the_first_byte_that_differs() {
        let check = |common: &[u8], other: &[u8]| {
            assert_eq!(parse(common), Parse::NeedMore);
            check_refused(&[common, &other[..1]].concat());
            check_refused(&[common, other].concat());
        };
        check(b"", b"GET / HTTP/1.1\r\n");
        check(b"", b"\x16\x03\x01");
        check(b"", b"proxy ");
        check(b"P", b"OST ");
        check(b"PROXY", b"\tTCP4");
        check(b"\r\n\r\n", b"GET / HTTP/1.1\r\n");
        check(b"\r\n\r\n\0\r\nQUIT", b"\r\n");
        check(V2_SIGNATURE, b"\x01");
    }

    fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, kind], &len, body].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xc8, 0x22, 0x01, 0xbb];

    fn v6() -> Vec<u8> {
        let ips = ["2001:db8::1", "::ffff:192.0.2.1"].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets());
        [&ips.concat()[..], &[0, 1, 0, 80]].concat()
    }

    #[test]
    fn version_2() {
        let v4 = || tcp("192.0.2.1:51234", "198.51.100.2:443");
        check(&v2(0x21, 0x11, V4), v4());
        check(&v2(0x21, 0x21, &v6()), tcp("[2001:db8::1]:1", "[::ffff:192.0.2.1]:80"));
        check(&v2(0x21, 0x11, &[V4, &[0xee, 0, 2, 7, 7], &[4, 0, 0]].concat()), v4());
        check(&v2(0x20, 0x00, b""), Endpoints::Local);
        check(&v2(0x20, 0x11, V4), Endpoints::Local);
        check(&v2(0x20, 0x11, b"short"), Endpoints::Local);
        check(&v2(0x21, 0x00, b"to be ignored"), Endpoints::Local);
        check(&v2(0x21, 0x10, b""), Endpoints::Local);
        check(&v2(0x21, 0x12, V4), Endpoints::Unsupported);
        check(&v2(0x21, 0x22, &v6()), Endpoints::Unsupported);
        check(&v2(0x21, 0x31, &[0; 216]), Endpoints::Unsupported);
        check(&v2(0x21, 0x32, &[0; 216]), Endpoints::Unsupported);
        let padding = vec![0; MAX_V2 - V2_FIXED - V4.len() - 3];
        let length = u16::try_from(padding.len()).unwrap().to_be_bytes();
        check(&v2(0x21, 0x11, &[V4, &[4], &length, &padding].concat()), v4());

        check_refused(&v2(0x11, 0x11, V4));
        check_refused(&v2(0x22, 0x11, V4));
        check_refused(&v2(0x31, 0x11, V4));
        check_refused(&v2(0x21, 0x41, V4));
        check_refused(&v2(0x21, 0x13, V4));
        check_refused(&v2(0x21, 0x11, &V4[..11]));
        check_refused(&v2(0x21, 0x21, V4));
        check_refused(&v2(0x21, 0x31, &[0; 215]));
        check_refused(&v2(0x21, 0x12, &[V4, &[4]].concat()));
        for tlvs in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 4, 0, 3, 1, 2], &[4, 0xff, 0xff, 0]] {
            check_refused(&v2(0x21, 0x11, &[V4, tlvs].concat()));
        }
    }

    #[test]
    fn checksum() {
        // The check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
        let sum_at = V2_FIXED + V4.len() + 3;
        let mut header = v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0], &[0xee, 0, 1, 5]].concat());
        let sum = crc32c(header.iter()).to_be_bytes();
        header[sum_at..sum_at + 4].copy_from_slice(&sum);
        check(&header, tcp("192.0.2.1:51234", "198.51.100.2:443"));
        for at in [V2_FIXED, sum_at, header.len() - 1] {
            let mut broken = header.clone();
            broken[at] ^= 1;
            check_refused(&broken);
        }
        check_refused(&v2(0x21, 0x11, &[V4, &[3, 0, 3, 0, 0, 0]].concat()));
        check_refused(&v2(0x21, 0x11, &[V4, &[3, 0, 5, 0, 0, 0, 0, 0]].concat()));
    }

    #[test]
    fn an_answer_once_given_is_stable() {
        let mut random = 0x2545_f491_u32;
        let mut below = |n: usize| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % n
        };
        let headers = [
            b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\nGET".to_vec(),
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 80\r\n\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0, 4, 0, 2, 1, 1]].concat()),
            v2(0x21, 0x21, &[&v6()[..], &[4, 0, 0]].concat()),
            v2(0x20, 0x00, b"abc"),
        ];
        let mut complete = 0;
        for _ in 0..20_000 {
            let mut bytes = headers[below(headers.len())].clone();
            for _ in 0..below(3) {
                let at = below(bytes.len());
                bytes[at] = below(256) as u8;
            }
            let mut answer = Parse::NeedMore;
            for n in 0..=bytes.len() {
                let now = parse(&bytes[..n]);
                assert!(answer == Parse::NeedMore || now == answer, "{n} bytes of {}", bytes.escape_ascii());
                answer = now;
            }
            complete += usize::from(matches!(answer, Parse::Complete(_)));
        }
        assert!((1_000..19_000).contains(&complete), "{complete}");
    }
}
