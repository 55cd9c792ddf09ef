//! What a session owes its client before the client's own bytes mean anything.

use std::net::SocketAddr;

use crate::wire::http1::{self, Request};
use crate::wire::socks5::{self, Status};

/// What the client still waits for before its own bytes mean anything.
#[derive(Debug)]
pub(super) enum Owed {
    /// Nothing: its bytes are the connection.
    Nothing,
    /// The answer to a CONNECT.
    Established,
    /// The reply to a SOCKS request.
    SocksReply,
    /// The response to a request.
    Response(Box<Request>),
}

impl Owed {
    /// What a client that waits for a tunnel is told when it has it; `local` is our end of the connection to the server,
    /// if there is one already.
    pub(super) fn granted(&self, local: Option<SocketAddr>) -> Vec<u8> {
        match self {
            Owed::Established => http1::ESTABLISHED.to_vec(),
            Owed::SocksReply => socks5::reply(Status::Succeeded, local),
            Owed::Nothing | Owed::Response(_) => Vec::new(),
        }
    }
}
