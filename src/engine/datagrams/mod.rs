//! Datagrams: flows, by whom they come from and where they go, and the sockets from which they are answered.
//!
//! The kernel gives all datagrams of one client's socket to the same worker (see [`crate::sys::datagram::udp_listeners`]), so
//! workers share nothing here either. A flow has one socket, connected to its server. What the server says goes to the client
//! from a socket that is bound to where the client's datagrams were going, one for all flows that go there.
//!
//! Flows of a SOCKS client come by a socket that is its own, and go back there.
//!
//! A flow that is refused leaves no socket behind, and no session, only the note that it was: its client will try again, and
//! is neither asked about nor logged each time.

mod associations;
mod passage;
mod refused;
mod replies;
mod way;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) use self::associations::{Association, Associations, FIRST_ASSOCIATION, Membership};
pub(super) use self::passage::{Gear, Passage};
pub(super) use self::refused::Refused;
pub(super) use self::replies::Replies;
pub(super) use self::way::WayBack;
use super::slab::Slab;
use super::timers::Timers;
use crate::accept::Wish;
use crate::session::{Budget, Machine};
use crate::sys::datagram::Batch;

/// Which flow a datagram belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Whom it comes from.
    pub client: SocketAddr,
    /// Where it goes.
    pub wish: Wish,
    pub via: Via,
}

/// How a flow's datagrams come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Via {
    /// The firewall has led them here.
    Firewall,
    /// This one speaks for the client. Two of them may have clients of the same address.
    Peer(SocketAddr),
    /// The client has sent them to its association.
    Association(Membership),
}

/// One worker's flows and what they share.
#[derive(Debug)]
pub(super) struct Datagrams<M: Machine> {
    pub flows: Slab<Passage<M>>,
    pub by_key: HashMap<Key, usize>,
    /// By place in `flows`.
    pub timers: Timers,
    pub refused: Refused,
    pub replies: Replies,
    pub associations: Associations,
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
            associations: Associations::new(),
            held: Arc::default(),
            batch: None,
        }
    }
}
