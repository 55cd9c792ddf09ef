//! Certificate probes: which server is asked for its certificate, when, for whom, and how long the answer counts.
//!
//! A state machine without sockets, TLS and clock, for all workers together: whoever asks for the same certificate at the
//! same time waits for the same probe. It refuses to be flooded: so many probes at once, so many that wait, so many of one
//! source. Whoever finds no place, or whose probe takes too long, gets an answer all the same: that nobody knows.

mod known;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::DialError;
use super::distrust::Distrust;
pub use known::Known;

/// Probes at once. Each has a socket and some tens of kilobytes.
const MAX_RUNNING: usize = 16;
/// Of these, of one source: who waits for silent servers leaves places to others.
const MAX_RUNNING_PER_SOURCE: usize = 12;
/// Probes that wait for their turn.
const MAX_WAITING: usize = 256;
/// Probes of one source, running and waiting: a page with pictures from everywhere, but not everybody's share.
const MAX_PER_SOURCE: usize = 64;
/// Those who wait for one probe.
const MAX_ASKERS: usize = 1024;
/// Bytes of the protocols that a client offers; browsers have 14. The rest is left out.
const MAX_ALPN_BYTES: usize = 64;

/// Which certificate is asked for. What a server shows may depend on each of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The client's SNI, normalised.
    pub name: Box<str>,
    /// Where the client wants to go.
    pub addr: SocketAddr,
    /// The client's ALPN, in its order.
    pub alpn: Box<[Box<[u8]>]>,
}

impl Target {
    /// As a client with this hello would ask.
    pub fn new(name: &str, addr: SocketAddr, alpn: &[Box<[u8]>]) -> Self {
        let mut left = MAX_ALPN_BYTES;
        let mut fits = |bytes: usize| {
            let rest = left.checked_sub(bytes.saturating_add(1));
            left = rest.unwrap_or_default();
            rest.is_some()
        };
        // A name has at least one byte (RFC 7301 §3.1), and who makes a hello may count on it.
        let named = alpn.iter().filter(|protocol| !protocol.is_empty());
        let alpn = named.take_while(|protocol| fits(protocol.len())).cloned().collect();
        Target { name: name.into(), addr, alpn }
    }
}

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The certificate is to be trusted.
    Valid,
    /// It is not.
    Invalid(Distrust),
    /// Nobody knows.
    Unknown(Doubt),
}

impl Finding {
    /// Why it is not valid: the log's word.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Finding::Valid => None,
            Finding::Invalid(distrust) => Some(distrust.as_str()),
            Finding::Unknown(doubt) => Some(doubt.as_str()),
        }
    }
}

impl From<Distrust> for Finding {
    fn from(distrust: Distrust) -> Finding {
        match distrust {
            Distrust::WrongClock => Finding::Unknown(Doubt::WrongClock),
            Distrust::Unsupported => Finding::Unknown(Doubt::Unsupported),
            distrust => Finding::Invalid(distrust),
        }
    }
}

impl From<DialError> for Finding {
    fn from(error: DialError) -> Finding {
        Finding::Unknown(match error {
            DialError::Refused => Doubt::Refused,
            DialError::TimedOut => Doubt::TimedOut,
            DialError::Unreachable | DialError::NetworkUnreachable | DialError::Other => Doubt::Unreachable,
        })
    }
}

/// Why nobody knows what a certificate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// The client names nobody, or what is no name.
    NoName,
    /// The client speaks QUIC, which is not probed.
    Quic,
    /// The server refused the connection.
    Refused,
    /// The server cannot be reached.
    Unreachable,
    /// The server closed the connection.
    Closed,
    /// `timeout.probe` has passed.
    TimedOut,
    /// The server speaks no TLS, or does not like ours.
    Handshake,
    /// The server wants to know who the client is, and nobody but the client can tell.
    ClientCertificate,
    /// The certificate is signed in a way that nothing here can check.
    Unsupported,
    /// The machine's clock cannot be right.
    WrongClock,
    /// Too many other probes.
    Busy,
}

impl Doubt {
    /// The log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Doubt::NoName => "no_name",
            Doubt::Quic => "quic",
            Doubt::Refused => "refused",
            Doubt::Unreachable => "unreachable",
            Doubt::Closed => "closed",
            Doubt::TimedOut => "timeout",
            Doubt::Handshake => "handshake",
            Doubt::ClientCertificate => "client_certificate",
            Doubt::Unsupported => "unsupported",
            Doubt::WrongClock => "wrong_clock",
            Doubt::Busy => "busy",
        }
    }

    /// Whether it says something of the server, and will so for a while.
    fn is_lasting(self) -> bool {
        !matches!(self, Doubt::WrongClock | Doubt::Busy)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The worker.
    pub worker: usize,
    /// The connection's place there.
    pub token: usize,
    /// The client.
    pub source: IpAddr,
}

/// What an asker hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub asker: Asker,
    /// For what.
    pub target: Arc<Target>,
    /// What came of it.
    pub finding: Finding,
}

/// A probe under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProbeId(u32);

