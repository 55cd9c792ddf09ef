//! UDP, all but what is inside QUIC.

use super::*;
use crate::identify::datagram::{DatagramIdentifier, DatagramOutcome, Shortfall};

/// A query for www.example.com HTTPS, with an id of its own.
fn query(id: u8) -> Vec<u8> {
    [&[id, 0x34][..], b"\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x41\0\x01"].concat()
}

fn ntp(first: u8) -> Vec<u8> {
    [&[first, 0, 6, 0xec][..], &[0; 44]].concat()
}

/// The front of a packet of this version, padded.
fn long_header(first: u8, version: u32) -> Vec<u8> {
    let mut datagram = [&[first][..], &version.to_be_bytes(), b"\x0812345678\x00"].concat();
    datagram.resize(1200, 0);
    datagram
}

fn first_of(port: u16, parsers: Parsers, datagram: &[u8]) -> DatagramOutcome {
    let mut identifier = DatagramIdentifier::new(parsers, port);
    let outcome = identifier.look(datagram);
    // An answer stays, whatever comes.
    for next in [&b""[..], &query(1), &ntp(0x23), &long_header(0xc0, 1)] {
        assert_eq!(identifier.look(next), outcome);
    }
    outcome
}

fn name(outcome: &DatagramOutcome) -> &'static str {
    match outcome {
        DatagramOutcome::Identified(identity) => identity.as_str(),
        DatagramOutcome::NeedMore { .. } => "more",
        DatagramOutcome::Incomplete(_) => "incomplete",
        DatagramOutcome::MidConnection => "mid-connection",
    }
}

const GOOGLE: u32 = u32::from_be_bytes(*b"Q050");
const DRAFT: u32 = 0xff00_001d;
const OTHER: u32 = 0xface_b002;

#[test]
fn the_first_datagram_says_what_it_is() {
    let check = |what: &str, port: u16, datagram: &[u8], expected: &str| {
        let expected = match expected {
            "quic" | "mid-connection" if !cfg!(feature = "quic") => "none",
            expected => expected,
        };
        assert_eq!(name(&first_of(port, Parsers::default(), datagram)), expected, "{what}");
    };
    check("a query", 53, &query(0x12), "dns");
    check("a query to any port", 5353, &query(0x12), "dns");
    check("a response", 53, &[&query(1)[..2], b"\x81\x80", &query(1)[4..]].concat(), "none");
    check("two questions", 53, &[&query(1)[..5], &[2], &query(1)[6..]].concat(), "none");
    check("a query that is cut off", 53, &query(1)[..20], "none");
    check("a query whose id looks like NTP", 123, &[&query(0x23)[..], &[0; 40]].concat(), "dns");
    check("a query whose id looks like QUIC", 443, &query(0x43), "dns");
    check("NTP", 123, &ntp(0x23), "ntp");
    check("NTP to any port", 1234, &ntp(0xe3), "ntp");
    check("NTP that is cut off", 123, &ntp(0x23)[..47], "none");
    check("a draft", 443, &long_header(0xc0, DRAFT), "quic");
    check("Google's", 443, &long_header(0xc3, GOOGLE), "quic");
    check("Google's, old", 80, b"\x0d12345678Q043\x01rest", "quic");
    check("a version that nobody knows", 443, &long_header(0xc0, OTHER), "none");
    check("a reserved version", 443, &long_header(0xc0, 0x1a2a_3a4a), "none");
    check("Version Negotiation", 443, &long_header(0xc0, 0), "none");
    check("a short header to 443", 443, &[0x41; 40], "mid-connection");
    check("which NTP may look like", 443, &ntp(0x63), "mid-connection");
    check("a short header elsewhere", 4433, &[0x41; 40], "none");
    check("WireGuard", 51820, &[&[1, 0, 0, 0][..], &[7; 144]].concat(), "none");
    check("DTLS", 443, &[&[0x16, 0xfe, 0xfd][..], &[7; 100]].concat(), "none");
    check("STUN", 3478, b"\0\x01\0\0\x21\x12\xa4\x42\0\0\0\0\0\0\0\0\0\0\0\0", "none");
    check("nothing", 443, b"", "none");
}

#[test]
fn a_query_and_its_name() {
    let expected = Identity::Dns { query: Some("www.example.com".into()) };
    assert_eq!(first_of(53, Parsers::default(), &query(7)), DatagramOutcome::Identified(expected));
}

#[test]
fn a_parser_that_is_off_makes_its_traffic_none() {
    let on = Parsers::default();
    let check = |datagram: &[u8], off: Parsers| {
        assert_ne!(name(&first_of(443, on, datagram)), "none", "{datagram:x?}");
        assert_eq!(name(&first_of(443, off, datagram)), "none", "{datagram:x?}");
        // Nor does what is on take it for its own.
        let alone = Parsers { quic: false, dns: false, ntp: false, ..on };
        assert_eq!(name(&first_of(443, alone, datagram)), "none", "{datagram:x?}");
    };
    check(&query(7), Parsers { dns: false, ..on });
    check(&ntp(0x23), Parsers { ntp: false, ..on });
    if cfg!(not(feature = "quic")) {
        return;
    }
    for first in 0xc0..=0xff {
        check(&long_header(first, DRAFT), Parsers { quic: false, ..on });
        assert_eq!(name(&first_of(443, Parsers { quic: false, ..on }, &long_header(first, 1))), "none");
    }
    for first in 0x40..=0x7f {
        check(&ntp(first), Parsers { quic: false, ..on });
    }
}

#[test]
fn shortfalls_are_said_in_words_of_their_own() {
    let all = [Shortfall::Malformed, Shortfall::NotOpened, Shortfall::NoHello, Shortfall::TooMuch];
    let mut words = all.map(Shortfall::as_str).to_vec();
    words.dedup();
    assert_eq!(words.len(), all.len());
}
