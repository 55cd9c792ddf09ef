//! QUIC before its handshake (RFC 8999, RFC 9000 §17, RFC 9001 §5.2, RFC 9369): the packets with which a client begins.
//!
//! Reads long headers, opens a client's Initial packets, collects what their CRYPTO frames carry, and writes the one
//! packet that a server may send to a stranger: Version Negotiation. Everything behind the Initial packets is encrypted
//! with keys that only the two ends have; there is no QUIC stack here.
//!
//! - [`LongHeader`] is what all versions share; [`packets`] are those of one datagram, for versions 1 and 2.
//! - `InitialKeys` (feature `quic`) open an Initial; [`crypto_frames`] finds the handshake's bytes in it.
//! - [`CryptoStream`] puts them in order and says when the ClientHello is whole.
//! - [`version_negotiation`] refuses.

mod crypto;
mod frame;
#[cfg(feature = "quic")]
mod initial;
mod packet;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;
mod varint;

pub use crypto::{Conflict, CryptoStream, MAX_CRYPTO};
pub use frame::{CryptoFrame, crypto_frames};
#[cfg(feature = "quic")]
pub use initial::InitialKeys;
pub use packet::{Kind, LongHeader, MAX_CID, MAX_PACKETS, Packet, Packets, packets};
pub use refusal::version_negotiation;

/// A version whose packets can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 9000.
    V1,
    /// RFC 9369: version 1 with other numbers, so that nobody takes them for granted.
    V2,
}

impl Version {
    /// Of the datagram's first packet, if that has a long header of version 1 or 2, whatever comes behind the number.
    ///
    /// The fixed bit is not asked for: ends that have agreed on it before may clear it (RFC 9287).
    pub fn of(datagram: &[u8]) -> Option<Version> {
        long_header_version(datagram).and_then(Version::from_number)
    }

    fn from_number(number: u32) -> Option<Version> {
        match number {
            0x0000_0001 => Some(Version::V1),
            0x6b33_43cf => Some(Version::V2),
            _ => None,
        }
    }
}

/// Whether the datagram is QUIC by its version number, though of a version that is not read: a draft of the IETF, or
/// one of Google's.
pub fn is_foreign_version(datagram: &[u8]) -> bool {
    let number = long_header_version(datagram).or_else(|| public_header_version(datagram));
    number.is_some_and(|number| match number.to_be_bytes() {
        // draft-ietf-quic-transport-NN; the last was 34.
        [0xff, 0, 0, draft] => (1..=34).contains(&draft),
        // Q043, T051.
        [b'Q' | b'T', b'0', tens, units] => tens.is_ascii_digit() && units.is_ascii_digit(),
        _ => false,
    })
}

/// The four bytes behind the first, if its highest bit is set (RFC 8999 §5.1). So it was in all drafts, and is in Google's
/// versions from Q044 on.
fn long_header_version(datagram: &[u8]) -> Option<u32> {
    let &[first, a, b, c, d] = datagram.first_chunk()?;
    (first & 0x80 != 0).then_some(u32::from_be_bytes([a, b, c, d]))
}

/// The version in a public header, which Google's versions up to Q043 have: one byte of flags (a version, no reset, a
/// connection id), the connection id, the version.
fn public_header_version(datagram: &[u8]) -> Option<u32> {
    let &[flags, _, _, _, _, _, _, _, _, a, b, c, d] = datagram.first_chunk()?;
    (flags & 0xcb == 0x09).then_some(u32::from_be_bytes([a, b, c, d]))
}

/// Whether the first bits are 01, those of a packet with a short header (RFC 9000 §17.3): one inside a connection.
pub fn is_short_header(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xc0 == 0x40)
}
