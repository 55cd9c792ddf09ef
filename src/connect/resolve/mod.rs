//! Names to addresses: the hosts file, then the nameservers in order, or the system's resolver.
//!
//! [`Resolver`] is the whole of it without a socket, a thread, a clock or a source of randomness: it is told what is
//! asked, what came and what time it is, and says what to send, what to close and whom to answer. It is a stub: it
//! follows no referrals, checks no signatures and believes its nameservers.

pub mod cache;
pub mod hosts;
mod outbox;
mod pair;
pub mod system;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::wire::dns;
use cache::{AnswerCache, Entry, canonical};
use hosts::Hosts;
use outbox::Outbox;
pub use outbox::{ExchangeId, Transport};
use pair::{Pair, Progress};

/// Names being looked up at once; beyond it a lookup fails at once. At nameservers each holds two descriptors at most, so
/// 1024 in all: one more than the client's connection that waits for it will have once it is relayed. A lookup that gets
/// none fails.
pub const MAX_LOOKUPS: usize = 512;
/// Of these, begun for one source; beyond it that source's newest lookup fails, so that names which nobody answers for are
/// the trouble of who asks for them.
pub const MAX_LOOKUPS_PER_SOURCE: usize = MAX_LOOKUPS / 8;
/// Askers waiting for one name; beyond it they are told at once that it failed.
pub const MAX_WAITERS: usize = 1024;
/// Nameservers asked; the rest of the list is not used.
pub const MAX_NAMESERVERS: usize = 8;
/// Names in the resolver's cache.
pub const CACHE_NAMES: usize = 2048;

/// Bounds for the time that an answer is kept, whatever its zone says.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// See [`MIN_TTL`].
pub const MAX_TTL: Duration = Duration::from_secs(3600);
/// Upper bound for absence (RFC 2308 §5 suggests one to three hours at most; people create names and try them).
pub const MAX_ABSENT_TTL: Duration = Duration::from_secs(300);
/// Time that absence is kept if the server does not say how long.
pub const ABSENT_TTL: Duration = Duration::from_secs(10);
/// Time that a failure is kept (RFC 9520 §3.2).
pub const FAILED_TTL: Duration = Duration::from_secs(5);
/// Time that an address from the hosts file is good before the file is looked at again.
pub const HOSTS_TTL: Duration = Duration::from_secs(5);
/// Time that IPv4 addresses are good which were given out without waiting for IPv6 any longer.
pub const PARTIAL_TTL: Duration = Duration::from_secs(5);
/// Time that the system's answer is kept: it does not say how long it is good.
pub const SYSTEM_TTL: Duration = Duration::from_secs(60);
/// Time that IPv6 addresses may come after the IPv4 ones (RFC 8305 §3).
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveError {
    /// The name does not exist or has no addresses.
    NotFound,
    /// Nobody could say.
    Failed,
}

/// Who asked: given back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The worker.
    pub worker: usize,
    /// The session in it.
    pub token: usize,
    /// Its client, in whose share the lookup is counted.
    pub source: IpAddr,
}

/// The answer to one lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub asker: Asker,
    /// What was asked for, in lower case and without a last dot.
    pub name: Box<str>,
    /// Addresses, IPv6 first.
    pub result: Result<Arc<[IpAddr]>, ResolveError>,
    /// The result may be kept until then.
    pub valid_until: Instant,
}

/// What a lookup uses; a change counts for those that begin after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Asked in order; empty means the system's resolver.
    pub nameservers: Vec<SocketAddr>,
    /// Time for one server to answer (`timeout.dnsLookup`); the system's resolver has twice that.
    pub timeout: Duration,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send `message` to `server` from a socket of its own, and hand over what comes back.
    Open {
        /// Names the socket in all that follows.
        exchange: ExchangeId,
        /// Where to.
        server: SocketAddr,
        /// How.
        transport: Transport,
        /// Without TCP's length prefix.
        message: Vec<u8>,
    },
    /// Send `message` from the same socket once more.
    Resend {
        /// Which.
        exchange: ExchangeId,
        /// As before.
        message: Vec<u8>,
    },
    /// Close the socket.
    Close {
        /// Which.
        exchange: ExchangeId,
    },
    /// Ask the system's resolver; the answer goes to [`Resolver::system_answered`].
    AskSystem {
        /// For what.
        name: Arc<str>,
        /// For whom.
        source: IpAddr,
    },
    /// Hand over an answer.
    Answer(Answer),
}

