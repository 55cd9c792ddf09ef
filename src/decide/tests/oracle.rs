//! What the rules mean, told naively: everything is known, every field is looked at value by value.

use std::net::IpAddr;

use crate::decide::rules::{
    AddrValue, EchValue, FieldSpec, L3, Locals, NameValue, RuleSpec, Term, UserValue,
};
use crate::decide::{Action, Ech, Facts, Known, L5, RuleId, Verdict};

/// The verdict on facts none of which is unknown. `redirect_anywhere` is for a redirect that was given before the
/// destination was known: the `always` rule then does not stand before it.
pub(super) fn verdict(
    rules: &[RuleSpec],
    facts: &Facts,
    locals: &Locals,
    redirect_anywhere: bool,
) -> Verdict {
    let of_rules = first_match(rules, facts);
    if refused(facts, locals) && !(redirect_anywhere && of_rules.action == Action::Redirect) {
        return Verdict { action: Action::Deny, rule: RuleId::Always };
    }
    of_rules
}

fn first_match(rules: &[RuleSpec], facts: &Facts) -> Verdict {
    for (index, rule) in (0..).zip(rules) {
        if rule.fields.iter().all(|field| matches(field, facts)) {
            let action = match rule.action {
                Action::Redirect if facts.l5 != Known::Is(L5::Http) => Action::Deny,
                Action::Intercept if facts.l5 == Known::Is(L5::Quic) => Action::Deny,
                action => action,
            };
            return Verdict { action, rule: RuleId::Index(index) };
        }
    }
    Verdict { action: Action::Deny, rule: RuleId::Default }
}

/// The `always` rule over the few addresses that the properties use.
fn refused(facts: &Facts, locals: &Locals) -> bool {
    let Known::Is(dest) = facts.dest else { return true };
    let local = dest.is_loopback() || locals.addrs.contains(&dest);
    let listener = facts.port.is().is_some_and(|port| locals.tcp_ports.contains(port));
    dest.is_multicast() || local && (!locals.allow_local || listener)
}

fn matches(field: &FieldSpec, facts: &Facts) -> bool {
    let hello = matches!(facts.l5, Known::Is(L5::Tls | L5::Quic));
    match field {
        FieldSpec::Src(terms) => list(terms, facts.src.is(), covers),
        FieldSpec::Dest(terms) => list(terms, facts.dest.is(), covers),
        FieldSpec::Port(terms) => list(terms, facts.port.is(), |r, port| r.from <= *port && *port <= r.to),
        FieldSpec::Sport(terms) => list(terms, facts.sport.is(), |r, port| r.from <= *port && *port <= r.to),
        FieldSpec::ProtoL3(terms) => {
            list(terms, facts.dest.is(), |family, dest| (*family == L3::Ip4) == dest.is_ipv4())
        }
        FieldSpec::ProtoL4(terms) => list(terms, facts.l4.is(), |a, b| a == b),
        FieldSpec::ProtoL5(terms) => list(terms, facts.l5.is(), |a, b| a == b),
        FieldSpec::Encrypted(terms) => list(terms, Some(&hello), |a, b| a == b),
        FieldSpec::Esni(terms) => list(terms, facts.esni.is(), |a, b| a == b),
        FieldSpec::Ech(terms) => list(terms, facts.ech.is(), |value, ech| match value {
            EchValue::None => *ech == Ech::None,
            EchValue::Grease => *ech == Ech::Grease,
            EchValue::Real => *ech == Ech::Real,
            EchValue::Any => *ech != Ech::None,
        }),
        FieldSpec::Cert(terms) => list(terms, facts.cert.is().filter(|_| hello), |a, b| a == b),
        FieldSpec::Dns(terms) => names(terms, &facts.name),
        FieldSpec::ProtoL7(terms) => list(terms, facts.l7.is(), |a, b| a == b),
        // Without a request there is neither, not even a missing one.
        FieldSpec::Host(terms) => facts.l7.is().is_some() && names(terms, &facts.host),
        FieldSpec::Path(terms) => {
            let path = facts.path.is().filter(|_| facts.l7.is().is_some());
            list(terms, path, |value, path| value.matches(path))
        }
        FieldSpec::User(terms) if facts.user == Known::Absent => {
            let none = |negated| terms.iter().any(|t| t.negated == negated && t.value == UserValue::None);
            none(false) && !none(true)
        }
        FieldSpec::User(terms) => list(terms, facts.user.is(), |value, user| match value {
            UserValue::None => false,
            UserValue::Name(name) => name.to_lowercase() == user.to_lowercase(),
        }),
        FieldSpec::Time(terms) => list(terms, facts.time.is(), |window, time| window.contains(*time)),
        FieldSpec::Mac(terms) => list(terms, facts.mac.is(), |a, b| a == b),
        FieldSpec::Device(terms) => list(terms, facts.device.is(), |a, b| a == b),
    }
}

fn names(terms: &[Term<NameValue>], fact: &Known<Box<str>>) -> bool {
    if *fact == Known::Absent {
        let none = |negated| terms.iter().any(|t| t.negated == negated && matches!(t.value, NameValue::None));
        return none(false) && !none(true);
    }
    list(terms, fact.is(), |value, name| match value {
        NameValue::None => false,
        NameValue::Pattern(pattern) => pattern.matches(name),
        NameValue::List(list) => list.contains_name(name),
    })
}

fn covers(value: &AddrValue, addr: &IpAddr) -> bool {
    match value {
        AddrValue::Net(net) => net.contains(addr),
        AddrValue::List(list) => list.contains_addr(*addr),
    }
}

fn list<T, F>(terms: &[Term<T>], fact: Option<&F>, matches: impl Fn(&T, &F) -> bool) -> bool {
    let Some(fact) = fact else { return false };
    let mut positives = terms.iter().filter(|t| !t.negated).peekable();
    let positive = positives.peek().is_none() || positives.any(|t| matches(&t.value, fact));
    positive && !terms.iter().any(|t| t.negated && matches(&t.value, fact))
}
