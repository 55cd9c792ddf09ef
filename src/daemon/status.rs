//! What the status page shows of the running program beside its counters: rules, lists and live sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Household;
use super::live::device_of;
use crate::config::Plan;
use crate::decide::RuleId;
use crate::decide::device::UNKNOWN;
use crate::decide::list::{List, Source};
use crate::decide::rules::RuleSpec;
use crate::engine::{Gather, Handle, Row};
use crate::metrics::{Json, Metrics, Overview};

/// Rules that are shown; the others are only counted.
const MAX_RULES: usize = 500;
/// Lists that are shown.
const MAX_LISTS: usize = 100;
/// Live sessions that are shown; the others are only counted.
const MAX_SESSIONS: usize = 200;
/// How long the workers may take to say what they have: until then nobody is served at the metrics' port.
const GATHERING: Duration = Duration::from_millis(500);

/// The running program, as the status page sees it.
pub(crate) struct Status {
    around: Arc<Household>,
    workers: Vec<Handle<Plan>>,
}

impl Status {
    /// Of these workers and what is around them.
    pub(crate) fn new(around: &Arc<Household>, workers: &[Handle<Plan>]) -> Self {
        Status { around: Arc::clone(around), workers: workers.iter().map(Handle::another).collect() }
    }
}

impl Overview for Status {
    fn describe(&self, metrics: &Metrics, json: &mut Json) {
        if let Some(plan) = self.around.plan() {
            rules(plan.rules.specs(), metrics, json);
            lists(plan.rules.specs(), json);
        }
        let gather = Gather::ask(&self.workers, MAX_SESSIONS);
        let (rows, omitted) = gather.wait(GATHERING);
        json.key("sessions").open('[');
        for row in &rows {
            session(row, &self.around, json);
        }
        json.close(']');
        json.key("moreSessions").number(omitted as u64);
    }

    fn device(&self, addr: IpAddr) -> Option<Box<str>> {
        Some(self.around.seen(addr, true)).filter(|name| **name != *UNKNOWN)
    }
}

/// Every rule in order, and then what decides where none of them does.
fn rules(specs: &[RuleSpec], metrics: &Metrics, json: &mut Json) {
    json.key("rules").open('[');
    let mut rule = |id: RuleId, action: &str, asks: &str| {
        json.open('{');
        json.key("rule").text(&id.to_string());
        json.key("action").text(action);
        json.key("asks").text(asks);
        json.key("matches").number(metrics.rule_matches(id));
        json.close('}');
    };
    for (index, spec) in (0..u16::MAX).zip(specs).take(MAX_RULES) {
        let mut asks: Vec<&str> = spec.fields.iter().map(|field| field.key()).collect();
        asks.dedup();
        rule(RuleId::Index(index), spec.action.as_str(), &asks.join(","));
    }
    for id in [RuleId::Always, RuleId::Default, RuleId::Incomplete] {
        rule(id, "deny", "");
    }
    rule(RuleId::Pass, "accept", "");
    json.close(']');
    json.key("moreRules").number(specs.len().saturating_sub(MAX_RULES) as u64);
}

/// Every list that a rule names, once.
fn lists(specs: &[RuleSpec], json: &mut Json) {
    let mut seen: Vec<&Arc<List>> = Vec::new();
    for list in specs.iter().flat_map(RuleSpec::lists) {
        if seen.len() < MAX_LISTS && !seen.iter().any(|other| Arc::ptr_eq(other, list)) {
            seen.push(list);
        }
    }
    json.key("lists").open('[');
    for list in seen {
        let (names, ranges) = list.sizes();
        json.open('{');
        json.key("list").text(list.variable());
        if let Source::File(path) = list.source() {
            json.key("file").text(&path.to_string_lossy());
        }
        json.key("names").number(names as u64);
        json.key("ranges").number(ranges as u64);
        json.close('}');
    }
    json.close(']');
}

fn session(row: &Row, around: &Household, json: &mut Json) {
    json.open('{');
    if let Some(device) = device_of(row, around) {
        json.key("device").text(&device);
    }
    json.key("client").text(&row.client.ip().to_string());
    json.key("mode").text(row.mode.as_str());
    if let Some(name) = &row.name {
        json.key("name").bytes(name);
    }
    if let Some(dest) = row.dest {
        json.key("dest").text(&dest.to_string());
    }
    if let Some((verdict, rule)) = &row.verdict {
        json.key("verdict").text(verdict);
        json.key("rule").text(rule);
    }
    json.key("sent").number(row.bytes.0);
    json.key("received").number(row.bytes.1);
    json.key("age").number(row.age.as_secs());
    json.close('}');
}
