//! Names and addresses: which nameserver is asked when, which address is dialled first.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::net::SocketAddr;

use common::client::{Response, ask_once};
use common::daemon::Daemon;
use common::dns::{Answer, NameServer, Question, Transport};
use common::free_port;
use common::lab::{DNS4, Lab, ROUTER4, SERVER4, at};
use common::origin::{HttpOrigin, Origin};

/// An HTTP proxy on loopback that asks these nameservers.
fn proxy(servers: &[&NameServer], settings: &str) -> (Daemon, SocketAddr) {
    let list: Vec<String> = servers.iter().map(|s| format!("'{}'", s.addr)).collect();
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true, retries: 0}}\n\
         dnsNameservers: [{}]\n{settings}\nrules:\n  - {{dest: 127.0.0.7, action: deny}}\n  - {{action: accept}}\n",
        list.join(", ")
    );
    (Daemon::start(&config, &[port]), SocketAddr::from(([127, 0, 0, 1], port)))
}

fn get(proxy: SocketAddr, name: &str, port: u16) -> Response {
    ask_once(proxy, format!("GET http://{name}:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn knows(question: &Question) -> Answer {
    match question.name.as_str() {
        "www.example.com" => Answer::addr("127.0.0.1"),
        _ => Answer::NxDomain,
    }
}

#[test]
fn servfail_and_refused_go_to_the_next_nameserver_and_nxdomain_is_final() {
    let origin = HttpOrigin::start("127.0.0.1:0");
    for first in [Answer::ServFail, Answer::Refused] {
        let answer = first.clone();
        let (one, two) = (
            NameServer::start("127.0.0.1:0", move |_| answer.clone()),
            NameServer::start("127.0.0.1:0", knows),
        );
        let (_daemon, proxy) = proxy(&[&one, &two], "");
        assert_eq!(get(proxy, "www.example.com", origin.port()).status, 200, "{first:?}");
        assert!(one.asked("www.example.com") > 0 && two.asked("www.example.com") > 0);
    }
    let (one, two) =
        (NameServer::start("127.0.0.1:0", |_| Answer::NxDomain), NameServer::start("127.0.0.1:0", knows));
    let (_daemon, proxy) = proxy(&[&one, &two], "");
    assert_eq!(get(proxy, "www.example.com", origin.port()).status, 502);
    assert_eq!(two.questions(), []);
}

#[test]
fn a_nameserver_that_is_silent_or_gone_is_followed_by_the_next() {
    let origin = HttpOrigin::start("127.0.0.1:0");
    let silent = NameServer::start("127.0.0.1:0", |_| Answer::Silent);
    let two = NameServer::start("127.0.0.1:0", knows);
    let (_daemon, addr) = proxy(&[&silent, &two], "timeout: {dnsLookup: 400}");
    assert_eq!(get(addr, "www.example.com", origin.port()).status, 200);
    assert!(silent.asked("www.example.com") > 0);

    // Nobody on that port: the ICMP error leads to the next at once.
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true}}\ntimeout: {{dnsLookup: 15000}}\n\
         dnsNameservers: ['127.0.0.1:{}', '{}']\nrules:\n  - {{action: accept}}\n",
        free_port(),
        two.addr
    );
    let _second = Daemon::start(&config, &[port]);
    let start = std::time::Instant::now();
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], port)), "www.example.com", origin.port()).status, 200);
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let origin = HttpOrigin::start("127.0.0.1:0");
    let server = NameServer::start("127.0.0.1:0", |question| match question.transport {
        Transport::Udp => Answer::Truncated,
        Transport::Tcp => knows(question),
    });
    let (_daemon, proxy) = proxy(&[&server], "");
    assert_eq!(get(proxy, "www.example.com", origin.port()).status, 200);
    assert!(server.questions().iter().any(|q| q.transport == Transport::Tcp));
}

