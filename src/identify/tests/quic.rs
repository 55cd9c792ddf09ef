//! QUIC: real clients' datagrams, and every order, split and damage of them.

use std::path::{Path, PathBuf};

use super::super::datagram::{
    DatagramIdentifier, DatagramOutcome, MAX_BYTES, MAX_DATAGRAMS, Shortfall, begins_connection,
};
use super::prefix::Random;
use super::*;
use crate::wire::quic::tests::client::{Client, crypto};
use crate::wire::quic::{MAX_PACKETS, Version};
use crate::wire::tls::tests::fixture;

const MORE: DatagramOutcome = DatagramOutcome::NeedMore { begun: true };

/// What comes of these datagrams, one after the other; the last answer.
fn flow(datagrams: &[Vec<u8>]) -> DatagramOutcome {
    let mut identifier = DatagramIdentifier::new(Parsers::default(), 443);
    let mut outcome = DatagramOutcome::NeedMore { begun: false };
    for datagram in datagrams {
        let next = identifier.look(datagram);
        assert!(outcome == next || matches!(outcome, DatagramOutcome::NeedMore { .. }), "taken back");
        outcome = next;
    }
    outcome
}

fn sni(outcome: &DatagramOutcome) -> &str {
    match outcome {
        DatagramOutcome::Identified(Identity::Quic { hello: Some(hello) }) => {
            std::str::from_utf8(hello.sni.as_deref().unwrap_or(b"-")).unwrap()
        }
        other => panic!("no hello: {other:?}"),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/quic")
}

/// The datagrams of a flow, one in a line.
fn vector(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.hex"))).unwrap();
    let bytes = |line: &str| -> Vec<u8> {
        let digits: Vec<u8> = line.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    text.lines().map(bytes).collect()
}

/// The names in expected.txt, and after how many datagrams the answer comes.
fn clients() -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(folder().join("expected.txt")).unwrap();
    let first_two = |line: &str| {
        let mut words = line.split(' ');
        (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
    };
    let clients: Vec<_> = text.lines().map(first_two).collect();
    assert!(clients.len() >= 8, "the vectors are missing");
    clients
}

/// One line of expected.txt.
fn line(name: &str, count: usize, outcome: &DatagramOutcome) -> String {
    let DatagramOutcome::Identified(identity) = outcome else { panic!("{name}: {outcome:?}") };
    let hello = identity.hello().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let alpn = hello.alpn.iter().map(|offer| text(offer)).collect::<Vec<_>>().join(",");
    format!(
        "{name} {count} {} {} {} {} {}\n",
        hello.version,
        hello.sni.as_deref().map_or("-".to_owned(), text),
        if alpn.is_empty() { "-" } else { &alpn },
        if hello.ech { "ech" } else { "-" },
        hello.ja4
    )
}

#[test]
fn real_clients_are_read_as_expected() {
    let mut read = String::new();
    for (name, count) in clients() {
        let datagrams = &vector(&name)[..count];
        for fewer in 1..count {
            assert_eq!(flow(&datagrams[..fewer]), MORE, "{name}, {fewer} datagrams");
        }
        read += &line(&name, count, &flow(datagrams));
    }
    assert_eq!(read, std::fs::read_to_string(folder().join("expected.txt")).unwrap());
}

#[test]
fn real_clients_whose_datagrams_come_in_another_order() {
    for (name, count) in clients() {
        let mut datagrams = vector(&name)[..count].to_vec();
        let expected = flow(&datagrams);
        datagrams.reverse();
        assert_eq!(flow(&datagrams), expected, "{name}, backwards");
        let twice: Vec<_> = datagrams.iter().flat_map(|d| [d.clone(), d.clone()]).collect();
        assert_eq!(flow(&twice), expected, "{name}, each twice");
    }
}

#[test]
fn a_server_is_no_client() {
    for rfc in ["rfc9001", "rfc9369"] {
        let server = flow(&vector(&format!("{rfc}-server")));
        assert_eq!(server, DatagramOutcome::Incomplete(Shortfall::NotOpened), "{rfc}");
        // Nothing to open; a Retry alone may be one that the client has sent in error.
        assert_eq!(flow(&vector(&format!("{rfc}-retry"))), MORE, "{rfc}");
    }
}

#[test]
fn a_client_that_was_sent_a_retry() {
    let datagrams = vector("aioquic-retry");
    assert_eq!(sni(&flow(&datagrams[..1])), "retry.example.com");
    assert_eq!(sni(&flow(&datagrams[1..])), "retry.example.com", "the first one was not seen");
    assert!(begins_connection(&datagrams[0]));
    assert!(begins_connection(&datagrams[1]));
    assert!(!begins_connection(&datagrams[2]), "the client knows its server");

    // The hello in two datagrams, and the Retry between them.
    for version in [Version::V1, Version::V2] {
        let (client, message) = (Client::new(version), fixture::ordinary().message());
        let (front, rest) = (crypto(0, &message[..60]), crypto(60, &message[60..]));
        let again = client.after_retry(b"from the Retry");
        let sent = [client.datagram(0, &front), again.datagram(1, &front), again.datagram(2, &rest)];
        assert_eq!(flow(&sent[..2]), MORE);
        assert_eq!(sni(&flow(&sent)), "www.example.com");
        assert_eq!(sni(&flow(&[sent[0].clone(), sent[2].clone()])), "www.example.com");
        // A third id is nobody's.
        let third = client.after_retry(b"another Retry");
        let sent = [client.datagram(0, &front), again.datagram(1, &front), third.datagram(2, &rest)];
        assert_eq!(flow(&sent), MORE);
    }
}

/// The message in pieces of CRYPTO frames, in a random order, some twice, some longer than their piece, with other
/// frames between, spread over datagrams.
fn scattered(client: &Client, message: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let end = message.len().min(at + 1 + random.below(message.len() / 2));
        let behind = message.len().min(end + random.below(20));
        let before = at.saturating_sub(random.below(20));
        frames.push(crypto(before, &message[before..behind]));
        at = end;
    }
    for i in (1..frames.len()).rev() {
        frames.swap(i, random.below(i + 1));
    }
    let per_datagram = frames.len().div_ceil(1 + random.below(MAX_DATAGRAMS));
    let between: [&[u8]; 4] = [b"\x00", b"\x01", b"\x02\x05\x00\x00\x05", b"\x00\x00\x00"];
    let mut payloads: Vec<Vec<u8>> = frames
        .chunks(per_datagram)
        .map(|frames| frames.iter().flat_map(|f| [f, between[random.below(4)]].concat()).collect())
        .collect();
    if payloads.len() < MAX_DATAGRAMS {
        payloads.insert(random.below(payloads.len() + 1), b"\x01".to_vec());
    }
    payloads
        .iter()
        .enumerate()
        .map(|(i, frames)| client.datagram(u16::try_from(i).unwrap(), frames))
        .collect()
}

#[test]
fn every_order_and_split_gives_the_same_answer() {
    let message = fixture::ordinary().message();
    let mut random = Random::new(9);
    let mut with_several = 0;
    for round in 0..300 {
        let client = Client::new(if round % 2 == 0 { Version::V1 } else { Version::V2 });
        let expected = flow(&[client.datagram(0, &crypto(0, &message))]);
        let datagrams = scattered(&client, &message, &mut random);
        with_several += usize::from(datagrams.len() > 2);
        assert_eq!(flow(&datagrams), expected, "round {round}");
    }
    assert!(with_several > 50);
}

#[test]
fn coalesced_and_foreign_packets() {
    let client = Client { datagram_len: 0, ..Client::new(Version::V1) };
    let message = fixture::ordinary().message();
    let front = client.initial(0, &crypto(0, &message[..50]));
    let rest = client.initial(1, &crypto(50, &message[50..]));
    let (zero_rtt, handshake) = (client.other(0xd0), client.other(0xe0));
    let elsewhere = Client { dcid: b"another!".to_vec(), keys_of: b"another!".to_vec(), ..client.clone() };
    let check = |what: &str, datagrams: &[&[&[u8]]], expected: Result<(), DatagramOutcome>| {
        let datagrams: Vec<Vec<u8>> = datagrams.iter().map(|parts| parts.concat()).collect();
        match expected {
            Ok(()) => assert_eq!(sni(&flow(&datagrams)), "www.example.com", "{what}"),
            Err(expected) => assert_eq!(flow(&datagrams), expected, "{what}"),
        }
    };
    let incomplete = |shortfall| Err(DatagramOutcome::Incomplete(shortfall));
    check("two Initials in one datagram", &[&[&front, &rest]], Ok(()));
    check("0-RTT between", &[&[&front, &zero_rtt, &rest]], Ok(()));
    check("0-RTT first", &[&[&zero_rtt], &[&front, &rest]], Ok(()));
    check("0-RTT alone", &[&[&zero_rtt]], Err(MORE));
    check("a short header behind", &[&[&front, &rest, b"\x41rest"]], Ok(()));
    check("a datagram of a short header between", &[&[&front], &[b"\x41rest"], &[&rest]], Ok(()));
    check("rubbish between", &[&[&front], &[b"rubbish"], &[b""], &[&rest]], Ok(()));
    check("a handshake packet alone", &[&[&handshake]], Err(MORE));
    check("padded with zeros outside", &[&[&front, &rest, &[0; 500]]], Ok(()));
    check("not opened, later", &[&[&front], &[&client.other(0xc0)], &[&rest]], Ok(()));
    let unopened = [&client.initial(0, b"\0")[..26], &[0; 30]].concat();
    check("not opened, first", &[&[&unopened]], incomplete(Shortfall::NotOpened));
    check("a header and no more", &[&[b"\xc0\0\0\0\x01"]], incomplete(Shortfall::Malformed));
    check("an id that is too long", &[&[b"\xc0\0\0\0\x01\x15", &[0; 100]]], incomplete(Shortfall::Malformed));
    let many = client.other(0xd0).repeat(MAX_PACKETS);
    check("a hello that too many packets hide", &[&[&many, &front, &rest]], incomplete(Shortfall::Malformed));
    let two = elsewhere.initial(0, &crypto(0, &message));
    check("two connections in one datagram", &[&[&front, &two]], incomplete(Shortfall::Malformed));

    let mut other = message.clone();
    other[70] ^= 1;
    let differs = client.initial(2, &crypto(60, &other[60..80]));
    check(
        "what was said is taken back",
        &[&[&client.initial(0, &crypto(60, &message[60..80]))], &[&differs]],
        incomplete(Shortfall::NoHello),
    );
    check(
        "within the datagram that completes it",
        &[&[&front, &rest, &differs]],
        incomplete(Shortfall::NoHello),
    );
    check(
        "no ClientHello",
        &[&[&client.initial(0, &crypto(0, &[2, 0, 0, 0]))]],
        incomplete(Shortfall::NoHello),
    );
    check(
        "a frame that has no place there",
        &[&[&client.initial(0, b"\x08\x00x")]],
        incomplete(Shortfall::NoHello),
    );
    check(
        "a broken hello",
        &[&[&client.initial(0, &crypto(0, &fixture::handshake(b"hi")))]],
        incomplete(Shortfall::NoHello),
    );
    check(
        "further than is kept",
        &[&[&client.initial(0, &crypto(0x3fff, b"xx"))]],
        incomplete(Shortfall::NoHello),
    );
}

#[test]
fn the_fixed_bit_may_be_cleared() {
    // RFC 9287: a filter that asked for it would let such a client pass as something else.
    let mut datagram = Client::new(Version::V1).datagram(0, &crypto(0, &fixture::ordinary().message()));
    datagram[0] &= 0xbf;
    // The header is authenticated, so that this one does not open; but it is QUIC.
    assert_eq!(flow(&[datagram]), DatagramOutcome::Incomplete(Shortfall::NotOpened));
}

#[test]
fn a_flow_is_bounded() {
    let client = Client { datagram_len: 200, ..Client::new(Version::V1) };
    let pings: Vec<_> = (0..20).map(|n| client.datagram(n, b"\x01")).collect();
    assert_eq!(flow(&pings[..MAX_DATAGRAMS - 1]), MORE);
    assert_eq!(flow(&pings[..MAX_DATAGRAMS]), DatagramOutcome::Incomplete(Shortfall::TooMuch));
    // The last one may still bring it.
    let last = client.datagram(30, &crypto(0, &fixture::ordinary().message()));
    let sent = [&pings[..MAX_DATAGRAMS - 1], std::slice::from_ref(&last)].concat();
    assert_eq!(sni(&flow(&sent)), "www.example.com");

    let large = Client { datagram_len: MAX_BYTES / 2, ..client };
    let sent = [large.datagram(0, b"\x01"), large.datagram(1, b"\x01")];
    assert_eq!(flow(&sent[..1]), MORE);
    assert_eq!(flow(&sent), DatagramOutcome::Incomplete(Shortfall::TooMuch));
    assert_eq!(sni(&flow(&[sent[0].clone(), last])), "www.example.com");
}

#[test]
fn which_datagrams_begin_a_connection() {
    let client = Client::new(Version::V1);
    let hello = crypto(0, &fixture::ordinary().message());
    assert!(begins_connection(&client.datagram(0, &hello)));
    assert!(begins_connection(&client.datagram(0, b"\x01")), "the hello may come in the next one");
    assert!(begins_connection(&[client.other(0xd0), client.initial(0, &hello)].concat()));
    assert!(!begins_connection(&client.other(0xd0).repeat(MAX_PACKETS)));
    assert!(
        begins_connection(&client.other(0xd0).repeat(MAX_PACKETS + 1)),
        "nobody knows what stands behind so many"
    );
    let elsewhere = Client { dcid: b"another!".to_vec(), ..client.clone() };
    let two = [client.other(0xe0), elsewhere.other(0xe0)].concat();
    assert!(begins_connection(&two), "nobody sends that, and nobody need try many keys on it");
    let later = Client { dcid: b"servers.".to_vec(), ..client.clone() };
    assert!(!begins_connection(&later.datagram(3, b"\x02\x05\x00\x00\x05")));
    assert!(!begins_connection(&client.other(0xe0)));
    assert!(!begins_connection(b"\x41short"));
    assert!(!begins_connection(b""));
}

#[test]
fn random_damage_never_panics() {
    let mut random = Random::new(4);
    let datagrams = vector("chromium");
    for _ in 0..300 {
        let mut damaged = datagrams.clone();
        for datagram in &mut damaged {
            for _ in 0..random.below(3) {
                let at = random.below(40);
                datagram[at] = u8::try_from(random.below(256)).unwrap();
            }
            datagram.truncate(1 + random.below(2000));
        }
        flow(&damaged);
    }
}
