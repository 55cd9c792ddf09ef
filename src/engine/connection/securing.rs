//! The stages in which TLS comes between the client and the session, or the session and the server.

use std::io;

use super::{Connection, Fate, Stage};
use crate::connect::distrust::Distrust;
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
#[cfg(feature = "tls")]
use crate::relay::stream::rustls_error;
use crate::relay::stream::{is_certificate_alert, is_tls_failure};
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
        // Who does not like a certificate says so, or just leaves when it has come.
        let is_refusal = !is_tls_failure(error) || is_certificate_alert(error);
        let step = if is_refusal {
            tools.ask(|env| session.certificate_refused(reason, env))
        } else {
            session.close(reason)
        };
        self.carry_out(session, step, tools)
    }

    /// Puts TLS on the server's end.
    pub(super) fn secure_server(
        &mut self,
        session: Box<M>,
        securing: &Securing,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        self.set_deadline(Some(securing.until), tools);
        self.stage = Stage::SecuringServer(session);
        let Some(server) = &mut self.server else { return Fate::Stays };
        match server.end.stream.secure(&securing.role, &securing.received) {
            Ok(()) => self.shake_hands_with_server(tools),
            Err(error) => self.server_insecure(&error, tools),
        }
    }

    /// Goes on with the server's handshake. A chain of certificates takes as long as a signature, so it waits for its turn
    /// like a client's.
    pub(super) fn shake_hands_with_server(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Some(left) = tools.loan.handshakes.checked_sub(1) else { return Fate::Yields };
        tools.loan.handshakes = left;
        let Some(server) = &mut self.server else { return Fate::Stays };
        match server.end.stream.handshake() {
            Ok(true) => {
                // TLS may have read more than its own.
                server.end.ready.readable = true;
                let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
                let step = tools.ask(|env| session.server_secured(server.end.stream.alpn(), env));
                self.carry_out(session, step, tools)
            }
            Ok(false) => Fate::Yields,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fate::Stays,
            Err(error) => self.server_insecure(&error, tools),
        }
    }

    pub(super) fn server_insecure(&mut self, error: &io::Error, tools: &mut Tools<'_, M>) -> Fate {
        let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
        self.life.open(&session);
        let reason = match distrust(error) {
            Some(distrust) => {
                self.life.tls_failed(CloseReason::BadCertificate, &distrust);
                CloseReason::BadCertificate
            }
            None => {
                self.life.tls_failed(CloseReason::ServerTlsFailed, error);
                CloseReason::ServerTlsFailed
            }
        };
        if let Some(server) = &mut self.server {
            // It is told why, if it takes that at once.
            let _ = server.end.shutdown();
        }
        let step = session.close(reason);
        self.carry_out(session, step, tools)
    }
}

/// Why the server's certificate is not good, if that is what is wrong.
#[cfg(feature = "tls")]
fn distrust(error: &io::Error) -> Option<Distrust> {
    Distrust::of(rustls_error(error)?)
}

#[cfg(not(feature = "tls"))]
fn distrust(_: &io::Error) -> Option<Distrust> {
    None
}

/// Why a client's stream broke. What TLS says about it is logged: nobody else knows it.
pub(super) fn why_client_broke<M: Machine>(error: &io::Error, life: &Life<M>) -> CloseReason {
    if !is_tls_failure(error) {
        return CloseReason::ClientReset;
    }
    life.tls_failed(CloseReason::TlsFailed, error);
    CloseReason::TlsFailed
}
