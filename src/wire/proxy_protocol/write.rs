//! PROXY protocol headers as a sender writes them: for a client, or for the sender itself. No TLVs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::V2_SIGNATURE;

/// Version 2, command LOCAL or PROXY (§2.2).
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;

/// Transport protocols, as the lower half of a byte (§2.2).
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

/// A connection's or a flow's two ends: the client, and where it wanted to go.
pub type Ends = (SocketAddr, SocketAddr);

/// A version 1 header (§2.1); without ends `UNKNOWN`, which speaks for the sender.
pub fn v1(ends: Option<Ends>) -> Vec<u8> {
    let Some((src, dest)) = ends.map(one_family) else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if src.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", src.ip(), dest.ip(), src.port(), dest.port()).into_bytes()
}

/// A version 2 header (§2.2); without ends the command is LOCAL, as in a health check.
pub fn v2(ends: Option<Ends>) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    match ends {
        Some(ends) => extend_v2(&mut header, ends, STREAM),
        None => header.extend([V2_LOCAL, 0, 0, 0]),
    }
    header
}

/// The version 2 header that stands before each datagram. Version 1 has none.
pub fn v2_datagram(ends: Ends) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    extend_v2(&mut header, ends, DATAGRAM);
    header
}

fn extend_v2(header: &mut Vec<u8>, ends: Ends, transport: u8) {
    let (src, dest) = one_family(ends);
    // Family and the length of two addresses and two ports.
    let (family, len) = if src.is_ipv4() { (0x10, 12) } else { (0x20, 36) };
    header.extend([V2_PROXY, family | transport, 0, len]);
    for ip in [src.ip(), dest.ip()] {
        match ip {
            IpAddr::V4(ip) => header.extend(ip.octets()),
            IpAddr::V6(ip) => header.extend(ip.octets()),
        }
    }
    header.extend(src.port().to_be_bytes());
    header.extend(dest.port().to_be_bytes());
}

/// A header has room for one family: where they differ, IPv4 is written as v4-mapped IPv6.
fn one_family((src, dest): Ends) -> Ends {
    if src.is_ipv4() == dest.is_ipv4() {
        return (src, dest);
    }
    (mapped(src), mapped(dest))
}

fn mapped(addr: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Parse;
    use crate::wire::proxy_protocol::{Endpoints, Header, parse};

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let check = |ends: Option<(&str, &str)>, read: Option<(&str, &str)>| {
            let addrs = |(src, dest): (&str, &str)| (src.parse().unwrap(), dest.parse().unwrap());
            let endpoints = match read.map(addrs) {
                Some((src, dest)) => Endpoints::Tcp { src, dest },
                None => Endpoints::Local,
            };
            for header in [v1(ends.map(addrs)), v2(ends.map(addrs))] {
                let expected = Header { len: header.len(), endpoints: endpoints.clone() };
                assert_eq!(parse(&header), Parse::Complete(expected), "{}", header.escape_ascii());
            }
        };
        let v4 = Some(("192.0.2.1:51234", "198.51.100.2:443"));
        let v6 = Some(("[2001:db8::1]:65535", "[2001:db8::2]:1"));
        check(None, None);
        check(v4, v4);
        check(v6, v6);
        let mixed = Some(("192.0.2.1:51234", "[2001:db8::2]:443"));
        check(mixed, Some(("[::ffff:192.0.2.1]:51234", "[2001:db8::2]:443")));
    }

    #[test]
    fn a_header_for_datagrams_differs_in_the_transport_alone() {
        for (src, dest) in
            [("192.0.2.1:51234", "198.51.100.2:443"), ("[2001:db8::1]:65535", "[2001:db8::2]:1")]
        {
            let (src, dest) = (src.parse().unwrap(), dest.parse().unwrap());
            let (stream, datagram) = (v2(Some((src, dest))), v2_datagram((src, dest)));
            let endpoints = Endpoints::Udp { src, dest };
            assert_eq!(parse(&datagram), Parse::Complete(Header { len: datagram.len(), endpoints }));
            assert_eq!((datagram[13], &datagram[14..]), (stream[13] + 1, &stream[14..]));
        }
    }

    /// The document's own example of a line, and the bytes of its §2.2.
    #[test]
    fn headers_are_those_of_the_document() {
        let ends = ("255.255.255.255:65535".parse().unwrap(), "255.255.255.255:65535".parse().unwrap());
        assert_eq!(v1(Some(ends)), b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
        let ends = ("192.0.2.1:258".parse().unwrap(), "198.51.100.2:443".parse().unwrap());
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\x01\xbb";
        assert_eq!(v2(Some(ends)), expected);
        assert_eq!(v2(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
