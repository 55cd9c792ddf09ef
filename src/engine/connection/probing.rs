//! The stage in which servers are asked for their certificates: what is known is looked up at once, the rest is asked by
//! the prober's thread.

use std::sync::Arc;
use std::time::Duration;

use super::Connection;
use super::stage::{Fate, Stage};
use crate::connect::probe::{Asker, Doubt, Finding, Target};
use crate::engine::tools::Tools;
use crate::session::Machine;

/// The thread keeps the time of each probe; this beyond it is for the case that it does not answer at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Questions that are not all answered.
#[derive(Debug)]
pub(super) struct Probing<M> {
    pub session: Box<M>,
    /// In the order in which the session asked.
    questions: Vec<(Arc<Target>, Option<Finding>)>,
}

impl<M: Machine> Connection<M> {
    /// Finds out what the certificates of `targets` are worth.
    pub(super) fn probe(&mut self, session: Box<M>, targets: Vec<Target>, tools: &mut Tools<'_, M>) -> Fate {
        let asker = Asker { worker: tools.worker, token: tools.key, source: session.client().ip() };
        let ask = |target: Target| {
            let known = ask(&target, asker, tools);
            (Arc::new(target), known)
        };
        let questions: Vec<_> = targets.into_iter().map(ask).collect();
        let due = tools.now.checked_add(session.service().timeouts.probe.saturating_add(PATIENCE));
        self.stage = Stage::Probing(Probing { session, questions });
        self.set_deadline(due, tools);
        self.go_on_if_answered(tools)
    }

    /// The prober answered, perhaps somebody who had this place before: what it says of the target is then as good.
    #[cfg(feature = "tls")]
    pub fn probed(&mut self, answer: &crate::connect::probe::Answer, tools: &mut Tools<'_, M>) -> Fate {
        let Stage::Probing(Probing { questions, .. }) = &mut self.stage else { return Fate::Stays };
        for (_, finding) in questions.iter_mut().filter(|(target, _)| *target == answer.target) {
            finding.get_or_insert(answer.finding);
        }
        self.go_on_if_answered(tools)
    }

    /// The stage's deadline has passed, or all is answered.
    pub(super) fn probing_over(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Some(Probing { mut session, questions }) = self.stage.take_probing() else { return Fate::Stays };
        let findings = questions.into_iter().map(|(_, finding)| finding.unwrap_or(NO_ANSWER)).collect();
        let step = tools.ask(|env| session.probed(findings, env));
        self.carry_out(session, step, tools)
    }

    fn go_on_if_answered(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        match &self.stage {
            Stage::Probing(Probing { questions, .. }) if questions.iter().all(|(_, f)| f.is_some()) => {
                self.probing_over(tools)
            }
            _ => Fate::Stays,
        }
    }
}

const NO_ANSWER: Finding = Finding::Unknown(Doubt::TimedOut);

/// What is known, or that there will be no answer.
#[cfg(feature = "tls")]
fn ask<M: Machine>(target: &Target, asker: Asker, tools: &Tools<'_, M>) -> Option<Finding> {
    let prober = &tools.shared.prober;
    prober
        .known(target, tools.now)
        .or_else(|| prober.probe(target.clone(), asker).err().map(Finding::Unknown))
}

/// Without TLS nobody can be asked.
#[cfg(not(feature = "tls"))]
fn ask<M: Machine>(_: &Target, _: Asker, _: &Tools<'_, M>) -> Option<Finding> {
    Some(Finding::Unknown(Doubt::Unsupported))
}
