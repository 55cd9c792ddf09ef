//! HTTP proxy: the request's target is the wish.

use std::net::SocketAddr;

use super::{Wish, canonical};
use crate::wire::http1::{Host, Reject, Request, Target};

/// Where `request` wants to go: the authority of an absolute URL or of CONNECT, never its Host field.
///
/// # Errors
/// 400 for a request that is meant for a server.
pub fn wish(request: &Request) -> Result<Wish, Reject> {
    let (host, port) = match &request.target {
        Target::Absolute { host, port } | Target::Authority { host, port } => (host, *port),
        Target::Origin | Target::Asterisk => {
            return Err(Reject {
                status: 400,
                reason: "this is a proxy: it needs an absolute URL or CONNECT",
            });
        }
    };
    Ok(match host {
        Host::Ip(ip) => Wish::Address(canonical(SocketAddr::new(*ip, port))),
        Host::Name(name) => Wish::Name { host: name.clone(), port },
    })
}

/// Whether no request begins with this byte, nor the empty lines that may stand before one: TLS, SOCKS.
pub fn is_no_text(first: u8) -> bool {
    !first.is_ascii_graphic() && !first.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1::parse_request;

    #[test]
    fn records_and_socks_are_no_text() {
        for text in ["GET http://www.example.com/", "connect a:443", "\r\nGET", "\nGET", " GET", "!"] {
            assert!(!is_no_text(text.as_bytes()[0]), "{text}");
        }
        for byte in [22, 21, 0x80, 0xff, 4, 5, 0] {
            assert!(is_no_text(byte), "{byte}");
        }
    }

    #[test]
    fn the_target_is_the_wish() {
        let check = |line: &str, want: Option<Wish>| {
            let head = format!("{line} HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
            assert_eq!(wish(&parse_request(head.as_bytes()).unwrap()).ok(), want, "{line}");
        };
        let name = |host: &str, port| Some(Wish::Name { host: host.into(), port });
        let address = |addr: &str| Some(Wish::Address(addr.parse().unwrap()));
        check("GET http://Example.com/", name("example.com", 80));
        check("GET http://example.com:8080/", name("example.com", 8080));
        check("CONNECT example.com:443", name("example.com", 443));
        check("CONNECT 192.0.2.1:443", address("192.0.2.1:443"));
        check("CONNECT [2001:db8::1]:443", address("[2001:db8::1]:443"));
        check("CONNECT [::ffff:127.0.0.1]:22", address("127.0.0.1:22"));
        check("GET /", None);
        check("OPTIONS *", None);
    }
}
