//! `rules`: from the file to what `decide` compiles, and warnings about rules that hardly mean what they say.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::decode::{Keys, Section, items, list, parse_bool, parse_port, scalar};
use super::limit;
use super::problem::{Report, listed, shown};
use super::tree::{Node, Value};
use super::vars::{Variables, Want};
use crate::decide::device::{Mac, UNKNOWN, fold_device};
use crate::decide::name::NamePattern;
use crate::decide::request::PathValue;
use crate::decide::rules::{
    AddrValue, EchValue, FieldSpec, L3, MAX_RULES, NameValue, PortRange, RuleSpec, Term, UserValue,
};
use crate::decide::week::Window;
use crate::decide::{Action, Cert, L4, L5, L7};
use crate::quota::Quota;

const FIELD_ALIASES: &[(&str, &str)] =
    &[("protocol3", "protoL3"), ("protocol4", "protoL4"), ("protocol5", "protoL5")];

/// Fields stand under `match` or beside it.
const FIELDS: &[&str] = &[
    "src",
    "dest",
    "port",
    "sport",
    "protoL3",
    "protoL4",
    "protoL5",
    "encrypted",
    "dns",
    "ech",
    "esni",
    "cert",
    "protoL7",
    "host",
    "path",
    "mac",
    "device",
    "user",
    "limit",
    "time",
];

pub(super) const RULE_KEYS: Keys = Keys { own: &["match", "action"], shared: FIELDS, aliases: FIELD_ALIASES };
const MATCH_KEYS: Keys = Keys { own: &["action"], shared: FIELDS, aliases: FIELD_ALIASES };

/// Actions, those to come as `None`.
const ACTIONS: &[(&str, Option<Action>)] = &[
    ("accept", Some(Action::Accept)),
    ("allow", Some(Action::Accept)),
    ("deny", Some(Action::Deny)),
    ("drop", Some(Action::Deny)),
    ("redirect", Some(Action::Redirect)),
    ("intercept", Some(Action::Intercept)),
    ("observe", Some(Action::Observe)),
];

/// One rule, and the values in the file that warnings point at.
pub(super) struct Rule<'t> {
    pub(super) spec: RuleSpec,
    pub(super) quota: Option<Quota>,
    pub(super) node: &'t Node,
    pub(super) user: Option<&'t Node>,
    pub(super) device: Option<&'t Node>,
    pub(super) dns: Option<&'t Node>,
    pub(super) ech: Option<&'t Node>,
    /// The first of `protoL7`, `host` and `path`.
    pub(super) request: Option<&'t Node>,
}

/// Reads the rules in their order. What is wrong is reported and left out, so the places only count without errors.
pub(super) fn rules<'t>(node: &'t Node, vars: &mut Variables<'t>, report: &mut Report) -> Vec<Rule<'t>> {
    let entries = list(node, "a list of rules: `- match: …`", report);
    if let Some(entry) = entries.get(MAX_RULES) {
        report.error(entry, format!("more than {MAX_RULES} rules"));
        return Vec::new();
    }
    let mut rules = Vec::with_capacity(entries.len());
    for entry in entries {
        match &entry.value {
            Value::Map(_) => rules.extend(rule(entry, vars, report)),
            _ => report.expected(entry, "a rule: a map with `match` and `action`"),
        }
    }
    rules
}

