//! Datagrams as a router sees them: nftables TPROXY, IPv4 and IPv6, many clients and servers, QUIC and DNS.
#![cfg(feature = "udp")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use calamary::sys::datagram;
use common::daemon::Daemon;
use common::lab::{CLIENT4, CLIENT6, Lab, ROUTER_OUT4, ROUTER_OUT6, SERVER4, SERVER6, at};
use common::origin::Origin;
use common::udp::{UdpClient, UdpServer, from_hex, is_refusal_of, quic_flow, timed};
use common::wait_for;

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
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
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
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
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
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
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
    let before = daemon.steady_descriptors();
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

/// The kernel may join them on either side: when the client has handed them over joined, and when there are many of one size.
#[test]
fn bursts_pass_datagram_by_datagram_in_their_order() {
    let Some((lab, _daemon)) = start("9000", "rules: [{port: 9000, action: accept}]\n") else { return };
    // The third are larger than a packet, and so cannot be joined.
    let sizes =
        [vec![1200; 50], vec![64; 100], vec![2000; 20], vec![1000, 1000, 1000, 0, 3, 3, 2, 1472, 1472, 9]];
    let bursts: Vec<Vec<Vec<u8>>> = sizes
        .iter()
        .map(|sizes| sizes.iter().enumerate().map(|(i, size)| common::pattern(*size, i as u64)).collect())
        .collect();
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let addr = at(server, 9000);
        let answers = bursts.clone();
        let server = lab.server.run(|| {
            UdpServer::start(&addr, move |said| match said {
                [b'#', which] => answers[usize::from(*which)].clone(),
                _ => Vec::new(),
            })
        });
        lab.client.run(|| {
            let socket = UdpClient::new(client);
            for (which, burst) in bursts.iter().enumerate() {
                for joined in [false, true] {
                    let before = server.datagrams().len();
                    if joined {
                        let datagrams = burst.iter().map(Vec::as_slice);
                        let sent = datagram::send(&socket.0, Some(server.addr), &[], datagrams);
                        assert!(sent.error.is_none(), "{sent:?}");
                    } else {
                        burst.iter().for_each(|datagram| socket.send(&addr, datagram));
                    }
                    let seen = || Some(server.datagrams()).filter(|seen| seen.len() == before + burst.len());
                    let seen = wait_for("the burst", seen);
                    assert!(&seen[before..] == burst, "burst {which} to the server, joined: {joined}");
                }
                socket.send(&addr, &[b'#', which as u8]);
                for (i, datagram) in burst.iter().enumerate() {
                    assert!(socket.hear(&addr) == *datagram, "answer {i} of burst {which}");
                }
            }
        });
    }
}

/// The limits of a rule count flows, and what goes beyond its rate is dropped.
#[test]
fn limits_of_a_rule_hold_for_flows() {
    const DATAGRAMS: usize = 20;
    let rules = "rules:
  - {port: 9000, action: accept, limit: {connections: 1}}
  - {port: 9001, action: accept, limit: {rate: 8kbit}}
";
    let Some((lab, daemon)) = start("9000, 9001", rules) else { return };
    let counted = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    let paced = lab.server.run(|| UdpServer::sink(at(SERVER4, 9001)));
    lab.client.run(|| {
        let (first, second) = (UdpClient::new(CLIENT4), UdpClient::new(CLIENT4));
        first.echoed(&at(SERVER4, 9000), b"in");
        second.send(&at(SERVER4, 9000), b"out");
        second.hears_nothing();
        first.echoed(&at(SERVER4, 9000), b"still in");
        for _ in 0..DATAGRAMS {
            first.send(&at(SERVER4, 9001), &[0; 1000]);
        }
    });
    daemon.wait_log(&["| Denied | rule=0", "limit=connections"]);
    assert_eq!(counted.seen().len(), 2);
    daemon.wait_log(&["=> 203.0.113.5:9001 | Accept | rule=1"]);
    // A datagram is a second's worth.
    let seen = common::wait_for("the first", || Some(paced.seen().len()).filter(|seen| *seen > 0));
    assert!(seen < DATAGRAMS / 2, "{seen}");
}

