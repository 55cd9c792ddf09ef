//! The first bytes of a TCP connection: one answer, however they arrive, and never taken back.
#![no_main]

use calamary::identify::tcp::{Identifier, MAX_PRELUDE};
use calamary::identify::{Identity, Outcome, Parsers};
use calamary_fuzz::{Random, pieces, prefixes};
use libfuzzer_sys::fuzz_target;

/// Prefixes that are looked at afresh.
const MAX_PREFIXES: usize = 64;

fuzz_target!(|data: &[u8]| {
    let random = &mut Random::of(data);
    let whole = check(data, Parsers::default(), random);
    let some = Parsers {
        tls: random.one_in(2),
        http: random.one_in(2),
        dns: random.one_in(2),
        ..Parsers::default()
    };
    let with_some = check(data, some, random);
    let is_off = match &whole {
        Outcome::Identified(Identity::Tls(_)) => !some.tls,
        Outcome::Identified(Identity::Http { .. }) => !some.http,
        Outcome::Identified(Identity::Dns { .. }) => !some.dns,
        _ => return,
    };
    assert_eq!(with_some, if is_off { Outcome::Identified(Identity::None) } else { whole }, "{some:?}");
});

fn check(data: &[u8], parsers: Parsers, random: &mut Random) -> Outcome {
    let afresh = |bytes: &[u8]| Identifier::new(parsers).look(bytes);
    let whole = afresh(data);
    assert!(data.len() < MAX_PRELUDE || !matches!(whole, Outcome::NeedMore { .. }));

    let mut identifier = Identifier::new(parsers);
    let mut last = Outcome::NeedMore { begun: false };
    let mut seen = 0;
    for piece in pieces(data, random) {
        seen += piece.len();
        let outcome = identifier.look(&data[..seen]);
        follows(&last, &outcome);
        last = outcome;
    }
    assert_eq!(last, whole, "in pieces and at once");

    let mut last = Outcome::NeedMore { begun: false };
    for len in prefixes(data.len(), MAX_PREFIXES, random) {
        let outcome = afresh(&data[..len]);
        follows(&last, &outcome);
        last = outcome;
    }
    whole
}

/// Whether more bytes may turn `before` into `after`.
fn follows(before: &Outcome, after: &Outcome) {
    let fits = match (before, after) {
        (Outcome::NeedMore { begun: true }, Outcome::NeedMore { begun }) => *begun,
        (Outcome::NeedMore { begun: false }, Outcome::TooLarge) => true,
        (Outcome::NeedMore { .. }, _) => true,
        (before, after) => before == after,
    };
    assert!(fits, "{before:?} became {after:?}");
}
