//! The walk through the rules, with three-valued logic and no more questions than the verdict needs.
//!
//! Each rule is a conjunction: a mask of worlds and some atoms, an atom being one predicate on one fact. Atoms on unknown
//! facts are *open* and taken as independent of each other, except that the same question is one atom: `dest` in
//! 10.0.0.0/8 and `dest` in 10.1.0.0/16 could, for the walk, each be true without the other. That never makes a verdict
//! wrong; at worst it asks for a fact that a prover would have done without. The worlds are exact.
//!
//! A certain end is a plain walk. Where a rule may match, the way on is looked at without trying the atoms' values: rules
//! only ever ask atoms to be true, so a rule can be the first to match exactly if it is so with its own atoms true and all
//! others false. Usually the first accepting rule behind settles it; at worst, where none can be reached, it would cost
//! the square of the rules behind, and where a deny hangs on facts of two kinds that do not matter, their cube. So looking
//! ahead has a budget. Where it runs out, the answer is the one that can never be wrong: what the rule at hand asks for.

use std::cell::Cell;

use super::always::{Always, always};
use super::compile::{Compiled, Dim, Entry};
use super::rules::Locals;
use super::worlds::Worlds;
use super::{Action, Decision, Facts, Known, Need, Observed, RuleId, Verdict};

/// Entries looked at ahead of the walk for one decision: some tens of microseconds.
const MAX_LOOK_AHEAD: u32 = 4096;

/// What it costs, least first.
const BY_COST: [Need; 6] = [Need::Given, Need::Time, Need::Device, Need::FirstBytes, Need::Dest, Need::Cert];

/// Walks the rules.
pub(super) fn walk(rules: &Compiled, facts: &Facts, locals: &Locals) -> Decision {
    let always = match always(facts, locals) {
        Always::Refuse(_) => return deny(RuleId::Always),
        Always::Pass => None,
        Always::Hangs(need) => Some(need),
    };
    let walk =
        Walk { rules, facts, always, possible: Worlds::of_facts(facts), budget: Cell::new(MAX_LOOK_AHEAD) };
    for (at, entry) in rules.entries.iter().enumerate() {
        match walk.look(entry) {
            Look::No => {}
            Look::Yes => return walk.end(entry),
            Look::Maybe => return walk.ask(at, entry),
        }
    }
    deny(RuleId::Default)
}

/// Looks at the observing rules before the one that gave `verdict`.
pub(super) fn observe(rules: &Compiled, facts: &Facts, verdict: Verdict) -> Observed {
    let before = match verdict.rule {
        RuleId::Index(index) => usize::from(index),
        RuleId::Default => usize::MAX,
        // No rule was looked at.
        RuleId::Always | RuleId::Incomplete | RuleId::Pass => 0,
    };
    let possible = Worlds::of_facts(facts);
    let walk = Walk { rules, facts, always: None, possible, budget: Cell::new(0) };
    let mut matching = Vec::new();
    for entry in rules.observers.iter().take_while(|entry| usize::from(entry.index) < before) {
        match walk.look(entry) {
            Look::Yes => matching.push(entry.index),
            Look::Maybe if verdict.action.lets_through() => {
                if let Some(need) = BY_COST.into_iter().find(|need| walk.hangs_on(entry, *need)) {
                    return Observed::Need(need);
                }
            }
            Look::Maybe | Look::No => {}
        }
    }
    Observed::Rules(matching)
}

fn deny(rule: RuleId) -> Decision {
    Decision::Verdict(Verdict { action: Action::Deny, rule })
}

/// What an entry is to the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    Yes,
    Maybe,
}

struct Walk<'a> {
    rules: &'a Compiled,
    facts: &'a Facts,
    /// What the `always` rule hangs on: an open atom of its own, which denying rules do not ask.
    always: Option<Need>,
    possible: Worlds,
    /// Entries that may still be looked at ahead.
    budget: Cell<u32>,
}

/// The look ahead was too far: nothing is known.
struct TooFar;