fn rule<'t>(entry: &'t Node, vars: &mut Variables<'t>, report: &mut Report) -> Option<Rule<'t>> {
    let mut section = Section::read(entry, &RULE_KEYS, report);
    if let Some(node) = section.get("match") {
        let matches = Section::read(node, &MATCH_KEYS, report);
        section.join(matches, report);
    }
    let mut fields = Vec::new();
    for field in section.entries() {
        let node = field.value;
        match field.name {
            "match" | "action" | "limit" => {}
            "src" => fields.push(FieldSpec::Src(addrs(node, vars, report))),
            "dest" => fields.push(FieldSpec::Dest(addrs(node, vars, report))),
            "port" => fields.push(FieldSpec::Port(values(node, &PORTS, vars, report))),
            "sport" => fields.push(FieldSpec::Sport(values(node, &PORTS, vars, report))),
            "protoL3" => fields.push(FieldSpec::ProtoL3(values(node, &L3S, vars, report))),
            "protoL4" => fields.push(FieldSpec::ProtoL4(values(node, &L4S, vars, report))),
            "protoL5" => fields.push(FieldSpec::ProtoL5(values(node, &L5S, vars, report))),
            "encrypted" => fields.push(FieldSpec::Encrypted(values(node, &BOOLS, vars, report))),
            "esni" => fields.push(FieldSpec::Esni(values(node, &BOOLS, vars, report))),
            "ech" => fields.push(FieldSpec::Ech(values(node, &ECHS, vars, report))),
            "cert" if cfg!(feature = "tls") => {
                fields.push(FieldSpec::Cert(values(node, &CERTS, vars, report)));
            }
            "dns" => fields.push(FieldSpec::Dns(names(node, vars, report))),
            "user" => fields.push(FieldSpec::User(values(node, &USERS, vars, report))),
            "protoL7" => fields.push(FieldSpec::ProtoL7(values(node, &L7S, vars, report))),
            "host" => fields.push(FieldSpec::Host(names(node, vars, report))),
            "path" => fields.push(FieldSpec::Path(values(node, &PATHS, vars, report))),
            "mac" if cfg!(feature = "household") => {
                fields.push(FieldSpec::Mac(values(node, &MACS, vars, report)));
            }
            "device" if cfg!(feature = "household") => {
                fields.push(FieldSpec::Device(values(node, &DEVICES, vars, report)));
            }
            missing @ ("cert" | "mac" | "device") => {
                report.error(field.key, format!("the field `{missing}` is not part of this build"));
            }
            "time" => fields.push(FieldSpec::Time(values(node, &TIMES, vars, report))),
            other => report.error(field.key, format!("the field `{other}` is not supported yet")),
        }
    }
    let quota = section.get("limit").map(|node| limit::quota(node, report));
    let action = match section.get("action") {
        Some(node) => action(node, report)?,
        None => {
            report.missing(entry, "action", format!("is missing: {}", listed(&action_names())));
            return None;
        }
    };
    if let (Some(node), true) = (section.get("limit"), action != Action::Accept) {
        report.error(node, "only a rule that accepts can have limits");
    }
    Some(Rule {
        spec: RuleSpec { action, fields },
        quota,
        node: entry,
        user: section.get("user"),
        device: section.get("device"),
        dns: section.get("dns"),
        ech: section.get("ech"),
        request: ["protoL7", "host", "path"].into_iter().find_map(|key| section.get(key)),
    })
}

/// Those that can be used.
fn action_names() -> Vec<&'static str> {
    ACTIONS.iter().filter(|(_, action)| action.is_some()).map(|(name, _)| *name).collect()
}

fn action(node: &Node, report: &mut Report) -> Option<Action> {
    let found =
        scalar(node).and_then(|text| ACTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim())));
    match found {
        Some((name, Some(Action::Intercept))) if !cfg!(feature = "intercept") => {
            report.error(node, format!("the action `{name}` is not part of this build"));
        }
        Some((_, Some(action))) => return Some(*action),
        Some((name, None)) => report.error(node, format!("the action `{name}` is not supported yet")),
        None => report.expected_word(node, "an action", &action_names()),
    }
    None
}

/// Values of one kind that are few enough to be copied out of a variable.
struct Kind<T: 'static> {
    /// With an article.
    what: &'static str,
    accepted: Accepted,
    parse: fn(&str) -> Option<T>,
}

/// How the values of a kind are written.
enum Accepted {
    /// As one of these.
    Words(&'static [&'static str]),
    /// In this shape, told with examples.
    Shape(&'static str),
}

const PORTS: Kind<PortRange> =
    Kind { what: "a port", accepted: Accepted::Shape("a number 0-65535, `from-to`"), parse: parse_ports };
const L3S: Kind<L3> = Kind {
    what: "an internet protocol",
    accepted: Accepted::Words(&["ip4", "ipv4", "ip6", "ipv6"]),
    parse: parse_l3,
};
const L4S: Kind<L4> =
    Kind { what: "a transport protocol", accepted: Accepted::Words(&["tcp", "udp"]), parse: parse_l4 };
