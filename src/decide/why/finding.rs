//! What one field of a rule says of the facts.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;

use crate::decide::device::Mac;
use crate::decide::list::{List, Source};
use crate::decide::predicate::list_matches;
use crate::decide::request::PathValue;
use crate::decide::rules::{
    AddrValue, EchValue, FieldSpec, L3, NameValue, PortRange, Term, UserValue, fold_user,
};
use crate::decide::week::{WeekTime, Window};
use crate::decide::why::{FindLine, Wanted};
use crate::decide::worlds::Worlds;
use crate::decide::{Cert, Ech, Facts, Known, L4, L5, L7, Need};

/// Values of a list that are shown where none of them matches.
const MAX_SHOWN: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Matched,
    Failed,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Finding {
    pub(super) state: State,
    pub(super) text: String,
    /// What to give so that it is known, and where it comes from.
    pub(super) fact: &'static str,
    pub(super) need: Need,
}

impl Finding {
    pub(super) fn new(field: &FieldSpec, facts: &Facts, find_line: &FindLine<'_>) -> Finding {
        let find_addr = |value: &AddrValue, addr: &IpAddr| find_addr(value, *addr, find_line);
        match field {
            FieldSpec::Src(terms) => judge("src", "src", Need::Given, terms, facts.src, find_addr),
            FieldSpec::Dest(terms) => judge("dest", "dest", Need::Dest, terms, facts.dest, find_addr),
            FieldSpec::Port(terms) => judge("port", "port", Need::FirstBytes, terms, facts.port, find_port),
            FieldSpec::Sport(terms) => judge("sport", "sport", Need::Given, terms, facts.sport, find_port),
            FieldSpec::ProtoL3(terms) => {
                let family = map(facts.dest, |dest| if dest.is_ipv4() { L3::Ip4 } else { L3::Ip6 });
                judge("protoL3", "dest", Need::Dest, terms, family, find_equal)
            }
            FieldSpec::ProtoL4(terms) => {
                judge("protoL4", "protoL4", Need::Given, terms, facts.l4, find_equal).in_worlds(field, facts)
            }
            FieldSpec::ProtoL5(terms) => {
                judge("protoL5", "protoL5", Need::FirstBytes, terms, facts.l5, find_equal)
                    .in_worlds(field, facts)
            }
            FieldSpec::Encrypted(terms) => {
                let encrypted = map(facts.l5, |l5| YesNo(l5.is_encrypted()));
                judge("encrypted", "protoL5", Need::FirstBytes, &yes_no(terms), encrypted, find_equal)
                    .in_worlds(field, facts)
            }
            FieldSpec::Esni(terms) => {
                judge("esni", "esni", Need::FirstBytes, &yes_no(terms), map(facts.esni, YesNo), find_equal)
                    .in_worlds(field, facts)
            }
            FieldSpec::Ech(terms) => {
                let find = |value: &EchValue, ech: &Ech| find_ech(*value, *ech);
                judge("ech", "ech", Need::FirstBytes, terms, facts.ech, find).in_worlds(field, facts)
            }
            FieldSpec::Cert(terms) => {
                let mut finding = judge("cert", "cert", Need::Cert, terms, facts.cert, find_equal);
                if finding.state == State::Unknown {
                    finding.text.push_str(": the server would be asked");
                }
                finding.unless_outside(field, facts)
            }
            FieldSpec::Dns(terms) if facts.name == Known::Absent => nameless("dns", terms),
            FieldSpec::Dns(terms) => {
                let name = map_ref(&facts.name, |name| &**name);
                let find = |value: &NameValue, name: &&str| find_name(value, name, find_line);
                judge("dns", "dns", Need::FirstBytes, terms, name, find)
            }
            FieldSpec::ProtoL7(_) if facts.has_no_request() => unread("protoL7"),
            FieldSpec::Host(_) if facts.has_no_request() => unread("host"),
            FieldSpec::Path(_) if facts.has_no_request() => unread("path"),
            FieldSpec::ProtoL7(terms) => {
                judge("protoL7", "protoL7", Need::FirstBytes, terms, facts.l7, find_equal)
            }
            FieldSpec::Host(terms) if facts.host == Known::Absent => nameless("host", terms),
            FieldSpec::Host(terms) => {
                let host = map_ref(&facts.host, |host| &**host);
                let find = |value: &NameValue, host: &&str| find_name(value, host, find_line);
                judge("host", "host", Need::FirstBytes, terms, host, find)
            }
            FieldSpec::Path(terms) => {
                let path = map_ref(&facts.path, |path| &**path);
                judge("path", "path", Need::FirstBytes, terms, path, |value, path| {
                    value.matches(path).then(|| value.show())
                })
            }
            FieldSpec::User(terms) if facts.user == Known::Absent => userless(terms),
            FieldSpec::User(terms) => {
                let user = map_ref(&facts.user, |user| &**user);
                judge("user", "user", Need::Given, terms, user, |value, user| {
                    value.is(&fold_user(user)).then(|| value.show())
                })
            }
            FieldSpec::Time(terms) => {
                let find = |window: &Window, time: &WeekTime| {
                    window.contains(*time).then(|| format!("in {}", window.show()))
                };
                judge("time", "time", Need::Time, terms, facts.time, find)
            }
            FieldSpec::Mac(terms) => judge("mac", "mac", Need::Device, terms, facts.mac, find_equal),
            FieldSpec::Device(terms) => {
                let device = facts.device.clone();
                judge("device", "device", Need::Device, terms, device, find_equal)
            }
        }
    }

