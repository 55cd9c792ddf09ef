//! Datagrams as a router sees them: nftables TPROXY, IPv4 and IPv6, many clients and servers, QUIC and DNS.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::daemon::Daemon;
use common::lab::{CLIENT4, CLIENT6, Lab, ROUTER_OUT4, ROUTER_OUT6, SERVER4, SERVER6, at};
use common::udp::{UdpClient, UdpServer, is_refusal_of, quic_flow, timed};

const PORT: u16 = 4128;

const LISTEN: &str = "listen:
  - {mode: transparent, ip4: ['127.0.0.1'], ip6: ['::1'], port: 4128, udp: true, tproxy: true}
";

/// A rule of many firewalls: what belongs to a transparent socket is led there at once.
const SOCKET_RULE: &str = "meta l4proto { tcp, udp } socket transparent 1 meta mark set 1 accept";

/// A lab with the daemon on its router and all of the client's datagrams to `dports` going through it.
fn start(dports: &str, settings_and_rules: &str) -> Option<(Lab, Daemon)> {
    let lab = Lab::build_or_skip()?;
    lab.tproxy_udp(dports, PORT);
    let daemon = lab.router.run(|| Daemon::start(&format!("{LISTEN}{settings_and_rules}"), &[PORT]));
    Some((lab, daemon))
}

/// Two more addresses of the client.
const CLIENT4B: &str = "192.168.77.11";
const CLIENT6B: &str = "fd00:77::11";
const SERVER4B: &str = "203.0.113.6";
const SERVER6B: &str = "2001:db8:113::6";

/// Clients and servers in all combinations, one after the other and again: each hears those whom it has asked, under the
/// address that it has asked, and each server hears of the router.
fn everybody_is_answered_by_whom_he_asked(firewall: &str) {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.tproxy_after(firewall, "udp", "9000, 9001", PORT);
    lab.client.sh("ip addr add 192.168.77.11/24 dev lan; ip addr add fd00:77::11/64 dev lan nodad");
    let config = format!("{LISTEN}workers: 4\nrules: [{{port: 9000-9001, action: accept}}]\n");
    let daemon = lab.router.run(|| Daemon::start(&config, &[PORT]));
    for (clients, servers, router) in [
        ([CLIENT4, CLIENT4B], [SERVER4, SERVER4B], ROUTER_OUT4),
        ([CLIENT6, CLIENT6B], [SERVER6, SERVER6B], ROUTER_OUT6),
    ] {
        let servers: Vec<UdpServer> = lab.server.run(|| {
            let addrs = servers.iter().flat_map(|ip| [at(ip, 9000), at(ip, 9001)]);
            addrs.map(UdpServer::echo).collect()
        });
        lab.client.run(|| {
            // Two sockets at each address: four clients.
            let clients: Vec<UdpClient> =
                clients.iter().flat_map(|ip| [UdpClient::new(ip), UdpClient::new(ip)]).collect();
            for round in 0..3 {
                for client in &clients {
                    for server in &servers {
                        client.echoed(&server.addr.to_string(), format!("round {round}").as_bytes());
                    }
                }
            }
            // All at once.
            for client in &clients {
                servers.iter().for_each(|server| client.send(&server.addr.to_string(), b"at once"));
            }
            for client in &clients {
                let mut heard: Vec<String> = servers
                    .iter()
                    .map(|_| {
                        let (from, said) = client.hear_within(common::PATIENCE).expect("an answer");
                        assert_eq!(String::from_utf8(said).unwrap(), format!("{from} at once"));
                        from
                    })
                    .collect();
                heard.sort();
                let mut asked: Vec<String> = servers.iter().map(|server| server.addr.to_string()).collect();
                asked.sort();
                assert_eq!(heard, asked);
                client.hears_nothing();
            }
        });
        for server in &servers {
            assert_eq!(server.seen().len(), 16, "{}", server.addr);
            assert!(server.seen().iter().all(|(from, _)| from.ip().to_string() == router));
            // One for each client's socket.
            daemon.wait_count(4, &[&format!("=> {} | Accept | rule=0 sport=", server.addr)]);
        }
    }
}

#[test]
fn everybody_is_answered_by_whom_he_asked_through_tproxy() {
    everybody_is_answered_by_whom_he_asked("");
}

#[test]
fn everybody_is_answered_by_whom_he_asked_where_the_firewall_looks_for_sockets() {
    everybody_is_answered_by_whom_he_asked(SOCKET_RULE);
}

const NAME_RULES: &str = "
rules:
  - {protoL5: quic, dns: [.example.com], action: accept}
  - {protoL5: dns, action: accept}
";

