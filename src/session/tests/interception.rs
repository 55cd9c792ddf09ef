//! What is decrypted: the order of the two handshakes, what each failure tells the client, and the requests inside.

use super::*;

const TRANSPARENT: &str = "mode: transparent";
const TO: In<'_> = In::To("198.51.100.1:443");

pub(super) fn intercepting(listener: &str, rules: &[&str]) -> String {
    let certs = "certs:\n  interceptPublic: tests/vectors/certificates/authority.pem\n  \
                 interceptPrivate: tests/vectors/certificates/authority.key\n  \
                 caPublic: tests/vectors/certificates/ca.pem\n";
    certs.to_owned() + &config(listener, rules)
}

const RULES: &[&str] =
    &["path: '/ads*', action: deny", "host: .blocked.example, action: deny", "action: intercept"];

fn get(target: &str, host: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Up to where requests are awaited.
fn inside<'a>(hello: &'a [u8], secure: &'a str) -> [(In<'a>, &'a str); 5] {
    [
        (TO, "read until 1000"),
        (In::Bytes(hello), "Intercept 2, dial 198.51.100.1:443"),
        (In::Connected, "secure server until 2000"),
        (In::ServerSecured(Some(b"http/1.1")), secure),
        (In::Secured, "read until 7440000"),
    ]
}

#[test]
fn the_server_comes_first_and_each_request_inside_is_decided() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let mut simulation = talk(&intercepting(TRANSPARENT, RULES), &inside(&hello, &secure));
    let (good, ads) = (get("/", "www.example.com"), get("/x/../ads/1", "www.example.com"));
    let (blocked, absolute) =
        (get("/", "x.blocked.example"), get("http://x.blocked.example/", "www.example.com"));
    go_on(
        &mut simulation,
        &[
            (In::Pause(5000), ""),
            // An empty line before the first request (RFC 9112 §2.2) ended the connection at once.
            (In::Bytes(b"\r\n"), "read until 7440000"),
            (In::Bytes(&good), "Accept 2, exchange GET / HTTP/1.1 +0"),
            (In::Answered(b""), "read until 7445000"),
            (In::Bytes(&ads), "Denied 0, 403, read until 7445000"),
            (In::Bytes(&blocked), "Denied 1, 403, read until 7445000"),
            (In::Bytes(&absolute), "Denied 1, 403, read until 7445000"),
            (In::Bytes(b"GET"), "read until 6000"),
            (In::Bytes(&good[3..]), "Accept 2, exchange GET / HTTP/1.1 +0"),
            // A next request in hand is decided by itself, too.
            (In::Answered(&ads), "Denied 0, 403, read until 7445000"),
            (In::Bytes(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), "close bad_request: 400"),
        ],
    );
}

/// Each request goes by the clock of its own time.
#[test]
fn bedtime_begins_for_the_next_request_inside() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let rules = &["path: '/ads*', action: deny", "time: '20:00-06:00', action: deny", "action: intercept"];
    let mut simulation = Simulation::new(&intercepting(TRANSPARENT, rules));
    let good = get("/", "www.example.com");
    go_on(&mut simulation, &[(In::Clock("mon-19:59"), "")]);
    go_on(&mut simulation, &inside(&hello, &secure));
    go_on(
        &mut simulation,
        &[
            (In::Bytes(&good), "Accept 2, exchange GET / HTTP/1.1 +0"),
            (In::Answered(b""), "read until 7440000"),
            (In::Clock("mon-20:00"), ""),
            (In::Bytes(&good), "Denied 1, 403, read until 7440000"),
        ],
    );
}

#[test]
fn what_is_wrong_inside_is_answered_inside() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let check = |input: In<'_>, expected: &str| {
        let mut simulation = talk(&intercepting(TRANSPARENT, RULES), &inside(&hello, &secure));
        go_on(&mut simulation, &[(input, expected)]);
    };
    check(In::Bytes(b"GET / HTTP/1.1\r\n\r\n"), "close bad_request: 400");
    check(In::Bytes(b"PRI * HTTP/2.0\r\n\r\n"), "close bad_request: 505");
    check(In::Bytes(b"\x16\x03\x01\r\n\r\n"), "close bad_request: 400");
    check(In::Silence, "close idle: quiet");
    check(In::Eof, "close finished: quiet");
    let mut simulation = talk(&intercepting(TRANSPARENT, RULES), &inside(&hello, &secure));
    let begun = [(In::Bytes(&b"GET /"[..]), "read until 1000"), (In::Silence, "close process_timeout: 408")];
    go_on(&mut simulation, &begun);
}

