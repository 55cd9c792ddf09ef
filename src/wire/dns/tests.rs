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

#[test]
fn our_queries_can_be_read_back() {
    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let message = encode_query(7, name, TYPE_AAAA);
        let query = message.as_deref().map(|m| parse_query(m).unwrap());
        assert_eq!(query.as_ref().map(|q| (q.id, &*q.name, q.qtype)), expected.map(|n| (7, n, TYPE_AAAA)));
    }
    check("www.example.com", Some("www.example.com"));
    check("www.example.com.", Some("www.example.com"));
    check("_dns.x", Some("_dns.x"));
    check("", None);
    check(".", None);
    check("a..b", None);
    check(".a", None);
    check("a b", None);
    check("b\u{fc}cher.example", None);
    check(&"a".repeat(63), Some(&"a".repeat(63)));
    check(&"a".repeat(64), None);
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    check(&long, Some(&long));
    check(&format!("{long}d"), None);
}

#[test]
fn a_query_ends_with_edns() {
    let message = encode_query(1, "a", TYPE_A).unwrap();
    assert_eq!(&message[..12], [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(&message[12..], b"\x01a\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0");
}

/// An answer from `www.example.com`, with the question first. Offset 12 is the name, 16 is `example.com`.
fn answer(flags: u16, counts: [u16; 2], records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0, 7];
    bytes.extend((FLAG_RESPONSE | flags).to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(counts.iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend([0, 0]);
    bytes.extend(b"\x03www\x07example\x03com\x00\x00\x01\x00\x01");
    bytes.extend(records.concat());
    bytes
}

const A1: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01";
const A2: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x02";
/// www.example.com is an alias of cdn.example.com (TTL 10); the alias's target stands at offset 45.
const ALIAS: &[u8] = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x0a\x00\x06\x03cdn\xc0\x10";
const TARGET: &[u8] = b"\xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x03";
/// cdn.example.com is an alias of www.example.com.
const LOOP: &[u8] = b"\xc0\x2d\x00\x05\x00\x01\x00\x00\x00\x0a\x00\x02\xc0\x0c";
const OTHER: &[u8] = b"\x05other\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x63";
/// TTL 600, minimum 300.
const SOA: &[u8] = b"\xc0\x10\x00\x06\x00\x01\x00\x00\x02\x58\x00\x16\x00\x00\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\x01\x2c";

fn read(message: &[u8]) -> Result<Answer, AnswerError> {
    parse_answer(message, 7, "WWW.example.com.", TYPE_A)
}

#[test]
fn answers() {
    #[track_caller]
    fn check(counts: [u16; 2], records: &[&[u8]], addrs: &[&str], ttl_secs: Option<u32>) {
        let addrs = addrs.iter().map(|a| a.parse().unwrap()).collect();
        let expected = Answer { rcode: RCODE_OK, truncated: false, addrs, ttl_secs };
        assert_eq!(read(&answer(0x0180, counts, records)), Ok(expected));
    }
    check([2, 0], &[A1, A2], &["192.0.2.1", "192.0.2.2"], Some(30));
    check([2, 0], &[ALIAS, TARGET], &["192.0.2.3"], Some(10));
    check([1, 0], &[ALIAS], &[], None);
    check([1, 1], &[ALIAS, SOA], &[], Some(10));
    check([0, 1], &[SOA], &[], Some(300));
    check([0, 0], &[], &[], None);
    check([2, 0], &[OTHER, A1], &["192.0.2.1"], Some(60));
    check([1, 0], &[OTHER], &[], None);
    // A top bit set counts as zero, other classes and types are passed over.
    check([1, 0], &[b"\xc0\x0c\0\x01\0\x01\xff\0\0\0\0\x04\xc0\0\x02\x01"], &["192.0.2.1"], Some(0));
    check([1, 0], &[b"\xc0\x0c\0\x01\0\x03\0\0\0\x01\0\x04\xc0\0\x02\x01"], &[], None);
    check([2, 0], &[b"\xc0\x0c\0\x63\0\x01\0\0\0\x01\0\x01x", A1], &["192.0.2.1"], Some(60));
}

#[test]
fn what_is_no_answer() {
    #[track_caller]
    fn check(message: &[u8], expected: AnswerError) {
        assert_eq!(read(message), Err(expected));
    }
    let good = answer(0, [1, 0], &[A1]);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert!(read(&good).is_ok());
    check(&changed(1, 8), AnswerError::NotOurs); // id
    check(&changed(2, 0), AnswerError::NotOurs); // a query
    check(&changed(13, b'v'), AnswerError::NotOurs); // name
    check(&changed(30, 28), AnswerError::NotOurs); // type
    check(&changed(32, 3), AnswerError::NotOurs); // class
    check(&changed(5, 0), AnswerError::Malformed); // no question
    check(&good[..11], AnswerError::NotOurs);
    check(&answer(0, [2, 0], &[ALIAS, LOOP]), AnswerError::Malformed);
    check(&answer(0, [1, 0], &[b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x03\xc0\0\x02"]), AnswerError::Malformed);
    // A byte behind the name that the alias leads to.
    check(&answer(0, [1, 0], &[b"\xc0\x0c\0\x05\0\x01\0\0\0\x01\0\x03\xc0\x10\0"]), AnswerError::Malformed);
    check(
        &answer(0, [1, 0], &[b"\xc0\x21\0\x01\0\x01\0\0\0\x01\0\x04\xc0\0\x02\x01"]),
        AnswerError::Malformed,
    );
}

#[test]
fn refusals_and_truncation() {
    let rcode = |flags| read(&answer(flags, [0, 0], &[])).map(|a| (a.rcode, a.truncated));
    assert_eq!(rcode(0x0003), Ok((3, false)));
    assert_eq!(rcode(0x0002), Ok((2, false)));
    assert_eq!(rcode(0x0005), Ok((5, false)));
    // What does not fit may be cut anywhere.
    assert_eq!(read(&answer(0x0200, [9, 0], &[&A1[..5]])).map(|a| a.truncated), Ok(true));
    // A refusal without the question.
    assert_eq!(read(b"\x00\x07\x80\x01\0\0\0\0\0\0\0\0").map(|a| a.rcode), Ok(1));
    assert_eq!(read(b"\x00\x07\x80\x03\0\0\0\0\0\0\0\0"), Err(AnswerError::Malformed));
}

#[test]
fn no_prefix_of_an_answer_is_one() {
    let whole = answer(0, [2, 1], &[ALIAS, TARGET, SOA]);
    // The addresses are known before the authority section, which is then not read.
    let enough = whole.len() - SOA.len();
    for n in 0..=whole.len() {
        assert_eq!(read(&whole[..n]).is_ok(), n >= enough, "{n} bytes");
    }
}

#[test]
fn every_byte_may_be_anything() {
    let whole = answer(0, [2, 1], &[ALIAS, LOOP, SOA]);
    for at in 0..whole.len() {
        for to in 0..=255 {
            let mut bytes = whole.clone();
            bytes[at] = to;
            let _ = read(&bytes);
            let _ = parse_query(&bytes);
        }
    }
}

#[test]
fn hostile_counts_and_pointers_cost_little() {
    // As many records as a message can hold, each a chain of pointers.
    let mut bytes = answer(0, [u16::MAX, u16::MAX], &[]);
    while bytes.len() < 65_000 {
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
    }
    assert_eq!(read(&bytes).map(|a| a.addrs.len()), Ok(MAX_ADDRESSES));
}

#[test]
fn pointers_lead_backwards_and_have_an_end() {
    // Behind the question, records whose owners each point to the owner before.
    let chain = |length: usize| {
        let mut bytes = answer(0, [length as u16, 0], &[]);
        let mut target = HEADER_LEN;
        for _ in 0..length {
            let start = bytes.len();
            bytes.extend((0xc000 | target as u16).to_be_bytes());
            bytes.extend(b"\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
            target = start;
        }
        read(&bytes).map(|a| a.addrs.len())
    };
    assert_eq!(chain(MAX_POINTERS), Ok(MAX_POINTERS));
    assert_eq!(chain(MAX_POINTERS + 1), Err(AnswerError::Malformed));
}

#[test]
fn a_list_too_long_says_nothing_about_absence() {
    let mut records = vec![OTHER; MAX_RECORDS];
    records.push(SOA);
    let ttl_secs = |answers| read(&answer(0, [answers, 1], &records)).map(|a| a.ttl_secs);
    assert_eq!(ttl_secs(MAX_RECORDS as u16), Ok(Some(300)));
    assert_eq!(ttl_secs(MAX_RECORDS as u16 + 1), Ok(None));
}
