//! Rules that hang on servers' certificates.

use super::In::*;
use super::*;
use crate::connect::distrust::Distrust;
use crate::connect::probe::Doubt;
use crate::identify::Identity;
use crate::logging::Value;

const CONNECT: &[u8] = b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n";
const EXPIRED: Finding = Finding::Invalid(Distrust::Expired);
const SILENT: Finding = Finding::Unknown(Doubt::TimedOut);

fn everywhere() -> String {
    config("mode: transparent", &["action: deny, cert: invalid", "action: accept"])
}

fn proxy(rules: &[&str]) -> String {
    config("mode: http", rules)
}

/// What the verdict line says behind the fingerprint.
fn cert_fields(simulation: &Simulation) -> String {
    let fields = simulation.session.fields(simulation.session.verdict().unwrap());
    let words = fields.iter().filter(|(key, _)| key.starts_with("cert")).map(|(key, value)| match value {
        Value::Bytes(word) => format!("{key}={}", String::from_utf8_lossy(word)),
        _ => panic!("{key} is no word"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_certificate_decides_once_the_name_is_known() {
    let hello = hello("www.example.com");
    let check = |finding: Finding, expected: &str, shown: &str| {
        let simulation = talk(
            &everywhere(),
            &[
                (To("198.51.100.2:443"), "read until 1000"),
                (Slowly(&hello), "probe www.example.com at 198.51.100.2:443"),
                (Probed(&[finding]), expected),
            ],
        );
        assert_eq!(cert_fields(&simulation), shown);
    };
    check(Finding::Valid, "Accept 1, dial 198.51.100.2:443", "cert=valid");
    check(EXPIRED, "Denied 0, close denied: alert", "cert=invalid cert_reason=expired");
    check(SILENT, "Accept 1, dial 198.51.100.2:443", "cert=unknown cert_reason=timeout");
}

#[test]
fn what_is_no_tls_or_has_no_name_is_not_probed() {
    let begin = (To("198.51.100.2:443"), "read until 1000");
    let request: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    for bytes in [request, b"SSH-2.0-x\r\n"] {
        let simulation = talk(&everywhere(), &[begin, (Bytes(bytes), "Accept 1, dial 198.51.100.2:443")]);
        assert_eq!(cert_fields(&simulation), "");
    }
    let nameless = nameless_hello();
    let simulation = talk(&everywhere(), &[begin, (Bytes(&nameless), "Accept 1, dial 198.51.100.2:443")]);
    assert_eq!(cert_fields(&simulation), "cert=unknown cert_reason=no_name");
    let plan = config("mode: transparent", &["action: accept, cert: valid"]);
    let nameless = nameless_hello();
    talk(&plan, &[begin, (Bytes(&nameless), "Denied default, close denied: alert")]);
    talk(&plan, &[begin, (Bytes(request), "Denied default, close denied: 403")]);
}

#[test]
fn nobody_is_asked_where_no_rule_is_reached_that_hangs_on_it() {
    let rules = [
        "action: accept, dns: .example.com",
        "action: deny, src: 10.0.0.0/8, cert: invalid",
        "action: deny, dest: 203.0.113.0/24, cert: '!valid'",
        "action: accept",
    ];
    let plan = config("mode: transparent", &rules);
    let (inside, outside) = (hello("www.example.com"), hello("www.example.org"));
    let begin = (To("198.51.100.2:443"), "read until 1000");
    talk(&plan, &[begin, (Bytes(&inside), "Accept 0, dial 198.51.100.2:443")]);
    talk(&plan, &[begin, (Bytes(&outside), "Accept 3, dial 198.51.100.2:443")]);
    let begin = (To("203.0.113.7:443"), "read until 1000");
    talk(&plan, &[begin, (Bytes(&outside), "probe www.example.org at 203.0.113.7:443")]);
}

/// The `always` rule comes before any probe.
#[test]
fn a_destination_that_a_proxy_must_not_reach_is_not_probed() {
    let plan = proxy(&["action: deny, cert: invalid", "action: accept"]);
    let hello = hello("www.example.com");
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(CONNECT), "200, read until 1000"),
            (Bytes(&hello), "resolve www.example.com"),
            (Addrs(&["127.0.0.1"]), "Denied always, close denied: alert"),
        ],
    );
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(CONNECT), "200, read until 1000"),
            (Bytes(&hello), "resolve www.example.com"),
            (Addrs(&["127.0.0.1", "10.0.0.1"]), "probe www.example.com at 10.0.0.1:443"),
            (Probed(&[Finding::Valid]), "Accept 1, dial 10.0.0.1:443"),
        ],
    );
}

