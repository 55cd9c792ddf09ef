//! The ClientHello parser beside rustls: whatever rustls' server side reads as a hello, the identification reads as the
//! same hello. What rustls refuses may still be a hello here, as other servers take it.
//!
//! One exception: to rustls a name of an unknown type takes the rest of the server_name list, whatever it is. RFC 6066
//! §3 gives every type a length, so that such a list is malformed here (as it is to OpenSSL), or has a host_name behind.

// clippy.toml lets only test functions panic, and everything here serves them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;

use calamary::identify::tcp::Identifier;
use calamary::identify::{Identity, Outcome, Parsers};
use calamary::wire::tls::ClientHello;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::DnsName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

/// Damaged copies that are made of each hello.
const MUTATIONS: usize = 2000;

/// What both sides tell of a hello.
#[derive(Debug, PartialEq, Eq)]
struct Hello {
    name: Option<String>,
    alpn: Vec<Vec<u8>>,
}

/// As rustls reads it.
fn oracle(stream: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            return Some(Hello {
                name: hello.server_name().map(str::to_ascii_lowercase),
                alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
            });
        }
    }
    None
}

/// As calamary reads it.
fn ours(stream: &[u8]) -> Option<ClientHello> {
    match Identifier::new(Parsers::default()).look(stream) {
        Outcome::Identified(Identity::Tls(hello)) => Some(*hello),
        _ => None,
    }
}

/// Compares the two; whether rustls read a hello.
fn check(what: &str, stream: &[u8]) -> bool {
    let Some(expected) = oracle(stream) else { return false };
    if has_name_of_unknown_type(stream).unwrap_or(false) {
        return false;
    }
    let Some(hello) = ours(stream) else { panic!("{what}: rustls reads {expected:?} in {stream:02x?}") };
    let sni = hello.sni.as_deref().map(|sni| String::from_utf8_lossy(sni).to_ascii_lowercase());
    match expected.name {
        // rustls leaves out the root's dot; here a name stays as sent.
        Some(name) => {
            assert_eq!(sni.as_deref().map(|sni| sni.strip_suffix('.').unwrap_or(sni)), Some(&*name), "{what}")
        }
        // And it leaves out what is no DNS name.
        None => assert!(sni.as_deref().is_none_or(|sni| DnsName::try_from(sni).is_err()), "{what}: {sni:?}"),
    }
    let alpn: Vec<Vec<u8>> = hello.alpn.iter().map(|offer| offer.to_vec()).collect();
    assert_eq!(alpn, expected.alpn, "{what}");
    true
}

/// Whether the server_name list of a hello, which rustls has read, has something else than one host_name.
fn has_name_of_unknown_type(stream: &[u8]) -> Option<bool> {
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        Some(head)
    }
    fn length(bytes: &mut &[u8], size: usize) -> Option<usize> {
        Some(take(bytes, size)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    }
    fn fragment<'a>(records: &mut &'a [u8]) -> Option<&'a [u8]> {
        take(records, 3)?;
        let len = length(records, 2)?;
        take(records, len)
    }
    let mut records = stream;
    let message: Vec<u8> = std::iter::from_fn(|| fragment(&mut records)).flatten().copied().collect();
    let mut hello = message.as_slice();
    take(&mut hello, 4 + 2 + 32)?;
    for size in [1, 2, 1] {
        let len = length(&mut hello, size)?;
        take(&mut hello, len)?;
    }
    take(&mut hello, 2)?;
    loop {
        let kind = length(&mut hello, 2)?;
        let len = length(&mut hello, 2)?;
        let mut data = take(&mut hello, len)?;
        if kind == 0 {
            take(&mut data, 2)?;
            let name_type = length(&mut data, 1)?;
            let len = length(&mut data, 2)?;
            return Some(name_type != 0 || take(&mut data, len).is_none() || !data.is_empty());
        }
    }
}

/// Hellos of rustls clients in many configurations.
fn rustls_hellos() -> Vec<Vec<u8>> {
    let all = ring::default_provider();
    let one_group = CryptoProvider { kx_groups: vec![ring::kx_group::SECP384R1], ..ring::default_provider() };
    let no_aes = CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ring::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    };
    let versions: [&[&SupportedProtocolVersion]; 3] =
        [&[&version::TLS12], &[&version::TLS13], &[&version::TLS12, &version::TLS13]];
    let protocols: [&[&[u8]]; 4] = [&[], &[b"h2"], &[b"http/1.1", b"h2"], &[b"\xba\xba", &[b'x'; 255]]];
    let long_name = [["a"; 31].join("."), ["b"; 60].join(".")].join(".");
    let names =
        ["example.com", "UPPER.Example.COM", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1", &long_name];

    let mut hellos = Vec::new();
    for provider in [all, one_group, no_aes].map(Arc::new) {
        for versions in versions {
            for protocols in protocols {
                for (i, name) in names.into_iter().enumerate() {
                    let mut config = ClientConfig::builder_with_provider(provider.clone())
                        .with_protocol_versions(versions)
                        .unwrap()
                        .with_root_certificates(RootCertStore::empty())
                        .with_no_client_auth();
                    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
                    config.enable_sni = i % 5 != 1;
                    config.max_fragment_size = [None, Some(64), Some(100)][i % 3];
                    let name = name.to_owned().try_into().unwrap();
                    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
                    let mut hello = Vec::new();
                    while client.wants_write() {
                        client.write_tls(&mut hello).unwrap();
                    }
                    hellos.push(hello);
                }
            }
        }
    }
    hellos
}

/// Hellos of real clients, tests/vectors/tls.
fn vectors() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tls");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut hexes: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "hex")).collect();
    hexes.sort();
    hexes
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        })
        .collect()
}

#[test]
fn hellos_of_rustls_clients_are_the_same() {
    for (i, hello) in rustls_hellos().iter().enumerate() {
        assert!(check(&format!("configuration {i}"), hello), "rustls reads its own hello {i}");
    }
}

#[test]
fn damaged_hellos_are_the_same_wherever_rustls_takes_them() {
    let mut random = Random(0x2545_f491);
    let mut taken = 0;
    let hellos = [vectors(), rustls_hellos().into_iter().step_by(23).collect()].concat();
    for (i, hello) in hellos.iter().enumerate() {
        for round in 0..MUTATIONS {
            let damaged = damage(hello, &mut random);
            taken += u32::from(check(&format!("hello {i}, round {round}"), &damaged));
        }
    }
    // Most damage hits values that a parser does not judge: without hellos that are taken, nothing was compared.
    assert!(taken > 1000, "only {taken} were compared");
}

/// A copy with one to three small changes: bytes, lengths off by one, parts repeated or left out; cut into new records
/// at times, so that the damage is not only in the first one.
fn damage(hello: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = hello.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.byte(),
            1 => bytes[at] = bytes[at].wrapping_add(1),
            2 => bytes[at] = bytes[at].wrapping_sub(1),
            3 => bytes[at] ^= 1 << random.below(8),
            4 => {
                let end = (at + 1 + random.below(8)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
            // A change that keeps all lengths is the likeliest to be taken.
            _ => {
                let other = random.below(bytes.len());
                bytes.swap(at, other);
            }
        }
    }
    if random.below(2) == 0 && bytes.len() > 5 {
        let size = 1 + random.below(200);
        let cut = bytes[5..].chunks(size).map(|fragment| {
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            [&[0x16, 3, 1], &length[..], fragment].concat()
        });
        return cut.collect::<Vec<_>>().concat();
    }
    bytes
}

/// xorshift32: the same numbers on every run.
struct Random(u32);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        usize::try_from(self.0).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
