//! Deadlines of one worker's sessions: each session has at most one, and at most one entry in the queue.
//!
//! A deadline moves with almost every step of a session, and mostly to a later time. Then the entry stays where it is: when
//! its time comes it is put where the deadline is by then. So most sessions touch the queue once in their life.

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines by key; keys are small numbers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    slots: Vec<Slot>,
    queue: BTreeSet<(Instant, usize)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The deadline.
    due: Option<Instant>,
    /// Where the entry in the queue is: never later than `due`.
    queued: Option<Instant>,
}

impl Timers {
    /// No deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `due` the deadline of `key`; `None` for none.
    pub fn set(&mut self, key: usize, due: Option<Instant>) {
        if key >= self.slots.len() {
            self.slots.resize(key.saturating_add(1), Slot::default());
        }
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.due = due;
        let Some(due) = due else { return };
        match slot.queued {
            Some(queued) if queued <= due => return,
            Some(queued) => _ = self.queue.remove(&(queued, key)),
            None => {}
        }
        slot.queued = Some(due);
        self.queue.insert((due, key));
    }

    /// When to look for deadlines that have passed, which may be earlier than the first deadline.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes out one that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        while let Some(&(at, key)) = self.queue.first().filter(|(at, _)| *at <= now) {
            self.queue.remove(&(at, key));
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.queued = None;
            match slot.due.take() {
                Some(due) if due <= now => return Some(key),
                due => self.set(key, due),
            }
        }
        None
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
        let pop_all = |timers: &mut Timers, now: Option<Instant>| -> Vec<usize> {
            std::iter::from_fn(|| timers.pop(now?)).collect()
        };
        let mut timers = Timers::new();
        timers.set(1, at(10));
        timers.set(2, at(5));
        timers.set(3, at(7));
        // Earlier, later, and away.
        timers.set(1, at(6));
        timers.set(2, at(8));
        timers.set(3, None);
        assert_eq!(timers.next(), at(5));
        assert_eq!(pop_all(&mut timers, at(5)), []);
        assert_eq!(timers.next(), at(6));
        assert_eq!(pop_all(&mut timers, at(7)), [1]);
        assert_eq!(pop_all(&mut timers, at(60)), [2]);
        assert_eq!(timers.next(), None);
    }

    /// A place in the slab is used again by the next session: it must not be woken for the one before.
    #[test]
    fn a_key_that_is_used_again_has_only_its_own_deadline() {
        let t0 = Instant::now();
        let at = |s| Some(t0 + Duration::from_secs(s));
        let mut timers = Timers::new();
        for round in 0..100 {
            timers.set(0, at(1));
            timers.set(0, None);
            timers.set(0, at(2 + round));
        }
        assert_eq!(timers.queue.len(), 1, "no leftovers");
        assert_eq!(timers.pop(t0 + Duration::from_secs(100)), None);
        assert_eq!(timers.pop(t0 + Duration::from_secs(101)), Some(0));
        assert_eq!(timers.next(), None);
    }
}
