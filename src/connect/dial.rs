//! Happy eyeballs (RFC 8305 §5): which address to try when, and which attempts to give up.
//!
//! Opens nothing itself. The caller asks [`Dialer::poll`] after every event and does what it says until it says to
//! wait. Attempts overlap, but there is never more than one to an address: the check whether a server can be reached
//! is the connection itself.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Addresses tried of one target; the rest is forgotten. At [`ATTEMPT_DELAY`] they just fill the default round of 2 s.
pub const MAX_ADDRESSES: usize = 8;
/// Attempts have numbers below this: a place in the list, and the round's parity to tell late events by.
pub const MAX_ATTEMPTS: u8 = 2 * MAX_ADDRESSES as u8;
/// Time between attempts as long as none fails (RFC 8305 §8).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// A shorter round would end before its first attempt.
const MIN_ROUND: Duration = Duration::from_millis(1);

/// What the caller is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// Begin to connect; report [`Dialer::failed`] or [`Dialer::connected`] under this number.
    Start {
        /// Less than [`MAX_ATTEMPTS`]; not used by another attempt under way.
        attempt: u8,
        /// Where to.
        addr: SocketAddr,
    },
    /// Close this attempt and poll again.
    Abandon {
        /// Which.
        attempt: u8,
    },
    /// Nothing to do before that time, unless an attempt fails or succeeds.
    Wait {
        /// When to poll again at the latest.
        until: Instant,
    },
    /// Every round failed; nothing is under way.
    Failed(DialError),
}

/// Why there is no connection: of all attempts' errors the most telling.
///
/// The order is that of declaration, the most telling last: an unreachable network is what every router without IPv6
/// sees first, a refusal comes from the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialError {
    /// There is no way to the server's network.
    NetworkUnreachable,
    /// The server cannot be reached.
    Unreachable,
    /// Something else: a local firewall, no descriptors, no address to try.
    Other,
    /// No answer in time.
    TimedOut,
    /// The server refused.
    Refused,
}

impl DialError {
    /// Every kind, in the order of declaration.
    pub const ALL: [DialError; 5] = [
        DialError::NetworkUnreachable,
        DialError::Unreachable,
        DialError::Other,
        DialError::TimedOut,
        DialError::Refused,
    ];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            DialError::NetworkUnreachable => "network_unreachable",
            DialError::Unreachable => "unreachable",
            DialError::Other => "other",
            DialError::TimedOut => "timeout",
            DialError::Refused => "refused",
        }
    }
}

impl From<&io::Error> for DialError {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Refused,
            io::ErrorKind::TimedOut => DialError::TimedOut,
            io::ErrorKind::HostUnreachable => DialError::Unreachable,
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => DialError::NetworkUnreachable,
            _ => DialError::Other,
        }
    }
}

/// One target being dialled.
#[derive(Debug)]
pub struct Dialer {
    /// In the order of trying.
    addrs: Vec<SocketAddr>,
    connect_timeout: Duration,
    /// [`ATTEMPT_DELAY`], or less where a round is too short for all addresses.
    delay: Duration,
    rounds_left: u32,
    /// 0 or [`MAX_ADDRESSES`], added to an address's place.
    parity: u8,
    /// `None` before a round and after the last.
    round: Option<Round>,
    in_flight: Attempts,
    /// To be closed by the caller.
    abandoned: Attempts,
    error: Option<DialError>,
}

/// One pass over the addresses.
#[derive(Debug)]
struct Round {
    deadline: Instant,
    /// Place of the address that has its turn.
    next: u8,
    /// When it has its turn at the latest.
    next_at: Instant,
}

impl Dialer {
    /// A dialer for a target's addresses, `rounds` times over all of them, each at most `connect_timeout`.
    ///
    /// IPv6 and IPv4 take turns, IPv6 first (RFC 8305 §4), each family in the order given, doubles left out.
    pub fn new(addrs: Vec<SocketAddr>, rounds: u32, connect_timeout: Duration) -> Self {
        let addrs = if addrs.len() > 1 { interleave(&addrs) } else { addrs };
        Self::in_order(addrs, rounds, connect_timeout)
    }

