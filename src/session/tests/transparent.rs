//! Redirected connections.

use super::In::*;
use super::*;

const TO: In<'_> = To("198.51.100.2:443");
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";

#[test]
fn what_the_port_decides_is_decided_at_accept() {
    let plan = config("mode: transparent", &["action: deny, port: 25", "action: accept, port: 1-1023"]);
    talk(&plan, &[(TO, "Accept 1, dial 198.51.100.2:443"), (Connected, "tunnel 0")]);
    talk(&plan, &[(To("[2001:db8::2]:22"), "Accept 1, dial [2001:db8::2]:22"), (Connected, "tunnel 0")]);
    talk(&plan, &[(To("198.51.100.2:25"), "Denied 0, close denied: reset")]);
    talk(&plan, &[(To("198.51.100.2:4444"), "Denied default, close denied: reset")]);
}

#[test]
fn what_no_proxy_may_reach_is_denied_before_the_rules() {
    let plan = config("mode: transparent", &["action: accept"]);
    for dest in
        ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "169.254.1.1:80", "0.0.0.0:80", "224.0.0.1:80"]
    {
        talk(&plan, &[(To(dest), "Denied always, close denied: reset")]);
    }
}

#[test]
fn a_name_is_denied_in_the_clients_own_protocol() {
    let plan = config("mode: transparent", &["action: deny, dns: .blocked.example", "action: accept"]);
    let (blocked, fine) = (hello("www.blocked.example"), hello("example.com"));
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&blocked), "Denied 0, close denied: alert")]);
    talk(&plan, &[(TO, "read until 1000"), (Slowly(&blocked), "Denied 0, close denied: alert")]);
    let sent = format!("tunnel {}", fine.len());
    talk(
        &plan,
        &[(TO, "read until 1000"), (Slowly(&fine), "Accept 1, dial 198.51.100.2:443"), (Connected, &sent)],
    );
    let plan = config("mode: transparent", &["action: deny, protoL5: http", "action: accept"]);
    talk(&plan, &[(TO, "read until 1000"), (Slowly(GET), "Denied 0, close denied: 403")]);
    // The Host header is compared with no rule.
    let plan = config("mode: transparent", &["action: deny, dns: www.example.com", "action: accept"]);
    talk(&plan, &[(TO, "read until 1000"), (Bytes(GET), "Accept 1, dial 198.51.100.2:443")]);
}

#[test]
fn the_hello_may_come_in_records_of_one_byte() {
    let plan = config("mode: transparent", &["action: deny, dns: a.example", "action: accept"]);
    let message = fixture::HelloBody::new(vec![fixture::server_name("a.example")]).message();
    let records = fixture::records(&message, 1);
    talk(&plan, &[(TO, "read until 1000"), (Slowly(&records), "Denied 0, close denied: alert")]);
}

#[test]
fn who_is_silent_is_none() {
    let plan = config(
        "mode: transparent",
        &["action: accept, protoL5: http, port: 80", "action: accept, protoL5: none, port: 443"],
    );
    talk(
        &plan,
        &[(TO, "read until 1000"), (Silence, "Accept 1, dial 198.51.100.2:443"), (Connected, "tunnel 0")],
    );
    talk(
        &plan,
        &[(To("198.51.100.2:80"), "read until 1000"), (Silence, "Denied default, close denied: reset")],
    );
    // Some bytes of what could be anything are none as well, and are not lost.
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(b"GE"), "read until 1000"),
            (Silence, "Accept 1, dial 198.51.100.2:443"),
            (Connected, "tunnel 2"),
        ],
    );
    talk(&plan, &[(TO, "read until 1000"), (Bytes(b"\xff"), "Accept 1, dial 198.51.100.2:443")]);
    // A switched-off parser's traffic.
    let plan = format!("parse: {{ tls: false }}\n{plan}");
    let tls = hello("example.com");
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&tls), "Accept 1, dial 198.51.100.2:443")]);
}

#[test]
fn what_has_begun_must_be_whole_within_twice_the_time() {
    let plan = config("mode: transparent", &["action: accept, protoL5: [none, tls, http]"]);
    let tls = hello("example.com");
    let (first, rest) = tls.split_at(20);
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Pause(900), ""),
            (Bytes(first), "read until 2000"),
            (Silence, "Denied incomplete, close incomplete: alert"),
        ],
    );
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(first), "read until 2000"),
            (Pause(1999), ""),
            (Bytes(rest), "Accept 0, dial 198.51.100.2:443"),
        ],
    );
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(b"GE"), "read until 1000"),
            (Bytes(b"T "), "read until 2000"),
            (Pause(1500), ""),
            (Bytes(b"/ HTTP/1.1\r\n"), "read until 2000"),
            (Silence, "Denied incomplete, close incomplete: 403"),
        ],
    );
    // The end of the stream is no way around it.
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(first), "read until 2000"),
            (Eof, "Denied incomplete, close incomplete: alert"),
        ],
    );
    // Nor is size.
    let mut large = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    large.resize(0x4000 + 5, 0);
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&large), "Denied incomplete, close incomplete: alert")]);
    let long_head = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 32 * 1024]].concat();
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&long_head), "Denied incomplete, close incomplete: 403")]);
}

