//! The connection's state machine: the only place that knows the order of the stages.
//!
//! ```text
//!            accept            identify         decide          connect               relay
//! client ──► who wants what ──► first bytes ──► verdict ──► address, connection ──► tunnel or exchange
//!            TLS, PROXY header                   │   ▲
//!            request head                        └───┘ asks only for the fact it needs next
//! ```
//!
//! [`Session`] does no I/O: it is told what happened (bytes, the end of the stream, a deadline, addresses, a connection)
//! and answers with the one [`Step`] to be taken next, before which [`Machine::take_reply`] goes to the client. Time is an
//! argument. So a whole conversation runs in a test under a fake clock, and another engine than ours could carry out the
//! steps. What our engine asks of a session, this one or another, is [`Machine`].

mod authentication;
pub mod budget;
mod contract;
mod datagram;
mod decision;
mod first_bytes;
pub mod flow;
mod held;
#[cfg_attr(not(feature = "intercept"), path = "no_interception.rs")]
mod interception;
mod last_words;
mod machine;
mod memory;
mod owed;
mod probing;
pub mod reason;
pub mod record;
pub mod redirect;
mod request;
mod secure;
mod socks;
mod state;
mod surroundings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Credentials;
use crate::connect::probe;
use crate::decide::rules::Locals;
use crate::relay::stream::Role;
use crate::wire::http1::Framing;

pub use budget::Budget;
pub use contract::{Machine, Record};
pub use machine::Session;
pub use memory::Memory;
pub use reason::CloseReason;
pub use surroundings::{Device, Nowhere, Surroundings};

/// What a session needs of the world at each call.
pub struct Env<'a, M: Machine = Session> {
    /// The time.
    pub now: Instant,
    /// The plan in force; a request or connection begun earlier goes on with its own.
    pub plan: &'a Arc<M::Plan>,
    /// What of this machine the rules must know.
    pub locals: &'a Locals,
    /// What large preludes take of the memory, of all sessions together.
    pub preludes: &'a Arc<Budget>,
    /// What is looked up where a rule asks for it.
    pub surroundings: &'a dyn Surroundings,
    /// What was seen of clients.
    pub memory: &'a Memory,
    /// Who hears of verdicts.
    pub report: &'a mut dyn Report<M>,
}

/// So that the clock on the wall shows the next minute for certain.
const BEHIND_THE_MINUTE: Duration = Duration::from_millis(5);

impl<M: Machine> Env<'_, M> {
    /// When to look again at a session that hangs on the time: right behind the next full minute.
    ///
    /// Windows begin and end at full minutes. The next look is never further away than that, and the clock is read anew for
    /// each, so a clock that jumps is noticed within a minute, too.
    pub fn next_review(&self) -> Option<Instant> {
        self.now.checked_add(self.surroundings.week_time().1 + BEHIND_THE_MINUTE)
    }
}

/// Hears of what is decided.
pub trait Report<M: Machine = Session> {
    /// The verdict on a connection or request, once for each.
    fn verdict(&mut self, session: &M, verdict: M::Verdict);
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Wait for the client's bytes.
    Read {
        /// Until then.
        until: Instant,
    },
    /// Put TLS on the client's end.
    Secure(Securing),
    /// Check these against [`Machine::users`], then call [`Machine::verified`]. However long that takes, nobody else may wait
    /// for it.
    Verify(Credentials),
    /// Find the addresses of a name.
    Resolve(Box<str>),
    /// Find out what the certificates of these are worth.
    Probe(Vec<probe::Target>),
    /// Connect to one of these, in this order of preference.
    Dial(Vec<SocketAddr>),
    /// Put TLS on the server's end.
    SecureServer(Securing),
    /// Open a way for datagrams, say so with [`Machine::associated`], and keep it open as long as the client's connection is.
    Associate(Associating),
    /// Relay everything both ways.
    Tunnel {
        /// Read from the client already.
        to_server: Vec<u8>,
    },
    /// Relay one HTTP request and its response.
    Exchange(Exchange),
    /// End the session.
    Close(Closing),
}

/// TLS to be put on one end.
#[derive(Debug)]
pub struct Securing {
    /// As whom, and with which certificates.
    pub role: Role,
    /// Read from the client already.
    pub received: Vec<u8>,
    /// The handshake must be over by then.
    pub until: Instant,
}

/// A way for datagrams that a client has asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Associating {
    /// Who the client is, where it was asked.
    pub user: Option<Arc<str>>,
    /// From which port they will come; otherwise the first one shows it.
    pub port: Option<u16>,
}

/// One request to be sent and answered.
#[derive(Debug)]
pub struct Exchange {
    /// The rewritten head.
    pub head: Vec<u8>,
    /// The method: it tells how the response is framed.
    pub method: Box<str>,
    /// How the request's body is framed.
    pub body: Framing,
    /// Bytes read behind the head: body, then perhaps a next request.
    pub after_head: Vec<u8>,
    /// Whether the client's connection may be used again afterwards.
    pub keep_alive: bool,
    /// The client's version is HTTP/1.`minor`.
    pub minor: u8,
    /// The server may change to another protocol, which is then relayed both ways (RFC 9110 §7.8).
    pub upgrades: bool,
}

/// How a session ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Closing {
    /// Why.
    pub reason: CloseReason,
    /// What the client is told.
    pub wire: Wire,
}

/// The last thing that a client hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Wire {
    /// A reset.
    Reset,
    /// The end of the stream.
    Quiet,
    /// These bytes, then the end of the stream.
    Say(Vec<u8>),
}
