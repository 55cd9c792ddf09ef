//! How fast one source may try credentials: the more it has tried without success, the longer between two tries.
//!
//! What is remembered (see [`super::memory`]) is not tried, so a client that was let in is never slowed by others behind
//! the same address. Every try counts when it begins, or a hundred at once would all be the first; success forgets them.
//! A client that sends one credential on many connections at once, as browsers do, tries once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::memory::Mac;

/// Tries that are not slowed: typing errors, and an old password in a client's settings.
const FREE_TRIES: u32 = 4;
/// The time between the first two tries that are slowed; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest time between two tries of a source.
pub const MAX_DELAY: Duration = Duration::from_secs(8);
/// How long a try may have to wait for its turn; beyond it there is none.
pub const MAX_WAIT: Duration = Duration::from_secs(16);
/// After so long without a try a source starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Sources that are known at once; the one that tried longest ago makes room.
pub const MAX_SOURCES: usize = 1024;
/// How often a failure of one source is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// When a try may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Then.
    pub at: Instant,
    /// Tries of the source before it that were not right, as far as is known.
    pub failures: u32,
}

/// Who has tried how often.
#[derive(Debug, Default)]
pub struct Throttle {
    sources: HashMap<IpAddr, Tries>,
}

#[derive(Debug)]
struct Tries {
    count: u32,
    /// When the next one may be.
    next: Instant,
    last: Instant,
    /// What is being tried, and when its turn is.
    current: Option<(Mac, Turn)>,
    logged: Option<Instant>,
}

impl Throttle {
    /// When `source` may try the credential with this sum: now, or later, or nothing if too many of its tries wait already.
    pub fn turn(&mut self, source: IpAddr, mac: &Mac, now: Instant) -> Option<Turn> {
        let key = network(source);
        if !self.sources.contains_key(&key) {
            self.make_room(now);
        }
        let new = Tries { count: 0, next: now, last: now, current: None, logged: None };
        let tries = self.sources.entry(key).or_insert(new);
        if now.saturating_duration_since(tries.last.max(tries.next)) >= FORGOTTEN_AFTER {
            tries.count = 0;
        }
        if let Some((current, turn)) = &tries.current
            && current == mac
        {
            return Some(*turn);
        }
        let at = tries.next.max(now);
        if at.saturating_duration_since(now) > MAX_WAIT {
            return None;
        }
        let turn = Turn { at, failures: tries.count };
        tries.count = tries.count.saturating_add(1);
        tries.last = now;
        tries.next = at + delay_behind(tries.count);
        tries.current = Some((*mac, turn));
        Some(turn)
    }

    /// A try of `source` with this sum is over.
    pub fn settled(&mut self, source: IpAddr, mac: &Mac, right: bool) {
        let key = network(source);
        if right {
            self.sources.remove(&key);
        } else if let Some(tries) = self.sources.get_mut(&key)
            && tries.current.is_some_and(|(current, _)| current == *mac)
        {
            tries.current = None;
        }
    }

    /// Whether it is time to log another failure of `source`.
    pub fn may_log(&mut self, source: IpAddr, now: Instant) -> bool {
        let Some(tries) = self.sources.get_mut(&network(source)) else { return true };
        let due = tries.logged.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY);
        if due {
            tries.logged = Some(now);
        }
        due
    }

    fn make_room(&mut self, now: Instant) {
        if self.sources.len() < MAX_SOURCES {
            return;
        }
        self.sources.retain(|_, tries| now.saturating_duration_since(tries.last) < FORGOTTEN_AFTER);
        if self.sources.len() >= MAX_SOURCES {
            let oldest = self.sources.iter().min_by_key(|(_, tries)| tries.last).map(|(source, _)| *source);
            oldest.map(|source| self.sources.remove(&source));
        }
    }
}