#[test]
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
fn a_client_that_moves_goes_on_and_a_stranger_does_not() {
    let Some((lab, daemon)) = start("443", NAME_RULES) else { return };
    let to = at(SERVER4, 443);
    let _origin = lab.server.run(|| UdpServer::echo(at(SERVER4, 443)));
    let client = lab.client.run(|| UdpClient::new(CLIENT4));
    quic_flow("aioquic-v1").iter().for_each(|datagram| client.send(&to, datagram));
    let _ = client.hear(&to);
    let moved = lab.client.run(|| UdpClient::new(CLIENT4));
    moved.echoed(&to, b"\x40 in the middle");
    daemon.wait_log(&[&format!("| Accept | rule=0 sport={} proto=quic name=quic.example.com", moved.port())]);
    // Nobody knows this one; in the first minute after the start the rules are asked, which want a name.
    let other = lab.client.run(|| UdpClient::new(CLIENT6));
    other.send(&at(SERVER6, 443), b"\x40 in the middle");
    other.hears_nothing();
    daemon.wait_log(&[&format!("| Denied | rule=default sport={} proto=quic", other.port())]);
}

/// Beyond the rules' word nothing is kept of a flow but its socket and some hundred bytes.
#[test]
fn ten_thousand_flows_come_and_go() {
    const PORTS: usize = 100;
    // A limit of connections is half of the descriptors.
    let most = common::process::raise_descriptor_limit().saturating_sub(300) / 2;
    let sockets = (most / PORTS as u64).min(100) as usize;
    assert!(sockets >= 5, "too few descriptors for a test of many flows");
    let rules = "timeout: {udpIdle: 4000}\nlimits: {connections: 10100, perSource: 10100}\nmetrics: {enabled: true}\n\
                 rules: [{port: 10000-10099, action: accept}]\n";
    let Some((lab, daemon)) = start("10000-10099", rules) else { return };
    lab.server.nft(
        "table ip one {
            chain prerouting { type nat hook prerouting priority dstnat; udp dport 10000-10099 redirect to :9000; }
        }",
    );
    let _server = lab.server.run(|| UdpServer::start(at(SERVER4, 9000), |datagram| vec![datagram.to_vec()]));
    let now = || {
        let metrics = lab.router.sh("curl -s http://127.0.0.1:9512/metrics");
        let line = metrics.lines().find(|l| l.starts_with("calamary_current_connections ")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let idle = daemon.descriptors();
    let mut memory = Vec::new();
    for round in 0..2 {
        let clients: Vec<UdpClient> =
            lab.client.run(|| (0..sockets).map(|_| UdpClient::new(CLIENT4)).collect());
        let mut answered = 0;
        for port in 10_000..10_000 + PORTS {
            let to = at(SERVER4, port as u16);
            clients.iter().for_each(|client| client.send(&to, b"hello"));
            for client in &clients {
                // A datagram may be lost where everything comes at once.
                answered += usize::from(client.hear_within(Duration::from_millis(200)).is_some());
            }
        }
        assert!(answered >= sockets * PORTS * 9 / 10, "{answered} of {}", sockets * PORTS);
        memory.push(daemon.memory_kib());
        println!("{} flows, {} KiB, {} descriptors", now(), daemon.memory_kib(), daemon.descriptors());
        wait_for("all flows to end", || (now() == 0).then_some(()));
        assert!(daemon.descriptors() < idle + 150, "round {round}: {} descriptors", daemon.descriptors());
    }
    let [first, second] = memory[..] else { unreachable!() };
    assert!(second < first + 2048, "grows from {first} to {second} KiB");
}

/// Noise of two kinds from one client, and another that has a conversation meanwhile.
#[test]
fn a_flood_is_bounded_and_a_good_flow_goes_on() {
    let rules = format!(
        "limits: {{connections: 400, perSource: 200}}{NAME_RULES}  - {{port: 9000, action: accept}}\n"
    );
    let Some((lab, daemon)) = start("443, 9000", &rules) else { return };
    lab.client.sh("ip addr add 192.168.77.11/24 dev lan");
    let origin = lab.server.run(|| UdpServer::sink(at(SERVER4, 443)));
    let _server = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    let good = lab.client.run(|| UdpClient::new(CLIENT4B));
    good.echoed(&at(SERVER4, 9000), b"before");
    let (before, descriptors) = (daemon.memory_kib(), daemon.descriptors());
    let half = quic_flow("chromium").remove(0);
    lab.client.run(|| {
        for seed in 0..1500 {
            let noise = UdpClient::new(CLIENT4);
            noise.send(&at(SERVER4, 443), &half);
            noise.send(&at(SERVER4, 443), &common::pattern(1000, seed));
            if seed % 50 == 0 {
                good.echoed(&at(SERVER4, 9000), b"meanwhile");
            }
        }
    });
    let grown = daemon.memory_kib().saturating_sub(before);
    assert!(grown < 8192, "{grown} KiB more");
    assert!(daemon.descriptors() < descriptors + 250);
    assert!(origin.seen().is_empty());
    daemon.wait_log(&["too many connections: refused 192.168.77.10"]);
}

/// A firewall rule for the router's own datagrams that does not leave calamary's out: each would come back for ever.
#[test]
fn what_this_program_has_sent_itself_is_not_sent_again() {
    let Some((lab, daemon)) = start("9000", "rules: [{port: 9000, action: accept}]\n") else { return };
    let server = lab.server.run(|| UdpServer::echo(at(SERVER4, 9000)));
    lab.router.nft(
        "table inet own {
            chain output { type route hook output priority mangle; udp dport 9000 meta mark set 1; }
            chain prerouting {
                type filter hook prerouting priority mangle;
                iifname lo meta nfproto ipv4 udp dport 9000 tproxy ip to 127.0.0.1:4128 meta mark set 1 accept
            }
        }",
    );
    lab.client.run(|| {
        let client = UdpClient::new(CLIENT4);
        client.send(&at(SERVER4, 9000), b"hello");
        client.hears_nothing();
        client.send(&at(SERVER4, 9000), b"hello?");
        client.hears_nothing();
    });
    daemon.wait_count(1, &[&format!("{CLIENT4} => {} | Accept | rule=0", at(SERVER4, 9000))]);
    daemon.wait_count(1, &["203.0.113.1 => ", "| Denied | rule=always"]);
    assert_eq!(daemon.count_log(&["=>"]), 2, "{}", daemon.log());
    assert!(server.seen().is_empty());
}

