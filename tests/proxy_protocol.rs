//! The PROXY protocol, versions 1 and 2, as a listener: who may speak it, what it may say, in how many pieces.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use common::client::{End, connect, expect_bytes, proxy_v1, proxy_v2, read_end, write_bytewise};
use common::daemon::{Daemon, text};
use common::free_port;
use common::lab::{CLIENT4, CLIENT6, Lab, SERVER4, SERVER6, at};
use common::origin::{HttpOrigin, Origin, finish};
use common::tls::{self, ALERT_UNRECOGNIZED_NAME, hello};

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

fn echo_works(listener: (&str, u16), header: &[u8], bytewise: bool) {
    let mut stream = connect(listener);
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
    let origins = [Origin::echo("127.0.0.1:0"), Origin::echo("[::1]:0")];
    for (listener, origin) in [("127.0.0.1", 0), ("127.0.0.1", 1), ("::1", 0), ("::1", 1)] {
        let (listener, (src, dest)) = ((listener, port), ends(origins[origin].addr));
        for bytewise in [false, true] {
            echo_works(listener, &proxy_v1(src, dest), bytewise);
            echo_works(listener, &proxy_v2(1, src, dest, &[]), bytewise);
            // TLVs are skipped: an unknown one, and one of 300 bytes.
            let mut tlvs = vec![0xe0, 0, 3, 1, 2, 3, 0x04, 0x01, 0x2c];
            tlvs.resize(tlvs.len() + 300, 0);
            echo_works(listener, &proxy_v2(1, src, dest, &tlvs), bytewise);
        }
        // The header's source is the client, with its port.
        daemon.wait_log(&[&format!("| {} => {dest} | Accept | rule=0 sport=51234", src.ip())]);
    }
}

#[test]
fn the_source_in_the_header_is_what_rules_see() {
    let (_daemon, port) = start("rules:\n  - {src: 192.0.2.7, action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    echo_works(("127.0.0.1", port), &proxy_v1("192.0.2.7:1000".parse().unwrap(), origin.addr), false);
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

/// What a header leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leads {
    /// To the destination that it names.
    Through,
    /// To a quiet end: it speaks for nobody.
    Check,
    /// To a reset.
    Refused,
}

/// A version 2 header with another command, kind and length than it should have.
fn raw_v2(command: u8, kind: u8, len: u16, body: &[u8]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, kind], &len.to_be_bytes(), body].concat()
}

/// Puts the right checksum into the four bytes at the end.
fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.len() - 4;
    let sum = header.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 },
        )
    });
    header[at..].copy_from_slice(&(!sum).to_be_bytes());
    header
}

