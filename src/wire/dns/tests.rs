use super::*;

/// A header with these flags and one question, then `rest`.
fn message(flags: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(rest);
    bytes
}

const QUESTION: &[u8] = b"\x03wWw\x07example\x03com\x00\x00\x1c\x00\x01";

#[test]
fn queries_as_text() {
    #[track_caller]
    fn check(flags: u16, rest: &[u8], expected: Option<&str>) {
        let query = parse_query(&message(flags, rest));
        assert_eq!(query.as_ref().map(|q| &*q.name), expected);
    }
    check(0x0100, QUESTION, Some("wWw.example.com"));
    check(0x0120, QUESTION, Some("wWw.example.com")); // AD, as dig sends
    check(0x0100, b"\x00\x00\x02\x00\x01", Some("."));
    check(0x0100, b"\x06a.b\\ \xff\x00\x00\x01\x00\x01", Some("a\\.b\\\\\\032\\255"));
    check(0x8100, QUESTION, None); // a response
    check(0x2800, QUESTION, None); // dynamic update
    check(0x0100, b"\xc0\x0c\x00\x01\x00\x01", None); // points to itself
    check(0x0100, b"\xc0\x00\x00\x01\x00\x01", None); // points into the header
    check(0x0100, b"\x40a\x00\x00\x01\x00\x01", None);
}

#[test]
fn id_and_type_are_the_senders() {
    let query = parse_query(&message(0x0100, QUESTION)).unwrap();
    assert_eq!((query.id, query.qtype), (0x1234, 28));
}

#[test]
fn names_end_at_255_bytes() {
    let with_last = |n: u8| {
        let mut rest = Vec::new();
        for length in [63, 63, 63, n] {
            rest.push(length);
            rest.extend(std::iter::repeat_n(b'a', usize::from(length)));
        }
        rest.extend([0, 0, 1, 0, 1]);
        parse_query(&message(0x0100, &rest)).is_some()
    };
    assert!(with_last(61));
    assert!(!with_last(62));
}

#[test]
fn no_prefix_of_a_query_is_one() {
    let whole = message(0x0100, QUESTION);
    for n in 0..whole.len() {
        assert_eq!(parse_query(&whole[..n]), None, "{n} bytes");
    }
    // What stands behind the question (EDNS) changes nothing.
    let mut longer = whole.clone();
    longer.extend([0, 0, 41]);
    assert_eq!(parse_query(&longer), parse_query(&whole));
}
