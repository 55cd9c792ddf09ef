//! Random rules over small universes, all completions of what is known enumerated, facts arriving in random order.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Action, Cert, Decision, Ech, Facts, Known, L4, L5, L7, Need, RuleId, Verdict, field, oracle};
use crate::decide::device::{Mac, UNKNOWN};
use crate::decide::rules::{FieldSpec, Locals, RuleSpec, Ruleset};
use crate::decide::week::WeekTime;
use crate::decide::why::{Outcome, explain};
use crate::sys::testing::rounds;

/// SplitMix64: small, and the same cases every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Fields of which each asks something of its own: in `UNIVERSE`, every combination of their answers exists. So the walk,
/// which takes them as independent, must be exact.
const INDEPENDENT: &[&[&str]] = &[
    &["src=10.9.0.1"],
    &["sport=5001"],
    &["user=alice"],
    &["time=sat-sun"],
    &["mac=02:00:00:00:00:01"],
    &["device=tv"],
    &["port=1001 1003"],
    &["dest=10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.7", "dest=10.0.0.2 10.0.0.3 10.0.0.6 10.0.0.7"],
    &["dns=n1.test n3.test", "dns=n2.test n3.test"],
    &["protoL7=http"],
    &["host=h1.test"],
    &["path=/p1"],
    &["cert=invalid"],
    WORLDS,
];

const WORLDS: &[&str] = &[
    "protoL4=tcp",
    "protoL4=udp",
    "protoL4=!tcp",
    "protoL5=tls",
    "protoL5=http none",
    "protoL5=!tls !quic",
    "protoL5=quic dns",
    "protoL5=dns",
    "protoL5=none",
    "encrypted=yes",
    "encrypted=no",
    "esni=yes",
    "esni=!yes",
    "ech=real",
    "ech=any",
    "ech=!any",
    "ech=grease none",
];

/// Fields whose answers hang together.
const CORRELATED: &[&[&str]] = &[
    &["src=10.9.0.0/24", "src=!10.9.0.1", "src=10.9.0.1 10.9.0.0"],
    &["sport=5001", "sport=!5001", "sport=5000-5001"],
    &[
        "user=alice",
        "user=!alice",
        "user=none",
        "user=!none",
        "user=none Alice",
        "user=alice !bob",
        "user=bob none !none",
    ],
    &["time=sat-sun", "time=!sat-sun", "time=22:00-06:00", "time=mon-fri !08:00-18:00"],
    &["mac=02:00:00:00:00:01", "mac=!02:00:00:00:00:01"],
    &["device=tv", "device=!tv", "device=unknown", "device=tv unknown"],
    &["port=1001 1003", "port=!1001", "port=1000-1002 !1001", "port=1-999"],
    &[
        "dest=10.0.0.0/30",
        "dest=10.0.0.2/31",
        "dest=!10.0.0.0/30",
        "dest=10.0.0.0/29 !10.0.0.1",
        "dest=2001:db8::/32",
    ],
    &["protoL3=ip4", "protoL3=ip6", "protoL3=!ip4", "protoL3=ip4 ip6"],
    &[
        "dns=none",
        "dns=!none",
        "dns=.test",
        "dns=!n1.test",
        "dns=*.test !n2.test",
        "dns=none n1.test",
        "dns=n3.test",
    ],
    &["protoL7=http", "protoL7=!http", "protoL7=h2 none", "protoL7=none"],
    &["host=none", "host=!none", "host=.test", "host=!h1.test", "host=none h1.test"],
    &["path=/p1", "path=/p*", "path=!/p1", "path=/* !/p1"],
    &["cert=valid", "cert=invalid", "cert=!valid", "cert=invalid unknown", "cert=!invalid !unknown"],
    WORLDS,
];

/// Ways to turn out that are looked at: all of them together may take more memory than a 32-bit process has.
const MOST_COMPLETIONS: usize = 1 << 15;

/// Every value of one fact.
type Values<T> = Vec<Known<T>>;

#[derive(Clone)]
struct Universe {
    src: Values<IpAddr>,
    sport: Values<u16>,
    user: Values<Box<str>>,
    time: Values<WeekTime>,
    mac: Values<Mac>,
    device: Values<Box<str>>,
    port: Values<u16>,
    dest: Values<IpAddr>,
    name: Values<Box<str>>,
    l7: Values<L7>,
    host: Values<Box<str>>,
    path: Values<Box<str>>,
    /// Of a ClientHello's server.
    cert: Values<Cert>,
    /// l4, l5, ech, esni: what can come to be.
    worlds: Vec<(L4, L5, Known<Ech>, Known<bool>)>,
}

