//! What probes have found, for all workers: whoever asks for what is known waits for nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Finding, Target};
use crate::connect::recent::Recent;

/// Findings that are kept: some hundred bytes each.
const MAX_KNOWN: usize = 1024;
/// A valid certificate is looked at again after this time, or when it expires.
const VALID_FOR: Duration = Duration::from_secs(4 * 3600);
/// One that is not may be replaced at any time.
const INVALID_FOR: Duration = Duration::from_secs(5 * 60);
/// What nobody knows may be known soon.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// Findings by target. Locked for a look at a table, never longer.
#[derive(Debug)]
pub struct Known(Mutex<Recent<Target, Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    finding: Finding,
    until: Instant,
}

impl Default for Known {
    fn default() -> Self {
        Known(Mutex::new(Recent::new(MAX_KNOWN)))
    }
}

impl Known {
    /// What was found, if it still counts.
    pub fn get(&self, target: &Target, now: Instant) -> Option<Finding> {
        self.lock().get(target, |entry| now < entry.until).map(|entry| entry.finding)
    }

    /// Keeps what was found; `counts_for` is the rest of a valid certificate's own time.
    pub(super) fn insert(
        &self,
        target: Target,
        finding: Finding,
        counts_for: Option<Duration>,
        now: Instant,
    ) {
        let time = match finding {
            Finding::Valid => VALID_FOR.min(counts_for.unwrap_or(VALID_FOR)),
            Finding::Invalid(_) => INVALID_FOR,
            Finding::Unknown(_) => UNKNOWN_FOR,
        };
        if let Some(until) = now.checked_add(time) {
            self.lock().insert(target, Entry { finding, until });
        }
    }

    pub(super) fn clear(&self) {
        *self.lock() = Recent::new(MAX_KNOWN);
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Target, Entry>> {
        // What a panicking thread left behind is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
