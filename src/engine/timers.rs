//! Deadlines of one worker's sessions: each session has at most one, and at most one entry in the queue.
//!
//! A deadline moves with almost every step of a session, and mostly to a later time. Then the entry stays where it is: when
//! its time comes it is put where the deadline is by then. So most sessions touch the queue once in their life.

use std::time::Instant;

/// Deadlines by key; keys are small numbers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    slots: Vec<Slot>,
    /// A binary heap: no entry is before the one at [`parent`] of its place. std's own cannot move an entry to an earlier
    /// time, and an ordered set is 6 KB more of a MIPS binary.
    queue: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The deadline.
    due: Option<Instant>,
    /// The place of the entry in the queue, whose time is never later than `due`.
    place: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Instant,
    key: usize,
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
        let Some(at) = due else { return };
        let place = slot.place.unwrap_or(self.queue.len());
        match self.queue.get_mut(place) {
            Some(entry) if entry.at <= at => return,
            Some(entry) => entry.at = at,
            None => self.queue.push(Entry { at, key }),
        }
        self.rise(place);
    }

    /// When to look for deadlines that have passed, which may be earlier than the first deadline.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|entry| entry.at)
    }

    /// Takes out one that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        while let Some(&Entry { key, .. }) = self.queue.first().filter(|entry| entry.at <= now) {
            self.queue.swap_remove(0);
            self.sink();
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.place = None;
            match slot.due.take() {
                Some(due) if due <= now => return Some(key),
                due => self.set(key, due),
            }
        }
        None
    }

    /// Moves the entry at `place` before all that are later than it.
    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.is_before(place, parent(place)) {
            self.queue.swap(place, parent(place));
            self.note(place);
            place = parent(place);
        }
        self.note(place);
    }

    /// Moves the first entry behind all that are before it.
    fn sink(&mut self) {
        let mut place = 0;
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = if self.is_before(right, left) { right } else { left };
            if !self.is_before(child, place) {
                break;
            }
            self.queue.swap(place, child);
            self.note(place);
            place = child;
        }
        self.note(place);
    }

    /// Whether there is an entry at `a`, and it is before the one at `b`.
    fn is_before(&self, a: usize, b: usize) -> bool {
        matches!((self.queue.get(a), self.queue.get(b)), (Some(a), Some(b)) if a.at < b.at)
    }

    /// Tells the slot of the entry at `place` where that is.
    fn note(&mut self, place: usize) {
        if let Some(entry) = self.queue.get(place)
            && let Some(slot) = self.slots.get_mut(entry.key)
        {
            slot.place = Some(place);
        }
    }
}

/// The place whose entry is not after the one at `place`, which is not the first.
fn parent(place: usize) -> usize {
    (place - 1) / 2
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

    /// Against a list that is searched: thousands of moves of a few dozen keys.
    #[test]
    fn it_is_what_a_list_of_deadlines_would_be() {
        let t0 = Instant::now();
        let mut random = 1u32;
        let mut draw = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        let (mut timers, mut model) = (Timers::new(), [None; 40]);
        let mut now = t0;
        for _ in 0..20_000 {
            let key = draw(40) as usize;
            let due = (draw(4) != 0).then(|| now + Duration::from_secs(u64::from(draw(100))));
            timers.set(key, due);
            model[key] = due;
            now += Duration::from_millis(u64::from(draw(900)));
            let mut popped: Vec<usize> = std::iter::from_fn(|| timers.pop(now)).collect();
            popped.sort_unstable();
            let passed: Vec<usize> =
                (0..40).filter(|&key| model[key].is_some_and(|due| due <= now)).collect();
            assert_eq!(popped, passed);
            passed.iter().for_each(|&key| model[key] = None);
            let first = model.iter().flatten().min();
            assert!(first.is_none_or(|first| timers.next().is_some_and(|next| next <= *first)));
            assert!(timers.queue.len() <= 40, "one entry a key");
        }
    }
}