#[test]
fn quic_is_let_in_by_name_with_its_datagrams_in_their_order() {
    let Some((lab, daemon)) = start("443", NAME_RULES) else { return };
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let origin = lab.server.run(|| UdpServer::echo(at(server, 443)));
        let flow = quic_flow("chromium");
        assert!(flow.len() >= 2);
        lab.client.run(|| {
            let socket = UdpClient::new(client);
            let to = at(server, 443);
            socket.send(&to, &flow[0]);
            // Nothing goes on before the hello is whole.
            socket.hears_nothing();
            for datagram in &flow[1..] {
                socket.send(&to, datagram);
            }
            for datagram in &flow {
                assert!(socket.hear(&to).ends_with(datagram));
            }
            socket.echoed(&to, b"\x40 what comes later");
        });
        let mut expected = flow.clone();
        expected.push(b"\x40 what comes later".to_vec());
        assert!(origin.datagrams() == expected, "lost, doubled or in another order");
        daemon.wait_log(&[
            &format!("| INFO | {client} => {} | Accept | rule=0 sport=", at(server, 443)),
            "proto=quic name=www.example.com tls=1.3 alpn=h3 ech=grease ja4=q13d0312h3_",
        ]);
    }
}

#[test]
fn quic_that_is_refused_is_told_so_at_once_and_nothing_else_is() {
    let rules = "
rules:
  - {dns: www.example.com, action: deny}
  - {protoL5: quic, port: 443, action: accept}
";
    let Some((lab, daemon)) = start("443, 444, 445", rules) else { return };
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let origin = lab.server.run(|| UdpServer::sink(at(server, 443)));
        let refused = |flow: &[Vec<u8>], port: u16| {
            let to = at(server, port);
            let socket = UdpClient::new(client);
            let (answer, time) = timed(|| {
                flow.iter().for_each(|datagram| socket.send(&to, datagram));
                socket.hear(&to)
            });
            assert!(is_refusal_of(&answer, &flow[0]), "{answer:x?}");
            assert!(time < Duration::from_millis(900), "as long as the time for first bytes: {time:?}");
            // It may have been lost: who asks again hears it again, and the log has one line.
            while socket.hear_within(common::udp::SILENCE).is_some() {}
            socket.send(&to, &flow[0]);
            assert!(is_refusal_of(&socket.hear(&to), &flow[0]));
            socket.send(&to, b"\x40 in short");
            socket.hears_nothing();
            socket.port()
        };
        lab.client.run(|| {
            let port = refused(&quic_flow("chromium"), 443);
            let at_443 = at(server, 443);
            daemon.wait_count(
                1,
                &[&format!("{client} => {at_443} | Denied | rule=0 sport={port} proto=quic name=www")],
            );
            // No rule lets anything to this port: it is not even identified.
            let port = refused(&quic_flow("aioquic-v1"), 444);
            daemon.wait_count(1, &[&format!("| Denied | rule=0 sport={port}")]);
            // What is no first packet of QUIC hears nothing.
            let socket = UdpClient::new(client);
            let mut small = quic_flow("aioquic-v1")[0].clone();
            small.truncate(1199);
            for datagram in [small.as_slice(), b"hello", b"", &[0x40; 1200], &[0xc0, 0, 0, 0, 0, 0, 0]] {
                socket.send(&at(server, 445), datagram);
                socket.hears_nothing();
            }
            daemon.wait_count(1, &[&format!("| Denied | rule=0 sport={}", socket.port())]);
        });
        assert!(origin.seen().is_empty());
    }
}

#[test]
fn half_an_initial_is_refused_when_its_time_is_over() {
    let settings = format!("timeout: {{process: 300}}\n{NAME_RULES}");
    let Some((lab, daemon)) = start("443", &settings) else { return };
    let origin = lab.server.run(|| UdpServer::sink(at(SERVER4, 443)));
    lab.client.run(|| {
        let socket = UdpClient::new(CLIENT4);
        let flow = quic_flow("chromium");
        socket.send(&at(SERVER4, 443), &flow[0]);
        assert!(is_refusal_of(&socket.hear(&at(SERVER4, 443)), &flow[0]));
    });
    daemon.wait_log(&["| Denied | rule=incomplete sport="]);
    assert!(origin.seen().is_empty());
}

#[test]
fn a_query_is_known_by_its_question_and_its_flow_ends_when_it_is_answered() {
    let Some((lab, daemon)) = start("53", &format!("debug: true\n{NAME_RULES}")) else { return };
    let _server = lab.server.run(|| UdpServer::echo(at(SERVER4, 53)));
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x41\0\x01";
    lab.client.run(|| {
        let socket = UdpClient::new(CLIENT4);
        socket.send(&at(SERVER4, 53), query);
        assert!(socket.hear(&at(SERVER4, 53)).ends_with(query));
    });
    daemon.wait_log(&[&at(SERVER4, 53), "| Accept | rule=1", "proto=dns query=www.example.com"]);
    let line = daemon.wait_log(&["| Closed | reason=finished", "proto=dns", "sent=33 "]);
    let ms: u32 = line.rsplit_once("ms=").unwrap().1.trim().parse().unwrap();
    assert!((1000..9000).contains(&ms), "a second after the answer: {line}");
}

