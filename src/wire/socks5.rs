//! SOCKS 5 (RFC 1928) with its user name and password (RFC 1929), as a server receives it.
//!
//! Reads one message at the front of a connection and says how long it is; what stands behind it is the next message, or
//! the client's own bytes already. A command, a method or a kind of address that nobody here knows is a well-formed
//! message, so that it can be answered as the standard says. Of a datagram it reads the header. Reserved bytes are not looked
//! at. SOCKS 4 and GSSAPI (RFC 1961) are not read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Parse;
use super::cursor::{Cursor, Short};

/// First byte of a greeting, a request and a reply.
pub const VERSION: u8 = 5;
/// First byte of RFC 1929's messages.
const PASSWORD_VERSION: u8 = 1;
/// Longest message of a client in bytes: user name and password of 255 bytes each.
pub const MAX_MESSAGE: usize = 3 + 2 * u8::MAX as usize;
/// The bound address of a reply that has none to tell.
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How a client says who it is (RFC 1928 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It does not.
    NoAuthentication = 0,
    /// By a user name and a password.
    UserPassword = 2,
}

/// A client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Bytes it takes at the front.
    pub len: usize,
    /// Numbers of methods as offered; there may be none.
    methods: Box<[u8]>,
}

impl Greeting {
    /// Whether the client can do this.
    pub fn offers(&self, method: Method) -> bool {
        self.methods.contains(&(method as u8))
    }
}

/// A client's answer to [`Method::UserPassword`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Bytes they take at the front.
    pub len: usize,
    /// Of up to 255 bytes, in no particular character set; curl and others send empty ones, too.
    pub user: &'a [u8],
    /// The same.
    pub password: &'a [u8],
}

/// Without the password: what is debugged ends up in logs.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// What a client asks for (RFC 1928 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A connection to a server.
    Connect,
    /// A connection from a server.
    Bind,
    /// A way for datagrams.
    UdpAssociate,
    /// Nothing that the standard knows.
    Unknown(u8),
}

/// An address as a client names it (RFC 1928 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A v4-mapped one is left as it is.
    Ip(IpAddr),
    /// 1 to 255 bytes that ought to be a name.
    Domain(Box<[u8]>),
    /// Of a kind that the standard does not know. Its length is not known either.
    Unknown(u8),
}

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes it takes at the front; of one with an unknown kind of address, those that could be read.
    pub len: usize,
    /// What it asks for.
    pub command: Command,
    /// Where to.
    pub address: Address,
    /// On which port; 0 where the kind of address is unknown.
    pub port: u16,
}

/// A client's datagram for a server (RFC 1928 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Everything before the payload.
    pub header: &'a [u8],
    /// Which part of a larger datagram it is; 0 for one that is whole.
    pub fragment: u8,
    /// Where to; of a known kind.
    pub address: Address,
    /// On which port.
    pub port: u16,
    /// What the server is to get.
    pub payload: &'a [u8],
}

/// What a client is told of its request (RFC 1928 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The connection stands.
    Succeeded = 0,
    /// It does not, for a reason that has no number.
    GeneralFailure = 1,
    /// The rules say no.
    NotAllowed = 2,
    /// There is no way to the network.
    NetworkUnreachable = 3,
    /// There is no such host, or no way to it.
    HostUnreachable = 4,
    /// The host refused.
    ConnectionRefused = 5,
    /// By its name the way was too long; servers and clients mean by it that the time was.
    TtlExpired = 6,
    /// The command cannot be had.
    CommandNotSupported = 7,
    /// The kind of address is unknown.
    AddressTypeNotSupported = 8,
}

/// Parses the greeting at the front of `bytes` (RFC 1928 §3). Malformed is another version.
pub fn parse_greeting(bytes: &[u8]) -> Parse<Greeting> {
    parse(bytes, VERSION, |cursor| {
        let methods = cursor.vec8()?.rest().into();
        Ok(Some(Greeting { len: consumed(bytes, cursor), methods }))
    })
}

