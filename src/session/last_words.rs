//! What a client is told at the end: the one place where reasons become bytes.

use super::machine::Session;
use super::owed::Owed;
use super::request::{DENIED, method_of, status_of};
use super::state::State;
use super::{CloseReason, Wire, socks};
use crate::identify::Identity;
use crate::wire::http1;

/// fatal(2), unrecognized_name(112): RFC 6066 §3. Browsers do not try again after it.
const TLS_REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Session {
    /// The last words for `reason`, in the protocol that the client speaks with us now.
    pub(super) fn last_words(&self, reason: CloseReason) -> Wire {
        match (&self.owed, self.state) {
            (Owed::SocksReply, _) => return socks::last_words(reason),
            (Owed::Established | Owed::Response(_), _) | (Owed::Nothing, State::RequestHead) => {
                return match status_of(reason) {
                    Some((status, text)) => Wire::Say(self.http_reply(status, text, true)),
                    None => Wire::Quiet,
                };
            }
            // Inside of TLS there is nothing that every protocol understands.
            (Owed::Nothing, State::FirstBytes) if self.intercepting.is_some() => return Wire::Quiet,
            (Owed::Nothing, _) => {}
        }
        match reason {
            CloseReason::BadCertificate | CloseReason::ServerTlsFailed => Wire::Say(TLS_REFUSAL.to_vec()),
            CloseReason::Denied | CloseReason::Incomplete => match (&self.identity, self.prelude.first()) {
                (Some(Identity::Tls(_)), _) | (None, Some(0x16)) => Wire::Say(TLS_REFUSAL.to_vec()),
                (Some(Identity::Http { .. }), _) => Wire::Say(self.first_reply(DENIED)),
                (None, Some(_)) if reason == CloseReason::Incomplete => {
                    Wire::Say(self.first_reply(self.shortfall))
                }
                _ => Wire::Reset,
            },
            // A client that was told that its tunnel stands learns by its end that it does not.
            _ if reason.is_unconnected() && self.mode.is_explicit() => Wire::Quiet,
            CloseReason::HealthCheck
            | CloseReason::WrongProtocol
            | CloseReason::ClientGone
            | CloseReason::Shutdown
            | CloseReason::Idle => Wire::Quiet,
            _ => Wire::Reset,
        }
    }

    /// A refusal of the first bytes, which are a request or the beginning of one: HEAD gets no body.
    fn first_reply(&self, text: &str) -> Vec<u8> {
        http1::reply_to(method_of(&self.prelude), 403, text, true)
    }
}
