//! A SOCKS 5 client that says exactly which bytes go out when (RFC 1928).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};

use super::client::{connect, expect_bytes};

/// The greeting of a client that cannot authenticate, and the answer to it.
pub const GREETING: [u8; 3] = [5, 1, 0];
pub const CHOSEN: [u8; 2] = [5, 0];

/// The reply to a request that was dialled nowhere yet, or not at all.
pub fn reply(status: u8) -> Vec<u8> {
    vec![5, status, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// A request with a command, for `host` as an address or else as a name.
pub fn request(command: u8, host: &str, port: u16) -> Vec<u8> {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => [&[5, command, 0, 1][..], &ip.octets(), &port.to_be_bytes()].concat(),
        Ok(IpAddr::V6(ip)) => [&[5, command, 0, 4][..], &ip.octets(), &port.to_be_bytes()].concat(),
        Err(_) => request_by_name(command, host, port),
    }
}

/// The same for a host that is sent as a name, whatever it is.
pub fn request_by_name(command: u8, host: &str, port: u16) -> Vec<u8> {
    [&[5, command, 0, 3, host.len() as u8][..], host.as_bytes(), &port.to_be_bytes()].concat()
}

/// A client that has been greeted.
pub fn greeted(proxy: impl ToSocketAddrs) -> TcpStream {
    let mut stream = connect(proxy);
    stream.write_all(&GREETING).unwrap();
    expect_bytes(&mut stream, &CHOSEN);
    stream
}

/// Reads a reply: its status and the bound address.
pub fn read_reply(stream: &mut impl Read) -> (u8, SocketAddr) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut octets = vec![0; if head[3] == 4 { 16 } else { 4 }];
    stream.read_exact(&mut octets).unwrap();
    let mut port = [0; 2];
    stream.read_exact(&mut port).unwrap();
    assert_eq!((head[0], head[2]), (5, 0), "{head:?}");
    let ip = match head[3] {
        1 => IpAddr::from(<[u8; 4]>::try_from(octets).unwrap()),
        4 => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        kind => panic!("a bound address of kind {kind}"),
    };
    (head[1], SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// Asks for a connection: the status, the bound address, and the connection.
pub fn ask(proxy: impl ToSocketAddrs, host: &str, port: u16) -> (u8, SocketAddr, TcpStream) {
    let mut stream = greeted(proxy);
    stream.write_all(&request(1, host, port)).unwrap();
    let (status, bound) = read_reply(&mut stream);
    (status, bound, stream)
}

/// A connection that must be granted.
pub fn tunnel(proxy: impl ToSocketAddrs, host: &str, port: u16) -> TcpStream {
    let (status, _, stream) = ask(proxy, host, port);
    assert_eq!(status, 0, "{host}:{port}");
    stream
}
