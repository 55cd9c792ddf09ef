//! `tests`: what the rules of a file are meant to do, said in the file itself. A configuration whose rules do something else
//! is refused.
//!
//! The answer must not depend on where and when it is asked for: only what a flow says is known, the time is unknown unless
//! it says one, and of this machine's addresses only loopback is.

use super::decode::{Keys, Section, list, scalar};
use super::plan::Service;
use super::problem::{Report, listed, shown};
use super::tree::{Node, Value};
use crate::decide::rules::{Locals, Ruleset};
use crate::decide::why::{self, parse_facts};
use crate::decide::{Action, Decision, Facts, RuleId, Verdict};

/// Tests of one file.
const MAX_TESTS: usize = 10_000;

const KEYS: Keys = Keys::new(&["flow", "expect", "rule"]);

/// What a test may expect.
const EXPECTED: &[(&str, Action)] = &[
    ("accept", Action::Accept),
    ("allow", Action::Accept),
    ("deny", Action::Deny),
    ("drop", Action::Deny),
    ("redirect", Action::Redirect),
    ("intercept", Action::Intercept),
];

/// The tests of a file, to be run on its rules.
pub(super) struct PolicyTests<'t>(Vec<Test<'t>>);

struct Test<'t> {
    node: &'t Node,
    facts: Facts,
    action: Action,
    rule: Option<RuleId>,
}

impl<'t> PolicyTests<'t> {
    /// Reads the tests of a file with so many rules. What is wrong is reported and left out.
    pub(super) fn read(node: Option<&'t Node>, rules: usize, report: &mut Report) -> Self {
        let Some(node) = node.filter(|node| !matches!(node.value, Value::Null)) else {
            return PolicyTests(Vec::new());
        };
        if !cfg!(feature = "household") {
            report.error(node, "tests of the policy are not part of this build");
            return PolicyTests(Vec::new());
        }
        let entries = list(node, "a list of tests: `- flow: …`", report);
        if let Some(entry) = entries.get(MAX_TESTS) {
            report.error(entry, format!("more than {MAX_TESTS} tests"));
            return PolicyTests(Vec::new());
        }
        let mut tests = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.value {
                Value::Map(_) => tests.extend(read(entry, rules, report)),
                _ => report.expected(entry, "a test: a map with `flow` and `expect`"),
            }
        }
        PolicyTests(tests)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports those that fail.
    pub(super) fn run(&self, rules: &Ruleset, service: &Service, report: &mut Report) {
        if !cfg!(feature = "household") {
            return;
        }
        let locals = Locals {
            addrs: Vec::new(),
            tcp_ports: service.listeners.iter().map(|listener| listener.addr.port()).collect(),
            allow_local: service.output.allow_local,
        };
        for test in &self.0 {
            if let Some(failure) = test.failure(rules, &locals) {
                report.error(test.node, failure);
            }
        }
    }
}

fn read<'t>(entry: &'t Node, rules: usize, report: &mut Report) -> Option<Test<'t>> {
    let section = Section::read(entry, &KEYS, report);
    let facts = match section.get("flow") {
        None => {
            report.missing(
                entry,
                "flow",
                "is missing: facts as for --why, `src=192.168.1.20 dns=example.com port=443`",
            );
            None
        }
        Some(node) => match scalar(node).map(parse_facts) {
            None => {
                report.expected(node, "a flow: facts as for --why");
                None
            }
            Some(Err(error)) => {
                report.error(node, error);
                None
            }
            Some(Ok(facts)) => Some(facts),
        },
    };
    let words: Vec<&str> = EXPECTED.iter().map(|(word, _)| *word).collect();
    let action = match section.get("expect") {
        None => {
            report.missing(entry, "expect", format!("is missing: {}", listed(&words)));
            None
        }
        Some(node) => {
            let wanted = scalar(node).map(str::trim).unwrap_or_default();
            let found = EXPECTED.iter().find(|(word, _)| word.eq_ignore_ascii_case(wanted));
            if found.is_none() {
                report.expected_word(node, "what a test expects", &words);
            }
            found.map(|(_, action)| *action)
        }
    };
    let rule = match section.get("rule") {
        None => None,
        Some(node) => {
            let rule = scalar(node).and_then(|text| rule_id(text.trim(), rules));
            if rule.is_none() {
                report.expected(node, &format!("a rule: a number below {rules}, `always` or `default`"));
                return None;
            }
            rule
        }
    };
    Some(Test { node: entry, facts: facts?, action: action?, rule })
}

fn rule_id(text: &str, rules: usize) -> Option<RuleId> {
    match text {
        "always" => Some(RuleId::Always),
        "default" => Some(RuleId::Default),
        number => {
            let index: u16 = number.parse().ok()?;
            (usize::from(index) < rules).then_some(RuleId::Index(index))
        }
    }
}

impl Test<'_> {
    /// What is other than expected, and the line of the explanation that says why.
    fn failure(&self, rules: &Ruleset, locals: &Locals) -> Option<String> {
        let decision = rules.decide(&self.facts, locals);
        if let Decision::Verdict(Verdict { action, rule }) = decision
            && action == self.action
            && self.rule.is_none_or(|wanted| wanted == rule)
        {
            return None;
        }
        let why = why::explain(rules, &self.facts, locals);
        let wanted = match self.rule {
            Some(rule) => format!("{} by {}", self.action.as_str(), why::label(rule)),
            None => self.action.as_str().to_owned(),
        };
        Some(format!("expected {wanted}, but it {}", shown_long(&why.in_short())))
    }
}

/// On one line: rules may hold long values.
fn shown_long(text: &str) -> String {
    text.split_whitespace().map(shown).collect::<Vec<_>>().join(" ")
}
