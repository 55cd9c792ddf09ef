//! From facts to a verdict, and what follows from it: the walk is asked again after every fact.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::machine::Session;
use super::owed::Owed;
use super::state::State;
use super::surroundings::{decide, observe};
use super::{CloseReason, Env, Machine, Step, probing};
use crate::accept::Wish;
use crate::config::Target;
use crate::decide::facts::{Ech, Facts, Known, L4, L5};
use crate::decide::{Action, Decision, Need, Observed, RuleId, Verdict, ech, name};
use crate::identify::Identity;
use crate::quota::Refused;
use crate::wire::http1::{self, Authority, Host};

/// Port of a lost destination, by what the first bytes are.
const TLS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// What is to be dialled, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
enum DialTarget {
    Address(SocketAddr),
    Name(Box<str>, u16),
    /// The first bytes may still name it.
    NotYet,
    /// There is nothing to dial.
    Nowhere,
}

/// What the rules say of all addresses that may be dialled.
enum Outlook {
    /// Accepted, for these addresses; none for a verdict that needs no address.
    Verdict(Verdict, Vec<IpAddr>),
    Need(Need),
    /// It hangs on the certificates of these.
    Unproven(Vec<IpAddr>),
}

impl Session {
    /// Asks the rules and takes the next step.
    pub(super) fn advance(&mut self, env: &mut Env<'_>) -> Step {
        // Each turn makes a fact known that was unknown: `dest`, then `cert`.
        for _ in 0..3 {
            let outlook = match self.outlook(env) {
                Outlook::Verdict(verdict, addrs) => match self.unobserved(verdict, env) {
                    Some(Need::Cert) => {
                        Outlook::Unproven(self.facts.dest.is().copied().into_iter().collect())
                    }
                    Some(need) => Outlook::Need(need),
                    None => Outlook::Verdict(verdict, addrs),
                },
                need => need,
            };
            match outlook {
                Outlook::Verdict(verdict, addrs) => return self.carry_out(verdict, addrs, env),
                Outlook::Need(Need::FirstBytes) if self.facts.l5.is_unknown() => return self.peek(env),
                Outlook::Need(Need::Dest) => match self.dial_target() {
                    DialTarget::NotYet => return self.peek(env),
                    DialTarget::Name(name, _) => {
                        self.go(State::Resolving);
                        return Step::Resolve(name);
                    }
                    DialTarget::Address(addr) => self.facts.dest = Known::Is(addr.ip().to_canonical()),
                    DialTarget::Nowhere => self.facts.dest = Known::Absent,
                },
                Outlook::Unproven(addrs) => {
                    if let Some(step) = self.ask_for_certificates(addrs) {
                        return step;
                    }
                }
                // The walk asked for what it has: our own fault, and not one to let traffic through for.
                Outlook::Need(need) => {
                    debug_assert!(false, "asked for {need:?} again");
                    break;
                }
            }
        }
        self.carry_out(Verdict { action: Action::Deny, rule: RuleId::Default }, Vec::new(), env)
    }

