//! The last thing that a client hears: the one place where reasons become bytes.

use super::machine::{Owed, Session};
use super::request::DENIED;
use super::state::State;
use super::{CloseReason, Wire};
use crate::config::Mode;
use crate::identify::Identity;
use crate::wire::http1;

/// fatal(2), unrecognized_name(112): RFC 6066 §3. Browsers do not try again after it.
const TLS_REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Session {
    /// What the client is told at the end.
    pub(super) fn last_words(&self, reason: CloseReason) -> Wire {
        let owes_http = !matches!(self.owed, Owed::Nothing) || self.state == State::RequestHead;
        if owes_http {
            return match super::request::status_of(reason) {
                Some((status, text)) => Wire::Say(self.http_reply(status, text, true)),
                None => Wire::Quiet,
            };
        }
        match reason {
            CloseReason::Denied | CloseReason::Incomplete => match (&self.identity, self.prelude.first()) {
                (Some(Identity::Tls(_)), _) | (None, Some(0x16)) => Wire::Say(TLS_REFUSAL.to_vec()),
                (Some(Identity::Http { .. }), _) => Wire::Say(self.first_reply(DENIED)),
                (None, Some(_)) if reason == CloseReason::Incomplete => {
                    Wire::Say(self.first_reply(self.shortfall))
                }
                _ => Wire::Reset,
            },
            // A client that was told that its tunnel stands learns by its end that it does not.
            CloseReason::ConnectRefused
            | CloseReason::ConnectUnreachable
            | CloseReason::ConnectTimeout
            | CloseReason::ConnectFailed
            | CloseReason::NameNotFound
            | CloseReason::ResolveFailed
                if self.mode == Mode::Http =>
            {
                Wire::Quiet
            }
            CloseReason::HealthCheck
            | CloseReason::ClientGone
            | CloseReason::Shutdown
            | CloseReason::Idle => Wire::Quiet,
            _ => Wire::Reset,
        }
    }

    /// A refusal of the first bytes, which are a request or the beginning of one: HEAD gets no body.
    fn first_reply(&self, text: &str) -> Vec<u8> {
        http1::reply_to(super::request::method_of(&self.prelude), 403, text, true)
    }
}
