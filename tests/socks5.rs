//! The SOCKS proxy: requests by address and by name, what is refused and with which status, and real clients.
//!
//! Names come from a nameserver of the test; every origin is on loopback or in a namespace.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use common::client::{End, Http, connect, expect_bytes, is_open, read_end, write_bytewise};
use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, DNS4, Lab, ROUTER_OUT4, ROUTER4, ROUTER6, SERVER4, SERVER6, at};
use common::origin::{HttpOrigin, Origin, finish};
use common::proxy::Proxy;
use common::socks::{CHOSEN, GREETING, ask, greeted, read_reply, reply, request, request_by_name, tunnel};
use common::tls::{ALERT_UNRECOGNIZED_NAME, HttpsOrigin, hello};
use common::{Checksum, free_port, have, pattern, skip, wait_for};

const ALL: &str = "rules:\n  - {action: accept}\n";
const BY_NAME: &str = "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {action: accept}\n";

fn start(settings_and_rules: &str) -> Proxy {
    Proxy::start("socks5", settings_and_rules)
}

#[test]
fn addresses_and_names_of_both_families_over_both_families() {
    let proxy = start(ALL);
    let (four, six) = (Origin::echo("127.0.0.1:0"), Origin::echo("[::1]:0"));
    for listener in [proxy.addr(), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], proxy.port))] {
        for (host, origin) in [
            ("127.0.0.1", &four),
            ("::1", &six),
            ("::ffff:127.0.0.1", &four),
            ("www.example.com", &four),
            ("SIX.example.com.", &six),
        ] {
            let (status, bound, mut stream) = ask(listener, host, origin.port());
            assert_eq!(status, 0, "{host}");
            // Where the connection to the server comes from.
            assert_eq!(bound.ip(), origin.addr.ip(), "{host}");
            assert!(bound.port() != 0 && bound != origin.addr);
            stream.write_all(b"payload").unwrap();
            expect_bytes(&mut stream, b"payload");
            finish(&stream);
            assert_eq!(read_end(&mut stream), End::Closed(vec![]));
        }
    }
    // An address that is sent as a name is an address: no nameserver is asked.
    for (host, origin) in [("127.0.0.1", &four), ("::1", &six), ("[::1]", &six)] {
        let mut stream = greeted(proxy.addr());
        stream.write_all(&request_by_name(1, host, origin.port())).unwrap();
        assert_eq!(read_reply(&mut stream).0, 0, "{host}");
        assert_eq!(proxy.names.asked(host), 0);
    }
    let target = format!("=> {}", four.addr);
    proxy.daemon.wait_log(&[&target, "| Accept | rule=0", "name=www.example.com"]);
}

#[test]
fn everything_in_one_byte_segments_and_everything_in_one() {
    let payload = pattern(2000, 3);
    for rules in [ALL, BY_NAME] {
        let proxy = start(rules);
        let origin = Origin::counts_then_answers("127.0.0.1:0");
        let ask = [&GREETING[..], &request(1, "www.example.com", origin.port()), &payload].concat();
        for bytewise in [true, false] {
            let mut stream = connect(proxy.addr());
            if bytewise {
                write_bytewise(&mut stream, &ask);
            } else {
                stream.write_all(&ask).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            expect_bytes(&mut stream, &CHOSEN);
            assert_eq!(read_reply(&mut stream).0, 0);
            assert_eq!(read_end(&mut stream), End::Closed(b"2000 bytes\n".to_vec()), "{bytewise} {rules}");
        }
    }
}

#[test]
fn a_large_transfer_both_ways() {
    let proxy = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = tunnel(proxy.addr(), "www.example.com", origin.port());
    let payload = pattern(5_000_000, 9);
    let sum = Checksum::of(&payload);
    let mut writing = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writing.write_all(&payload).unwrap();
        finish(&writing);
    });
    let End::Closed(echo) = read_end(&mut stream) else { panic!("reset") };
    writer.join().unwrap();
    assert_eq!(Checksum::of(&echo), sum);
}

