//! What waits for a verdict of a flow: bounded in number, in bytes, and by the memory of all flows.

use crate::identify::datagram::{MAX_BYTES, MAX_DATAGRAMS};
use crate::session::budget::Charge;
use crate::session::{Env, Machine};

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
        if !room || !self.charge.get_or_insert_with(|| Charge::new(env.preludes)).grow_to(bytes) {
            return false;
        }
        self.bytes = bytes;
        self.datagrams.push(datagram.to_vec());
        true
    }
}
