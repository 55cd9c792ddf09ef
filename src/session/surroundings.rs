//! Facts that are looked up only where the walk asks for them: the time, and who the client is on the local network.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Env, Session};
use crate::config::{Mode, Plan};
use crate::decide::device::{Mac, UNKNOWN};
use crate::decide::rules::Ruleset;
use crate::decide::week::WeekTime;
use crate::decide::{Action, Decision, Facts, Known, Need, Observed, RuleId, Verdict};

/// Where those facts come from. Nobody waits here.
pub trait Surroundings: Send + Sync {
    /// What the clock on the wall shows, and how long it goes on showing that.
    fn week_time(&self) -> (WeekTime, Duration) {
        (WeekTime::new(1, 0, 0), Duration::from_secs(60))
    }

    /// Exceptions for a while, as rules that accept; nothing if there is none.
    fn passes(&self, _now: Instant) -> Option<Arc<Ruleset>> {
        None
    }

    /// The device that has this address; if it is no `neighbour`, it is known by that alone.
    fn device(&self, _client: IpAddr, _neighbour: bool) -> Device {
        Device::default()
    }
}

/// Nothing is known: for those who have no rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Surroundings for Nowhere {}

/// A device of the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its hardware address; none for what is no neighbour.
    pub mac: Option<Mac>,
    /// Its name, as [`fold_device`](crate::decide::device::fold_device) leaves it.
    pub name: Box<str>,
}

impl Default for Device {
    fn default() -> Self {
        Device { mac: None, name: UNKNOWN.into() }
    }
}

impl Session {
    /// Whether it was let in by what the clock showed, or by an exception for a while, and must not outlive that.
    pub(super) fn hangs_on_time(&self) -> bool {
        let by_exception = self.verdict.is_some_and(|verdict| verdict.rule == RuleId::Pass);
        self.plan.end_at_close && (by_exception || self.facts.time.is().is_some())
    }

    /// Whether the rules that it was decided by would not let it in now. What they would have to know more for than they
    /// did is not let in.
    pub(super) fn has_outlived_its_window(&mut self, env: &Env<'_>) -> bool {
        self.facts.time = Known::Unknown;
        // Whoever had no neighbour's address may have one by now: a first datagram comes before the kernel knows its sender.
        if self.facts.mac == Known::Absent && self.mode != Mode::ProxyProtocol {
            (self.facts.mac, self.facts.device) = (Known::Unknown, Known::Unknown);
        }
        match decide(&self.plan, &mut self.facts, env) {
            Decision::Verdict(verdict) => !verdict.action.lets_through(),
            Decision::Need(_) => true,
        }
    }
}

/// Looks up what observing rules ask for of the surroundings: those that match, or what is for the session to find.
pub(super) fn observe(plan: &Plan, facts: &mut Facts, env: &Env<'_>, verdict: Verdict) -> Observed {
    loop {
        match plan.rules.observe(facts, verdict) {
            Observed::Need(need) if look_up(need, facts, env) => {}
            observed => return observed,
        }
    }
}

/// Asks the rules, and looks up what they ask for of the surroundings. What is still needed then is for the session to find.
pub(super) fn decide(plan: &Plan, facts: &mut Facts, env: &Env<'_>) -> Decision {
    let decision = by_rules(&plan.rules, facts, env);
    let accepted = matches!(decision, Decision::Verdict(verdict) if verdict.action.lets_through());
    let Some(passes) = env.surroundings.passes(env.now).filter(|_| !accepted) else { return decision };
    match by_rules(&passes, facts, env) {
        Decision::Verdict(verdict) if verdict.action == Action::Accept => {
            Decision::Verdict(Verdict { rule: RuleId::Pass, ..verdict })
        }
        Decision::Verdict(_) => decision,
        // Whether there is an exception hangs on it, whatever the rules hang on.
        need => need,
    }
}

fn by_rules(rules: &Ruleset, facts: &mut Facts, env: &Env<'_>) -> Decision {
    loop {
        match rules.decide(facts, env.locals) {
            Decision::Need(need) if look_up(need, facts, env) => {}
            decision => return decision,
        }
    }
}

/// Finds what the surroundings know; false for what they do not, or have told already.
fn look_up(need: Need, facts: &mut Facts, env: &Env<'_>) -> bool {
    match need {
        Need::Time if facts.time.is_unknown() => {
            facts.time = Known::Is(env.surroundings.week_time().0);
            true
        }
        Need::Device if facts.device.is_unknown() || facts.mac.is_unknown() => {
            // Known to be absent is that of a client far away, see `facts_of`.
            let neighbour = facts.mac.is_unknown();
            let device =
                facts.src.is().map(|src| env.surroundings.device(*src, neighbour)).unwrap_or_default();
            facts.mac = device.mac.map_or(Known::Absent, Known::Is);
            facts.device = Known::Is(device.name);
            true
        }
        _ => false,
    }
}
