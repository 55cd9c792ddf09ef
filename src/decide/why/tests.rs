//! Explanations, as they are printed.

use std::sync::Arc;

use super::*;
use crate::decide::list::{ListBuilder, Source};
use crate::decide::name::NamePattern;
use crate::decide::rules::{FieldSpec, NameValue, Term};
use crate::decide::tests::rules;

#[track_caller]
fn check(specs: Vec<RuleSpec>, facts: &str, want: &[&str], exit_code: u8) {
    let find_line = |file: &Path, wanted: Wanted<'_>| {
        assert_eq!(file, Path::new("lists/ads.txt"));
        (wanted == Wanted::Name("ads.example.com")).then_some(1204)
    };
    let rules = Ruleset::new(specs);
    let explanation =
        explain_with_lines(&rules, &parse_facts(facts).unwrap(), &Locals::default(), &find_line);
    assert_eq!(explanation.to_string().lines().collect::<Vec<_>>(), want);
    assert_eq!(explanation.exit_code(), exit_code);
}

fn deny_list(variable: &str, source: Source, name: &str, line: u32) -> RuleSpec {
    let mut list = ListBuilder::new(variable.into(), source);
    list.name(&NamePattern::parse(name).unwrap(), line);
    let value = NameValue::List(Arc::new(list.build()));
    RuleSpec { action: Action::Deny, fields: vec![FieldSpec::Dns(vec![Term { negated: false, value }])] }
}

#[test]
fn a_list_hit_names_list_and_line() {
    let specs = vec![
        deny_list("allowed", Source::Inline, "good.example", 3),
        deny_list("blocked", Source::File("lists/ads.txt".into()), ".example.com", 1204),
        deny_list("later", Source::Inline, "x.example", 3),
    ];
    check(
        specs,
        "src=192.168.1.20 dest=203.0.113.5 port=443 dns=ads.example.com protoL5=tls",
        &[
            "always        no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny  no match   dns ads.example.com not in $allowed",
            "rule 1  deny  match      dns ads.example.com is in $blocked (lists/ads.txt:1204)",
            "rule 2  deny  not reached",
            "verdict: deny by rule 1",
        ],
        3,
    );
}

/// The file may have changed since it was loaded.
#[test]
fn a_line_that_is_not_found_again_is_left_out() {
    check(
        vec![deny_list("blocked", Source::File("lists/ads.txt".into()), ".example.com", 1204)],
        "dest=203.0.113.5 port=443 dns=example.com protoL5=tls",
        &[
            "always        no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny  match      dns example.com is in $blocked (lists/ads.txt)",
            "verdict: deny by rule 0",
        ],
        3,
    );
}

#[test]
fn explanations() {
    let check = |text: &str, facts: &str, want: &[&str], exit_code| {
        check(rules(text), facts, want, exit_code);
    };
    check(
        "deny src=10.0.0.0/8; accept src=192.168.0.0/16 !192.168.1.0/24, port=80; accept port=!80 !22, protoL3=ip4",
        "src=192.168.1.20 dest=203.0.113.5 port=443",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny    no match   src 192.168.1.20 not in 10.0.0.0/8",
            "rule 1  accept  no match   src 192.168.1.20 is in 192.168.1.0/24, which is negated; port 443 not in 80",
            "rule 2  accept  match      port 443 is not 80, 22; protoL3 ip4 is ip4",
            "verdict: accept by rule 2",
        ],
        0,
    );
    check(
        "deny dns=.ads.example; accept",
        "dest=203.0.113.5 protoL4=tcp",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny    unknown    dns is not known",
            "rule 1  accept  match      no fields: everything matches",
            "verdict: hangs on dns, which is not known",
        ],
        4,
    );
    check(
        "accept port=1-6; deny encrypted=yes; accept protoL5=quic",
        "dest=203.0.113.5 port=443 protoL4=tcp dns=none",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  accept  no match   port 443 not in 1-6",
            "rule 1  deny    unknown    encrypted is not known",
            "rule 2  accept  no match   protoL5 is not known, but nothing that it can be matches",
            "verdict: deny by rule 1: nothing unknown could make it accept",
        ],
        3,
    );
    check(
        "accept encrypted=yes",
        "dns=example.com protoL5=tls",
        &[
            "always          unknown    dest is not known",
            "rule 0  accept  match      encrypted yes is yes",
            "verdict: hangs on dest, which is not known",
        ],
        4,
    );
    check(
        "deny cert=invalid; accept",
        "dest=203.0.113.5 dns=example.com protoL5=tls",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny    unknown    cert is not known: the server would be asked",
            "rule 1  accept  match      no fields: everything matches",
            "verdict: hangs on cert, which is not known",
        ],
        4,
    );
    check(
        "deny cert=!valid; accept",
        "dest=203.0.113.5 dns=none protoL5=tls",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  deny    match      cert unknown is not valid",
            "rule 1  accept  not reached",
            "verdict: deny by rule 0",
        ],
        3,
    );
    check(
        "accept",
        "dest=127.0.0.1",
        &[
            "always          match      dest 127.0.0.1 is a loopback address",
            "rule 0  accept  not reached",
            "verdict: deny by always",
        ],
        3,
    );
    check(
        "redirect port=80",
        "dest=203.0.113.5 port=80 protoL5=tls",
        &[
            "always            no match   dest 203.0.113.5 is not a local address",
            "rule 0  redirect  match      port 80 is 80",
            "verdict: deny by rule 0: only plain HTTP is redirected",
        ],
        3,
    );
    check(
        "accept dns=!a.example; accept ech=none; accept dns=none, port=1 2 3 4 5 6; accept protoL3=ip6, dest=10.0.0.0/8",
        "dest=203.0.113.5 port=80 dns=none protoL5=http",
        &[
            "always          no match   dest 203.0.113.5 is not a local address",
            "rule 0  accept  no match   dns: there is no trusted name, so no name matches, negated or not",
            "rule 1  accept  no match   ech: this traffic has none",
            "rule 2  accept  no match   dns is none; port 80 not in 1, 2, 3, 4 and 2 more",
            "rule 3  accept  no match   protoL3 ip4 not in ip6; dest 203.0.113.5 not in 10.0.0.0/8",
            "verdict: deny by default: no rule matches",
        ],
        3,
    );
}