#[test]
fn a_flow_ends_when_it_was_silent_and_leaves_nothing_behind() {
    let rules = "debug: true\ntimeout: {udpIdle: 500}\nmetrics: {enabled: true}\nrules: [{port: 9000, action: accept}]\n";
    let Some((lab, daemon)) = start("9000, 9001", rules) else { return };
    let _server = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    let before = daemon.descriptors();
    lab.client.run(|| {
        let clients: Vec<UdpClient> = (0..50).map(|_| UdpClient::new(CLIENT4)).collect();
        for client in &clients {
            client.echoed(&at(SERVER4, 9000), b"hello");
        }
        // The same address and port may come back.
        daemon.wait_count(50, &["| Closed | reason=idle", "sent=5 received="]);
        clients[0].echoed(&at(SERVER4, 9000), b"again");
        // Nobody is there.
        clients[0].send(&at("203.0.113.7", 9000), b"hello");
        daemon.wait_log(&["203.0.113.7:9000 | Failed | reason=connect_refused"]);
    });
    daemon.wait_count(52, &["| Closed |"]);
    // One for the answers in a worker, or two.
    daemon.wait_descriptors(before + 4);
    let metrics = lab.router.sh("curl -s http://127.0.0.1:9512/metrics");
    for line in ["req_udp 52", "current_connections 0", "bytes_sent 260"] {
        assert!(metrics.lines().any(|l| l.ends_with(line)), "no {line} in\n{metrics}");
    }
}

#[test]
fn limits_count_flows() {
    let rules = "limits: {connections: 20, perSource: 3}\nrules: [{port: 9000, action: accept}]\n";
    let Some((lab, daemon)) = start("9000", rules) else { return };
    let server = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    lab.client.run(|| {
        let clients: Vec<UdpClient> = (0..5).map(|_| UdpClient::new(CLIENT4)).collect();
        for client in &clients[..3] {
            client.echoed(&at(SERVER4, 9000), b"in");
        }
        for client in &clients[3..] {
            client.send(&at(SERVER4, 9000), b"out");
            client.hears_nothing();
        }
        clients[0].echoed(&at(SERVER4, 9000), b"still in");
    });
    daemon.wait_log(&["too many connections: refused 192.168.77.10"]);
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn what_a_proxy_must_not_reach_is_not_reached() {
    let Some((lab, daemon)) = start("9000, 4128", "rules: [{action: accept}]\n") else { return };
    let servers = lab.router.run(|| [at("192.168.77.1", 9000), at("203.0.113.1", 9000)].map(UdpServer::sink));
    lab.client.run(|| {
        for to in ["192.168.77.1:9000", "203.0.113.1:9000", "192.168.77.1:4128"] {
            let socket = UdpClient::new(CLIENT4);
            socket.send(to, b"hello");
            socket.hears_nothing();
            daemon.wait_log(&[to, "| Denied | rule=always"]);
        }
    });
    assert!(servers.iter().all(|server| server.seen().is_empty()));
}

#[test]
fn flows_survive_a_reload_and_a_stop_waits_for_those_that_talk() {
    let rules = |action: &str| format!("rules: [{{port: 9000, action: {action}}}]\n");
    let Some((lab, mut daemon)) = start("9000", &rules("accept")) else { return };
    let _server = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    let to = at(SERVER4, 9000);
    let old = lab.client.run(|| UdpClient::new(CLIENT4));
    old.echoed(&to, b"before");
    daemon.reload(&format!("{LISTEN}{}", rules("deny")));
    daemon.wait_log(&["Reloaded"]);
    old.echoed(&to, b"after");
    let new = lab.client.run(|| UdpClient::new(CLIENT4));
    new.send(&to, b"new");
    new.hears_nothing();
    // What was refused is asked about again by other rules.
    daemon.reload(&format!("{LISTEN}{}", rules("accept")));
    daemon.wait_count(2, &["Reloaded"]);
    new.echoed(&to, b"now");
    daemon.signal(libc::SIGTERM);
    daemon.wait_log(&["Stopping"]);
    let until = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < until {
        old.echoed(&to, b"still");
    }
    assert!(daemon.is_running(), "somebody still talks");
    let stranger = lab.client.run(|| UdpClient::new(CLIENT4));
    stranger.send(&to, b"hello");
    stranger.hears_nothing();
    let (status, time) = timed(|| daemon.wait_exit(common::PATIENCE));
    assert!(status.is_some_and(|status| status.success()));
    assert!(time < Duration::from_secs(6), "nobody talks any more: {time:?}");
}

#[test]
fn large_datagrams_pass() {
    let Some((lab, _daemon)) = start("9000", "rules: [{port: 9000, action: accept}]\n") else { return };
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let _server =
            lab.server.run(|| UdpServer::start(at(server, 9000), |datagram| vec![datagram.to_vec()]));
        lab.client.run(|| {
            let socket = UdpClient::new(client);
            for size in [0, 1, 1472, 1500, 9000, 65_000] {
                let datagram = common::pattern(size, size as u64);
                socket.send(&at(server, 9000), &datagram);
                assert!(socket.hear(&at(server, 9000)) == datagram, "{size} bytes");
            }
        });
    }
}
