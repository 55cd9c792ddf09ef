//! Messages for the tests of more than one module.

use std::path::Path;

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