/// Parses the user name and password at the front of `bytes` (RFC 1929 §2). Malformed is another version.
pub fn parse_credentials(bytes: &[u8]) -> Parse<Credentials<'_>> {
    parse(bytes, PASSWORD_VERSION, |cursor| {
        let user = cursor.vec8()?.rest();
        let password = cursor.vec8()?.rest();
        Ok(Some(Credentials { len: consumed(bytes, cursor), user, password }))
    })
}

/// Parses the request at the front of `bytes` (RFC 1928 §4). Malformed are another version and an empty name.
pub fn parse_request(bytes: &[u8]) -> Parse<Request> {
    parse(bytes, VERSION, |cursor| {
        let command = match cursor.u8()? {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::UdpAssociate,
            other => Command::Unknown(other),
        };
        let _reserved = cursor.u8()?;
        let Some(address) = parse_address(cursor)? else { return Ok(None) };
        let port = if let Address::Unknown(_) = address { 0 } else { cursor.u16()? };
        Ok(Some(Request { len: consumed(bytes, cursor), command, address, port }))
    })
}

/// Parses a datagram; `None` for one whose header is not whole, has an empty name or an unknown kind of address.
pub fn parse_datagram(bytes: &[u8]) -> Option<Datagram<'_>> {
    let mut cursor = Cursor::new(bytes);
    let _reserved = cursor.u16().ok()?;
    let fragment = cursor.u8().ok()?;
    let address = parse_address(&mut cursor).ok()??;
    if let Address::Unknown(_) = address {
        return None;
    }
    let port = cursor.u16().ok()?;
    let (header, payload) = bytes.split_at_checked(consumed(bytes, &cursor))?;
    Some(Datagram { header, fragment, address, port, payload })
}

/// An address behind its kind, or `None` for an empty name.
fn parse_address(cursor: &mut Cursor<'_>) -> Result<Option<Address>, Short> {
    Ok(Some(match cursor.u8()? {
        1 => Address::Ip(Ipv4Addr::from(cursor.array::<4>()?).into()),
        3 => match cursor.vec8()?.rest() {
            [] => return Ok(None),
            name => Address::Domain(name.into()),
        },
        4 => Address::Ip(Ipv6Addr::from(cursor.array::<16>()?).into()),
        other => Address::Unknown(other),
    }))
}

/// A message that begins with `version`; `body` reads what follows, or says `None` to what no continuation can mend.
fn parse<'a, T>(
    bytes: &'a [u8],
    version: u8,
    body: impl FnOnce(&mut Cursor<'a>) -> Result<Option<T>, Short>,
) -> Parse<T> {
    let mut cursor = Cursor::new(bytes);
    match cursor.u8() {
        Err(Short) => return Parse::NeedMore,
        Ok(first) if first != version => return Parse::Malformed,
        Ok(_) => {}
    }
    match body(&mut cursor) {
        Err(Short) => Parse::NeedMore,
        Ok(None) => Parse::Malformed,
        Ok(Some(message)) => Parse::Complete(message),
    }
}

/// Bytes of `bytes` that `cursor` has read.
fn consumed(bytes: &[u8], cursor: &Cursor<'_>) -> usize {
    bytes.len().saturating_sub(cursor.rest().len())
}

/// The answer to a greeting: the method to go on with, or that none will do (RFC 1928 §3).
pub fn method_reply(method: Option<Method>) -> [u8; 2] {
    [VERSION, method.map_or(0xff, |method| method as u8)]
}

/// The answer to credentials (RFC 1929 §2).
pub fn credentials_reply(right: bool) -> [u8; 2] {
    [PASSWORD_VERSION, u8::from(!right)]
}

/// The answer to a request (RFC 1928 §6). `bound` is where the connection to the server comes from, or where datagrams are
/// to be sent; zeros stand for none.
pub fn reply(status: Status, bound: Option<SocketAddr>) -> Vec<u8> {
    let mut out = vec![VERSION, status as u8, 0];
    push_address(&mut out, bound.unwrap_or(UNSPECIFIED));
    out
}