#[test]
fn what_each_header_leads_to() {
    use Leads::*;
    let (daemon, port) = start(ALL);
    let origins = [Origin::echo("127.0.0.1:0"), Origin::echo("[::1]:0")];
    let mut through = 0;
    for origin in &origins {
        let (src, dest) = ends(origin.addr);
        let (from, to, at) = (src.ip(), dest.ip(), dest.port());
        let (family, kind, other) =
            if src.is_ipv4() { ("TCP4", 0x11, "::1") } else { ("TCP6", 0x21, "192.0.2.7") };
        let line = |line: String| format!("PROXY {line}\r\n").into_bytes();
        let v2 = |tlvs: &[u8]| proxy_v2(1, src, dest, tlvs);
        let addresses = v2(&[])[16..].to_vec();
        let len = addresses.len() as u16;
        let checksum = [3, 0, 4, 0, 0, 0, 0];
        let mut wrong = with_checksum(v2(&checksum));
        *wrong.last_mut().unwrap() ^= 1;
        let mut forged = with_checksum(v2(&checksum));
        forged[16] ^= 1;
        for (what, header, leads) in [
            ("version 1", line(format!("{family} {from} {to} 51234 {at}")), Through),
            ("version 2", v2(&[]), Through),
            ("TLVs: ALPN, an empty one, a custom one", v2(b"\x01\0\x02h2\x04\0\0\xe0\0\x01x"), Through),
            ("the largest header", v2(&[&[4, 0xf0, 0][..], &vec![0; 0xf000]].concat()), Through),
            ("a right checksum", with_checksum(v2(&checksum)), Through),
            ("a wrong checksum", wrong, Refused),
            ("a checksum of other addresses", forged, Refused),
            ("an empty checksum", v2(&[3, 0, 0]), Refused),
            ("two checksums", with_checksum(v2(&[checksum, checksum].concat())), Refused),
            ("a TLV longer than the header", v2(&[4, 0, 9, 0]), Refused),
            ("half a TLV", v2(&[4, 0]), Refused),
            ("LOCAL with addresses", proxy_v2(0, src, dest, &[]), Check),
            ("LOCAL without", raw_v2(0x20, 0, 0, &[]), Check),
            ("LOCAL with anything", raw_v2(0x20, kind, 5, b"abcde"), Check),
            ("PROXY of nobody", raw_v2(0x21, 0, 0, &[]), Check),
            ("UNKNOWN", line("UNKNOWN".into()), Check),
            ("UNKNOWN with anything", line("UNKNOWN ffff::1 ffff::2 65535 65535".into()), Check),
            ("version 3", raw_v2(0x31, kind, len, &addresses), Refused),
            ("an unknown command", raw_v2(0x22, kind, len, &addresses), Refused),
            ("an unknown family", raw_v2(0x21, 0x41, len, &addresses), Refused),
            ("an unknown protocol", raw_v2(0x21, kind | 3, len, &addresses), Refused),
            ("UDP", raw_v2(0x21, kind + 1, len, &addresses), Refused),
            ("a UNIX socket", raw_v2(0x21, 0x31, 216, &[b'/'; 216]), Refused),
            ("a length too short for its addresses", raw_v2(0x21, kind, 4, &addresses), Refused),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(), Refused),
            ("TLS", hello("www.example.com"), Refused),
            ("a port out of range", line(format!("{family} {from} {to} 1 {at}0000")), Refused),
            ("a word too many", line(format!("{family} {from} {to} 1 {at} extra")), Refused),
            ("a word missing", line(format!("{family} {from} {to} {at}")), Refused),
            ("two families", line(format!("{family} {other} {to} 1 {at}")), Refused),
            ("two spaces", line(format!("{family}  {from} {to} 1 {at}")), Refused),
            (
                "lower case",
                [b"proxy".to_vec(), line(format!("{family} {from} {to} 1 {at}"))[5..].to_vec()].concat(),
                Refused,
            ),
            ("no CR", format!("PROXY {family} {from} {to} 1 {at}\n").into_bytes(), Refused),
            ("108 bytes without an end", [&b"PROXY TCP4 "[..], &[b'1'; 97]].concat(), Refused),
        ] {
            let mut stream = connect(("127.0.0.1", port));
            stream.write_all(&header).unwrap();
            match leads {
                Through => {
                    through += 1;
                    stream.write_all(b"payload").unwrap();
                    expect_bytes(&mut stream, b"payload");
                }
                Check => assert_eq!(read_end(&mut stream), End::Closed(vec![]), "{what}"),
                Refused => assert_eq!(read_end(&mut stream), End::Reset(vec![]), "{what}"),
            }
            drop(stream);
        }
    }
    assert_eq!(origins.iter().map(Origin::accepted).sum::<usize>(), through);
    for (reason, count) in [("finished", 2 * 5), ("health_check", 2 * 6), ("bad_proxy_header", 2 * 23)] {
        daemon.wait_count(count, &[&format!("Closed | reason={reason}")]);
    }
    // Neither is an error of ours.
    assert_eq!(daemon.find_log(&["| ERROR |"]), None);
    assert_eq!(daemon.find_log(&["| WARN"]), None);
}

