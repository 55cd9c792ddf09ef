//! The stage in which TLS comes between the client and the session.

use std::io;

use super::{Connection, Fate, Stage};
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::relay::stream::is_tls_failure;
use crate::session::{CloseReason, Machine, Securing};

impl<M: Machine> Connection<M> {
    /// Puts TLS on the client's end, beginning with what the session has read of it.
    pub(super) fn secure(&mut self, session: Box<M>, securing: &Securing, tools: &mut Tools<'_, M>) -> Fate {
        self.set_deadline(Some(securing.until), tools);
        self.stage = Stage::Securing(session);
        match self.client.stream.secure(&securing.role, &securing.received) {
            Ok(()) => self.shake_hands(tools),
            Err(error) => self.insecure(&error, tools),
        }
    }

    /// Goes on with the handshake. It reads and writes by turns, so news of either readiness leads here.
    pub(super) fn shake_hands(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Some(left) = tools.loan.handshakes.checked_sub(1) else { return Fate::Yields };
        tools.loan.handshakes = left;
        match self.client.stream.handshake() {
            Ok(true) => {
                // TLS may have read more than its own.
                self.client.ready.readable = true;
                let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
                let step = tools.ask(|env| session.secured(env));
                self.carry_out(session, step, tools)
            }
            Ok(false) => Fate::Yields,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fate::Stays,
            Err(error) => self.insecure(&error, tools),
        }
    }

    fn insecure(&mut self, error: &io::Error, tools: &mut Tools<'_, M>) -> Fate {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => CloseReason::ClientGone,
            _ => why_client_broke(error, &self.life),
        };
        let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
        let step = session.close(reason);
        self.carry_out(session, step, tools)
    }
}

/// Why a client's stream broke. What TLS says about it is logged: nobody else knows it.
pub(super) fn why_client_broke<M: Machine>(error: &io::Error, life: &Life<M>) -> CloseReason {
    if !is_tls_failure(error) {
        return CloseReason::ClientReset;
    }
    life.tls_failed(error);
    CloseReason::TlsFailed
}
