//! One file per way in: how a client says where it wants to go.
//!
//! Everything here is pure: sockets are asked and bytes are read elsewhere, and what they gave is passed in.

pub mod http;
pub mod https;
pub mod proxy_protocol;
pub mod socks5;
pub mod transparent;

use std::net::SocketAddr;

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wish {
    /// To an address; never v4-mapped.
    Address(SocketAddr),
    /// To a host whose name the proxy is asked to resolve.
    Name {
        /// In lower case; a trailing dot is kept.
        host: Box<str>,
        /// TCP or UDP port.
        port: u16,
    },
    /// Nobody knows any more: a DNAT elsewhere took the destination away, or the listener was contacted itself.
    Lost,
}

/// The same endpoint with a v4-mapped IPv6 address written as the IPv4 address that it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