/// What happened so far; the numbers wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lookups asked for.
    pub lookups: u32,
    /// Of these, answered from the cache, the hosts file or the name itself.
    pub local: u32,
    /// Of these, joined to one for the same name under way.
    pub joined: u32,
    /// Of these, failed at [`MAX_LOOKUPS`], [`MAX_LOOKUPS_PER_SOURCE`] or [`MAX_WAITERS`].
    pub limited: u32,
    /// Messages sent to nameservers, those sent once more included.
    pub queries: u32,
    /// Servers that did not answer in time.
    pub timeouts: u32,
    /// Servers that could not be reached or could not say.
    pub errors: u32,
    /// Questions put to the system's resolver.
    pub system: u32,
}

/// The resolver's state.
#[derive(Debug)]
pub struct Resolver {
    settings: Arc<Settings>,
    hosts: Hosts,
    cache: AnswerCache,
    lookups: BTreeMap<LookupId, Lookup>,
    /// Lookups that further askers may join.
    by_name: HashMap<Arc<str>, LookupId>,
    next_lookup: u32,
    outbox: Outbox,
}

/// Names a lookup; never used again while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LookupId(u32);

/// A name being looked up.
#[derive(Debug)]
struct Lookup {
    name: Arc<str>,
    /// The first asker's, in whose share it is until it is over, whoever joins it.
    source: IpAddr,
    waiters: Vec<Asker>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// At the nameservers.
    Servers(Pair),
    /// At the nameservers, after the askers got the addresses that there were: only for the cache.
    Late(Pair),
    /// At the system's resolver.
    System {
        timeout: Duration,
        /// When those who wait are told that it failed. The call itself cannot be stopped; it is kept here so that a
        /// name whose lookup hangs takes one thread only.
        deadline: Option<Instant>,
    },
}

impl Resolver {
    /// A resolver without hosts. `random` gives query ids that nobody can guess.
    pub fn new(settings: Settings, random: Box<dyn FnMut() -> u16 + Send>) -> Self {
        Resolver {
            settings: Arc::new(settings),
            hosts: Hosts::default(),
            cache: AnswerCache::new(CACHE_NAMES),
            lookups: BTreeMap::new(),
            by_name: HashMap::new(),
            next_lookup: 0,
            outbox: Outbox::new(random),
        }
    }

    /// Takes over new settings. What is under way goes on as it began; what other nameservers said is forgotten.
    pub fn configure(&mut self, settings: Settings) {
        if settings.nameservers != self.settings.nameservers {
            self.cache = AnswerCache::new(CACHE_NAMES);
        }
        self.settings = Arc::new(settings);
    }

    /// Takes over the hosts file.
    pub fn set_hosts(&mut self, hosts: Hosts) {
        self.hosts = hosts;
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.outbox.counts
    }

    /// What to do next; `None` until the next call of another function.
    pub fn next_action(&mut self) -> Option<Action> {
        self.outbox.actions.pop_front()
    }

    /// When to call [`Resolver::expire`].
    pub fn next_timeout(&self) -> Option<Instant> {
        // At most MAX_LOOKUPS: not worth a heap.
        self.lookups.values().filter_map(Lookup::deadline).min()
    }

    /// Answers `asker`, now or later, exactly once.
    pub fn lookup(&mut self, name: &str, asker: Asker, now: Instant) {
        self.outbox.count(|c| &mut c.lookups);
        let name = canonical(name);
        if let Some(entry) = self.local(&name, now) {
            self.outbox.count(|c| &mut c.local);
            return self.outbox.answer(&name, asker, &entry);
        }
        let limited = Entry { result: Err(ResolveError::Failed), valid_until: now };
        if let Some(lookup) = self.by_name.get(&*name).and_then(|id| self.lookups.get_mut(id)) {
            if lookup.waiters.len() >= MAX_WAITERS {
                self.outbox.count(|c| &mut c.limited);
                return self.outbox.answer(&name, asker, &limited);
            }
            self.outbox.count(|c| &mut c.joined);
            return lookup.join(asker, now);
        }
        if !self.make_room(asker.source) {
            self.outbox.count(|c| &mut c.limited);
            return self.outbox.answer(&name, asker, &limited);
        }
        self.begin(Arc::from(&*name), asker, now);
    }

