//! A redirector's session: every connection, and every flow of datagrams, goes to one of the configured servers, with a PROXY
//! header that says whose it is and where it was going.
//!
//! It looks at no byte, so protocols in which the server speaks first work, and it decides nothing: that is what the
//! servers are there for.

mod servers;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

pub use self::servers::{Select, Server, Servers, Standing};
use super::{CloseReason, Closing, Env, Machine, Record, Step, Wire};
use crate::accept::Wish;
use crate::config::Listener;
use crate::config::redirector::{HeaderVersion, OnFailure, RedirectPlan};
use crate::connect::dial::{DialError, Dialer};
use crate::connect::resolve::ResolveError;
use crate::decide::L4;
use crate::logging::Field;
use crate::metrics::Metrics;
use crate::wire::proxy_protocol::write;

/// One redirected connection until it is relayed.
#[derive(Debug)]
pub struct Redirection {
    plan: Arc<RedirectPlan>,
    client: SocketAddr,
    over_datagrams: bool,
    /// Where the client was going.
    dest: Option<SocketAddr>,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    /// Waiting for one of these.
    DiallingServers(Vec<(SocketAddr, Arc<Server>)>),
    /// Waiting for the original destination.
    DiallingDirectly,
    /// Relaying, through the server or directly.
    Open(Option<Arc<Server>>),
    Closed,
}

/// Where a connection goes in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a server.
    Forward,
    /// To the original destination, as no server answered.
    Direct,
    /// Nowhere.
    Refused(CloseReason),
}

impl Machine for Redirection {
    type Plan = RedirectPlan;
    type Verdict = Way;
    type Record = Kept;

    const READS: bool = false;
    const EXCHANGES: bool = false;
    const VERIFIES: bool = false;
    const RESOLVES: bool = false;
    const DATAGRAMS: bool = cfg!(feature = "udp");
    const PROBES: bool = false;

    fn new(plan: Arc<RedirectPlan>, listener: &Listener, client: SocketAddr, _now: Instant) -> Self {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        Redirection { plan, client, over_datagrams: listener.l4 == L4::Udp, dest: None, state: State::New }
    }

    fn plan(&self) -> &Arc<RedirectPlan> {
        &self.plan
    }

    fn client(&self) -> SocketAddr {
        self.client
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.dest
    }

    fn has_greeting(&self) -> bool {
        matches!(self.state, State::DiallingServers(_))
    }

    fn take_greeting(&mut self) -> Vec<u8> {
        match (&self.state, self.dest) {
            (State::Open(Some(_)), Some(dest)) if self.over_datagrams => {
                write::v2_datagram((self.client, dest))
            }
            (State::Open(Some(_)), Some(dest)) => match self.plan.header {
                HeaderVersion::V1 => write::v1(Some((self.client, dest))),
                HeaderVersion::V2 => write::v2(Some((self.client, dest))),
            },
            _ => Vec::new(),
        }
    }

    /// In the order of preference, whatever family a server's address has.
    fn dialer(&self, addrs: Vec<SocketAddr>, rounds: u32) -> Dialer {
        Dialer::in_order(addrs, rounds, self.service().timeouts.connect)
    }

    fn start(&mut self, wish: Wish, env: &mut Env<'_, Self>) -> Step {
        let Wish::Address(dest) = wish else { return self.refuse(CloseReason::NoDestination, env) };
        self.dest = Some(dest);
        let servers = &self.plan.servers;
        let candidates = servers.candidates(self.client.ip());
        if candidates.is_empty() {
            return self.without_servers(CloseReason::ResolveFailed);
        }
        if self.plan.on_failure == OnFailure::Direct && servers.all_down() {
            return self.without_servers(CloseReason::ConnectFailed);
        }
        let addrs = candidates.iter().map(|(address, _)| *address).collect();
        self.state = State::DiallingServers(candidates);
        Step::Dial(addrs)
    }

    fn comes_back(&mut self, wish: Wish, env: &mut Env<'_, Self>) -> Step {
        if let Wish::Address(dest) = wish {
            self.dest = Some(dest);
        }
        self.refuse(CloseReason::Denied, env)
    }

    fn leads_here(&mut self, env: &mut Env<'_, Self>) -> Step {
        self.refuse(CloseReason::Denied, env)
    }

    fn bytes(&mut self, _bytes: &[u8], _env: &mut Env<'_, Self>) -> Step {
        never_asked_for()
    }

    fn end_of_stream(&mut self, _env: &mut Env<'_, Self>) -> Step {
        never_asked_for()
    }

    fn deadline(&mut self, _env: &mut Env<'_, Self>) -> Step {
        never_asked_for()
    }

