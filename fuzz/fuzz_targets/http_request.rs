//! HTTP requests: what is forwarded is one head that means what was looked at.
#![no_main]

use calamary::identify::tcp::Identifier;
use calamary::identify::{Identity, Outcome, Parsers};
use calamary::wire::http1::{Authority, HeadEnd, MAX_HEAD, Request, Target, forward_request, parse_request};
use calamary_fuzz::{Random, pieces};
use libfuzzer_sys::fuzz_target;

/// Fields that no server may see.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "te", "upgrade", "http2-settings", "proxy-authorization"];

fuzz_target!(|data: &[u8]| {
    let end = HeadEnd::new().find(data);
    assert_eq!(end, found_in_pieces(data), "in pieces and at once");
    let Some(head) = end.map(|end| &data[..end]) else {
        assert!(parse_request(data).is_err());
        return;
    };
    let Ok(request) = parse_request(head) else { return };
    assert_eq!(request.len, head.len());
    assert!(end == Some(data.len()) || parse_request(data).is_err(), "more than one head");
    identified(data, &request);
    if !matches!(request.target, Target::Authority { .. }) {
        forwarded(head, &request);
    }
});

fn found_in_pieces(data: &[u8]) -> Option<usize> {
    let mut head_end = HeadEnd::new();
    let mut seen = 0;
    pieces(data, &mut Random::of(data)).iter().find_map(|piece| {
        seen += piece.len();
        head_end.find(&data[..seen])
    })
}

/// What is strictly a request is one for the identification, too, with the same host.
fn identified(data: &[u8], request: &Request) {
    let Outcome::Identified(Identity::Http { host }) = Identifier::new(Parsers::default()).look(data) else {
        panic!("a request that is not identified as HTTP");
    };
    assert_eq!(host, request.host_header);
}

fn forwarded(head: &[u8], request: &Request) {
    let out = forward_request(head, request);
    assert_eq!(HeadEnd::new().find(&out), Some(out.len()), "exactly one head");
    let again = match parse_request(&out) {
        Ok(again) => again,
        // Host was added to a head that was full.
        Err(reject) if reject.status == 431 => {
            return assert!(out.len() > MAX_HEAD || request.host_header.is_none());
        }
        Err(reject) => panic!("{reject:?} to {}", out.escape_ascii()),
    };
    assert_eq!((&again.method, &again.path, again.minor), (&request.method, &request.path, request.minor));
    assert_eq!(again.body, request.body);
    assert!(again.expects_continue <= request.expects_continue);
    assert_eq!(again.proxy_authorization, None);
    match &request.target {
        Target::Absolute { host, port } => {
            let authority = Authority::parse(again.host_header.as_deref().unwrap()).unwrap();
            assert_eq!((&authority.host, authority.port.unwrap_or(80)), (host, *port));
        }
        _ => assert_eq!(again.host_header, request.host_header),
    }
    let expected = if &*request.path == "*" { Target::Asterisk } else { Target::Origin };
    assert_eq!(again.target, expected);
    for line in out.split(|&byte| byte == b'\n').skip(1) {
        let name = line.split(|&byte| byte == b':').next().unwrap().to_ascii_lowercase();
        assert!(!HOP_BY_HOP.iter().any(|hop| hop.as_bytes() == name), "{}", name.escape_ascii());
    }
    assert_eq!(forward_request(&out, &again), out, "forwarded once more it stays as it is");
}
