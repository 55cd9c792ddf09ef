//! The sockets of connections that are being made: one race of a [`Dialer`]'s attempts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::connect::dial::{Dial, DialError, Dialer};
use crate::sys::socket::{self, Outgoing};

/// One race.
#[derive(Debug)]
pub(super) struct Dialling {
    dialer: Dialer,
    attempts: Vec<(u8, TcpStream)>,
}

/// How a race stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Undecided; look again at this time at the latest.
    Until(Instant),
    /// Nobody won.
    Failed(DialError),
}

impl Dialling {
    /// A race to one of `addrs`.
    pub fn new(addrs: Vec<SocketAddr>, rounds: u32, timeout: Duration) -> Self {
        Dialling { dialer: Dialer::new(addrs, rounds, timeout), attempts: Vec::new() }
    }

    /// Starts what is to be started now. `token` gives the poll token of an attempt.
    pub fn go_on(
        &mut self,
        now: Instant,
        out: &Outgoing,
        registry: &Registry,
        token: impl Fn(u8) -> Token,
    ) -> Standing {
        loop {
            match self.dialer.poll(now) {
                Dial::Start { attempt, addr } => match start(addr, out, registry, token(attempt)) {
                    Ok(stream) => self.attempts.push((attempt, stream)),
                    Err(error) => self.dialer.failed(attempt, &error, now),
                },
                Dial::Abandon { attempt } => self.attempts.retain(|(a, _)| *a != attempt),
                Dial::Wait { until } => return Standing::Until(until),
                Dial::Failed(error) => return Standing::Failed(error),
            }
        }
    }

    /// The poll reported `attempt`: its socket, if it won.
    pub fn reported(&mut self, attempt: u8, writable: bool, failed: bool, now: Instant) -> Option<TcpStream> {
        let at = self.attempts.iter().position(|(a, _)| *a == attempt)?;
        if failed {
            let (_, stream) = self.attempts.swap_remove(at);
            let error = match stream.take_error() {
                Ok(Some(error)) | Err(error) => error,
                Ok(None) => io::Error::from(io::ErrorKind::ConnectionReset),
            };
            self.dialer.failed(attempt, &error, now);
            return None;
        }
        // A connecting socket becomes writable, without error or hang-up, only by being connected.
        if !writable {
            return None;
        }
        self.dialer.connected(attempt);
        let (_, stream) = self.attempts.swap_remove(at);
        self.attempts.clear();
        Some(stream)
    }
}

fn start(addr: SocketAddr, out: &Outgoing, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let mut stream = TcpStream::from_std(socket::tcp_connect(addr, out)?);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}
