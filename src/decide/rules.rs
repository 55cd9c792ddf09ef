//! The compiled ruleset and the walk through it.

use std::net::IpAddr;

use super::{Action, Decision, Facts, RuleId, Verdict};

/// The ordered rules.
#[derive(Debug, Default)]
pub struct Ruleset {}

/// What of this machine the `always` rule must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locals {
    /// Every address of this machine, sorted.
    pub addrs: Vec<IpAddr>,
    /// The ports of our own TCP listeners.
    pub tcp_ports: Vec<u16>,
    /// `output.allowLocal`.
    pub allow_local: bool,
}

impl Ruleset {
    /// How many rules there are.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Walks the rules.
    pub fn decide(&self, facts: &Facts, locals: &Locals) -> Decision {
        let _ = (facts, locals);
        Decision::Verdict(Verdict { action: Action::Deny, rule: RuleId::Default })
    }
}
