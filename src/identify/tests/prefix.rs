//! The prefix property: fed a message in pieces, NeedMore until one answer, the same for all ways to cut it.

use crate::identify::tcp::Identifier;
use crate::identify::{Outcome, Parsers};

/// Ways to cut a message at random that are tried.
const RANDOM_CUTS: usize = 8;

/// The answer to `bytes`, after checking that it does not depend on how they arrive.
pub(super) fn identify(bytes: &[u8]) -> Outcome {
    let expected = fresh(bytes);
    let mut bytewise = Identifier::new(Parsers::default());
    let mut answer: Option<Outcome> = None;
    let mut was_begun = false;
    // Fresh looks at every prefix of a long message would take the square of its length.
    let stride = bytes.len() / 500 + 1;
    for len in 0..=bytes.len() {
        let prefix = &bytes[..len];
        let outcome = bytewise.look(prefix);
        if len % stride == 0 {
            assert_eq!(fresh(prefix), outcome, "{len} bytes at once and one by one");
        }
        match (&answer, &outcome) {
            (None, Outcome::NeedMore { begun }) => {
                assert!(*begun || !was_begun, "begun taken back after {len} bytes");
                was_begun = *begun;
            }
            (None, _) => answer = Some(outcome),
            (Some(answer), _) => assert_eq!(outcome, *answer, "an answer changed after {len} bytes"),
        }
        if answer.is_some() && len % stride != 0 {
            // Asking again reads the message again: enough of it.
            break;
        }
    }
    match answer {
        Some(answer) => assert_eq!(answer, expected, "at once and one by one"),
        None => assert!(matches!(expected, Outcome::NeedMore { .. })),
    }
    let mut random = Random::new(0x9e37_79b9);
    for _ in 0..RANDOM_CUTS {
        assert_eq!(in_random_pieces(bytes, &mut random), expected, "in random pieces");
    }
    expected
}

fn fresh(bytes: &[u8]) -> Outcome {
    Identifier::new(Parsers::default()).look(bytes)
}

fn in_random_pieces(bytes: &[u8], random: &mut Random) -> Outcome {
    let mut identifier = Identifier::new(Parsers::default());
    let mut len = 0;
    loop {
        let outcome = identifier.look(&bytes[..len]);
        if len == bytes.len() || !matches!(outcome, Outcome::NeedMore { .. }) {
            return outcome;
        }
        len = bytes.len().min(len + 1 + random.below(bytes.len() / 4 + 1));
    }
}

/// xorshift32: the same numbers on every run.
pub(super) struct Random(u32);

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        usize::try_from(self.0).unwrap() % bound
    }
}
