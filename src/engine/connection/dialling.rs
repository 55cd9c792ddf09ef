//! The sockets of connections that are being made: one race of a [`Dialer`]'s attempts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::connect::dial::{Dial, DialError, Dialer};
use crate::relay::End;
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
        // The news may be late and of another socket with this token, the server of the request before: the one at hand is
        // asked itself.
        let (_, stream) = self.attempts.get(at)?;
        if failed {
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                self.attempts.swap_remove(at);
                self.dialer.failed(attempt, &error, now);
            }
            return None;
        }
        if !writable || stream.peer_addr().is_err() {
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

/// Whether a kept connection leads to one of `addrs` and its server has neither closed it nor said anything unasked.
pub(super) fn leads_to(server: &End, addrs: &[SocketAddr]) -> bool {
    server.stream.peer_addr().is_ok_and(|peer| addrs.contains(&peer))
        && matches!(server.stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The poll may still have news of a socket that had the same token: the server of the request before, which ended its
    /// connection just when the next request came.
    #[test]
    fn news_of_another_socket_is_neither_success_nor_failure() {
        let poll = mio::Poll::new().unwrap();
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let now = Instant::now();
        let mut dialling = Dialling::new(vec![refusing], 1, Duration::from_secs(2));
        let token = |attempt: u8| Token(usize::from(attempt));
        assert!(matches!(
            dialling.go_on(now, &Outgoing::default(), poll.registry(), token),
            Standing::Until(_)
        ));
        let (attempt, stream) = &dialling.attempts[0];
        let attempt = *attempt;
        // Neither connected nor failed, as far as anybody can see.
        assert!(stream.take_error().unwrap().is_some());
        assert!(dialling.reported(attempt, true, false, now).is_none());
        assert!(dialling.reported(attempt, true, true, now).is_none());
        assert!(matches!(
            dialling.go_on(now, &Outgoing::default(), poll.registry(), token),
            Standing::Until(_)
        ));
    }
}