impl Walk<'_> {
    fn look(&self, entry: &Entry) -> Look {
        if !self.can_match(entry) {
            Look::No
        } else if self.possible.without(entry.worlds).is_empty() && self.open(entry).next().is_none() {
            Look::Yes
        } else {
            Look::Maybe
        }
    }

    /// Whether the worlds and every known fact allow it.
    fn can_match(&self, entry: &Entry) -> bool {
        !self.possible.and(entry.worlds).is_empty()
            && Dim::ALL
                .iter()
                .zip(&entry.atoms)
                .all(|(dim, atom)| atom.is_none_or(|atom| self.may_hold(*dim, atom)))
    }

    /// Whether an atom is open or true.
    fn may_hold(&self, dim: Dim, atom: u32) -> bool {
        let at = usize::try_from(atom).unwrap_or(usize::MAX);
        let (addrs, ports, names) = (&self.rules.addrs, &self.rules.ports, &self.rules.names);
        let addr = |fact: &Known<std::net::IpAddr>| {
            fact.is().is_some_and(|addr| addrs.get(at).is_some_and(|p| p.matches(*addr)))
        };
        let port =
            |fact: &Known<u16>| fact.is().is_some_and(|port| ports.get(at).is_some_and(|p| p.matches(*port)));
        self.is_open(dim)
            || match dim {
                Dim::Src => addr(&self.facts.src),
                Dim::Dest => addr(&self.facts.dest),
                Dim::Port => port(&self.facts.port),
                Dim::Sport => port(&self.facts.sport),
                Dim::Name => {
                    names.get(at).is_some_and(|p| p.matches(self.facts.name.is().map(|name| &**name)))
                }
                Dim::L7 => {
                    let l7 = self.facts.l7.is();
                    l7.is_some_and(|l7| self.rules.l7s.get(at).is_some_and(|p| p.matches(*l7)))
                }
                // Where nobody reads requests there is none, which even `host: none` does not match.
                Dim::Host => {
                    !self.facts.has_no_request()
                        && names.get(at).is_some_and(|p| p.matches(self.facts.host.is().map(|host| &**host)))
                }
                Dim::Path => {
                    let path = self.facts.path.is().filter(|_| !self.facts.has_no_request());
                    path.is_some_and(|path| self.rules.paths.get(at).is_some_and(|p| p.matches(path)))
                }
                Dim::User => {
                    let users = &self.rules.users;
                    users.get(at).is_some_and(|p| p.matches(self.facts.user.is().map(|user| &**user)))
                }
                Dim::Time => {
                    let times = &self.rules.times;
                    self.facts.time.is().is_some_and(|time| times.get(at).is_some_and(|p| p.matches(*time)))
                }
                Dim::Mac => {
                    let macs = &self.rules.macs;
                    self.facts.mac.is().is_some_and(|mac| macs.get(at).is_some_and(|p| p.matches(mac)))
                }
                Dim::Device => {
                    let devices = &self.rules.devices;
                    self.facts
                        .device
                        .is()
                        .is_some_and(|name| devices.get(at).is_some_and(|p| p.matches(name)))
                }
                Dim::Cert => {
                    let cert = self.facts.cert.is();
                    cert.is_some_and(|cert| self.rules.certs.get(at).is_some_and(|p| p.matches(cert)))
                }
            }
    }

    fn is_open(&self, dim: Dim) -> bool {
        match dim {
            Dim::Src => self.facts.src.is_unknown(),
            Dim::Dest => self.facts.dest.is_unknown(),
            Dim::Port => self.facts.port.is_unknown(),
            Dim::Sport => self.facts.sport.is_unknown(),
            Dim::Name => self.facts.name.is_unknown(),
            Dim::User => self.facts.user.is_unknown(),
            Dim::L7 | Dim::Host | Dim::Path if self.facts.has_no_request() => false,
            Dim::L7 => self.facts.l7.is_unknown(),
            Dim::Host => self.facts.host.is_unknown(),
            Dim::Path => self.facts.path.is_unknown(),
            Dim::Time => self.facts.time.is_unknown(),
            Dim::Mac => self.facts.mac.is_unknown(),
            Dim::Device => self.facts.device.is_unknown(),
            Dim::Cert => self.facts.cert.is_unknown(),
        }
    }

    /// The facts that an entry asks and nobody knows.
    fn open(&self, entry: &Entry) -> impl Iterator<Item = Dim> {
        let asked = Dim::ALL.into_iter().zip(entry.atoms).filter(|(_, atom)| atom.is_some());
        asked.map(|(dim, _)| dim).filter(|dim| self.is_open(*dim))
    }

    /// The entry matches for certain.
    fn end(&self, entry: &Entry) -> Decision {
        match self.always_for(entry.action) {
            Some(need) => Decision::Need(need),
            None => Decision::Verdict(Verdict { action: entry.action, rule: RuleId::Index(entry.index) }),
        }
    }

    /// What an action needs for the `always` rule. An accepting verdict is only given once the destination is known to be
    /// an ordinary one; a redirect dials nothing and does not wait for a name to be resolved.
    fn always_for(&self, action: Action) -> Option<Need> {
        match action {
            Action::Accept | Action::Intercept => self.always,
            Action::Redirect => self.always.filter(|need| *need != Need::Dest),
            Action::Deny | Action::Observe => None,
        }
    }

    /// The entry at `at` is the first that may match.
    fn ask(&self, at: usize, entry: &Entry) -> Decision {
        // Too far to see counts as a difference.
        if let Ok(false) = self.can_end_well(at) {
            return deny(RuleId::Index(entry.index));
        }
        // One of the needs that it hangs on changes the verdict: if it does not deny by itself, each; if it does, the way
        // from an accepting end to this one changes nothing but them. So the last need not be tried.
        let mut needs = BY_COST.into_iter().filter(|need| self.hangs_on(entry, *need)).peekable();
        while let Some(need) = needs.next() {
            if needs.peek().is_none() || self.can_change(at, need).unwrap_or(true) {
                return Decision::Need(need);
            }
        }
        deny(RuleId::Index(entry.index))
    }

    /// Whether an entry from `at` on can be the end and is no deny.
    fn can_end_well(&self, at: usize) -> Result<bool, TooFar> {
        let mut left = self.possible;
        for (to, entry) in self.rules.entries.iter().enumerate().skip(at) {
            self.spend()?;
            if left.is_empty() {
                return Ok(false);
            }
            if left.and(entry.worlds).is_empty() {
                continue;
            }
            if entry.action != Action::Deny {
                if self.can_match(entry) && !self.first_in(at, to, entry, None)?.is_empty() {
                    return Ok(true);
                }
            } else if self.open(entry).next().is_none() && self.can_match(entry) {
                left = left.without(entry.worlds);
            }
        }
        Ok(false)
    }

    /// Whether what `need` obtains can change the verdict, all else being the same; `at` is the first entry that may
    /// match. Denied is denied, by whatever rule.
    fn can_change(&self, at: usize, need: Need) -> Result<bool, TooFar> {
        let from_here = || self.rules.entries.iter().enumerate().skip(at);
        for (to, entry) in from_here() {
            self.spend()?;
            if entry.action == Action::Deny || !self.can_match(entry) {
                continue;
            }
            let worlds = self.first_in(at, to, entry, None)?;
            if worlds.is_empty() {
                continue;
            }
            // It matches here; does what `need` obtains make it fail?
            if self.open(entry).any(|dim| dim.need() == need)
                || !self.reach(worlds, need).without(entry.worlds).is_empty()
                || self.always_for(entry.action) == Some(need)
            {
                return Ok(true);
            }
            // It cannot fail by that, but an earlier one may come to match.
            for (_, other) in from_here().take_while(|(place, _)| *place < to) {
                self.spend()?;
                if !self.hangs_on(other, need) || !self.can_match(other) {
                    continue;
                }
                let worlds = self.first_in(at, to, entry, Some((other, need)))?;
                if !self.reach(worlds, need).and(other.worlds).is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// One entry looked at ahead.
    fn spend(&self) -> Result<(), TooFar> {
        self.budget.set(self.budget.get().checked_sub(1).ok_or(TooFar)?);
        Ok(())
    }

    /// The worlds in which `entry`, at place `to`, is the first to match from `at` on, if its own atoms are true, as well as
    /// those of `with` that its need does not obtain, and no others.
    fn first_in(
        &self,
        at: usize,
        to: usize,
        entry: &Entry,
        with: Option<(&Entry, Need)>,
    ) -> Result<Worlds, TooFar> {
        let mut worlds = self.possible.and(entry.worlds);
        for before in self.rules.entries.iter().take(to).skip(at) {
            if worlds.is_empty() {
                break;
            }
            self.spend()?;
            let all_true = Dim::ALL.into_iter().zip(before.atoms).zip(entry.atoms.iter().enumerate()).all(
                |((dim, atom), (place, own))| {
                    let of_other = with
                        .filter(|(_, need)| dim.need() != *need)
                        .and_then(|(other, _)| other.atoms.get(place).copied().flatten());
                    atom.is_none() || !self.is_open(dim) || atom == *own || atom == of_other
                },
            );
            if all_true && !worlds.and(before.worlds).is_empty() && self.can_match(before) {
                worlds = worlds.without(before.worlds);
            }
        }
        Ok(worlds)
    }

    /// Whether it depends on what `need` obtains.
    fn hangs_on(&self, entry: &Entry, need: Need) -> bool {
        let by_worlds = !self.possible.without(entry.worlds).is_empty()
            && match need {
                Need::Given => self.possible.spans_l4(),
                Need::FirstBytes => self.possible.spans_first_bytes(),
                Need::Time | Need::Device | Need::Dest | Need::Cert => false,
            };
        by_worlds || self.open(entry).any(|dim| dim.need() == need)
    }

    /// The possible worlds that differ from one of these by what `need` obtains, and these themselves.
    fn reach(&self, worlds: Worlds, need: Need) -> Worlds {
        self.possible.and(match need {
            Need::Given => worlds.any_l4(),
            Need::FirstBytes => worlds.any_first_bytes(),
            Need::Time | Need::Device | Need::Dest | Need::Cert => worlds,
        })
    }
}