    /// Takes in what the first bytes are.
    pub(super) fn learn(&mut self, identity: Identity, env: &Env<'_>) {
        let asked = match &self.wish {
            Wish::Name { host, .. } => name::normalise(host.as_bytes()).map_or(Known::Absent, Known::Is),
            Wish::Address(_) | Wish::Lost => Known::Absent,
        };
        (self.facts.ech, self.facts.esni, self.facts.name) = (Known::Absent, Known::Absent, asked);
        if let Some(hello) = identity.hello() {
            let sni = hello.sni.as_deref().and_then(name::normalise);
            self.facts.ech = Known::Is(match (&sni, hello.ech) {
                (_, false) => Ech::None,
                (Some(sni), true)
                    if ech::is_public_name(sni)
                        || env.memory.is_public_name(self.client.ip(), sni, env.now) =>
                {
                    Ech::Real
                }
                _ => Ech::Grease,
            });
            self.facts.esni = Known::Is(hello.esni);
            if let Some(sni) = sni {
                self.facts.name = Known::Is(sni);
            }
        }
        let (l5, port) = match &identity {
            Identity::Tls(_) => (L5::Tls, Some(TLS_PORT)),
            Identity::Quic { .. } => (L5::Quic, Some(TLS_PORT)),
            Identity::Http { .. } => (L5::Http, Some(HTTP_PORT)),
            Identity::Dns { .. } => (L5::Dns, None),
            Identity::Ntp => (L5::Ntp, None),
            Identity::None => (L5::None, None),
        };
        self.facts.l5 = Known::Is(l5);
        if let Identity::Http { host } = &identity {
            let host = host.as_deref().and_then(|host| Some(Authority::parse(host).ok()?.host));
            let target = http1::target_of(&self.prelude).into_owned();
            self.note_request(host.as_ref(), &target);
        }
        self.facts.cert = if l5.is_encrypted() { Known::Unknown } else { Known::Absent };
        if self.wish == Wish::Lost {
            self.facts.port = port.map_or(Known::Absent, Known::Is);
        }
        self.identity = Some(identity);
        // The name to be dialled may be another one now.
        if self.resolved.as_ref().is_some_and(|(name, _)| Some(name) != self.dial_name().as_ref()) {
            self.resolved = None;
            self.facts.dest = Known::Unknown;
        }
    }

    /// The name to be resolved for dialling, if it is a name.
    pub(super) fn dial_name(&self) -> Option<Box<str>> {
        match self.dial_target() {
            DialTarget::Name(name, _) => Some(name),
            DialTarget::Address(_) | DialTarget::NotYet | DialTarget::Nowhere => None,
        }
    }

    /// `listen[].target`: see the configuration reference.
    fn dial_target(&self) -> DialTarget {
        let looked = !self.facts.l5.is_unknown();
        match (&self.wish, self.target) {
            (Wish::Address(addr), Target::Auto | Target::Original) => DialTarget::Address(*addr),
            (Wish::Address(_) | Wish::Lost, Target::Name) | (Wish::Lost, Target::Auto) if !looked => {
                DialTarget::NotYet
            }
            (Wish::Address(addr), Target::Name) => {
                self.named_target(addr.port()).unwrap_or(DialTarget::Address(*addr))
            }
            (Wish::Name { host, port }, Target::Auto | Target::Name) => match &self.facts.name {
                Known::Is(name) => DialTarget::Name(name.clone(), *port),
                Known::Unknown | Known::Absent => DialTarget::Name(without_root(host), *port),
            },
            (Wish::Name { host, port }, Target::Original) => DialTarget::Name(without_root(host), *port),
            (Wish::Lost, Target::Original) => DialTarget::Nowhere,
            (Wish::Lost, Target::Auto | Target::Name) => match self.facts.port {
                Known::Is(port) => self.named_target(port).unwrap_or(DialTarget::Nowhere),
                Known::Unknown | Known::Absent => DialTarget::Nowhere,
            },
        }
    }

    /// The trusted name, or in transparent mode the HTTP Host: good enough to dial, not to be matched by a rule.
    fn named_target(&self, port: u16) -> Option<DialTarget> {
        if let Known::Is(name) = &self.facts.name {
            return Some(DialTarget::Name(name.clone(), port));
        }
        let Some(Identity::Http { host: Some(host) }) = &self.identity else { return None };
        if self.mode.is_explicit() {
            return None;
        }
        match Authority::parse(host).ok()?.host {
            Host::Ip(ip) => Some(DialTarget::Address(SocketAddr::new(ip, port))),
            Host::Name(host) => Some(DialTarget::Name(without_root(&host), port)),
        }
    }

