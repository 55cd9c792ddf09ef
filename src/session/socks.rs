//! What a SOCKS client and the proxy say to each other before the tunnel: greeting, method, perhaps name and password,
//! request, reply. Up to the request it has to be said within `timeout.process`, counted once, and again behind a password:
//! how long the check of that takes is not the client's business.

use std::net::SocketAddr;

use super::machine::Session;
use super::owed::Owed;
use super::state::State;
use super::surroundings::decide;
use super::{Associating, CloseReason, Env, Machine, Step, Wire};
use crate::accept;
use crate::auth::{Credentials, Verification};
use crate::decide::facts::{Known, L4};
use crate::decide::{Action, Decision};
use crate::wire::Parse;
use crate::wire::http1;
use crate::wire::socks5::{self, Command, Method, Request, Status};

/// What a client of SOCKS 4 is told: request rejected.
const SOCKS4_REJECTED: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

impl Session {
    pub(super) fn look_for_socks_greeting(&mut self, env: &mut Env<'_>) -> Step {
        match socks5::parse_greeting(&self.prelude) {
            Parse::NeedMore => Step::Read { until: self.in_time() },
            Parse::Malformed => self.other_protocol(),
            Parse::Complete(greeting) => {
                self.prelude.drain(..greeting.len.min(self.prelude.len()));
                let (method, otherwise) = match self.users() {
                    Some(_) => (Method::UserPassword, CloseReason::Unauthenticated),
                    None => (Method::NoAuthentication, CloseReason::BadRequest),
                };
                if !greeting.offers(method) {
                    return self.say(socks5::method_reply(None).to_vec(), otherwise);
                }
                self.reply.extend(socks5::method_reply(Some(method)));
                match method {
                    Method::NoAuthentication => self.expect_socks_request(env),
                    Method::UserPassword => {
                        self.go(State::SocksPassword);
                        self.look_for_socks_password()
                    }
                }
            }
        }
    }

    pub(super) fn look_for_socks_password(&mut self) -> Step {
        let claim = match socks5::parse_credentials(&self.prelude) {
            Parse::NeedMore => return Step::Read { until: self.in_time() },
            Parse::Malformed => return self.close(CloseReason::BadRequest),
            Parse::Complete(claim) => claim,
        };
        let (len, credentials) = (claim.len, Credentials::new(claim.user, claim.password));
        self.prelude.drain(..len.min(self.prelude.len()));
        match credentials {
            Some(credentials) => self.verify(credentials),
            None => self.turn_away(CloseReason::Unauthenticated),
        }
    }

    pub(super) fn socks_verified(&mut self, verification: Verification, env: &mut Env<'_>) -> Step {
        match verification {
            Verification::Right => {
                self.reply.extend(socks5::credentials_reply(true));
                self.waiting_since = env.now;
                self.expect_socks_request(env)
            }
            Verification::Wrong => self.turn_away(CloseReason::Unauthenticated),
            Verification::Unavailable => self.turn_away(CloseReason::Limit),
        }
    }

    /// RFC 1929 has one number for it, and no further try.
    fn turn_away(&mut self, reason: CloseReason) -> Step {
        self.say(socks5::credentials_reply(false).to_vec(), reason)
    }

    /// The client is known well enough: from here on it is owed a reply.
    fn expect_socks_request(&mut self, env: &mut Env<'_>) -> Step {
        self.go(State::SocksRequest);
        self.owed = Owed::SocksReply;
        self.look_for_socks_request(env)
    }

    pub(super) fn look_for_socks_request(&mut self, env: &mut Env<'_>) -> Step {
        let request = match socks5::parse_request(&self.prelude) {
            Parse::NeedMore => return Step::Read { until: self.in_time() },
            Parse::Malformed => return self.close(CloseReason::BadRequest),
            Parse::Complete(request) => request,
        };
        self.prelude.drain(..request.len.min(self.prelude.len()));
        if request.command == Command::UdpAssociate && self.login.may_associate {
            return self.associate(&request, env);
        }
        match accept::socks5::wish(&request) {
            Ok(wish) => self.wants(wish, env),
            Err(status) => self.say(socks5::reply(status, None), CloseReason::BadRequest),
        }
    }

    /// Where datagrams go is decided for each destination; only if none could be acceptable that is said at once.
    fn associate(&mut self, request: &Request, env: &mut Env<'_>) -> Step {
        let port = match accept::socks5::sender_port(request, self.client.ip()) {
            Ok(port) => port,
            Err(status) => return self.say(socks5::reply(status, None), CloseReason::BadRequest),
        };
        self.facts.l4 = Known::Is(L4::Udp);
        match decide(&self.plan, &mut self.facts, env) {
            Decision::Verdict(verdict) if verdict.action == Action::Deny => {
                self.announce(verdict, env);
                self.close(CloseReason::Denied)
            }
            _ => {
                let user = self.facts.user.is().map(|user| (&**user).into());
                Step::Associate(Associating { user, port })
            }
        }
    }

    /// What a client is told whose datagrams are awaited at `relay`.
    pub(super) fn grant_association(&mut self, relay: SocketAddr) -> Vec<u8> {
        self.go(State::Open);
        std::mem::replace(&mut self.owed, Owed::Nothing).granted(Some(relay))
    }

    /// The first byte is not that of SOCKS 5. Who speaks what is mostly configured wrongly with it is told so.
    fn other_protocol(&mut self) -> Step {
        let reason = CloseReason::WrongProtocol;
        match self.prelude.first() {
            Some(4) => self.say(SOCKS4_REJECTED.to_vec(), reason),
            Some(byte) if byte.is_ascii_uppercase() => {
                self.say(http1::reply(400, "this is a SOCKS 5 proxy", true), reason)
            }
            _ => self.close(reason),
        }
    }
}

/// What a client that waits for the reply to its request is told at the end.
pub(super) fn last_words(reason: CloseReason) -> Wire {
    status_of(reason).map_or(Wire::Quiet, |status| Wire::Say(socks5::reply(status, None)))
}

/// The status with which a SOCKS client is told why, or nothing where it would not listen.
fn status_of(reason: CloseReason) -> Option<Status> {
    Some(match reason {
        CloseReason::Denied | CloseReason::Incomplete | CloseReason::Unauthenticated => Status::NotAllowed,
        CloseReason::ConnectNetworkUnreachable => Status::NetworkUnreachable,
        CloseReason::ConnectUnreachable | CloseReason::NameNotFound | CloseReason::NoDestination => {
            Status::HostUnreachable
        }
        CloseReason::ConnectRefused => Status::ConnectionRefused,
        // As dante has it, and clients show: RFC 1928 has no other number for it.
        CloseReason::ConnectTimeout => Status::TtlExpired,
        CloseReason::ProcessTimeout
        | CloseReason::BadRequest
        | CloseReason::ResolveFailed
        | CloseReason::ConnectFailed
        | CloseReason::Limit
        | CloseReason::OutOfResources => Status::GeneralFailure,
        CloseReason::Finished
        | CloseReason::Redirected
        | CloseReason::ClientGone
        | CloseReason::ClientReset
        | CloseReason::ServerReset
        | CloseReason::Idle
        | CloseReason::HalfClosed
        | CloseReason::BadResponse
        | CloseReason::WrongProtocol
        | CloseReason::TlsFailed
        | CloseReason::BadCertificate
        | CloseReason::ServerTlsFailed
        | CloseReason::BadProxyHeader
        | CloseReason::UntrustedSender
        | CloseReason::HealthCheck
        | CloseReason::Shutdown
        | CloseReason::WindowClosed => return None,
    })
}
