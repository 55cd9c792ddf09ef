//! CONNECT on the HTTP proxy.

use super::In::*;
use super::*;

const CONNECT: &[u8] = b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n";
const LITERAL: &[u8] = b"CONNECT 198.51.100.2:8443 HTTP/1.1\r\nHost: 198.51.100.2:8443\r\n\r\n";
const LITERAL6: &[u8] = b"CONNECT [2001:db8::2]:443 HTTP/1.1\r\nHost: [2001:db8::2]:443\r\n\r\n";

fn http(rules: &[&str]) -> String {
    config("mode: http", rules)
}

#[test]
fn what_nothing_inside_could_save_gets_its_403_at_once() {
    let plan = http(&[
        "action: deny, port: '!443'",
        "action: deny, dest: 198.51.100.0/24",
        "action: accept, protoL5: tls",
    ]);
    let other_port = b"CONNECT www.example.com:25 HTTP/1.1\r\nHost: a\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(other_port), "Denied 0, close denied: 403")]);
    talk(&plan, &[(Start, "read until 1000"), (Slowly(LITERAL), "Denied 0, close denied: 403")]);
    let literal = b"CONNECT 198.51.100.2:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(literal), "Denied 1, close denied: 403")]);
    let loopback = b"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    talk(&plan, &[(Start, "read until 1000"), (Bytes(loopback), "Denied always, close denied: 403")]);
}

#[test]
fn one_decided_without_inner_bytes_is_dialled_before_it_is_answered() {
    let plan = http(&["action: accept"]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(CONNECT), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:443"),
            (Connected, "200, tunnel 0"),
        ],
    );
    for (head, dial) in [(LITERAL, "198.51.100.2:8443"), (LITERAL6, "[2001:db8::2]:443")] {
        let dial = format!("Accept 0, dial {dial}");
        let sent = [head, b"SSH-2.0-x\r\n"].concat();
        talk(&plan, &[(Start, "read until 1000"), (Bytes(&sent), &dial), (Connected, "200, tunnel 11")]);
        for (error, expected) in [
            (DialError::Refused, "close connect_refused: 502"),
            (DialError::Unreachable, "close connect_unreachable: 502"),
            (DialError::TimedOut, "close connect_timeout: 504"),
            (DialError::Other, "close connect_failed: 502"),
        ] {
            talk(&plan, &[(Start, "read until 1000"), (Bytes(head), &dial), (Unconnected(error), expected)]);
        }
    }
    for (error, expected) in [
        (ResolveError::NotFound, "close name_not_found: 502"),
        (ResolveError::Failed, "close resolve_failed: 504"),
    ] {
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(CONNECT), "resolve www.example.com"),
                (NoAddrs(error), expected),
            ],
        );
    }
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(CONNECT), "resolve www.example.com"),
            (Addrs(&[]), "close name_not_found: 502"),
        ],
    );
}

#[test]
fn one_that_needs_a_peek_is_answered_first() {
    let plan = http(&["action: deny, dns: blocked.example", "action: accept, encrypted: true"]);
    let tls = hello("www.example.com");
    let sent = format!("tunnel {}", tls.len());
    let connected: &[(In<'_>, &str)] =
        &[(Start, "read until 1000"), (Pause(500), ""), (Bytes(CONNECT), "200, read until 1500")];
    let mut accepted = talk(&plan, connected);
    go_on(
        &mut accepted,
        &[
            (Slowly(&tls), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:443"),
            (Connected, &sent),
        ],
    );
    let denied = [
        (Bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice()), "Denied default, close denied: 403"),
        (Bytes(b"SSH-2.0-x\r\n"), "Denied default, close denied: reset"),
        (Silence, "Denied default, close denied: reset"),
        (Eof, "Denied default, close denied: reset"),
    ];
    for (input, expected) in denied {
        go_on(&mut talk(&plan, connected), &[(input, expected)]);
    }
    go_on(
        &mut talk(&plan, connected),
        &[(Bytes(&hello("blocked.example")), "Denied 0, close denied: alert")],
    );
    // Behind the 200 there is no further answer, only the tunnel's end.
    for (input, expected) in [
        (NoAddrs(ResolveError::NotFound), "close name_not_found: quiet"),
        (NoAddrs(ResolveError::Failed), "close resolve_failed: quiet"),
    ] {
        go_on(&mut talk(&plan, connected), &[(Bytes(&tls), "resolve www.example.com"), (input, expected)]);
    }
    go_on(
        &mut talk(&plan, connected),
        &[
            (Bytes(&tls), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:443"),
            (Unconnected(DialError::Refused), "close connect_refused: quiet"),
        ],
    );
}

#[test]
fn bytes_sent_along_with_the_connect_are_identified_and_kept() {
    let plan = http(&["action: accept, protoL5: tls"]);
    let tls = hello("www.example.com");
    let sent = format!("tunnel {}", tls.len());
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&[CONNECT, &tls].concat()), "200, resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:443"),
            (Connected, &sent),
        ],
    );
    let (some, rest) = tls.split_at(9);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&[CONNECT, some].concat()), "200, read until 2000"),
            (Bytes(rest), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:443"),
            (Connected, &sent),
        ],
    );
}

