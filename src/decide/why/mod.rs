//! The explanation of a decision, rule by rule, for people.
//!
//! Each field is looked at by itself, as it stands in the file; the verdict is the walk's own. No traffic, no clock.

mod finding;
mod given;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use super::always::{Always, Refused, always};
use super::rules::{Locals, RuleSpec, Ruleset};
use super::worlds::Worlds;
use super::{Action, Decision, Facts, Need, RuleId};
use finding::{Finding, State};

pub use given::parse_facts;

/// Every rule in order, and the verdict.
#[derive(Debug)]
pub struct Explanation {
    /// The `always` rule first, then the others.
    pub lines: Vec<Line>,
    /// The walk's end.
    pub decision: Decision,
    /// The unknown facts that the verdict hangs on, as [`parse_facts`] calls them; empty if there is a verdict.
    pub hangs_on: Vec<&'static str>,
    remark: &'static str,
}

/// What one rule says.
#[derive(Debug)]
pub struct Line {
    /// `Always` or `Index`.
    pub rule: RuleId,
    /// The rule's action; none for `always`.
    pub action: Option<Action>,
    /// Whether it matches.
    pub outcome: Outcome,
    /// One text for each field, in the order of the file.
    pub findings: Vec<String>,
}

/// Whether a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// For certain.
    Match,
    /// Whatever the unknown facts turn out to be.
    NoMatch,
    /// It hangs on an unknown fact.
    Unknown,
    /// A rule before matches for certain.
    NotReached,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Match => "match",
            Outcome::NoMatch => "no match",
            Outcome::Unknown => "unknown",
            Outcome::NotReached => "not reached",
        }
    }
}

impl Explanation {
    /// The verdict and the line that decides it, as the end of a sentence.
    pub fn in_short(&self) -> String {
        let Decision::Verdict(verdict) = self.decision else {
            return format!("hangs on {}, which the flow does not say", self.hangs_on.join(", "));
        };
        let line = self.lines.iter().find(|line| line.rule == verdict.rule);
        let found = line.map_or(String::new(), |line| format!(" ({})", line.findings.join("; ")));
        format!("is {} by {}{}{found}", verdict.action.as_str(), label(verdict.rule), self.remark)
    }

    /// The exit status of `--why`: 0 accept or intercept, 3 deny or redirect, 4 if the verdict hangs on an unknown fact.
    pub fn exit_code(&self) -> u8 {
        match self.decision {
            Decision::Verdict(verdict) if verdict.action.lets_through() => 0,
            Decision::Verdict(_) => 3,
            Decision::Need(_) => 4,
        }
    }
}

/// What is looked for in a list file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// An entry that covers this address.
    Addr(IpAddr),
    /// An entry that covers this name, which is normalised.
    Name(&'a str),
}

/// Finds the line of a list file with such an entry: lists in memory don't keep them.
pub type FindLine<'a> = dyn Fn(&Path, Wanted<'_>) -> Option<u32> + 'a;

/// Explains the decision on these facts; of list files only the name is told.
pub fn explain(rules: &Ruleset, facts: &Facts, locals: &Locals) -> Explanation {
    explain_with_lines(rules, facts, locals, &|_, _| None)
}

/// Explains the decision on these facts.
pub fn explain_with_lines(
    rules: &Ruleset,
    facts: &Facts,
    locals: &Locals,
    find_line: &FindLine<'_>,
) -> Explanation {
    let always = always(facts, locals);
    let decision = rules.decide(facts, locals);
    let mut lines = vec![always_line(always, facts, locals)];
    let mut reached = lines.iter().all(|line| line.outcome != Outcome::Match);
    let mut asked = None;
    for (index, spec) in (0..u16::MAX).zip(rules.specs()) {
        let (rule, action) = (RuleId::Index(index), Some(spec.action));
        if !reached {
            lines.push(Line { rule, action, outcome: Outcome::NotReached, findings: Vec::new() });
            continue;
        }
        let (outcome, findings) = look(spec, rules.never_matches(usize::from(index)), facts, find_line);
        let ends = spec.action != Action::Observe;
        reached = outcome != Outcome::Match || !ends;
        if outcome == Outcome::Unknown && ends && asked.is_none() {
            asked = Some(unknown_facts(&findings, decision));
        }
        let findings = findings.into_iter().map(|finding| finding.text).collect();
        lines.push(Line { rule, action, outcome, findings });
    }
    let hangs_on = hangs_on(decision, asked.unwrap_or_default(), always);
    let remark = remark(decision, &lines);
    Explanation { lines, decision, hangs_on, remark }
}