const L5S: Kind<L5> = Kind {
    what: "a protocol",
    accepted: Accepted::Words(&["tls", "http", "quic", "dns", "ntp", "none"]),
    parse: parse_l5,
};
const BOOLS: Kind<bool> = Kind {
    what: "a truth value",
    accepted: Accepted::Words(&["yes", "no", "true", "false"]),
    parse: parse_bool,
};
const ECHS: Kind<EchValue> = Kind {
    what: "an ECH state",
    accepted: Accepted::Words(&["none", "grease", "real", "any"]),
    parse: parse_ech,
};
const CERTS: Kind<Cert> = Kind {
    what: "a certificate's worth",
    accepted: Accepted::Words(&["valid", "invalid", "unknown"]),
    parse: parse_cert,
};
const USERS: Kind<UserValue> =
    Kind { what: "a user", accepted: Accepted::Shape("a name without colon, `none`"), parse: parse_user };
const TIMES: Kind<Window> = Kind {
    what: "a time",
    accepted: Accepted::Shape("`mon-fri 22:00-06:00`, `22:00-06:00`, `sat-sun`"),
    parse: |text| text.parse().ok(),
};
const L7S: Kind<L7> =
    Kind { what: "a protocol", accepted: Accepted::Words(&["http", "h2", "none"]), parse: parse_l7 };
const PATHS: Kind<PathValue> =
    Kind { what: "a path", accepted: Accepted::Shape("`/exact`, `/beginning*`"), parse: PathValue::parse };

const MACS: Kind<Mac> = Kind {
    what: "a hardware address",
    accepted: Accepted::Shape("`aa:bb:cc:dd:ee:ff`"),
    parse: |text| text.parse().ok(),
};
const DEVICES: Kind<Box<str>> = Kind {
    what: "a device",
    accepted: Accepted::Shape("a name without blanks, `unknown`"),
    parse: parse_device,
};

fn values<'t, T>(
    node: &'t Node,
    kind: &Kind<T>,
    vars: &mut Variables<'t>,
    report: &mut Report,
) -> Vec<Term<T>> {
    let mut terms = Vec::new();
    each_value(node, report, |item, negated, text, report| {
        let Some(name) = text.strip_prefix('$') else {
            match (kind.parse)(text) {
                Some(value) => terms.push(Term { negated, value }),
                None => report.expected(item, &kind.accepted(text, report)),
            }
            return;
        };
        let Some(id) = vars.find(name, item, report) else { return };
        for held in vars.values(id, item, kind.what, report) {
            let held_text = scalar(held).unwrap_or_default().trim();
            match (kind.parse)(held_text) {
                Some(value) => terms.push(Term { negated, value }),
                None => {
                    let (held_text, line) = (shown(held_text), held.place.line);
                    report.error(
                        item,
                        format!("`${name}` holds `{held_text}` (line {line}), which is not {}", kind.what),
                    );
                    return;
                }
            }
        }
    });
    terms
}

impl<T> Kind<T> {
    fn accepted(&self, found: &str, report: &Report) -> String {
        match self.accepted {
            Accepted::Shape(shape) => format!("{}: {shape}, or `$variable`", self.what),
            Accepted::Words(words) => {
                let hint = report.did_you_mean(found, words.iter().copied());
                format!("{}: {}, or `$variable`{hint}", self.what, listed(words))
            }
        }
    }
}

fn addrs<'t>(node: &'t Node, vars: &mut Variables<'t>, report: &mut Report) -> Vec<Term<AddrValue>> {
    let mut terms = Vec::new();
    each_value(node, report, |item, negated, text, report| {
        let value = match text.strip_prefix('$') {
            Some(name) => vars
                .find(name, item, report)
                .and_then(|id| vars.list(id, Want::Addrs, item, report))
                .map(AddrValue::List),
            None => {
                let net = parse_net(text);
                if net.is_none() {
                    report.expected(
                        item,
                        "an address: `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`, or `$variable`",
                    );
                }
                net.map(AddrValue::Net)
            }
        };
        terms.extend(value.map(|value| Term { negated, value }));
    });
    terms
}

fn names<'t>(node: &'t Node, vars: &mut Variables<'t>, report: &mut Report) -> Vec<Term<NameValue>> {
    let mut terms = Vec::new();
    each_value(node, report, |item, negated, text, report| {
        let value = match text.strip_prefix('$') {
            Some(name) => vars
                .find(name, item, report)
                .and_then(|id| vars.list(id, Want::Names, item, report))
                .map(NameValue::List),
            None if text.eq_ignore_ascii_case("none") => Some(NameValue::None),
            None => match parse_name(text) {
                Ok(pattern) => Some(NameValue::Pattern(pattern)),
                Err(why) => {
                    let accepted = "`example.com`, `*.example.com`, `.example.com`, `none`, or `$variable`";
                    report.expected(item, &format!("a name ({why}): {accepted}"));
                    None
                }
            },
        };
        terms.extend(value.map(|value| Term { negated, value }));
    });
    terms
}