impl ProbeId {
    /// For a poll's token.
    pub fn number(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a handshake; [`Prober::ended`] hears how it went.
    Begin {
        /// Its number.
        id: ProbeId,
        /// With whom.
        target: Arc<Target>,
    },
    /// Its time is over: forget it.
    Abandon {
        /// Which one.
        id: ProbeId,
    },
    /// Tell somebody.
    Answer(Answer),
}

/// One probe and those who wait for it.
#[derive(Debug)]
struct Flight {
    /// Nothing as long as it has no turn.
    id: Option<ProbeId>,
    /// Whoever asked first.
    source: IpAddr,
    askers: Vec<Asker>,
    due: Instant,
    /// Others had to end first: what then takes too long may be no fault of the server.
    waited: bool,
    /// What is known changes meanwhile: this answer is for those who wait only.
    outdated: bool,
}

/// All probes.
#[derive(Debug)]
pub struct Prober {
    known: Arc<Known>,
    flights: HashMap<Arc<Target>, Flight>,
    waiting: VecDeque<Arc<Target>>,
    running: HashMap<ProbeId, Arc<Target>>,
    last_id: u32,
    timeout: Duration,
    actions: VecDeque<Action>,
}

impl Prober {
    /// Nothing is under way. What is found is put into `known`; a probe has `timeout` from the first question on.
    pub fn new(known: Arc<Known>, timeout: Duration) -> Self {
        Prober {
            known,
            flights: HashMap::new(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            last_id: 0,
            timeout,
            actions: VecDeque::new(),
        }
    }

    /// Changes the time of later probes.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Other roots are trusted from now on: nothing that is known counts any more.
    pub fn forget(&mut self) {
        self.known.clear();
        self.flights.values_mut().for_each(|flight| flight.outdated = true);
    }

    /// Asks for a certificate. There will be one answer.
    pub fn ask(&mut self, target: Target, asker: Asker, now: Instant) {
        // It may have become known since somebody looked.
        if let Some(finding) = self.known.get(&target, now) {
            return self.answer(asker, Arc::new(target), finding);
        }
        if let Some((target, flight)) = self.flights.get_key_value(&target) {
            let target = Arc::clone(target);
            if flight.askers.len() >= MAX_ASKERS {
                return self.answer(asker, target, Finding::Unknown(Doubt::Busy));
            }
            if let Some(flight) = self.flights.get_mut(&target) {
                flight.askers.push(asker);
            }
            return;
        }
        let target = Arc::new(target);
        let of_source = self.flights.values().filter(|flight| flight.source == asker.source).count();
        if self.waiting.len() >= MAX_WAITING || of_source >= MAX_PER_SOURCE {
            return self.answer(asker, target, Finding::Unknown(Doubt::Busy));
        }
        let due = now.checked_add(self.timeout).unwrap_or(now);
        let flight = Flight {
            id: None,
            source: asker.source,
            askers: vec![asker],
            due,
            waited: false,
            outdated: false,
        };
        self.flights.insert(Arc::clone(&target), flight);
        self.waiting.push_back(Arc::clone(&target));
        self.begin();
        if let Some(flight) = self.flights.get_mut(&target) {
            flight.waited = flight.id.is_none();
        }
    }

    /// A handshake has ended. `counts_for` is the rest of the certificate's own time, if it is valid.
    pub fn ended(&mut self, id: ProbeId, finding: Finding, counts_for: Option<Duration>, now: Instant) {
        let Some(target) = self.running.remove(&id) else { return };
        self.land(&target, finding, counts_for, now);
        self.begin();
    }

    /// Ends what has taken too long.
    pub fn expire(&mut self, now: Instant) {
        let is_due =
            |(target, flight): (&Arc<Target>, &Flight)| (flight.due <= now).then(|| Arc::clone(target));
        let due: Vec<Arc<Target>> = self.flights.iter().filter_map(is_due).collect();
        for target in due {
            let Some(flight) = self.flights.get(&target) else { continue };
            let doubt = if flight.waited { Doubt::Busy } else { Doubt::TimedOut };
            if let Some(id) = flight.id {
                self.running.remove(&id);
                self.actions.push_back(Action::Abandon { id });
            } else {
                self.waiting.retain(|waiting| *waiting != target);
            }
            self.land(&target, Finding::Unknown(doubt), None, now);
        }
        self.begin();
    }

    /// When [`Prober::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.flights.values().map(|flight| flight.due).min()
    }

    /// What is to be done, until it is nothing.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Begins what has a place: first what was asked by those who have the fewest.
    fn begin(&mut self) {
        while self.running.len() < MAX_RUNNING {
            let of_waiting = |target: &Arc<Target>| {
                self.flights.get(target).map_or(0, |flight| self.running_of(flight.source))
            };
            let counted = self.waiting.iter().map(of_waiting).enumerate();
            let next =
                counted.filter(|(_, running)| *running < MAX_RUNNING_PER_SOURCE).min_by_key(|(_, n)| *n);
            let Some(target) = next.and_then(|(place, _)| self.waiting.remove(place)) else { return };
            let Some(flight) = self.flights.get_mut(&target) else { continue };
            // The largest is nobody's: as a poll's token it would be the waker's.
            self.last_id = self.last_id.wrapping_add(1) % u32::MAX;
            let id = ProbeId(self.last_id);
            flight.id = Some(id);
            self.running.insert(id, Arc::clone(&target));
            self.actions.push_back(Action::Begin { id, target });
        }
    }

    fn running_of(&self, source: IpAddr) -> usize {
        let flights = self.running.values().filter_map(|target| self.flights.get(target));
        flights.filter(|flight| flight.source == source).count()
    }

    fn land(&mut self, target: &Arc<Target>, finding: Finding, counts_for: Option<Duration>, now: Instant) {
        let Some(flight) = self.flights.remove(target) else { return };
        let lasts = !matches!(finding, Finding::Unknown(doubt) if !doubt.is_lasting());
        if lasts && !flight.outdated {
            self.known.insert(Target::clone(target), finding, counts_for, now);
        }
        for asker in flight.askers {
            self.answer(asker, Arc::clone(target), finding);
        }
    }

    fn answer(&mut self, asker: Asker, target: Arc<Target>, finding: Finding) {
        self.actions.push_back(Action::Answer(Answer { asker, target, finding }));
    }
}
