//! TLS before everything else: the first step of a session with a client of an `https` listener.
//!
//! The session looks at the first bytes itself, so that one who speaks no TLS gets an answer that he can read; the others'
//! are handed over with the step.

use super::machine::Session;
use super::request::method_of;
use super::state::State;
use super::{CloseReason, Machine as _, Securing, Step};
use crate::accept::https::is_plain_text;
use crate::wire::http1;

/// What a client without TLS is told.
const SPEAKS_TLS: &str = "this port speaks TLS: the proxy's address begins with https://";

impl Session {
    pub(super) fn look_for_tls(&mut self) -> Step {
        if self.prelude.first().copied().is_some_and(is_plain_text) {
            let reply = http1::reply_to(method_of(&self.prelude), 400, SPEAKS_TLS, true);
            return self.say(reply, CloseReason::WrongProtocol);
        }
        let Some(role) = self.tls.take() else { return self.close(CloseReason::TlsFailed) };
        self.go(State::Securing);
        Step::Secure(Securing { role, received: self.take_prelude(), until: self.in_time() })
    }
}
