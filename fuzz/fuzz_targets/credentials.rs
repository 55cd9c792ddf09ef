//! Credentials and what they are checked against: Basic fields, hashes, files of users.
#![no_main]

use std::collections::HashSet;

use calamary::auth::CryptHash;
use calamary::auth::hash::MAX_ROUNDS;
use calamary::auth::users::MAX_USERS;
use calamary::config::users::{UserFile, parse_file};
use calamary::wire::basic::{Basic, MAX_DECODED};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    basic(text);
    basic(&format!("Basic {text}"));
    for line in text.lines() {
        hash(line);
    }
    file(text);
});

/// What is read is what is written again: there is one way to write it.
fn basic(value: &str) {
    let Some(basic) = Basic::parse(value) else { return };
    let (name, password) = (basic.name(), basic.password());
    assert!(!name.contains(&b':') && name.len() + password.len() < MAX_DECODED);
    let token = encode(&[name, b":", password].concat());
    let (_, written) = value.split_once(' ').unwrap();
    assert_eq!(token, written.trim_matches(' '));
}

fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * i) & 63).unwrap();
            out.push(if i <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    out
}

/// An accepted hash stays within its bounds; it is not computed here, which would be all that happens.
fn hash(text: &str) {
    let Ok(hash) = CryptHash::parse(text) else { return };
    assert_eq!(hash.as_str(), text);
    assert!(text.is_ascii() && text.len() <= 3 + "rounds=200000$".len() + 17 + 86);
    if let Some((_, rest)) = text.split_once("rounds=") {
        let rounds: u32 = rest.split('$').next().unwrap().parse().unwrap();
        assert!((1000..=MAX_ROUNDS).contains(&rounds));
    }
}

fn file(text: &str) {
    let UserFile { users, bad } = parse_file(text);
    assert!(users.len() <= MAX_USERS && users.len() + bad.len() <= text.lines().count());
    let mut names = HashSet::new();
    for (name, _) in &users {
        assert!(!name.is_empty() && !name.contains(':') && names.insert(name.to_lowercase()), "{name:?}");
    }
    for (number, why) in &bad {
        assert!((1..=text.lines().count()).contains(number) && !why.contains('\n'), "{why:?}");
    }
}
