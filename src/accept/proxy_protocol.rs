//! PROXY protocol: a trusted sender says who the client is and where it wants to go.

use std::net::SocketAddr;

use super::{Wish, canonical};
use crate::wire::proxy_protocol::{Endpoints, Header};

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
    /// The sender speaks for itself, and its destination is this listener: nothing is dialled, nothing is wrong.
    HealthCheck,
    /// From a sender that is not trusted, or of a kind that a TCP connection cannot have.
    Refused,
}

/// Reads `header` as sent by a peer that is `trusted` or not. The one who is not is refused whatever it says.
pub fn introduction(header: &Header, trusted: bool) -> Introduction {
    match header.endpoints {
        _ if !trusted => Introduction::Refused,
        Endpoints::Local => Introduction::HealthCheck,
        Endpoints::Tcp { src, dest } => {
            Introduction::Client { src: canonical(src), wish: Wish::Address(canonical(dest)) }
        }
        Endpoints::Unsupported => Introduction::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Parse, proxy_protocol::parse};

    #[test]
    fn who_speaks_for_whom() {
        let check = |line: &str, trusted, want: Introduction| {
            let Parse::Complete(header) = parse(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(introduction(&header, trusted), want, "{line} {trusted}");
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
        check(v4, false, Introduction::Refused);
        check(unknown, false, Introduction::Refused);
        let unix = Header { len: 232, endpoints: Endpoints::Unsupported };
        assert_eq!(introduction(&unix, true), Introduction::Refused);
    }
}