    fn resolved(&mut self, _result: Result<Vec<IpAddr>, ResolveError>, _env: &mut Env<'_, Self>) -> Step {
        never_asked_for()
    }

    fn unreached(&mut self, server: SocketAddr, error: DialError, now: Instant) {
        // Anything else is this machine's own trouble.
        if error != DialError::Other
            && let Some(server) = self.candidate(server)
        {
            server.failed(error.as_str(), now);
        }
    }

    fn connected(&mut self, server: SocketAddr, _local: SocketAddr, env: &mut Env<'_, Self>) -> Step {
        let taker = self.candidate(server).cloned();
        let way = match &taker {
            Some(taker) => {
                taker.took();
                Way::Forward
            }
            None => Way::Direct,
        };
        self.state = State::Open(taker);
        env.report.verdict(self, way);
        Step::Tunnel { to_server: Vec::new() }
    }

    fn dial_failed(&mut self, error: DialError, _env: &mut Env<'_, Self>) -> Step {
        match self.state {
            State::DiallingServers(_) => self.without_servers(error.into()),
            _ => self.close(error.into()),
        }
    }

    /// A connection ends with its server; a client that goes on sending datagrams from one port would never have another.
    fn is_reviewed(&self) -> bool {
        self.over_datagrams
    }

    fn review(&mut self, _env: &mut Env<'_, Self>) -> Option<CloseReason> {
        let why = if self.server().is_some() { CloseReason::ConnectFailed } else { CloseReason::Finished };
        self.would_go_elsewhere().then_some(why)
    }

    fn close(&mut self, reason: CloseReason) -> Step {
        self.state = State::Closed;
        let wire = match reason {
            CloseReason::ClientGone | CloseReason::Shutdown | CloseReason::Idle => Wire::Quiet,
            _ => Wire::Reset,
        };
        Step::Close(Closing { reason, wire })
    }
}

impl Redirection {
    /// The server that has this address, if it is one that is being dialled.
    fn candidate(&self, address: SocketAddr) -> Option<&Arc<Server>> {
        let State::DiallingServers(candidates) = &self.state else { return None };
        candidates.iter().find(|(other, _)| *other == address).map(|(_, server)| server)
    }

    /// No server takes the connection.
    fn without_servers(&mut self, reason: CloseReason) -> Step {
        match (self.plan.on_failure, self.dest) {
            (OnFailure::Direct, Some(dest)) => {
                self.state = State::DiallingDirectly;
                Step::Dial(vec![dest])
            }
            _ => self.close(reason),
        }
    }

    fn refuse(&mut self, reason: CloseReason, env: &mut Env<'_, Self>) -> Step {
        env.report.verdict(self, Way::Refused(reason));
        self.close(reason)
    }

    /// Whether its server is down, and another one is not; or it goes past all of them, and one is there again.
    fn would_go_elsewhere(&self) -> bool {
        let servers = &self.plan.servers;
        match &self.state {
            State::Open(Some(server)) => server.standing() == Standing::Down && !servers.all_down(),
            State::Open(None) => servers.iter().any(|server| server.standing() == Standing::Up),
            _ => false,
        }
    }

    fn server(&self) -> Option<&Arc<Server>> {
        let State::Open(server) = &self.state else { return None };
        server.as_ref()
    }
}

/// It never waits for bytes or addresses, so nothing of that kind can happen; if it did, the connection would just end.
fn never_asked_for() -> Step {
    debug_assert!(false, "a redirection asks for connections only");
    Step::Close(Closing { reason: CloseReason::Finished, wire: Wire::Reset })
}

/// What is kept of a redirection for the live table and its closing line.
#[derive(Debug, Default)]
pub struct Kept {
    dest: Option<SocketAddr>,
    server: Option<Arc<Server>>,
}

impl Record<Redirection> for Kept {
    fn word(way: Way) -> &'static str {
        match way {
            Way::Forward => "Forward",
            Way::Direct => "Direct",
            Way::Refused(_) => "Denied",
        }
    }

    fn fields(session: &Redirection, way: Way) -> Vec<Field<'_>> {
        let mut fields = Vec::with_capacity(2);
        if let Some(server) = session.server() {
            fields.push(("server", server.name().into()));
        }
        if let Way::Refused(reason) = way {
            fields.push(("reason", reason.as_str().into()));
        }
        fields.push(("sport", session.client.port().into()));
        fields
    }

    fn count(_session: &Redirection, _way: Way, _metrics: &Metrics) {}

    fn take_in(&mut self, session: &Redirection) {
        self.dest = session.dest;
        self.server = session.server().cloned();
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.dest
    }

    fn decision(&self) -> Option<Field<'_>> {
        self.server.as_ref().map(|server| ("server", server.name().into()))
    }
}
