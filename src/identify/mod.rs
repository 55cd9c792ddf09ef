//! The first bytes of a connection, or datagrams of a flow, in, what it is out.
//!
//! Sees bytes only: no socket, no clock, no log. Silence and deadlines are the session's business.

pub mod datagram;
mod dns;
mod http;
#[cfg(feature = "quic")]
mod quic;
pub mod tcp;
#[cfg(test)]
mod tests;

use crate::wire::tls::ClientHello;

/// The word for DNS.
pub const DNS: &str = "dns";

/// Which parsers are switched on (`parse.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsers {
    /// TLS ClientHello over TCP.
    pub tls: bool,
    /// HTTP/1 requests.
    pub http: bool,
    /// QUIC Initials.
    pub quic: bool,
    /// DNS over UDP and TCP.
    pub dns: bool,
    /// NTP.
    pub ntp: bool,
}

impl Default for Parsers {
    fn default() -> Self {
        Parsers { tls: true, http: true, quic: true, dns: true, ntp: true }
    }
}

/// What a connection or a flow is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A TLS ClientHello.
    Tls(Box<ClientHello>),
    /// An HTTP/1 request.
    Http {
        /// The authority of the one valid Host header, as sent: a place to dial, never a name to trust.
        host: Option<Box<str>>,
    },
    /// A client's first QUIC packets.
    Quic {
        /// `None` for versions that are known by number only: drafts and Google's.
        hello: Option<Box<ClientHello>>,
    },
    /// A DNS query.
    Dns {
        /// The first question's name, as text.
        query: Option<Box<str>>,
    },
    /// An NTP packet.
    Ntp,
    /// None of the protocols that are switched on.
    None,
}

impl Identity {
    /// As `protoL5` names it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Identity::Tls(_) => "tls",
            Identity::Http { .. } => "http",
            Identity::Quic { .. } => "quic",
            Identity::Dns { .. } => DNS,
            Identity::Ntp => "ntp",
            Identity::None => "none",
        }
    }

    /// The ClientHello, over TCP or QUIC, if there is one.
    pub fn hello(&self) -> Option<&ClientHello> {
        match self {
            Identity::Tls(hello) | Identity::Quic { hello: Some(hello) } => Some(hello),
            _ => None,
        }
    }
}

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// More bytes could still change the answer.
    NeedMore {
        /// The bytes already commit to TLS or HTTP: the message must be whole in time, or it is denied.
        begun: bool,
    },
    /// The answer; further bytes cannot change it.
    Identified(Identity),
    /// Began as a protocol, but can never be whole within the bounds.
    TooLarge,
}
