//! TLS before the HTTP proxy: when it is put on, what an end of it means, and the time that each part has.

use super::*;

fn proxy(rules: &[&str]) -> String {
    let certs = "certs:\n  serverPublic: tests/vectors/certificates/server.pem\n  \
                 serverPrivate: tests/vectors/certificates/server.key\n";
    certs.to_owned() + &config("mode: https", rules)
}

const ALL: &[&str] = &["action: accept"];
const GET: &[u8] = b"GET http://192.0.2.9/ HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT 192.0.2.9:443 HTTP/1.1\r\nHost: 192.0.2.9:443\r\n\r\n";

#[test]
fn behind_tls_it_is_an_http_proxy_and_the_head_has_a_time_of_its_own() {
    talk(
        &proxy(ALL),
        &[
            (In::Start, "read until 1000"),
            (In::Pause(300), ""),
            (In::Bytes(&[22, 3, 1]), "secure 3 until 1000"),
            (In::Pause(600), ""),
            (In::Secured, "read until 1900"),
            (In::Bytes(GET), "Accept 0, dial 192.0.2.9:80"),
            (In::Connected, "exchange GET / HTTP/1.1 +0"),
            (In::Answered(b""), "read until 7440900"),
            (In::Bytes(CONNECT), "Accept 0, dial 192.0.2.9:443"),
            (In::Connected, "200, tunnel 0"),
        ],
    );
}

#[test]
fn the_first_bytes_go_to_tls_as_they_are() {
    for first in [&[22_u8][..], &[0x80, 0x2e, 1], &[0; 1000], &[21, 3, 3, 0, 2, 1, 0]] {
        let expected = format!("secure {} until 1000", first.len());
        talk(&proxy(ALL), &[(In::Start, "read until 1000"), (In::Bytes(first), &expected)]);
    }
}

#[test]
fn who_speaks_no_tls_is_told_so_at_the_first_byte() {
    for text in [&b"G"[..], GET, CONNECT, b"PROXY TCP4 ", b"hello"] {
        talk(&proxy(ALL), &[(In::Start, "read until 1000"), (In::Bytes(text), "close wrong_protocol: 400")]);
    }
}

#[test]
fn silence_and_ends_without_tls_are_ends() {
    let hello = (In::Bytes(&[22][..]), "secure 1 until 1000");
    let start = (In::Start, "read until 1000");
    talk(&proxy(ALL), &[start, (In::Silence, "close process_timeout: reset")]);
    talk(&proxy(ALL), &[start, (In::Eof, "close client_gone: quiet")]);
    talk(&proxy(ALL), &[start, hello, (In::Silence, "close process_timeout: reset")]);
    for (reason, wire) in [
        (CloseReason::ClientGone, "close client_gone: quiet"),
        (CloseReason::ClientReset, "close client_reset: reset"),
        (CloseReason::TlsFailed, "close tls_failed: reset"),
    ] {
        talk(&proxy(ALL), &[start, hello, (In::Closes(reason), wire)]);
    }
    // Behind TLS it is a request that did not come.
    talk(
        &proxy(ALL),
        &[start, hello, (In::Secured, "read until 1000"), (In::Silence, "close process_timeout: 408")],
    );
    talk(
        &proxy(ALL),
        &[start, hello, (In::Secured, "read until 1000"), (In::Eof, "close client_gone: quiet")],
    );
}