/// The time between the try with this number, from 1, and the next.
fn delay_behind(count: u32) -> Duration {
    match count.checked_sub(FREE_TRIES) {
        None | Some(0) => Duration::ZERO,
        Some(slowed) => {
            let doubled = 1u32.checked_shl(slowed - 1).unwrap_or(u32::MAX);
            FIRST_DELAY.saturating_mul(doubled).min(MAX_DELAY)
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address, in which a host chooses its own.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: [u8; 32] = [0; 32];

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Tries again as soon as it may, so often; when each turn was, in milliseconds from the first.
    fn one_after_the_other(throttle: &mut Throttle, source: IpAddr, start: Instant, tries: u32) -> Vec<u128> {
        let mut now = start;
        let mut turns = Vec::new();
        for _ in 0..tries {
            now = throttle.turn(source, &WRONG, now).unwrap().at;
            throttle.settled(source, &WRONG, false);
            turns.push((now - start).as_millis());
        }
        turns
    }

    #[test]
    fn the_delay_grows_to_its_maximum_and_success_clears_it() {
        let (mut throttle, t0, source) = (Throttle::default(), Instant::now(), addr("192.0.2.1"));
        let turns = one_after_the_other(&mut throttle, source, t0, 13);
        assert_eq!(turns, [0, 0, 0, 0, 0, 250, 750, 1750, 3750, 7750, 15_750, 23_750, 31_750]);
        assert_eq!(one_after_the_other(&mut throttle, addr("192.0.2.2"), t0, 2), [0, 0], "another source");
        throttle.settled(source, &WRONG, true);
        assert_eq!(one_after_the_other(&mut throttle, source, t0, 5), [0; 5]);
        let later = t0 + FORGOTTEN_AFTER + MAX_DELAY;
        assert_eq!(one_after_the_other(&mut throttle, source, later, 6), [0, 0, 0, 0, 0, 250], "forgotten");
    }

    #[test]
    fn tries_at_once_wait_for_each_other_and_too_many_are_refused() {
        let (mut throttle, t0, source) = (Throttle::default(), Instant::now(), addr("192.0.2.1"));
        let turns: Vec<_> = (0..100u8).map(|i| throttle.turn(source, &[i; 32], t0)).collect();
        let granted: Vec<_> = turns.iter().flatten().map(|turn| (turn.at - t0).as_millis()).collect();
        let failures: Vec<_> = turns.iter().flatten().map(|turn| turn.failures).collect();
        assert_eq!(failures, (0..11).collect::<Vec<u32>>());
        assert_eq!(granted, [0, 0, 0, 0, 0, 250, 750, 1750, 3750, 7750, 15_750]);
        assert_eq!(throttle.turn(source, &[99; 32], t0), None);
        assert!(
            throttle.turn(source, &[99; 32], t0 + Duration::from_secs(8)).is_some(),
            "later there is room"
        );
    }

    #[test]
    fn one_credential_on_many_connections_is_one_try() {
        let (mut throttle, t0, source) = (Throttle::default(), Instant::now(), addr("192.0.2.1"));
        for _ in 0..100 {
            assert_eq!(throttle.turn(source, &WRONG, t0), Some(Turn { at: t0, failures: 0 }));
        }
        throttle.settled(source, &WRONG, false);
        assert_eq!(one_after_the_other(&mut throttle, source, t0, 5), [0, 0, 0, 0, 250]);
    }

    #[test]
    fn an_ipv6_source_is_its_64() {
        let check =
            |a: &str, b: &str, same: bool| assert_eq!(network(addr(a)) == network(addr(b)), same, "{a} {b}");
        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
    }

    #[test]
    fn the_table_is_bounded_and_a_line_a_second_is_logged() {
        let (mut throttle, t0) = (Throttle::default(), Instant::now());
        let source = |i: u32| IpAddr::from(i.to_be_bytes());
        for i in 0..3000 {
            throttle.turn(source(i), &WRONG, t0 + Duration::from_millis(i.into()));
        }
        assert_eq!(throttle.sources.len(), MAX_SOURCES);
        let last = source(2999);
        assert!(throttle.sources.contains_key(&last) && !throttle.sources.contains_key(&source(0)));
        assert!(throttle.may_log(last, t0));
        assert!(!throttle.may_log(last, t0 + LOG_EVERY / 2));
        assert!(throttle.may_log(source(2998), t0 + LOG_EVERY / 2), "another source");
        assert!(throttle.may_log(last, t0 + LOG_EVERY));
    }
}
