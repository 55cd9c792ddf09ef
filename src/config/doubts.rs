//! Rules that are allowed but hardly mean what they say: warnings only, so what cannot be told for certain is passed
//! over in silence or, where something would slip through a deny, said too often.

use std::collections::HashSet;

use super::devices::Devices;
use super::problem::{Report, shown};
use super::rules::Rule;
use crate::decide::Action;
use crate::decide::device::UNKNOWN;
use crate::decide::rules::{EchValue, FieldSpec, NameValue, RuleSpec, Ruleset, Term, UserValue};

/// Denies by negated names that are followed through the rules behind them.
const MAX_FOLLOWED: usize = 100;

/// Warns of doubtful rules; `compiled` are the same ones. `named`: everybody whom some listener lets in by name, as
/// [`fold_user`](crate::decide::rules::fold_user) leaves it.
///
/// `reads_requests`: some listener is an HTTP proxy.
pub(super) fn warn(
    rules: &[Rule<'_>],
    compiled: &Ruleset,
    named: &HashSet<String>,
    reads_requests: bool,
    report: &mut Report,
) {
    let reads_requests = reads_requests || rules.iter().any(|rule| rule.spec.action == Action::Intercept);
    for (index, rule) in rules.iter().enumerate() {
        if compiled.never_matches(index) {
            report.warn(
                rule.node,
                "no traffic can match this rule: its fields exclude each other, or its variable is empty",
            );
        }
        if let Some(node) = rule.user {
            if named.is_empty() {
                report.warn(node, "no listener has `users`: every client is `user: none`");
            } else if let Some(name) = stranger(&rule.spec, named) {
                report.warn(node, format!("no listener has a user `{}`", shown(name)));
            }
        }
        if let (false, Some(node)) = (reads_requests, rule.request) {
            report.warn(
                node,
                "no rule intercepts and no listener is an HTTP proxy: this is known of the first request of plain HTTP only",
            );
        }
        let takes_grease = |field: &FieldSpec| matches!(field, FieldSpec::Ech(terms) if takes_grease(terms));
        if let Some(node) = rule.ech
            && rule.spec.action == Action::Deny
            && rule.spec.fields.iter().any(takes_grease)
        {
            report.warn(
                node,
                "this denies every current browser: they send GREASE in every hello; `ech: real` is the rest",
            );
        }
    }
    let negated_denies =
        rules.iter().enumerate().filter(|(_, rule)| denies_by_negated_names_alone(&rule.spec));
    for (index, rule) in negated_denies.take(MAX_FOLLOWED) {
        if let Some(accept) = nameless_reach(&rule.spec, rules.get(index + 1..).unwrap_or_default()) {
            let message = format!(
                "traffic without a name (no SNI, plain HTTP) does not match negated names and reaches the accept of \
                 rules[{}]; `dns: none` matches exactly that traffic",
                index + 1 + accept
            );
            report.warn(rule.dns.unwrap_or(rule.node), message);
        }
    }
}

/// Warns of devices that nothing but a lease can name: a typing error looks the same.
pub(super) fn warn_of_devices(rules: &[Rule<'_>], devices: &Devices, report: &mut Report) {
    for rule in rules {
        let Some(node) = rule.device else { continue };
        let terms = rule.spec.fields.iter().filter_map(|field| match field {
            FieldSpec::Device(terms) => Some(terms),
            _ => None,
        });
        let strange =
            |name: &&str| devices.leases.is_none() && *name != UNKNOWN && !devices.called.contains(*name);
        if let Some(name) = terms.flatten().map(|term| &*term.value).find(strange) {
            report.warn(node, format!("no device is called `{}`, and there is no leases file", shown(name)));
        }
    }
}

/// The first user of `rule` whom no listener knows.
fn stranger<'r>(rule: &'r RuleSpec, named: &HashSet<String>) -> Option<&'r str> {
    let terms = rule.fields.iter().filter_map(|field| match field {
        FieldSpec::User(terms) => Some(terms),
        _ => None,
    });
    terms.flatten().find_map(|term| match &term.value {
        UserValue::Name(name) if !named.contains(&**name) => Some(&**name),
        UserValue::Name(_) | UserValue::None => None,
    })
}

