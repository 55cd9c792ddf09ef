//! TCP: the prelude grows, the answer comes once.
//!
//! The first byte chooses the protocol, as no two of them begin alike: a TLS record with 0x16, a request line with
//! visible ASCII or an empty line, and the length before a DNS query with at most 0x04, because a query of more than
//! 1279 bytes (`dns::MAX_QUERY`) is not one that a client sends. So 0x16 0x03 is always TLS, never the length 5635.

use super::http::RequestScanner;
use super::{Identity, Outcome, Parsers, dns};
use crate::wire::tls::{HelloReader, MAX_EMPTY_RECORDS, Progress, RECORD_HEADER_LEN};

/// Largest ClientHello, in bytes of handshake message.
pub const MAX_HELLO: usize = 64 * 1024;

pub use super::http::MAX_HEAD;

/// Most bytes that are ever needed for an answer: the largest hello in records of one byte each.
pub const MAX_PRELUDE: usize =
    MAX_HELLO * (RECORD_HEADER_LEN + 1) + (MAX_EMPTY_RECORDS + 1) * RECORD_HEADER_LEN;

/// Follows one connection's first bytes. The work done is linear in the bytes, however small the pieces are.
#[derive(Debug)]
pub struct Identifier {
    parsers: Parsers,
    candidate: Candidate,
}

/// The one protocol that the bytes can still be.
#[derive(Debug)]
enum Candidate {
    /// Nothing has come.
    Any,
    Tls(HelloReader),
    Http(RequestScanner),
    Dns,
    None,
}

impl Identifier {
    /// Nothing seen yet.
    pub fn new(parsers: Parsers) -> Self {
        Identifier { parsers, candidate: Candidate::Any }
    }

    /// Looks at *all* bytes received so far; each call's slice begins with the one before.
    ///
    /// An answer holds for every continuation; whoever asks again gets it again.
    pub fn look(&mut self, prelude: &[u8]) -> Outcome {
        if let (Candidate::Any, Some(&first)) = (&self.candidate, prelude.first()) {
            self.candidate = Candidate::choose(first, self.parsers);
        }
        match &mut self.candidate {
            Candidate::Any => Outcome::NeedMore { begun: false },
            Candidate::Tls(reader) => match reader.read(prelude) {
                Progress::Complete(hello) => Outcome::Identified(Identity::Tls(Box::new(hello))),
                Progress::NeedMore => Outcome::NeedMore { begun: true },
                Progress::Malformed => Outcome::Identified(Identity::None),
                Progress::TooLarge => Outcome::TooLarge,
            },
            Candidate::Http(scanner) => scanner.look(prelude),
            Candidate::Dns => dns::look(prelude),
            Candidate::None => Outcome::Identified(Identity::None),
        }
    }
}

impl Candidate {
    fn choose(first: u8, parsers: Parsers) -> Candidate {
        match first {
            0x16 if parsers.tls => Candidate::Tls(HelloReader::new(MAX_HELLO)),
            0x00..=0x04 if parsers.dns => Candidate::Dns,
            b'\r' | b'\n' | b'!'..=b'~' if parsers.http => Candidate::Http(RequestScanner::new()),
            _ => Candidate::None,
        }
    }
}
