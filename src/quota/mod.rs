//! What one source may take of an accepting rule: connections at once, new ones a minute, bytes a second.
//!
//! Pure: time is passed in, nobody waits here. A rule's [`Keeper`] is shared by all workers, and a source's connections share
//! what is left: whoever moved bytes gets his next turn behind those who did so before, so that none of them starves. Sources
//! are counted by address. Their number is bounded, and where it is reached those who still are within their limits are
//! forgotten first; a new source is refused if nobody is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sources that one rule keeps in mind.
const MAX_SOURCES: usize = 4096;
/// From here on those that need not be kept in mind are looked for, each time their number has doubled.
const FEW_SOURCES: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);
/// What a connection may move in one turn: that many milliseconds of the rate …
const TURN_MS: u64 = 50;
/// … but never less than a packet, and never more than a pipe holds.
const TURN_BYTES: (u64, u64) = (1500, 64 * 1024);
/// How far a source may be ahead of its rate.
const BURST: Duration = Duration::from_millis(200);

/// The limits of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// At once.
    pub connections: Option<u32>,
    /// New ones in a minute, as many at once after a minute of rest.
    pub new_per_minute: Option<u32>,
    /// Bytes a second in each direction; never 0.
    pub rate: Option<u64>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `connections`.
    Connections,
    /// `newPerMinute`.
    NewPerMinute,
    /// More sources than can be kept in mind.
    Sources,
}

impl Refused {
    /// The log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Connections => "connections",
            Refused::NewPerMinute => "newPerMinute",
            Refused::Sources => "sources",
        }
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// Keeps one rule's sources within its limits.
#[derive(Debug)]
pub struct Keeper {
    quota: Quota,
    sources: Mutex<Sources>,
}

#[derive(Debug)]
struct Sources {
    known: HashMap<IpAddr, Source>,
    /// How many may be there before those that need not are looked for.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    open: u32,
    /// When all of its new connections so far are paid for.
    new_paid: Instant,
    /// When all of its bytes so far are paid for, up and down.
    bytes_paid: [Instant; 2],
}

impl Keeper {
    /// Nobody is there yet.
    pub fn new(quota: Quota) -> Self {
        let sources = Sources { known: HashMap::new(), sweep_at: FEW_SOURCES };
        Keeper { quota, sources: Mutex::new(sources) }
    }

    /// The limits.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// One more connection of `source`; it counts until the share is dropped.
    ///
    /// # Errors
    /// The limit that it would go beyond.
    pub fn enter(self: &Arc<Self>, source: IpAddr, now: Instant) -> Result<Share, Refused> {
        let mut sources = lock(&self.sources);
        sources.make_room(source, now)?;
        let fresh = Source { open: 0, new_paid: now, bytes_paid: [now; 2] };
        let known = sources.known.entry(source).or_insert(fresh);
        if self.quota.connections.is_some_and(|most| known.open >= most) {
            return Err(Refused::Connections);
        }
        if let Some(each) = self.quota.new_per_minute.and_then(|count| MINUTE.checked_div(count)) {
            let paid = known.new_paid.max(now) + each;
            if paid > now + MINUTE {
                return Err(Refused::NewPerMinute);
            }
            known.new_paid = paid;
        }
        known.open = known.open.saturating_add(1);
        Ok(Share { keeper: Arc::clone(self), source })
    }
}

impl Sources {
    fn make_room(&mut self, source: IpAddr, now: Instant) -> Result<(), Refused> {
        if self.known.len() < self.sweep_at || self.known.contains_key(&source) {
            return Ok(());
        }
        let owes = |s: &Source| s.new_paid > now || s.bytes_paid.iter().any(|paid| *paid > now);
        self.known.retain(|_, known| known.open > 0 || owes(known));
        self.sweep_at = self.known.len().saturating_mul(2).clamp(FEW_SOURCES, MAX_SOURCES);
        if self.known.len() < MAX_SOURCES { Ok(()) } else { Err(Refused::Sources) }
    }
}

/// One connection's part of what its source may take.
#[derive(Debug)]
pub struct Share {
    keeper: Arc<Keeper>,
    source: IpAddr,
}

impl Share {
    /// How much the connection may move in one turn; `None` for as much as it likes.
    pub fn turn_bytes(&self) -> Option<u64> {
        let (least, most) = TURN_BYTES;
        self.keeper.quota.rate.map(|rate| (rate.saturating_mul(TURN_MS) / 1000).clamp(least, most))
    }

    /// Takes in that `bytes` are to move, if they may now; for those who cannot wait.
    pub fn spend_in_time(&self, way: Way, bytes: u64, now: Instant) -> bool {
        let in_time = self.spend(way, 0, now) <= now;
        if in_time {
            self.spend(way, bytes, now);
        }
        in_time
    }