/// Whether a list matches the hellos of browsers.
fn takes_grease(terms: &[Term<EchValue>]) -> bool {
    let of = |term: &&Term<EchValue>| matches!(term.value, EchValue::Grease | EchValue::Any);
    let (negated, positive): (Vec<_>, Vec<_>) = terms.iter().partition(|term| term.negated);
    (positive.is_empty() || positive.iter().any(of)) && !negated.iter().any(of)
}

fn names(rule: &RuleSpec) -> Option<&[Term<NameValue>]> {
    rule.fields.iter().find_map(|field| match field {
        FieldSpec::Dns(terms) => Some(terms.as_slice()),
        _ => None,
    })
}

fn denies_by_negated_names_alone(rule: &RuleSpec) -> bool {
    let negated_name = |term: &Term<NameValue>| term.negated && !matches!(term.value, NameValue::None);
    matches!(rule.action, Action::Deny | Action::Redirect)
        && names(rule).is_some_and(|terms| terms.iter().all(negated_name))
}

/// The first of `later` that accepts nameless traffic of the kind that `rule` denies.
fn nameless_reach(rule: &RuleSpec, later: &[Rule<'_>]) -> Option<usize> {
    for (index, Rule { spec, .. }) in later.iter().enumerate() {
        let positive_none = |term: &Term<NameValue>| !term.negated && matches!(term.value, NameValue::None);
        let takes_nameless = names(spec).is_none_or(|terms| terms.iter().any(positive_none));
        let apart = rule.fields.iter().any(|a| spec.fields.iter().any(|b| are_apart(a, b)));
        if !takes_nameless || apart || spec.action == Action::Observe {
            continue;
        }
        if spec.action.lets_through() {
            return Some(index);
        }
        let as_wide = |field: &FieldSpec| {
            matches!(field, FieldSpec::Dns(_)) || rule.fields.iter().any(|other| are_same(field, other))
        };
        if spec.fields.iter().all(as_wide) {
            return None;
        }
    }
    None
}

/// Whether no traffic matches both, as far as that is easily told.
fn are_apart(a: &FieldSpec, b: &FieldSpec) -> bool {
    use FieldSpec::{Encrypted, Port, ProtoL3, ProtoL4, ProtoL5, Sport};
    match (a, b) {
        (Port(a), Port(b)) | (Sport(a), Sport(b)) => {
            never_meet(a, b, |a, b| a.from <= b.to && b.from <= a.to)
        }
        (ProtoL3(a), ProtoL3(b)) => never_meet(a, b, PartialEq::eq),
        (ProtoL4(a), ProtoL4(b)) => never_meet(a, b, PartialEq::eq),
        (ProtoL5(a), ProtoL5(b)) => never_meet(a, b, PartialEq::eq),
        (Encrypted(a), Encrypted(b)) => never_meet(a, b, PartialEq::eq),
        _ => false,
    }
}

fn never_meet<T>(a: &[Term<T>], b: &[Term<T>], meet: impl Fn(&T, &T) -> bool) -> bool {
    let positive = |terms: &[Term<T>]| terms.iter().any(|term| !term.negated);
    positive(a)
        && positive(b)
        && !a.iter().filter(|a| !a.negated).any(|a| b.iter().any(|b| !b.negated && meet(&a.value, &b.value)))
}

/// Whether both match the same traffic, as far as that is easily told.
fn are_same(a: &FieldSpec, b: &FieldSpec) -> bool {
    use FieldSpec::{Encrypted, Port, ProtoL3, ProtoL4, ProtoL5, Sport};
    match (a, b) {
        (Port(a), Port(b)) | (Sport(a), Sport(b)) => a == b,
        (ProtoL3(a), ProtoL3(b)) => a == b,
        (ProtoL4(a), ProtoL4(b)) => a == b,
        (ProtoL5(a), ProtoL5(b)) => a == b,
        (Encrypted(a), Encrypted(b)) => a == b,
        _ => false,
    }
}