    /// A finding that is about no field.
    pub(super) fn remark(text: &str, state: State) -> Finding {
        Finding { state, text: text.to_owned(), fact: "", need: Need::Given }
    }

    /// What is not known by itself may follow from the other facts.
    fn in_worlds(self, field: &FieldSpec, facts: &Facts) -> Finding {
        let mut finding = self.unless_outside(field, facts);
        if finding.state == State::Unknown
            && Worlds::of_facts(facts).without(Worlds::of_field(field)).is_empty()
        {
            finding.state = State::Matched;
            finding.text.push_str(", but all that it can be matches");
        }
        finding
    }

    /// What is not known by itself does not match where the other facts leave nothing that does.
    fn unless_outside(mut self, field: &FieldSpec, facts: &Facts) -> Finding {
        if self.state == State::Unknown && Worlds::of_facts(facts).and(Worlds::of_field(field)).is_empty() {
            self.state = State::Failed;
            self.text.push_str(", but nothing that it can be matches");
        }
        self
    }
}

/// Looks at a field's list. `find` tells where a value matches, to be put after "is ".
fn judge<T: Show, F: Show>(
    key: &str,
    fact: &'static str,
    need: Need,
    terms: &[Term<T>],
    known: Known<F>,
    find: impl Fn(&T, &F) -> Option<String>,
) -> Finding {
    let (state, text) = match known {
        Known::Unknown => (State::Unknown, format!("{key} is not known")),
        Known::Absent => (State::Failed, format!("{key}: this traffic has none")),
        Known::Is(value) => {
            let hit = |negated: bool| {
                terms.iter().filter(|t| t.negated == negated).find_map(|t| find(&t.value, &value))
            };
            let shown = value.show();
            if list_matches(terms, |term| find(term, &value).is_some()) {
                let place = hit(false).unwrap_or_else(|| format!("not {}", listed(terms, true)));
                (State::Matched, format!("{key} {shown} is {place}"))
            } else if let Some(place) = hit(true) {
                (State::Failed, format!("{key} {shown} is {place}, which is negated"))
            } else {
                (State::Failed, format!("{key} {shown} not in {}", listed(terms, false)))
            }
        }
    };
    Finding { state, text, fact, need }
}

/// Nobody reads requests here, so the rule is passed over.
fn unread(key: &str) -> Finding {
    let text = format!("{key}: is known of plain HTTP, and inside of an intercepted connection");
    Finding::remark(&text, State::Failed)
}

fn nameless(key: &str, terms: &[Term<NameValue>]) -> Finding {
    let none =
        |negated: bool| terms.iter().any(|t| t.negated == negated && matches!(t.value, NameValue::None));
    let (state, text) = if none(false) && !none(true) {
        (State::Matched, format!("{key} is none"))
    } else {
        (State::Failed, format!("{key}: there is no trusted name, so no name matches, negated or not"))
    };
    Finding::remark(&text, state)
}

fn userless(terms: &[Term<UserValue>]) -> Finding {
    let none = |negated: bool| terms.contains(&Term { negated, value: UserValue::None });
    let (state, text) = if none(false) && !none(true) {
        (State::Matched, "user is none")
    } else {
        (State::Failed, "user: the client was not asked who it is, so no user matches, negated or not")
    };
    Finding::remark(text, state)
}

