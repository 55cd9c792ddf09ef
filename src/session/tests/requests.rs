//! Absolute-form requests on the HTTP proxy, one after the other.

use super::In::*;
use super::*;

fn http(rules: &[&str]) -> String {
    config("mode: http", rules)
}

fn get(host: &str) -> Vec<u8> {
    format!("GET http://{host}/x HTTP/1.1\r\nHost: ignored.example\r\n\r\n").into_bytes()
}

/// `timeout.idle`, in milliseconds.
const IDLE: u64 = 7_440_000;

#[test]
fn each_request_is_decided_by_itself() {
    let plan = http(&["action: deny, dns: blocked.example", "action: accept, protoL5: http"]);
    let (good, bad) = (get("a.example"), get("blocked.example"));
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Slowly(&good), "resolve a.example"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:80"),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
            (Pause(5000), ""),
            (Answered(b""), "read until 7445000"),
            (Bytes(&bad), "Denied 0, 403, read until 7445000"),
            (Bytes(&good), "resolve a.example"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:80"),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
            (Answered(b""), "read until 7445000"),
            (Eof, "close finished: quiet"),
        ],
    );
}

#[test]
fn a_pipeline_is_served_one_by_one() {
    let plan = http(&["action: deny, dns: blocked.example", "action: accept"]);
    let (good, bad) = (get("203.0.113.7"), get("blocked.example"));
    let both = [&good[..], &good[..], &bad[..]].concat();
    let behind = format!("exchange GET /x HTTP/1.1 +{}", good.len() + bad.len());
    let behind_last = format!("exchange GET /x HTTP/1.1 +{}", bad.len());
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&both), "Accept 1, dial 203.0.113.7:80"),
            (Connected, &behind),
            (Answered(&both[good.len()..]), "Accept 1, dial 203.0.113.7:80"),
            (Connected, &behind_last),
            (Answered(&bad), "Denied 0, 403, read until 7440000"),
        ],
    );
    // A denied request with another behind it ends the connection, or a pipeline of them would nest as deep as it is long.
    talk(
        &plan,
        &[(Start, "read until 1000"), (Bytes(&[&bad[..], &good].concat()), "Denied 0, close denied: 403")],
    );
}

#[test]
fn the_refusal_of_a_head_request_has_no_body() {
    let plan = http(&["action: deny, dns: blocked.example", "action: accept"]);
    let head = b"HEAD http://blocked.example/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut simulation = talk(&plan, &[(Start, "read until 1000")]);
    let step = simulation.tell(Bytes(head));
    assert!(matches!(step, Step::Read { .. }), "{step:?}");
    // Its client takes bytes behind the head for the next answer.
    let reply = simulation.session.take_reply();
    assert!(reply.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&reply));

    let last_words = |head: &[u8], happening: &[In<'_>]| {
        let mut simulation = talk(&plan, &[(Start, "read until 1000")]);
        let mut step = simulation.tell(Bytes(head));
        for input in happening {
            step = simulation.tell(*input);
        }
        let Step::Close(Closing { wire: Wire::Say(words), .. }) = step else { panic!("{step:?}") };
        words
    };
    let closing = b"HEAD http://blocked.example/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(last_words(closing, &[]).ends_with(b"\r\n\r\n"));
    let allowed = b"HEAD http://203.0.113.7/ HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(last_words(allowed, &[Unconnected(DialError::Refused)]).ends_with(b"\r\n\r\n"));
    assert!(last_words(allowed, &[Connected, Broke(CloseReason::BadResponse, false)]).ends_with(b"\r\n\r\n"));
    let asked = get("203.0.113.7");
    assert!(
        last_words(&asked, &[Connected, Broke(CloseReason::BadResponse, false)]).ends_with(b"valid HTTP\n")
    );
}

#[test]
fn a_denied_request_with_a_body_ends_the_connection() {
    let plan = http(&["action: deny"]);
    let post = b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(post), "Denied 0, close denied: 403")]);
    let chunked = b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(chunked), "Denied 0, close denied: 403")]);
    let old = b"GET http://a.example/ HTTP/1.0\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(old), "Denied 0, close denied: 403")]);
}

#[test]
fn a_body_that_came_with_its_head_goes_on() {
    let plan = http(&["action: accept"]);
    let post = b"POST http://203.0.113.7:8080/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(post), "Accept 0, dial 203.0.113.7:8080"),
            (Connected, "exchange POST / HTTP/1.1 +3, then close"),
        ],
    );
}

