//! Rules as the configuration understood them → entries that the walk can look at without thinking.
//!
//! An entry is a mask of worlds (see `worlds`) and at most one predicate for each of the facts with a large domain. A rule
//! that contradicts itself gets no entry. `redirect` becomes two: over HTTP it redirects, everything else it denies; so does
//! `intercept`: QUIC it denies.

use std::collections::HashMap;

use super::device::Mac;
use super::predicate::{
    AddrPredicate, Key, ListPredicate, NamePredicate, PortPredicate, TimePredicate, UserPredicate,
};
use super::request::{L7Predicate, PathPredicate};
use super::rules::{FieldSpec, RuleSpec};
use super::worlds::Worlds;
use super::{Action, Cert, Need};

/// The facts that rules ask by predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    Src,
    Sport,
    Port,
    User,
    Time,
    Mac,
    Device,
    Dest,
    Name,
    L7,
    Host,
    Path,
    Cert,
}

impl Dim {
    /// In the order in which they are looked at: what is cheap first.
    pub(super) const ALL: [Dim; 13] = [
        Dim::Port,
        Dim::Sport,
        Dim::L7,
        Dim::Time,
        Dim::Mac,
        Dim::Device,
        Dim::Src,
        Dim::User,
        Dim::Dest,
        Dim::Name,
        Dim::Host,
        Dim::Path,
        Dim::Cert,
    ];

    /// What obtains the fact.
    pub(super) fn need(self) -> Need {
        match self {
            Dim::Src | Dim::Sport | Dim::User => Need::Given,
            Dim::Time => Need::Time,
            Dim::Mac | Dim::Device => Need::Device,
            Dim::Port | Dim::Name | Dim::L7 | Dim::Host | Dim::Path => Need::FirstBytes,
            Dim::Dest => Need::Dest,
            Dim::Cert => Need::Cert,
        }
    }
}

/// A predicate of the ruleset, by its place; equal within a [`Dim`] exactly if the question is the same.
pub(super) type Atom = u32;

/// One rule, or one half of a `redirect`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The rule's place in the file.
    pub(super) index: u16,
    pub(super) action: Action,
    /// The worlds in which it matches.
    pub(super) worlds: Worlds,
    /// In the order of [`Dim::ALL`]; `None` asks nothing.
    pub(super) atoms: [Option<Atom>; Dim::ALL.len()],
}

/// The compiled rules.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) entries: Vec<Entry>,
    /// Those that observe, which no walk ends at.
    pub(super) observers: Vec<Entry>,
    pub(super) addrs: Vec<AddrPredicate>,
    pub(super) ports: Vec<PortPredicate>,
    pub(super) names: Vec<NamePredicate>,
    pub(super) users: Vec<UserPredicate>,
    pub(super) l7s: Vec<L7Predicate>,
    pub(super) paths: Vec<PathPredicate>,
    pub(super) times: Vec<TimePredicate>,
    pub(super) macs: Vec<ListPredicate<Mac>>,
    pub(super) devices: Vec<ListPredicate<Box<str>>>,
    pub(super) certs: Vec<ListPredicate<Cert>>,
}

/// Compiles the rules in their order.
pub(super) fn compile(rules: &[RuleSpec]) -> Compiled {
    let mut compiler = Compiler::default();
    for (index, rule) in (0..u16::MAX).zip(rules) {
        compiler.rule(index, rule);
    }
    compiler.out.entries.shrink_to_fit();
    compiler.out
}

#[derive(Default)]
struct Compiler {
    out: Compiled,
    addrs: HashMap<Key, Option<Atom>>,
    ports: HashMap<Key, Option<Atom>>,
    names: HashMap<Key, Option<Atom>>,
    users: HashMap<Key, Option<Atom>>,
    l7s: HashMap<Key, Option<Atom>>,
    paths: HashMap<Key, Option<Atom>>,
    times: HashMap<Key, Option<Atom>>,
    macs: HashMap<Key, Option<Atom>>,
    devices: HashMap<Key, Option<Atom>>,
    certs: HashMap<Key, Option<Atom>>,
}

/// Nothing can match.
struct Never;