#[test]
fn malformed_oversized_and_foreign_input_is_refused_and_nothing_is_dialled() {
    let proxy = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let port = origin.port();
    let asked = |request: &[u8]| [&GREETING[..], request].concat();
    let answered = |status: u8| [&CHOSEN[..], &reply(status)].concat();
    let (with_nul, long) = ("a\0b.example", "a".repeat(255));
    for (what, bytes, answer) in [
        ("no methods", vec![5, 0], vec![5, 0xff]),
        ("password only", vec![5, 1, 2], vec![5, 0xff]),
        ("255 methods, none of ours", [&[5, 255][..], &[0x80; 255]].concat(), vec![5, 0xff]),
        ("bind", asked(&request(2, "127.0.0.1", port)), answered(7)),
        ("udp associate", asked(&request(3, "0.0.0.0", 0)), answered(7)),
        ("unknown command", asked(&request(0, "127.0.0.1", port)), answered(7)),
        ("unknown kind of address", asked(&[5, 1, 0, 2, 127, 0, 0, 1, 0, 80]), answered(8)),
        ("empty name", asked(&request_by_name(1, "", port)), answered(1)),
        ("a name of one label of 255", asked(&request_by_name(1, &long, port)), answered(1)),
        ("a name with a NUL", asked(&request_by_name(1, with_nul, port)), answered(1)),
        ("a name with a port", asked(&request_by_name(1, "127.0.0.1:22", port)), answered(1)),
        ("half an address", asked(&request_by_name(1, "127.1", port)), answered(1)),
        ("port 0", asked(&request(1, "127.0.0.1", 0)), answered(1)),
        ("another version behind the greeting", asked(&[4, 1, 0, 1]), answered(1)),
        ("a password that nobody asked for", asked(b"\x01\x01a\x01b"), answered(1)),
        ("socks 4", vec![4, 1, 0, 80, 127, 0, 0, 1, 0], vec![0, 91, 0, 0, 0, 0, 0, 0]),
        ("tls", hello("www.example.com"), vec![]),
        ("ssh", b"SSH-2.0-x\r\n".to_vec(), b"HTTP".to_vec()),
        ("zeros", vec![0; 100_000], vec![]),
        ("a large greeting", [&[5, 1, 9][..], &[5; 100_000]].concat(), vec![5, 0xff]),
    ] {
        let mut stream = connect(proxy.addr());
        let _ = stream.write_all(&bytes);
        match read_end(&mut stream) {
            End::Closed(got) if answer == b"HTTP" => assert!(got.starts_with(b"HTTP/1.1 400 "), "{what}"),
            // Of so much input not everything may have been read before the end.
            End::Closed(got) | End::Reset(got) if bytes.len() > 10_000 => assert_eq!(got, answer, "{what}"),
            end => assert_eq!(end, End::Closed(answer), "{what}"),
        }
    }
    assert_eq!(origin.accepted(), 0);
    proxy.daemon.wait_log(&["Closed | reason=bad_request"]);
    // It still works.
    tunnel(proxy.addr(), "127.0.0.1", port);
}

