//! The datagrams of a flow that wait for its verdict. They are few and small; what goes beyond ordinary ones is charged to the
//! budget of its worker, so that those who send more stop nobody who does not.

use super::budget::Charge;
use super::{Env, Machine};
use crate::identify::datagram::{MAX_BYTES, MAX_DATAGRAMS};

/// Bytes that cost nothing: browsers' hellos take two datagrams, and as much again is kept while they are put together.
pub(super) const FREE: usize = 8 * 1024;

/// The datagrams that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub datagrams: Vec<Vec<u8>>,
    bytes: usize,
    charge: Option<Charge>,
}

impl Held {
    /// Keeps a datagram if there is room and memory for it. The first one has always room.
    pub fn push<M: Machine>(&mut self, datagram: &[u8], env: &Env<'_, M>) -> bool {
        let bytes = self.bytes.saturating_add(datagram.len());
        let room = self.datagrams.is_empty() || (self.datagrams.len() < MAX_DATAGRAMS && bytes <= MAX_BYTES);
        if !room || !self.take(bytes, env) {
            return false;
        }
        self.bytes = bytes;
        self.datagrams.push(datagram.to_vec());
        true
    }

    /// Whether there is memory for `more` bytes beside the datagrams.
    pub fn affords<M: Machine>(&mut self, more: usize, env: &Env<'_, M>) -> bool {
        self.take(self.bytes.saturating_add(more), env)
    }

    /// The datagrams, and what was taken of the budget.
    pub fn into_parts(self) -> (Vec<Vec<u8>>, Option<Charge>) {
        (self.datagrams, self.charge)
    }

    fn take<M: Machine>(&mut self, bytes: usize, env: &Env<'_, M>) -> bool {
        match bytes.saturating_sub(FREE) {
            0 => true,
            charged => self.charge.get_or_insert_with(|| Charge::new(env.preludes)).grow_to(charged),
        }
    }
}
