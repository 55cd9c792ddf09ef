//! Datagrams: flows, by whom they come from and where they go, and the sockets from which they are answered.
//!
//! The kernel gives all datagrams of one client's socket to the same worker (see [`crate::sys::datagram::udp_listeners`]), so
//! workers share nothing here either. A flow has one socket, connected to its server. What the server says goes to the client
//! from a socket that is bound to where the client's datagrams were going, one for all flows that go there.
//!
//! A flow that is refused leaves no socket behind, and no session, only the note that it was: its client will try again, and
//! is neither asked about nor logged each time.

mod passage;
mod refused;
mod replies;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) use self::passage::{Gear, Passage};
pub(super) use self::refused::Refused;
pub(super) use self::replies::Replies;
use super::slab::Slab;
use super::timers::Timers;
use crate::session::{Budget, Machine};
use crate::sys::datagram::Batch;

/// Whom a flow comes from, and where it goes.
pub(super) type Key = (SocketAddr, SocketAddr);

/// One worker's flows and what they share.
#[derive(Debug)]
pub(super) struct Datagrams<M: Machine> {
    pub flows: Slab<Passage<M>>,
    pub by_key: HashMap<Key, usize>,
    /// By place in `flows`.
    pub timers: Timers,
    pub refused: Refused,
    pub replies: Replies,
    /// What datagrams that wait for a verdict take of the memory.
    pub held: Arc<Budget>,
    /// Made for the first datagram.
    pub batch: Option<Box<Batch>>,
}

impl<M: Machine> Datagrams<M> {
    /// No flow.
    pub fn new() -> Self {
        Datagrams {
            flows: Slab::new(),
            by_key: HashMap::new(),
            timers: Timers::new(),
            refused: Refused::default(),
            replies: Replies::default(),
            held: Arc::default(),
            batch: None,
        }
    }
}