#[test]
fn a_client_of_another_protocol_is_told_so_and_the_log_says_it_without_debug() {
    let port = free_port();
    let config = format!("listen:\n  - {{mode: socks5, port: {port}}}\nrules:\n  - {{action: accept}}\n");
    let daemon = Daemon::start(&config, &[port]);
    let answer =
        Http::connect(("127.0.0.1", port)).ask("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (400, "this is a SOCKS 5 proxy\n"));
    let line = daemon.wait_log(&["| INFO |", "Failed | reason=wrong_protocol"]);
    assert!(line.contains("127.0.0.1 => ? |") && line.ends_with("mode=socks5"), "{line}");
    if !have("curl") {
        return skip("needs curl");
    }
    let args = ["-sS", "-m", "20", "--socks4", &format!("127.0.0.1:{port}"), "http://192.0.2.1/"];
    let output = Command::new("curl").args(args).output().unwrap();
    assert!(text(&output).contains("(91)"), "{}", text(&output));
}

#[test]
fn a_handshake_that_is_not_whole_in_time_is_ended() {
    let proxy = start(&format!("timeout: {{process: 400}}\n{ALL}"));
    let origin = Origin::echo("127.0.0.1:0");
    let request = request(1, "127.0.0.1", origin.port());
    for part in [&b""[..], &[5], &[5, 2, 0]] {
        let mut stream = connect(proxy.addr());
        stream.write_all(part).unwrap();
        assert_eq!(read_end(&mut stream), End::Reset(vec![]), "{part:?}");
    }
    for part in [&request[..0], &request[..1], &request[..4], &request[..request.len() - 1]] {
        let mut stream = greeted(proxy.addr());
        stream.write_all(part).unwrap();
        assert_eq!(read_end(&mut stream), End::Closed(reply(1)), "{part:?}");
    }
    // A byte now and then does not buy time.
    let mut stream = connect(proxy.addr());
    let start = Instant::now();
    let slow = [&GREETING[..], &request].concat();
    let sent = slow.iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(150));
        stream.write_all(std::slice::from_ref(*byte)).is_ok() && start.elapsed() < Duration::from_secs(15)
    });
    assert!(sent.count() < slow.len());
    assert_eq!(origin.accepted(), 0);
    proxy.daemon.wait_log(&["Closed | reason=process_timeout"]);
}

#[test]
fn silent_clients_stall_nobody() {
    let proxy = start(&format!("timeout: {{process: 20000}}\n{ALL}"));
    let origin = Origin::echo("127.0.0.1:0");
    let silent: Vec<_> = (0..100).map(|_| connect(proxy.addr())).collect();
    let mut stream = tunnel(proxy.addr(), "www.example.com", origin.port());
    stream.write_all(b"x").unwrap();
    expect_bytes(&mut stream, b"x");
    drop(silent);
}

#[test]
fn a_server_that_speaks_first_is_not_delayed_under_port_rules() {
    let origin = Origin::banner("127.0.0.1:0", "SSH-2.0-x\r\n");
    let proxy = start(&format!(
        "timeout: {{process: 20000}}\nrules:\n  - {{port: {}, action: accept}}\n",
        origin.port()
    ));
    let start = Instant::now();
    let mut stream = tunnel(proxy.addr(), "www.example.com", origin.port());
    expect_bytes(&mut stream, b"SSH-2.0-x\r\n");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn one_that_needs_a_peek_is_granted_first_and_refused_as_the_protocol_inside_has_it() {
    let proxy = start(
        "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {encrypted: yes, action: accept}\n\
         \x20 - {protoL5: http, port: 80, action: redirect}\n",
    );
    let origin = Origin::echo("127.0.0.1:0");
    let open = |host: &str, port: u16| {
        let (status, bound, stream) = ask(proxy.addr(), host, port);
        assert_eq!((status, bound), (0, "0.0.0.0:0".parse().unwrap()));
        stream
    };
    let mut stream = open("www.example.com", origin.port());
    stream.write_all(&hello("x.blocked.example")).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    proxy.daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);

    let get = b"GET /a HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    for (port, status) in [(origin.port(), "HTTP/1.1 403 "), (80, "HTTP/1.1 301 ")] {
        let mut stream = open("www.example.com", port);
        stream.write_all(get).unwrap();
        let End::Closed(answer) = read_end(&mut stream) else { panic!("reset") };
        assert!(answer.starts_with(status.as_bytes()), "{}", answer.escape_ascii());
    }
    let mut stream = open("www.example.com", origin.port());
    stream.write_all(b"SSH-2.0-x\r\n").unwrap();
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    assert_eq!(origin.accepted(), 0);

    // Granted already: where nobody is, the tunnel ends.
    let mut stream = open("127.0.0.1", free_port());
    stream.write_all(&hello("www.example.com")).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(vec![]));
    proxy.daemon.wait_log(&["Failed | reason=connect_refused"]);
}

