//! Whether a redirector's servers answer: one thread for each asks every few seconds, so that one that is slow, or whose
//! name is, holds up no other.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::config::Service;
use crate::config::redirector::{HeaderVersion, RedirectPlan, split_name};
use crate::session::redirect::{Server, Standing};
use crate::sys::socket::{self, Outgoing};
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
    /// Nothing is ever sent: their end is the word.
    _alive: Vec<Sender<()>>,
}

impl Checks {
    /// Begins to check all servers of `plan`, and waits, for at most the time of one connection, until each of those that
    /// nobody knows anything of was checked once.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(plan: &Arc<RedirectPlan>) -> io::Result<Checks> {
        let mut alive = Vec::new();
        let (done, checked) = channel();
        for server in plan.servers.iter() {
            let (stay, end) = channel();
            alive.push(stay);
            let (plan, server) = (Arc::clone(plan), Arc::clone(server));
            let first = (server.standing() == Standing::Unknown).then(|| done.clone());
            let run = move || watch(&plan, &server, &end, first);
            std::thread::Builder::new().name("health".into()).stack_size(STACK_SIZE).spawn(run)?;
        }
        drop(done);
        let until = Instant::now() + plan.service.timeouts.connect;
        // Ends early when each has dropped its end of the channel.
        while checked.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        Ok(Checks { _alive: alive })
    }
}

fn watch(plan: &RedirectPlan, server: &Server, end: &Receiver<()>, mut first: Option<Sender<()>>) {
    loop {
        match check(server.name(), plan) {
            Ok(address) => server.answered(address),
            Err(error) => server.failed(&error.to_string()),
        }
        drop(first.take());
        if end.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
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
    Ok((&*host, port).to_socket_addrs()?.take(MAX_ADDRESSES).collect())
}

fn knock(address: SocketAddr, service: &Service, header: HeaderVersion) -> io::Result<()> {
    let out = Outgoing { fwmark: service.output.fwmark, interface: service.output.interface.clone() };
    let mut stream = socket::tcp_connect_within(address, &out, service.timeouts.connect)?;
    stream.write_all(&match header {
        HeaderVersion::V1 => write::v1(None),
        HeaderVersion::V2 => write::v2(None),
    })
}
