//! The stage in which a client's credentials are checked: at once if they are remembered, else in their source's turn by
//! the verifier's thread.

use std::time::Instant;

use super::Connection;
use super::stage::{Fate, Stage};
use crate::auth::throttle::Turn;
use crate::auth::{Credentials, Verification};
use crate::engine::tools::Tools;
use crate::engine::verifier::{PATIENCE, Verified};
use crate::logging::{self, Dest, Value};
use crate::metrics::Attempt;
use crate::session::Machine;

/// A check that is not over.
#[derive(Debug)]
pub(super) struct Verifying<M> {
    pub session: Box<M>,
    state: State,
    /// For the log.
    name: Box<str>,
}

#[derive(Debug)]
enum State {
    /// The source, which has failed so often, has to wait.
    Waiting { credentials: Credentials, failures: u32 },
    /// The thread has them.
    Asked { ticket: u32 },
}

impl<M: Machine> Connection<M> {
    /// Has `credentials` checked.
    pub(super) fn verify(
        &mut self,
        session: Box<M>,
        credentials: Credentials,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        let verifier = &tools.shared.verifier;
        let name = credentials.name().into();
        let Some(users) = session.users() else {
            // Nobody can be right.
            return self.judged(session, name, Verification::Wrong, false, tools);
        };
        if verifier.knows(users, &credentials, tools.now) {
            return self.judged(session, name, Verification::Right, true, tools);
        }
        match verifier.turn(session.client().ip(), users, &credentials, tools.now) {
            None => self.judged(session, name, Verification::Unavailable, false, tools),
            Some(Turn { at, failures }) if at <= tools.now => {
                self.ask_verifier(session, credentials, failures, tools)
            }
            Some(Turn { at, failures }) => {
                let state = State::Waiting { credentials, failures };
                self.stage = Stage::Verifying(Verifying { session, state, name });
                self.set_deadline(Some(at), tools);
                Fate::Stays
            }
        }
    }

    /// The stage's deadline has passed.
    pub(super) fn verifying_expired(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Some(Verifying { session, state, name }) = self.stage.take_verifying() else {
            return Fate::Stays;
        };
        match state {
            State::Waiting { credentials, failures } => {
                let known = session
                    .users()
                    .is_some_and(|users| tools.shared.verifier.knows(users, &credentials, tools.now));
                if known {
                    return self.judged(session, name, Verification::Right, true, tools);
                }
                self.ask_verifier(session, credentials, failures, tools)
            }
            State::Asked { .. } => self.judged(session, name, Verification::Unavailable, false, tools),
        }
    }

    /// The verifier answered, perhaps somebody who had this place before.
    pub fn verified(&mut self, verified: Verified, tools: &mut Tools<'_, M>) -> Fate {
        match &self.stage {
            Stage::Verifying(Verifying { state: State::Asked { ticket }, .. })
                if *ticket == verified.asker.ticket => {}
            _ => return Fate::Stays,
        }
        let Some(Verifying { session, name, .. }) = self.stage.take_verifying() else { return Fate::Stays };
        self.judged(session, name, verified.verification, verified.remembered, tools)
    }

    fn ask_verifier(
        &mut self,
        session: Box<M>,
        credentials: Credentials,
        failures: u32,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        let name = credentials.name().into();
        let source = session.client().ip();
        let ticket = session.users().cloned().and_then(|users| {
            let asker = (tools.worker, tools.key);
            tools.shared.verifier.check(asker, source, failures, users, credentials, tools.now)
        });
        let Some(ticket) = ticket else {
            return self.judged(session, name, Verification::Unavailable, false, tools);
        };
        self.stage = Stage::Verifying(Verifying { session, state: State::Asked { ticket }, name });
        self.set_deadline(tools.now.checked_add(PATIENCE), tools);
        Fate::Stays
    }

    /// It is known what the credentials are worth.
    fn judged(
        &mut self,
        mut session: Box<M>,
        name: Box<str>,
        verification: Verification,
        remembered: bool,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        tools.shared.metrics.authenticated(match verification {
            Verification::Right if remembered => Attempt::Remembered,
            Verification::Right => Attempt::Right,
            Verification::Wrong => Attempt::Wrong,
            Verification::Unavailable => Attempt::Unavailable,
        });
        if verification != Verification::Right {
            log_failure(&*session, &name, verification, tools.now, tools);
        }
        let step = tools.ask(|env| session.verified(verification, env));
        self.carry_out(session, step, tools)
    }
}

/// A line for who did not come in, once a second for each source at most.
fn log_failure<M: Machine>(
    session: &M,
    name: &str,
    verification: Verification,
    now: Instant,
    tools: &Tools<'_, M>,
) {
    let client = session.client();
    if !logging::enabled(log::Level::Warn) || !tools.shared.verifier.may_log(client.ip(), now) {
        return;
    }
    let why = if verification == Verification::Wrong { "wrong" } else { "unavailable" };
    let fields = [
        ("credentials", why.into()),
        ("sport", client.port().into()),
        ("user", Value::Bytes(name.as_bytes())),
    ];
    logging::flow(log::Level::Warn, "session", Some(client.ip()), Dest::Unknown, "Unauthenticated", &fields);
}
