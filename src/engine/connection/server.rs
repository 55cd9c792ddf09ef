//! The server's side of a connection: one socket at a time, kept between the requests of an HTTP proxy connection.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;

use crate::engine::dialled::Trace;
use crate::relay::stream::Stream;
use crate::relay::{End, Ready};
use crate::sys::socket;

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Server {
    /// Its socket.
    pub end: End,
    /// It has answered a request on this connection already.
    pub reused: bool,
    /// By which the socket is recognised as ours, as long as it is open.
    _trace: Trace,
}

impl Server {
    /// A connection that was just made; `ready` is what the poll said with it.
    pub fn new(stream: TcpStream, trace: Trace, ready: Ready) -> Self {
        let end = End { stream: Stream::new(stream), ready: Ready { writable: true, ..ready } };
        Server { end, reused: false, _trace: trace }
    }

    /// Whether it leads to one of `addrs` and has neither been closed nor sent anything unasked.
    pub fn leads_to(&self, addrs: &[SocketAddr]) -> bool {
        let socket = self.end.stream.socket();
        socket.peer_addr().is_ok_and(|peer| addrs.contains(&peer))
            && matches!(socket.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes its end a reset.
    pub fn reset_on_close(&self) {
        // Where that fails the server sees an ordinary end instead.
        let _ = socket::reset_on_close(self.end.stream.socket());
    }
}
