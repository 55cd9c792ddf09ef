//! The ruleset: what the configuration hands over, and the ordered rules compiled from it.
//!
//! The configuration builds [`RuleSpec`]s; [`Ruleset::new`] compiles them (see `compile`) and [`Ruleset::decide`] walks
//! them (see `walk`). Nothing here parses text or knows a file format.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::compile::{Compiled, Entry, compile};
use super::device::Mac;
use super::list::List;
use super::name::NamePattern;
use super::request::PathValue;
use super::walk::{observe, walk};
use super::week::Window;
use super::{Action, Cert, Decision, Facts, L4, L5, L7, Observed, Verdict};

/// The largest number of rules, as a rule's place in the file is a `u16`.
pub const MAX_RULES: usize = u16::MAX as usize;

/// One rule as the configuration understood it. The fields are ANDed; without fields it matches everything.
#[derive(Debug, Clone)]
pub struct RuleSpec {
    /// What happens where the rule matches.
    pub action: Action,
    /// The conditions, in the order of the file.
    pub fields: Vec<FieldSpec>,
}

/// One field's list: it matches if (there is no positive value or one matches) and no negated value matches. A fact that
/// the traffic does not have matches no value, negated or not; `dns: none`, `user: none` and `host: none` alone match a missing name.
#[derive(Debug, Clone)]
pub enum FieldSpec {
    /// The client's address.
    Src(Vec<Term<AddrValue>>),
    /// The address to be dialled.
    Dest(Vec<Term<AddrValue>>),
    /// The port to be dialled.
    Port(Vec<Term<PortRange>>),
    /// The client's port.
    Sport(Vec<Term<PortRange>>),
    /// The family of the address to be dialled.
    ProtoL3(Vec<Term<L3>>),
    /// Transport protocol towards the client.
    ProtoL4(Vec<Term<L4>>),
    /// What the first bytes are.
    ProtoL5(Vec<Term<L5>>),
    /// Whether `protoL5` is tls or quic.
    Encrypted(Vec<Term<bool>>),
    /// Whether the ClientHello has the encrypted_server_name extension; without a ClientHello nothing matches.
    Esni(Vec<Term<bool>>),
    /// Encrypted ClientHello; without a ClientHello nothing matches.
    Ech(Vec<Term<EchValue>>),
    /// What the server's certificate is worth; without a ClientHello nothing matches.
    Cert(Vec<Term<Cert>>),
    /// The trusted name.
    Dns(Vec<Term<NameValue>>),
    /// Who the client has proved to be.
    User(Vec<Term<UserValue>>),
    /// What the request is made in.
    ProtoL7(Vec<Term<L7>>),
    /// The host that the request is for.
    Host(Vec<Term<NameValue>>),
    /// The request's path.
    Path(Vec<Term<PathValue>>),
    /// Local time.
    Time(Vec<Term<Window>>),
    /// The client's hardware address.
    Mac(Vec<Term<Mac>>),
    /// The client's device: a name as [`fold_device`](super::device::fold_device) leaves it, or `unknown`, which is a name
    /// like another.
    Device(Vec<Term<Box<str>>>),
}

impl RuleSpec {
    /// The lists that it names.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<List>> {
        self.fields.iter().flat_map(|field| {
            let (mut addrs, mut names) = (&[][..], &[][..]);
            match field {
                FieldSpec::Src(terms) | FieldSpec::Dest(terms) => addrs = terms,
                FieldSpec::Dns(terms) | FieldSpec::Host(terms) => names = terms,
                _ => {}
            }
            let addrs = addrs.iter().filter_map(|term| match &term.value {
                AddrValue::List(list) => Some(list),
                AddrValue::Net(_) => None,
            });
            let names = names.iter().filter_map(|term| match &term.value {
                NameValue::List(list) => Some(list),
                NameValue::None | NameValue::Pattern(_) => None,
            });
            addrs.chain(names)
        })
    }
}

impl FieldSpec {
    /// As written in the configuration.
    pub fn key(&self) -> &'static str {
        match self {
            FieldSpec::Src(_) => "src",
            FieldSpec::Dest(_) => "dest",
            FieldSpec::Port(_) => "port",
            FieldSpec::Sport(_) => "sport",
            FieldSpec::ProtoL3(_) => "protoL3",
            FieldSpec::ProtoL4(_) => "protoL4",
            FieldSpec::ProtoL5(_) => "protoL5",
            FieldSpec::Encrypted(_) => "encrypted",
            FieldSpec::Esni(_) => "esni",
            FieldSpec::Ech(_) => "ech",
            FieldSpec::Cert(_) => "cert",
            FieldSpec::Dns(_) => "dns",
            FieldSpec::User(_) => "user",
            FieldSpec::ProtoL7(_) => "protoL7",
            FieldSpec::Host(_) => "host",
            FieldSpec::Path(_) => "path",
            FieldSpec::Time(_) => "time",
            FieldSpec::Mac(_) => "mac",
            FieldSpec::Device(_) => "device",
        }
    }
}

/// One value of a field's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term<T> {
    /// Written with `!`.
    pub negated: bool,
    /// What is compared.
    pub value: T,
}

