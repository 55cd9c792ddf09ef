//! TLS, with the hellos of real clients.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::prefix::{Random, identify};
use super::*;
use crate::identify::tcp::{MAX_HELLO, MAX_PRELUDE};
use crate::wire::tls::ClientHello;
use crate::wire::tls::MAX_EMPTY_RECORDS;
use crate::wire::tls::tests::fixture::{self, HelloBody, record, records};

fn hello(outcome: &Outcome) -> &ClientHello {
    match outcome {
        Outcome::Identified(Identity::Tls(hello)) => hello,
        other => panic!("no hello: {other:?}"),
    }
}

/// Where the hellos of real clients are, and what they say.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tls")
}

/// Name and bytes of each.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let mut vectors: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, from_hex(&std::fs::read_to_string(path).unwrap()))
        })
        .collect();
    vectors.sort();
    assert!(vectors.len() >= 8, "the vectors are missing");
    vectors
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// One line of expected.txt from what was read.
fn line(name: &str, hello: &ClientHello) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    format!(
        "{name} {version} {sni} {alpn} {ech} {ja4}\n",
        version = hello.version,
        sni = or_dash(hello.sni.as_deref().map(text).unwrap_or_default()),
        alpn = or_dash(hello.alpn.iter().map(|offer| text(offer)).collect::<Vec<_>>().join(",")),
        ech = if hello.ech { "ech" } else { "-" },
        ja4 = hello.ja4,
    )
}

#[test]
fn real_clients_are_read_as_expected() {
    let read: String = vectors().iter().map(|(name, bytes)| line(name, hello(&identify(bytes)))).collect();
    assert_eq!(read, std::fs::read_to_string(folder().join("expected.txt")).unwrap());
}

#[test]
fn real_clients_in_records_of_every_kind_say_the_same() {
    for (name, bytes) in vectors() {
        let expected = at_once(&bytes);
        let message = &bytes[5..];
        for size in [1, 2, 3, 5, 64, 1000] {
            assert_eq!(identify(&records(message, size)), expected, "{name}, records of {size}");
        }
        let mut random = Random::new(7);
        let mut rest = message;
        let mut mixed = record(b"");
        while !rest.is_empty() {
            let (fragment, behind) = rest.split_at(rest.len().min(1 + random.below(40)));
            mixed.extend(record(fragment));
            rest = behind;
        }
        assert_eq!(identify(&mixed), expected, "{name}, mixed records");
    }
}

#[test]
fn begun_from_the_first_byte_until_it_cannot_be_a_hello() {
    let check = |bytes: &[u8], expected: Outcome| assert_eq!(identify(bytes), expected, "{bytes:x?}");
    check(b"\x16", BEGUN);
    check(b"\x16\x03", BEGUN);
    check(b"\x16\x03\x01\x02\x00", BEGUN);
    check(b"\x16\x03\x01\x02\x00\x01", BEGUN);
    check(b"\x16\x03\x01\x02\x00\x01\x00", BEGUN);
    check(b"\x16\x03\x01\x00\x00", BEGUN);
    check(b"\x16\x02", NONE);
    check(b"\x16\x03\x01\x02\x00\x02", NONE);
    // A DNS query of 5635 bytes: nobody sends one.
    check(b"\x16\x03\x12\x34\x01\x00\x00\x01", NONE);
}

#[test]
fn the_largest_hello() {
    let of_len = |len: usize| {
        let padding =
            |room: usize| HelloBody::new(vec![fixture::server_name("a.example"), (21, vec![0; room])]);
        padding(len - padding(0).message().len()).message()
    };
    // The length fields inside allow no more than 64 KiB less some bytes of extensions.
    let largest = of_len(MAX_HELLO);
    for size in [1, 1000, 16384] {
        let stream = records(&largest, size);
        assert!(stream.len() <= MAX_PRELUDE);
        assert_eq!(hello(&identify(&stream)).sni.as_deref(), Some(&b"a.example"[..]), "records of {size}");
    }
    let too_large = of_len(MAX_HELLO + 1);
    assert_eq!(identify(&record(&too_large[..16384])), Outcome::TooLarge);
    assert_eq!(identify(&records(&too_large[..9], 1)), Outcome::TooLarge);
    assert_eq!(identify(&record(b"").repeat(MAX_EMPTY_RECORDS + 1)), Outcome::TooLarge);
}

#[test]
fn malformed_is_none() {
    let ordinary = fixture::ordinary();
    let message = ordinary.message();
    let check = |what: &str, bytes: &[u8]| assert_eq!(identify(bytes), NONE, "{what}");
    check(
        "a byte behind the extensions",
        &record(&fixture::handshake(&[&ordinary.body()[..], &[0]].concat())),
    );
    check("an alert inside", &[&record(&message[..20])[..], &[0x15, 3, 1, 0, 2, 1, 0]].concat());
    let mut twice = ordinary.clone();
    twice.extensions.as_mut().unwrap().push(fixture::server_name("b.example"));
    check("an extension twice", &record(&twice.message()));
}

#[test]
fn random_damage_never_panics_and_keeps_the_prefix_property() {
    let mut random = Random::new(1);
    for (_, bytes) in vectors().iter().filter(|(_, bytes)| bytes.len() < 600) {
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len());
                damaged[at] = u8::try_from(random.below(256)).unwrap();
            }
            identify(&damaged);
        }
    }
}

/// The worst that fits the limits, in the smallest pieces: quadratic work would take many minutes.
#[test]
fn the_work_is_linear_in_the_bytes() {
    let body = fixture::handshake(&vec![0; MAX_HELLO - 4]);
    let request = [&b"GET / HTTP/1.1\r\n"[..], &vec![b'a'; 32_000]].concat();
    for stream in [records(&body, 1), records(&body, 16_000), request] {
        let begin = Instant::now();
        let mut identifier = Identifier::new(Parsers::default());
        for len in 0..stream.len() {
            assert!(matches!(identifier.look(&stream[..len]), Outcome::NeedMore { .. }), "{len}");
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    }
}
