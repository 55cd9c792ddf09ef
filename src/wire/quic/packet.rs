//! Long headers (RFC 8999 §5.1, RFC 9000 §17.2, RFC 9369 §3.2) and the packets of one datagram (RFC 9000 §12.2).
//!
//! Nothing is decrypted: where the packet number begins is known, its length and value are not.

use super::{Version, varint};
use crate::wire::cursor::{Cursor, Short};

/// Bytes of the longest connection id in versions 1 and 2 (RFC 9000 §17.2).
pub const MAX_CID: usize = 20;

/// Packets of one datagram that are looked at. A sender coalesces at most one of each level of encryption.
pub const MAX_PACKETS: usize = 8;

/// What every version's long header begins with.
#[derive(Debug, Clone, Copy)]
pub struct LongHeader<'a> {
    /// Its highest bit is set; the others are the version's business.
    pub first: u8,
    /// 0 in Version Negotiation.
    pub version: u32,
    /// Destination Connection ID, of up to 255 bytes.
    pub dcid: &'a [u8],
    /// Source Connection ID, of up to 255 bytes.
    pub scid: &'a [u8],
    rest: Cursor<'a>,
}

impl<'a> LongHeader<'a> {
    /// `None` if the first bit says that the header is short, or if the header is cut off.
    pub fn parse(bytes: &'a [u8]) -> Option<LongHeader<'a>> {
        let mut cursor = Cursor::new(bytes);
        let first = cursor.u8().ok().filter(|first| first & 0x80 != 0)?;
        let version = cursor.u32().ok()?;
        let dcid = cursor.vec8().ok()?.rest();
        let scid = cursor.vec8().ok()?.rest();
        Some(LongHeader { first, version, dcid, scid, rest: cursor })
    }
}

/// Type of a packet with a long header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Carries the ClientHello.
    Initial,
    /// Data under the keys of an earlier connection.
    ZeroRtt,
    /// Carries the rest of the handshake.
    Handshake,
    /// A server demands a token; nothing follows it in its datagram.
    Retry,
}

impl Kind {
    fn of(first: u8, version: Version) -> Kind {
        // RFC 9369 §3.2: version 2 counts from another start.
        let number = match version {
            Version::V1 => first >> 4 & 3,
            Version::V2 => (first >> 4 & 3).wrapping_sub(1) & 3,
        };
        match number {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        }
    }
}

/// A packet of version 1 or 2 with a long header, as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// What it carries.
    pub kind: Kind,
    /// Which version's.
    pub version: Version,
    /// Destination Connection ID, of up to [`MAX_CID`] bytes.
    pub dcid: &'a [u8],
    /// All of it, the header's first byte first.
    pub bytes: &'a [u8],
    /// Where in `bytes` the packet number begins; the end for Retry, which has none.
    pub number_at: usize,
}

impl<'a> Packet<'a> {
    /// The packet at the front of `bytes`, and what stands behind it.
    fn read(bytes: &'a [u8]) -> Option<(Packet<'a>, &'a [u8])> {
        let header = LongHeader::parse(bytes)?;
        let version = Version::from_number(header.version)?;
        if header.dcid.len() > MAX_CID || header.scid.len() > MAX_CID {
            return None;
        }
        let kind = Kind::of(header.first, version);
        let mut cursor = header.rest;
        let number_at = number_at(kind, bytes, &mut cursor).ok()?;
        let rest = cursor.rest();
        let bytes = bytes.get(..bytes.len().checked_sub(rest.len())?)?;
        Some((Packet { kind, version, dcid: header.dcid, bytes, number_at }, rest))
    }
}

/// Moves `cursor` from behind the connection ids to behind the packet.
fn number_at(kind: Kind, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<usize, Short> {
    if kind == Kind::Retry {
        cursor.take(cursor.rest().len())?;
        return Ok(bytes.len());
    }
    if kind == Kind::Initial {
        let _token = varint::read_vec(cursor)?;
    }
    let numbered = varint::read_vec(cursor)?.len();
    bytes.len().checked_sub(cursor.rest().len()).and_then(|end| end.checked_sub(numbered)).ok_or(Short)
}

/// The packets of versions 1 and 2 with long headers at the front of a datagram, at most [`MAX_PACKETS`].
///
/// Ends at what is none: a short header, which goes to the end, padding, another version, a length that is too long.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram, left: MAX_PACKETS }
}

/// See [`packets`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Packets<'_> {
    /// Whether a packet stands behind those that are looked at.
    pub fn has_more(&self) -> bool {
        self.left == 0 && Packet::read(self.rest).is_some()
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (packet, rest) = Packet::read(self.rest)?;
        self.rest = rest;
        Some(packet)
    }
}