    /// A datagram, or a whole message over TCP, came in answer.
    pub fn received(&mut self, exchange: ExchangeId, message: &[u8], now: Instant) {
        let Some((id, family)) = self.outbox.place(exchange) else { return };
        if let Some(Lookup { work: Work::Servers(pair) | Work::Late(pair), .. }) = self.lookups.get_mut(&id) {
            pair.received(family, message, now, &mut self.outbox);
            self.advance(id, now);
        }
    }

    /// The socket failed: an ICMP error, a refused or closed connection, no descriptor.
    pub fn exchange_failed(&mut self, exchange: ExchangeId, now: Instant) {
        let Some((id, family)) = self.outbox.place(exchange) else { return };
        if let Some(Lookup { work: Work::Servers(pair) | Work::Late(pair), .. }) = self.lookups.get_mut(&id) {
            self.outbox.count(|c| &mut c.errors);
            pair.next_server(family, now, &mut self.outbox);
            self.advance(id, now);
        }
    }

    /// The system's resolver is done with a name; `None` if it could not be asked.
    pub fn system_answered(
        &mut self,
        name: &str,
        result: Option<Result<Vec<IpAddr>, ResolveError>>,
        now: Instant,
    ) {
        let Some(&id) = self.by_name.get(name) else { return };
        let Some(mut lookup) = self.lookups.remove(&id) else { return };
        self.by_name.remove(name);
        let entry = match result {
            Some(Ok(addrs)) if !addrs.is_empty() => {
                Entry { result: Ok(ipv6_first(addrs)), valid_until: now + SYSTEM_TTL }
            }
            Some(Ok(_)) => Entry { result: Err(ResolveError::NotFound), valid_until: now + FAILED_TTL },
            Some(Err(error)) => Entry { result: Err(error), valid_until: now + FAILED_TTL },
            // Not the name's fault: nothing to remember.
            None => Entry { result: Err(ResolveError::Failed), valid_until: now },
        };
        self.conclude(&lookup.name, &mut lookup.waiters, entry, now);
    }