#[test]
fn an_answer_is_cached_for_its_ttl() {
    let origin = HttpOrigin::start("127.0.0.1:0");
    let server = NameServer::start("127.0.0.1:0", |_| Answer::Addrs(vec!["127.0.0.1".parse().unwrap()], 2));
    let (_daemon, proxy) = proxy(&[&server], "workers: 1");
    get(proxy, "www.example.com", origin.port());
    let first = server.asked("www.example.com");
    for _ in 0..5 {
        assert_eq!(get(proxy, "www.example.com", origin.port()).status, 200);
    }
    assert_eq!(server.asked("www.example.com"), first, "asked again within the TTL");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    get(proxy, "www.example.com", origin.port());
    assert!(server.asked("www.example.com") > first, "not asked again after the TTL");
}

#[test]
fn equal_lookups_in_flight_are_one() {
    let origin = HttpOrigin::start("127.0.0.1:0");
    let server = NameServer::start("127.0.0.1:0", |question| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        knows(question)
    });
    let (_daemon, proxy) = proxy(&[&server], "workers: 1");
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(get(proxy, "www.example.com", origin.port()).status, 200));
        }
    });
    // A and AAAA.
    assert!(server.asked("www.example.com") <= 2, "{} questions", server.asked("www.example.com"));
}

#[test]
fn ipv6_is_dialled_first_and_ipv4_where_ipv6_does_not_answer() {
    let both = NameServer::start("127.0.0.1:0", |_| Answer::addrs(&["127.0.0.1", "::1"]));
    let (_daemon, proxy) = proxy(&[&both], "");
    let port = free_port();
    let four = HttpOrigin::start(("127.0.0.1", port));
    let six = HttpOrigin::start(("::1", port));
    assert_eq!(get(proxy, "both.example.com", port).status, 200);
    assert_eq!((six.accepted(), four.accepted()), (1, 0), "IPv6 first, and one connection only");
    drop(six);
    assert_eq!(get(proxy, "both.example.com", port).status, 200);
    assert_eq!(four.accepted(), 1);
}

#[test]
fn only_addresses_that_the_rules_accept_are_dialled() {
    let server = NameServer::start("127.0.0.1:0", |_| Answer::addrs(&["127.0.0.7", "127.0.0.8"]));
    let (_daemon, proxy) = proxy(&[&server], "");
    let port = free_port();
    let denied = HttpOrigin::start(("127.0.0.7", port));
    let allowed = HttpOrigin::start(("127.0.0.8", port));
    for _ in 0..3 {
        assert_eq!(get(proxy, "www.example.com", port).status, 200);
    }
    assert_eq!((denied.accepted(), allowed.accepted()), (0, 3));

    let only_denied = NameServer::start("127.0.0.1:0", |_| Answer::addrs(&["127.0.0.7"]));
    let (_daemon, proxy) = self::proxy(&[&only_denied], "");
    assert_eq!(get(proxy, "www.example.com", port).status, 403);
    assert_eq!(denied.accepted(), 0);
}

#[test]
fn target_says_whether_the_name_or_the_address_is_dialled() {
    use std::io::Write;
    let names = NameServer::start("127.0.0.1:0", |_| Answer::addr("127.0.0.2"));
    let origin_port = free_port();
    let asked = Origin::echo(("127.0.0.1", origin_port));
    let named = Origin::echo(("127.0.0.2", origin_port));
    for (target, expected) in [("auto", &asked), ("original", &asked), ("name", &named)] {
        let port = free_port();
        let config = format!(
            "listen:\n  - {{mode: proxyproto, port: {port}, target: {target}}}\noutput: {{allowLocal: true}}\n\
             dnsNameservers: ['{}']\nrules:\n  - {{action: accept}}\n",
            names.addr
        );
        let _daemon = Daemon::start(&config, &[port]);
        let before = expected.accepted();
        let mut stream = common::client::connect_via_proxy_header(("127.0.0.1", port), asked.addr);
        let bytes = common::tls::hello("www.example.com");
        stream.write_all(&bytes).unwrap();
        common::client::expect_bytes(&mut stream, &bytes);
        assert_eq!(expected.accepted(), before + 1, "{target}");
    }
}