#[test]
fn the_sni_beats_the_name_that_was_asked_for() {
    let proxy = start(BY_NAME);
    let (one, two) = (Origin::echo("127.0.0.1:0"), Origin::serve(("127.0.0.2", 0), |_| {}));
    let mut stream = tunnel(proxy.addr(), "x.blocked.example", two.port());
    stream.write_all(&hello("two.example.com")).unwrap();
    wait_for("the SNI's server", || (two.accepted() == 1).then_some(()));
    assert_eq!((one.accepted(), proxy.names.asked("x.blocked.example")), (0, 0));
}

#[test]
fn a_denied_request_is_refused_at_once_and_nothing_is_resolved() {
    let proxy = start(
        "timeout: {process: 20000}\nrules:\n  - {port: 25, action: deny}\n  - {dest: 127.0.0.9, action: deny}\n\
         \x20 - {protoL5: tls, action: accept}\n",
    );
    let start = Instant::now();
    for (host, port, rule) in [("www.example.com", 25, 0), ("127.0.0.9", 443, 1)] {
        let (status, _, mut stream) = ask(proxy.addr(), host, port);
        assert_eq!(status, 2, "{host}");
        assert_eq!(read_end(&mut stream), End::Closed(vec![]));
        proxy.daemon.wait_log(&[&format!("Denied | rule={rule}")]);
    }
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(proxy.names.asked("www.example.com"), 0);
    // The proxy itself is no destination, whatever the rules say.
    let (status, _, _) = ask(proxy.addr(), "127.0.0.1", proxy.port);
    assert_eq!(status, 2);
    proxy.daemon.wait_log(&["Denied | rule=always"]);
}

#[test]
fn open_connections_are_counted_by_mode() {
    let (port, metrics) = (free_port(), free_port());
    let origin = Origin::echo("127.0.0.1:0");
    let config = format!(
        "listen:\n  - {{mode: socks5, port: {port}}}\noutput: {{allowLocal: true}}\n\
         metrics: {{enabled: true, port: {metrics}}}\n{ALL}"
    );
    let daemon = Daemon::start(&config, &[port, metrics]);
    let gauge = || {
        let page =
            Http::connect(("127.0.0.1", metrics)).ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").text();
        page.lines().find_map(|l| l.strip_prefix("calamary_sessions{mode=\"socks5\"} ")).unwrap().to_string()
    };
    assert_eq!(gauge(), "0");
    let mut stream = tunnel(("127.0.0.1", port), "127.0.0.1", origin.port());
    assert!(is_open(&mut stream, Duration::from_millis(50)));
    assert_eq!(gauge(), "1");
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log(&["Live | mode=socks5 rule=0"]);
    drop(stream);
    wait_for("the end of the session", || (gauge() == "0").then_some(()));
}

/// `open sesame`, as `openssl passwd -5` hashes it.
const HASH: &str = "$5$saltstring$sOFRiuqOzKEQCZAIFmMrCbPuMEMUPOi/BmBpBwWMgW3";

