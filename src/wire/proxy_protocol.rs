//! PROXY protocol, versions 1 and 2.

use std::net::SocketAddr;

use super::Parse;

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
    let _ = bytes;
    Parse::Malformed
}
