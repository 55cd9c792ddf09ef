//! Decisions: rules and a connection made from the input, its facts revealed in some order. A verdict is the one that a
//! naive evaluation gives with everything known, and nothing that is learnt later changes it.
#![no_main]

use std::net::IpAddr;
use std::sync::Arc;

use calamary::decide;
use decide::list::{List, ListBuilder, Source};
use decide::name::NamePattern;
use decide::rules::{
    AddrValue, EchValue, FieldSpec, L3, Locals, NameValue, PortRange, RuleSpec, Ruleset, Term, UserValue,
};
use decide::why::{Outcome, explain};
use decide::request::{PathValue, normalise_path};
use decide::{Action, Cert, Decision, Ech, Facts, Known, L4, L5, L7, Need, RuleId, Verdict};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The same evaluation as in the unit tests; it reaches everything as `crate::decide`.
#[path = "../../src/decide/tests/oracle.rs"]
mod oracle;

const MAX_RULES: usize = 12;
const MAX_FIELDS: usize = 4;
const MAX_TERMS: usize = 4;

const ADDRS: [&str; 10] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.1.0.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8:1::1",
    "127.0.0.1",
    "224.0.0.1",
    "203.0.113.1",
];
const NETS: [&str; 9] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.1/32",
    "10.0.0.2/31",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
];
const NAMES: [&str; 5] = ["a.test", "b.test", "www.a.test", "test", "other.example"];
const PATTERNS: [&str; 7] =
    ["a.test", "*.a.test", ".a.test", "*.test", ".test", "other.example", "none.example"];
const TIMES: [&str; 3] = ["mon-12:00", "sat-12:00", "sun-23:30"];
const WINDOWS: [&str; 4] = ["sat-sun", "22:00-06:00", "mon-fri 08:00-18:00", "sun 23:00-01:00"];
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const DEVICES: [&str; 2] = ["tv", "unknown"];
const USERS: [&str; 3] = ["alice", "Bob", "\u{c4}nne"];
const PATHS: [&str; 5] = ["/", "/*", "/ads", "/ads/*", "/%61ds/../ads"];
const PORTS: [u16; 5] = [0, 22, 80, 443, 4128];
/// This machine's.
const OWN_ADDR: &str = "203.0.113.1";
const OWN_PORT: u16 = 4128;

fuzz_target!(|data: &[u8]| {
    // Input that ends early is no case.
    let _ = check(&mut Unstructured::new(data));
});

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let specs = vec_of(u, MAX_RULES, rule)?;
    let truth = connection(u)?;
    let locals = Locals {
        addrs: vec![OWN_ADDR.parse().unwrap()],
        tcp_ports: if u.arbitrary()? { vec![OWN_PORT] } else { vec![] },
        allow_local: u.arbitrary()?,
    };
    let rules = Ruleset::new(specs.clone());
    everything_known(&rules, &specs, &truth, &locals);
    bit_by_bit(&rules, &specs, &truth, &locals, u)
}

fn everything_known(rules: &Ruleset, specs: &[RuleSpec], truth: &Facts, locals: &Locals) {
    let want = oracle::verdict(specs, truth, locals, false);
    assert_eq!(rules.decide(truth, locals), Decision::Verdict(want), "{specs:#?}\n{truth:?}\n{locals:?}");
    if let RuleId::Index(index) = want.rule {
        assert!(!rules.never_matches(usize::from(index)));
    }
    let why = explain(rules, truth, locals);
    let first = why.lines.iter().find(|line| line.outcome == Outcome::Match);
    assert_eq!(first.map_or(RuleId::Default, |line| line.rule), want.rule, "{why}");
    assert!(why.hangs_on.is_empty());
}

/// Facts come as they are asked for, with others in between.
fn bit_by_bit(
    rules: &Ruleset,
    specs: &[RuleSpec],
    truth: &Facts,
    locals: &Locals,
    u: &mut Unstructured<'_>,
) -> Result<()> {
    let mut facts = Facts::default();
    let mut given: Option<Verdict> = None;
    loop {
        for _ in 0..u.int_in_range(0..=3)? {
            reveal_one(u.int_in_range(0..=13)?, &mut facts, truth);
        }
        let told = || format!("{specs:#?}\n{locals:?}\nknown {facts:?}\ntruth {truth:?}");
        let decision = rules.decide(&facts, locals);
        assert_eq!(explain(rules, &facts, locals).decision, decision);
        match (given, decision) {
            (None, Decision::Verdict(verdict)) => {
                // A redirect does not wait for an address, and is not taken back for one.
                let want = oracle::verdict(specs, truth, locals, facts.dest.is_unknown());
                assert_eq!(essence(verdict), essence(want), "{verdict:?} {want:?}\n{}", told());
                if verdict.action == Action::Redirect && facts.dest.is_unknown() {
                    return Ok(());
                }
                given = Some(verdict);
            }
            (None, Decision::Need(need)) => {
                let before = facts.clone();
                obtain(need, &mut facts, truth);
                assert_ne!(before, facts, "{need:?} was known\n{specs:#?}");
                continue;
            }
            (Some(given), decision) => {
                let Decision::Verdict(now) = decision else {
                    panic!("{given:?} became {decision:?}\n{}", told())
                };
                assert_eq!(essence(now), essence(given), "{}", told());
            }
        }
        if facts == *truth {
            return Ok(());
        }
        for place in 0..14 {
            let before = facts.clone();
            reveal_one(place, &mut facts, truth);
            if facts != before {
                break;
            }
        }
    }
}

