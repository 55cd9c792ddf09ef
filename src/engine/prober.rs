//! The prober's thread: sockets and handshakes for [`crate::connect::probe`].
//!
//! One for the whole process, started by the first probe, so that those who want the same certificate at the same time wait
//! for one handshake, whichever worker they are with, and so that no worker stands still for its arithmetic: checking a chain
//! takes a small router's CPU some ten milliseconds. What is known already a worker looks up by itself ([`Prober::known`]).

mod handshake;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use self::handshake::{Handshake, Handshakes, Progress};
use super::admission::Extra;
use super::dialled::{Dialled, Trace};
use crate::connect::dial::DialError;
use crate::connect::probe::{self, Action, Answer, Asker, Doubt, Finding, Known, ProbeId, Target};
use crate::connect::trust::Trust;
use crate::metrics::Metrics;
use crate::sys::limits::Descriptors;
use crate::sys::socket::{self, Outgoing};
use crate::sys::time;

/// Questions on their way to the thread; beyond it nobody knows.
const MAX_REQUESTS: usize = 1024;
/// Events taken from the poll at once.
const MAX_EVENTS: usize = 64;
/// Handshakes and the checks of chains happen on it.
const STACK_SIZE: usize = 256 * 1024;
/// Above every probe's number.
const WAKER: Token = Token(usize::MAX);

/// What probes work with.
#[derive(Debug, Clone)]
pub struct ProberConfig {
    /// Who judges.
    pub trust: Arc<Trust>,
    /// `timeout.probe`.
    pub timeout: Duration,
    /// Options of the sockets.
    pub outgoing: Outgoing,
    /// `output.allowLocal`.
    pub allow_local: bool,
}

/// What the thread shares with others.
pub struct Surroundings {
    /// Called on the thread, once for every question that was taken; must not block.
    pub deliver: Box<dyn Fn(Answer) + Send + Sync>,
    /// Where probes are counted.
    pub metrics: Arc<Metrics>,
    /// Where our own connections are known.
    pub dialled: Dialled,
    /// What there is for sockets.
    pub descriptors: Arc<Descriptors>,
    /// What the clock on the wall shows, in seconds since 1970.
    pub clock: fn() -> i64,
}

/// The way to the thread, and what all workers know of certificates.
pub struct Prober {
    known: Arc<Known>,
    surroundings: Arc<Surroundings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Nothing where no rule asks for certificates.
    config: Option<ProberConfig>,
    thread: Option<Way>,
}

struct Way {
    requests: SyncSender<Request>,
    waker: Arc<Waker>,
}

enum Request {
    Probe(Target, Asker),
    Configure(ProberConfig),
}

impl Prober {
    /// No thread yet. `config`: nothing where no rule asks for certificates.
    pub fn new(config: Option<ProberConfig>, surroundings: Surroundings) -> Self {
        Prober {
            known: Arc::default(),
            surroundings: Arc::new(surroundings),
            state: Mutex::new(State { config, thread: None }),
        }
    }

    /// Changes what later probes work with. May wait a moment for the thread: not for workers.
    pub fn reconfigure(&self, config: Option<ProberConfig>) {
        let mut state = self.state();
        if let (Some(config), Some(thread)) = (&config, &state.thread) {
            // An error means that the thread is gone; probes say so.
            let _ = thread.requests.send(Request::Configure(config.clone()));
            let _ = thread.waker.wake();
        }
        state.config = config;
    }

    /// What was found before, if it still counts.
    pub fn known(&self, target: &Target, now: Instant) -> Option<Finding> {
        self.known.get(target, now)
    }

    /// Asks for a certificate; the answer is delivered with `asker` in it.
    ///
    /// # Errors
    /// There will be no answer.
    pub fn probe(&self, target: Target, asker: Asker) -> Result<(), Doubt> {
        let mut state = self.state();
        if state.thread.is_none() {
            // Nothing where the rules in force no longer ask: an older session does.
            let config = state.config.clone().ok_or(Doubt::Busy)?;
            match self.start(config) {
                Ok(way) => state.thread = Some(way),
                Err(error) => log::error!("cannot probe certificates, no thread is to be had: {error}"),
            }
        }
        let thread = state.thread.as_ref().ok_or(Doubt::Busy)?;
        thread.requests.try_send(Request::Probe(target, asker)).map_err(|_| Doubt::Busy)?;
        thread.waker.wake().map_err(|_| Doubt::Busy)
    }

    fn start(&self, config: ProberConfig) -> io::Result<Way> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (requests, incoming) = mpsc::sync_channel(MAX_REQUESTS);
        let driver = Driver {
            poll,
            waker: Arc::clone(&waker),
            requests: incoming,
            prober: probe::Prober::new(Arc::clone(&self.known), config.timeout),
            handshakes: Handshakes::new(&config.trust).map_err(io::Error::other)?,
            config,
            open: HashMap::new(),
            clock_was_wrong: false,
            surroundings: Arc::clone(&self.surroundings),
        };
        thread::Builder::new().name("prober".into()).stack_size(STACK_SIZE).spawn(move || driver.run())?;
        Ok(Way { requests, waker })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking thread left behind is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let thread = self.state().thread.take();
        if let Some(Way { requests, waker }) = thread {
            drop(requests);
            // If it fails, the thread sees the end at its next event.
            let _ = waker.wake();
        }
    }
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prober")
    }
}