impl Universe {
    fn new(independent: bool) -> Universe {
        let addr = |text: String| Known::Is(text.parse().unwrap());
        let mut dest: Values<IpAddr> = (0..8).map(|b| addr(format!("10.0.0.{b}"))).collect();
        dest.push(Known::Absent);
        if !independent {
            dest.extend(["2001:db8::1", "127.0.0.1", "224.0.0.1"].map(|text| addr(text.into())));
        }
        let mut worlds = Vec::new();
        for (l4, l5s) in [
            (L4::Tcp, [L5::Tls, L5::Http, L5::Dns, L5::None]),
            (L4::Udp, [L5::Quic, L5::Ntp, L5::Dns, L5::None]),
        ] {
            for l5 in l5s {
                if !matches!(l5, L5::Tls | L5::Quic) {
                    worlds.push((l4, l5, Known::Absent, Known::Absent));
                    continue;
                }
                for ech in [Ech::None, Ech::Grease, Ech::Real] {
                    worlds.extend([false, true].map(|esni| (l4, l5, Known::Is(ech), Known::Is(esni))));
                }
            }
        }
        Universe {
            src: (0..2).map(|b| addr(format!("10.9.0.{b}"))).collect(),
            sport: vec![Known::Is(5000), Known::Is(5001)],
            user: if independent {
                vec![Known::Is("alice".into()), Known::Absent]
            } else {
                vec![Known::Is("Alice".into()), Known::Is("bob".into()), Known::Absent]
            },
            time: ["mon-12:00", "sat-12:00", "sat-23:00"].map(|time| Known::Is(time.parse().unwrap())).into(),
            mac: vec![Known::Is(Mac([2, 0, 0, 0, 0, 1])), Known::Absent],
            device: vec![Known::Is("tv".into()), Known::Is(UNKNOWN.into())],
            port: (1000..1004).map(Known::Is).chain([Known::Absent]).collect(),
            dest,
            cert: [Cert::Valid, Cert::Invalid, Cert::Unknown].map(Known::Is).into(),
            name: (0..4).map(|b| Known::Is(format!("n{b}.test").into())).chain([Known::Absent]).collect(),
            l7: if independent {
                vec![Known::Is(L7::Http), Known::Is(L7::H2)]
            } else {
                vec![Known::Is(L7::Http), Known::Is(L7::H2), Known::Is(L7::None), Known::Absent]
            },
            host: vec![Known::Is("h0.test".into()), Known::Is("h1.test".into()), Known::Absent],
            path: vec![Known::Is("/p0".into()), Known::Is("/p1".into()), Known::Absent],
            worlds,
        }
    }

    /// Half of the addresses are this machine's, half of the ports our listeners', in every combination with the rest.
    fn locals(random: &mut Random) -> Locals {
        let addrs =
            if random.one_in(4) { vec![] } else { (4..8).map(|b| IpAddr::from([10, 0, 0, b])).collect() };
        let tcp_ports = if random.one_in(2) { vec![1002, 1003] } else { vec![] };
        Locals { addrs, tcp_ports, allow_local: random.one_in(2) }
    }

    fn any(&self, random: &mut Random) -> Facts {
        let (l4, l5, ech, esni) = *random.pick(&self.worlds);
        Facts {
            src: *random.pick(&self.src),
            sport: *random.pick(&self.sport),
            user: random.pick(&self.user).clone(),
            time: *random.pick(&self.time),
            mac: *random.pick(&self.mac),
            device: random.pick(&self.device).clone(),
            dest: *random.pick(&self.dest),
            port: *random.pick(&self.port),
            name: random.pick(&self.name).clone(),
            l7: *random.pick(&self.l7),
            host: random.pick(&self.host).clone(),
            path: random.pick(&self.path).clone(),
            l4: Known::Is(l4),
            l5: Known::Is(l5),
            ech,
            esni,
            cert: if l5.is_encrypted() { *random.pick(&self.cert) } else { Known::Absent },
        }
    }

