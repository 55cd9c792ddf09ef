//! TLS ClientHello (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2): what it says, over any number of records.
//!
//! Reads the one message that a client sends in clear, and nothing behind it. Only the structure decides whether bytes
//! are a hello: a value that no server would take (an empty cipher list, an unknown version) is still a hello, because
//! a filter that is stricter than some server lets that server's clients pass as something else.
//!
//! - [`ClientHello::parse`] reads the body of a whole handshake message; TLS over TCP and QUIC share it.
//! - [`HelloReader`] finds that message in a TCP stream that arrives in pieces.
//! - [`ech`] reads what DNS publishes so that the real hello can be encrypted.

pub mod ech;
mod hello;
mod ja4;
mod record;
#[cfg(test)]
pub(crate) mod tests;

pub use hello::{Carrier, ClientHello, MAX_ALPN};
pub use record::{HelloReader, MAX_EMPTY_RECORDS, Progress, RECORD_HEADER_LEN};

/// A protocol version as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0x0300 => f.write_str("ssl3"),
            0x0301 => f.write_str("1.0"),
            0x0302 => f.write_str("1.1"),
            0x0303 => f.write_str("1.2"),
            0x0304 => f.write_str("1.3"),
            other => write!(f, "0x{other:04x}"),
        }
    }
}

/// Whether a code point is reserved to be ignored: 0x0a0a, 0x1a1a, … 0xfafa (RFC 8701 §2).
fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
