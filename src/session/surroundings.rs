//! Facts that are looked up only where the walk asks for them: the time, and who the client is on the local network.

use std::net::IpAddr;
use std::time::Duration;

use super::{Env, Session};
use crate::config::Plan;
use crate::decide::device::{Mac, UNKNOWN};
use crate::decide::week::WeekTime;
use crate::decide::{Action, Decision, Facts, Known, Need};

/// Where those facts come from. Nobody waits here.
pub trait Surroundings: Send + Sync {
    /// What the clock on the wall shows, and how long it goes on showing that.
    fn week_time(&self) -> (WeekTime, Duration) {
        (WeekTime::new(1, 0, 0), Duration::from_secs(60))
    }

    /// The device that has this address.
    fn device(&self, _client: IpAddr) -> Device {
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
    /// Whether it was let in by what the clock showed and must not outlive that.
    pub(super) fn hangs_on_time(&self) -> bool {
        self.plan.end_at_close && self.facts.time.is().is_some()
    }

    /// Whether the rules that it was decided by would not let it in now. What they would have to know more for than they
    /// did is not let in.
    pub(super) fn has_outlived_its_window(&mut self, env: &Env<'_>) -> bool {
        self.facts.time = Known::Unknown;
        match decide(&self.plan, &mut self.facts, env) {
            Decision::Verdict(verdict) => verdict.action != Action::Accept,
            Decision::Need(_) => true,
        }
    }
}

/// Asks the rules, and looks up what they ask for of the surroundings. What is still needed then is for the session to find.
pub(super) fn decide(plan: &Plan, facts: &mut Facts, env: &Env<'_>) -> Decision {
    loop {
        match plan.rules.decide(facts, env.locals) {
            Decision::Need(Need::Time) if facts.time.is_unknown() => {
                facts.time = Known::Is(env.surroundings.week_time().0);
            }
            Decision::Need(Need::Device) if facts.device.is_unknown() || facts.mac.is_unknown() => {
                let device = facts.src.is().map(|src| env.surroundings.device(*src)).unwrap_or_default();
                facts.mac = device.mac.map_or(Known::Absent, Known::Is);
                facts.device = Known::Is(device.name);
            }
            decision => return decision,
        }
    }
}
