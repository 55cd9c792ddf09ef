//! `--why`: facts in any order mean the same, and the explanation tells what the walk decides.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use calamary::config::{LoadOptions, load};
use calamary::decide::Decision;
use calamary::decide::name::{MAX_NAME, normalise};
use calamary::decide::rules::{Locals, Ruleset};
use calamary::decide::why::{explain, parse_facts};
use libfuzzer_sys::fuzz_target;

/// Every field, every action.
const CONFIG: &str = include_str!("why_facts.yml");

static RULES: LazyLock<Ruleset> = LazyLock::new(|| {
    let loaded = load(CONFIG, Path::new("why_facts.yml"), LoadOptions::default());
    loaded.unwrap_or_else(|problems| panic!("{problems}")).plan.rules
});

fuzz_target!(|text: &str| {
    let words: Vec<&str> = text.split_whitespace().rev().collect();
    let (facts, reversed) = (parse_facts(text), parse_facts(&words.join(" ")));
    let facts = match facts {
        Ok(facts) => facts,
        Err(message) => {
            assert!(!message.is_empty());
            // Which error comes first may differ.
            assert!(reversed.is_err());
            return;
        }
    };
    assert_eq!(reversed.as_ref(), Ok(&facts));
    if let Some(name) = facts.name.is().filter(|name| !name.contains('%') && name.len() < MAX_NAME) {
        assert_eq!(normalise(name.as_bytes()).as_ref(), Some(name));
    }
    let own = "203.0.113.1".parse().unwrap();
    for allow_local in [false, true] {
        let locals = Locals { addrs: vec![own], tcp_ports: vec![4128], allow_local };
        let why = explain(&RULES, &facts, &locals);
        assert_eq!(why.decision, RULES.decide(&facts, &locals));
        assert_eq!(why.lines.len(), RULES.len() + 1);
        assert_eq!(why.hangs_on.is_empty(), matches!(why.decision, Decision::Verdict(_)), "{why}");
        assert_eq!(why.exit_code() == 4, matches!(why.decision, Decision::Need(_)));
        let last = why.to_string().lines().last().map(str::to_owned);
        assert!(last.is_some_and(|line| line.starts_with("verdict: ")));
    }
});
