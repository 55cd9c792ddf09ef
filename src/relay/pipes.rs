//! The worker's pipes: lent to a direction that moves much, given back as soon as they are empty.

use std::sync::Arc;

use crate::sys::limits::Descriptors;
use crate::sys::splice::Pipe;

/// Empty pipes kept for the next who needs one. More may be lent out at a time; what exceeds this is closed at return.
const KEPT: usize = 16;

/// Pipes that may be lent out at a time: two descriptors and up to [`CAPACITY`] bytes each.
const LENT: usize = 512;

/// Descriptors of a pipe.
const PER_PIPE: u32 = 2;

/// What a pipe is asked to hold, in bytes: large enough that a system call moves a lot, small enough for a router.
pub const CAPACITY: u32 = 64 * 1024;

/// A worker's pipes.
#[derive(Debug)]
pub struct Pool {
    descriptors: Arc<Descriptors>,
    idle: Vec<Pipe>,
    lent: usize,
}

impl Pool {
    /// An empty pool that takes its pipes from `descriptors`.
    pub fn new(descriptors: Arc<Descriptors>) -> Self {
        Pool { descriptors, idle: Vec::new(), lent: 0 }
    }

    /// An empty pipe, unless too many are out or the process is out of descriptors: then bytes are copied instead.
    pub fn borrow(&mut self) -> Option<Pipe> {
        if self.lent >= LENT {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => self.open()?,
        };
        self.lent += 1;
        Some(pipe)
    }

    fn open(&self) -> Option<Pipe> {
        if !self.descriptors.take(PER_PIPE) {
            return None;
        }
        let pipe = Pipe::new(CAPACITY).ok();
        if pipe.is_none() {
            self.descriptors.give_back(PER_PIPE);
        }
        pipe
    }

    fn close(&self, pipe: Pipe) {
        drop(pipe);
        self.descriptors.give_back(PER_PIPE);
    }

    /// A pool that has none left to lend.
    #[cfg(test)]
    pub(super) fn exhausted() -> Self {
        Pool { lent: LENT, ..Pool::new(Arc::default()) }
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
        } else {
            self.close(pipe);
        }
    }

    /// Closes a pipe that still holds bytes nobody will want.
    pub fn discard(&mut self, pipe: Pipe) {
        self.lent = self.lent.saturating_sub(1);
        self.close(pipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_pipes_as_descriptors_to_spare() {
        let descriptors = Arc::new(Descriptors::new(5));
        let mut pool = Pool::new(Arc::clone(&descriptors));
        let (first, second) = (pool.borrow().unwrap(), pool.borrow().unwrap());
        assert!(pool.borrow().is_none());
        // One that is kept can be lent again, its descriptors are not to spare.
        pool.give_back(first);
        assert!(!descriptors.take(2));
        let first = pool.borrow().unwrap();
        pool.discard(first);
        pool.discard(second);
        assert!(descriptors.take(5));
    }
}
