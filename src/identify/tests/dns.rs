//! DNS over TCP.

use super::prefix::identify;
use super::*;

/// A query for www.example.com A as dig sends it, with EDNS; RFC 1035 §4.1, RFC 6891 §6.1.
fn query() -> Vec<u8> {
    let header = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01";
    let question = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01";
    let edns = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    [&header[..], question, edns].concat()
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn changed(at: usize, value: u8) -> Vec<u8> {
    let mut message = query();
    message[at] = value;
    with_length(&message)
}

#[test]
fn a_query_and_what_is_none() {
    let found = Outcome::Identified(Identity::Dns { query: Some("www.example.com".into()) });
    let whole = with_length(&query());
    let check =
        |what: &str, bytes: &[u8], expected: &Outcome| assert_eq!(identify(bytes), *expected, "{what}");
    check("a query", &whole, &found);
    check("two queries", &whole.repeat(2), &found);
    check("padded", &with_length(&[&query()[..], &[0; 400]].concat()), &found);
    check("a response", &changed(2, 0x81), &NONE);
    check("an update", &changed(2, 0x28), &NONE);
    check("no question", &changed(5, 0), &NONE);
    check("a label over the end", &changed(12, 60), &NONE);
    check("a length below any query", &[0, 16], &NONE);
    check("a length above any query", &[5, 0], &NONE);
    check(
        "an early wrong flag",
        &whole.iter().copied().take(4).chain([0xff, 0xff]).collect::<Vec<_>>(),
        &NONE,
    );
}

#[test]
fn never_begun() {
    let whole = with_length(&query());
    for len in 0..whole.len() {
        assert_eq!(at_once(&whole[..len]), NOT_BEGUN, "{len}");
    }
    assert_eq!(identify(b"\x00\x1d"), NOT_BEGUN);
}