    /// Every way in which the unknown facts can turn out, and that it is every one; where those are more than
    /// [`MOST_COMPLETIONS`], some of them, drawn by lot.
    fn completions(&self, known: &Facts) -> (Vec<Facts>, bool) {
        fn step<T: Clone + PartialEq>(
            every: &mut bool,
            mut from: Vec<Facts>,
            values: &[Known<T>],
            fact: impl Fn(&mut Facts) -> &mut Known<T>,
        ) -> Vec<Facts> {
            let (keep, of) = (MOST_COMPLETIONS / values.len(), from.len());
            if of > keep {
                *every = false;
                let random = &mut Random(u64::try_from(of).unwrap());
                from.retain(|_| random.below(of) < keep);
            }
            let mut out = Vec::new();
            for mut facts in from {
                if !fact(&mut facts).is_unknown() {
                    out.push(facts);
                    continue;
                }
                for value in values {
                    let mut facts = facts.clone();
                    *fact(&mut facts) = value.clone();
                    out.push(facts);
                }
            }
            out
        }
        let every = &mut true;
        let fits = |fact: bool, unknown: bool| fact || unknown;
        let mut out: Vec<Facts> = self
            .worlds
            .iter()
            .filter(|(l4, l5, ech, esni)| {
                fits(known.l4 == Known::Is(*l4), known.l4.is_unknown())
                    && fits(known.l5 == Known::Is(*l5), known.l5.is_unknown())
                    && fits(known.ech == *ech, known.ech.is_unknown())
                    && fits(known.esni == *esni, known.esni.is_unknown())
            })
            .map(|(l4, l5, ech, esni)| Facts {
                l4: Known::Is(*l4),
                l5: Known::Is(*l5),
                ech: *ech,
                esni: *esni,
                ..known.clone()
            })
            .collect();
        out = step(every, out, &self.src, |f| &mut f.src);
        out = step(every, out, &self.sport, |f| &mut f.sport);
        out = step(every, out, &self.user, |f| &mut f.user);
        out = step(every, out, &self.time, |f| &mut f.time);
        out = step(every, out, &self.mac, |f| &mut f.mac);
        out = step(every, out, &self.device, |f| &mut f.device);
        out = step(every, out, &self.port, |f| &mut f.port);
        out = step(every, out, &self.dest, |f| &mut f.dest);
        out = step(every, out, &self.l7, |f| &mut f.l7);
        out = step(every, out, &self.host, |f| &mut f.host);
        out = step(every, out, &self.path, |f| &mut f.path);
        out = step(every, out, &self.name, |f| &mut f.name);
        // Without a ClientHello it does not matter, and whether there is one is not for this fact to say.
        out = step(every, out, &self.cert, |f| &mut f.cert);
        (out, *every)
    }

    /// The same without the values of facts that no rule asks: they only cost time.
    fn for_rules(&self, rules: &[RuleSpec]) -> Universe {
        let asked = |is: fn(&FieldSpec) -> bool| rules.iter().flat_map(|rule| &rule.fields).any(is);
        let mut out = self.clone();
        if !asked(|f| matches!(f, FieldSpec::Src(_))) {
            out.src.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Sport(_))) {
            out.sport.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::User(_))) {
            out.user.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Time(_))) {
            out.time.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Mac(_))) {
            out.mac.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Device(_))) {
            out.device.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Dns(_))) {
            out.name.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::ProtoL7(_) | FieldSpec::Host(_) | FieldSpec::Path(_))) {
            out.l7.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Host(_))) {
            out.host.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Path(_))) {
            out.path.truncate(1);
        }
        if !asked(|f| matches!(f, FieldSpec::Cert(_))) {
            out.cert.truncate(1);
        }
        out
    }
}

fn random_rules(random: &mut Random, pool: &[&[&str]]) -> Vec<RuleSpec> {
    let rule = |random: &mut Random| {
        let action =
            *random.pick(&[Action::Accept, Action::Intercept, Action::Deny, Action::Deny, Action::Redirect]);
        let count = *random.pick(&[0, 1, 1, 1, 2, 2, 3]);
        // Rules are ANDed over different facts; two conditions on one fact would be a predicate of its own.
        let mut kinds: Vec<usize> = (0..pool.len()).collect();
        let fields = (0..count).map(|_| {
            let kind = kinds.swap_remove(random.below(kinds.len()));
            let text: &str = random.pick::<&str>(pool[kind]);
            field(text)
        });
        RuleSpec { action, fields: fields.collect() }
    };
    (0..1 + random.below(6)).map(|_| rule(random)).collect()
}

/// The facts that `need` obtains, moved from `truth`.
fn obtain(facts: &mut Facts, truth: &Facts, need: Need) {
    match need {
        Need::Given => {
            (facts.src, facts.sport, facts.l4) = (truth.src, truth.sport, truth.l4);
            facts.user = truth.user.clone();
        }
        Need::Time => facts.time = truth.time,
        Need::Device => {
            (facts.mac, facts.device) = (truth.mac, truth.device.clone());
        }
        Need::FirstBytes => {
            (facts.l5, facts.ech, facts.esni, facts.port) = (truth.l5, truth.ech, truth.esni, truth.port);
            facts.name = truth.name.clone();
            obtain_request(facts, truth);
        }
        Need::Dest => facts.dest = truth.dest,
        Need::Cert => facts.cert = truth.cert,
    }
}

/// It comes with the first bytes.
fn obtain_request(facts: &mut Facts, truth: &Facts) {
    (facts.l7, facts.host, facts.path) = (truth.l7, truth.host.clone(), truth.path.clone());
}