impl Compiler {
    fn rule(&mut self, index: u16, rule: &RuleSpec) {
        let worlds = rule.fields.iter().fold(Worlds::ALL, |left, field| left.and(Worlds::of_field(field)));
        let mut atoms = [None; Dim::ALL.len()];
        for (dim, place) in Dim::ALL.into_iter().zip(&mut atoms) {
            match self.atom(dim, &rule.fields) {
                Ok(atom) => *place = atom,
                Err(Never) => return,
            }
        }
        let halves = match rule.action {
            Action::Redirect => {
                [(Action::Redirect, worlds.and(Worlds::HTTP)), (Action::Deny, worlds.without(Worlds::HTTP))]
            }
            Action::Intercept => {
                [(Action::Intercept, worlds.without(Worlds::QUIC)), (Action::Deny, worlds.and(Worlds::QUIC))]
            }
            action => [(action, worlds), (action, Worlds::EMPTY)],
        };
        for (action, worlds) in halves {
            if !worlds.and(Worlds::PLAUSIBLE).is_empty() {
                let out = match action {
                    Action::Observe => &mut self.out.observers,
                    _ => &mut self.out.entries,
                };
                out.push(Entry { index, action, worlds, atoms });
            }
        }
    }

    /// What the fields of a rule ask of one fact.
    fn atom(&mut self, dim: Dim, fields: &[FieldSpec]) -> Result<Option<Atom>, Never> {
        let key = key(dim, fields);
        if key == Key::default() {
            return Ok(None);
        }
        let (known, place) = match dim {
            Dim::Src | Dim::Dest => (&mut self.addrs, self.out.addrs.len()),
            Dim::Port | Dim::Sport => (&mut self.ports, self.out.ports.len()),
            Dim::Name | Dim::Host => (&mut self.names, self.out.names.len()),
            Dim::L7 => (&mut self.l7s, self.out.l7s.len()),
            Dim::Path => (&mut self.paths, self.out.paths.len()),
            Dim::User => (&mut self.users, self.out.users.len()),
            Dim::Time => (&mut self.times, self.out.times.len()),
            Dim::Mac => (&mut self.macs, self.out.macs.len()),
            Dim::Device => (&mut self.devices, self.out.devices.len()),
            Dim::Cert => (&mut self.certs, self.out.certs.len()),
        };
        if let Some(known) = known.get(&key) {
            return known.map(Some).ok_or(Never);
        }
        let is_empty = key.contradicts_itself()
            || match dim {
                Dim::Src | Dim::Dest => {
                    push(&mut self.out.addrs, addr_predicate(dim, fields), AddrPredicate::is_empty)
                }
                Dim::Port | Dim::Sport => {
                    push(&mut self.out.ports, port_predicate(dim, fields), PortPredicate::is_empty)
                }
                Dim::Name | Dim::Host => {
                    push(&mut self.out.names, name_predicate(dim, fields), NamePredicate::is_empty)
                }
                Dim::L7 => push(&mut self.out.l7s, l7_predicate(fields), L7Predicate::is_empty),
                Dim::Path => push(&mut self.out.paths, path_predicate(fields), |_| false),
                Dim::User => push(&mut self.out.users, user_predicate(fields), UserPredicate::is_empty),
                Dim::Time => push(&mut self.out.times, time_predicate(fields), TimePredicate::is_empty),
                // Lists that contradict themselves are found by their key.
                Dim::Mac => push(&mut self.out.macs, mac_predicate(fields), |_| false),
                Dim::Device => push(&mut self.out.devices, device_predicate(fields), |_| false),
                Dim::Cert => {
                    let is_empty = |p: &ListPredicate<Cert>| !Cert::ALL.iter().any(|cert| p.matches(cert));
                    push(&mut self.out.certs, cert_predicate(fields), is_empty)
                }
            };
        // At most two predicates of a kind for each of 65,535 rules.
        let atom = if is_empty { None } else { u32::try_from(place).ok() };
        known.insert(key, atom);
        atom.map(Some).ok_or(Never)
    }
}

/// Keeps a predicate that can match; whether it cannot.
fn push<P>(all: &mut Vec<P>, predicate: P, is_empty: impl Fn(&P) -> bool) -> bool {
    let empty = is_empty(&predicate);
    if !empty {
        all.push(predicate);
    }
    empty
}