fn always_line(always: Always, facts: &Facts, locals: &Locals) -> Line {
    let dest = facts.dest.is().map_or(String::from("dest"), |dest| format!("dest {dest}"));
    let (outcome, text) = match always {
        Always::Pass if locals.allow_local => {
            (Outcome::NoMatch, format!("{dest} is not refused with allowLocal"))
        }
        Always::Pass => (Outcome::NoMatch, format!("{dest} is not a local address")),
        Always::Refuse(why @ Refused::Nowhere) => (Outcome::Match, why.as_str().to_owned()),
        Always::Refuse(why) => (Outcome::Match, format!("{dest} {}", why.as_str())),
        Always::Hangs(Need::Dest) => (Outcome::Unknown, "dest is not known".to_owned()),
        Always::Hangs(_) => (Outcome::Unknown, format!("{dest} is local and port is not known")),
    };
    Line { rule: RuleId::Always, action: None, outcome, findings: vec![text] }
}

fn look(spec: &RuleSpec, never: bool, facts: &Facts, find_line: &FindLine<'_>) -> (Outcome, Vec<Finding>) {
    let mut findings: Vec<Finding> =
        spec.fields.iter().map(|field| Finding::new(field, facts, find_line)).collect();
    if findings.is_empty() {
        findings.push(Finding::remark("no fields: everything matches", State::Matched));
    }
    // Fields that hang together may exclude each other although each alone could still match.
    let worlds =
        spec.fields.iter().fold(Worlds::of_facts(facts), |left, field| left.and(Worlds::of_field(field)));
    let any = |state| findings.iter().any(|finding| finding.state == state);
    let outcome = if any(State::Failed) {
        Outcome::NoMatch
    } else if never || worlds.is_empty() {
        let text = if never { "the fields exclude each other" } else { "the fields exclude each other here" };
        findings.push(Finding::remark(text, State::Failed));
        Outcome::NoMatch
    } else if any(State::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Match
    };
    (outcome, findings)
}

/// What of the walk's need the first rule that may match does not know.
fn unknown_facts(findings: &[Finding], decision: Decision) -> Vec<&'static str> {
    let mut facts = Vec::new();
    for finding in findings.iter().filter(|finding| finding.state == State::Unknown) {
        if decision == Decision::Need(finding.need) && !facts.contains(&finding.fact) {
            facts.push(finding.fact);
        }
    }
    facts
}

fn hangs_on(decision: Decision, asked: Vec<&'static str>, always: Always) -> Vec<&'static str> {
    match decision {
        Decision::Verdict(_) => Vec::new(),
        Decision::Need(_) if !asked.is_empty() => asked,
        // What no rule asks, but the verdict of the rule that matches: an address that may be dialled, HTTP to redirect.
        Decision::Need(Need::Dest) => vec!["dest"],
        Decision::Need(Need::Cert) => vec!["cert"],
        Decision::Need(need) if always == Always::Hangs(need) => vec!["port"],
        Decision::Need(Need::FirstBytes) => vec!["protoL5"],
        Decision::Need(Need::Given) => vec!["protoL4"],
        // Only rules ask for these.
        Decision::Need(Need::Time) => vec!["time"],
        Decision::Need(Need::Device) => vec!["device"],
    }
}

fn remark(decision: Decision, lines: &[Line]) -> &'static str {
    let Decision::Verdict(verdict) = decision else { return "" };
    let by = lines.iter().find(|line| line.rule == verdict.rule);
    match by {
        None => ": no rule matches",
        Some(line) if line.outcome == Outcome::Unknown => ": nothing unknown could make it accept",
        Some(line) if line.action == Some(Action::Redirect) && verdict.action == Action::Deny => {
            ": only plain HTTP is redirected"
        }
        Some(line) if line.action == Some(Action::Intercept) && verdict.action == Action::Deny => {
            ": QUIC is not intercepted, its clients go on with TLS"
        }
        Some(_) => "",
    }
}

/// A rule as the explanation calls it.
pub fn label(rule: RuleId) -> String {
    match rule {
        RuleId::Index(index) => format!("rule {index}"),
        rule => rule.to_string(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = |line: &Line| line.action.map_or("", Action::as_str);
        let labels = self.lines.iter().map(|line| label(line.rule).len()).max().unwrap_or(0);
        let actions = self.lines.iter().map(|line| action(line).len()).max().unwrap_or(0);
        for line in &self.lines {
            let (label, outcome) = (label(line.rule), line.outcome.as_str());
            write!(f, "{label:labels$}  {:actions$}  ", action(line))?;
            if line.findings.is_empty() {
                writeln!(f, "{outcome}")?;
            } else {
                writeln!(f, "{outcome:9}  {}", line.findings.join("; "))?;
            }
        }
        match self.decision {
            Decision::Verdict(verdict) => {
                writeln!(f, "verdict: {} by {}{}", verdict.action.as_str(), label(verdict.rule), self.remark)
            }
            Decision::Need(_) => {
                writeln!(f, "verdict: hangs on {}, which is not known", self.hangs_on.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