/// Hands over each value of a field: the item, whether it is negated, and its text without `!`.
fn each_value<'t>(
    node: &'t Node,
    report: &mut Report,
    mut each: impl FnMut(&'t Node, bool, &str, &mut Report),
) {
    if matches!(&node.value, Value::Seq(items) if items.is_empty()) {
        report.error(node, "an empty list: leave the field out to match everything");
        return;
    }
    for item in items(node) {
        match scalar(item).map(str::trim) {
            Some(text) => {
                let value = text.strip_prefix('!');
                each(item, value.is_some(), value.unwrap_or(text).trim_start(), report);
            }
            None if matches!(item.value, Value::Null) => {
                report.error(item, "has no value: leave the field out to match everything");
            }
            None => report.expected(item, "a value: a field takes one, or a list of them"),
        }
    }
}

/// An address or a prefix, without what stands behind the prefix; a v4-mapped one is its IPv4 address.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let net = match net {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(addr), Some(prefix_len)) => Ipv4Net::new(addr, prefix_len).ok()?.into(),
            _ => net,
        },
        IpNet::V4(_) => net,
    };
    Some(net.trunc())
}

/// A name as rules and lists have it. Stricter than what a client may send: a port, path or typing error in a name would
/// make a rule that never matches.
pub(super) fn parse_name(text: &str) -> Result<NamePattern, &'static str> {
    check_name(text)?;
    NamePattern::parse(text)
}

/// What [`parse_name`] asks for beyond what every pattern must be.
pub(super) fn check_name(text: &str) -> Result<(), &'static str> {
    let strange =
        |b: u8| b.is_ascii() && !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*'));
    if text.bytes().any(strange) {
        return Err("letters, digits, `-`, `_` and `.`, without port and path");
    }
    let last_label = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if !last_label.is_empty() && last_label.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the last label is a number");
    }
    Ok(())
}

/// `443` or `8000-8999`.
fn parse_ports(text: &str) -> Option<PortRange> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { from: parse_port(from.trim())?, to: parse_port(to.trim())? };
    (range.from <= range.to).then_some(range)
}

fn parse_l3(text: &str) -> Option<L3> {
    match text.to_ascii_lowercase().as_str() {
        // `ivp4` is how the first documentation spelt it.
        "ip4" | "ipv4" | "ivp4" => Some(L3::Ip4),
        "ip6" | "ipv6" => Some(L3::Ip6),
        _ => None,
    }
}

fn parse_l4(text: &str) -> Option<L4> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Some(L4::Tcp),
        "udp" => Some(L4::Udp),
        _ => None,
    }
}

fn parse_l5(text: &str) -> Option<L5> {
    match text.to_ascii_lowercase().as_str() {
        "tls" => Some(L5::Tls),
        "http" => Some(L5::Http),
        "quic" => Some(L5::Quic),
        "dns" => Some(L5::Dns),
        "ntp" => Some(L5::Ntp),
        "none" => Some(L5::None),
        _ => None,
    }
}

fn parse_l7(text: &str) -> Option<L7> {
    match text.to_ascii_lowercase().as_str() {
        "http" => Some(L7::Http),
        "h2" => Some(L7::H2),
        "none" => Some(L7::None),
        _ => None,
    }
}

/// `unknown`, or any name that a device can have.
fn parse_device(text: &str) -> Option<Box<str>> {
    let name = fold_device(text);
    (*name == *UNKNOWN || super::devices::check_name(text).is_ok()).then_some(name)
}

/// `none`, or any name that a user can have.
fn parse_user(text: &str) -> Option<UserValue> {
    if text.eq_ignore_ascii_case("none") {
        return Some(UserValue::None);
    }
    super::users::check_name(text).is_ok().then(|| UserValue::name(text))
}

fn parse_ech(text: &str) -> Option<EchValue> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Some(EchValue::None),
        "grease" => Some(EchValue::Grease),
        "real" => Some(EchValue::Real),
        "any" => Some(EchValue::Any),
        _ => None,
    }
}

fn parse_cert(text: &str) -> Option<Cert> {
    [Cert::Valid, Cert::Invalid, Cert::Unknown]
        .into_iter()
        .find(|cert| cert.as_str().eq_ignore_ascii_case(text))
}
