//! `limits`: how many connections there may be, in all and from one source, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::seldom::Seldom;
use crate::config::Limits;
use crate::sys::limits::Descriptors;

/// Descriptors that are not a session's: listeners, polls, wakers, the resolver, the log, metrics.
const RESERVED_DESCRIPTORS: u64 = 64;

/// What a session has at least once it is relayed. More, for further attempts to reach a server and for pipes, there is as
/// long as there is something to spare.
const PER_SESSION: u32 = 2;

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Connections at once.
    pub connections: u32,
    /// Connections at once from one address.
    pub per_source: u32,
    /// More was configured than the descriptors allow.
    pub lowered: bool,
    /// Descriptors for all sessions together.
    pub descriptors: u32,
}

impl Effective {
    /// `limits` as `descriptors` (RLIMIT_NOFILE) allow: a session takes two.
    pub fn of(limits: Limits, descriptors: u64) -> Self {
        let descriptors = descriptors.saturating_sub(RESERVED_DESCRIPTORS);
        // The largest number is not reached: counting may overshoot it for a moment.
        let descriptors = u32::try_from(descriptors).unwrap_or(u32::MAX).min(u32::MAX / 2);
        let most = (descriptors / PER_SESSION).max(1);
        let connections = limits.connections.unwrap_or(most).min(most);
        let per_source = limits.per_source.unwrap_or((connections / 4).max(1)).min(connections);
        let lowered = limits.connections.is_some_and(|wanted| wanted > most);
        Effective { connections, per_source, lowered, descriptors }
    }

    /// Connections at once from one IPv6 network of 64 bits: a host there may use any of its addresses, so that a limit for
    /// each would be none, but it may as well be a LAN with many hosts, so that it gets more than one host.
    fn per_network(self) -> u32 {
        self.per_source.max(self.connections / 2)
    }
}

/// Counts what is there, over all workers.
#[derive(Debug)]
pub struct Admission {
    /// What sessions use, and how much of it there is.
    pub descriptors: Arc<Descriptors>,
    connections: AtomicU32,
    most: AtomicU32,
    most_per_source: AtomicU32,
    most_per_network: AtomicU32,
    sources: Mutex<HashMap<Source, u32>>,
    /// Lines about who is not let in, or not yet.
    pub refusals: Seldom,
    /// Lines about PROXY headers that are refused.
    pub headers: Seldom,
    /// Lines about destinations in whose name nobody can be answered.
    pub unanswerable: Seldom,
}

impl Admission {
    /// Nobody is there yet.
    pub fn new(limits: Effective) -> Self {
        let admission = Admission {
            descriptors: Arc::new(Descriptors::new(limits.descriptors)),
            connections: AtomicU32::new(0),
            most: AtomicU32::new(0),
            most_per_source: AtomicU32::new(0),
            most_per_network: AtomicU32::new(0),
            sources: Mutex::new(HashMap::new()),
            refusals: Seldom::default(),
            headers: Seldom::default(),
            unanswerable: Seldom::default(),
        };
        admission.change(limits);
        admission
    }

    /// New limits, for those who come from now on.
    pub fn change(&self, limits: Effective) {
        self.most.store(limits.connections, Ordering::Relaxed);
        self.most_per_source.store(limits.per_source, Ordering::Relaxed);
        self.most_per_network.store(limits.per_network(), Ordering::Relaxed);
    }

    /// One more connection, if there is room; [`Admission::leave`] gives the room back.
    pub fn enter(&self) -> bool {
        self.descriptors.use_anyway(PER_SESSION);
        if self.connections.fetch_add(1, Ordering::Relaxed) < self.most.load(Ordering::Relaxed) {
            return true;
        }
        self.leave();
        false
    }