    /// Takes in that `bytes` have moved: when the next turn may be.
    pub fn spend(&self, way: Way, bytes: u64, now: Instant) -> Instant {
        let Some(rate) = self.keeper.quota.rate else { return now };
        let nanos = bytes.saturating_mul(1_000_000_000) / rate.max(1);
        let mut sources = lock(&self.keeper.sources);
        let Some(known) = sources.known.get_mut(&self.source) else { return now };
        let [up, down] = &mut known.bytes_paid;
        let paid = match way {
            Way::Up => up,
            Way::Down => down,
        };
        *paid = (*paid).max(now).checked_add(Duration::from_nanos(nanos)).unwrap_or(now);
        paid.checked_sub(BURST).unwrap_or(now)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(known) = lock(&self.keeper.sources).known.get_mut(&self.source) {
            known.open = known.open.saturating_sub(1);
        }
    }
}

/// Counts that a panicking thread left behind are still counts.
fn lock(sources: &Mutex<Sources>) -> MutexGuard<'_, Sources> {
    sources.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(connections: Option<u32>, new_per_minute: Option<u32>, rate: Option<u64>) -> Arc<Keeper> {
        Arc::new(Keeper::new(Quota { connections, new_per_minute, rate }))
    }

    fn source(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn connections_count_until_they_are_dropped() {
        let (keeper, now) = (keeper(Some(2), None, None), Instant::now());
        let enter = |n| keeper.enter(source(n), now);
        let first = enter(1).unwrap();
        let _second = enter(1).unwrap();
        assert_eq!(enter(1).unwrap_err(), Refused::Connections);
        enter(2).unwrap();
        drop(first);
        enter(1).unwrap();
    }

    #[test]
    fn new_connections_come_back_one_by_one() {
        let (keeper, start) = (keeper(None, Some(6), None), Instant::now());
        let enter = |secs: u64| keeper.enter(source(1), start + Duration::from_secs(secs)).is_ok();
        assert_eq!((0..8).map(|_| enter(0)).filter(|in_time| *in_time).count(), 6);
        assert!(!enter(9));
        assert!(enter(10) && !enter(10));
        assert!(enter(35) && enter(35) && !enter(35));
        // After a minute of rest there are as many as at first, and no more.
        assert_eq!((0..8).map(|_| enter(200)).filter(|in_time| *in_time).count(), 6);
    }

    /// Moves bytes for `secs` with so many connections, each as soon as it may: what each of them got.
    fn run(rate: u64, connections: usize, secs: u64) -> Vec<u64> {
        let (keeper, start) = (keeper(None, None, Some(rate)), Instant::now());
        let shares: Vec<Share> = (0..connections).map(|_| keeper.enter(source(1), start).unwrap()).collect();
        let (mut moved, mut next) = (vec![0; connections], vec![start; connections]);
        loop {
            let (at, now) = next.iter().copied().enumerate().min_by_key(|(_, next)| *next).unwrap();
            if now >= start + Duration::from_secs(secs) {
                return moved;
            }
            let bytes = shares[at].turn_bytes().unwrap();
            moved[at] += bytes;
            next[at] = shares[at].spend(Way::Down, bytes, now).max(now);
        }
    }

    #[test]
    fn a_rate_is_kept_and_shared_evenly() {
        for (rate, connections) in [(625_000, 1), (625_000, 7), (8_000, 3), (125_000_000, 2)] {
            let moved = run(rate, connections, 20);
            let (sum, turn) = (moved.iter().sum::<u64>(), (rate / 20).clamp(1500, 65_536));
            let most = rate * 20 + rate / 5 + turn * connections as u64;
            assert!(sum <= most, "{rate} {connections}: {sum} of {most}");
            assert!(sum >= rate * 19, "{rate} {connections}: {sum}");
            let (least, most) = (moved.iter().min().unwrap(), moved.iter().max().unwrap());
            assert!(most - least <= 2 * turn + rate / 5, "{rate} {connections}: {moved:?}");
        }
    }

    #[test]
    fn directions_and_sources_have_a_rate_of_their_own() {
        let (keeper, now) = (keeper(None, None, Some(1000)), Instant::now());
        let (one, other) = (keeper.enter(source(1), now).unwrap(), keeper.enter(source(2), now).unwrap());
        assert_eq!(one.spend(Way::Up, 10_000, now), now + Duration::from_secs(10) - BURST);
        assert!(one.spend(Way::Down, 100, now) <= now);
        assert!(other.spend(Way::Up, 100, now) <= now);
    }

    #[test]
    fn sources_are_bounded() {
        let (keeper, now) = (keeper(Some(1), Some(1), None), Instant::now());
        let most = u32::try_from(MAX_SOURCES).unwrap();
        for n in 0..most {
            drop(keeper.enter(source(n), now).unwrap());
        }
        assert_eq!(keeper.enter(source(most), now).unwrap_err(), Refused::Sources);
        assert_eq!(keeper.enter(source(0), now).unwrap_err(), Refused::NewPerMinute);
        // Those who owe nothing any more make room.
        keeper.enter(source(most), now + MINUTE).unwrap();
        assert!(lock(&keeper.sources).known.len() < 2);
    }
}
