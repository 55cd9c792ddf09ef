//! What a flow tells its engine.

use std::net::SocketAddr;

use crate::session::CloseReason;

/// What is to be done with a flow.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing, until more comes or [`Flow::due`](super::Flow::due) has passed.
    Wait,
    /// The datagram that has just come goes on to the server.
    Pass,
    /// These go on to the server, in this order.
    Send(Vec<Vec<u8>>),
    /// Find the addresses of a name.
    Resolve(Box<str>),
    /// Take a socket to the first of these addresses that can be had, then say [`Flow::connected`](super::Flow::connected).
    Connect(Vec<SocketAddr>),
    /// The flow is over.
    End(CloseReason),
    /// The flow is over before it was let in. Its client is told so, if it understands anything.
    Refuse(CloseReason, Option<Vec<u8>>),
}

/// What becomes of a server's datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its client gets it.
    Same,
    /// Its client gets this in its place.
    Other(Vec<u8>),
    /// Nobody gets it: the rule that let the flow in allows no more bytes now.
    Lost,
}