/// What stands before the payload of a datagram that `server` has sent (RFC 1928 §7).
pub fn datagram_header(server: SocketAddr) -> Vec<u8> {
    let mut out = vec![0, 0, 0];
    push_address(&mut out, server);
    out
}

/// The same for a server whose address is not known. A name has at most 255 bytes here, as clients cannot send a longer one.
pub fn datagram_header_of_name(name: &str, port: u16) -> Vec<u8> {
    let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut out = vec![0, 0, 0, 3, len];
    out.extend(name.bytes().take(len.into()));
    out.extend(port.to_be_bytes());
    out
}

fn push_address(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(1);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
    }
    out.extend(addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every prefix of what is read wants more, and what stands behind it changes nothing.
    #[track_caller]
    fn check<T: PartialEq + fmt::Debug>(parse: fn(&[u8]) -> Parse<T>, bytes: &[u8], want: Parse<T>) {
        assert_eq!(parse(bytes), want, "{}", bytes.escape_ascii());
        if want == Parse::NeedMore {
            return;
        }
        assert_eq!(parse(&[bytes, &[0, 5, 0xff]].concat()), want, "{} and more", bytes.escape_ascii());
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), Parse::NeedMore, "{len} bytes of {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn greetings() {
        let methods =
            |methods: &[u8]| Parse::Complete(Greeting { len: 2 + methods.len(), methods: methods.into() });
        check(parse_greeting, b"\x05\x01\x00", methods(b"\0"));
        check(parse_greeting, b"\x05\x03\x00\x01\x02", methods(b"\x00\x01\x02"));
        check(parse_greeting, b"\x05\x00", methods(b""));
        let most = [&[5, 255][..], &[7; 255]].concat();
        check(parse_greeting, &most, methods(&[7; 255]));
        check(parse_greeting, b"\x05\x02\x00", Parse::NeedMore);
        for other in [b"\x04".as_slice(), b"G", b"\x16", b"\x01"] {
            check(parse_greeting, other, Parse::Malformed);
        }
        let Parse::Complete(greeting) = parse_greeting(b"\x05\x02\x01\x02") else { panic!() };
        assert!(greeting.offers(Method::UserPassword) && !greeting.offers(Method::NoAuthentication));
    }

    #[test]
    fn credentials() {
        let parts =
            |bytes: &[u8]| parse_credentials(bytes).map(|c| (c.len, c.user.to_vec(), c.password.to_vec()));
        let pair = |user: &[u8], password: &[u8]| {
            Parse::Complete((3 + user.len() + password.len(), user.to_vec(), password.to_vec()))
        };
        check(parts, b"\x01\x05alice\x06secret", pair(b"alice", b"secret"));
        check(parts, b"\x01\x01a\x00", pair(b"a", b""));
        check(parts, b"\x01\x00\x00", pair(b"", b""));
        let longest = [&[1, 255][..], &[b'u'; 255], &[255], &[0; 255]].concat();
        assert_eq!(longest.len(), MAX_MESSAGE);
        check(parts, &longest, pair(&[b'u'; 255], &[0; 255]));
        check(parts, b"\x05", Parse::Malformed);
        let Parse::Complete(credentials) = parse_credentials(b"\x01\x05alice\x06secret") else { panic!() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn requests() {
        let request = |len, command, address, port| Parse::Complete(Request { len, command, address, port });
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let name = |name: &[u8]| Address::Domain(name.into());
        let connect = Command::Connect;
        check(
            parse_request,
            b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb",
            request(10, connect, ip("192.0.2.1"), 443),
        );
        let v6 = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50";
        check(parse_request, v6, request(22, connect, ip("2001:db8::1"), 80));
        check(parse_request, b"\x05\x01\x00\x03\x03a.b\x00\x16", request(10, connect, name(b"a.b"), 22));
        let longest = [b"\x05\x01\x00\x03\xff", &[b'a'; 255][..], b"\x00\x01"].concat();
        check(parse_request, &longest, request(262, connect, name(&[b'a'; 255]), 1));
        check(parse_request, b"\x05\x02\x00\x01\0\0\0\0\0\0", request(10, Command::Bind, ip("0.0.0.0"), 0));
        check(
            parse_request,
            b"\x05\x03\x00\x01\0\0\0\0\0\0",
            request(10, Command::UdpAssociate, ip("0.0.0.0"), 0),
        );
        check(
            parse_request,
            b"\x05\xf0\x07\x01\0\0\0\0\0\0",
            request(10, Command::Unknown(0xf0), ip("0.0.0.0"), 0),
        );
        check(parse_request, b"\x05\x01\x00\x02", request(4, connect, Address::Unknown(2), 0));
        check(parse_request, b"\x05\x01\x00\x03\x00", Parse::Malformed);
        check(parse_request, b"\x04", Parse::Malformed);
    }

    #[test]
    fn replies() {
        assert_eq!(method_reply(Some(Method::NoAuthentication)), [5, 0]);
        assert_eq!(method_reply(Some(Method::UserPassword)), [5, 2]);
        assert_eq!(method_reply(None), [5, 0xff]);
        assert_eq!((credentials_reply(true), credentials_reply(false)), ([1, 0], [1, 1]));
        let check = |status, bound: &str, want: &[u8]| assert_eq!(reply(status, bound.parse().ok()), want);
        check(Status::Succeeded, "192.0.2.1:258", b"\x05\x00\x00\x01\xc0\x00\x02\x01\x01\x02");
        check(Status::Succeeded, "[::ffff:192.0.2.1]:258", b"\x05\x00\x00\x01\xc0\x00\x02\x01\x01\x02");
        check(Status::Succeeded, "[::2]:1", b"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x00\x01");
        assert_eq!(reply(Status::TtlExpired, None), b"\x05\x06\x00\x01\0\0\0\0\0\0");
    }

    #[test]
    fn datagrams() {
        let check = |header: &[u8], fragment, address: Address, port| {
            for payload in [&b""[..], b"payload", &[0; 3]] {
                let bytes = [header, payload].concat();
                let want = Datagram { header, fragment, address: address.clone(), port, payload };
                assert_eq!(parse_datagram(&bytes), Some(want), "{}", bytes.escape_ascii());
            }
            for len in 0..header.len() {
                assert_eq!(parse_datagram(&header[..len]), None, "{len} bytes of {}", header.escape_ascii());
            }
        };
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        check(b"\0\0\0\x01\xc0\x00\x02\x01\x01\xbb", 0, ip("192.0.2.1"), 443);
        check(b"\0\0\x07\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35", 7, ip("2001:db8::1"), 53);
        check(b"\xff\xff\0\x03\x03a.b\0\0", 0, Address::Domain(b"a.b"[..].into()), 0);
        let longest = [b"\0\0\xff\x03\xff", &[b'a'; 255][..], b"\xff\xff"].concat();
        check(&longest, 0xff, Address::Domain([b'a'; 255].into()), 65535);
        for wrong in
            [&b"\0\0\0\x03\0\0\x35payload"[..], b"\0\0\0\x02\x7f\0\0\x01\0\x35payload", b"\0\0\0\0\0\0\0"]
        {
            assert_eq!(parse_datagram(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn headers_of_answers_are_read_as_what_they_say() {
        for server in ["192.0.2.1:53", "[2001:db8::1]:443"] {
            let server: SocketAddr = server.parse().unwrap();
            let bytes = [datagram_header(server), b"payload".to_vec()].concat();
            let datagram = parse_datagram(&bytes).unwrap();
            assert_eq!((datagram.fragment, datagram.payload), (0, &b"payload"[..]));
            assert_eq!((datagram.address, datagram.port), (Address::Ip(server.ip()), server.port()));
        }
        assert_eq!(
            datagram_header("[::ffff:192.0.2.1]:1".parse().unwrap()),
            b"\0\0\0\x01\xc0\0\x02\x01\0\x01"
        );
        assert_eq!(datagram_header_of_name("a.example", 53), b"\0\0\0\x03\x09a.example\0\x35");
    }
}
