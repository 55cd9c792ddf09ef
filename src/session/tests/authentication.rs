//! Listeners with users: who the client is comes before what it wants.

use super::In::*;
use super::*;
use crate::auth::Verification::{Right, Unavailable, Wrong};

fn plan(rules: &[&str]) -> String {
    config("mode: http, users: { alice: $5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5 }", rules)
}

/// A request of alice, or of nobody.
fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// `alice:secret`.
const ALICE: &str = "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
const VERIFY: &str = r#"verify Credentials { name: "alice", .. }"#;

#[test]
fn nobody_learns_of_the_rules_who_may_not_come_in() {
    // Denied, accepted, to be resolved, to be looked into: the answer is the same.
    let plan =
        plan(&["action: deny, dns: blocked.example", "action: accept, protoL5: tls", "action: accept"]);
    for line in [
        "GET http://blocked.example/",
        "GET http://a.example/",
        "HEAD http://127.0.0.1/",
        "CONNECT blocked.example:443",
        "CONNECT a.example:443",
        "GET /",
        "OPTIONS *",
    ] {
        for credentials in
            ["", "Proxy-Authorization: Basic !\r\n", "Proxy-Authorization: Bearer YWxpY2U6c2VjcmV0\r\n"]
        {
            let mut said = Simulation::new(&plan);
            assert_eq!(said.happen(Start), "read until 1000");
            assert_eq!(
                said.happen(Bytes(&request(line, credentials))),
                "407, read until 60000",
                "{line} {credentials}"
            );
        }
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(&request(line, ALICE)), VERIFY),
                (Verified(Wrong), "407, read until 60000"),
            ],
        );
    }
}

/// Otherwise one who may not come in could hold a place with two bytes a minute.
#[test]
fn an_empty_line_buys_no_time() {
    talk(
        &plan(&["action: accept"]),
        &[
            (Start, "read until 1000"),
            (Bytes(&request("GET http://a.example/", "")), "407, read until 60000"),
            (Pause(50_000), ""),
            (Bytes(b"\r\n"), "read until 60000"),
            (Silence, "close idle: quiet"),
        ],
    );
}

#[test]
fn who_is_let_in_goes_on_where_it_was() {
    let plan = plan(&["action: deny, dns: blocked.example", "action: accept"]);
    let good = request("GET http://203.0.113.7/x", ALICE);
    let mut done = talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Slowly(&good), VERIFY),
            (Pause(5000), ""),
            (Verified(Right), "Accept 1, dial 203.0.113.7:80"),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
            // Each request by itself.
            (Answered(b""), "read until 7445000"),
            (Bytes(&request("GET http://blocked.example/", ALICE)), VERIFY),
            (Verified(Right), "Denied 0, 403, read until 7445000"),
            (Bytes(&request("GET http://203.0.113.7/x", "")), "407, read until 65000"),
            (Pause(50_000), ""),
            (Bytes(&good), VERIFY),
            (Verified(Right), "Accept 1, dial 203.0.113.7:80"),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
        ],
    );
    assert_eq!(done.session.facts().user.is().map(|name| &**name), Some("alice"));
    // The server hears nothing of it.
    done.happen(Answered(b""));
    done.happen(Bytes(&good));
    done.happen(Verified(Right));
    let Step::Exchange(exchange) = done.tell(Connected) else { panic!("no exchange") };
    let head = String::from_utf8(exchange.head).unwrap();
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
}

#[test]
fn a_tunnel_asks_once() {
    let plan = plan(&["action: accept, user: alice, protoL5: tls"]);
    let hello = hello("www.example.com");
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&request("CONNECT 203.0.113.7:443", "")), "407, read until 60000"),
            (Bytes(&request("CONNECT 203.0.113.7:443", ALICE)), VERIFY),
            (Verified(Right), "200, read until 1000"),
            (Bytes(&hello), "Accept 0, dial 203.0.113.7:443"),
            (Connected, &format!("tunnel {}", hello.len())),
        ],
    );
}

#[test]
fn what_cannot_be_kept_is_closed() {
    let plan = plan(&["action: accept"]);
    let closed = "close unauthenticated: 407";
    for line in ["POST http://a.example/", "CONNECT a.example:443"] {
        let body = if line.starts_with("POST") { "Content-Length: 3\r\n" } else { "Connection: close\r\n" };
        talk(&plan, &[(Start, "read until 1000"), (Bytes(&request(line, body)), closed)]);
    }
    let old = b"GET http://a.example/ HTTP/1.0\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(old), closed)]);
    // With another behind it, as for denied ones.
    let two = [request("GET http://a.example/", ""), request("GET http://a.example/", "")].concat();
    talk(&plan, &[(Start, "read until 1000"), (Bytes(&two), closed)]);
    // Data sent along with a CONNECT is no request.
    let early = [request("CONNECT a.example:443", ""), b"abc".to_vec()].concat();
    talk(&plan, &[(Start, "read until 1000"), (Bytes(&early), closed)]);
    let busy = "close limit: 503";
    let good = request("GET http://a.example/", ALICE);
    talk(&plan, &[(Start, "read until 1000"), (Bytes(&good), VERIFY), (Verified(Unavailable), busy)]);
}

#[test]
fn who_was_asked_has_a_minute() {
    let plan = plan(&["action: accept"]);
    let asked = [
        (Start, "read until 1000"),
        (Bytes(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n"), "407, read until 60000"),
    ];
    go_on(&mut talk(&plan, &asked), &[(Silence, "close idle: quiet")]);
    go_on(&mut talk(&plan, &asked), &[(Eof, "close finished: quiet")]);
    // From the first byte of the next request on, the time for a head.
    go_on(
        &mut talk(&plan, &asked),
        &[(Pause(30_000), ""), (Bytes(b"GET "), "read until 31000"), (Silence, "close process_timeout: 408")],
    );
}

#[test]
fn a_reload_changes_who_is_asked_on_open_connections() {
    let (with, without) = (plan(&["action: accept"]), config("mode: http", &["action: accept"]));
    let plain = request("GET http://203.0.113.7/x", "");
    talk(
        &without,
        &[
            (Start, "read until 1000"),
            (Bytes(&plain), "Accept 0, dial 203.0.113.7:80"),
            (Connected, "exchange GET /x HTTP/1.1 +0"),
            (Reload(&with), ""),
            (Answered(b""), "read until 7440000"),
            (Bytes(&plain), "407, read until 60000"),
            (Reload(&without), ""),
            (Bytes(&plain), "Accept 0, dial 203.0.113.7:80"),
        ],
    );
}

#[test]
fn debug_shows_nothing_that_the_client_sent() {
    let mut done = talk(&plan(&["action: accept"]), &[(Start, "read until 1000")]);
    let step = done.tell(Bytes(&request("GET http://203.0.113.7/x", ALICE)));
    for shown in [format!("{step:?}"), format!("{:?}", done.session)] {
        assert!(!shown.contains("secret") && !shown.contains("YWxpY2U6"), "{shown}");
    }
    let request = crate::wire::http1::parse_request(&request("GET http://203.0.113.7/x", ALICE)).unwrap();
    assert!(!format!("{request:?}").contains("YWxpY2U6"), "{request:?}");
}