/// Ports from and to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct PortRange {
    pub from: u16,
    pub to: u16,
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum L3 {
    /// RFC 791; a v4-mapped address, too.
    Ip4,
    /// RFC 8200.
    Ip6,
}

/// A value of the field `ech`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EchValue {
    /// A ClientHello without the extension.
    None,
    /// The extension, but no known public name as SNI.
    Grease,
    /// The extension and a known public name as SNI.
    Real,
    /// The extension, whatever the SNI: every current browser.
    Any,
}

/// A value of the fields `src` and `dest`.
#[derive(Debug, Clone)]
pub enum AddrValue {
    /// An address or CIDR.
    Net(IpNet),
    /// A variable: its addresses, never its names.
    List(Arc<List>),
}

/// A value of the fields `dns` and `host`.
#[derive(Debug, Clone)]
pub enum NameValue {
    /// Exactly the traffic without a trusted name, or the requests without a host's name.
    None,
    /// A name or a tree of names.
    Pattern(NamePattern),
    /// A variable: its names, never its addresses.
    List(Arc<List>),
}

/// A value of the field `user`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserValue {
    /// Exactly those who were not asked who they are.
    None,
    /// A name, as [`fold_user`] leaves it.
    Name(Box<str>),
}

impl UserValue {
    /// The user with this name.
    pub fn name(text: &str) -> Self {
        UserValue::Name(fold_user(text).into())
    }

    /// Whether it is the user `folded`, a name as [`fold_user`] leaves it.
    pub fn is(&self, folded: &str) -> bool {
        matches!(self, UserValue::Name(name) if **name == *folded)
    }
}

/// A user's name as rules compare it: without regard to case.
pub fn fold_user(name: &str) -> String {
    name.to_lowercase()
}

/// The ordered rules.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// Kept for explanations.
    specs: Vec<RuleSpec>,
    compiled: Compiled,
}

/// What of this machine the `always` rule must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locals {
    /// Every address of this machine, sorted; never v4-mapped.
    pub addrs: Vec<IpAddr>,
    /// The ports of our own TCP listeners.
    pub tcp_ports: Vec<u16>,
    /// `output.allowLocal`.
    pub allow_local: bool,
}

impl Locals {
    /// Whether a connection to `ip`, which is not v4-mapped, stays on this machine.
    pub fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addrs.binary_search(&ip).is_ok()
    }

    /// Whether a redirected connection to `addr`, which is not v4-mapped, has nowhere foreign to go: it was meant for this
    /// machine, or the trace of a redirection elsewhere is lost. With `allowLocal` that is so for our own listeners only.
    pub fn takes_in(&self, addr: SocketAddr) -> bool {
        if self.allow_local { self.listens_at(addr) } else { self.has(addr.ip()) }
    }

    /// Whether `addr`, which is not v4-mapped, leads to one of our own listeners.
    pub fn listens_at(&self, addr: SocketAddr) -> bool {
        self.has(addr.ip()) && self.tcp_ports.contains(&addr.port())
    }
}

impl Ruleset {
    /// Compiles the rules. The configuration refuses more than [`MAX_RULES`]; those beyond are dropped here.
    pub fn new(mut rules: Vec<RuleSpec>) -> Ruleset {
        rules.truncate(MAX_RULES);
        let compiled = compile(&rules);
        Ruleset { specs: rules, compiled }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rules as they were given, in order.
    pub fn specs(&self) -> &[RuleSpec] {
        &self.specs
    }

    /// Whether rule `index` contradicts itself or names an empty variable, so that no traffic at all can match it. Rules
    /// that are merely hidden behind others are not meant.
    pub fn never_matches(&self, index: usize) -> bool {
        let has = |entries: &[Entry]| entries.binary_search_by_key(&index, |e| usize::from(e.index)).is_ok();
        index < self.len() && !has(&self.compiled.entries) && !has(&self.compiled.observers)
    }

    /// Walks the rules: the verdict, or the cheapest fact that the first rule that may match hangs on and that can change
    /// the verdict. An accepting verdict is only given with `dest` known, a redirect only with `l5` known to be HTTP;
    /// what `redirect` finds that is no HTTP is denied by that rule, and so is what `intercept` finds that is QUIC. Facts that arrive later never change a verdict, with
    /// one exception: a redirect that was given without a destination is not taken back because the destination turns out
    /// to be one that the `always` rule refuses.
    pub fn decide(&self, facts: &Facts, locals: &Locals) -> Decision {
        walk(&self.compiled, facts, locals)
    }

    /// What the observing rules say that stand before the one that gave `verdict`. They ask for facts as other rules do, but
    /// only of what is accepted; where there is a denial, those that match by what is known are all.
    pub fn observe(&self, facts: &Facts, verdict: Verdict) -> Observed {
        if self.compiled.observers.is_empty() {
            return Observed::Rules(Vec::new());
        }
        observe(&self.compiled, facts, verdict)
    }

    /// Whether a rule hangs on the client's device.
    pub fn asks_device(&self) -> bool {
        let asks = |field: &FieldSpec| matches!(field, FieldSpec::Mac(_) | FieldSpec::Device(_));
        self.specs.iter().any(|rule| rule.fields.iter().any(asks))
    }
}
