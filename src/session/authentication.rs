//! Who the client is: asked before what it wants is looked at, so that nobody learns of the rules who may not come in.
//!
//! The session says what is to be checked, [`Step::Verify`], and is told what became of it, [`Machine::verified`]. How a
//! client states its name and what it is told is its mode's business.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::machine::Session;
use super::request::status_of;
use super::state::State;
use super::{CloseReason, Env, Machine, Step};
use crate::auth::{Credentials, Users, Verification};
use crate::config::{Listener, Mode, Plan};
use crate::decide::facts::Known;
use crate::wire::basic::Basic;
use crate::wire::http1::{self, Reject, Request};

/// How long a client that was asked who it is may keep the connection without saying so: a person may be typing, but who
/// may not come in need not hold a place for `timeout.idle`.
const CHALLENGED: Duration = Duration::from_secs(60);

/// What a client whose credentials cannot be checked now is told.
const UNAVAILABLE: &str = "too many attempts to authenticate, try again later";

/// What a session knows of its client's right to be here.
pub(super) struct Login {
    listener: SocketAddr,
    users: Option<Arc<Users>>,
    /// It may have an association for datagrams.
    pub(super) may_associate: bool,
    /// The name that is being checked.
    claimed: Option<Box<str>>,
    /// The HTTP request that waits meanwhile.
    request: Option<Box<(Request, Result<(), Reject>)>>,
    /// The client was asked who it is.
    challenged: bool,
}

impl Login {
    pub(super) fn new(listener: &Listener) -> Self {
        Login {
            listener: listener.addr,
            users: listener.users.clone(),
            may_associate: listener.associate,
            claimed: None,
            request: None,
            challenged: false,
        }
    }

    /// Who may come in.
    pub(super) fn users(&self) -> Option<&Arc<Users>> {
        self.users.as_ref()
    }
}

impl Session {
    /// The last [`Step::Verify`] was carried out.
    pub(super) fn authenticated(&mut self, verification: Verification, env: &mut Env<'_>) -> Step {
        debug_assert_eq!(self.state, State::Verifying);
        if let (Some(name), Verification::Right) = (self.login.claimed.take(), verification) {
            self.facts.user = Known::Is(name);
        }
        match self.mode {
            Mode::Http | Mode::Https => self.http_verified(verification, env),
            Mode::Socks5 => self.socks_verified(verification, env),
            // They have no users.
            Mode::Transparent | Mode::ProxyProtocol => self.close(CloseReason::Unauthenticated),
        }
    }

    /// Asks for a check of `credentials`, which the client has just sent.
    pub(super) fn verify(&mut self, credentials: Credentials) -> Step {
        self.login.claimed = Some(credentials.name().into());
        self.go(State::Verifying);
        Step::Verify(credentials)
    }

    /// From now on under `plan`: users that it does not have any more are none.
    pub(super) fn adopt(&mut self, plan: &Arc<Plan>) {
        if Arc::ptr_eq(&self.plan, plan) {
            return;
        }
        self.plan = Arc::clone(plan);
        // A listener that is gone keeps those it had.
        if let Some(listener) =
            plan.service.listeners.iter().find(|listener| listener.addr == self.login.listener)
        {
            self.login.users = listener.users.clone();
        }
    }

    /// Whether the client has had an answer: what it sends now is a further request.
    pub(super) fn was_answered(&self) -> bool {
        self.verdict.is_some() || self.login.challenged
    }

    /// Lets `request`, the head at the front of the prelude, pass if its client may come in.
    pub(super) fn authenticate(
        &mut self,
        request: Request,
        host: Result<(), Reject>,
        env: &mut Env<'_>,
    ) -> Step {
        if self.login.users.is_none() {
            return self.consider(request, host, env);
        }
        let basic = request.proxy_authorization.as_ref().and_then(|value| Basic::parse(value.text()));
        match basic.and_then(|basic| Credentials::new(basic.name(), basic.password())) {
            Some(credentials) => {
                self.login.request = Some(Box::new((request, host)));
                self.verify(credentials)
            }
            None => self.challenge(&request, env),
        }
    }

    fn http_verified(&mut self, verification: Verification, env: &mut Env<'_>) -> Step {
        let Some(waiting) = self.login.request.take() else {
            debug_assert!(false, "nobody asked for it");
            return self.close(CloseReason::Unauthenticated);
        };
        let (request, host) = *waiting;
        match verification {
            Verification::Right => self.consider(request, host, env),
            Verification::Wrong => self.challenge(&request, env),
            Verification::Unavailable => {
                let reply = http1::reply_to(&request.method, 503, UNAVAILABLE, true);
                self.say(reply, CloseReason::Limit)
            }
        }
    }

    /// 407. Where the end of the request is known the connection stays usable, for one with credentials (RFC 9110 §11.7).
    fn challenge(&mut self, request: &Request, env: &mut Env<'_>) -> Step {
        let keep = self.outlives(request);
        let (status, text) = status_of(CloseReason::Unauthenticated).unwrap_or((407, ""));
        let reply = http1::reply_to(&request.method, status, text, !keep);
        if !keep {
            return self.say(reply, CloseReason::Unauthenticated);
        }
        self.reply.extend(reply);
        self.login.challenged = true;
        match self.next_request(Vec::new(), env) {
            Step::Read { until } => {
                self.idle_until = until.min(env.now + CHALLENGED);
                Step::Read { until: self.idle_until }
            }
            step => step,
        }
    }
}

/// Without the client's bytes: they may be credentials.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("mode", &self.mode)
            .field("client", &self.client())
            .field("state", &self.state)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