    /// Acts on what is due.
    pub fn expire(&mut self, now: Instant) {
        let due = |lookup: &Lookup| lookup.deadline().is_some_and(|at| at <= now);
        let ids: Vec<LookupId> = self.lookups.iter().filter(|(_, l)| due(l)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Lookup { work: Work::Servers(pair) | Work::Late(pair), .. }) =
                self.lookups.get_mut(&id)
            {
                pair.expire(now, &mut self.outbox);
            }
            self.advance(id, now);
        }
    }

    /// What needs no question: literal addresses, localhost (RFC 6761 §6.3), hosts, the cache, and names that no host
    /// has.
    fn local(&mut self, name: &str, now: Instant) -> Option<Entry> {
        if let Ok(addr) = name.parse::<IpAddr>() {
            return Some(Entry { result: Ok(ipv6_first(vec![addr])), valid_until: now + MAX_TTL });
        }
        if name == "localhost" || name.ends_with(".localhost") {
            let addrs: Arc<[IpAddr]> = Arc::from([Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
            return Some(Entry { result: Ok(addrs), valid_until: now + MAX_TTL });
        }
        if let Some(addrs) = self.hosts.get(name) {
            return Some(Entry { result: Ok(addrs), valid_until: now + HOSTS_TTL });
        }
        if let Some(entry) = self.cache.get(name, now) {
            return Some(entry);
        }
        let nonsense = Entry { result: Err(ResolveError::NotFound), valid_until: now + ABSENT_TTL };
        (!dns::is_host_name(name)).then_some(nonsense)
    }

    fn begin(&mut self, name: Arc<str>, asker: Asker, now: Instant) {
        let id = LookupId(self.next_lookup);
        self.next_lookup = self.next_lookup.wrapping_add(1);
        let work = if self.settings.nameservers.is_empty() {
            self.outbox.ask_system(&name, asker.source);
            Work::System { timeout: self.settings.timeout, deadline: None }
        } else {
            Work::Servers(Pair::begin(id, name.clone(), self.settings.clone(), now, &mut self.outbox))
        };
        let mut lookup = Lookup { name: name.clone(), source: asker.source, waiters: Vec::new(), work };
        lookup.join(asker, now);
        self.by_name.insert(name, id);
        self.lookups.insert(id, lookup);
    }

    /// Whether one more lookup may begin for `source`.
    fn make_room(&mut self, source: IpAddr) -> bool {
        // At most MAX_LOOKUPS: not worth counters that could go wrong.
        let own = self.lookups.values().filter(|lookup| lookup.source == source).count();
        (own < MAX_LOOKUPS_PER_SOURCE || self.drop_late(|lookup| lookup.source == source))
            && (self.lookups.len() < MAX_LOOKUPS || self.drop_late(|_| true))
    }

    /// Gives up one of these lookups that nobody waits for; false if there is none.
    fn drop_late(&mut self, of: impl Fn(&Lookup) -> bool) -> bool {
        let is_late = |lookup: &Lookup| matches!(lookup.work, Work::Late(_)) && of(lookup);
        let late = self.lookups.iter().find(|(_, lookup)| is_late(lookup)).map(|(id, _)| *id);
        let Some(Lookup { work: Work::Late(pair), .. }) = late.and_then(|id| self.lookups.remove(&id)) else {
            return false;
        };
        pair.close(&mut self.outbox);
        true
    }

    /// Moves a lookup on if it has its answer.
    fn advance(&mut self, id: LookupId, now: Instant) {
        let Some(Lookup { name, source, mut waiters, work }) = self.lookups.remove(&id) else { return };
        let work = match work {
            Work::Servers(pair) => match pair.progress(now) {
                Progress::Pending => Work::Servers(pair),
                Progress::Partial(entry) => {
                    // Once the answer has expired, the next asker begins anew.
                    self.by_name.remove(&name);
                    self.conclude(&name, &mut waiters, entry, now);
                    Work::Late(pair)
                }
                Progress::Done(entry) => {
                    pair.close(&mut self.outbox);
                    self.by_name.remove(&name);
                    return self.conclude(&name, &mut waiters, entry, now);
                }
            },
            Work::Late(pair) => match pair.progress(now) {
                Progress::Done(entry) => return self.conclude(&name, &mut waiters, entry, now),
                Progress::Pending | Progress::Partial(_) => Work::Late(pair),
            },
            Work::System { timeout, deadline } if deadline.is_some_and(|at| at <= now) => {
                let failed = Entry { result: Err(ResolveError::Failed), valid_until: now + FAILED_TTL };
                self.conclude(&name, &mut waiters, failed, now);
                Work::System { timeout, deadline: None }
            }
            work @ Work::System { .. } => work,
        };
        self.lookups.insert(id, Lookup { name, source, waiters, work });
    }

    /// Answers those who wait, and remembers.
    fn conclude(&mut self, name: &str, waiters: &mut Vec<Asker>, entry: Entry, now: Instant) {
        for asker in waiters.drain(..) {
            self.outbox.answer(name, asker, &entry);
        }
        if entry.valid_until > now {
            self.cache.insert(name, entry);
        }
    }
}

impl Lookup {
    fn join(&mut self, asker: Asker, now: Instant) {
        self.waiters.push(asker);
        if let Work::System { timeout, deadline } = &mut self.work {
            deadline.get_or_insert(now + *timeout * 2);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Servers(pair) => pair.deadline().into_iter().chain(pair.settle_at()).min(),
            Work::Late(pair) => pair.deadline(),
            Work::System { deadline, .. } => *deadline,
        }
    }
}

/// IPv4-mapped addresses as what they are, IPv6 before IPv4, the order kept otherwise.
fn ipv6_first(addrs: Vec<IpAddr>) -> Arc<[IpAddr]> {
    let mut addrs: Vec<IpAddr> = addrs.into_iter().map(|a| a.to_canonical()).collect();
    addrs.sort_by_key(IpAddr::is_ipv4);
    addrs.into()
}

#[cfg(test)]
mod tests;