/// Answering in foreign names takes privileges that are kept, and ports below 1024.
#[test]
fn a_user_without_root_answers_all_the_same() {
    let rules = "user: nobody\nrules: [{port: 53, action: accept}]\n";
    let Some((lab, daemon)) = start("53", rules) else { return };
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let _server = lab.server.run(|| UdpServer::echo(at(server, 53)));
        lab.client.run(|| UdpClient::new(client).echoed(&at(server, 53), b"hello"));
    }
    assert!(!daemon.status_field("Uid:").starts_with('0'));
}

/// A PROXY header of version 2 for a datagram: command, source, destination, and some TLV.
fn header(command: u8, src: &str, dest: &str) -> Vec<u8> {
    let [src, dest]: [std::net::SocketAddr; 2] = [src, dest].map(|addr| addr.parse().unwrap());
    let (family, addresses) = match (src.ip(), dest.ip()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dest)) => {
            (0x12, [src.octets(), dest.octets()].concat())
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dest)) => {
            (0x22, [src.octets(), dest.octets()].concat())
        }
        _ => panic!("two families"),
    };
    let ports = [src.port().to_be_bytes(), dest.port().to_be_bytes()].concat();
    let rest = [addresses, ports, b"\xe0\0\x03abc".to_vec()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family, 0, rest.len() as u8][..], &rest].concat()
}

#[test]
fn behind_a_proxy_header_each_datagram_says_whose_it_is() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let config = "listen:
  - {mode: proxyproto, ip4: ['0.0.0.0'], ip6: [], port: 4129, udp: true, trusted: ['192.168.77.10', '192.168.77.11']}
rules:
  - {src: 10.9.9.9, action: deny}
  - {port: 9000, action: accept}