#[test]
fn what_cannot_be_understood() {
    let plan = http(&["action: accept"]);
    let check = |bytes: &[u8], expected: &str| {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(bytes), expected)]);
    };
    check(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "close bad_request: 400");
    check(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "close bad_request: 400");
    check(b"GET http://a.example/ HTTP/1.1\r\n\r\n", "close bad_request: 400");
    check(b"GET https://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "close bad_request: 400");
    check(b"CONNECT a.example HTTP/1.1\r\nHost: a\r\n\r\n", "close bad_request: 400");
    check(b"GET http://a.example/ HTTP/1.1\nHost: a\n\n", "close bad_request: 400");
    let long = [b"GET http://a.example/ HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 32 * 1024]].concat();
    check(&long, "close bad_request: 431");
    check(&[&long[..], b"\r\n\r\n"].concat(), "close bad_request: 431");
}

#[test]
fn the_first_head_has_its_time_from_the_start_a_later_one_from_its_first_byte() {
    let plan = http(&["action: accept"]);
    let good = get("203.0.113.7");
    talk(&plan, &[(Start, "read until 1000"), (Silence, "close process_timeout: 408")]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Pause(900), ""),
            (Bytes(b"GET ht"), "read until 1000"),
            (Silence, "close process_timeout: 408"),
        ],
    );
    let served: &[(In<'_>, &str)] = &[
        (Start, "read until 1000"),
        (Bytes(&good), "Accept 0, dial 203.0.113.7:80"),
        (Connected, "exchange GET /x HTTP/1.1 +0"),
        (Answered(b""), "read until 7440000"),
    ];
    go_on(&mut talk(&plan, served), &[(Silence, "close idle: quiet")]);
    go_on(
        &mut talk(&plan, served),
        &[
            (Pause(IDLE - 1), ""),
            (Bytes(b"GET ht"), "read until 7440999"),
            (Silence, "close process_timeout: 408"),
        ],
    );
    go_on(
        &mut talk(&plan, served),
        &[(Bytes(b"GET ht"), "read until 1000"), (Eof, "close client_gone: quiet")],
    );
    talk(&plan, &[(Start, "read until 1000"), (Eof, "close client_gone: quiet")]);
}

/// Some clients send an empty line behind a body (RFC 9112 §2.2). It began a request, which was then awaited for
/// `timeout.process`, and a connection that was only kept ended with 408.
#[test]
fn an_empty_line_begins_no_request() {
    let plan = http(&["action: accept"]);
    let good = get("203.0.113.7");
    let served: &[(In<'_>, &str)] = &[
        (Start, "read until 1000"),
        (Bytes(&good), "Accept 0, dial 203.0.113.7:80"),
        (Connected, "exchange GET /x HTTP/1.1 +0"),
        (Answered(b"\r\n"), "read until 7440000"),
        (Pause(5000), ""),
        // It does not make the connection last longer, either.
        (Bytes(b"\r\n"), "read until 7440000"),
        (Bytes(b"\r\n\r\n"), "read until 7440000"),
        // In two segments.
        (Slowly(b"\r\n"), "read until 7440000"),
    ];
    go_on(&mut talk(&plan, served), &[(Silence, "close idle: quiet")]);
    go_on(&mut talk(&plan, served), &[(Eof, "close finished: quiet")]);
    let behind_lines = [b"\r\n", &good[..]].concat();
    for next in [&good, &behind_lines] {
        go_on(
            &mut talk(&plan, served),
            &[(Bytes(next), "Accept 0, dial 203.0.113.7:80"), (Connected, "exchange GET /x HTTP/1.1 +0")],
        );
        let answered = [&served[..3], &[(Answered(next), "Accept 0, dial 203.0.113.7:80")]].concat();
        talk(&plan, &answered);
    }
    // Before the first request there is a deadline already.
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(b"\r\n"), "read until 1000"),
            (Silence, "close process_timeout: 408"),
        ],
    );
}

/// They waited for the deadline: what they had sent could be the beginning of a very long request line.
#[test]
fn tls_and_socks_are_told_at_the_first_byte() {
    let plan = http(&["action: accept"]);
    let hello = hello("www.example.com");
    for first in [&hello[..], &hello[..1], b"\x05\x01\0", b"\x04\x01", &[0x80, 0x2e]] {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(first), "close wrong_protocol: 400")]);
    }
    for first in [&b"G"[..], b"\r", b"\n", b" "] {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(first), "read until 1000")]);
    }
}