/// Denied is denied, by whatever rule.
fn essence(verdict: Verdict) -> Option<(Action, RuleId)> {
    (verdict.action != Action::Deny).then_some((verdict.action, verdict.rule))
}

fn obtain(need: Need, facts: &mut Facts, truth: &Facts) {
    match need {
        Need::Given => {
            (facts.src, facts.sport, facts.l4) = (truth.src, truth.sport, truth.l4);
            facts.user = truth.user.clone();
        }
        Need::Time => facts.time = truth.time,
        Need::Device => {
            facts.mac = truth.mac;
            facts.device = truth.device.clone();
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

fn reveal_one(place: usize, facts: &mut Facts, truth: &Facts) {
    match place {
        0 => facts.src = truth.src,
        1 => facts.sport = truth.sport,
        2 => facts.dest = truth.dest,
        3 => facts.port = truth.port,
        4 => facts.l4 = truth.l4,
        5 => {
            facts.l5 = truth.l5;
            obtain_request(facts, truth);
        }
        6 => facts.name = truth.name.clone(),
        7 => facts.ech = truth.ech,
        8 => facts.user = truth.user.clone(),
        9 => facts.time = truth.time,
        10 => facts.mac = truth.mac,
        11 => facts.device = truth.device.clone(),
        12 => facts.cert = truth.cert,
        _ => facts.esni = truth.esni,
    }
}

/// Facts that can be true together.
fn connection(u: &mut Unstructured<'_>) -> Result<Facts> {
    let (l4, l5) = *u.choose(&[
        (L4::Tcp, L5::Tls),
        (L4::Tcp, L5::Http),
        (L4::Tcp, L5::Dns),
        (L4::Tcp, L5::None),
        (L4::Udp, L5::Quic),
        (L4::Udp, L5::Dns),
        (L4::Udp, L5::Ntp),
        (L4::Udp, L5::None),
    ])?;
    let hello = l5.is_encrypted();
    Ok(Facts {
        l7: or_absent(u, |u| Ok(*u.choose(&[L7::Http, L7::H2, L7::None])?))?,
        host: or_absent(u, |u| Ok(Box::from(*u.choose(&NAMES)?)))?,
        path: or_absent(u, |u| Ok(normalise_path(u.choose(&PATHS)?)))?,
        src: Known::Is(addr(u)?),
        sport: Known::Is(*u.choose(&PORTS)?),
        dest: or_absent(u, addr)?,
        port: or_absent(u, |u| Ok(*u.choose(&PORTS)?))?,
        l4: Known::Is(l4),
        l5: Known::Is(l5),
        name: or_absent(u, |u| Ok(Box::from(*u.choose(&NAMES)?)))?,
        user: or_absent(u, |u| Ok(Box::from(*u.choose(&USERS)?)))?,
        ech: if hello { Known::Is(*u.choose(&[Ech::None, Ech::Grease, Ech::Real])?) } else { Known::Absent },
        time: Known::Is(u.choose(&TIMES)?.parse().unwrap()),
        mac: or_absent(u, |u| Ok(u.choose(&MACS)?.parse().unwrap()))?,
        device: Known::Is(Box::from(*u.choose(&DEVICES)?)),
        esni: if hello { Known::Is(u.arbitrary()?) } else { Known::Absent },
        cert: if hello { Known::Is(cert(u)?) } else { Known::Absent },
    })
}

fn rule(u: &mut Unstructured<'_>) -> Result<RuleSpec> {
    let action = *u.choose(&[Action::Accept, Action::Deny, Action::Redirect, Action::Intercept])?;
    Ok(RuleSpec { action, fields: vec_of(u, MAX_FIELDS, field)? })
}

fn field(u: &mut Unstructured<'_>) -> Result<FieldSpec> {
    Ok(match u.int_in_range(0..=18)? {
        0 => FieldSpec::Src(terms(u, addr_value)?),
        1 => FieldSpec::Dest(terms(u, addr_value)?),
        2 => FieldSpec::Port(terms(u, port_range)?),
        3 => FieldSpec::Sport(terms(u, port_range)?),
        4 => FieldSpec::ProtoL3(terms(u, |u| Ok(*u.choose(&[L3::Ip4, L3::Ip6])?))?),
        5 => FieldSpec::ProtoL4(terms(u, |u| Ok(*u.choose(&[L4::Tcp, L4::Udp])?))?),
        6 => FieldSpec::ProtoL5(terms(u, |u| {
            Ok(*u.choose(&[L5::Tls, L5::Http, L5::Quic, L5::Dns, L5::Ntp, L5::None])?)
        })?),
        7 => FieldSpec::Encrypted(terms(u, |u| u.arbitrary())?),
        8 => FieldSpec::Esni(terms(u, |u| u.arbitrary())?),
        9 => FieldSpec::Ech(terms(u, |u| {
            Ok(*u.choose(&[EchValue::None, EchValue::Grease, EchValue::Real, EchValue::Any])?)
        })?),
        10 => FieldSpec::User(terms(u, user_value)?),
        11 => FieldSpec::Time(terms(u, |u| Ok(u.choose(&WINDOWS)?.parse().unwrap()))?),
        12 => FieldSpec::Mac(terms(u, |u| Ok(u.choose(&MACS)?.parse().unwrap()))?),
        13 => FieldSpec::Device(terms(u, |u| Ok(Box::from(*u.choose(&DEVICES)?)))?),
        14 => FieldSpec::ProtoL7(terms(u, |u| Ok(*u.choose(&[L7::Http, L7::H2, L7::None])?))?),
        15 => FieldSpec::Host(terms(u, name_value)?),
        16 => FieldSpec::Path(terms(u, |u| Ok(PathValue::parse(u.choose(&PATHS)?).unwrap()))?),
        17 => FieldSpec::Cert(terms(u, cert)?),
        _ => FieldSpec::Dns(terms(u, name_value)?),
    })
}

/// At least one, as the configuration has it.
fn terms<'a, T>(
    u: &mut Unstructured<'a>,
    mut value: impl FnMut(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<Term<T>>> {
    let count = u.int_in_range(1..=MAX_TERMS)?;
    (0..count).map(|_| Ok(Term { negated: u.arbitrary()?, value: value(u)? })).collect()
}

fn addr(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    Ok(u.choose(&ADDRS)?.parse().unwrap())
}

fn addr_value(u: &mut Unstructured<'_>) -> Result<AddrValue> {
    Ok(match u.ratio(1, 4)? {
        true => AddrValue::List(list(u)?),
        false => AddrValue::Net(u.choose(&NETS)?.parse().unwrap()),
    })
}

fn name_value(u: &mut Unstructured<'_>) -> Result<NameValue> {
    Ok(match u.int_in_range(0..=5)? {
        0 => NameValue::None,
        1 => NameValue::List(list(u)?),
        _ => NameValue::Pattern(NamePattern::parse(u.choose(&PATTERNS)?).unwrap()),
    })
}

fn user_value(u: &mut Unstructured<'_>) -> Result<UserValue> {
    Ok(match u.ratio(1, 4)? {
        true => UserValue::None,
        false => UserValue::name(u.choose(&USERS)?),
    })
}

fn cert(u: &mut Unstructured<'_>) -> Result<Cert> {
    Ok(*u.choose(&[Cert::Valid, Cert::Invalid, Cert::Unknown])?)
}

fn list(u: &mut Unstructured<'_>) -> Result<Arc<List>> {
    let source = if u.arbitrary()? { Source::Inline } else { Source::File("list.txt".into()) };
    let mut builder = ListBuilder::new("list".into(), source);
    for line in 0..u.int_in_range(0..=3)? {
        builder.net(u.choose(&NETS)?.parse().unwrap(), line);
        builder.name(&NamePattern::parse(u.choose(&PATTERNS)?).unwrap(), line);
    }
    Ok(Arc::new(builder.build()))
}

fn port_range(u: &mut Unstructured<'_>) -> Result<PortRange> {
    let (a, b) = (*u.choose(&PORTS)?, *u.choose(&PORTS)?);
    Ok(PortRange { from: a.min(b), to: a.max(b) })
}

fn or_absent<'a, T>(
    u: &mut Unstructured<'a>,
    value: impl FnOnce(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Known<T>> {
    Ok(if u.ratio(1, 8)? { Known::Absent } else { Known::Is(value(u)?) })
}

fn vec_of<'a, T>(
    u: &mut Unstructured<'a>,
    most: usize,
    item: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|_| item(u)).collect()
}
