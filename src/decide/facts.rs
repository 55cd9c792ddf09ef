//! What is known of a connection, as the rules see it.

use std::net::IpAddr;

use super::device::Mac;
use super::week::WeekTime;

/// A fact that may not have been looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known<T> {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It was looked at and this traffic has none.
    Absent,
    /// It is this.
    Is(T),
}

impl<T> Known<T> {
    /// The value, if there is one.
    pub fn is(&self) -> Option<&T> {
        match self {
            Known::Is(value) => Some(value),
            Known::Unknown | Known::Absent => None,
        }
    }

    /// Whether nobody has looked yet.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Known::Unknown)
    }
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum L4 {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl L4 {
    /// As written in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            L4::Tcp => "tcp",
            L4::Udp => "udp",
        }
    }
}

/// What the first bytes turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum L5 {
    /// A TLS ClientHello over TCP.
    Tls,
    /// An HTTP/1 request.
    Http,
    /// A QUIC Initial.
    Quic,
    /// A DNS query, over UDP or TCP.
    Dns,
    /// An NTP packet.
    Ntp,
    /// None of these, or silence.
    None,
}

impl L5 {
    /// As written in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            L5::Tls => "tls",
            L5::Http => "http",
            L5::Quic => "quic",
            L5::Dns => "dns",
            L5::Ntp => "ntp",
            L5::None => "none",
        }
    }

    /// The field `encrypted`; also whether there is a ClientHello.
    pub fn is_encrypted(self) -> bool {
        matches!(self, L5::Tls | L5::Quic)
    }
}

/// What is spoken where requests can be read: in clear, or inside of an intercepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum L7 {
    /// HTTP/1.
    Http,
    /// HTTP/2.
    H2,
    /// Neither, inside of an intercepted connection.
    None,
}

impl L7 {
    /// As written in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            L7::Http => "http",
            L7::H2 => "h2",
            L7::None => "none",
        }
    }
}

/// Encrypted ClientHello in a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ech {
    /// No such extension.
    None,
    /// The extension is there, but the SNI is no known ECH public name: browsers send it everywhere.
    Grease,
    /// The extension is there and the SNI is a public name: the real name is inside.
    Real,
}

impl Ech {
    /// As written in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Ech::None => "none",
            Ech::Grease => "grease",
            Ech::Real => "real",
        }
    }
}

/// What the server's certificate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cert {
    /// It leads to a trusted root, is for that name, and counts now.
    Valid,
    /// One of these is not so.
    Invalid,
    /// Nobody could find out.
    Unknown,
}

impl Cert {
    /// Every one, in the order of declaration.
    pub const ALL: [Cert; 3] = [Cert::Valid, Cert::Invalid, Cert::Unknown];

    /// As written in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Cert::Valid => "valid",
            Cert::Invalid => "invalid",
            Cert::Unknown => "unknown",
        }
    }
}

/// The facts of one connection or request. Names are as [`super::name::normalise`] leaves them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The client's address; never v4-mapped.
    pub src: Known<IpAddr>,
    /// The client's port.
    pub sport: Known<u16>,
    /// The address to be dialled; never v4-mapped. It also tells `protoL3`.
    pub dest: Known<IpAddr>,
    /// The port to be dialled.
    pub port: Known<u16>,
    /// Transport protocol towards the client.
    pub l4: Known<L4>,
    /// From the first bytes. It also tells `encrypted`.
    pub l5: Known<L5>,
    /// The trusted name: SNI, or a name that the proxy itself resolves.
    pub name: Known<Box<str>>,
    /// Absent where there is no ClientHello.
    pub ech: Known<Ech>,
    /// The encrypted_server_name extension of old drafts; absent where there is no ClientHello.
    pub esni: Known<bool>,
    /// What the server shows for that name; absent where there is no ClientHello.
    pub cert: Known<Cert>,
    /// The authenticated name, as configured; absent where nobody is asked for one.
    pub user: Known<Box<str>>,
    /// Local time.
    pub time: Known<WeekTime>,
    /// The client's hardware address; absent where it is no neighbour.
    pub mac: Known<Mac>,
    /// The client's device, as [`super::device::fold_device`] leaves its name; [`super::device::UNKNOWN`] where it has none.
    pub device: Known<Box<str>>,
    /// What the request at hand is made in. Where the first bytes are known and this is not, there is none that anybody
    /// reads: rules with `protoL7`, `host` or `path` are passed over.
    pub l7: Known<L7>,
    /// The name of the host that the request is for; absent where it is none.
    pub host: Known<Box<str>>,
    /// The request's path, as [`super::request::normalise_path`] leaves it.
    pub path: Known<Box<str>>,
}

impl Facts {
    /// Whether nobody reads requests here: see [`Facts::l7`].
    pub(super) fn has_no_request(&self) -> bool {
        match self.l7 {
            Known::Is(_) => false,
            Known::Absent => true,
            Known::Unknown => !self.l5.is_unknown(),
        }
    }
}