#[test]
fn users_come_in_with_their_password_and_nobody_else() {
    let (port, origin) = (free_port(), HttpOrigin::start("127.0.0.1:0"));
    let config = format!(
        "listen:\n  - {{mode: socks5, port: {port}, users: {{alice: {HASH}}}}}\ndebug: true\n\
         output: {{allowLocal: true}}\nrules:\n  - {{user: alice, action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    let password = |name: &str, password: &str| {
        [&[1, name.len() as u8][..], name.as_bytes(), &[password.len() as u8], password.as_bytes()].concat()
    };
    let request = request(1, "127.0.0.1", origin.port());
    for bytewise in [true, false] {
        let all = [&[5, 2, 0, 2][..], &password("alice", "open sesame"), &request].concat();
        let mut stream = connect(("127.0.0.1", port));
        if bytewise {
            write_bytewise(&mut stream, &all);
        } else {
            stream.write_all(&all).unwrap();
        }
        expect_bytes(&mut stream, &[5, 2, 1, 0]);
        assert_eq!(read_reply(&mut stream).0, 0);
    }
    daemon.wait_log(&["| Accept | rule=0", "user=alice"]);
    for (what, bytes, answer) in [
        ("no password offered", GREETING.to_vec(), vec![5, 0xff]),
        ("wrong", [&[5, 1, 2][..], &password("alice", "open barley")].concat(), vec![5, 2, 1, 1]),
        ("nobody", [&[5, 1, 2][..], &password("bob", "open sesame")].concat(), vec![5, 2, 1, 1]),
        ("empty", [&[5, 1, 2][..], &password("", "")].concat(), vec![5, 2, 1, 1]),
        ("not UTF-8", [&[5, 1, 2, 1, 2][..], b"\xff\xfe\x01x"].concat(), vec![5, 2, 1, 1]),
    ] {
        let mut stream = connect(("127.0.0.1", port));
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_end(&mut stream), End::Closed(answer), "{what}");
    }
    daemon.wait_log(&["Closed | reason=unauthenticated"]);
    // A name makes no line of its own. A source has a line a second.
    std::thread::sleep(Duration::from_millis(1100));
    let mut stream = connect(("127.0.0.1", port));
    let forged = password("a\r\n2026 | INFO | b => c | Accept\t\u{1b}%", "x");
    stream.write_all(&[&[5, 1, 2][..], &forged].concat()).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(vec![5, 2, 1, 1]));
    let escaped = "user=a%0d%0a2026%20%7c%20INFO%20%7c%20b%20=>%20c%20%7c%20Accept%09%1b%25";
    let line = daemon.wait_log(&["| Unauthenticated | credentials=wrong", "user=a%"]);
    assert!(line.ends_with(escaped), "{line}");
    assert!(!daemon.log().contains("open sesame") && !daemon.log().contains("open barley"));
    if !have("curl") {
        return skip("needs curl");
    }
    let curl = |user: &str| {
        let (url, proxy) = (format!("http://{}/x", origin.addr()), format!("127.0.0.1:{port}"));
        let args = ["-sS", "-m", "20", "--proxy-user", user, "--socks5-hostname", &proxy, &url];
        text(&Command::new("curl").args(args).output().unwrap())
    };
    let answer = curl("alice:open sesame");
    assert!(answer.starts_with("GET /x"), "{answer}");
    let answer = curl("alice:wrong");
    assert!(answer.contains("User was rejected by the SOCKS5 server"), "{answer}");
}

/// A router with a SOCKS listener on both families, a nameserver behind it, and what the servers' side refuses.
struct Town {
    lab: Lab,
    daemon: Daemon,
    _names: NameServer,
}

impl Town {
    fn build_or_skip(settings_and_rules: &str) -> Option<Town> {
        let lab = Lab::build_or_skip()?;
        let names = lab.server.run(|| {
            NameServer::with(
                "203.0.113.9:53",
                &[
                    ("www.example.com", &[SERVER4]),
                    ("six.example.com", &[SERVER6]),
                    ("x.blocked.example", &[SERVER4]),
                ],
            )
        });
        lab.server.nft(
            "table inet refusals {
                chain arriving {
                    type filter hook input priority filter;
                    meta nfproto ipv4 tcp dport 82 reject with icmp type host-unreachable
                    meta nfproto ipv6 tcp dport 82 reject with icmpv6 type addr-unreachable
                    tcp dport 83 drop
                }
            }",
        );
        let config = format!(
            "listen:\n  - {{mode: socks5, ip4: ['{ROUTER4}'], ip6: ['{ROUTER6}'], port: 1080}}\n\
             dnsNameservers: ['{DNS4}']\n{settings_and_rules}"
        );
        let daemon = lab.router.run(|| Daemon::start(&config, &[1080]));
        Some(Town { lab, daemon, _names: names })
    }
}

const NO_ROUTE4: &str = "198.51.100.1";
const NO_ROUTE6: &str = "2001:db8:ffff::1";