#[test]
fn a_header_that_does_not_come_in_time_is_refused() {
    let (daemon, port) = start(ALL);
    let large = raw_v2(0x21, 0x11, 0xffff, &[0; 40_000]);
    let parts = [&b""[..], b"P", b"PROXY TCP4 192.0.2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &large];
    for part in parts {
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(part).unwrap();
        assert_eq!(read_end(&mut stream), End::Reset(vec![]), "{} bytes", part.len());
    }
    // The time is that of the whole header: one byte now and then does not prolong it.
    let mut stream = connect(("127.0.0.1", port));
    let start = std::time::Instant::now();
    for byte in b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 ".iter().cycle() {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(start.elapsed() < common::PATIENCE);
    daemon.wait_count(parts.len() + 1, &["Closed | reason=process_timeout"]);
}

#[test]
fn a_sender_that_is_not_trusted_is_refused_whatever_it_says() {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}, trusted: ['198.51.100.0/24', '2001:db8::/32']}}\n\
         debug: true\noutput: {{allowLocal: true}}\nrules:\n  - {{action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let (src, dest) = ends(origin.addr);
    let headers = [proxy_v1(src, dest), proxy_v2(1, src, dest, &[])];
    for (listener, header) in ["127.0.0.1", "::1"].iter().flat_map(|ip| headers.iter().map(move |h| (*ip, h)))
    {
        // The refusal may come before `connect` returns, or before the header is written.
        let Ok(mut stream) = std::net::TcpStream::connect((listener, port)) else { continue };
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let _ = stream.write_all(header);
        let end = read_end(&mut stream);
        assert!(matches!(&end, End::Closed(b) | End::Reset(b) if b.is_empty()), "{end:?}");
    }
    assert_eq!(origin.accepted(), 0);
    daemon.wait_count(2 * headers.len(), &["Closed | reason=untrusted_sender"]);
}

/// A wrong `trusted` was seen with `debug` only.
#[test]
fn who_is_refused_is_named_and_a_flood_is_a_line_a_second() {
    let port = free_port();
    let config = |trusted: &str| {
        format!(
            "listen:\n  - {{mode: proxyproto, port: {port}, trusted: ['{trusted}']}}\nworkers: 2\n\
             rules:\n  - {{action: accept}}\n"
        )
    };
    let daemon = Daemon::start(&config("198.51.100.0/24"), &[port]);
    let line = "127.0.0.1 => ? | Failed | reason=untrusted_sender sport=";
    let begun = std::time::Instant::now();
    for _ in 0..300 {
        // A reset may come before `connect` returns.
        let _ = std::net::TcpStream::connect(("127.0.0.1", port));
    }
    daemon.wait_log(&["| INFO |", line, "mode=proxyproto"]);
    let (lines, seconds) = (daemon.count_log(&[line]), begun.elapsed().as_secs() as usize);
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s:\n{}", daemon.log());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let _ = std::net::TcpStream::connect(("127.0.0.1", port));
    daemon.wait_log(&[line, "mode=proxyproto count="]);

    daemon.reload(&config("127.0.0.1"));
    daemon.wait_log(&["Reloaded"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    connect(("127.0.0.1", port)).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    daemon.wait_log(&["| INFO |", "127.0.0.1 => ? | Failed | reason=bad_proxy_header sport="]);
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

/// HAProxy on the router: the firewall hands it connections, and it passes on who wanted what.
#[test]
fn haproxy_as_the_sender() {
    if !common::have("haproxy") || !common::have("curl") {
        return common::skip("needs haproxy and curl");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let servers = [SERVER4, SERVER6];
    let ways: [(&str, bool); 5] = [
        ("send-proxy", false),
        ("send-proxy-v2", false),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", false),
        ("send-proxy-v2-ssl", true),
        ("send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,authority,ssl,ssl-cipher", true),
    ];
    let dir = common::TempDir::new();
    let certificate = tls::certificate();
    let both =
        [&certificate.cert_pem, &certificate.key_pem].map(|path| std::fs::read_to_string(path).unwrap());
    let pem = dir.write("both.pem", both.concat());
    let mut config =
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
            .to_string();
    for (i, (options, is_tls)) in ways.iter().enumerate() {
        let (port, wanted) = (4200 + i, 80 + i);
        let ssl = if *is_tls { format!(" ssl crt {}", pem.display()) } else { String::new() };
        config += &format!(
            "frontend f{i}\n  bind 127.0.0.1:{port} transparent{ssl}\n  bind ::1:{port} transparent{ssl}\n\
             \x20 unique-id-format %ci:%cp\n  default_backend b{i}\n\
             backend b{i}\n  server calamary 127.0.0.1:4129 {options} check inter 200ms check-send-proxy\n"
        );
        if i == 0 {
            lab.tproxy(&wanted.to_string(), port as u16);
        } else {
            lab.router.nft(&format!(
                "add rule inet proxy prerouting tcp dport {wanted} tproxy ip to 127.0.0.1:{port} meta mark set 1 accept
                 add rule inet proxy prerouting tcp dport {wanted} tproxy ip6 to [::1]:{port} meta mark set 1 accept"
            ));
        }
    }
    let config = dir.write("haproxy.cfg", config);
    let rules =
        "listen:\n  - {mode: proxyproto, ip6: [], port: 4129}\ndebug: true\nrules:\n  - {action: accept}\n";
    let daemon = lab.router.run(|| Daemon::start(rules, &[4129]));
    let mut haproxy = lab.router.run(|| {
        Command::new("haproxy").arg("-db").arg("-f").arg(&config).stderr(Stdio::piped()).spawn().unwrap()
    });
    let origins: Vec<HttpOrigin> = lab.server.run(|| {
        let all = servers.iter().flat_map(|server| (0..ways.len()).map(move |i| at(server, 80 + i as u16)));
        all.map(HttpOrigin::start).collect()
    });
    // Its checks: of version 1 with the addresses of their own connection, of version 2 LOCAL.
    let checks = |at_least| {
        common::wait_for("health checks", || {
            (daemon.count_log(&["Closed | reason=health_check"]) >= at_least).then_some(())
        });
    };
    checks(ways.len());
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        for (i, (options, is_tls)) in ways.iter().enumerate() {
            let to = at(server, 80 + i as u16);
            let scheme = if *is_tls { "https" } else { "http" };
            let output = lab
                .client
                .try_sh(&format!("curl -sSk -m 20 --connect-to '::{to}' {scheme}://www.example.com/{i}"));
            let said = text(&output);
            assert!(said.contains(&format!("GET /{i} HTTP/1.1")), "{options}: {said}\n{}", daemon.log());
            daemon.wait_log(&[&format!("| {client} => {to} | Accept | rule=0")]);
        }
    }
    // They go on, and leave nothing but debug lines.
    checks(daemon.count_log(&["Closed | reason=health_check"]) + 2 * ways.len());
    let loud = daemon.log().lines().filter(|line| !line.contains("| DEBUG |")).count();
    assert_eq!(loud - daemon.count_log(&["| INFO | Listening"]), 2 * ways.len(), "{}", daemon.log());
    haproxy.kill().unwrap();
    let said = String::from_utf8(haproxy.wait_with_output().unwrap().stderr).unwrap();
    assert!(!said.contains("DOWN"), "{said}");
    assert_eq!(origins.iter().map(HttpOrigin::accepted).sum::<usize>(), 2 * ways.len());
}
