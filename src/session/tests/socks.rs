//! CONNECT on the SOCKS proxy.

use super::In::*;
use super::*;
use crate::auth::Verification::{Right, Unavailable, Wrong};

const GREETING: &[u8] = b"\x05\x02\x00\x02";
const NAME: &[u8] = b"\x05\x01\x00\x03\x0fwww.example.com\x01\xbb";
const LITERAL: &[u8] = b"\x05\x01\x00\x01\xc6\x33\x64\x02\x01\xbb";
const LITERAL6: &[u8] = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x01\xbb";

/// What a client hears.
const CHOSEN: &str = "0500, read until 1000";
const GRANTED_UNSEEN: &str = "05000001000000000000";
const VERIFY: &str = r#"verify Credentials { name: "alice", .. }"#;
const GRANTED: &str = "05000001c00002fe9c40";

fn socks(rules: &[&str]) -> String {
    config("mode: socks5", rules)
}

/// A client that has been greeted, and what follows.
#[track_caller]
fn asks(plan: &str, conversation: &[(In<'_>, &str)]) -> Simulation {
    let mut simulation = talk(plan, &[(Start, "read until 1000"), (Bytes(GREETING), CHOSEN)]);
    go_on(&mut simulation, conversation);
    simulation
}

/// The end of a conversation in which a request is answered with this status.
fn refused(reason: &str, status: u8) -> String {
    format!("close {reason}: 05{status:02x}0001000000000000")
}

#[test]
fn one_decided_without_inner_bytes_is_dialled_before_it_is_answered() {
    let plan = socks(&["action: accept"]);
    asks(
        &plan,
        &[
            (Slowly(NAME), "resolve www.example.com"),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:443"),
            (Connected, &format!("{GRANTED}, tunnel 0")),
        ],
    );
    for (request, dial) in [(LITERAL, "198.51.100.2:443"), (LITERAL6, "[2001:db8::2]:443")] {
        let dial = format!("Accept 0, dial {dial}");
        let sent = [request, b"SSH-2.0-x\r\n"].concat();
        asks(&plan, &[(Bytes(&sent), &dial), (Connected, &format!("{GRANTED}, tunnel 11"))]);
        for (error, reason, status) in [
            (DialError::Refused, "connect_refused", 5),
            (DialError::Unreachable, "connect_unreachable", 4),
            (DialError::NetworkUnreachable, "connect_network_unreachable", 3),
            (DialError::TimedOut, "connect_timeout", 6),
            (DialError::Other, "connect_failed", 1),
        ] {
            asks(&plan, &[(Bytes(request), &dial), (Unconnected(error), &refused(reason, status))]);
        }
    }
    for (answer, reason, status) in [
        (NoAddrs(ResolveError::NotFound), "name_not_found", 4),
        (Addrs(&[]), "name_not_found", 4),
        (NoAddrs(ResolveError::Failed), "resolve_failed", 1),
    ] {
        asks(&plan, &[(Bytes(NAME), "resolve www.example.com"), (answer, &refused(reason, status))]);
    }
}

#[test]
fn what_nothing_inside_could_save_is_denied_at_once() {
    let plan = socks(&[
        "action: deny, port: 25",
        "action: deny, dest: 198.51.100.0/24",
        "action: accept, protoL5: tls",
    ]);
    let check = |request: &[u8], rule: &str| {
        asks(&plan, &[(Slowly(request), &format!("Denied {rule}, {}", refused("denied", 2)))]);
    };
    check(b"\x05\x01\x00\x03\x0cmail.example\x00\x19", "0");
    check(LITERAL, "1");
    // Written as a name, and mapped: an address is an address.
    check(b"\x05\x01\x00\x03\x0c198.51.100.2\x01\xbb", "1");
    check(b"\x05\x01\x00\x03\x13::ffff:198.51.100.2\x01\xbb", "1");
    check(b"\x05\x01\x00\x03\x03::1\x01\xbb", "always");
    check(b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\x01\xbb", "always");
}

#[test]
fn one_that_needs_a_peek_is_answered_first() {
    let plan = socks(&["action: deny, dns: blocked.example", "action: accept, encrypted: true"]);
    let tls = hello("www.example.com");
    let open =
        || asks(&plan, &[(Pause(500), ""), (Bytes(NAME), &format!("{GRANTED_UNSEEN}, read until 1500"))]);
    let sent = format!("tunnel {}", tls.len());
    let dials = (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:443");
    go_on(&mut open(), &[(Slowly(&tls), "resolve www.example.com"), dials, (Connected, &sent)]);
    // A refusal is what the protocol inside understands, not a second reply.
    for (input, expected) in [
        (Bytes(&hello("blocked.example")), "Denied 0, close denied: alert"),
        (Bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "Denied default, close denied: 403"),
        (Bytes(b"SSH-2.0-x\r\n"), "Denied default, close denied: reset"),
        (Silence, "Denied default, close denied: reset"),
        (Eof, "Denied default, close denied: reset"),
    ] {
        go_on(&mut open(), &[(input, expected)]);
    }
    for (input, expected) in [
        (NoAddrs(ResolveError::NotFound), "close name_not_found: quiet"),
        (NoAddrs(ResolveError::Failed), "close resolve_failed: quiet"),
    ] {
        go_on(&mut open(), &[(Bytes(&tls), "resolve www.example.com"), (input, expected)]);
    }
    for (error, expected) in [
        (DialError::Refused, "close connect_refused: quiet"),
        (DialError::NetworkUnreachable, "close connect_network_unreachable: quiet"),
    ] {
        go_on(
            &mut open(),
            &[(Bytes(&tls), "resolve www.example.com"), dials, (Unconnected(error), expected)],
        );
    }
}

#[test]
fn everything_may_come_in_one_segment() {
    let plan = socks(&["action: accept, protoL5: tls"]);
    let tls = hello("www.example.com");
    let all = [GREETING, NAME, &tls].concat();
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&all), &format!("0500{GRANTED_UNSEEN}, resolve www.example.com")),
            (Addrs(&["203.0.113.7"]), "Accept 0, dial 203.0.113.7:443"),
            (Connected, &format!("tunnel {}", tls.len())),
        ],
    );
    let plan = socks(&["action: accept"]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&[GREETING, LITERAL, b"abc"].concat()), "Accept 0, 0500, dial 198.51.100.2:443"),
            (Connected, &format!("{GRANTED}, tunnel 3")),
        ],
    );
}

