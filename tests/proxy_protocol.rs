//! The PROXY protocol, versions 1 and 2, as a listener: who may speak it, what it may say, in how many pieces.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::SocketAddr;

use common::client::{End, connect, expect_bytes, proxy_v1, proxy_v2, read_end, write_bytewise};
use common::daemon::Daemon;
use common::free_port;
use common::origin::{Origin, finish};
use common::tls::{ALERT_UNRECOGNIZED_NAME, hello};

fn start(rules: &str) -> (Daemon, u16) {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\ndebug: true\noutput: {{allowLocal: true}}\n\
         timeout: {{process: 1000}}\n{rules}\n"
    );
    (Daemon::start(&config, &[port]), port)
}

const ALL: &str = "rules:\n  - {action: accept}\n";

/// Source and destination of one family.
fn ends(dest: SocketAddr) -> (SocketAddr, SocketAddr) {
    (if dest.is_ipv4() { "192.0.2.7:51234" } else { "[2001:db8::7]:51234" }.parse().unwrap(), dest)
}

fn echo_works(port: u16, header: &[u8], bytewise: bool) {
    let mut stream = connect(("127.0.0.1", port));
    if bytewise {
        write_bytewise(&mut stream, header);
        stream.write_all(b"payload").unwrap();
    } else {
        stream.write_all(&[header, b"payload"].concat()).unwrap();
    }
    expect_bytes(&mut stream, b"payload");
    finish(&stream);
    assert_eq!(read_end(&mut stream), End::Closed(vec![]));
}

#[test]
fn both_versions_both_families_whole_and_in_one_byte_pieces() {
    let (daemon, port) = start(ALL);
    for origin in [Origin::echo("127.0.0.1:0"), Origin::echo("[::1]:0")] {
        let (src, dest) = ends(origin.addr);
        for bytewise in [false, true] {
            echo_works(port, &proxy_v1(src, dest), bytewise);
            echo_works(port, &proxy_v2(1, src, dest, &[]), bytewise);
            // TLVs are skipped: an unknown one, and one of 3,000 bytes.
            let mut tlvs = vec![0xe0, 0, 3, 1, 2, 3, 0x04, 0x0b, 0xb8];
            tlvs.resize(tlvs.len() + 3000, 0);
            echo_works(port, &proxy_v2(1, src, dest, &tlvs), bytewise && cfg!(not(debug_assertions)));
        }
        // The header's source is the client, with its port.
        daemon.wait_log(&[&format!("| {} => {dest} | Accept | rule=0 sport=51234", src.ip())]);
    }
}

#[test]
fn the_source_in_the_header_is_what_rules_see() {
    let (_daemon, port) = start("rules:\n  - {src: 192.0.2.7, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    echo_works(port, &proxy_v1("192.0.2.7:1000".parse().unwrap(), origin.addr), false);
    let mut stream = connect(("127.0.0.1", port));
    stream.write_all(&proxy_v1("192.0.2.8:1000".parse().unwrap(), origin.addr)).unwrap();
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_tls_name_behind_the_header_is_decided_by_name() {
    let (daemon, port) =
        start("rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let (src, dest) = ends(origin.addr);
    // Header and hello in one segment.
    let mut stream = connect(("127.0.0.1", port));
    stream.write_all(&[proxy_v2(1, src, dest, &[]), hello("x.blocked.example")].concat()).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);
    let bytes = hello("www.example.com");
    let mut stream = connect(("127.0.0.1", port));
    stream.write_all(&[proxy_v1(src, dest), bytes.clone()].concat()).unwrap();
    expect_bytes(&mut stream, &bytes);
}

#[test]
fn local_and_unknown_are_health_checks_and_close_quietly() {
    let (daemon, port) = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let (src, dest) = ends(origin.addr);
    let mut unspec = proxy_v2(0, src, dest, &[]);
    unspec.truncate(16);
    unspec[13] = 0;
    unspec[14..16].fill(0);
    for header in [
        proxy_v2(0, src, dest, &[]),
        unspec,
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
    ] {
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(&header).unwrap();
        assert!(
            matches!(read_end(&mut stream), End::Closed(rest) if rest.is_empty()),
            "{}",
            header.escape_ascii()
        );
    }
    assert_eq!(origin.accepted(), 0);
    assert_eq!(daemon.find_log(&["| ERROR |"]), None);
    assert_eq!(daemon.find_log(&["| WARN"]), None);
}

#[test]
fn a_missing_or_broken_header_is_refused_and_nothing_is_dialled() {
    let (daemon, port) = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let (src, dest) = ends(origin.addr);
    let mut version3 = proxy_v2(1, src, dest, &[]);
    version3[12] = 0x31;
    let mut short = proxy_v2(1, src, dest, &[]);
    short[15] = 4;
    let target = dest.port();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(),
        hello("www.example.com"),
        format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 {target}0000\r\n").into_bytes(),
        format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 {target} extra\r\n").into_bytes(),
        format!("PROXY TCP4 ::1 127.0.0.1 1 {target}\r\n").into_bytes(),
        format!("PROXY TCP4 192.0.2.07 127.0.0.1 1 {target}\r\n").into_bytes(),
        format!("PROXY TCP4  192.0.2.7 127.0.0.1 1 {target}\r\n").into_bytes(),
        format!("proxy TCP4 192.0.2.7 127.0.0.1 1 {target}\r\n").into_bytes(),
        format!("PROXY TCP4 192.0.2.7 127.0.0.1 1 {target}\n").into_bytes(),
        [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        version3,
        short,
    ] {
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(&bytes).unwrap();
        let end = read_end(&mut stream);
        assert!(
            matches!(&end, End::Closed(b) | End::Reset(b) if b.is_empty()),
            "{}: {end:?}",
            bytes.escape_ascii()
        );
    }
    assert_eq!(origin.accepted(), 0);
    daemon.wait_log(&["Closed | reason=bad_proxy_header"]);
}

#[test]
fn a_header_that_does_not_come_in_time_is_refused() {
    let (daemon, port) = start(ALL);
    for part in [&b""[..], b"PROXY TCP4 192.0.2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"] {
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(part).unwrap();
        let _ = read_end(&mut stream);
    }
    daemon.wait_log(&["Closed | reason=process_timeout"]);
}

#[test]
fn a_sender_that_is_not_trusted_is_refused_whatever_it_says() {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}, trusted: ['198.51.100.0/24']}}\n\
         debug: true\noutput: {{allowLocal: true}}\nrules:\n  - {{action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let (src, dest) = ends(origin.addr);
    for header in [proxy_v1(src, dest), proxy_v2(1, src, dest, &[])] {
        // The refusal may come before `connect` returns, or before the header is written.
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let _ = stream.write_all(&header);
        let end = read_end(&mut stream);
        assert!(matches!(&end, End::Closed(b) | End::Reset(b) if b.is_empty()), "{end:?}");
    }
    assert_eq!(origin.accepted(), 0);
    daemon.wait_log(&["Closed | reason=bad_proxy_header"]);
}

#[test]
fn a_header_that_names_our_own_listener_is_denied_by_the_built_in_rule() {
    let (daemon, port) = start(ALL);
    for own in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let (src, dest) = ends(own.parse().unwrap());
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(&proxy_v2(1, src, dest, &[])).unwrap();
        let _ = read_end(&mut stream);
        daemon.wait_log(&[&format!("=> {dest} | Denied | rule=always")]);
    }
    assert_eq!(daemon.count_log(&["Denied"]), 2, "it went round:\n{}", daemon.log());
}