    /// The same for addresses without doubles that are to be tried in the order given, of which the first
    /// [`MAX_ADDRESSES`] count.
    pub fn in_order(mut addrs: Vec<SocketAddr>, rounds: u32, connect_timeout: Duration) -> Self {
        addrs.truncate(MAX_ADDRESSES);
        let connect_timeout = connect_timeout.max(MIN_ROUND);
        let count = u32::try_from(addrs.len()).unwrap_or(1).max(1);
        Dialer {
            addrs,
            connect_timeout,
            delay: ATTEMPT_DELAY.min(connect_timeout / count),
            rounds_left: rounds,
            parity: 0,
            round: None,
            in_flight: Attempts::default(),
            abandoned: Attempts::default(),
            error: None,
        }
    }

    /// What to do now. Call it again at once, except after [`Dial::Wait`] and [`Dial::Failed`].
    pub fn poll(&mut self, now: Instant) -> Dial {
        loop {
            if let Some(attempt) = self.abandoned.pop() {
                return Dial::Abandon { attempt };
            }
            let Some(round) = &mut self.round else {
                if self.rounds_left == 0 || self.addrs.is_empty() {
                    return Dial::Failed(self.error.unwrap_or(DialError::Other));
                }
                self.rounds_left -= 1;
                self.parity ^= MAX_ADDRESSES as u8;
                self.round = Some(Round { deadline: now + self.connect_timeout, next: 0, next_at: now });
                continue;
            };
            if now >= round.deadline {
                self.round = None;
                self.abandoned = std::mem::take(&mut self.in_flight);
                self.error = self.error.max(Some(DialError::TimedOut));
                continue;
            }
            match self.addrs.get(usize::from(round.next)) {
                Some(&addr) if now >= round.next_at => {
                    let attempt = round.next + self.parity;
                    round.next += 1;
                    round.next_at = now + self.delay;
                    self.in_flight.insert(attempt);
                    return Dial::Start { attempt, addr };
                }
                Some(_) => return Dial::Wait { until: round.next_at.min(round.deadline) },
                None if self.in_flight.is_empty() => self.round = None,
                None => return Dial::Wait { until: round.deadline },
            }
        }
    }

    /// An attempt failed: the next address, or the next round, has its turn at once. Late news of an abandoned attempt
    /// is ignored.
    pub fn failed(&mut self, attempt: u8, error: &io::Error, now: Instant) {
        if !self.in_flight.remove(attempt) {
            return;
        }
        self.error = self.error.max(Some(error.into()));
        if let Some(round) = &mut self.round {
            round.next_at = now;
        }
    }

    /// An attempt cannot be begun for want of descriptors: its address has its turn when another attempt fails, or after
    /// [`ATTEMPT_DELAY`].
    pub fn put_off(&mut self, attempt: u8, now: Instant) {
        if !self.in_flight.remove(attempt) {
            return;
        }
        if let Some(round) = &mut self.round {
            round.next = round.next.saturating_sub(1);
            round.next_at = now + ATTEMPT_DELAY;
        }
    }

    /// An attempt stands: returns the others under way, which the caller closes. The dialer is done.
    pub fn connected(&mut self, attempt: u8) -> Vec<u8> {
        let mut others = std::mem::take(&mut self.in_flight);
        others.0 |= std::mem::take(&mut self.abandoned).0;
        others.remove(attempt);
        self.round = None;
        self.rounds_left = 0;
        std::iter::from_fn(|| others.pop()).collect()
    }
}

/// The first [`MAX_ADDRESSES`] in the order of trying.
fn interleave(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut ordered = Vec::with_capacity(addrs.len().min(MAX_ADDRESSES));
    let mut v6 = addrs.iter().filter(|a| a.is_ipv6());
    let mut v4 = addrs.iter().filter(|a| a.is_ipv4());
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return ordered;
        }
        for addr in pair.into_iter().flatten() {
            if ordered.len() < MAX_ADDRESSES && !ordered.contains(addr) {
                ordered.push(*addr);
            }
        }
    }
}

/// A set of attempt numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Attempts(u16);

// Every number has its bit.
const _: () = assert!(MAX_ATTEMPTS as u32 <= u16::BITS);

impl Attempts {
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn insert(&mut self, attempt: u8) {
        self.0 |= Self::bit(attempt);
    }

    /// Whether it was in the set.
    fn remove(&mut self, attempt: u8) -> bool {
        let found = self.0 & Self::bit(attempt) != 0;
        self.0 &= !Self::bit(attempt);
        found
    }

    /// Takes out the lowest.
    fn pop(&mut self) -> Option<u8> {
        let attempt = self.0.trailing_zeros() as u8;
        self.remove(attempt).then_some(attempt)
    }

    /// No bit for a number that no attempt has.
    fn bit(attempt: u8) -> u16 {
        1u16.checked_shl(u32::from(attempt)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