#[test]
fn what_goes_wrong_on_the_way_is_an_alert_for_the_client() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let begun = inside(&hello, &secure);
    let check = |lines: usize, input: In<'_>, expected: &str| {
        let mut simulation = talk(&intercepting(TRANSPARENT, RULES), &begun[..lines]);
        go_on(&mut simulation, &[(input, expected)]);
    };
    check(3, In::Closes(CloseReason::BadCertificate), "close bad_certificate: alert");
    check(3, In::Closes(CloseReason::ServerTlsFailed), "close server_tls_failed: alert");
    check(3, In::Closes(CloseReason::ClientGone), "close client_gone: quiet");
    // Then TLS has an alert of its own.
    check(4, In::Refused(CloseReason::TlsFailed), "close tls_failed: reset");
    check(2, In::Unconnected(DialError::Refused), "close connect_refused: reset");
}

#[test]
fn who_refuses_our_certificate_is_let_through_for_a_while_if_that_is_wanted() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let begun = inside(&hello, &secure);
    for (setting, next) in [("", "Intercept 2"), ("interceptFallback: true\n", "Accept 2")] {
        let config = format!("{setting}{}", intercepting(TRANSPARENT, RULES));
        let first = talk(&config, &begun[..4]);
        let mut simulation = first.again(CLIENT);
        go_on(&mut simulation, &[begun[0], (In::Bytes(&hello), "Intercept 2, dial 198.51.100.1:443")]);
        let mut refused = first;
        go_on(&mut refused, &[(In::Refused(CloseReason::ClientGone), "close client_gone: quiet")]);
        let expected = format!("{next}, dial 198.51.100.1:443");
        let mut again = refused.again(CLIENT);
        go_on(&mut again, &[begun[0], (In::Bytes(&hello), &expected)]);
        // Another client, another matter.
        let mut other = refused.again("192.168.1.21:51234");
        go_on(&mut other, &[begun[0], (In::Bytes(&hello), "Intercept 2, dial 198.51.100.1:443")]);
        let mut later = refused.again(CLIENT);
        later.now += Duration::from_secs(3601);
        later.happen(begun[0].0);
        assert_eq!(later.happen(In::Bytes(&hello)), "Intercept 2, dial 198.51.100.1:443");
    }
}

#[test]
fn plain_http_and_what_is_no_tls_goes_through_with_the_rules_on_requests() {
    let config = intercepting(TRANSPARENT, RULES);
    let (good, ads) = (get("/", "www.example.com"), get("/ADS/?x", "www.example.com"));
    talk(
        &config,
        &[
            (In::To("198.51.100.1:80"), "read until 1000"),
            (In::Bytes(&good), "Accept 2, dial 198.51.100.1:80"),
            (In::Connected, &format!("tunnel {}", good.len())),
        ],
    );
    talk(
        &config,
        &[(In::To("198.51.100.1:80"), "read until 1000"), (In::Bytes(&ads), "Denied 0, close denied: 403")],
    );
    talk(
        &config,
        &[(In::To("198.51.100.1:22"), "read until 1000"), (In::Silence, "Accept 2, dial 198.51.100.1:22")],
    );
    // A request to the HTTP proxy is decided by the same facts.
    let absolute = |path: &str| get(&format!("http://198.51.100.1{path}"), "198.51.100.1");
    talk(
        &intercepting("mode: http", RULES),
        &[
            (In::Start, "read until 1000"),
            (In::Bytes(&absolute("/%61ds")), "Denied 0, 403, read until 7440000"),
            (In::Bytes(&absolute("/")), "Accept 2, dial 198.51.100.1:80"),
        ],
    );
}

