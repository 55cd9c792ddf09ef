//! DNS: a question that was read can be asked, and an answer says no more than its bounds allow.
#![no_main]

use calamary::wire::dns::{
    AnswerError, MAX_NAME_TEXT, RCODE_NAME_ERROR, RCODE_OK, TYPE_A, TYPE_AAAA, encode_query, is_host_name,
    parse_answer, parse_query,
};
use libfuzzer_sys::fuzz_target;

/// The third byte's bit for a response (QR).
const RESPONSE: u8 = 0x80;

fuzz_target!(|data: &[u8]| {
    query(data);
    answer(data);
    if let Ok(text) = std::str::from_utf8(data) {
        name(text);
    }
});

fn query(data: &[u8]) {
    let Some(query) = parse_query(data) else { return };
    assert!(query.name.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{:?}", query.name);
    // What is escaped is no host's name.
    if query.name.contains('\\') || &*query.name == "." {
        return;
    }
    assert!(is_host_name(&query.name), "{:?}", query.name);
    let message = encode_query(query.id, &query.name, query.qtype).unwrap();
    assert_eq!(parse_query(&message), Some(query));
}

fn answer(data: &[u8]) {
    let (Some(&[high, low]), Some(&flags)) = (data.first_chunk::<2>(), data.get(2)) else {
        assert_eq!(parse_answer(data, 0, "example.com", TYPE_A), Err(AnswerError::NotOurs));
        return;
    };
    let id = u16::from_be_bytes([high, low]);
    assert_eq!(parse_answer(data, !id, "example.com", TYPE_A), Err(AnswerError::NotOurs));
    // The question that it answers.
    let mut asked = data.to_vec();
    asked[2] = flags & !RESPONSE;
    let Some(query) = parse_query(&asked) else { return };
    for qtype in [TYPE_A, TYPE_AAAA] {
        let Ok(answer) = parse_answer(data, id, &query.name, qtype) else { continue };
        assert!(flags & RESPONSE != 0);
        assert!(answer.addrs.iter().all(|addr| addr.is_ipv4() == (qtype == TYPE_A)));
        assert!(answer.addrs.len() <= 32);
        assert!(answer.addrs.is_empty() || !answer.truncated && answer.ttl_secs.is_some());
        assert!(answer.ttl_secs.is_none_or(|secs| secs <= u32::MAX / 2));
        assert!(answer.addrs.is_empty() || matches!(answer.rcode, RCODE_OK | RCODE_NAME_ERROR));
        let upper = query.name.to_ascii_uppercase();
        assert_eq!(parse_answer(data, id, &upper, qtype), Ok(answer), "case is ignored");
    }
}

fn name(text: &str) {
    let message = encode_query(7, text, TYPE_A);
    assert_eq!(message.is_some(), is_host_name(text));
    let Some(message) = message else { return };
    let query = parse_query(&message).unwrap();
    assert!(query.name.len() <= MAX_NAME_TEXT || query.name.contains('\\'));
    if !text.contains('\\') {
        assert_eq!(&*query.name, text.strip_suffix('.').unwrap_or(text));
    }
}
