//! The memory of large preludes: one budget for all sessions of a worker.
//!
//! A hello in records of one byte is six times its size before it can be judged, so a hundred clients that send just that,
//! and never the last byte, would fill a small router. Ordinary first bytes fit in [`FREE`] and are not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a prelude that cost nothing.
pub const FREE: usize = 16 * 1024;
/// Bytes of all larger preludes of a worker that still wait for more. The parser's own copy comes on top: 64 KiB for each
/// at most, and never more than the prelude.
pub const MAX_LARGE_PRELUDES: usize = 4 * 1024 * 1024;

/// What the large preludes of a worker take now.
#[derive(Debug, Default)]
pub struct Budget {
    // Atomic only because sessions come to their worker from another thread; nobody else looks.
    used: AtomicUsize,
}

impl Budget {
    /// Bytes of large preludes.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one prelude takes of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Charge { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes `bytes` in all, which is not less than before; false, and nothing changes, if the budget has not so many.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let room = MAX_LARGE_PRELUDES.saturating_sub(self.budget.used());
        if more > room {
            return false;
        }
        self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