#[test]
fn the_end_of_the_stream() {
    let plan = config("mode: transparent", &["action: accept, protoL5: none"]);
    // From one who said nothing, too (`nc -N`): the server may be the one to speak.
    talk(
        &plan,
        &[(TO, "read until 1000"), (Eof, "Accept 0, dial 198.51.100.2:443"), (Connected, "tunnel 0")],
    );
    let plan = config("mode: transparent", &["action: accept, protoL5: [tls, http]"]);
    talk(&plan, &[(TO, "read until 1000"), (Eof, "Denied default, close denied: reset")]);
    let plan = config("mode: transparent", &["action: accept, protoL5: none"]);
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(b"GE"), "read until 1000"),
            (Eof, "Accept 0, dial 198.51.100.2:443"),
            (Connected, "tunnel 2"),
        ],
    );
}

#[test]
fn a_connection_that_fails_is_reset() {
    let plan = config("mode: transparent", &["action: accept"]);
    for (error, expected) in [
        (DialError::Refused, "close connect_refused: reset"),
        (DialError::Unreachable, "close connect_unreachable: reset"),
        (DialError::TimedOut, "close connect_timeout: reset"),
        (DialError::Other, "close connect_failed: reset"),
    ] {
        talk(&plan, &[(TO, "Accept 0, dial 198.51.100.2:443"), (Unconnected(error), expected)]);
    }
}

#[test]
fn a_lost_destination_is_replaced_by_the_name() {
    let tls = hello("example.com");
    for target in ["auto", "name"] {
        let plan = config(&format!("mode: transparent, target: {target}"), &["action: accept"]);
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(&tls), "resolve example.com"),
                (Addrs(&["2001:db8::7", "203.0.113.7"]), "Accept 0, dial [2001:db8::7]:443 203.0.113.7:443"),
            ],
        );
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(GET), "resolve www.example.com"),
                (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:80"),
            ],
        );
        // The root's dot is no part of what is looked up.
        let rooted = b"GET / HTTP/1.1\r\nHost: www.example.com.\r\n\r\n";
        talk(&plan, &[(Start, "read until 1000"), (Bytes(rooted), "resolve www.example.com")]);
        // A Host that is an address need not be resolved, but is one of those that no proxy may reach, or is not.
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(b"GET / HTTP/1.1\r\nHost: 203.0.113.9:81\r\n\r\n"), "Accept 0, dial 203.0.113.9:80"),
            ],
        );
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"), "Denied always, close denied: 403"),
            ],
        );
        // What names nothing has nowhere to go.
        talk(&plan, &[(Start, "read until 1000"), (Silence, "Denied always, close denied: reset")]);
        talk(
            &plan,
            &[(Start, "read until 1000"), (Bytes(&nameless_hello()), "Denied always, close denied: alert")],
        );
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(&tls), "resolve example.com"),
                (NoAddrs(ResolveError::NotFound), "close name_not_found: reset"),
            ],
        );
    }
    let plan = config("mode: transparent, target: original", &["action: accept"]);
    talk(&plan, &[(Start, "Denied always, close denied: reset")]);
}

#[test]
fn target_says_what_is_dialled() {
    let tls = hello("example.com");
    let names = ["action: accept, dns: example.com", "action: accept, protoL5: http"];
    for target in ["auto", "original"] {
        let plan = config(&format!("mode: transparent, target: {target}"), &names);
        talk(&plan, &[(TO, "read until 1000"), (Bytes(&tls), "Accept 0, dial 198.51.100.2:443")]);
    }
    let plan = config("mode: transparent, target: name", &names);
    talk(
        &plan,
        &[
            (To("198.51.100.2:8443"), "read until 1000"),
            (Bytes(&tls), "resolve example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:8443"),
        ],
    );
    talk(
        &plan,
        &[
            (TO, "read until 1000"),
            (Bytes(GET), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:443"),
        ],
    );
    // Without a name it is what was asked for, and the rules want to know it.
    let plan = config("mode: transparent, target: name", &["action: accept"]);
    talk(&plan, &[(TO, "read until 1000"), (Silence, "Accept 0, dial 198.51.100.2:443")]);
    // A denied name is not resolved.
    let plan =
        config("mode: transparent, target: name", &["action: deny, dns: example.com", "action: accept"]);
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&tls), "Denied 0, close denied: alert")]);
}

#[test]
fn a_redirect_is_for_plain_http() {
    let plan = config("mode: transparent", &["action: redirect"]);
    let check = |head: &str, expected: &str| {
        talk(&plan, &[(TO, "read until 1000"), (Bytes(head.as_bytes()), expected)]);
    };
    check("GET /a?b HTTP/1.1\r\nHost: example.com:8080\r\n\r\n", "Redirect 0, close redirected: 301");
    check(
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n\r\nabc",
        "Redirect 0, close redirected: 308",
    );
    check("GET / HTTP/1.0\r\n\r\n", "Denied 0, close denied: 403");
    check("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", "Denied 0, close denied: 403");
    check("GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n", "Denied 0, close denied: 403");
    talk(&plan, &[(TO, "read until 1000"), (Bytes(&hello("example.com")), "Denied 0, close denied: alert")]);
    talk(&plan, &[(TO, "read until 1000"), (Silence, "Denied 0, close denied: reset")]);
}

