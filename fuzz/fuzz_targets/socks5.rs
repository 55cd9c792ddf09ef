//! SOCKS 5: one answer for every prefix of each message, and what is read is written again as the same bytes; of datagrams
//! the header.
#![no_main]

use std::fmt::Debug;
use std::net::IpAddr;

use calamary::accept::Wish;
use calamary::accept::socks5::{datagram_wish, sender_port, wish};
use calamary::decide::name::normalise;
use calamary::wire::Parse;
use calamary::wire::dns::is_host_name;
use calamary::wire::socks5::{
    Address, Command, Datagram, MAX_MESSAGE, Method, Request, datagram_header, parse_credentials,
    parse_datagram, parse_greeting, parse_request,
};
use calamary_fuzz::{Random, prefixes};
use libfuzzer_sys::fuzz_target;

/// Prefixes that are parsed.
const MAX_PREFIXES: usize = 256;

fuzz_target!(|data: &[u8]| {
    if let Some(greeting) = whole(data, parse_greeting, |greeting| greeting.len) {
        let methods = &data[2..greeting.len];
        assert_eq!(usize::from(data[1]), methods.len());
        assert_eq!(greeting.offers(Method::NoAuthentication), methods.contains(&0));
        assert_eq!(greeting.offers(Method::UserPassword), methods.contains(&2));
    }
    let owned =
        |bytes: &[u8]| parse_credentials(bytes).map(|c| (c.len, [c.user.to_vec(), c.password.to_vec()]));
    if let Some((len, parts)) = whole(data, owned, |(len, _)| *len) {
        let mut written = vec![1];
        for part in parts {
            written.push(part.len() as u8);
            written.extend(part);
        }
        assert_eq!(data[..len], written);
    }
    if let Some(request) = whole(data, parse_request, |request| request.len) {
        let mut written = write(&request);
        // Reserved, and not looked at.
        written[2] = data[2];
        assert_eq!(data[..request.len], written);
        check_wish(&request);
        let client = "192.0.2.1".parse().unwrap();
        let port = sender_port(&request, client);
        assert!(port.is_err() || port == Ok(None) || port == Ok(Some(request.port)));
    }
    if let Some(datagram) = parse_datagram(data) {
        check_datagram(data, &datagram);
    }
});

/// The message at the front of `data`, if it is whole.
fn whole<T: Debug + PartialEq>(
    data: &[u8],
    parse: fn(&[u8]) -> Parse<T>,
    len_of: fn(&T) -> usize,
) -> Option<T> {
    let outcome = parse(data);
    for len in prefixes(data.len(), MAX_PREFIXES, &mut Random::of(data)) {
        let early = parse(&data[..len]);
        assert!(early == Parse::NeedMore || early == outcome, "{len} bytes say {early:?}");
    }
    assert!(data.len() < MAX_MESSAGE || outcome != Parse::NeedMore);
    let Parse::Complete(message) = outcome else { return None };
    let len = len_of(&message);
    assert!(len <= data.len().min(MAX_MESSAGE));
    assert_eq!(parse(&data[..len - 1]), Parse::NeedMore);
    Some(message)
}

fn write(request: &Request) -> Vec<u8> {
    let command = match request.command {
        Command::Connect => 1,
        Command::Bind => 2,
        Command::UdpAssociate => 3,
        Command::Unknown(command) => command,
    };
    let mut out = vec![5, command, 0];
    match &request.address {
        Address::Ip(IpAddr::V4(ip)) => out.extend([&[1][..], &ip.octets()].concat()),
        Address::Ip(IpAddr::V6(ip)) => out.extend([&[4][..], &ip.octets()].concat()),
        Address::Domain(name) => out.extend([&[3, name.len() as u8][..], name].concat()),
        Address::Unknown(kind) => {
            out.push(*kind);
            return out;
        }
    }
    out.extend(request.port.to_be_bytes());
    out
}

fn check_datagram(data: &[u8], datagram: &Datagram<'_>) {
    let Datagram { header, fragment, address, port, payload } = datagram;
    assert_eq!(data, [*header, *payload].concat());
    assert_eq!(data[2], *fragment);
    assert_eq!(parse_datagram(header).map(|d| (d.header, d.payload.len())), Some((*header, 0)));
    for len in prefixes(header.len(), MAX_PREFIXES, &mut Random::of(data)) {
        assert!(len == header.len() || parse_datagram(&header[..len]).is_none(), "{len} bytes");
    }
    // Behind its first three bytes it is like a request.
    let request = Request { len: 0, command: Command::Connect, address: address.clone(), port: *port };
    assert_eq!(header[3..], write(&request)[3..]);
    assert_eq!(datagram_wish(datagram), wish(&request).ok().filter(|_| *fragment == 0));
    if let Some(Wish::Address(addr)) = datagram_wish(datagram) {
        let answer = datagram_header(addr);
        assert_eq!(parse_datagram(&answer).and_then(|answer| datagram_wish(&answer)), Some(Wish::Address(addr)));
    }
}

fn check_wish(request: &Request) {
    match wish(request) {
        Ok(Wish::Address(addr)) => {
            assert_eq!((addr.port(), addr.ip()), (request.port, addr.ip().to_canonical()));
        }
        Ok(Wish::Name { host, port }) => {
            assert_eq!(port, request.port);
            // Neither an address for somebody else, nor another name.
            assert!(host.parse::<IpAddr>().is_err(), "{host}");
            assert_eq!(normalise(host.as_bytes()).as_deref(), Some(host.strip_suffix('.').unwrap_or(&host)));
            assert!(is_host_name(&host), "{host}");
        }
        Ok(Wish::Lost) => panic!("a request says where to"),
        Err(_) => return,
    }
    assert!(request.command == Command::Connect && request.port != 0);
}
