//! Lines that anybody could cause as often as he likes: one a second, which says of how many.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(1);

/// One kind of line, of all workers together.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unsaid: u32,
}

impl Seldom {
    /// Something happened that is worth a line. If it is time for one: how many it stands for.
    pub fn line(&self, now: Instant) -> Option<u32> {
        // A count that a panicking thread left behind is still a count.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid = state.unsaid.saturating_add(1);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let lines: Vec<_> = (0..25).map(|i| seldom.line(start + EVERY / 10 * i)).collect();
        let said: Vec<_> = lines.iter().flatten().copied().collect();
        assert_eq!(said, [1, 10, 10]);
        assert_eq!((lines[0], lines[10], lines[20]), (Some(1), Some(10), Some(10)));
        // Workers do not agree on the time to the nanosecond.
        assert_eq!(seldom.line(start), None);
    }
}