    /// One connection less.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.descriptors.give_back(PER_SESSION);
    }

    /// Writes a line about a connection of `source` that was not let in, now and then.
    pub fn log_refusal(&self, source: IpAddr, now: Instant) {
        match self.refusals.line(now) {
            None => {}
            Some(1) => log::warn!("too many connections: refused {source}"),
            Some(count) => log::warn!(
                "too many connections: refused {source}, and {} before it",
                count.saturating_sub(1)
            ),
        }
    }

    /// One more connection from `source`, if there is room; [`Admission::leave_source`] gives the room back.
    pub fn enter_source(&self, source: IpAddr) -> bool {
        let mut sources = lock(&self.sources);
        let room = |sources: &HashMap<Source, u32>, source: &Source, most: &AtomicU32| {
            sources.get(source).copied().unwrap_or(0) < most.load(Ordering::Relaxed)
        };
        let (host, network) = Source::of(source);
        if !room(&sources, &host, &self.most_per_source)
            || network.is_some_and(|network| !room(&sources, &network, &self.most_per_network))
        {
            return false;
        }
        for source in [Some(host), network].into_iter().flatten() {
            *sources.entry(source).or_insert(0) += 1;
        }
        true
    }

    /// One connection from `source` less.
    pub fn leave_source(&self, source: IpAddr) {
        let mut sources = lock(&self.sources);
        let (host, network) = Source::of(source);
        for source in [Some(host), network].into_iter().flatten() {
            if let Some(count) = sources.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    sources.remove(&source);
                }
            }
        }
    }
}

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Host(IpAddr),
    /// The upper half of an IPv6 address: in the lower one a host may choose as many as it likes (RFC 4291 §2.5.4).
    Network(u64),
}

impl Source {
    fn of(source: IpAddr) -> (Source, Option<Source>) {
        let network = match source.to_canonical() {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).ok().map(Source::Network),
        };
        (Source::Host(source), network)
    }
}

/// A counter that a panicking thread left behind is still a counter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor that was to spare.
#[derive(Debug)]
pub(super) struct Extra(Arc<Descriptors>);

impl Extra {
    /// Nothing if there is none.
    pub fn take(descriptors: &Arc<Descriptors>) -> Option<Self> {
        descriptors.take(1).then(|| Extra(Arc::clone(descriptors)))
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_descriptors() {
        let check = |connections, per_source, descriptors, expected: (u32, u32, bool)| {
            let e = Effective::of(Limits { connections, per_source }, descriptors);
            assert_eq!((e.connections, e.per_source, e.lowered), expected);
        };
        check(None, None, 1024, (480, 120, false));
        check(Some(100), None, 1024, (100, 25, false));
        check(Some(100), Some(100), 1024, (100, 100, false));
        check(Some(100_000), Some(7), 1024, (480, 7, true));
        check(None, None, 10, (1, 1, false));
    }

    #[test]
    fn room_is_given_back() {
        let admission =
            Admission::new(Effective { connections: 3, per_source: 2, lowered: false, descriptors: 7 });
        assert!(admission.enter() && admission.enter() && admission.enter());
        assert!(!admission.enter());
        assert!(admission.descriptors.take(1) && !admission.descriptors.take(1));
        admission.leave();
        assert!(admission.enter());

        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(admission.enter_source(a) && admission.enter_source(a));
        assert!(!admission.enter_source(a));
        assert!(admission.enter_source(b));
        admission.leave_source(a);
        assert!(admission.enter_source(a));
        for source in [a, a, b] {
            admission.leave_source(source);
        }
        assert!(lock(&admission.sources).is_empty(), "a source that has left takes no room");
    }

    #[test]
    fn a_host_that_changes_its_address_does_not_get_everything() {
        let limits = Effective { connections: 20, per_source: 3, lowered: false, descriptors: 100 };
        let admission = Admission::new(limits);
        let addr =
            |host: u64| IpAddr::from(std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(host)));
        let neighbour: IpAddr = "2001:db8:0:1::".parse().unwrap();
        let let_in = |source| (0..20).take_while(|_| admission.enter_source(source)).count();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|host| let_in(addr(host))),
            [3, 3, 3, 1, 0],
            "half of all connections"
        );
        assert_eq!(let_in(neighbour), 3, "another network");
        for v4 in 1..4 {
            assert_eq!(let_in(IpAddr::from([192, 0, 2, v4])), 3, "IPv4 addresses cost something");
        }
        admission.leave_source(addr(1));
        assert_eq!(let_in(addr(4)), 1);
        for (host, count) in [(0, 3), (1, 2), (2, 3), (3, 1), (4, 1)] {
            (0..count).for_each(|_| admission.leave_source(addr(host)));
        }
        (0..3).for_each(|_| admission.leave_source(neighbour));
        assert_eq!(lock(&admission.sources).len(), 3, "those of IPv4 are left");
        // One that is configured to have everything has it.
        let limits = Effective { connections: 20, per_source: 20, lowered: false, descriptors: 100 };
        admission.change(limits);
        assert_eq!(let_in(neighbour), 20);
    }
}