    /// The rules' word on the destination, or on all its addresses together: one that is accepted is enough, and only those
    /// are dialled.
    fn outlook(&mut self, env: &Env<'_>) -> Outlook {
        let Some((_, addrs)) = &self.resolved else {
            if let Known::Is(dest) = self.facts.dest {
                self.show_cert_at(dest);
            }
            return match decide(&self.plan, &mut self.facts, env) {
                Decision::Need(Need::Cert) if self.facts.l5.is_unknown() => Outlook::Need(Need::FirstBytes),
                Decision::Need(Need::Cert) => match self.facts.dest {
                    Known::Is(dest) => Outlook::Unproven(vec![dest]),
                    Known::Unknown | Known::Absent => Outlook::Need(Need::Dest),
                },
                Decision::Need(need) => Outlook::Need(need),
                Decision::Verdict(verdict) => {
                    Outlook::Verdict(verdict, self.facts.dest.is().copied().into_iter().collect())
                }
            };
        };
        let mut facts = self.facts.clone();
        let (mut accepted, mut open, mut unproven) = (Vec::new(), Vec::new(), Vec::new());
        let (mut yes, mut elsewhere, mut no, mut need) = (None, None, None, None);
        for &addr in addrs {
            facts.dest = Known::Is(addr.to_canonical());
            facts.cert = self.cert_at(addr);
            match decide(&self.plan, &mut facts, env) {
                Decision::Verdict(verdict) => match verdict.action {
                    Action::Accept | Action::Intercept => {
                        // An address that is treated otherwise than the first good one is not dialled instead of it.
                        if yes.get_or_insert(verdict).action == verdict.action {
                            accepted.push(addr);
                        }
                        open.push(addr);
                    }
                    Action::Redirect => {
                        elsewhere.get_or_insert((verdict, addr));
                        open.push(addr);
                    }
                    Action::Deny | Action::Observe => {
                        no.get_or_insert((verdict, addr));
                    }
                },
                Decision::Need(Need::Cert) => unproven.push(addr),
                Decision::Need(next) => {
                    need.get_or_insert(next);
                    open.push(addr);
                }
            }
        }
        (self.facts.time, self.facts.mac) = (facts.time, facts.mac);
        self.facts.device = facts.device;
        if let (None, None, false) = (need, yes, unproven.is_empty()) {
            // What may be dialled without a look at its certificate goes before, and what is denied now stays denied.
            probing::keep_few(&mut unproven);
            open.extend(&unproven);
            if let Some((_, addrs)) = &mut self.resolved {
                *addrs = open;
            }
            return Outlook::Unproven(unproven);
        }
        if let Some(need) = need {
            open.extend(unproven);
            // What is denied now is denied whatever the first bytes are.
            if let Some((_, addrs)) = &mut self.resolved {
                *addrs = open;
            }
            return Outlook::Need(need);
        }
        let otherwise = elsewhere.or(no);
        let shown = accepted.first().copied().or(otherwise.map(|(_, addr)| addr));
        self.facts.dest = shown.map_or(Known::Absent, |addr| Known::Is(addr.to_canonical()));
        if let Some(addr) = shown {
            self.show_cert_at(addr);
        }
        let denied = Verdict { action: Action::Deny, rule: RuleId::Default };
        Outlook::Verdict(yes.or(otherwise.map(|(verdict, _)| verdict)).unwrap_or(denied), accepted)
    }

    /// What an observing rule still has to know before this verdict is carried out, if anything: the first bytes, or the
    /// certificate of what is let in.
    fn unobserved(&mut self, verdict: Verdict, env: &Env<'_>) -> Option<Need> {
        match observe(&self.plan, &mut self.facts, env, verdict) {
            Observed::Need(Need::FirstBytes) if self.facts.l5.is_unknown() => Some(Need::FirstBytes),
            Observed::Need(Need::Cert) if verdict.action.lets_through() && self.identity.is_some() => {
                Some(Need::Cert)
            }
            _ => None,
        }
    }

    fn carry_out(&mut self, verdict: Verdict, addrs: Vec<IpAddr>, env: &mut Env<'_>) -> Step {
        match verdict.action {
            Action::Accept => self.accept(verdict, addrs, env),
            // Whether it is TLS must be known in order to decrypt it.
            Action::Intercept if self.facts.l5.is_unknown() => self.peek(env),
            Action::Intercept if self.facts.l5 == Known::Is(L5::Tls) => self.intercept(verdict, addrs, env),
            Action::Intercept => self.accept(Verdict { action: Action::Accept, ..verdict }, addrs, env),
            // Whether it is plain HTTP must be known in order to answer it.
            Action::Redirect if self.facts.l5.is_unknown() => self.peek(env),
            Action::Redirect => self.redirect(verdict, env),
            Action::Deny | Action::Observe => {
                self.announce(verdict, env);
                self.refuse(env)
            }
        }
    }

