//! Deadlines of one worker's sessions, exact and without leftovers: each session has at most one.

use std::collections::BTreeSet;
use std::time::Instant;

/// Sessions by deadline.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, usize)>,
}

impl Timers {
    /// No deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the deadline of `key` from `old` to `new`.
    pub fn change(&mut self, key: usize, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.queue.remove(&(at, key));
        }
        if let Some(at) = new {
            self.queue.insert((at, key));
        }
    }

    /// When the next deadline is.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes out one that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        let &(at, key) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_come_in_order_and_a_moved_one_only_once() {
        let t0 = Instant::now();
        let at = |s| Some(t0 + Duration::from_secs(s));
        let mut timers = Timers::new();
        timers.change(1, None, at(10));
        timers.change(2, None, at(5));
        timers.change(3, None, at(7));
        timers.change(1, at(10), at(6));
        timers.change(3, at(7), None);
        assert_eq!(timers.next(), at(5));
        assert_eq!(timers.pop(t0), None);
        let late = t0 + Duration::from_secs(60);
        assert_eq!([timers.pop(late), timers.pop(late), timers.pop(late)], [Some(2), Some(1), None]);
    }
}