/// Ports of [`Town`] and what asking for them leads to: nobody listens, a firewall says so, it says nothing, a rule denies.
const ENDS: [(&str, u16, u8); 11] = [
    (SERVER4, 81, 5),
    (SERVER6, 81, 5),
    (SERVER4, 82, 4),
    (SERVER6, 82, 4),
    ("nowhere.example.com", 81, 4),
    (NO_ROUTE4, 81, 3),
    (NO_ROUTE6, 81, 3),
    (SERVER4, 83, 6),
    (SERVER6, 83, 6),
    (SERVER4, 84, 2),
    (SERVER6, 84, 2),
];

// Of ICMPv6 that comes back before `connect` has returned, Linux tells with the first retransmission only, a second later.
const ENDS_RULES: &str = "timeout: {connect: 2500}\noutput: {retries: 0}\n\
                          rules:\n  - {port: 84, action: deny}\n  - {action: accept}\n";

#[test]
fn refused_unreachable_denied_and_timeout_are_told_apart() {
    let Some(town) = Town::build_or_skip(ENDS_RULES) else { return };
    town.lab.client.run(|| {
        for (host, port, expected) in ENDS {
            let listener = if host.contains(':') { ROUTER6 } else { ROUTER4 };
            let (status, bound, mut stream) = ask(at(listener, 1080), host, port);
            assert_eq!((status, bound.port()), (expected, 0), "{host}:{port}");
            assert_eq!(read_end(&mut stream), End::Closed(vec![]));
        }
    });
    let reasons = ["refused", "unreachable", "network_unreachable", "timeout"];
    for reason in reasons {
        town.daemon.wait_log(&[&format!("Failed | reason=connect_{reason} ")]);
    }
    town.daemon.wait_log(&["Failed | reason=name_not_found "]);
    // What works, works from the address that the reply tells.
    let _origin = town.lab.server.run(|| Origin::echo(at(SERVER4, 80)));
    let (status, bound, _) = town.lab.client.run(|| ask(at(ROUTER4, 1080), "www.example.com", 80));
    assert_eq!((status, bound.ip().to_string().as_str()), (0, ROUTER_OUT4));
}

#[test]
fn curl_asks_by_address_and_by_name_over_both_families() {
    if !have("curl") {
        return skip("needs curl");
    }
    let Some(town) = Town::build_or_skip(BY_NAME) else { return };
    let client = &town.lab.client;
    let _https = [SERVER4, SERVER6].map(|ip| town.lab.server.run(|| HttpsOrigin::start(at(ip, 443))));
    let http = town.lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let curl = |args: &str| text(&client.try_sh(&format!("curl -sSk -m 20 {args}")));
    for listener in [at(ROUTER4, 1080), at(ROUTER6, 1080)] {
        for (name, server) in [("www.example.com", SERVER4), ("six.example.com", SERVER6)] {
            let expected = format!("GET /x HTTP/1.1 host={name}");
            let by_name = curl(&format!("--socks5-hostname {listener} https://{name}/x"));
            assert!(by_name.contains(&expected), "{by_name}");
            let resolve = format!("--resolve '{name}:443:{server}'");
            let by_address = curl(&format!("{resolve} --socks5 {listener} https://{name}/x"));
            assert!(by_address.contains(&expected), "{by_address}");
        }
    }
    let plain = curl(&format!("--socks5-hostname {ROUTER4}:1080 http://www.example.com/plain"));
    assert!(plain.contains("GET /plain HTTP/1.1 host=www.example.com"), "{plain}");
    assert_eq!(http.accepted(), 1);
    let literal = curl(&format!("--socks5-hostname {ROUTER4}:1080 https://[{SERVER6}]/x"));
    assert!(literal.contains("GET /x HTTP/1.1"), "{literal}");
    for way in ["--socks5-hostname", "--resolve x.blocked.example:443:203.0.113.5 --socks5"] {
        let denied = curl(&format!("{way} {ROUTER4}:1080 https://x.blocked.example/never"));
        assert!(denied.contains("unrecognized name"), "{denied}");
    }
    let v4 = at(SERVER4, 443);
    town.daemon
        .wait_log(&[&format!("{CLIENT4} => {v4} | Accept | rule=1"), "proto=tls name=www.example.com"]);
    town.daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);
}