#[test]
fn of_a_names_addresses_those_are_dialled_whose_certificate_is_accepted() {
    let hello = hello("www.example.com");
    let plan = proxy(&["action: deny, cert: invalid", "action: accept"]);
    let begin = [
        (Start, "read until 1000"),
        (Bytes(CONNECT), "200, read until 1000"),
        (Bytes(&hello), "resolve www.example.com"),
        (
            Addrs(&[
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8::3",
                "203.0.113.1",
                "203.0.113.2",
                "203.0.113.3",
            ]),
            "probe www.example.com at [2001:db8::1]:443 [2001:db8::2]:443 203.0.113.1:443 203.0.113.2:443",
        ),
    ];
    let check = |findings: &[Finding], expected: &str, shown: &str| {
        let simulation = talk(&plan, &[&begin[..], &[(Probed(findings), expected)]].concat());
        assert_eq!(cert_fields(&simulation), shown);
    };
    check(
        &[EXPIRED, SILENT, Finding::Valid, EXPIRED],
        "Accept 1, dial [2001:db8::2]:443 203.0.113.1:443",
        "cert=unknown cert_reason=timeout",
    );
    check(&[EXPIRED; 4], "Denied 0, close denied: alert", "cert=invalid cert_reason=expired");
    // One that never came.
    check(&[EXPIRED, EXPIRED, EXPIRED], "Accept 1, dial 203.0.113.2:443", "cert=unknown cert_reason=busy");
}

#[test]
fn an_address_that_needs_no_look_is_dialled_without_one() {
    let hello = hello("www.example.com");
    let plan =
        proxy(&["action: accept, dest: 203.0.113.0/24", "action: deny, cert: '!valid'", "action: accept"]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(CONNECT), "resolve www.example.com"),
            (Addrs(&["2001:db8::1", "203.0.113.1"]), "200, read until 1000"),
            (Bytes(&hello), "Accept 0, dial 203.0.113.1:443"),
        ],
    );
}

/// The certificate is asked for by the name in the hello, at the address that will be dialled.
#[test]
fn a_name_that_differs_from_the_one_asked_for_is_the_one_that_counts() {
    let hello = hello("other.example.com");
    for (target, resolved) in [("auto", "other.example.com"), ("original", "www.example.com")] {
        let plan = config(&format!("mode: http, target: {target}"), &["action: accept, cert: valid"]);
        let resolve = format!("resolve {resolved}");
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(CONNECT), "200, read until 1000"),
                (Bytes(&hello), &resolve),
                (Addrs(&["203.0.113.1"]), "probe other.example.com at 203.0.113.1:443"),
                (Probed(&[Finding::Invalid(Distrust::WrongName)]), "Denied default, close denied: alert"),
            ],
        );
    }
}

/// What is only observed waits for the certificate, too, and nobody is asked for what is denied anyway.
#[test]
fn an_observing_rule_sees_the_certificate_of_what_is_let_in() {
    let (hello, blocked) = (hello("www.example.com"), hello("www.blocked.example"));
    let rules = ["action: observe, cert: invalid", "action: deny, dns: .blocked.example", "action: accept"];
    let plan = config("mode: transparent", &rules);
    talk(
        &plan,
        &[
            (To("198.51.100.2:443"), "read until 1000"),
            (Bytes(&hello), "probe www.example.com at 198.51.100.2:443"),
            (Probed(&[EXPIRED]), "Observe 0, Accept 2, dial 198.51.100.2:443"),
        ],
    );
    talk(
        &plan,
        &[(To("198.51.100.2:443"), "read until 1000"), (Bytes(&blocked), "Denied 1, close denied: alert")],
    );
}

/// Whatever the first datagrams say, no server is asked over TCP for what is spoken over UDP.
#[test]
fn quic_is_unknown_without_asking() {
    for (rules, expected) in [
        (["action: deny, cert: [invalid, unknown]", "action: accept"], "Denied 0"),
        (["action: deny, cert: invalid", "action: accept"], "Accept 1"),
    ] {
        let mut simulation = Simulation::new(&config("mode: transparent", &rules));
        simulation.tell(To("198.51.100.2:443"));
        let Simulation { session, verdicts, plan, locals, preludes, home, memory, now, .. } = &mut simulation;
        let surroundings = &*home;
        let env = &mut Env { now: *now, plan, locals, preludes, surroundings, memory, report: verdicts };
        session.learn(Identity::Quic { hello: None }, env);
        let step = session.advance(env);
        assert!(!matches!(step, Step::Probe(_)));
        assert_eq!(simulation.verdicts.0, [expected]);
        assert_eq!(cert_fields(&simulation), "");
    }
}