#[test]
fn redirects() {
    let plan = http(&["action: redirect"]);
    let check = |request: &str, expected: &str| {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(request.as_bytes()), expected)]);
    };
    check("GET http://a.example:81/p?q HTTP/1.1\r\nHost: b\r\n\r\n", "Redirect 0, close redirected: 301");
    check("HEAD http://a.example/ HTTP/1.1\r\nHost: b\r\n\r\n", "Redirect 0, close redirected: 301");
    check(
        "POST http://a.example/ HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nx",
        "Redirect 0, close redirected: 308",
    );
    check("OPTIONS http://a.example HTTP/1.1\r\nHost: b\r\n\r\n", "Denied 0, 403, read until 7440000");
}

#[test]
fn errors_of_the_way_to_the_server() {
    let plan = http(&["action: accept"]);
    let named = get("a.example");
    let asked: &[(In<'_>, &str)] = &[(Start, "read until 1000"), (Bytes(&named), "resolve a.example")];
    let check = |input, expected| go_on(&mut talk(&plan, asked), &[(input, expected)]);
    check(NoAddrs(ResolveError::NotFound), "close name_not_found: 502");
    check(NoAddrs(ResolveError::Failed), "close resolve_failed: 504");
    let dialled = |input, expected| {
        let mut simulation = talk(&plan, asked);
        go_on(
            &mut simulation,
            &[(Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:80"), (input, expected)],
        );
    };
    dialled(Unconnected(DialError::Refused), "close connect_refused: 502");
    dialled(Unconnected(DialError::TimedOut), "close connect_timeout: 504");
    let broke = |reason, answered, expected: &str| {
        let mut simulation = talk(&plan, asked);
        go_on(
            &mut simulation,
            &[
                (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:80"),
                (Connected, "exchange GET /x HTTP/1.1 +0"),
                (Broke(reason, answered), expected),
            ],
        );
    };
    broke(CloseReason::ServerReset, false, "close server_reset: 502");
    broke(CloseReason::ServerReset, true, "close server_reset: reset");
    broke(CloseReason::BadResponse, false, "close bad_response: 502");
    broke(CloseReason::BadRequest, false, "close bad_request: 400");
    broke(CloseReason::Idle, false, "close idle: reset");
}

#[test]
fn the_next_request_goes_by_the_new_rules() {
    let old = http(&["action: accept"]);
    let new = http(&["action: accept, dns: other.example", "action: deny"]);
    let good = get("203.0.113.7");
    talk(
        &old,
        &[
            (Start, "read until 1000"),
            (Bytes(&good), "Accept 0, dial 203.0.113.7:80"),
            (Reload(&new), ""),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
            (Answered(b""), "read until 7440000"),
            (Bytes(&good), "Denied 1, 403, read until 7440000"),
            (Reload(&old), ""),
            // It was waited for under the rules before, but begins under these.
            (Bytes(&good), "Accept 0, dial 203.0.113.7:80"),
        ],
    );
}

/// A Host that is missing, doubled or invalid: the rule's own refusal where the rules say redirect, else the parser's.
#[test]
fn a_redirect_without_a_valid_host_is_refused() {
    for host in ["", "Host: a.example\r\nHost: a.example\r\n", "Host: a b\r\n"] {
        let request = format!("GET http://a.example/ HTTP/1.1\r\n{host}\r\n");
        let request = Bytes(request.as_bytes());
        let redirect = http(&["action: redirect, dns: a.example", "action: accept"]);
        talk(&redirect, &[(Start, "read until 1000"), (request, "Denied 0, close denied: 403")]);
        for rule in ["action: accept", "action: deny", "action: redirect, dns: b.example"] {
            talk(&http(&[rule]), &[(Start, "read until 1000"), (request, "close bad_request: 400")]);
        }
        let connect = [b"CONNECT a.example:443 HTTP/1.1\r\n", host.as_bytes(), b"\r\n"].concat();
        talk(&redirect, &[(Start, "read until 1000"), (Bytes(&connect), "close bad_request: 400")]);
    }
}

/// A head that waits for more counts among the large preludes.
#[test]
fn large_heads_have_a_common_bound() {
    let preludes: Arc<Budget> = Arc::default();
    let head = [b"GET http://a.example/ HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 30_000]].concat();
    let mut waiting = Vec::new();
    let refused = loop {
        let mut simulation = Simulation::new(&http(&["action: accept"]));
        simulation.preludes = Arc::clone(&preludes);
        simulation.happen(Start);
        let said = simulation.happen(Bytes(&head));
        if !said.starts_with("read") {
            break said;
        }
        waiting.push(simulation);
    };
    assert_eq!(refused, "close out_of_resources: 503");
    assert_eq!(preludes.used(), waiting.len() * head.len());
    drop(waiting);
    assert_eq!(preludes.used(), 0);
}
