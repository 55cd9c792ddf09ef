//! The resolver's thread: sockets, clock, randomness and the hosts file for [`crate::connect::resolve`].
//!
//! One for the whole process, so that equal lookups of all workers are one and the cache is filled once. Nothing is
//! decided here: it does what the core says and tells it what came.

mod hosts_file;
mod sockets;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::connect::resolve::system::{Found, SystemResolver};
use crate::connect::resolve::{Action, Resolver, Settings};
pub use crate::connect::resolve::{Answer, Asker, Counts, ResolveError};
use crate::sys::socket::Outgoing;
use crate::sys::threads;
use crate::wire::dns::MAX_NAME_TEXT;
use hosts_file::HostsFile;
use sockets::{Next, Sockets};

/// Lookups on their way to the thread; beyond it they fail at once.
const MAX_REQUESTS: usize = 1024;
/// Events taken from the poll at once.
const MAX_EVENTS: usize = 64;
/// Parsing happens on the heap; this is for the calls only.
const STACK_SIZE: usize = 128 * 1024;
const HOSTS: &str = "/etc/hosts";
/// Above every exchange's number.
const WAKER: Token = Token(usize::MAX);

/// What the resolver works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Asked in order; empty means the system's resolver.
    pub nameservers: Vec<SocketAddr>,
    /// Time for one server to answer (`timeout.dnsLookup`).
    pub timeout: Duration,
    /// Options of the sockets to nameservers. The system's resolver makes its own sockets.
    pub outgoing: Outgoing,
}

/// The way to the thread. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct ResolverHandle {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` while being dropped: the thread must see the end before it is woken.
    requests: Option<SyncSender<Request>>,
    waker: Arc<Waker>,
    counts: Arc<Mutex<Counts>>,
}

enum Request {
    Lookup { name: Box<str>, asker: Asker },
    Configure(ResolverConfig),
}

/// Starts the thread. `deliver` is called on it, once for every lookup that was taken, and must not block.
pub fn start(config: ResolverConfig, deliver: Box<dyn Fn(Answer) + Send>) -> io::Result<ResolverHandle> {
    start_with_hosts(config, deliver, Path::new(HOSTS))
}

fn start_with_hosts(
    config: ResolverConfig,
    deliver: Box<dyn Fn(Answer) + Send>,
    hosts: &Path,
) -> io::Result<ResolverHandle> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (requests, incoming) = mpsc::sync_channel(MAX_REQUESTS);
    let counts = Arc::new(Mutex::new(Counts::default()));
    // Not bounded by itself: the pool takes no more names than it has threads and places in its queue.
    let (done, found) = mpsc::channel();
    let system = SystemResolver::new({
        let waker = waker.clone();
        move |name, result| {
            // Fails only at the end of the thread, when nobody waits any more.
            let _ = done.send((name, result));
            let _ = waker.wake();
        }
    });
    let driver = Driver {
        poll,
        waker: waker.clone(),
        resolver: Resolver::new(settings(&config), Box::new(query_ids())),
        outgoing: config.outgoing,
        sockets: Sockets::default(),
        requests: incoming,
        system,
        found,
        hosts: HostsFile::new(hosts),
        counts: counts.clone(),
        deliver,
    };
    threads::spawn("resolver", STACK_SIZE, move || driver.run())?;
    Ok(ResolverHandle { inner: Arc::new(Inner { requests: Some(requests), waker, counts }) })
}

impl ResolverHandle {
    /// Asks for the addresses of `name`; the answer is delivered with `asker` in it.
    ///
    /// Fails, without an answer later, if too many lookups are on their way to the thread or nothing can have so long a
    /// name.
    pub fn lookup(&self, name: &str, asker: Asker) -> Result<(), ResolveError> {
        if name.len() > MAX_NAME_TEXT + 1 {
            return Err(ResolveError::NotFound);
        }
        let request = Request::Lookup { name: name.into(), asker };
        let requests = self.inner.requests.as_ref().ok_or(ResolveError::Failed)?;
        requests.try_send(request).map_err(|_| ResolveError::Failed)?;
        self.inner.waker.wake().map_err(|_| ResolveError::Failed)
    }

