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
    /// As dialled.
    pub addr: SocketAddr,
    /// Its socket.
    pub end: End,
    /// It has answered a request on this connection already.
    pub reused: bool,
    /// By which the socket is recognised as ours, as long as it is open.
    trace: Trace,
}

impl Server {
    /// A connection that was just made; `ready` is what the poll said with it.
    pub fn new(addr: SocketAddr, stream: TcpStream, trace: Trace, ready: Ready) -> Self {
        let end = End { stream: Stream::new(stream), ready: Ready { writable: true, ..ready } };
        Server { addr, end, reused: false, trace }
    }

    /// Sends what comes before the client's bytes; false if it does not get through. A fresh socket has room for so little.
    pub fn greet(&mut self, greeting: &[u8]) -> bool {
        greeting.is_empty() || self.end.say(greeting)
    }

    /// Our own end of it.
    pub fn local(&self) -> SocketAddr {
        self.trace.local()
    }

    /// Whether it leads to one of `addrs` and has neither been closed nor sent anything unasked.
    pub fn leads_to(&self, addrs: &[SocketAddr]) -> bool {
        addrs.contains(&self.addr)
            && matches!(self.end.stream.socket().peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes its end a reset.
    pub fn reset_on_close(&self) {
        // Where that fails the server sees an ordinary end instead.
        let _ = socket::reset_on_close(self.end.stream.socket());
    }
}
