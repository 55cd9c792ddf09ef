//! What a connection is busy with, and whether it goes on.

use super::associating::Associated;
use super::dialling::Dialling;
use super::exchanging::Exchanging;
use super::lingering::Lingering;
use super::probing::Probing;
use super::resolving::Resolving;
use super::tunnelling::Tunnelling;
use super::verifying::Verifying;
use crate::relay::Loan;
use crate::session::Machine;

/// Whether a connection goes on after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Fate {
    /// Until the next event.
    Stays,
    /// It has more to do, but others come first.
    Yields,
    /// It is over.
    Over,
}

/// The stage of a connection.
// A connection spends its life as a tunnel, so that variant is not boxed: idle tunnels are what memory is spent on.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Stage<M> {
    /// The session waits for bytes.
    Talking(Box<M>),
    /// The session waits for TLS with the client.
    Securing(Box<M>),
    /// The session waits for TLS with the server.
    SecuringServer(Box<M>),
    /// The session waits for the word on credentials.
    Verifying(Verifying<M>),
    /// The session waits for the addresses of a name.
    Resolving(Resolving<M>),
    /// The session waits for the word on the server's certificate.
    Probing(Probing<M>),
    /// The session waits for a connection to the server.
    Dialling(Box<M>, Box<Dialling>),
    /// The session is over, its datagrams go both ways beside the connection.
    Associated(Associated),
    /// The session is over, its bytes go both ways.
    Tunnelling(Tunnelling<M>),
    /// The session waits for the end of one HTTP request.
    Exchanging(Box<Exchanging<M>>),
    /// The client has been told; its own bytes no longer matter.
    Lingering(Lingering),
    /// Nothing is left to do, or the next stage is being found.
    Over,
}

impl<M: Machine> Stage<M> {
    /// Whether the session waits for something that its client has no part in.
    pub fn is_waiting(&self) -> bool {
        matches!(
            self,
            Stage::Verifying(_)
                | Stage::Resolving(_)
                | Stage::Probing(_)
                | Stage::Dialling(..)
                | Stage::SecuringServer(_)
        )
    }

    /// Takes the session that waits in this stage for something other than the relay: the stage is then over.
    pub fn take_session(&mut self) -> Option<Box<M>> {
        match std::mem::replace(self, Stage::Over) {
            Stage::Talking(session)
            | Stage::Securing(session)
            | Stage::SecuringServer(session)
            | Stage::Verifying(Verifying { session, .. })
            | Stage::Resolving(Resolving { session, .. })
            | Stage::Probing(Probing { session, .. })
            | Stage::Dialling(session, _) => Some(session),
            stage => {
                *self = stage;
                None
            }
        }
    }

    /// Takes the check that is under way: the stage is then over.
    pub fn take_verifying(&mut self) -> Option<Verifying<M>> {
        match std::mem::replace(self, Stage::Over) {
            Stage::Verifying(verifying) => Some(verifying),
            stage => {
                *self = stage;
                None
            }
        }
    }

    /// Takes the questions that are under way: the stage is then over.
    pub fn take_probing(&mut self) -> Option<Probing<M>> {
        match std::mem::replace(self, Stage::Over) {
            Stage::Probing(probing) => Some(probing),
            stage => {
                *self = stage;
                None
            }
        }
    }

    /// Takes the exchange that is under way: the stage is then over.
    pub fn take_exchange(&mut self) -> Option<Box<Exchanging<M>>> {
        match std::mem::replace(self, Stage::Over) {
            Stage::Exchanging(exchanging) => Some(exchanging),
            stage => {
                *self = stage;
                None
            }
        }
    }

    /// Gives back what was borrowed.
    pub fn close(&mut self, loan: &mut Loan) {
        match self {
            Stage::Tunnelling(tunnelling) => tunnelling.close(loan),
            Stage::Exchanging(exchanging) if M::EXCHANGES => exchanging.close(loan),
            _ => {}
        }
    }
}