#[test]
fn a_resolved_name_that_is_denied_by_its_address_is_not_connected_to() {
    let names = NameServer::start("127.0.0.1:0", |_| Answer::addr("127.0.0.7"));
    let (daemon, proxy) = proxy(&[&names], "debug: true");
    let port = free_port();
    let denied = Origin::echo(("127.0.0.7", port));
    let mut http = common::client::Http::connect(proxy);
    http.send(format!("CONNECT www.example.com:{port} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(http.head().status, 403);
    daemon.wait_log(&["Denied | rule=0"]);
    assert_eq!(denied.accepted(), 0);
}

#[test]
fn the_hosts_file_is_asked_before_the_nameservers() {
    let server = NameServer::start("127.0.0.1:0", |_| Answer::NxDomain);
    let (_daemon, proxy) = proxy(&[&server], "");
    let origin = HttpOrigin::start("127.0.0.1:0");
    // Every machine's hosts file has this one.
    if std::fs::read_to_string("/etc/hosts").is_ok_and(|h| h.contains("localhost")) {
        assert_eq!(get(proxy, "localhost", origin.port()).status, 200);
        assert_eq!(server.asked("localhost"), 0);
    }
}

#[test]
fn an_address_that_answers_nothing_is_given_up_for_the_next_one() {
    // 203.0.113.77 is on the link, but nobody has it.
    let Some(lab) = Lab::build_or_skip() else { return };
    let _names = lab.server.run(|| {
        NameServer::start(&at(DNS4, 53), |_| Answer::addrs(&["2001:db8:113::77", "203.0.113.77", SERVER4]))
    });
    let origin = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let config = "listen:\n  - {mode: http, ip4: [0.0.0.0], port: 4130}\ndnsNameservers: ['203.0.113.9']\n\
                  timeout: {connect: 10000}\nrules:\n  - {action: accept}\n";
    let _daemon = lab.router.run(|| Daemon::start(config, &[4130]));
    let proxy: SocketAddr = at(ROUTER4, 4130).parse().unwrap();
    let answer = lab.client.run(|| get(proxy, "www.example.com", 80));
    assert_eq!(answer.status, 200);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn nobody_at_the_address_gets_504_after_connect() {
    let Some(lab) = Lab::build_or_skip() else { return };
    // The server drops what comes for this port: no answer at all.
    lab.server.nft(
        "table inet f {
            chain in {
                type filter hook input priority 0
                tcp dport 81 drop
            }
        }",
    );
    let config = "listen:\n  - {mode: http, ip4: [0.0.0.0], port: 4130}\noutput: {retries: 0}\n\
                  timeout: {connect: 800}\nrules:\n  - {action: accept}\n";
    let _daemon = lab.router.run(|| Daemon::start(config, &[4130]));
    let proxy: SocketAddr = at(ROUTER4, 4130).parse().unwrap();
    assert_eq!(lab.client.run(|| get(proxy, SERVER4, 81)).status, 504);
}

#[test]
fn what_the_daemon_sends_carries_the_mark_and_leaves_by_the_interface() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origin = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    lab.router.nft(
        "table inet m {
            counter marked { }
            chain out {
                type filter hook output priority 0
                oifname wan meta mark 0x2a tcp dport 80 counter name marked
            }
        }",
    );
    let config = "listen:\n  - {mode: http, ip4: [0.0.0.0], port: 4130}\noutput: {fwmark: 42, interface: wan}\n\
                  rules:\n  - {action: accept}\n";
    let _daemon = lab.router.run(|| Daemon::start(config, &[4130]));
    let proxy: SocketAddr = at(ROUTER4, 4130).parse().unwrap();
    assert_eq!(lab.client.run(|| get(proxy, SERVER4, 80)).status, 200);
    let counter = lab.router.sh("nft list counter inet m marked");
    assert!(!counter.contains("packets 0 "), "{counter}");
}
