//! SOCKS 5: the request says where to, or for datagrams each of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Wish, canonical};
use crate::wire::http1::{Authority, Host};
use crate::wire::socks5::{Address, Command, Datagram, Request, Status};

/// Where `request` wants to go. A name that is written as an address is an address.
///
/// # Errors
/// What the client is told: 7 for a command that leads nowhere, 8 for an unknown kind of address, 1 for a port or a name
/// that nothing can have.
pub fn wish(request: &Request) -> Result<Wish, Status> {
    match request.command {
        Command::Connect => {}
        Command::Bind | Command::UdpAssociate | Command::Unknown(_) => {
            return Err(Status::CommandNotSupported);
        }
    }
    destination(&request.address, request.port)
}

/// Where `datagram` wants to go; nothing for one that goes nowhere, and for a fragment (RFC 1928 §7: those who do not put
/// fragments together drop them).
pub fn datagram_wish(datagram: &Datagram<'_>) -> Option<Wish> {
    if datagram.fragment != 0 {
        return None;
    }
    destination(&datagram.address, datagram.port).ok()
}

/// The port from which the client that asked for an association sends its datagrams, if it says so. Clients that do not know
/// send zeros, and some an address that is not theirs: that of a server, or behind a NAT one from there.
///
/// # Errors
/// What the client is told: 8 for an unknown kind of address.
pub fn sender_port(request: &Request, client: IpAddr) -> Result<Option<u16>, Status> {
    match request.address {
        Address::Ip(ip) if ip.is_unspecified() || ip.to_canonical() == client => {
            Ok((request.port != 0).then_some(request.port))
        }
        Address::Ip(_) | Address::Domain(_) => Ok(None),
        Address::Unknown(_) => Err(Status::AddressTypeNotSupported),
    }
}

fn destination(address: &Address, port: u16) -> Result<Wish, Status> {
    let host = match address {
        Address::Ip(ip) => Host::Ip(*ip),
        Address::Domain(name) => host(name).ok_or(Status::GeneralFailure)?,
        Address::Unknown(_) => return Err(Status::AddressTypeNotSupported),
    };
    match (host, port) {
        (_, 0) => Err(Status::GeneralFailure),
        (Host::Ip(ip), port) => Ok(Wish::Address(canonical(SocketAddr::new(ip, port)))),
        (Host::Name(host), port) => Ok(Wish::Name { host, port }),
    }
}

/// The same names as in an HTTP authority, and IPv6 with or without brackets.
fn host(name: &[u8]) -> Option<Host> {
    let text = std::str::from_utf8(name).ok()?;
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(Host::Ip(ip.into()));
    }
    let authority = Authority::parse(text).ok()?;
    authority.port.is_none().then_some(authority.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: Command, address: Address, port: u16) -> Request {
        Request { len: 0, command, address, port }
    }

    #[test]
    fn the_request_is_the_wish() {
        let check = |address: Address, port, want: Result<Wish, Status>| {
            assert_eq!(wish(&request(Command::Connect, address.clone(), port)), want, "{address:?} {port}");
        };
        let domain = |name: &str| Address::Domain(name.as_bytes().into());
        let name = |host: &str| Ok(Wish::Name { host: host.into(), port: 443 });
        let address = |addr: &str| Ok(Wish::Address(addr.parse().unwrap()));
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        check(ip("192.0.2.1"), 443, address("192.0.2.1:443"));
        check(ip("2001:db8::1"), 443, address("[2001:db8::1]:443"));
        check(ip("::ffff:127.0.0.1"), 443, address("127.0.0.1:443"));
        check(domain("WWW.Example.com"), 443, name("www.example.com"));
        check(domain("a_b.example."), 443, name("a_b.example."));
        check(domain("192.0.2.1"), 443, address("192.0.2.1:443"));
        check(domain("2001:db8::1"), 443, address("[2001:db8::1]:443"));
        check(domain("[2001:db8::1]"), 443, address("[2001:db8::1]:443"));
        check(domain("::ffff:127.0.0.1"), 443, address("127.0.0.1:443"));
        for bad in ["a:80", "u@a", "127.1", "0x7f000001", "a b", "a\0.example", "b\u{fc}cher.example", "."] {
            check(domain(bad), 443, Err(Status::GeneralFailure));
        }
        check(Address::Domain([0xff, 0xfe].into()), 443, Err(Status::GeneralFailure));
        check(domain("example.com"), 0, Err(Status::GeneralFailure));
        check(ip("192.0.2.1"), 0, Err(Status::GeneralFailure));
        check(Address::Unknown(2), 0, Err(Status::AddressTypeNotSupported));
    }

    #[test]
    fn there_is_only_connect() {
        for command in [Command::Bind, Command::UdpAssociate, Command::Unknown(0xf0)] {
            for address in [Address::Unknown(9), Address::Ip("192.0.2.1".parse().unwrap())] {
                assert_eq!(wish(&request(command, address, 443)), Err(Status::CommandNotSupported));
            }
        }
    }

    #[test]
    fn each_datagram_says_where_to() {
        let check = |fragment, address: &Address, port, want: Option<Wish>| {
            let datagram = Datagram { header: &[], fragment, address: address.clone(), port, payload: &[] };
            assert_eq!(datagram_wish(&datagram), want, "{datagram:?}");
        };
        let ip = Address::Ip("::ffff:192.0.2.1".parse().unwrap());
        let name = Address::Domain(b"WWW.example.com"[..].into());
        check(0, &ip, 53, Some(Wish::Address("192.0.2.1:53".parse().unwrap())));
        check(0, &name, 53, Some(Wish::Name { host: "www.example.com".into(), port: 53 }));
        check(1, &ip, 53, None);
        check(0x80, &name, 53, None);
        check(0, &ip, 0, None);
        check(0, &Address::Domain(b"a b"[..].into()), 53, None);
    }

    #[test]
    fn a_client_says_its_port_or_does_not() {
        let check = |address: Address, port, want| {
            let request = request(Command::UdpAssociate, address.clone(), port);
            let client = "192.0.2.1".parse().unwrap();
            assert_eq!(sender_port(&request, client), want, "{address:?} {port}");
        };
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        check(ip("0.0.0.0"), 0, Ok(None));
        check(ip("0.0.0.0"), 4000, Ok(Some(4000)));
        check(ip("::"), 4000, Ok(Some(4000)));
        check(ip("192.0.2.1"), 4000, Ok(Some(4000)));
        check(ip("::ffff:192.0.2.1"), 4000, Ok(Some(4000)));
        check(ip("192.0.2.2"), 4000, Ok(None));
        check(Address::Domain(b"www.example.com"[..].into()), 443, Ok(None));
        check(Address::Unknown(2), 0, Err(Status::AddressTypeNotSupported));
    }
}