    pub(super) fn accept(&mut self, verdict: Verdict, addrs: Vec<IpAddr>, env: &mut Env<'_>) -> Step {
        if let Some(beyond) = self.go_beyond_limits(verdict, env) {
            return beyond;
        }
        let port = self.facts.port.is().copied();
        let addrs: Vec<_> = addrs.into_iter().filter_map(|ip| Some(SocketAddr::new(ip, port?))).collect();
        self.announce(verdict, env);
        if addrs.is_empty() {
            return self.close(CloseReason::NoDestination);
        }
        self.go(State::Dialling);
        Step::Dial(addrs)
    }

    /// Plain HTTP learns that there is https; everything else is denied.
    fn redirect(&mut self, verdict: Verdict, env: &mut Env<'_>) -> Step {
        let reply = match (&self.owed, &self.identity) {
            (Owed::Response(request), _) => http1::redirect(request, true),
            (_, Some(Identity::Http { .. })) => super::request::whole_head(&self.prelude)
                .and_then(|head| http1::parse_request(head).ok())
                .and_then(|request| http1::redirect(&request, true)),
            _ => None,
        };
        match reply {
            Some(reply) => {
                self.announce(verdict, env);
                self.say(reply, CloseReason::Redirected)
            }
            None => {
                self.announce(Verdict { action: Action::Deny, ..verdict }, env);
                self.refuse(env)
            }
        }
    }

    /// What began as a protocol was not whole in time or size.
    pub(super) fn incomplete(&mut self, shortfall: &'static str, env: &mut Env<'_>) -> Step {
        self.shortfall = shortfall;
        self.announce(Verdict { action: Action::Deny, rule: RuleId::Incomplete }, env);
        self.close(CloseReason::Incomplete)
    }

    /// What the `always` rule could not see in the facts.
    pub(super) fn deny_always(&mut self, env: &mut Env<'_>) -> Step {
        self.announce(Verdict { action: Action::Deny, rule: RuleId::Always }, env);
        self.refuse(env)
    }

    /// Refuses what is accepted and goes beyond a limit of its rule.
    pub(super) fn go_beyond_limits(&mut self, verdict: Verdict, env: &mut Env<'_>) -> Option<Step> {
        let refused = self.take_share(verdict, env.now).err()?;
        self.refused = Some(refused);
        self.announce(Verdict { action: Action::Deny, ..verdict }, env);
        Some(self.close(CloseReason::Limit))
    }

    /// Counts an accepted connection or request towards the limits of its rule.
    fn take_share(&mut self, verdict: Verdict, now: Instant) -> Result<(), Refused> {
        let RuleId::Index(index) = verdict.rule else { return Ok(()) };
        let Some(keeper) = self.plan.keepers.get(&index) else { return Ok(()) };
        self.share = Some(keeper.enter(self.client.ip(), now)?);
        Ok(())
    }

    pub(super) fn announce(&mut self, verdict: Verdict, env: &mut Env<'_>) {
        if let Observed::Rules(rules) = observe(&self.plan, &mut self.facts, env, verdict) {
            for rule in rules.into_iter().map(RuleId::Index) {
                env.report.verdict(self, Verdict { action: Action::Observe, rule });
            }
        }
        self.verdict = Some(verdict);
        env.report.verdict(self, verdict);
    }
}

/// A name without the dot of the root, as the resolver gives it back.
fn without_root(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).into()
}

/// What is known of every connection from `client`.
pub(super) fn facts_of(client: SocketAddr) -> Facts {
    Facts {
        src: Known::Is(client.ip()),
        sport: Known::Is(client.port()),
        l4: Known::Is(L4::Tcp),
        user: Known::Absent,
        ..Facts::default()
    }
}
