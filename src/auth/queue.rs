//! Who is checked next: one who has not failed goes before those who have, however many they are.
//!
//! Bounded. In a full queue the one that failed most often makes room, of several the one that has waited longest: its
//! client has most likely given up.

use std::collections::VecDeque;

/// What waits, each with the number of tries of its source that were not right.
#[derive(Debug)]
pub struct Queue<T> {
    /// In the order of their arrival.
    waiting: VecDeque<(u32, T)>,
    capacity: usize,
}

impl<T> Queue<T> {
    /// Room for so many.
    pub fn new(capacity: usize) -> Self {
        Queue { waiting: VecDeque::new(), capacity }
    }

    /// Adds one; what has to go instead, which may be the very same.
    pub fn push(&mut self, failures: u32, item: T) -> Option<T> {
        let mut dropped = None;
        if self.waiting.len() >= self.capacity {
            let Some((at, _)) = self.worst().filter(|(_, most)| *most >= failures) else { return Some(item) };
            dropped = self.waiting.remove(at).map(|(_, item)| item);
        }
        self.waiting.push_back((failures, item));
        dropped
    }

    /// The next one: of those that failed least the one that has waited longest.
    pub fn pop(&mut self) -> Option<T> {
        // Of several that are least `min_by_key` takes the first.
        let at =
            (0..self.waiting.len()).min_by_key(|at| self.waiting.get(*at).map(|(failures, _)| *failures))?;
        self.waiting.remove(at).map(|(_, item)| item)
    }

    /// One of those that wait, for somebody who has failed so often and wants the same: it counts for the better of the two.
    pub fn join(&mut self, failures: u32, is_same: impl Fn(&T) -> bool) -> Option<&mut T> {
        let (most, item) = self.waiting.iter_mut().find(|(_, item)| is_same(item))?;
        *most = failures.min(*most);
        Some(item)
    }

    fn worst(&self) -> Option<(usize, u32)> {
        let failures = self.waiting.iter().map(|(failures, _)| *failures).enumerate();
        // Of several that are most `max_by_key` would take the last.
        failures.rev().max_by_key(|(_, failures)| *failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut queue: Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn who_has_not_failed_goes_first_and_equals_in_turn() {
        let mut queue = Queue::new(10);
        for (failures, name) in [(7, "a"), (1, "b"), (7, "c"), (0, "d"), (1, "e"), (0, "f")] {
            assert_eq!(queue.push(failures, name), None);
        }
        assert_eq!(all(queue), ["d", "f", "b", "e", "a", "c"]);
    }

    #[test]
    fn in_a_full_queue_the_oldest_of_the_worst_makes_room() {
        let mut queue = Queue::new(3);
        for (failures, name) in [(2, "a"), (5, "b"), (5, "c")] {
            assert_eq!(queue.push(failures, name), None);
        }
        assert_eq!(queue.push(6, "worse than all"), Some("worse than all"));
        assert_eq!(queue.push(5, "d"), Some("b"));
        assert_eq!(queue.push(0, "e"), Some("c"));
        assert_eq!(queue.push(1, "f"), Some("d"));
        assert_eq!(queue.push(1, "g"), Some("a"));
        assert_eq!(all(queue), ["e", "f", "g"]);
        assert_eq!(Queue::new(0).push(0, "no room"), Some("no room"));
    }

    #[test]
    fn who_joins_is_no_further_one_and_may_help() {
        let mut queue = Queue::new(3);
        for (failures, name) in [(3, "a"), (2, "b")] {
            queue.push(failures, name);
        }
        assert!(queue.join(0, |name| *name == "c").is_none());
        assert_eq!(queue.join(0, |name| *name == "a"), Some(&mut "a"));
        assert_eq!(queue.join(9, |name| *name == "b"), Some(&mut "b"));
        assert_eq!(all(queue), ["a", "b"]);
    }
}
