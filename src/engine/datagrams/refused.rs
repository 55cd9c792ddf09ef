//! Flows that were refused a moment ago.
//!
//! A client that gets no answer, or one that it does not understand, sends again and again. Each of these datagrams would be
//! a flow of its own, with a verdict and a line in the log.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Key;

/// How long a verdict holds for what comes again.
const HOLDS: Duration = Duration::from_secs(10);

/// Refused flows that are remembered; beyond, the oldest are asked about again.
const MAX_REFUSED: usize = 2048;

/// What was refused, oldest first, all for the same time.
#[derive(Debug, Default)]
pub(in crate::engine) struct Refused {
    /// Whether the client is one that understands a refusal.
    flows: HashMap<Key, bool>,
    order: VecDeque<(Instant, Key)>,
}

impl Refused {
    /// A flow was refused. `answered`: its client was told so, in a way that it understands.
    pub fn insert(&mut self, key: Key, answered: bool, now: Instant) {
        self.forget_until(now);
        if self.order.len() >= MAX_REFUSED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.flows.remove(&oldest);
        }
        if self.flows.insert(key.clone(), answered).is_none() {
            self.order.push_back((now + HOLDS, key));
        }
    }

    /// Whether this flow was refused a moment ago, and if so, whether its client was told.
    pub fn get(&mut self, key: &Key, now: Instant) -> Option<bool> {
        self.forget_until(now);
        self.flows.get(key).copied()
    }

    /// The rules are others now.
    pub fn clear(&mut self) {
        *self = Refused::default();
    }

    fn forget_until(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.front().filter(|(until, _)| *until <= now) {
            self.flows.remove(key);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::Wish;
    use crate::engine::datagrams::Via;
    use std::net::SocketAddr;

    fn key(port: u16) -> Key {
        let wish = Wish::Address(SocketAddr::from(([192, 0, 2, 1], 53)));
        Key { client: SocketAddr::from(([10, 0, 0, 1], port)), wish, via: Via::Firewall }
    }

    #[test]
    fn a_refusal_holds_for_a_while_and_the_oldest_make_room() {
        let start = Instant::now();
        let mut refused = Refused::default();
        refused.insert(key(1), true, start);
        refused.insert(key(2), false, start + Duration::from_secs(5));
        // Does not make it last longer.
        refused.insert(key(1), true, start + Duration::from_secs(5));
        assert_eq!(refused.get(&key(1), start + Duration::from_secs(9)), Some(true));
        assert_eq!(refused.get(&key(1), start + HOLDS), None);
        assert_eq!(refused.get(&key(2), start + HOLDS), Some(false));
        for port in 100..100 + MAX_REFUSED as u16 {
            refused.insert(key(port), false, start + HOLDS);
        }
        assert_eq!(refused.get(&key(2), start + HOLDS), None);
        assert_eq!(refused.get(&key(100), start + HOLDS), Some(false));
        assert_eq!((refused.flows.len(), refused.order.len()), (MAX_REFUSED, MAX_REFUSED));
        refused.clear();
        assert_eq!(refused.get(&key(100), start + HOLDS), None);
    }
}
