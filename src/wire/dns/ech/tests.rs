//! Messages made by another program, with and without ECH, and what hostile ones do.

use std::path::Path;

use super::super::testing::Reply;
use super::*;
use crate::wire::tls::ech::testing::{config, list};

/// Name, and the message before and after, both as dnspython writes them.
pub(crate) fn vectors() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/dns");
    let hex = |line: &str| -> Vec<u8> {
        let digits: Vec<u8> = line.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let (before, after) = text.trim().split_once('\n').unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), hex(before), hex(after))
    };
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let hex_files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "hex"));
    let vectors: Vec<_> = hex_files.map(|path| read(&path)).collect();
    assert!(vectors.len() >= 8, "the vectors are missing");
    vectors
}

/// A response to a query for www.example.com HTTPS, with these answers. The name stands at offset 12, `example.com` at
/// 16; the answers begin at 33.
pub(crate) fn response(answers: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(answers.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0];
    bytes.extend(b"\x03www\x07example\x03com\x00\x00\x41\x00\x01");
    bytes.extend(answers.concat());
    bytes
}

/// A record of the name at offset 12.
pub(crate) fn record(rtype: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [b"\xc0\x0c\x00", &[rtype][..], b"\x00\x01\x00\x00\x00\x3c", &length, data].concat()
}

pub(crate) fn https(params: &[Vec<u8>]) -> Vec<u8> {
    record(65, &[&[0, 1, 0][..], &params.concat()].concat())
}

pub(crate) fn param(key: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[0, key][..], &length, value].concat()
}

pub(crate) fn ech() -> Vec<u8> {
    param(5, &list(&[config(0xfe0d, "public.example")]))
}

/// A response in which ECH is published.
pub(crate) fn answer_with_ech() -> Vec<u8> {
    response(&[https(&[ech()])])
}

#[test]
fn other_programs_write_the_same_message_without_it() {
    for (name, before, after) in vectors() {
        let stripped = strip_ech(&before);
        assert_eq!(stripped.as_ref().unwrap_or(&before), &after, "{name}");
        assert_eq!(stripped.is_none(), before == after, "{name}");
        assert_eq!(strip_ech(&after), None, "{name}, once more");
        assert_eq!(published_ech(&after), [], "{name}, afterwards");
    }
}

