//! What a refused client sees on the wire, and that nothing else sees anything of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::client::{End, Http, connect, connect_via_proxy_header, expect_bytes, read_end};
use common::daemon::Daemon;
use common::origin::Origin;
use common::tls::{ALERT_UNRECOGNIZED_NAME, Hello, hello};
use common::{free_port, process, wait_for};

fn start(settings_and_rules: &str) -> (Daemon, SocketAddr) {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\ndebug: true\noutput: {{allowLocal: true}}\n{settings_and_rules}"
    );
    (Daemon::start(&config, &[port]), SocketAddr::from(([127, 0, 0, 1], port)))
}

const BY_NAME: &str =
    "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {protoL5: [tls, http], action: accept}\n";

#[test]
fn tls_gets_the_alert_then_a_fin_for_every_shape_of_hello() {
    let (daemon, proxy) = start(BY_NAME);
    let origin = Origin::echo("127.0.0.1:0");
    let base = Hello { name: Some("X.Blocked.Example"), ..Hello::default() };
    let padding = vec![0; 20_000];
    for (what, bytes) in [
        ("one record", base.record()),
        ("one-byte records", base.records(1)),
        ("many records", base.records(37)),
        ("large", Hello { extra: &[(21, &padding)], ..base.clone() }.records(16_000)),
        ("with alpn", Hello { alpn: &["h2"], ..base.clone() }.record()),
        ("trailing dot", Hello { name: Some("x.blocked.example."), ..Hello::default() }.record()),
    ] {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()), "{what}");
    }
    assert_eq!(origin.accepted(), 0);
    daemon.wait_log(&["Denied | rule=0", "name=X.Blocked.Example"]);
    daemon.wait_log(&["Closed | reason=denied"]);
}

#[test]
fn the_name_matches_at_label_boundaries_only() {
    let (_daemon, proxy) = start(BY_NAME);
    let origin = Origin::echo("127.0.0.1:0");
    for (name, denied) in [
        ("x.blocked.example", true),
        ("a.b.blocked.example", true),
        ("blocked.example", false),
        ("notblocked.example", false),
        ("x.blocked.example.com", false),
    ] {
        let bytes = hello(name);
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&bytes).unwrap();
        if denied {
            assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()), "{name}");
        } else {
            expect_bytes(&mut stream, &bytes);
        }
    }
}

#[test]
fn http_gets_403_and_other_protocols_a_reset() {
    let (_daemon, proxy) = start("rules:\n  - {protoL5: tls, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").unwrap();
    match read_end(&mut stream) {
        End::Closed(answer) => {
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
        }
        End::Reset(b) => panic!("reset after {}", b.escape_ascii()),
    }
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"\x05\x01\x00 something else").unwrap();
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn what_is_denied_before_its_first_bytes_is_reset_at_once() {
    let (daemon, proxy) =
        start("timeout: {process: 20000}\nrules:\n  - {port: '!443', action: deny}\n  - {action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let start = Instant::now();
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    assert!(start.elapsed() < Duration::from_secs(15));
    daemon.wait_log(&[&format!("=> {} | Denied | rule=0", origin.addr)]);
}

#[test]
fn a_hello_that_never_becomes_whole_is_denied_as_incomplete() {
    let (daemon, proxy) =
        start("timeout: {process: 400}\nrules:\n  - {action: accept, protoL5: [tls, none]}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let bytes = hello("www.example.com");
    for part in [&bytes[..1], &bytes[..6], &bytes[..bytes.len() - 1], b"GET /"] {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(part).unwrap();
        let _ = read_end(&mut stream);
    }
    wait_for("four verdicts", || (daemon.count_log(&["Denied | rule=incomplete"]) == 4).then_some(()));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_hello_beyond_64_kib_is_denied_as_incomplete() {
    let (daemon, proxy) = start("rules:\n  - {action: accept, protoL5: [tls, none]}\n");
    let origin = Origin::echo("127.0.0.1:0");
    // Four bytes of handshake header that promise 70,000, then zeros.
    let mut bytes = Vec::new();
    let mut message = vec![1, 1, 0x11, 0x70, 3, 3];
    message.resize(70_000, 0);
    for chunk in message.chunks(16_000) {
        bytes.extend_from_slice(&[0x16, 3, 1]);
        bytes.extend_from_slice(&(chunk.len() as u16).to_be_bytes());
        bytes.extend_from_slice(chunk);
    }
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    let _ = stream.write_all(&bytes);
    let _ = read_end(&mut stream);
    daemon.wait_log(&["Denied | rule=incomplete"]);
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn silence_is_decided_as_none_after_process() {
    let (daemon, proxy) = start("timeout: {process: 400}\nrules:\n  - {protoL5: none, action: accept}\n");
    let origin = Origin::banner("127.0.0.1:0", "220 hello\r\n");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    expect_bytes(&mut stream, b"220 hello\r\n");
    daemon.wait_log(&["Accept | rule=0", "proto=none"]);
}

#[test]
fn hostile_hellos_are_none_and_crash_nothing() {
    let (mut daemon, proxy) = start("rules:\n  - {protoL5: none, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let good = hello("www.example.com");
    // Every byte of the hello behind the record header set to 0xff, one at a time: some are still hellos (and denied),
    // the others are none; no answer but these, and the daemon lives.
    let mut cases: Vec<Vec<u8>> = (5..good.len())
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            bytes
        })
        .collect();
    cases.push(b"\x16\x03\x01\x00\x00".repeat(100));
    cases.push(b"\x16\x03\x01\xff\xff\x01\xff\xff\xff".to_vec());
    cases.push(b"\x16\x03".to_vec());
    for bytes in cases {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = read_end(&mut stream);
    }
    assert!(daemon.is_running());
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"still alive\n").unwrap();
    expect_bytes(&mut stream, b"still alive\n");
}

#[test]
fn a_thousand_silent_clients_delay_nobody() {
    let limit = process::raise_descriptor_limit();
    let silent = 1000.min(limit as usize / 4);
    let (_daemon, proxy) = start(
        "timeout: {process: 60000}\nlimits: {connections: 1500, perSource: 1500}\n\
         rules:\n  - {protoL5: [tls, http], action: accept}\n",
    );
    let origin = Origin::echo("127.0.0.1:0");
    let crowd: Vec<TcpStream> = (0..silent).map(|_| connect_via_proxy_header(proxy, origin.addr)).collect();
    // Half of them began to speak and stopped.
    for mut stream in crowd.iter().step_by(2) {
        stream.write_all(b"\x16\x03\x01").unwrap();
    }
    let start = Instant::now();
    for _ in 0..50 {
        let bytes = hello("www.example.com");
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&bytes).unwrap();
        expect_bytes(&mut stream, &bytes);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "50 sessions took {:?}", start.elapsed());
    drop(crowd);
}

#[test]
fn clients_that_vanish_in_the_middle_of_anything_leave_nothing_behind() {
    let (mut daemon, proxy) = start(BY_NAME);
    let origin = Origin::echo("127.0.0.1:0");
    let bytes = hello("www.example.com");
    let idle = daemon.descriptors();
    for cut in 0..200 {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&bytes[..cut.min(bytes.len())]).unwrap();
        if cut % 2 == 0 { process::reset(stream) } else { drop(stream) }
    }
    daemon.wait_descriptors(idle + 5);
    assert!(daemon.is_running());
}

