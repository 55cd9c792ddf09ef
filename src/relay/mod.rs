//! Moving bytes once the verdict is in.
//!
//! [`direction::Direction`] moves bytes one way; two of them make a [`tunnel::Tunnel`], and an [`exchange::Exchange`] is
//! two of them under HTTP's framing. Each of their ends is a [`stream::Stream`]: a socket, perhaps with TLS over it.
//! Nothing here knows a rule, and nothing decides when it is polled.

pub mod direction;
pub mod exchange;
pub mod pipes;
pub mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
pub mod tls;
pub mod tunnel;

use std::io;
use std::sync::Arc;

use mio::event::Event;

use self::stream::Stream;
use crate::sys::limits::Descriptors;

/// What one worker lends to whichever session it is busy with.
#[derive(Debug)]
pub struct Loan {
    /// Small transfers go through it; it holds nothing between two calls.
    pub scratch: Box<[u8]>,
    /// Pipes for large ones.
    pub pipes: pipes::Pool,
    /// Turns of TLS handshakes that may be made before others get theirs. Such a turn may hold a signature, which takes
    /// milliseconds, or a second with a large key on a small router.
    pub handshakes: u32,
}

impl Loan {
    /// Bytes that one `recv` takes at most.
    pub const SCRATCH: usize = 64 * 1024;

    /// Handshakes of one round of a worker: whoever relays waits for one at most.
    pub const HANDSHAKES: u32 = 1;

    /// A buffer and an empty pool that takes its pipes from `descriptors`.
    pub fn new(descriptors: Arc<Descriptors>) -> Self {
        let scratch = vec![0; Self::SCRATCH].into_boxed_slice();
        Loan { scratch, pipes: pipes::Pool::new(descriptors), handshakes: Self::HANDSHAKES }
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

/// One end of a relay: a stream, and what is known of the readiness of its socket.
#[derive(Debug)]
pub struct End {
    /// The stream.
    pub stream: Stream,
    /// Readable: a read of the stream may find something. Writable: a write of the socket may find room.
    pub ready: Ready,
}

impl End {
    /// Takes in that a read gave `n` bytes where it could have given `most`: a short read has emptied a socket, and what
    /// comes later raises a new edge. TLS may hold more, so that only a read that finds nothing tells.
    pub fn was_read(&mut self, n: usize, most: usize) {
        if n < most && !self.ready.read_closed && self.stream.is_bare() {
            self.ready.readable = false;
        }
    }

    /// Whether everything that was written has left this process, if need be by sending it now.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn flush(&mut self) -> io::Result<bool> {
        if !self.stream.holds() {
            return Ok(true);
        }
        if !self.ready.writable {
            return Ok(false);
        }
        let sent = self.stream.flush();
        self.unless_full(sent)
    }

    /// Tells the peer that no more comes; false if that is under way only, and [`flush`](Self::flush) goes on with it.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn shutdown(&mut self) -> io::Result<bool> {
        let told = self.stream.shutdown();
        self.unless_full(told)
    }

    /// Whether all of `bytes`, a small answer, went out at once.
    pub fn say(&mut self, bytes: &[u8]) -> bool {
        matches!(self.stream.write(bytes), Ok(n) if n == bytes.len()) && !self.stream.holds()
    }

    fn unless_full(&mut self, result: io::Result<()>) -> io::Result<bool> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.ready.writable = false;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
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
