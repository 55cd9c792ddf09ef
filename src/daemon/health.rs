//! Whether a redirector's servers answer: one thread for each asks every few seconds, so that one that is slow, or whose
//! name is, holds up no other.
//!
//! A connection that stands proves little: the kernel accepts it for a process that hangs, and a server that does not trust
//! this machine accepts it, too. So a server has to answer the header by ending the connection, not by a reset or silence.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::redirector::{HeaderVersion, RedirectPlan, split_name};
use crate::config::{Listener, Service, share_port};
use crate::session::redirect::{Server, Standing};
use crate::sys::error::described;
use crate::sys::socket::{self, Outgoing};
use crate::sys::{names, threads};
use crate::wire::proxy_protocol::write;

/// The time between two checks of a server.
const INTERVAL: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// For getaddrinfo.
const STACK_SIZE: usize = 128 * 1024;

/// The threads, which end after this is dropped.
#[derive(Debug)]
pub struct Checks {
    round: Arc<Round>,
}

/// What the threads tell the one who started them, and the other way round.
#[derive(Debug, Default)]
struct Round {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Servers that nobody knows anything of yet.
    unknown: usize,
    /// The threads shall end.
    over: bool,
}

impl Checks {
    /// Begins to check all servers of `plan`, and waits, for at most the time of one connection, until each of those that
    /// nobody knows anything of was checked once.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(plan: &Arc<RedirectPlan>) -> io::Result<Checks> {
        let checks = Checks { round: Arc::default() };
        for server in plan.servers.iter() {
            let first = server.standing() == Standing::Unknown;
            checks.round.change(|state| state.unknown += usize::from(first));
            let (plan, server, round) = (Arc::clone(plan), Arc::clone(server), Arc::clone(&checks.round));
            let run = move || watch(&plan, &server, &round, first);
            threads::spawn("health", STACK_SIZE, run)?;
        }
        checks.round.wait(plan.service.timeouts.connect, |state| state.unknown == 0);
        Ok(checks)
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.round.change(|state| state.over = true);
    }
}

impl Round {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until `done`, for at most `patience`; says whether it is.
    fn wait(&self, patience: Duration, done: impl Fn(&State) -> bool) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, patience, |state| !done(state));
        done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

fn watch(plan: &RedirectPlan, server: &Server, round: &Round, first: bool) {
    let mut first = usize::from(first);
    loop {
        match check(server.name(), plan) {
            Ok(address) => server.answered(address, Instant::now()),
            Err(error) => server.failed(&why(&error), Instant::now()),
        }
        let checked = std::mem::take(&mut first);
        round.change(|state| state.unknown = state.unknown.saturating_sub(checked));
        if round.wait(INTERVAL, |state| state.over) {
            return;
        }
    }
}

/// Connects, says that this is no client's connection, closes: the address that answered.
fn check(name: &str, plan: &RedirectPlan) -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses(name)? {
        match knock(address, &plan.service, plan.header) {
            Ok(()) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The system's resolver knows /etc/hosts, too.
fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = split_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let found = names::addresses(&host)?.into_iter().take(MAX_ADDRESSES);
    Ok(found.map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Whether the server ends a connection that speaks for nobody, as `mode: proxyproto` does, within `timeout.connect`. Bytes
/// would be an answer, too: a balancer may pass the check on to whatever stands behind it.
fn knock(address: SocketAddr, service: &Service, header: HeaderVersion) -> io::Result<()> {
    let out = Outgoing { fwmark: service.output.fwmark, interface: service.output.interface.clone() };
    let mut stream = socket::tcp_connect_within(address, &out, service.timeouts.connect)?;
    let listens_there = |listener: &Listener| share_port(listener.addr, address);
    if stream.local_addr()?.ip() == address.ip() && service.listeners.iter().any(listens_there) {
        return Err(described(io::ErrorKind::Other, "it is this program's own listener"));
    }
    stream.write_all(&match header {
        HeaderVersion::V1 => write::v1(None),
        HeaderVersion::V2 => write::v2(None),
    })?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(service.timeouts.connect))?;
    stream.read(&mut [0]).map(drop)
}

/// What a person can do something about.
fn why(error: &io::Error) -> String {
    match error.kind() {
        // A read that takes too long is WouldBlock (socket(7), SO_RCVTIMEO).
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
            "reset: does it trust this machine?".to_owned()
        }
        _ => error.to_string(),
    }
}
