//! PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`), as a listener receives it.
//!
//! Reads one header at the front of a connection or datagram. Addresses are left as they are written, v4-mapped ones too. TLVs are
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
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN";
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
    /// A proxied datagram (version 2 only, 0x12 and 0x22).
    Udp {
        /// The client.
        src: SocketAddr,
        /// Where it wanted to go.
        dest: SocketAddr,
    },
    /// A well-formed header of a kind that nobody here can take (unix sockets). A receiver may refuse what it does not
    /// support (§2.2, 0x00 UNSPEC).
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
    match v1_endpoints(text) {
        Some(endpoints) => Parse::Complete(Header { len: text.len().saturating_add(2), endpoints }),
        None => Parse::Malformed,
    }
}

fn v1_endpoints(line: &[u8]) -> Option<Endpoints> {
    if let Some(rest) = line.strip_prefix(V1_UNKNOWN)
        && (rest.is_empty() || rest.starts_with(b" "))
    {
        // The rest of the line is to be ignored.
        return Some(Endpoints::Local);
    }
    let mut words = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let family = words.next()?;
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
    let (src, dest) = (SocketAddr::new(src, sport), SocketAddr::new(dest, port));
    Ok(match protocol {
        1 => Endpoints::Tcp { src, dest },
        2 => Endpoints::Udp { src, dest },
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
mod tests;