#[test]
fn what_is_published() {
    let read = |wanted: &str| {
        let (_, before, _) = vectors().into_iter().find(|(name, ..)| name == wanted).unwrap();
        let text = |p: Published| format!("{} {} {}", p.owner, p.public_names.join(","), p.ttl_secs);
        published_ech(&before).into_iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(read("cloudflare"), ["www.example.com cloudflare-ech.com 300"]);
    assert_eq!(
        read("pointers-behind"),
        [
            "cdn.example.net cloudflare-ech.com 60",
            "cdn.example.net public.example,other.example 60",
            "_dns.ns1.provider.test cloudflare-ech.com 3600",
        ]
    );
    assert_eq!(read("addresses"), [""; 0]);
}

#[track_caller]
fn check(before: &[u8], after: Option<&[u8]>) {
    let stripped = strip_ech(before);
    assert_eq!(stripped.as_deref(), after);
    if let Some(stripped) = stripped {
        assert_eq!(strip_ech(&stripped), None, "twice");
    }
}

#[test]
fn parameters_in_every_order_and_number() {
    let alpn = param(1, b"\x02h2");
    let with = |params: &[Vec<u8>]| response(&[https(params)]);
    let plain = with(std::slice::from_ref(&alpn));
    check(&with(&[alpn.clone(), ech()]), Some(&plain));
    check(&with(&[ech(), alpn.clone()]), Some(&plain));
    check(&with(&[ech(), ech()]), Some(&with(&[])));
    check(&with(&[param(5, b"")]), Some(&with(&[])));
    check(&with(&[param(5, b"no list")]), Some(&with(&[])));
    check(&plain, None);
    check(&with(&[]), None);
    // `mandatory` names what is there, else the record is of no use.
    check(
        &with(&[param(0, &[0, 1, 0, 5]), alpn.clone(), ech()]),
        Some(&with(&[param(0, &[0, 1]), alpn.clone()])),
    );
    check(&with(&[param(0, &[0, 5]), ech()]), Some(&with(&[])));
    check(&with(&[param(0, &[0, 5]), alpn.clone()]), None);
    check(&with(&[param(0, &[5]), ech()]), None);
}

#[test]
fn pointers_into_what_has_moved() {
    // An alias behind the record, and an owner that points into the alias's target.
    let first = https(&[ech()]);
    let name_at = |before: &[u8]| u16::try_from(33 + before.len() + 12).unwrap() | 0xc000;
    let behind = |before: &[u8]| {
        let pointer = name_at(before).to_be_bytes();
        [&pointer[..], b"\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01"].concat()
    };
    let alias = record(5, b"\x03cdn\xc0\x10");
    let before = response(&[first.clone(), alias.clone(), behind(&first)]);
    let plain = https(&[]);
    check(&before, Some(&response(&[plain.clone(), alias, behind(&plain)])));
    // The target may be compressed, though it should not.
    let compressed = |params: &[u8]| record(65, &[b"\0\x01\xc0\x10", params].concat());
    check(&response(&[compressed(&ech())]), Some(&response(&[compressed(b"")])));
    // Into the part that goes away: whatever the name is, it would become another one.
    let inside =
        |at: u16| [&(0xc000 | at).to_be_bytes()[..], b"\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01"].concat();
    let short = https(&[param(5, b"\x01a\x00")]);
    check(&response(&[short.clone(), inside(33 + 12 + 3 + 4)]), None);
    // Into RDATA of a type without names, whose own pointer nobody knows to be one.
    let text = record(16, b"\x03cdn\xc0\x3f");
    let text_at = 33 + u16::try_from(short.len()).unwrap() + 12;
    check(&response(&[short, text, inside(text_at)]), None);
}

#[test]
fn what_is_passed_on_as_it_is() {
    let whole = response(&[https(&[ech()])]);
    assert!(strip_ech(&whole).is_some());
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    check(&changed(2, 0x01), None); // a query
    check(&changed(2, 0xa9), None); // the response to an update
    check(&changed(7, 2), None); // another record that is not there
    check(&changed(30, 252), None); // a zone transfer
    assert!(strip_ech(&changed(36, 64)).is_some()); // SVCB
    check(&changed(38, 3), None); // another class
    check(&changed(47, 0xc0), None); // a target that goes on
    for len in 0..whole.len() {
        check(&whole[..len], None);
    }
    check(&response(&[https(&[ech()]), record(250, b"")]), None); // signed as a whole
    let address =
        Reply::addrs(&["192.0.2.1"], 60).to(&super::super::encode_query(1, "a.example", 1).unwrap());
    check(&address, None);
}

#[test]
fn bytes_behind_the_records_stay() {
    let (before, after) = (response(&[https(&[ech()])]), response(&[https(&[])]));
    check(&[&before[..], b"behind"].concat(), Some(&[&after[..], b"behind"].concat()));
}

#[test]
fn no_more_is_learnt_than_the_bound() {
    let many = response(&vec![https(&[ech()]); MAX_PUBLISHED + 3]);
    assert_eq!(published_ech(&many).len(), MAX_PUBLISHED);
    // What is no name of a host is nothing to learn.
    let odd = param(5, &list(&[config(0xfe0d, "no name"), config(0xfe0d, "good.example")]));
    assert_eq!(published_ech(&response(&[https(&[odd])]))[0].public_names, ["good.example".into()]);
}

#[test]
fn every_byte_may_be_anything() {
    for (name, before, _) in vectors() {
        for at in 0..before.len() {
            for to in [0, 1, 5, 0x3f, 0xc0, 0xff, before[at] ^ 1] {
                let mut bytes = before.clone();
                bytes[at] = to;
                let _ = published_ech(&bytes);
                if let Some(stripped) = strip_ech(&bytes) {
                    assert!(stripped.len() < bytes.len(), "{name} {at} {to}");
                    assert_eq!(strip_ech(&stripped), None, "{name} {at} {to}");
                }
            }
        }
    }
}