#[test]
fn the_sni_beats_the_name_that_was_asked_for() {
    let rules = ["action: deny, dns: blocked.example", "action: accept, dns: '*.example.com'"];
    let spoofed = hello("cdn.example.com");
    let blocked = b"\x05\x01\x00\x03\x0fblocked.example\x20\xfb";
    let granted = format!("{GRANTED_UNSEEN}, read until 1000");
    for target in ["auto", "name"] {
        let plan = config(&format!("mode: socks5, target: {target}"), &rules);
        asks(
            &plan,
            &[
                (Bytes(blocked), &granted),
                (Bytes(&spoofed), "resolve cdn.example.com"),
                (Addrs(&["203.0.113.7"]), "Accept 1, dial 203.0.113.7:8443"),
            ],
        );
        asks(
            &plan,
            &[(Bytes(blocked), &granted), (Bytes(&nameless_hello()), "Denied 0, close denied: alert")],
        );
    }
    let plan = config("mode: socks5, target: original", &rules);
    asks(&plan, &[(Bytes(blocked), &granted), (Bytes(&spoofed), "resolve blocked.example")]);
    // An address that was asked for is dialled as it is; the Host of plain HTTP is no reason to dial elsewhere.
    let plan = socks(&rules);
    asks(&plan, &[(Bytes(LITERAL), &granted), (Bytes(&spoofed), "Accept 1, dial 198.51.100.2:443")]);
    let plan = config("mode: socks5, target: name", &["action: accept, protoL5: http"]);
    let get = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    asks(&plan, &[(Bytes(LITERAL), &granted), (Bytes(get), "Accept 0, dial 198.51.100.2:443")]);
}