#[test]
fn the_sni_beats_the_name_that_was_asked_for() {
    let rules = ["action: deny, dns: blocked.example", "action: accept, dns: '*.example.com'"];
    let spoofed = hello("cdn.example.com");
    let connect = b"CONNECT blocked.example:8443 HTTP/1.1\r\nHost: a\r\n\r\n";
    let begin: &[(In<'_>, &str)] = &[(Start, "read until 1000"), (Bytes(connect), "200, read until 1000")];
    // It is the SNI's address that is dialled, on the port of the CONNECT: nothing is won by another name.
    for target in ["auto", "name"] {
        let plan = config(&format!("mode: http, target: {target}"), &rules);
        go_on(
            &mut talk(&plan, begin),
            &[
                (Bytes(&spoofed), "resolve cdn.example.com"),
                (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:8443"),
            ],
        );
        go_on(&mut talk(&plan, begin), &[(Bytes(&nameless_hello()), "Denied 0, close denied: alert")]);
    }
    let plan = config("mode: http, target: original", &rules);
    go_on(
        &mut talk(&plan, begin),
        &[
            (Bytes(&spoofed), "resolve blocked.example"),
            (Addrs(&["203.0.113.9"]), "Accept 1, dial 203.0.113.9:8443"),
        ],
    );
    // An address that was asked for is dialled as it is, but by `target: name`.
    let plan = config("mode: http", &rules);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(LITERAL), "200, read until 1000"),
            (Bytes(&spoofed), "Accept 1, dial 198.51.100.2:8443"),
        ],
    );
    let plan = config("mode: http, target: name", &rules);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(LITERAL), "200, read until 1000"),
            (Bytes(&spoofed), "resolve cdn.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:8443"),
        ],
    );
}

#[test]
fn a_destination_may_be_asked_for_before_the_first_bytes() {
    let plan = http(&["action: deny, dest: 203.0.113.0/24", "action: accept, protoL5: tls"]);
    let begin: &[(In<'_>, &str)] = &[(Start, "read until 1000"), (Bytes(CONNECT), "resolve www.example.com")];
    go_on(&mut talk(&plan, begin), &[(Addrs(&["203.0.113.7"]), "Denied 0, close denied: 403")]);
    let open = || {
        let mut simulation = talk(&plan, begin);
        go_on(&mut simulation, &[(Addrs(&["198.51.100.7", "203.0.113.7"]), "200, read until 1000")]);
        simulation
    };
    go_on(&mut open(), &[(Bytes(&hello("www.example.com")), "Accept 1, dial 198.51.100.7:443")]);
    go_on(&mut open(), &[(Bytes(b"SSH-2.0-x\r\n"), "Denied default, close denied: reset")]);
    // Another name has other addresses.
    go_on(
        &mut open(),
        &[
            (Bytes(&hello("cdn.example.com")), "resolve cdn.example.com"),
            (Addrs(&["203.0.113.7"]), "Denied 0, close denied: alert"),
        ],
    );
}

#[test]
fn only_addresses_that_the_rules_accept_are_dialled() {
    let plan = http(&["action: deny, dest: [203.0.113.0/24, '2001:db8::/32']", "action: accept"]);
    let begin: &[(In<'_>, &str)] = &[(Start, "read until 1000"), (Bytes(CONNECT), "resolve www.example.com")];
    let check = |addrs: &[&str], expected: &str| go_on(&mut talk(&plan, begin), &[(Addrs(addrs), expected)]);
    check(&["2001:db8::1", "203.0.113.7", "198.51.100.7"], "Accept 1, dial 198.51.100.7:443");
    check(&["2001:db8::1", "203.0.113.7"], "Denied 0, close denied: 403");
    check(&["127.0.0.1", "198.51.100.7", "::1"], "Accept 1, dial 198.51.100.7:443");
    check(&["::ffff:127.0.0.1"], "Denied always, close denied: 403");

    // Some are denied whatever is inside, others only want to know: they are asked about.
    let plan = http(&[
        "action: deny, dest: 203.0.113.0/24",
        "action: accept, dest: 198.51.100.0/24, protoL5: tls",
        "action: accept, dest: 192.0.2.0/24",
    ]);
    let check = |addrs: &[&str], conversation: &[(In<'_>, &str)]| {
        let mut simulation = talk(&plan, begin);
        go_on(&mut simulation, &[(Addrs(addrs), "200, read until 1000")]);
        go_on(&mut simulation, conversation);
    };
    let (tls, ssh) = (hello("www.example.com"), Bytes(b"SSH-2.0-x\r\n"));
    let all = ["203.0.113.7", "198.51.100.7", "192.0.2.7"];
    check(&all, &[(Bytes(&tls), "Accept 1, dial 198.51.100.7:443 192.0.2.7:443")]);
    check(&all, &[(ssh, "Accept 2, dial 192.0.2.7:443")]);
    check(&all[..2], &[(ssh, "Denied default, close denied: reset")]);
}

#[test]
fn an_address_that_only_redirects_is_not_dialled() {
    let plan = http(&["action: redirect, dest: 203.0.113.0/24", "action: accept"]);
    let begin: &[(In<'_>, &str)] = &[
        (Start, "read until 1000"),
        (Bytes(b"GET http://www.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n"), "resolve www.example.com"),
    ];
    for addrs in [["198.51.100.7", "203.0.113.7"], ["203.0.113.7", "198.51.100.7"]] {
        go_on(&mut talk(&plan, begin), &[(Addrs(&addrs), "Accept 1, dial 198.51.100.7:80")]);
    }
    go_on(&mut talk(&plan, begin), &[(Addrs(&["203.0.113.7"]), "Redirect 0, close redirected: 301")]);
}

#[test]
fn a_redirect_inside_a_tunnel() {
    let plan = http(&["action: redirect"]);
    let begin: &[(In<'_>, &str)] = &[(Start, "read until 1000"), (Bytes(CONNECT), "200, read until 1000")];
    let get = b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    go_on(&mut talk(&plan, begin), &[(Bytes(get), "Redirect 0, close redirected: 301")]);
    go_on(&mut talk(&plan, begin), &[(Bytes(&hello("a.example")), "Denied 0, close denied: alert")]);
}
