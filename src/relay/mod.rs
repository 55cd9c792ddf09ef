//! Moving bytes once the verdict is in.
//!
//! [`direction::Direction`] moves bytes one way; two of them make a [`tunnel::Tunnel`], and an [`exchange::Exchange`] is
//! two of them under HTTP's framing. Nothing here knows a rule, and nothing decides when it is polled.

pub mod direction;
pub mod exchange;
pub mod pipes;
#[cfg(test)]
mod tests;
pub mod tunnel;

use std::io;
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpStream;

use crate::sys::limits::Descriptors;

/// What one worker lends to whichever session it is busy with.
#[derive(Debug)]
pub struct Loan {
    /// Small transfers go through it; it holds nothing between two calls.
    pub scratch: Box<[u8]>,
    /// Pipes for large ones.
    pub pipes: pipes::Pool,
}

impl Loan {
    /// Bytes that one `recv` takes at most.
    pub const SCRATCH: usize = 64 * 1024;

    /// A buffer and an empty pool that takes its pipes from `descriptors`.
    pub fn new(descriptors: Arc<Descriptors>) -> Self {
        let scratch = vec![0; Self::SCRATCH].into_boxed_slice();
        Loan { scratch, pipes: pipes::Pool::new(descriptors) }
    }
}

/// What the edge-triggered poll has said of one socket and a call has not disproved since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// A read may find something.
    pub readable: bool,
    /// A write may find room.
    pub writable: bool,
    /// The peer has closed or broken its direction: there will be no further event for what is left to read.
    pub read_closed: bool,
}

impl Ready {
    /// Nothing heard yet.
    pub const NOT: Ready = Ready { readable: false, writable: false, read_closed: false };

    /// Takes in what the poll says.
    pub fn merge(&mut self, event: Ready) {
        self.readable |= event.readable | event.read_closed;
        self.writable |= event.writable;
        self.read_closed |= event.read_closed;
    }
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed() || event.is_error(),
        }
    }
}

/// One end of a relay: a socket, what is known of its readiness.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub stream: TcpStream,
    /// Its readiness.
    pub ready: Ready,
}

/// Which end failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that asked.
    Client,
    /// The one that was asked for.
    Server,
}

/// A relay ended before its time.
#[derive(Debug)]
pub struct Broken {
    /// Whose socket failed.
    pub side: Side,
    /// How.
    pub error: io::Error,
}