    /// Changes what later lookups work with; those under way go on, the cache stays. May wait a moment for the thread:
    /// not for workers.
    pub fn reconfigure(&self, config: ResolverConfig) {
        if let Some(requests) = &self.inner.requests {
            // An error means that the thread is gone; lookups say so.
            let _ = requests.send(Request::Configure(config));
            let _ = self.inner.waker.wake();
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        // If it fails, the thread sees the end at its next event.
        let _ = self.waker.wake();
    }
}

fn settings(config: &ResolverConfig) -> Settings {
    Settings { nameservers: config.nameservers.clone(), timeout: config.timeout }
}

/// Query ids: a counter under a keyed hash whose key std takes from the system's random numbers.
fn query_ids() -> impl FnMut() -> u16 + Send {
    let key = RandomState::new();
    let mut count = 0u32;
    move || {
        count = count.wrapping_add(1);
        key.hash_one(count) as u16
    }
}

/// What the thread owns.
struct Driver {
    poll: Poll,
    waker: Arc<Waker>,
    resolver: Resolver,
    outgoing: Outgoing,
    sockets: Sockets,
    requests: Receiver<Request>,
    system: SystemResolver,
    found: Receiver<(Arc<str>, Found)>,
    hosts: HostsFile,
    counts: Arc<Mutex<Counts>>,
    deliver: Box<dyn Fn(Answer) + Send>,
}

impl Driver {
    fn run(mut self) {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            let timeout = self.resolver.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("The resolver ends, polling failed: {error}");
                    return;
                }
            }
            for event in &events {
                if event.token() == WAKER {
                    if self.take_requests().is_err() {
                        return;
                    }
                    self.take_found();
                } else {
                    self.take_messages(event.token());
                }
            }
            self.resolver.expire(Instant::now());
            self.act();
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.resolver.counts();
        }
    }

    /// Lookups and settings; an error if no handle is left.
    fn take_requests(&mut self) -> Result<(), ()> {
        for _ in 0..MAX_REQUESTS {
            match self.requests.try_recv() {
                Ok(Request::Lookup { name, asker }) => {
                    let now = Instant::now();
                    if let Some(hosts) = self.hosts.changed(now) {
                        self.resolver.set_hosts(hosts);
                    }
                    self.resolver.lookup(&name, asker, now);
                    self.act();
                }
                Ok(Request::Configure(config)) => {
                    self.resolver.configure(settings(&config));
                    self.outgoing = config.outgoing;
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(()),
            }
        }
        // There may be more, and their wake-up is used up: answers have their turn first.
        self.waker.wake().map_err(drop)
    }

    fn take_found(&mut self) {
        while let Ok((name, found)) = self.found.try_recv() {
            self.resolver.system_answered(&name, Some(found), Instant::now());
            self.act();
        }
    }

    /// What a socket has to say.
    fn take_messages(&mut self, token: Token) {
        loop {
            match self.sockets.next(token) {
                Next::Nothing => return,
                Next::Message(exchange, message) => {
                    self.resolver.received(exchange, &message, Instant::now())
                }
                Next::Failed(exchange) => self.resolver.exchange_failed(exchange, Instant::now()),
            }
            // Closes the socket if that was the answer, which ends this loop.
            self.act();
        }
    }

    /// Does what the core wants until it wants nothing more.
    fn act(&mut self) {
        while let Some(action) = self.resolver.next_action() {
            match action {
                Action::Open { exchange, server, transport, message } => {
                    let registry = self.poll.registry();
                    let opened =
                        self.sockets.open(registry, exchange, server, transport, &message, &self.outgoing);
                    if let Err(error) = opened {
                        log::debug!("Nameserver {server} cannot be asked: {error}");
                        // The next server's turn; there are at most so many.
                        self.resolver.exchange_failed(exchange, Instant::now());
                    }
                }
                Action::Resend { exchange, message } => {
                    if self.sockets.resend(exchange, &message).is_err() {
                        self.sockets.close(exchange);
                        self.resolver.exchange_failed(exchange, Instant::now());
                    }
                }
                Action::Close { exchange } => self.sockets.close(exchange),
                Action::AskSystem { name, source } => {
                    if !self.system.ask(name.clone(), source) {
                        self.resolver.system_answered(&name, None, Instant::now());
                    }
                }
                Action::Answer(answer) => (self.deliver)(answer),
            }
        }
    }
}

#[cfg(test)]
mod tests;