#[test]
fn curl_shows_why_there_is_no_connection() {
    if !have("curl") {
        return skip("needs curl");
    }
    let Some(town) = Town::build_or_skip(ENDS_RULES) else { return };
    for (host, port, status) in ENDS {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        let output = town
            .lab
            .client
            .try_sh(&format!("curl -sS -m 20 --socks5-hostname {ROUTER4}:1080 http://{host}:{port}/"));
        assert_eq!(output.status.code(), Some(97), "{}", text(&output));
        assert!(text(&output).contains(&format!("({status})")), "{status}: {}", text(&output));
    }
}

/// Asks for `argv[3]` on port `argv[4]`, by name where `argv[5]` says so, and prints what the server says.
const PYSOCKS: &str = "import socket, socks, sys
s = socks.socksocket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(20)
s.set_proxy(socks.SOCKS5, sys.argv[1], int(sys.argv[2]), rdns=sys.argv[5] == 'name')
try:
    s.connect((sys.argv[3], int(sys.argv[4])))
    print('bound', s.get_proxy_sockname()[0])
    s.sendall(b'payload')
    print(s.recv(100).decode())
except socks.ProxyError as error:
    print(error)
";

#[test]
fn pysocks_connects_and_understands_refusals() {
    let has_pysocks = Command::new("/usr/bin/python3").args(["-c", "import socks"]).output();
    if !has_pysocks.is_ok_and(|output| output.status.success()) {
        return skip("needs /usr/bin/python3 with PySocks (python3-socks)");
    }
    let Some(town) = Town::build_or_skip(ENDS_RULES) else { return };
    let _origins = [SERVER4, SERVER6].map(|ip| town.lab.server.run(|| Origin::banner(at(ip, 80), "hello\n")));
    let python = |proxy: &str, host: &str, port: u16, how: &str| {
        let args = format!("{proxy} 1080 {host} {port} {how}");
        text(&town.lab.client.try_sh(&format!("/usr/bin/python3 -c \"{PYSOCKS}\" {args}")))
    };
    for (host, how) in
        [("www.example.com", "name"), ("six.example.com", "name"), (SERVER4, "address"), (SERVER6, "address")]
    {
        for proxy in [ROUTER4, ROUTER6] {
            let said = python(proxy, host, 80, how);
            assert!(said.starts_with("bound ") && said.contains("hello"), "{proxy} {host}: {said}");
        }
    }
    for (host, port, status) in ENDS {
        let said = python(ROUTER4, host, port, "name");
        assert!(said.contains(&format!("0x{status:02x}: ")), "{host}:{port}: {said}");
    }
}

#[test]
fn netcat_as_the_proxy_command_of_ssh_hears_a_server_that_speaks_first() {
    if !have("nc.openbsd") {
        return skip("needs netcat-openbsd");
    }
    let Some(town) =
        Town::build_or_skip("timeout: {process: 20000}\nrules:\n  - {port: 22, action: accept}\n")
    else {
        return;
    };
    let _ssh =
        [SERVER4, SERVER6].map(|ip| town.lab.server.run(|| Origin::banner(at(ip, 22), "SSH-2.0-test\r\n")));
    let proxies = [at(ROUTER4, 1080), at(ROUTER6, 1080), at(ROUTER4, 1080)];
    for (proxy, name) in proxies.iter().zip(["www.example.com", "six.example.com", SERVER4]) {
        let start = Instant::now();
        let command = format!("timeout 15 nc.openbsd -d -X 5 -x {proxy} {name} 22 | head -n 1");
        let said = text(&town.lab.client.try_sh(&command));
        assert!(said.contains("SSH-2.0-test"), "{name}: {said}");
        assert!(start.elapsed() < Duration::from_secs(12), "{name}");
    }
}