/// The values of one sign, shortened.
fn listed<T: Show>(terms: &[Term<T>], negated: bool) -> String {
    let all: Vec<String> = terms.iter().filter(|t| t.negated == negated).map(|t| t.value.show()).collect();
    let shown = all.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(MAX_SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn find_addr(value: &AddrValue, addr: IpAddr, find_line: &FindLine<'_>) -> Option<String> {
    match value {
        AddrValue::Net(net) => {
            let inside = crate::decide::addr_set::AddrSet::new([*net]).contains(addr);
            inside.then(|| {
                if net.prefix_len() == net.max_prefix_len() { value.show() } else { format!("in {net}") }
            })
        }
        AddrValue::List(list) => list
            .contains_addr(addr)
            .then(|| in_list(list, list.find_addr(addr), &|file| find_line(file, Wanted::Addr(addr)))),
    }
}

fn find_name(value: &NameValue, name: &str, find_line: &FindLine<'_>) -> Option<String> {
    match value {
        NameValue::None => None,
        NameValue::Pattern(pattern) => pattern.matches(name).then(|| {
            let pattern = pattern.to_string();
            if pattern == name { pattern } else { format!("in {pattern}") }
        }),
        NameValue::List(list) => list
            .contains_name(name)
            .then(|| in_list(list, list.find_name(name), &|file| find_line(file, Wanted::Name(name)))),
    }
}

fn find_port(value: &PortRange, port: &u16) -> Option<String> {
    let inside = value.from <= *port && *port <= value.to;
    inside.then(|| if value.from == value.to { value.show() } else { format!("in {}", value.show()) })
}

fn find_ech(value: EchValue, ech: Ech) -> Option<String> {
    let matches = match value {
        EchValue::None => ech == Ech::None,
        EchValue::Grease => ech == Ech::Grease,
        EchValue::Real => ech == Ech::Real,
        EchValue::Any => ech != Ech::None,
    };
    matches.then(|| value.show())
}

fn find_equal<T: Show + PartialEq>(value: &T, fact: &T) -> Option<String> {
    (value == fact).then(|| value.show())
}

fn in_list(list: &List, line: Option<u32>, find_line: &dyn Fn(&Path) -> Option<u32>) -> String {
    let variable = list.variable();
    match (list.source(), line) {
        (Source::File(path), _) => match find_line(path) {
            Some(line) => format!("in ${variable} ({}:{line})", path.display()),
            None => format!("in ${variable} ({})", path.display()),
        },
        (Source::Inline, None | Some(0)) => format!("in ${variable}"),
        (Source::Inline, Some(line)) => format!("in ${variable} (line {line})"),
    }
}

fn map<T: Copy, U>(known: Known<T>, f: impl FnOnce(T) -> U) -> Known<U> {
    map_ref(&known, |value| f(*value))
}

fn map_ref<'a, T, U>(known: &'a Known<T>, f: impl FnOnce(&'a T) -> U) -> Known<U> {
    match known {
        Known::Unknown => Known::Unknown,
        Known::Absent => Known::Absent,
        Known::Is(value) => Known::Is(f(value)),
    }
}

/// `encrypted` and `esni`, as they are written.
#[derive(Clone, Copy, PartialEq)]
struct YesNo(bool);

fn yes_no(terms: &[Term<bool>]) -> Vec<Term<YesNo>> {
    terms.iter().map(|t| Term { negated: t.negated, value: YesNo(t.value) }).collect()
}

/// As a value is written in a rule.
trait Show {
    fn show(&self) -> String;
}

macro_rules! show {
    ($($type:ty: |$value:ident| $shown:expr;)*) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                let $value = self;
                String::from($shown)
            }
        })*
    };
}

show! {
    IpAddr: |addr| shown(addr);
    WeekTime: |time| shown(time);
    Window: |window| shown(window);
    Mac: |mac| shown(mac);
    Box<str>: |name| &**name;
    u16: |port| shown(port);
    &str: |name| *name;
    L4: |l4| l4.as_str();
    L5: |l5| l5.as_str();
    L7: |l7| l7.as_str();
    PathValue: |path| shown(path);
    Ech: |ech| ech.as_str();
    Cert: |cert| cert.as_str();
    YesNo: |yes| if yes.0 { "yes" } else { "no" };
    L3: |family| if *family == L3::Ip4 { "ip4" } else { "ip6" };
    PortRange: |r| if r.from == r.to { shown(&r.from) } else { format!("{}-{}", r.from, r.to) };
    EchValue: |ech| match ech {
        EchValue::None => "none",
        EchValue::Grease => "grease",
        EchValue::Real => "real",
        EchValue::Any => "any",
    };
    AddrValue: |value| match value {
        AddrValue::Net(net) if net.prefix_len() == net.max_prefix_len() => shown(&net.addr()),
        AddrValue::Net(net) => shown(net),
        AddrValue::List(list) => format!("${}", list.variable()),
    };
    UserValue: |value| match value {
        UserValue::None => "none",
        UserValue::Name(name) => name,
    };
    NameValue: |value| match value {
        NameValue::None => shown(&"none"),
        NameValue::Pattern(pattern) => shown(pattern),
        NameValue::List(list) => format!("${}", list.variable()),
    };
}

fn shown(value: &impl Display) -> String {
    value.to_string()
}
