//! The sockets of connections that are being made: one race of a [`Dialer`]'s attempts.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Token};

use crate::connect::dial::{Dial, DialError, Dialer, MAX_ATTEMPTS};
use crate::decide::rules::Locals;
use crate::engine::admission::Extra;
use crate::engine::dialled::Trace;
use crate::engine::tools::Tools;
use crate::session::Machine;
use crate::sys::socket;

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
    attempts: Vec<Attempt>,
    /// An address turned out to be this machine's.
    own: bool,
    /// The server gets the client's bytes as soon as the connection stands.
    data_waits: bool,
}

#[derive(Debug)]
struct Attempt {
    number: u8,
    addr: SocketAddr,
    socket: Socket,
    /// For a second one beside the one that every session may have.
    #[expect(dead_code)]
    extra: Option<Extra>,
}

/// A socket of ours and its entry among those of this program.
pub(super) type Socket = (TcpStream, Trace);

/// How a race stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Undecided; look again at this time at the latest.
    Until(Instant),
    /// Nobody won.
    Failed(DialError),
    /// Nobody won, and an address was this machine's, though nobody had said so.
    Own,
}

impl Dialling {
    /// A race as the dialer wants it. `data_waits`: there is something to send to whoever wins.
    pub fn new(dialer: Dialer, data_waits: bool) -> Self {
        Dialling { dialer, attempts: Vec::new(), own: false, data_waits }
    }

    /// Starts what is to be started now, for `session`. `token` gives the poll token of an attempt.
    pub fn go_on<M: Machine>(
        &mut self,
        session: &mut M,
        tools: &Tools<'_, M>,
        token: impl Fn(u8) -> Token,
    ) -> Standing {
        loop {
            match self.dialer.poll(tools.now) {
                Dial::Start { attempt, addr } => self.start(attempt, addr, token(attempt), session, tools),
                // Its round is over.
                Dial::Abandon { attempt } => {
                    if let Some(at) = self.attempts.iter().position(|a| a.number == attempt) {
                        session.unreached(self.attempts.swap_remove(at).addr, DialError::TimedOut, tools.now);
                    }
                }
                Dial::Wait { until } => return Standing::Until(until),
                Dial::Failed(_) if self.own => return Standing::Own,
                Dial::Failed(error) => return Standing::Failed(error),
            }
        }
    }

    fn start<M: Machine>(
        &mut self,
        number: u8,
        addr: SocketAddr,
        token: Token,
        session: &mut M,
        tools: &Tools<'_, M>,
    ) {
        let first = self.attempts.is_empty();
        let extra = if first { None } else { Extra::take(&tools.shared.admission.descriptors) };
        if !first && extra.is_none() {
            return self.dialer.put_off(number, tools.now);
        }
        match start(addr, token, self.data_waits, tools) {
            Ok(Some(socket)) => self.attempts.push(Attempt { number, addr, socket, extra }),
            Ok(None) => {
                self.own = true;
                self.dialer.failed(number, &io::ErrorKind::PermissionDenied.into(), tools.now);
            }
            Err(error) => {
                session.unreached(addr, DialError::from(&error), tools.now);
                self.dialer.failed(number, &error, tools.now);
            }
        }
    }

    /// The poll reported `attempt`: the server and its socket, if it won.
    pub fn reported(
        &mut self,
        attempt: u8,
        writable: bool,
        failed: bool,
        session: &mut impl Machine,
        now: Instant,
    ) -> Option<(SocketAddr, Socket)> {
        let at = self.attempts.iter().position(|a| a.number == attempt)?;
        if failed {
            let Attempt { addr, socket: (stream, _), .. } = self.attempts.swap_remove(at);
            let error = match stream.take_error() {
                Ok(Some(error)) | Err(error) => error,
                Ok(None) => io::Error::from(io::ErrorKind::ConnectionReset),
            };
            session.unreached(addr, DialError::from(&error), now);
            self.dialer.failed(attempt, &error, now);
            return None;
        }
        // A connecting socket becomes writable, without error or hang-up, only by being connected.
        if !writable {
            return None;
        }
        self.dialer.connected(attempt);
        let Attempt { addr, socket, .. } = self.attempts.swap_remove(at);
        self.attempts.clear();
        Some((addr, socket))
    }
}

/// Begins to connect; nothing if that leads to this machine.
fn start<M: Machine>(
    addr: SocketAddr,
    token: Token,
    data_waits: bool,
    tools: &Tools<'_, M>,
) -> io::Result<Option<Socket>> {
    let connect = || socket::tcp_connect(addr, tools.outgoing, data_waits);
    let (stream, trace) = tools.shared.dialled.dial(tools.worker, addr, connect)?;
    if is_own(trace.local(), addr, tools.locals) {
        let _ = socket::reset_on_close(&stream);
        return Ok(None);
    }
    let mut stream = TcpStream::from_std(stream);
    tools.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(Some((stream, trace)))
}

/// Whether a socket with the address `local` leads to this machine itself, where it must not. The kernel knows more of its
/// own addresses than the interfaces have, such as those of a local route, and then chooses the same for both ends.
pub(in crate::engine) fn is_own(local: SocketAddr, remote: SocketAddr, locals: &Locals) -> bool {
    let same = local.ip().to_canonical() == remote.ip().to_canonical();
    same && (!locals.allow_local || locals.tcp_ports.contains(&remote.port()))
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
