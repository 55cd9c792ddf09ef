//! The worker's pipes: lent to a direction that moves much, given back as soon as they are empty.

use crate::sys::splice::Pipe;

/// Empty pipes kept for the next who needs one. More may be lent out at a time; what exceeds this is closed at return.
const KEPT: usize = 16;

/// Pipes that may be lent out at a time: two descriptors and up to [`CAPACITY`] bytes each.
const LENT: usize = 512;

/// What a pipe is asked to hold, in bytes: large enough that a system call moves a lot, small enough for a router.
pub const CAPACITY: u32 = 64 * 1024;

/// A worker's pipes.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Vec<Pipe>,
    lent: usize,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pipe, unless too many are out or the process is out of descriptors: then bytes are copied instead.
    pub fn borrow(&mut self) -> Option<Pipe> {
        if self.lent >= LENT {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => Pipe::new(CAPACITY).ok()?,
        };
        self.lent += 1;
        Some(pipe)
    }

    /// A pool that has none left to lend.
    #[cfg(test)]
    pub(super) fn exhausted() -> Self {
        Pool { idle: Vec::new(), lent: LENT }
    }

    /// Pipes that are out.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// Takes back a pipe that is empty.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.lent = self.lent.saturating_sub(1);
        if self.idle.len() < KEPT {
            self.idle.push(pipe);
        }
    }

    /// Closes a pipe that still holds bytes nobody will want.
    pub fn discard(&mut self, pipe: Pipe) {
        self.lent = self.lent.saturating_sub(1);
        drop(pipe);
    }
}