#[test]
fn a_tls_parser_that_is_switched_off_makes_its_traffic_none() {
    let (daemon, proxy) = start("parse: {tls: false}\nrules:\n  - {protoL5: none, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let bytes = hello("x.blocked.example");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(&bytes).unwrap();
    expect_bytes(&mut stream, &bytes);
    daemon.wait_log(&["Accept | rule=0", "proto=none"]);
}

#[test]
fn a_denied_client_that_does_not_read_its_answer_holds_nothing() {
    let (daemon, proxy) = start(BY_NAME);
    let origin = Origin::echo("127.0.0.1:0");
    let idle = daemon.descriptors();
    let clients: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect_via_proxy_header(proxy, origin.addr);
            stream.write_all(&hello("x.blocked.example")).unwrap();
            stream
        })
        .collect();
    daemon.wait_descriptors(idle + 5);
    drop(clients);
}

#[test]
fn an_esni_rule_denies_its_extension() {
    let (_daemon, proxy) =
        start("rules:\n  - {esni: yes, action: deny}\n  - {protoL5: tls, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    let with = Hello { name: Some("www.example.com"), extra: &[(0xffce, &[0; 40])], ..Hello::default() };
    stream.write_all(&with.record()).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    let bytes = hello("www.example.com");
    stream.write_all(&bytes).unwrap();
    expect_bytes(&mut stream, &bytes);
}

#[test]
fn ech_is_real_only_with_a_known_public_name() {
    let (daemon, proxy) =
        start("rules:\n  - {ech: real, action: deny}\n  - {protoL5: tls, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let ech = [0u8, 0, 1, 0, 1, 7, 0, 2, 1, 2, 0, 4, 1, 2, 3, 4];
    let hello = |name, with| {
        let extra: &[(u16, &[u8])] = if with { &[(0xfe0d, &ech)] } else { &[] };
        Hello { name: Some(name), extra, ..Hello::default() }.record()
    };
    for (name, with, denied) in [
        ("cloudflare-ech.com", true, true),
        ("cloudflare-ech.com", false, false),
        ("www.example.com", true, false),
    ] {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        let bytes = hello(name, with);
        stream.write_all(&bytes).unwrap();
        if denied {
            assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()), "{name}");
        } else {
            expect_bytes(&mut stream, &bytes);
        }
    }
    daemon.wait_log(&["Denied | rule=0", "ech=real"]);
}

#[test]
fn dns_over_tcp_is_identified_by_its_length_and_question() {
    let (daemon, proxy) =
        start("rules:\n  - {protoL5: dns, action: deny}\n  - {protoL5: none, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let mut query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01"
            .to_vec();
    query.splice(0..0, (query.len() as u16).to_be_bytes());
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(&query).unwrap();
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    let line = daemon.wait_log(&["Denied | rule=0", "proto=dns"]);
    assert!(line.ends_with(" proto=dns query=www.example.com"), "{line}");
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn an_http_listener_keeps_serving_while_others_send_rubbish() {
    let port = free_port();
    let mut daemon = Daemon::start(
        &format!(
            "listen:\n  - {{mode: http, port: {port}}}\ntimeout: {{process: 500}}\nrules:\n  - {{action: deny}}\n"
        ),
        &[port],
    );
    thread::scope(|scope| {
        for seed in 0..4u64 {
            scope.spawn(move || {
                for round in 0..50 {
                    let mut stream = connect(("127.0.0.1", port));
                    let _ = stream.write_all(&common::pattern(700, seed * 1000 + round));
                    let mut buffer = [0; 1024];
                    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                    let _ = stream.read(&mut buffer);
                }
            });
        }
        for _ in 0..20 {
            let answer =
                Http::connect(("127.0.0.1", port)).ask("GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.status, 403);
        }
    });
    assert!(daemon.is_running());
}