/// A handshake and what it occupies.
struct Open {
    handshake: Handshake,
    _trace: Trace,
    _descriptor: Extra,
}

/// What the thread owns.
struct Driver {
    poll: Poll,
    waker: Arc<Waker>,
    requests: Receiver<Request>,
    prober: probe::Prober,
    config: ProberConfig,
    handshakes: Handshakes,
    open: HashMap<Token, (ProbeId, Open)>,
    /// The log has said so.
    clock_was_wrong: bool,
    surroundings: Arc<Surroundings>,
}

impl Driver {
    fn run(mut self) {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            let timeout = self.prober.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("The prober ends, polling failed: {error}");
                    return;
                }
            }
            for event in &events {
                match event.token() {
                    WAKER => {
                        if self.take_requests().is_err() {
                            return;
                        }
                    }
                    token => self.go_on(token, event.is_error()),
                }
            }
            self.prober.expire(Instant::now());
            self.act();
        }
    }

    /// Questions and settings; an error if nobody can ask any more.
    fn take_requests(&mut self) -> Result<(), ()> {
        for _ in 0..MAX_REQUESTS {
            match self.requests.try_recv() {
                Ok(Request::Probe(target, asker)) => {
                    self.prober.ask(target, asker, Instant::now());
                    self.act();
                }
                Ok(Request::Configure(config)) => self.configure(config),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(()),
            }
        }
        // There may be more, and their wake-up is used up: handshakes have their turn first.
        self.waker.wake().map_err(drop)
    }

    fn configure(&mut self, config: ProberConfig) {
        self.prober.set_timeout(config.timeout);
        if !Arc::ptr_eq(&self.config.trust, &config.trust) {
            self.prober.forget();
            match Handshakes::new(&config.trust) {
                Ok(handshakes) => self.handshakes = handshakes,
                Err(error) => log::error!("certificates are judged by the roots of before: {error}"),
            }
        }
        self.config = config;
    }

    /// Does what the core wants until it wants nothing more.
    fn act(&mut self) {
        while let Some(action) = self.prober.next_action() {
            match action {
                Action::Begin { id, target } => {
                    if let Err(finding) = self.begin(id, &target) {
                        self.ended(id, finding, None);
                    }
                }
                Action::Abandon { id } => {
                    self.open.remove(&Token(id.number()));
                    self.surroundings.metrics.probed(Finding::Unknown(Doubt::TimedOut));
                }
                Action::Answer(answer) => (self.surroundings.deliver)(answer),
            }
        }
    }

    fn begin(&mut self, id: ProbeId, target: &Target) -> Result<(), Finding> {
        if !self.is_clock_right() {
            return Err(Finding::Unknown(Doubt::WrongClock));
        }
        let descriptor = Extra::take(&self.surroundings.descriptors).ok_or(Finding::Unknown(Doubt::Busy))?;
        let tls = self.handshakes.begin(target)?;
        let (mut stream, trace) = self.connect(target.addr).map_err(|error| failed(&error))?;
        let token = Token(id.number());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, interest).map_err(|error| failed(&error))?;
        let open = Open { handshake: tls.over(stream), _trace: trace, _descriptor: descriptor };
        self.open.insert(token, (id, open));
        Ok(())
    }

    fn connect(&self, addr: SocketAddr) -> io::Result<(mio::net::TcpStream, Trace)> {
        let dialled = &self.surroundings.dialled;
        let connect = || socket::tcp_connect(addr, &self.config.outgoing, true);
        let (stream, trace) = dialled.dial(dialled.prober(), addr, connect)?;
        // The kernel knows more of its own addresses than the interfaces have.
        if trace.local().ip().to_canonical() == addr.ip().to_canonical() && !self.config.allow_local {
            let _ = socket::reset_on_close(&stream);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok((mio::net::TcpStream::from_std(stream), trace))
    }

    /// A socket has something to say.
    fn go_on(&mut self, token: Token, broken: bool) {
        let Some((id, open)) = self.open.get_mut(&token) else { return };
        let id = *id;
        match open.handshake.go_on(broken) {
            Progress::Waits => {}
            Progress::Ended(finding, counts_for) => self.ended(id, finding, counts_for),
        }
        self.act();
    }

    fn ended(&mut self, id: ProbeId, finding: Finding, counts_for: Option<Duration>) {
        self.open.remove(&Token(id.number()));
        self.surroundings.metrics.probed(finding);
        self.prober.ended(id, finding, counts_for, Instant::now());
    }

    /// A clock that cannot be right makes every certificate unknown; the log says it once.
    fn is_clock_right(&mut self) -> bool {
        let right = time::is_plausible((self.surroundings.clock)());
        if !right && !self.clock_was_wrong {
            log::warn!(
                "certificates are unknown to the rules: this machine's clock shows a time before this program was made"
            );
        }
        self.clock_was_wrong = !right;
        right
    }
}

/// What an error of a socket says of a certificate.
fn failed(error: &io::Error) -> Finding {
    if socket::is_out_of_resources(error) {
        return Finding::Unknown(Doubt::Busy);
    }
    DialError::from(error).into()
}

#[cfg(test)]
mod tests;
