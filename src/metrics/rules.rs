//! How often each rule gave the verdict, and how often it was looked at.
//!
//! Only matches are counted. The walk goes in order, so a verdict by rule `i` looked at the rules 0 to `i`, and a verdict
//! by default at all of them; the `always` rule stands before them and `incomplete` is found without them.

use std::sync::{PoisonError, RwLock};

use super::Counter;
use crate::decide::RuleId;

/// Matches and hits of all rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Locked for writing by a reload only.
    table: RwLock<Table>,
    always: Counter,
    pass: Counter,
    default: Counter,
    incomplete: Counter,
}

#[derive(Debug, Default)]
struct Table {
    rules: Vec<Rule>,
    /// Matches of rules that a reload has removed: they had looked at every rule that is left.
    removed: Counter,
}

#[derive(Debug, Default)]
struct Rule {
    matches: Counter,
    /// Matches that ended no walk.
    observed: Counter,
    /// The verdicts behind this rule's place from before there was such a rule, which did not look at it.
    before: u64,
}

impl Rules {
    /// There are `count` rules now.
    pub(super) fn resize(&self, count: usize) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Table { rules, removed } = &mut *table;
        for rule in rules.iter().skip(count) {
            removed.add(rule.matches.get());
        }
        let before = removed.get().saturating_add(self.default.get());
        rules.resize_with(count, || Rule {
            matches: Counter::default(),
            observed: Counter::default(),
            before,
        });
    }

    pub(super) fn matched(&self, rule: RuleId) {
        match rule {
            RuleId::Always => self.always.add(1),
            RuleId::Pass => self.pass.add(1),
            RuleId::Default => self.default.add(1),
            RuleId::Incomplete => self.incomplete.add(1),
            RuleId::Index(index) => {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                match table.rules.get(usize::from(index)) {
                    Some(rule) => rule.matches.add(1),
                    // Decided by the configuration before this one.
                    None => table.removed.add(1),
                }
            }
        }
    }

    /// The rule matches and does not end the walk.
    pub(super) fn observed(&self, rule: RuleId) {
        let RuleId::Index(index) = rule else { return };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(rule) = table.rules.get(usize::from(index)) {
            rule.observed.add(1);
        }
    }

    pub(super) fn matches(&self, rule: RuleId) -> u64 {
        match rule {
            RuleId::Always => self.always.get(),
            RuleId::Pass => self.pass.get(),
            RuleId::Default => self.default.get(),
            RuleId::Incomplete => self.incomplete.get(),
            RuleId::Index(index) => {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                table
                    .rules
                    .get(usize::from(index))
                    .map_or(0, |rule| rule.matches.get().saturating_add(rule.observed.get()))
            }
        }
    }

    /// Matches and hits of every rule, by index.
    pub(super) fn snapshot(&self) -> Vec<(u64, u64)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut behind = table.removed.get().saturating_add(self.default.get());
        let mut rules: Vec<_> = table
            .rules
            .iter()
            .rev()
            .map(|rule| {
                let matches = rule.matches.get();
                behind = behind.saturating_add(matches);
                (matches.saturating_add(rule.observed.get()), behind.saturating_sub(rule.before))
            })
            .collect();
        rules.reverse();
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rules: &Rules, verdicts: &[RuleId]) {
        verdicts.iter().for_each(|rule| rules.matched(*rule));
    }

    #[test]
    fn hits_are_the_rules_that_a_walk_looked_at() {
        use RuleId::{Always, Default, Incomplete, Index};
        let rules = Rules::default();
        rules.resize(3);
        assert_eq!(rules.snapshot(), [(0, 0), (0, 0), (0, 0)]);
        count(&rules, &[Index(1), Index(1), Index(2), Default, Always, Incomplete]);
        assert_eq!(rules.snapshot(), [(0, 4), (2, 4), (1, 2)]);
        assert_eq!(
            [Always, Default, Incomplete, Index(1), Index(9)].map(|r| rules.matches(r)),
            [1, 1, 1, 2, 0]
        );
    }

    #[test]
    fn an_observing_rule_matches_and_ends_nothing() {
        use RuleId::Index;
        let rules = Rules::default();
        rules.resize(2);
        rules.observed(Index(0));
        rules.observed(Index(7));
        count(&rules, &[Index(1)]);
        assert_eq!(rules.snapshot(), [(1, 1), (1, 1)]);
        assert_eq!(rules.matches(Index(0)), 1);
    }

    #[test]
    fn a_reload_never_takes_a_count_back() {
        use RuleId::{Default, Index};
        let rules = Rules::default();
        rules.resize(3);
        count(&rules, &[Index(0), Index(2), Default]);
        assert_eq!(rules.snapshot(), [(1, 3), (0, 2), (1, 2)]);
        rules.resize(1);
        assert_eq!(rules.snapshot(), [(1, 3)]);
        // A session that the old rules decided.
        count(&rules, &[Index(2)]);
        assert_eq!(rules.snapshot(), [(1, 4)]);
        // New rules begin at nothing.
        rules.resize(3);
        assert_eq!(rules.snapshot(), [(1, 4), (0, 0), (0, 0)]);
        count(&rules, &[Index(1), Default]);
        assert_eq!(rules.snapshot(), [(1, 6), (1, 2), (0, 1)]);
        rules.resize(0);
        assert_eq!(rules.snapshot(), []);
    }
}
