//! What the resolver wants done, and which exchange with a server belongs to what.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cache::Entry;
use super::pair::Family;
use super::{Action, Answer, Asker, Counts, LookupId};

/// One query and its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeId(u32);

impl ExchangeId {
    /// As a number for the poll, below 2³¹; not used twice at a time.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// How a query travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A connection of its own; for answers that did not fit (RFC 7766 §5).
    Tcp,
}

/// The way out for everything below [`super::Resolver`].
pub(super) struct Outbox {
    /// In the order in which they were decided on; bounded by the lookups and their waiters.
    pub(super) actions: VecDeque<Action>,
    pub(super) counts: Counts,
    places: HashMap<ExchangeId, (LookupId, Family)>,
    next_exchange: u32,
    random: Box<dyn FnMut() -> u16 + Send>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("actions", &self.actions).field("counts", &self.counts).finish()
    }
}

impl Outbox {
    pub(super) fn new(random: Box<dyn FnMut() -> u16 + Send>) -> Self {
        Outbox {
            actions: VecDeque::new(),
            counts: Counts::default(),
            places: HashMap::new(),
            next_exchange: 0,
            random,
        }
    }

    pub(super) fn count(&mut self, field: impl FnOnce(&mut Counts) -> &mut u32) {
        let field = field(&mut self.counts);
        *field = field.wrapping_add(1);
    }

    /// A query id that nobody can guess.
    pub(super) fn query_id(&mut self) -> u16 {
        (self.random)()
    }

    pub(super) fn open(
        &mut self,
        place: (LookupId, Family),
        server: SocketAddr,
        transport: Transport,
        message: Vec<u8>,
    ) -> ExchangeId {
        let exchange = ExchangeId(self.next_exchange);
        self.next_exchange = self.next_exchange.wrapping_add(1) & (u32::MAX >> 1);
        self.places.insert(exchange, place);
        self.count(|c| &mut c.queries);
        self.actions.push_back(Action::Open { exchange, server, transport, message });
        exchange
    }

    pub(super) fn resend(&mut self, exchange: ExchangeId, message: Vec<u8>) {
        self.count(|c| &mut c.queries);
        self.actions.push_back(Action::Resend { exchange, message });
    }

    pub(super) fn close(&mut self, exchange: ExchangeId) {
        if self.places.remove(&exchange).is_some() {
            self.actions.push_back(Action::Close { exchange });
        }
    }

    /// Whose exchange it is; `None` once it is closed.
    pub(super) fn place(&self, exchange: ExchangeId) -> Option<(LookupId, Family)> {
        self.places.get(&exchange).copied()
    }

    pub(super) fn ask_system(&mut self, name: &Arc<str>, source: IpAddr) {
        self.count(|c| &mut c.system);
        self.actions.push_back(Action::AskSystem { name: name.clone(), source });
    }

    pub(super) fn answer(&mut self, name: &str, asker: Asker, entry: &Entry) {
        self.actions.push_back(Action::Answer(Answer {
            asker,
            name: name.into(),
            result: entry.result.clone(),
            valid_until: entry.valid_until,
        }));
    }
}
