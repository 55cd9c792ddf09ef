//! UDP: the datagrams of one flow from its client, one after the other; the answer comes once.
//!
//! The first datagram chooses the protocol: QUIC by its version number, then a DNS query, which is strict enough not
//! to be met by chance, and NTP last, which is not. All but QUIC of version 1 and 2 is known at once.
//!
//! Whoever asks holds the datagrams until the verdict and then sends them on in their order; the bounds here, by which an
//! answer comes, bound what is held, too. Time is the asker's business: a flow that has *begun* and is not whole by its
//! deadline is denied as [`DatagramOutcome::Incomplete`] is.

use super::{Identity, Parsers, dns};
use crate::wire::{ntp, quic};

#[cfg(feature = "quic")]
use super::quic::Flow;
#[cfg(feature = "quic")]
pub use super::quic::begins_connection;

/// Datagrams of one flow by which there is an answer.
pub const MAX_DATAGRAMS: usize = 8;
/// Bytes of one flow, in all its datagrams, by which there is an answer. One datagram alone may be larger.
pub const MAX_BYTES: usize = 16 * 1024;

/// Where a packet with a short header may belong to a connection that came from another address.
const QUIC_PORT: u16 = 443;

/// What the datagrams so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatagramOutcome {
    /// Further datagrams could still change the answer.
    NeedMore {
        /// The datagrams already commit to QUIC: the ClientHello must be whole in time, or the flow is denied.
        begun: bool,
    },
    /// The answer; further datagrams cannot change it.
    Identified(Identity),
    /// QUIC of version 1 or 2 that gives no ClientHello: to be denied, under the rule `incomplete`.
    Incomplete(Shortfall),
    /// To UDP port 443, a QUIC packet from inside a connection: let in only if this client has, or just had, a
    /// connection to this destination that was let in. A client whose address has changed goes on like this (RFC 9000 §9).
    MidConnection,
}

/// Why no ClientHello can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortfall {
    /// The first packets are none of the version that they name.
    Malformed,
    /// The first Initial is not sealed with the keys that its connection id gives: the client is in the middle of a
    /// connection, or it is no client.
    NotOpened,
    /// What is inside is no ClientHello, contradicts itself, or goes beyond the bounds.
    NoHello,
    /// [`MAX_DATAGRAMS`] or [`MAX_BYTES`] without a whole ClientHello.
    TooMuch,
}

impl Shortfall {
    /// In a few words, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Shortfall::Malformed => "malformed QUIC",
            Shortfall::NotOpened => "QUIC that does not open",
            Shortfall::NoHello => "QUIC without a ClientHello",
            Shortfall::TooMuch => "a ClientHello that does not end",
        }
    }
}

/// Follows the datagrams of one flow, which is one client's address and port towards one destination's.
#[derive(Debug)]
pub struct DatagramIdentifier {
    parsers: Parsers,
    /// Where the flow goes.
    port: u16,
    state: State,
    /// Whose answer was given.
    #[cfg(feature = "quic")]
    answered: Option<Box<Flow>>,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Fresh,
    #[cfg(feature = "quic")]
    Quic(Box<Flow>),
    Answered(DatagramOutcome),
}

impl DatagramIdentifier {
    /// Nothing seen yet of a flow to this port.
    pub fn new(parsers: Parsers, port: u16) -> Self {
        DatagramIdentifier {
            parsers,
            port,
            state: State::Fresh,
            #[cfg(feature = "quic")]
            answered: None,
        }
    }

    /// Looks at the next datagram from the client.
    ///
    /// An answer holds for all that follow; whoever asks again gets it again.
    pub fn look(&mut self, datagram: &[u8]) -> DatagramOutcome {
        let outcome = match &mut self.state {
            State::Fresh => self.look_at_first(datagram),
            #[cfg(feature = "quic")]
            State::Quic(flow) => flow.look(datagram),
            State::Answered(outcome) => return outcome.clone(),
        };
        if !matches!(outcome, DatagramOutcome::NeedMore { .. }) {
            let _before = std::mem::replace(&mut self.state, State::Answered(outcome.clone()));
            #[cfg(feature = "quic")]
            if let State::Quic(flow) = _before {
                self.answered = Some(flow);
            }
        }
        outcome
    }

    /// Whether a datagram that begins a connection begins the one that was identified, over again: a client sends its first
    /// packets until it hears of its server, and with `retry` the same ClientHello after a Retry, under another connection id.
    #[cfg(feature = "quic")]
    pub fn repeats(&mut self, datagram: &[u8], retry: bool) -> bool {
        self.answered.as_mut().is_some_and(|flow| flow.repeats(datagram, retry))
    }

    /// Bytes of memory that it takes for what it has seen, beside a little for itself.
    pub fn kept(&self) -> usize {
        #[cfg(feature = "quic")]
        if let State::Quic(flow) = &self.state {
            return flow.kept();
        } else if let Some(flow) = &self.answered {
            return flow.kept();
        }
        0
    }

    fn look_at_first(&mut self, datagram: &[u8]) -> DatagramOutcome {
        if quic::Version::of(datagram).is_some() {
            return self.look_at_quic(datagram);
        }
        // What QUIC looks like is not taken for another protocol when its parser is off.
        let mid_connection = self.port == QUIC_PORT && quic::is_short_header(datagram);
        DatagramOutcome::Identified(if quic::is_foreign_version(datagram) {
            if self.reads_quic() { Identity::Quic { hello: None } } else { Identity::None }
        } else if let Some(query) = dns::datagram_query(datagram).filter(|_| self.parsers.dns) {
            Identity::Dns { query: Some(query) }
        } else if mid_connection && self.reads_quic() {
            return DatagramOutcome::MidConnection;
        } else if !mid_connection && self.parsers.ntp && ntp::is_packet(datagram) {
            Identity::Ntp
        } else {
            Identity::None
        })
    }

    fn reads_quic(&self) -> bool {
        self.parsers.quic && cfg!(feature = "quic")
    }

    #[cfg(feature = "quic")]
    fn look_at_quic(&mut self, datagram: &[u8]) -> DatagramOutcome {
        if !self.parsers.quic {
            return DatagramOutcome::Identified(Identity::None);
        }
        let mut flow = Box::new(Flow::new());
        let outcome = flow.look(datagram);
        self.state = State::Quic(flow);
        outcome
    }

    #[cfg(not(feature = "quic"))]
    fn look_at_quic(&mut self, _datagram: &[u8]) -> DatagramOutcome {
        DatagramOutcome::Identified(Identity::None)
    }
}