#[test]
fn without_a_word_on_the_protocol_the_first_bytes_tell() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let rules =
        &["protoL7: none, action: deny", "protoL7: h2, host: .example, action: deny", "action: intercept"];
    let check = |alpn: Option<&[u8]>, conversation: &[(In<'_>, &str)]| {
        let mut simulation = Simulation::new(&intercepting(TRANSPARENT, rules));
        let begun = inside(&hello, &secure);
        go_on(&mut simulation, &begun[..3]);
        go_on(&mut simulation, &[(In::ServerSecured(alpn), &secure)]);
        go_on(&mut simulation, conversation);
    };
    let request = get("/", "www.example.com");
    check(
        None,
        &[(In::Secured, "read until 1000"), (In::Slowly(&request), "Accept 2, exchange GET / HTTP/1.1 +0")],
    );
    check(None, &[(In::Secured, "read until 1000"), (In::Silence, "Denied 0, close denied: quiet")]);
    check(None, &[(In::Secured, "read until 1000"), (In::Bytes(b"\0\x01"), "Denied 0, close denied: quiet")]);
    check(
        None,
        &[
            (In::Secured, "read until 1000"),
            (In::Bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "Denied default, close denied: quiet"),
        ],
    );
    // Byte by byte it was something else.
    check(
        None,
        &[
            (In::Secured, "read until 1000"),
            (In::Slowly(b"PRI * HTTP/2"), "Denied default, close denied: quiet"),
        ],
    );
    check(Some(b"imap"), &[(In::Secured, "Denied 0, close denied: quiet")]);
    check(Some(b"h2"), &[(In::Secured, "Denied default, close denied: quiet")]);
}

/// Some servers take more for a request than is one, and a client may send the rest later.
#[test]
fn what_begins_like_a_request_and_is_none_goes_only_where_nobody_asks_what_is_in_it() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let check = |rules: &[&str], alpn: Option<&[u8]>, conversation: &[(In<'_>, &str)]| {
        let mut simulation = Simulation::new(&intercepting(TRANSPARENT, rules));
        go_on(&mut simulation, &inside(&hello, &secure)[..3]);
        go_on(&mut simulation, &[(In::ServerSecured(alpn), &secure)]);
        go_on(&mut simulation, conversation);
    };
    let denied = "Denied default, close denied: quiet";
    for line in ["GET  ", "\r\nGET\t", "GET /ads\r", "GET /ads HTTP/1.2"] {
        check(RULES, None, &[(In::Secured, "read until 1000"), (In::Slowly(line.as_bytes()), denied)]);
    }
    let begun =
        [(In::Secured, "read until 1000"), (In::Bytes(b"GE"), "read until 1000"), (In::Silence, denied)];
    check(RULES, None, &begun);
    check(RULES, None, &[(In::Secured, "read until 1000"), (In::Silence, "Accept 2, tunnel 0")]);
    check(RULES, None, &[(In::Secured, "read until 1000"), (In::Bytes(b"\x10\x02"), "Accept 2, tunnel 2")]);
    check(RULES, Some(b"http/0.9"), &[(In::Secured, "read until 7440000")]);
    let elsewhere =
        &["dns: a.example, path: '/ads*', action: deny", "port: 1, action: deny", "action: intercept"];
    check(
        elsewhere,
        None,
        &[(In::Secured, "read until 1000"), (In::Bytes(b"NICK  x"), "Accept 2, tunnel 7")],
    );
}

/// Each request that a rule asked this of was denied by none.
#[test]
fn inside_the_certificate_is_known_to_be_good() {
    let hello = hello("www.example.com");
    let secure = format!("secure {} until 1000", hello.len());
    let rules = &[
        "host: x.example.com, cert: valid, action: deny",
        "host: www.example.com, cert: invalid, action: deny",
        "action: intercept",
    ];
    let mut simulation = talk(&intercepting(TRANSPARENT, rules), &inside(&hello, &secure));
    let (good, bad) = (get("/", "www.example.com"), get("/", "x.example.com"));
    go_on(
        &mut simulation,
        &[
            (In::Bytes(&good), "Accept 2, exchange GET / HTTP/1.1 +0"),
            (In::Answered(&bad), "Denied 0, 403, read until 7440000"),
        ],
    );
}