/// Some facts of `truth`, as they may be known at any time.
fn some_known(random: &mut Random, truth: &Facts) -> Facts {
    let mut facts = Facts::default();
    if !random.one_in(6) {
        obtain(&mut facts, truth, Need::Given);
    }
    if random.one_in(3) {
        facts.time = truth.time;
    }
    if random.one_in(2) {
        facts.dest = truth.dest;
    }
    if !random.one_in(4) {
        facts.port = truth.port;
    }
    if random.one_in(8) {
        facts.name = truth.name.clone();
    }
    if random.one_in(4) {
        facts.l5 = truth.l5;
        obtain_request(&mut facts, truth);
        if random.one_in(2) {
            facts.ech = truth.ech;
        }
    }
    if random.one_in(6) {
        facts.l4 = truth.l4;
        facts.src = truth.src;
    }
    facts
}

/// What counts as the same verdict: denied is denied, by whatever rule.
fn essence(verdict: Verdict) -> Option<(Action, RuleId)> {
    (verdict.action != Action::Deny).then_some((verdict.action, verdict.rule))
}

/// Whether two completions that agree on everything outside what `need` obtains have different verdicts.
fn can_change(completions: &[Facts], need: Need, verdict: impl Fn(&Facts) -> Verdict) -> bool {
    let mut by_rest: HashMap<String, Option<(Action, RuleId)>> = HashMap::new();
    for facts in completions {
        let mut rest = facts.clone();
        obtain(&mut rest, &Facts::default(), need);
        let essence = essence(verdict(facts));
        if *by_rest.entry(format!("{rest:?}")).or_insert(essence) != essence {
            return true;
        }
    }
    false
}

/// One set of rules and one connection whose facts arrive as they are asked for, with others in between. Returns the
/// needs that were looked at.
fn follow(random: &mut Random, universe: &Universe, specs: &[RuleSpec], exact: bool) -> usize {
    let rules = Ruleset::new(specs.to_vec());
    let locals = Universe::locals(random);
    let universe = universe.for_rules(specs);
    let truth = universe.any(random);
    let mut facts = some_known(random, &truth);
    let mut needs = 0;
    loop {
        let dest_open = facts.dest.is_unknown();
        let verdict = |facts: &Facts| oracle::verdict(specs, facts, &locals, dest_open);
        let told = || format!("{specs:#?}\n{locals:?}\nknown {facts:?}\ntruth {truth:?}");
        let (completions, every) = universe.completions(&facts);
        let given = match rules.decide(&facts, &locals) {
            Decision::Verdict(given) => given,
            Decision::Need(need) => {
                needs += usize::from(every);
                assert!(
                    !(exact && every) || can_change(&completions, need, verdict),
                    "needless {need:?}\n{}",
                    told()
                );
                let before = facts.clone();
                obtain(&mut facts, &truth, need);
                assert_ne!(before, facts, "{need:?} was known\n{specs:#?}");
                if random.one_in(4) {
                    facts.dest = truth.dest;
                }
                continue;
            }
        };
        for complete in &completions {
            assert_eq!(essence(given), essence(verdict(complete)), "{given:?} {complete:?}\n{}", told());
        }
        if completions.len() == 1 && facts == truth {
            assert_eq!(given, verdict(&truth), "{}", told());
        }
        return needs;
    }
}

#[test]
fn no_fact_is_asked_in_vain_and_no_verdict_is_wrong() {
    let random = &mut Random(1);
    let universe = Universe::new(true);
    let rounds = rounds(3000);
    let needs: usize = (0..rounds)
        .map(|_| {
            let specs = random_rules(random, INDEPENDENT);
            follow(random, &universe, &specs, true)
        })
        .sum();
    assert!(needs > rounds / 3, "{needs} needs are no test");
}

#[test]
fn verdicts_hold_where_fields_hang_together() {
    let random = &mut Random(2);
    let universe = Universe::new(false);
    for _ in 0..rounds(4000) {
        let specs = random_rules(random, CORRELATED);
        follow(random, &universe, &specs, false);
    }
}

#[test]
fn everything_known_is_the_plain_meaning() {
    let random = &mut Random(3);
    let universe = Universe::new(false);
    for _ in 0..rounds(20_000) {
        let specs = random_rules(random, CORRELATED);
        let (truth, locals) = (universe.any(random), Universe::locals(random));
        let want = Decision::Verdict(oracle::verdict(&specs, &truth, &locals, false));
        let rules = Ruleset::new(specs.clone());
        let told = || format!("{specs:#?}\n{truth:?}\n{locals:?}");
        assert_eq!(rules.decide(&truth, &locals), want, "{}", told());
        // The explanation, which looks at the fields by itself, finds the same rule.
        let lines = explain(&rules, &truth, &locals).lines;
        let first = lines
            .iter()
            .find(|line| line.outcome == Outcome::Match)
            .map_or(RuleId::Default, |line| line.rule);
        assert!(matches!(want, Decision::Verdict(verdict) if verdict.rule == first), "{first:?}\n{}", told());
    }
}
