//! A client's first bytes: read where a rule hangs on them, until they are known to be something, or nothing.

use super::machine::{Session, TOO_LATE};
use super::owed::Owed;
use super::state::State;
use super::{Env, Step};
use crate::identify::tcp::{Identifier, MAX_PRELUDE};
use crate::identify::{Identity, Outcome};

const TOO_LARGE: &str = "the request head is larger than 32 KiB";

impl Session {
    /// Reads the first bytes, beginning with those that are here already.
    pub(super) fn peek(&mut self, env: &mut Env<'_>) -> Step {
        if matches!(self.owed, Owed::Established | Owed::SocksReply) {
            self.reply.extend(self.owed.granted(None));
            self.owed = Owed::Nothing;
        }
        let step = self.read(State::FirstBytes, env.now);
        if self.prelude.is_empty() && !self.client_done { step } else { self.look(env) }
    }

    pub(super) fn identify(&mut self, env: &mut Env<'_>) -> Step {
        match self.identifier.look(&self.prelude) {
            Outcome::Identified(identity) => {
                // Not needed any more, and neither is its copy of the bytes.
                self.identifier = Identifier::new(self.plan.parsers);
                if self.intercepting.is_some() {
                    return self.identified_inside(&identity, env);
                }
                self.learn(identity, env);
                self.advance(env)
            }
            Outcome::TooLarge => self.incomplete(TOO_LARGE, env),
            Outcome::NeedMore { .. } if self.prelude.len() >= MAX_PRELUDE => self.incomplete(TOO_LARGE, env),
            Outcome::NeedMore { .. } if self.client_done => self.out_of_bytes(env),
            Outcome::NeedMore { begun: true } => Step::Read { until: self.whole_by() },
            Outcome::NeedMore { begun: false } => Step::Read { until: self.in_time() },
        }
    }

    /// No more first bytes in time: what began as a protocol is denied, the rest is none.
    pub(super) fn out_of_bytes(&mut self, env: &mut Env<'_>) -> Step {
        if self.has_begun() {
            return self.incomplete(TOO_LATE, env);
        }
        if self.intercepting.is_some() {
            return self.identified_inside(&Identity::None, env);
        }
        self.learn(Identity::None, env);
        self.advance(env)
    }

    fn has_begun(&mut self) -> bool {
        // Of datagrams only QUIC is not known by the first one.
        self.is_over_datagrams()
            || !self.prelude.is_empty()
                && matches!(
                    self.identifier.look(&self.prelude),
                    Outcome::NeedMore { begun: true } | Outcome::TooLarge
                )
    }
}
