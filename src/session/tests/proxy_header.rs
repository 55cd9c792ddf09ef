//! Connections behind the PROXY protocol.

use super::In::*;
use super::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n";

/// A version 2 header with this command and family, endpoints as in [`V1`] and a TLV.
fn v2(command: u8, family: u8) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
    let endpoints = [192, 0, 2, 1, 198, 51, 100, 2, 0xc8, 0x22, 1, 0xbb];
    let tlv = [4, 0, 1, 0];
    [signature, &[0x20 | command, family, 0, 16], &endpoints, &tlv].concat()
}

fn proxied(rules: &[&str]) -> String {
    config("mode: proxyproto", rules)
}

#[test]
fn the_header_says_who_and_where_to() {
    let plan = proxied(&["action: accept, src: 192.0.2.1, sport: 51234, port: 443"]);
    for header in [V1.to_vec(), v2(1, 0x11)] {
        let mut session =
            talk(&plan, &[(Start, "read until 1000"), (Slowly(&header), "Accept 0, dial 198.51.100.2:443")]);
        assert_eq!(session.session.client(), "192.0.2.1:51234".parse().unwrap());
        go_on(&mut session, &[(Connected, "tunnel 0")]);
        let behind = [&header[..], b"abc"].concat();
        talk(
            &plan,
            &[
                (Start, "read until 1000"),
                (Bytes(&behind), "Accept 0, dial 198.51.100.2:443"),
                (Connected, "tunnel 3"),
            ],
        );
    }
    let plan = proxied(&["action: accept, src: 192.168.1.20"]);
    talk(&plan, &[(Start, "read until 1000"), (Bytes(V1), "Denied default, close denied: reset")]);
}

#[test]
fn what_stands_behind_the_header_is_looked_at() {
    let plan = proxied(&["action: deny, dns: blocked.example", "action: accept"]);
    let blocked = hello("blocked.example");
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Pause(900), ""),
            (Bytes(V1), "read until 1900"),
            (Slowly(&blocked), "Denied 0, close denied: alert"),
        ],
    );
    let behind = [V1, &blocked].concat();
    talk(&plan, &[(Start, "read until 1000"), (Bytes(&behind), "Denied 0, close denied: alert")]);
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(V1), "read until 1000"),
            (Silence, "Accept 1, dial 198.51.100.2:443"),
        ],
    );
}

#[test]
fn a_sender_that_speaks_for_itself_is_a_health_check() {
    let plan = proxied(&["action: accept"]);
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0, 0x11), v2(0, 0)] {
        talk(&plan, &[(Start, "read until 1000"), (Slowly(&header), "close health_check: quiet")]);
    }
    talk(&plan, &[(Start, "read until 1000"), (Eof, "close client_gone: quiet")]);
    // Version 1 says it with the addresses of the connection itself; to another listener, or of another client, it is
    // somebody's wish.
    for (header, end) in [
        ("PROXY TCP4 192.168.1.20 127.0.0.1 51234 4130\r\n", "close health_check: quiet"),
        ("PROXY TCP4 192.168.1.20 127.0.0.1 51234 4131\r\n", "Denied always, close denied: reset"),
        ("PROXY TCP4 192.168.1.21 127.0.0.1 51234 4130\r\n", "Denied always, close denied: reset"),
        ("PROXY TCP4 192.168.1.20 198.51.100.2 51234 4130\r\n", "Accept 0, dial 198.51.100.2:4130"),
    ] {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(header.as_bytes()), end)]);
    }
}

#[test]
fn who_is_not_trusted_or_says_nothing_of_the_kind_is_refused() {
    let plan = config("mode: proxyproto, trusted: [10.0.0.0/8]", &["action: accept"]);
    talk(&plan, &[(Start, "close untrusted_sender: reset")]);
    let mut mapped = Simulation::from_client(&plan, "[::ffff:10.1.2.3]:4000");
    go_on(&mut mapped, &[(Start, "read until 1000"), (Bytes(V1), "Accept 0, dial 198.51.100.2:443")]);
    let plan = proxied(&["action: accept"]);
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIX"] {
        talk(&plan, &[(Start, "read until 1000"), (Bytes(bytes), "close bad_proxy_header: reset")]);
    }
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(b"PROXY "), "read until 1000"),
            (Silence, "close process_timeout: reset"),
        ],
    );
    talk(
        &plan,
        &[
            (Start, "read until 1000"),
            (Bytes(b"PROXY "), "read until 1000"),
            (Eof, "close bad_proxy_header: reset"),
        ],
    );
}

#[test]
fn a_client_cannot_reach_what_no_proxy_may() {
    let plan = proxied(&["action: accept"]);
    for header in [
        "PROXY TCP4 192.0.2.1 127.0.0.1 51234 443\r\n",
        "PROXY TCP6 2001:db8::1 ::1 51234 443\r\n",
        "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:127.0.0.1 51234 443\r\n",
    ] {
        talk(
            &plan,
            &[(Start, "read until 1000"), (Bytes(header.as_bytes()), "Denied always, close denied: reset")],
        );
    }
}
