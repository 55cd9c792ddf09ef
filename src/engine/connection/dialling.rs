//! The sockets of connections that are being made: one race of a [`Dialer`]'s attempts.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::connect::dial::{Dial, DialError, Dialer, MAX_ATTEMPTS};
use crate::relay::End;
use crate::sys::socket::{self, Outgoing};

/// Poll tokens of one connection: 0 is the client, the others are attempts to reach the server in two races.
pub(in crate::engine) const ROLES: usize = 64;
const _: () = assert!(1 + 2 * (MAX_ATTEMPTS as usize) < ROLES);

/// Which of two ranges of roles a race's attempts have. The races of a connection take turns with them, so that late
/// news of the server of the request before is not taken for news of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Race {
    second: bool,
}

impl Race {
    /// The one that follows.
    pub fn next(self) -> Self {
        Race { second: !self.second }
    }

    /// The role of an attempt.
    pub fn role(self, attempt: u8) -> usize {
        1 + usize::from(self.second) * usize::from(MAX_ATTEMPTS) + usize::from(attempt)
    }

    /// The attempt that has this role, if it is one of this race.
    pub fn attempt(self, role: usize) -> Option<u8> {
        let attempt = u8::try_from(role.checked_sub(self.role(0))?).ok()?;
        (attempt < MAX_ATTEMPTS).then_some(attempt)
    }
}

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

/// Whether a kept connection leads to one of `addrs` and its server has neither closed it nor said anything unasked.
pub(super) fn leads_to(server: &End, addrs: &[SocketAddr]) -> bool {
    server.stream.peer_addr().is_ok_and(|peer| addrs.contains(&peer))
        && matches!(server.stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The poll may still have news of the server of the request before, which ended its connection just when the next
    /// request came: it must not be taken for success or failure of the attempt that followed.
    #[test]
    fn roles_of_two_races_in_a_row_do_not_meet() {
        let first = Race::default();
        let second = first.next();
        for attempt in 0..MAX_ATTEMPTS {
            let role = first.role(attempt);
            assert!((1..ROLES).contains(&role) && (1..ROLES).contains(&second.role(attempt)));
            assert_eq!(first.attempt(role), Some(attempt));
            assert_eq!(second.attempt(role), None);
        }
        assert_eq!(first.attempt(0), None);
        assert_eq!(first.attempt(ROLES - 1), None);
    }
}
