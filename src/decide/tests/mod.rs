//! Tests of the walk: tables here, properties against a naive oracle in `properties`.

mod oracle;
mod properties;

use std::net::IpAddr;
use std::sync::Arc;

use super::list::{List, ListBuilder, Source};
use super::name::NamePattern;
use super::request::PathValue;
use super::rules::{
    AddrValue, EchValue, FieldSpec, L3, Locals, MAX_RULES, NameValue, PortRange, RuleSpec, Ruleset, Term,
    UserValue,
};
use super::{Action, Cert, Decision, Ech, Facts, Known, L4, L5, L7, Need, Observed, RuleId, Verdict};

/// `a !b` as terms.
pub(super) fn terms<T>(text: &str, value: impl Fn(&str) -> T) -> Vec<Term<T>> {
    let term = |word: &str| match word.strip_prefix('!') {
        Some(rest) => Term { negated: true, value: value(rest) },
        None => Term { negated: false, value: value(word) },
    };
    text.split_whitespace().map(term).collect()
}

fn net(text: &str) -> AddrValue {
    AddrValue::Net(text.parse().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into()))
}

fn range(text: &str) -> PortRange {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    PortRange { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn l5(text: &str) -> L5 {
    [
        ("tls", L5::Tls),
        ("http", L5::Http),
        ("quic", L5::Quic),
        ("dns", L5::Dns),
        ("ntp", L5::Ntp),
        ("none", L5::None),
    ]
    .into_iter()
    .find(|(name, _)| *name == text)
    .unwrap()
    .1
}

fn name(text: &str) -> NameValue {
    if text == "none" { NameValue::None } else { NameValue::Pattern(NamePattern::parse(text).unwrap()) }
}

/// One field in the form of `dest=10.0.0.0/8 !10.1.0.0/16`.
pub(super) fn field(text: &str) -> FieldSpec {
    let (key, values) = text.split_once('=').unwrap();
    match key {
        "src" => FieldSpec::Src(terms(values, net)),
        "dest" => FieldSpec::Dest(terms(values, net)),
        "port" => FieldSpec::Port(terms(values, range)),
        "sport" => FieldSpec::Sport(terms(values, range)),
        "protoL3" => FieldSpec::ProtoL3(terms(values, |v| if v == "ip4" { L3::Ip4 } else { L3::Ip6 })),
        "protoL4" => FieldSpec::ProtoL4(terms(values, |v| if v == "tcp" { L4::Tcp } else { L4::Udp })),
        "protoL5" => FieldSpec::ProtoL5(terms(values, l5)),
        "encrypted" => FieldSpec::Encrypted(terms(values, |v| v == "yes")),
        "esni" => FieldSpec::Esni(terms(values, |v| v == "yes")),
        "ech" => FieldSpec::Ech(terms(values, |v| match v {
            "none" => EchValue::None,
            "grease" => EchValue::Grease,
            "real" => EchValue::Real,
            _ => EchValue::Any,
        })),
        "cert" => FieldSpec::Cert(terms(values, |v| match v {
            "valid" => Cert::Valid,
            "invalid" => Cert::Invalid,
            _ => Cert::Unknown,
        })),
        "dns" => FieldSpec::Dns(terms(values, name)),
        "host" => FieldSpec::Host(terms(values, name)),
        "path" => FieldSpec::Path(terms(values, |v| PathValue::parse(v).unwrap())),
        "protoL7" => FieldSpec::ProtoL7(terms(values, |v| match v {
            "http" => L7::Http,
            "h2" => L7::H2,
            _ => L7::None,
        })),
        "user" => FieldSpec::User(terms(values, |v| match v {
            "none" => UserValue::None,
            name => UserValue::name(name),
        })),
        "time" => FieldSpec::Time(terms(values, |v| v.parse().unwrap())),
        "mac" => FieldSpec::Mac(terms(values, |v| v.parse().unwrap())),
        "device" => FieldSpec::Device(terms(values, |v| v.into())),
        _ => panic!("{key}"),
    }
}

/// Rules in the form of `deny port=80, dns=a b; accept`.
pub(super) fn rules(text: &str) -> Vec<RuleSpec> {
    let rule = |text: &str| {
        let (action, fields) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let action = match action {
            "accept" => Action::Accept,
            "deny" => Action::Deny,
            "redirect" => Action::Redirect,
            "intercept" => Action::Intercept,
            "observe" => Action::Observe,
            _ => panic!("{action}"),
        };
        let fields = fields.split(',').map(str::trim).filter(|f| !f.is_empty()).map(field).collect();
        RuleSpec { action, fields }
    };
    text.split(';').map(str::trim).filter(|r| !r.is_empty()).map(rule).collect()
}

fn ruleset(text: &str) -> Ruleset {
    Ruleset::new(rules(text))
}

fn accepted(index: u16) -> Decision {
    Decision::Verdict(Verdict { action: Action::Accept, rule: RuleId::Index(index) })
}

fn denied(rule: RuleId) -> Decision {
    Decision::Verdict(Verdict { action: Action::Deny, rule })
}

/// What is known at accept of a redirected TCP connection to an ordinary address, port 443.
fn at_accept() -> Facts {
    Facts {
        src: Known::Is("192.168.1.20".parse().unwrap()),
        sport: Known::Is(50000),
        dest: Known::Is("203.0.113.5".parse().unwrap()),
        port: Known::Is(443),
        l4: Known::Is(L4::Tcp),
        ..Facts::default()
    }
}

/// The same behind a proxy request for a name that is not yet resolved.
fn by_name() -> Facts {
    Facts { dest: Known::Unknown, ..at_accept() }
}

fn with_hello(facts: Facts, name: &str) -> Facts {
    let name = super::name::normalise(name.as_bytes()).map_or(Known::Absent, Known::Is);
    Facts { l5: Known::Is(L5::Tls), ech: Known::Is(Ech::Grease), esni: Known::Is(false), name, ..facts }
}

fn with_http(facts: Facts) -> Facts {
    Facts { l5: Known::Is(L5::Http), ech: Known::Absent, esni: Known::Absent, name: Known::Absent, ..facts }
}

#[track_caller]
fn check(text: &str, facts: &Facts, want: Decision) {
    assert_eq!(ruleset(text).decide(facts, &Locals::default()), want, "{text}\n{facts:?}");
}

const FIRST_BYTES: Decision = Decision::Need(Need::FirstBytes);
const DEST: Decision = Decision::Need(Need::Dest);
const DEFAULT: RuleId = RuleId::Default;

#[test]
fn observing_rules_end_nothing_and_ask_only_of_what_is_accepted() {
    let check = |text: &str, facts: &Facts, want: Decision, observed: Observed| {
        let rules = ruleset(text);
        assert_eq!(rules.decide(facts, &Locals::default()), want, "{text}");
        let Decision::Verdict(verdict) = want else { return };
        assert_eq!(rules.observe(facts, verdict), observed, "{text}");
    };
    let none = || Observed::Rules(Vec::new());
    let ads = with_hello(at_accept(), "x.ads.test");
    let text = "observe dns=.ads.test; accept port=443; observe";
    check(text, &at_accept(), accepted(1), Observed::Need(Need::FirstBytes));
    check(text, &ads, accepted(1), Observed::Rules(vec![0]));
    check(text, &with_hello(at_accept(), "other.test"), accepted(1), none());
    // Only what matches for certain is told of a denial, and a walk that ends before an observing rule has not seen it.
    check(
        "observe dns=.ads.test; observe port=443; deny",
        &at_accept(),
        denied(RuleId::Index(2)),
        Observed::Rules(vec![1]),
    );
    check("observe port=443; observe", &at_accept(), denied(DEFAULT), Observed::Rules(vec![0, 1]));
    check("observe time=sat-sun; accept", &at_accept(), accepted(1), Observed::Need(Need::Time));
    check("observe device=tv; accept", &at_accept(), accepted(1), Observed::Need(Need::Device));
    check("observe port=80 , dns=.ads.test; accept", &at_accept(), accepted(1), none());
    assert!(!ruleset("observe port=80 , dns=a.test; accept").never_matches(0));
    assert!(ruleset("observe protoL5=http, encrypted=yes").never_matches(0));
}

#[test]
fn at_accept_without_a_peek() {
    let facts = at_accept();
    check("", &facts, denied(DEFAULT));
    check("accept", &facts, accepted(0));
    check("accept port=22 443", &facts, accepted(0));
    check("deny port=!80 !443; accept port=1-1000", &facts, accepted(1));
    check("accept port=80; deny; accept", &facts, denied(RuleId::Index(1)));
    check(
        "deny src=10.0.0.0/8; accept dest=203.0.113.0/24 !203.0.113.128/25, protoL3=ip4",
        &facts,
        accepted(1),
    );
    check("accept protoL3=ip6", &facts, denied(DEFAULT));
    // The first bytes of TCP are never QUIC or NTP.
    check("deny protoL5=quic ntp; accept", &facts, accepted(1));
    check("accept protoL4=udp, dns=.example.com", &facts, denied(DEFAULT));
    // What a peek would tell is of no consequence.
    check("deny dns=.example.com; deny protoL5=http; deny", &facts, denied(RuleId::Index(0)));
    check("accept port=22; deny ech=real", &facts, denied(RuleId::Index(1)));
    check("accept protoL5=tls http dns none", &facts, accepted(0));
    check("accept encrypted=yes no", &facts, accepted(0));
}

#[test]
fn first_bytes_where_they_matter() {
    let facts = at_accept();
    check("deny dns=.example.com; accept", &facts, FIRST_BYTES);
    check("accept protoL5=tls", &facts, FIRST_BYTES);
    check("accept protoL5=tls; accept protoL5=!tls", &facts, FIRST_BYTES);
    check("deny encrypted=no; accept", &facts, FIRST_BYTES);
    // The rules passed leave tls alone, so the third matches for certain once the second does not.
    check("deny encrypted=no; deny ech=real; accept protoL5=tls", &facts, FIRST_BYTES);
    // Nothing is left for the last rule.
    check("deny encrypted=no; deny protoL5=tls; accept dns=.example.com", &facts, denied(RuleId::Index(0)));
    check("deny ech=none any; accept encrypted=yes", &facts, denied(RuleId::Index(0)));
}

#[test]
fn certificates_only_where_a_rule_with_them_is_reached() {
    const CERT: Decision = Decision::Need(Need::Cert);
    let judged = |cert| Facts { cert: Known::Is(cert), ..with_hello(at_accept(), "example.com") };
    let everywhere = "deny cert=invalid; accept";
    check(everywhere, &at_accept(), FIRST_BYTES);
    check(everywhere, &with_http(at_accept()), accepted(1));
    check(everywhere, &with_hello(at_accept(), "example.com"), CERT);
    check(everywhere, &judged(Cert::Invalid), denied(RuleId::Index(0)));
    check(everywhere, &judged(Cert::Unknown), accepted(1));
    check("accept cert=valid", &judged(Cert::Valid), accepted(0));
    check("accept cert=!valid", &judged(Cert::Valid), denied(DEFAULT));
    check("accept cert=!valid !unknown", &judged(Cert::Invalid), accepted(0));
    // Somebody else's traffic is not probed.
    let hello = with_hello(at_accept(), "example.com");
    check("accept dns=example.com; deny cert=invalid; accept", &hello, accepted(0));
    check("deny src=10.0.0.0/8, cert=invalid; accept", &hello, accepted(1));
    check("deny cert=invalid; accept port=80", &at_accept(), denied(RuleId::Index(0)));
    // What is cheaper is asked first.
    let by_name = with_hello(by_name(), "example.com");
    check("deny dest=203.0.113.0/24, cert=invalid; accept", &by_name, DEST);
    check("accept protoL5=http, cert=valid", &hello, denied(DEFAULT));
    check("accept cert=valid !valid", &hello, denied(DEFAULT));
}

#[test]
fn names() {
    let hello = |name: &str| with_hello(at_accept(), name);
    check("accept dns=www.example.com", &hello("www.example.com"), accepted(0));
    check("accept dns=www.example.com", &hello("example.com"), denied(DEFAULT));
    check("accept dns=.example.com !bad.example.com", &hello("www.example.com"), accepted(0));
    check("accept dns=.example.com !bad.example.com", &hello("bad.example.com"), denied(DEFAULT));
    check("accept dns=!.example.com", &hello("example.org"), accepted(0));
    // Without a trusted name nothing matches but none.
    check("accept dns=!.example.com", &hello(""), denied(DEFAULT));
    check("accept dns=none", &hello(""), accepted(0));
    check("accept dns=none", &hello("example.org"), denied(DEFAULT));
    check("accept dns=!none", &hello("example.org"), accepted(0));
    check("accept dns=!none", &hello(""), denied(DEFAULT));
    check("accept dns=none example.org", &hello("example.org"), accepted(0));
    check("accept dns=none example.org", &hello(""), accepted(0));
}

#[test]
fn missing_facts_match_nothing() {
    let http = with_http(at_accept());
    for field in ["ech=none", "ech=!real", "ech=any", "esni=no", "esni=!yes", "esni=yes no"] {
        check(&format!("accept {field}"), &http, denied(DEFAULT));
    }
    check("accept encrypted=no", &http, accepted(0));
    let hello = with_hello(at_accept(), "a.example");
    check("accept ech=any", &hello, accepted(0));
    check("accept ech=!real, esni=no", &hello, accepted(0));
    check("accept ech=none", &hello, denied(DEFAULT));
}

#[test]
fn destinations_that_are_not_known() {
    check("accept", &by_name(), DEST);
    check("deny", &by_name(), denied(RuleId::Index(0)));
    check("deny dest=10.0.0.0/8; accept", &by_name(), DEST);
    check("deny dest=10.0.0.0/8", &by_name(), denied(RuleId::Index(0)));
    // The name is cheaper, and can end it.
    check("accept dns=.example.com", &by_name(), FIRST_BYTES);
    check("accept dns=.example.com", &with_hello(by_name(), "example.org"), denied(DEFAULT));
    check("accept dns=.example.com", &with_hello(by_name(), "example.com"), DEST);
    check("deny dns=.a.example, dest=10.0.0.0/8; accept", &by_name(), FIRST_BYTES);
    check("deny dns=.a.example, dest=10.0.0.0/8; accept", &with_hello(by_name(), "b.example"), DEST);
    check("deny protoL5=tls, dest=10.0.0.0/8; accept", &by_name(), FIRST_BYTES);
    // Here the first bytes are of no consequence, only the address is.
    check("deny protoL5=tls, dest=10.0.0.0/8; deny dest=10.0.0.0/8; accept", &by_name(), DEST);
    let nowhere = Facts { dest: Known::Absent, ..at_accept() };
    check("accept", &nowhere, denied(RuleId::Always));
}

#[test]
fn always_comes_first() {
    let to = |dest: &str, port| Facts {
        dest: Known::Is(dest.parse().unwrap()),
        port: Known::Is(port),
        ..at_accept()
    };
    check("accept", &to("127.0.0.1", 443), denied(RuleId::Always));
    check("deny", &to("::1", 443), denied(RuleId::Always));
    check("redirect", &to("169.254.0.1", 80), denied(RuleId::Always));
    let lifted =
        Locals { addrs: vec!["192.0.2.1".parse().unwrap()], tcp_ports: vec![4130], allow_local: true };
    let rules = ruleset("accept");
    assert_eq!(rules.decide(&to("127.0.0.1", 443), &lifted), accepted(0));
    assert_eq!(rules.decide(&to("192.0.2.1", 4130), &lifted), denied(RuleId::Always));
    let no_port = Facts { port: Known::Unknown, ..to("192.0.2.1", 0) };
    assert_eq!(rules.decide(&no_port, &lifted), FIRST_BYTES);
    assert_eq!(ruleset("deny").decide(&no_port, &lifted), denied(RuleId::Index(0)));
}

#[test]
fn redirects() {
    let redirected = Decision::Verdict(Verdict { action: Action::Redirect, rule: RuleId::Index(0) });
    check("redirect", &at_accept(), FIRST_BYTES);
    check("redirect", &with_http(at_accept()), redirected);
    check("redirect", &with_http(by_name()), redirected);
    check("redirect; accept", &with_hello(at_accept(), "a.example"), denied(RuleId::Index(0)));
    check("redirect protoL5=http; accept", &with_hello(at_accept(), "a.example"), accepted(1));
    check("redirect; accept", &Facts { l4: Known::Is(L4::Udp), ..at_accept() }, denied(RuleId::Index(0)));
    check("redirect protoL5=tls; accept protoL5=tls", &at_accept(), denied(RuleId::Index(0)));
}

#[test]
fn rules_that_never_match() {
    let check = |text: &str, want: bool| assert_eq!(ruleset(text).never_matches(0), want, "{text}");
    for never in [
        "accept dest=10.0.0.0/8, protoL3=ip6",
        "accept dest=10.0.0.0/8 !10.0.0.0/8",
        "accept dest=10.0.0.0/8 !10.0.0.0/9 !10.128.0.0/9",
        "accept dest=!0.0.0.0/0 !::/0",
        "accept dest=2001:db8::/32, protoL3=!ip6",
        "accept src=192.168.0.0/16 !192.0.0.0/8",
        "accept dest=::ffff:10.0.0.0/104, protoL3=ip6",
        "accept port=80 !1-100",
        "accept sport=!0-65535",
        "accept port=80, port=443",
        "accept protoL5=tls, encrypted=no",
        "accept protoL5=http, ech=none",
        "accept protoL4=udp, protoL5=tls",
        "accept esni=yes !yes",
        "redirect protoL5=http tls !tls !http",
        "deny dns=none !none",
        "deny dns=.a.example b.example !.a.example !b.example",
    ] {
        check(never, true);
    }
    for may in [
        "accept",
        "accept dest=10.0.0.0/8 !10.1.0.0/16, protoL3=ip4",
        "accept dest=10.0.0.0/8 !10.0.0.0/9",
        "accept port=!80 !443",
        "redirect protoL5=tls",
        "accept dns=!a.example",
        "accept dns=none !a.example",
        "accept dns=.a.example b.example !b.example",
    ] {
        check(may, false);
    }
    assert!(!ruleset("").never_matches(0));
    let rules = ruleset("deny port=80 !80; accept");
    assert!(rules.never_matches(0) && !rules.never_matches(1) && !rules.never_matches(2));
    assert_eq!(rules.decide(&at_accept(), &Locals::default()), accepted(1));
}

/// A rule `deny dns: $list` with further fields.
fn deny_listed(list: &Arc<List>, more: &str) -> RuleSpec {
    let term = Term { negated: false, value: NameValue::List(list.clone()) };
    let mut spec = rules(&format!("deny {more}")).remove(0);
    spec.fields.push(FieldSpec::Dns(vec![term]));
    spec
}

/// A rule `deny dest: $list` with further fields.
fn deny_to(list: &Arc<List>, more: &str) -> RuleSpec {
    let term = Term { negated: false, value: AddrValue::List(list.clone()) };
    let mut spec = rules(&format!("deny {more}")).remove(0);
    spec.fields.push(FieldSpec::Dest(vec![term]));
    spec
}

#[test]
fn variables() {
    let list = |names: &[&str]| {
        let mut list = ListBuilder::new("list".into(), Source::Inline);
        for name in names {
            list.name(&NamePattern::parse(name).unwrap(), 1);
        }
        list.net("10.0.0.0/8".parse().unwrap(), 2);
        Arc::new(list.build())
    };
    let (ads, empty) = (list(&[".ads.example"]), list(&[]));
    let accept = || rules("accept").remove(0);
    let decide = |specs, facts: &Facts| Ruleset::new(specs).decide(facts, &Locals::default());
    let hello = with_hello(at_accept(), "www.ads.example");
    assert_eq!(decide(vec![deny_listed(&ads, ""), accept()], &hello), denied(RuleId::Index(0)));
    assert_eq!(decide(vec![deny_listed(&empty, ""), accept()], &hello), accepted(1));
    assert!(Ruleset::new(vec![deny_listed(&empty, "")]).never_matches(0));
    // The same variable is the same question: whatever the name, the address decides.
    let same = |first: &Arc<List>, second: &Arc<List>| {
        vec![deny_to(first, "dns=.a.example"), deny_to(second, ""), accept()]
    };
    let (nets, others) = (list(&[]), list(&[]));
    assert_eq!(decide(same(&nets, &nets), &by_name()), DEST);
    assert_eq!(decide(same(&nets, &others), &by_name()), FIRST_BYTES);
}

/// To compare long lists would take several times their memory; only the warning is lost by that.
#[test]
fn long_lists_of_addresses_are_not_compared() {
    let check = |count: u32, never: bool| {
        let mut list = ListBuilder::new("list".into(), Source::File("list.txt".into()));
        for i in 0..count {
            list.net(format!("10.{}.{}.0/32", i / 256, i % 256).parse().unwrap(), 1);
        }
        let list = Arc::new(list.build());
        let rules =
            Ruleset::new(vec![deny_to(&list, "protoL3=ip6"), deny_to(&list, ""), rules("accept").remove(0)]);
        assert_eq!((rules.never_matches(0), rules.never_matches(1)), (never, count == 0), "{count}");
        let facts =
            Facts { dest: Known::Is("10.0.1.0".parse().unwrap()), ..with_hello(at_accept(), "a.example") };
        let want = if count == 0 { accepted(2) } else { denied(RuleId::Index(1)) };
        assert_eq!(rules.decide(&facts, &Locals::default()), want, "{count}");
    };
    check(0, true);
    check(1000, true);
    check(10_000, false);
}

#[test]
fn as_many_rules_as_there_are_places() {
    let mut specs = vec![rules("deny port=80").remove(0); MAX_RULES - 1];
    specs.push(rules("accept").remove(0));
    specs.push(rules("deny").remove(0));
    let rules = Ruleset::new(specs);
    assert_eq!(rules.len(), MAX_RULES);
    assert_eq!(rules.decide(&at_accept(), &Locals::default()), accepted(u16::MAX - 1));
    assert_eq!(super::why::explain(&rules, &at_accept(), &Locals::default()).lines.len(), MAX_RULES + 1);
}

/// Thousands of rules of which each hides the next cost milliseconds for every connection.
#[test]
fn looking_ahead_has_a_budget() {
    let pairs = |count: usize| -> String {
        (0..count).map(|i| format!("deny dns=x{i}.example; accept dns=x{i}.example;")).collect()
    };
    check(&pairs(20), &at_accept(), denied(RuleId::Index(0)));
    // Too many to be seen through: the fact is asked for.
    let big = |text: String, facts: Facts, want| {
        assert_eq!(ruleset(&text).decide(&facts, &Locals::default()), want, "{facts:?}");
    };
    big(pairs(2_000), at_accept(), FIRST_BYTES);
    big(pairs(2_000), with_hello(at_accept(), "x1999.example"), denied(RuleId::Index(3998)));
    // Also where two kinds of facts are open; what is seen at once still is.
    let both: String = pairs(2_000).replace(".example;", ".example, dest=10.0.0.0/8;");
    big(both.clone(), by_name(), FIRST_BYTES);
    big(both, with_hello(by_name(), "x7.example"), denied(RuleId::Index(14)));
}

#[test]
fn a_request_is_asked_for_before_the_first_bytes_and_passed_over_behind_those_of_tls() {
    let rules =
        ruleset("deny host=.bad.test; deny path=/ads*; deny protoL7=!http; intercept dns=.test; accept");
    let check = |facts: &Facts, want: Decision| {
        assert_eq!(rules.decide(facts, &Locals::default()), want, "{facts:?}");
    };
    let intercepted = Decision::Verdict(Verdict { action: Action::Intercept, rule: RuleId::Index(3) });
    check(&at_accept(), Decision::Need(Need::FirstBytes));
    let tls = with_hello(at_accept(), "www.test");
    check(&tls, intercepted);
    check(&with_hello(at_accept(), "www.example"), accepted(4));
    // Inside.
    let inside = |l7, host: &str, path: &str| Facts {
        l7: Known::Is(l7),
        host: Known::Is(host.into()),
        path: Known::Is(path.into()),
        ..tls.clone()
    };
    check(&inside(L7::Http, "www.test", "/"), intercepted);
    check(&inside(L7::Http, "x.bad.test", "/"), denied(RuleId::Index(0)));
    check(&inside(L7::Http, "www.test", "/ads/1"), denied(RuleId::Index(1)));
    // May HTTP/2 be offered? Not where its hosts and paths matter, which nobody reads.
    check(&Facts { l7: Known::Is(L7::H2), ..tls.clone() }, denied(RuleId::Index(0)));
    let rules = ruleset("deny host=.bad.test, dns=.bad.test; intercept");
    let offered = |name: &str| {
        rules.decide(&Facts { l7: Known::Is(L7::H2), ..with_hello(at_accept(), name) }, &Locals::default())
    };
    assert_eq!(offered("bad.test"), Decision::Need(Need::FirstBytes));
    assert_eq!(
        offered("www.test"),
        Decision::Verdict(Verdict { action: Action::Intercept, rule: RuleId::Index(1) })
    );
}

#[test]
fn intercept_denies_quic_and_nothing_else() {
    let rules = ruleset("intercept dns=.test; accept");
    let decide = |l4, l5| {
        let facts = Facts { l4: Known::Is(l4), l5: Known::Is(l5), ..with_hello(at_accept(), "www.test") };
        rules.decide(&facts, &Locals::default())
    };
    let verdict = |action| Decision::Verdict(Verdict { action, rule: RuleId::Index(0) });
    assert_eq!(decide(L4::Tcp, L5::Tls), verdict(Action::Intercept));
    assert_eq!(decide(L4::Udp, L5::Quic), verdict(Action::Deny));
}