fn key(dim: Dim, fields: &[FieldSpec]) -> Key {
    let mut key = Key::default();
    for field in fields {
        match (dim, field) {
            (Dim::Src, FieldSpec::Src(terms)) | (Dim::Dest, FieldSpec::Dest(terms)) => key.add_addrs(terms),
            (Dim::Dest, FieldSpec::ProtoL3(terms)) => key.add_families(terms),
            (Dim::Port, FieldSpec::Port(terms)) | (Dim::Sport, FieldSpec::Sport(terms)) => {
                key.add_ports(terms)
            }
            (Dim::Name, FieldSpec::Dns(terms)) | (Dim::Host, FieldSpec::Host(terms)) => key.add_names(terms),
            (Dim::L7, FieldSpec::ProtoL7(terms)) => key.add_l7s(terms),
            (Dim::Path, FieldSpec::Path(terms)) => key.add_paths(terms),
            (Dim::User, FieldSpec::User(terms)) => key.add_users(terms),
            (Dim::Time, FieldSpec::Time(terms)) => key.add_windows(terms),
            (Dim::Mac, FieldSpec::Mac(terms)) => key.add_macs(terms),
            (Dim::Device, FieldSpec::Device(terms)) => key.add_devices(terms),
            (Dim::Cert, FieldSpec::Cert(terms)) => key.add_certs(terms),
            _ => {}
        }
    }
    key
}

fn addr_predicate(dim: Dim, fields: &[FieldSpec]) -> AddrPredicate {
    let mut predicate = AddrPredicate::default();
    for field in fields {
        match (dim, field) {
            (Dim::Src, FieldSpec::Src(terms)) | (Dim::Dest, FieldSpec::Dest(terms)) => {
                predicate.add_values(terms)
            }
            (Dim::Dest, FieldSpec::ProtoL3(terms)) => predicate.add_families(terms),
            _ => {}
        }
    }
    predicate
}

fn port_predicate(dim: Dim, fields: &[FieldSpec]) -> PortPredicate {
    let mut predicate = PortPredicate::any();
    for field in fields {
        match (dim, field) {
            (Dim::Port, FieldSpec::Port(terms)) | (Dim::Sport, FieldSpec::Sport(terms)) => {
                predicate.add(terms)
            }
            _ => {}
        }
    }
    predicate
}

fn name_predicate(dim: Dim, fields: &[FieldSpec]) -> NamePredicate {
    let mut predicate = NamePredicate::default();
    for field in fields {
        match (dim, field) {
            (Dim::Name, FieldSpec::Dns(terms)) | (Dim::Host, FieldSpec::Host(terms)) => predicate.add(terms),
            _ => {}
        }
    }
    predicate
}

fn l7_predicate(fields: &[FieldSpec]) -> L7Predicate {
    let mut predicate = L7Predicate::default();
    for field in fields {
        if let FieldSpec::ProtoL7(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn path_predicate(fields: &[FieldSpec]) -> PathPredicate {
    let mut predicate = PathPredicate::default();
    for field in fields {
        if let FieldSpec::Path(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn user_predicate(fields: &[FieldSpec]) -> UserPredicate {
    let mut predicate = UserPredicate::default();
    for field in fields {
        if let FieldSpec::User(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn time_predicate(fields: &[FieldSpec]) -> TimePredicate {
    let mut predicate = TimePredicate::default();
    for field in fields {
        if let FieldSpec::Time(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn mac_predicate(fields: &[FieldSpec]) -> ListPredicate<Mac> {
    let mut predicate = ListPredicate::default();
    for field in fields {
        if let FieldSpec::Mac(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn device_predicate(fields: &[FieldSpec]) -> ListPredicate<Box<str>> {
    let mut predicate = ListPredicate::default();
    for field in fields {
        if let FieldSpec::Device(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}

fn cert_predicate(fields: &[FieldSpec]) -> ListPredicate<Cert> {
    let mut predicate = ListPredicate::default();
    for field in fields {
        if let FieldSpec::Cert(terms) = field {
            predicate.add(terms);
        }
    }
    predicate
}