";
    lab.client.sh("for n in 11 12; do ip addr add 192.168.77.$n/24 dev lan; done");
    let daemon = lab.router.run(|| Daemon::start(config, &[4129]));
    let servers = lab.server.run(|| [at(SERVER4, 9000), at(SERVER6, 9000)].map(UdpServer::echo));
    let listener = "192.168.77.1:4129";
    lab.client.run(|| {
        let peers = [CLIENT4, CLIENT4B].map(UdpClient::new);
        for (src, dest) in [("10.1.1.1:5000", at(SERVER4, 9000)), ("[fd00::1]:5000", at(SERVER6, 9000))] {
            let header = header(1, src, &dest);
            // The same client, say two who speak for it: they are two.
            for (peer, word) in peers.iter().zip(["one", "two"]).chain(peers.iter().zip(["three", "four"])) {
                peer.send(listener, &[&header[..], word.as_bytes()].concat());
                let expected = [&header[..], format!("{dest} {word}").as_bytes()].concat();
                assert!(peer.hear(listener) == expected, "{word}");
            }
            daemon.wait_count(2, &[&format!(" => {dest} | Accept | rule=1 sport=5000")]);
        }
        assert_eq!(servers[0].datagrams().concat(), b"onetwothreefour");
        // Denied, speaking for nobody, without a header, with half of one, of a connection.
        let denied = header(1, "10.9.9.9:5000", &at(SERVER4, 9000));
        let mut tcp = header(1, "10.1.1.1:5000", &at(SERVER4, 9000));
        tcp[13] = 0x11;
        let local = header(0, "10.1.1.1:5000", &at(SERVER4, 9000));
        for wrong in [&denied[..], &local, b"hello", &denied[..20], &tcp] {
            peers[0].send(listener, wrong);
            peers[0].hears_nothing();
        }
        daemon.wait_count(1, &["10.9.9.9 => ", "| Denied | rule=0"]);
        // Told so in QUIC, behind the same header.
        let initial = quic_flow("aioquic-v1").remove(0);
        let quic = header(1, "10.9.9.9:5001", &at(SERVER4, 9000));
        for _ in 0..2 {
            peers[0].send(listener, &[&quic[..], &initial].concat());
            let answer = peers[0].hear(listener);
            assert!(answer.strip_prefix(&quic[..]).is_some_and(|vn| is_refusal_of(vn, &initial)));
        }
        let stranger = UdpClient::new("192.168.77.12");
        stranger.send(listener, &[&header(1, "10.1.1.1:5000", &at(SERVER4, 9000))[..], b"hello"].concat());
        stranger.hears_nothing();
        daemon.wait_log(&["datagrams with PROXY headers from 192.168.77.12, who is not trusted"]);
    });
    assert_eq!(servers[0].seen().len(), 4);
}

/// A query of www.example.com for HTTPS, and an answer to it with and without ECH, from the vectors.
fn query_and_answers() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let path = format!("{}/tests/vectors/dns/cloudflare.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let (with, without) = text.trim().split_once('\n').unwrap();
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x41\0\x01".to_vec();
    (query, from_hex(with), from_hex(without))
}

/// Over UDP and over TCP, whether a rule has asked what is spoken or the port was enough, and however TCP cuts it.
#[test]
fn answers_lose_encrypted_hellos_over_both_transports() {
    for rule in ["protoL5: dns", "port: 53"] {
        let Some(lab) = Lab::build_or_skip() else { return };
        lab.tproxy_after("", "{ tcp, udp }", "53", PORT);
        let config = format!("{LISTEN}dns: {{stripEch: true}}\nrules: [{{{rule}, action: accept}}]\n");
        let _daemon = lab.router.run(|| Daemon::start(&config, &[PORT]));
        let (query, with, without) = query_and_answers();
        let answer = with.clone();
        let _over_udp = lab.server.run(|| UdpServer::start(at(SERVER4, 53), move |_| vec![answer.clone()]));
        let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
        let (asks, answers) = (framed(&query), framed(&with).repeat(2));
        let len = asks.len();
        let _over_tcp = lab.server.run(|| {
            Origin::serve(at(SERVER4, 53), move |mut stream| {
                stream.set_nodelay(true).unwrap();
                let mut asked = vec![0; len];
                if stream.read_exact(&mut asked).is_err() {
                    return;
                }
                for piece in answers.chunks(50) {
                    stream.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        });
        lab.client.run(|| {
            let client = UdpClient::new(CLIENT4);
            client.send(&at(SERVER4, 53), &query);
            assert_eq!(client.hear(&at(SERVER4, 53)), without, "{rule}");
            let mut stream = TcpStream::connect(at(SERVER4, 53)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&asks[..2]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(&asks[2..]).unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, framed(&without).repeat(2), "{rule}");
        });
    }
}