#[test]
fn a_redirect_inside_a_tunnel() {
    let plan = socks(&["action: redirect"]);
    let granted = format!("{GRANTED_UNSEEN}, read until 1000");
    let get = b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    asks(&plan, &[(Bytes(NAME), &granted), (Bytes(get), "Redirect 0, close redirected: 301")]);
    asks(&plan, &[(Bytes(NAME), &granted), (Bytes(&hello("a.example")), "Denied 0, close denied: alert")]);
}

#[test]
fn what_cannot_be_done_is_said_by_its_number() {
    let plan = socks(&["action: accept"]);
    let check = |request: &[u8], status| asks(&plan, &[(Bytes(request), &refused("bad_request", status))]);
    check(b"\x05\x02\x00\x01\xc6\x33\x64\x02\x01\xbb", 7);
    check(b"\x05\x03\x00\x01\0\0\0\0\0\0", 7);
    check(b"\x05\x09\x00\x01\0\0\0\0\0\0", 7);
    check(b"\x05\x01\x00\x02", 8);
    check(b"\x05\x01\x00\x03\x00", 1);
    check(b"\x05\x01\x00\x03\x03a b\x01\xbb", 1);
    check(b"\x05\x01\x00\x01\xc6\x33\x64\x02\x00\x00", 1);
    check(b"\x04", 1);
    for methods in [b"\x05\x00".as_slice(), b"\x05\x01\x02", b"\x05\x02\x01\x80"] {
        talk(&plan, &[(Start, "read until 1000"), (Slowly(methods), "close bad_request: 05ff")]);
    }
}

#[test]
fn another_protocol_is_told_so_at_its_first_byte() {
    let plan = socks(&["action: accept"]);
    for (bytes, expected) in [
        (b"\x04\x01\x01\xbb\xc6\x33\x64\x02\0".as_slice(), "close wrong_protocol: 005b000000000000"),
        (b"\x04", "close wrong_protocol: 005b000000000000"),
        (b"CONNECT a:443 HTTP/1.1\r\n\r\n", "close wrong_protocol: 400"),
        (b"\x16\x03\x01", "close wrong_protocol: quiet"),
    ] {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(bytes), expected)]);
    }
}

#[test]
fn the_whole_conversation_has_one_deadline() {
    let plan = socks(&["action: accept"]);
    talk(&plan, &[(Start, "read until 1000"), (Silence, "close process_timeout: reset")]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(b"\x05"), "read until 1000"),
            (Silence, "close process_timeout: reset"),
        ],
    );
    let (timeout, some) = (refused("process_timeout", 1), &NAME[..7]);
    asks(&plan, &[(Silence, &timeout)]);
    asks(&plan, &[(Pause(900), ""), (Bytes(some), "read until 1000"), (Silence, &timeout)]);
    talk(&plan, &[(Start, "read until 1000"), (Eof, "close client_gone: quiet")]);
    asks(&plan, &[(Eof, "close client_gone: quiet")]);
    asks(&plan, &[(Bytes(some), "read until 1000"), (Eof, "close client_gone: quiet")]);
}

