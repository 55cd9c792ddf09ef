//! PROXY protocol: a trusted sender says who the client is and where it wants to go.

use std::net::SocketAddr;

use super::{Wish, canonical};
use crate::wire::Parse;
use crate::wire::proxy_protocol::{Endpoints, Header, parse};

/// What a header means for the connection that began with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introduction {
    /// The sender speaks for a client.
    Client {
        /// Who counts as the source from here on; never v4-mapped.
        src: SocketAddr,
        /// Where it wants to go; always an address.
        wish: Wish,
    },
    /// The sender speaks for itself (LOCAL, UNKNOWN, or its own connection), and its destination is this listener: nothing is dialled, nothing is wrong.
    HealthCheck,
    /// From a sender that is not trusted, or of a kind that a TCP connection cannot have.
    Refused,
}

/// Reads `header` as sent by a peer that is `trusted` or not. The one who is not is refused whatever it says.
///
/// `is_itself`: whether a source and a destination are those of the connection that the header came by. Version 1 has no
/// LOCAL, so the document has senders fill these in for their health checks (section 2.1).
pub fn introduction(
    header: &Header,
    trusted: bool,
    is_itself: impl Fn(SocketAddr, SocketAddr) -> bool,
) -> Introduction {
    match header.endpoints {
        _ if !trusted => Introduction::Refused,
        Endpoints::Local => Introduction::HealthCheck,
        Endpoints::Tcp { src, dest } => match (canonical(src), canonical(dest)) {
            (src, dest) if is_itself(src, dest) => Introduction::HealthCheck,
            (src, dest) => Introduction::Client { src, wish: Wish::Address(dest) },
        },
        Endpoints::Udp { .. } | Endpoints::Unsupported => Introduction::Refused,
    }
}

/// Whom a datagram from a trusted sender speaks for, where that wants to go, and the header's length. Nothing for one that
/// speaks for nobody, or that begins with no whole header for a datagram.
pub fn datagram(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, usize)> {
    match parse(bytes) {
        Parse::Complete(Header { len, endpoints: Endpoints::Udp { src, dest } }) => {
            Some((canonical(src), canonical(dest), len))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_for_whom() {
        let check = |line: &str, trusted, want: Introduction| {
            let Parse::Complete(header) = parse(line.as_bytes()) else { panic!("{line}") };
            let connection = ["192.0.2.9:40000", "127.0.0.1:4129"].map(|addr| addr.parse().unwrap());
            let is_itself = |src, dest| [src, dest] == connection;
            assert_eq!(introduction(&header, trusted, is_itself), want, "{line} {trusted}");
        };
        let client = |src: &str, dest: &str| Introduction::Client {
            src: src.parse().unwrap(),
            wish: Wish::Address(dest.parse().unwrap()),
        };
        let v4 = "PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n";
        let mapped = "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:127.0.0.1 51234 443\r\n";
        let unknown = "PROXY UNKNOWN\r\n";
        check(v4, true, client("192.0.2.1:51234", "198.51.100.2:443"));
        check(mapped, true, client("192.0.2.1:51234", "127.0.0.1:443"));
        check(unknown, true, Introduction::HealthCheck);
        let itself = "PROXY TCP4 192.0.2.9 127.0.0.1 40000 4129\r\n";
        check(itself, true, Introduction::HealthCheck);
        check("PROXY TCP6 ::ffff:192.0.2.9 ::ffff:127.0.0.1 40000 4129\r\n", true, Introduction::HealthCheck);
        check(
            "PROXY TCP4 192.0.2.9 127.0.0.1 40001 4129\r\n",
            true,
            client("192.0.2.9:40001", "127.0.0.1:4129"),
        );
        check(itself, false, Introduction::Refused);
        check(v4, false, Introduction::Refused);
        check(unknown, false, Introduction::Refused);
        let unix = Header { len: 232, endpoints: Endpoints::Unsupported };
        assert_eq!(introduction(&unix, true, |_, _| false), Introduction::Refused);
    }
}