/// The client of a HEAD takes a body for the beginning of the next answer.
#[test]
fn what_a_refused_request_is_told() {
    let check = |rule: &str, conversation: &[In<'_>], expected: &str| {
        let mut simulation = Simulation::new(&config("mode: transparent", &[rule]));
        let mut last = None;
        for input in conversation {
            if matches!(input, Silence) {
                simulation.now = simulation.until.unwrap();
            }
            last = Some(simulation.tell(*input));
            if let Some(Step::Read { until }) = last {
                simulation.until = Some(until);
            }
        }
        let Some(Step::Close(Closing { wire: Wire::Say(words), .. })) = last else { panic!("{last:?}") };
        let text = String::from_utf8(words).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
        assert_eq!(text.split_once("\r\n\r\n").unwrap().1, expected);
    };
    let (deny, accept) = ("action: deny, protoL5: http", "action: accept, protoL5: http");
    let head = b"\r\nHEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let deny = format!("{deny} }}\n  - {{ action: accept");
    check(&deny, &[TO, Bytes(GET)], "denied by the proxy's rules\n");
    check(&deny, &[TO, Bytes(head)], "");
    check(accept, &[TO, Bytes(b"GET / HT"), Silence], "the request was not complete in time\n");
    check(accept, &[TO, Bytes(b"HEAD / HT"), Silence], "");
    let large = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 32 * 1024]].concat();
    check(accept, &[TO, Bytes(&large)], "the request head is larger than 32 KiB\n");
}

/// A Host that is missing, doubled or invalid names no place to be sent to.
#[test]
fn a_redirect_without_a_valid_host_is_refused() {
    let plan = config("mode: transparent", &["action: redirect, protoL5: http"]);
    for host in ["", "Host: a.example\r\nHost: a.example\r\n", "Host: a b\r\n"] {
        let request = format!("GET / HTTP/1.1\r\n{host}\r\n");
        talk(&plan, &[(TO, "read until 1000"), (Bytes(request.as_bytes()), "Denied 0, close denied: 403")]);
    }
}

/// Preludes of 390 KiB each, as many as there were connections.
#[test]
fn large_preludes_have_a_common_bound() {
    use crate::session::budget::MAX_LARGE_PRELUDES;
    let plan = config("mode: transparent", &["action: accept, protoL5: tls"]);
    let body = fixture::HelloBody::new(vec![(0xfafa, vec![0; 50_000]), fixture::server_name("a.example")]);
    let records = fixture::records(&body.message(), 1);
    let (last, most) = records.split_last().unwrap();
    let preludes: Arc<Budget> = Arc::default();
    let mut waiting = Vec::new();
    let refused = loop {
        let mut simulation = Simulation::new(&plan);
        simulation.preludes = Arc::clone(&preludes);
        simulation.happen(TO);
        let said = simulation.happen(Bytes(most));
        if !said.starts_with("read") {
            break said;
        }
        waiting.push(simulation);
        assert_eq!(preludes.used(), waiting.len() * most.len());
    };
    assert_eq!(refused, "Denied incomplete, close incomplete: alert");
    assert_eq!(waiting.len(), MAX_LARGE_PRELUDES / most.len());
    // What is small needs none of it.
    let mut small = Simulation::new(&plan);
    small.preludes = Arc::clone(&preludes);
    go_on(&mut small, &[(TO, "read until 1000"), (Bytes(&most[..16_000]), "read until 2000")]);
    // One goes on and sends its bytes to the server, one is left by its client, the others go by other ways.
    let sent = format!("tunnel {}", records.len());
    let mut one = waiting.pop().unwrap();
    go_on(&mut one, &[(Bytes(&[*last]), "Accept 0, dial 198.51.100.2:443"), (Connected, &sent)]);
    assert_eq!(preludes.used(), waiting.len() * most.len());
    go_on(&mut waiting.pop().unwrap(), &[(Eof, "Denied incomplete, close incomplete: alert")]);
    assert_eq!(preludes.used(), waiting.len() * most.len());
    drop(waiting);
    assert_eq!(preludes.used(), 0);
}

/// A denied name with a byte that no name has.
#[test]
fn a_name_that_is_no_text_is_denied_all_the_same() {
    let plan = config("mode: transparent", &["action: deny, dns: .blocked.example", "action: accept"]);
    for label in [&b"w\xff"[..], "\u{85}".as_bytes()] {
        let name = [label, b".blocked.example"].concat();
        let entry = [&[0][..], &fixture::vec16(&name)].concat();
        let hello = fixture::record(&fixture::HelloBody::new(vec![(0, fixture::vec16(&entry))]).message());
        talk(&plan, &[(TO, "read until 1000"), (Bytes(&hello), "Denied 0, close denied: alert")]);
    }
}