#[test]
fn users_are_asked_who_they_are_before_what_they_want() {
    let users = "users: { alice: $5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5 }";
    let plan = config(&format!("mode: socks5, {users}"), &["action: accept, user: alice"]);
    let password: &[u8] = b"\x01\x05alice\x06secret";
    let asked = || talk(&plan, &[(Start, "read until 1000"), (Bytes(GREETING), "0502, read until 1000")]);
    let dialled = (Bytes(LITERAL), "Accept 0, dial 198.51.100.2:443");
    go_on(
        &mut asked(),
        &[
            (Pause(400), ""),
            (Slowly(password), VERIFY),
            // The check takes its time, and that is not the client's.
            (Pause(5000), ""),
            (Verified(Right), "0100, read until 6400"),
            dialled,
            (Connected, &format!("{GRANTED}, tunnel 0")),
        ],
    );
    for (verification, reason) in [(Wrong, "unauthenticated"), (Unavailable, "limit")] {
        let expected = format!("close {reason}: 0101");
        go_on(&mut asked(), &[(Bytes(password), VERIFY), (Verified(verification), &expected)]);
    }
    // In one segment, and the request behind it.
    let all = [GREETING, password, LITERAL].concat();
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&all), &format!("0502, {VERIFY}")),
            (Verified(Right), "Accept 0, 0100, dial 198.51.100.2:443"),
        ],
    );
    // Who cannot say it, says it in another way, or not in time.
    talk(&plan, &[(Start, "read until 1000"), (Bytes(b"\x05\x01\x00"), "close unauthenticated: 05ff")]);
    go_on(&mut asked(), &[(Bytes(LITERAL), "close bad_request: reset")]);
    go_on(
        &mut asked(),
        &[(Bytes(&password[..5]), "read until 1000"), (Silence, "close process_timeout: reset")],
    );
    go_on(&mut asked(), &[(Eof, "close client_gone: quiet")]);
}

#[cfg(feature = "udp")]
const ASSOCIATE: &[u8] = b"\x05\x03\x00\x01\0\0\0\0\0\0";

#[cfg(feature = "udp")]
#[test]
fn an_association_is_begun_unless_nothing_could_go_over_it() {
    let check = |listener: &str, rules: &[&str], request: &[u8], expected: &str| {
        asks(&config(&format!("mode: socks5, {listener}"), rules), &[(Slowly(request), expected)]);
    };
    let any = "associate None None";
    check("udp: true", &["action: accept"], ASSOCIATE, any);
    check("udp: true", &["action: accept, protoL5: quic, dns: www.example.com"], ASSOCIATE, any);
    check("udp: true", &["action: accept, port: 443"], ASSOCIATE, any);
    check(
        "udp: true",
        &["action: accept, protoL4: tcp"],
        ASSOCIATE,
        &format!("Denied default, {}", refused("denied", 2)),
    );
    check(
        "udp: true",
        &["action: deny, src: 192.168.1.0/24", "action: accept"],
        ASSOCIATE,
        &format!("Denied 0, {}", refused("denied", 2)),
    );
    check("udp: true", &["action: accept"], b"\x05\x03\x00\x01\0\0\0\0\x10\0", "associate None Some(4096)");
    check("udp: true", &["action: accept"], b"\x05\x03\x00\x05", &refused("bad_request", 8));
    check("udp: false", &["action: accept"], ASSOCIATE, &refused("bad_request", 7));
}

#[cfg(feature = "udp")]
#[test]
fn an_association_knows_its_user_and_ends_without_a_word() {
    let users = "users: { alice: $5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5 }";
    let plan = config(&format!("mode: socks5, udp: true, {users}"), &["action: accept, user: alice"]);
    let sent = [GREETING, b"\x01\x05alice\x06secret", ASSOCIATE].concat();
    let mut simulation = talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(&sent), &format!("0502, {VERIFY}")),
            (Verified(Right), "0100, associate Some(\"alice\") None"),
        ],
    );
    let reply = simulation.session.associated("192.168.1.1:40001".parse().unwrap());
    assert_eq!(reply, b"\x05\0\0\x01\xc0\xa8\x01\x01\x9c\x41");
    go_on(&mut simulation, &[(Closes(CloseReason::OutOfResources), "close out_of_resources: reset")]);
}
