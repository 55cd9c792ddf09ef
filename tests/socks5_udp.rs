//! Datagrams through the SOCKS proxy: where they go and who hears the answers, what is refused, and what ends with what.
//!
//! Names come from a nameserver of the test; every server is on loopback or in a namespace.
#![cfg(feature = "udp")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::client::{End, Http, connect, expect_bytes, is_open, read_end};
use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{
    CLIENT4, CLIENT6, DNS4, Lab, ROUTER_OUT4, ROUTER_OUT6, ROUTER4, ROUTER6, SERVER4, SERVER6, at,
};
use common::socks::{greeted, read_reply, request};
use common::udp::{UdpClient, UdpServer};
#[cfg(feature = "quic")]
use common::udp::{is_refusal_of, quic_flow};
use common::{PATIENCE, free_port, skip, wait_for};

const NAMES: &[(&str, &[&str])] = &[
    ("www.example.com", &["127.0.0.1"]),
    ("six.example.com", &["::1"]),
    ("nine.example.com", &["127.0.0.9"]),
    ("both.example.com", &["127.0.0.9", "127.0.0.1"]),
    ("x.blocked.example", &["127.0.0.1"]),
];

const ALL: &str = "rules:\n  - {action: accept}\n";

struct Proxy {
    daemon: Daemon,
    port: u16,
    metrics: u16,
    names: NameServer,
}

impl Proxy {
    fn start(settings_and_rules: &str) -> Proxy {
        Self::start_with("", settings_and_rules)
    }

    /// `keys` are more of the listener's.
    fn start_with(keys: &str, settings_and_rules: &str) -> Proxy {
        let names = NameServer::with("127.0.0.1:0", NAMES);
        let (port, metrics) = (free_port(), free_port());
        let config = format!(
            "listen:\n  - {{mode: socks5, udp: true, port: {port}{keys}}}\ndebug: true\n\
             output: {{allowLocal: true, retries: 0}}\nmetrics: {{enabled: true, port: {metrics}}}\n\
             dnsNameservers: ['{}']\n{settings_and_rules}",
            names.addr
        );
        Proxy { daemon: Daemon::start(&config, &[port, metrics]), port, metrics, names }
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn metric(&self, name: &str) -> String {
        let page = Http::connect(("127.0.0.1", self.metrics)).ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let page = page.text();
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).to_owned()
    }
}

/// A client with an association.
struct Client {
    control: TcpStream,
    relay: String,
    socket: UdpClient,
}

impl Client {
    fn new(proxy: SocketAddr) -> Client {
        Self::behind(greeted(proxy), &request(3, "0.0.0.0", 0))
    }

    /// One that has been greeted, and asks so.
    fn behind(mut control: TcpStream, request: &[u8]) -> Client {
        control.write_all(request).unwrap();
        let (status, relay) = read_reply(&mut control);
        assert_eq!(status, 0);
        let proxy = control.peer_addr().unwrap();
        assert_eq!(relay.ip(), proxy.ip(), "where the client can reach it");
        assert!(![0, proxy.port()].contains(&relay.port()));
        let socket = UdpClient::new(&control.local_addr().unwrap().ip().to_string());
        Client { control, relay: relay.to_string(), socket }
    }

    fn send(&self, host: &str, port: u16, payload: &[u8]) {
        self.socket.send(&self.relay, &wrapped(host, port, payload));
    }

    /// The next datagram: who has sent it, and what it says.
    fn hear(&self) -> (String, Vec<u8>) {
        unwrapped(&self.socket.hear(&self.relay))
    }

    /// Sends, and expects the answer of [`UdpServer::echo`].
    #[track_caller]
    fn echoed(&self, host: &str, server: &UdpServer, payload: &[u8]) {
        self.send(host, server.addr.port(), payload);
        let (from, said) = self.hear();
        assert_eq!(from, server.addr.to_string(), "{host}");
        assert_eq!(said, [format!("{from} ").as_bytes(), payload].concat(), "{host}");
    }
}

/// A datagram as a SOCKS client sends it.
fn wrapped(host: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0][..], &request(0, host, port)[3..], payload].concat()
}

/// Who has sent this, and what.
fn unwrapped(bytes: &[u8]) -> (String, Vec<u8>) {
    assert_eq!(bytes[..3], [0; 3]);
    let (host, rest) = match bytes[3] {
        1 => (<[u8; 4]>::try_from(&bytes[4..8]).unwrap().map(|b| b.to_string()).join("."), &bytes[8..]),
        3 => {
            let (name, rest) = bytes[5..].split_at(bytes[4].into());
            (String::from_utf8(name.to_vec()).unwrap(), rest)
        }
        4 => {
            let ip = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[4..20]).unwrap());
            (format!("[{ip}]"), &bytes[20..])
        }
        kind => panic!("an address of kind {kind}"),
    };
    (format!("{host}:{}", u16::from_be_bytes([rest[0], rest[1]])), rest[2..].to_vec())
}

#[test]
fn addresses_and_names_of_both_families_over_both_families() {
    let proxy = Proxy::start(ALL);
    let (four, six) = (UdpServer::echo("127.0.0.1:0"), UdpServer::echo("[::1]:0"));
    for listener in [proxy.addr(), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], proxy.port))] {
        let client = Client::new(listener);
        for round in 0..2 {
            for (host, server) in [
                ("127.0.0.1", &four),
                ("::1", &six),
                ("::ffff:127.0.0.1", &four),
                ("www.example.com", &four),
                ("SIX.example.com.", &six),
            ] {
                client.echoed(host, server, format!("round {round}").as_bytes());
            }
        }
        // A flow for each destination; an address in another dress is the same one.
        proxy.daemon.wait_count(4, &["| Accept | rule=0", &format!("sport={}", client.socket.port())]);
        for payload in [&b""[..], &common::pattern(1472, 1), &common::pattern(60_000, 2)] {
            client.echoed("127.0.0.1", &four, payload);
        }
    }
    proxy
        .daemon
        .wait_log(&[&format!("127.0.0.1 => {} | Accept | rule=0", four.addr), "name=www.example.com"]);
    assert_eq!(proxy.metric("calamary_req_udp"), "8");
}

#[test]
fn a_name_is_what_rules_see_and_only_accepted_addresses_are_talked_to() {
    let rules = "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {dest: 127.0.0.9, action: deny}\n  \
                 - {dns: '*.example.com', action: accept}\n";
    let proxy = Proxy::start(rules);
    let server = UdpServer::echo("127.0.0.1:0");
    let port = server.addr.port();
    let client = Client::new(proxy.addr());
    client.echoed("www.example.com", &server, b"by name");
    client.echoed("both.example.com", &server, b"the other address");
    for (host, rule) in [("x.blocked.example", "0"), ("nine.example.com", "1"), ("127.0.0.1", "default")] {
        client.send(host, port, b"denied");
        client.send(host, port, b"denied");
        proxy.daemon.wait_count(1, &[&format!("| Denied | rule={rule}")]);
    }
    client.send("gone.example.com", port, b"nobody");
    proxy.daemon.wait_log(&["| Failed | reason=name_not_found"]);
    client.socket.hears_nothing();
    assert_eq!(server.seen().len(), 2);
    assert_eq!(proxy.names.asked("x.blocked.example"), 0);
    // Others are not touched by that.
    client.echoed("www.example.com", &server, b"still");
}

#[cfg(feature = "quic")]
#[test]
fn quic_goes_where_its_hello_says_and_hears_that_it_is_refused() {
    let rules = "rules:\n  - {dns: nine.example.com, protoL5: quic, action: deny}\n  \
                 - {dns: www.example.com, protoL5: quic, action: accept}\n";
    let proxy = Proxy::start(rules);
    let server = UdpServer::echo("127.0.0.1:0");
    let port = server.addr.port();
    let client = Client::new(proxy.addr());
    let flow = quic_flow("chromium");
    // The hello is for www.example.com.
    for datagram in &flow {
        client.send("nine.example.com", port, datagram);
    }
    for datagram in &flow {
        let (from, said) = client.hear();
        assert_eq!(from, server.addr.to_string());
        assert!(said.ends_with(datagram));
    }
    assert_eq!(server.datagrams(), flow);
    assert_eq!(proxy.names.asked("nine.example.com"), 0);
    proxy.daemon.wait_log(&["| Accept | rule=1", "proto=quic name=www.example.com"]);

    // By address no name is asked for, but the hello's counts as well.
    let proxy = Proxy::start(
        "rules:\n  - {dns: www.example.com, action: deny}\n  - {protoL5: quic, action: accept}\n",
    );
    let client = Client::new(proxy.addr());
    for host in ["127.0.0.1", "::1", "nine.example.com"] {
        for round in 0..2 {
            flow.iter().for_each(|datagram| client.send(host, port, datagram));
            let (from, said) = client.hear();
            let host = if host.contains("::") { format!("[{host}]") } else { host.to_owned() };
            assert_eq!(from, format!("{host}:{port}"), "{round}");
            assert!(is_refusal_of(&said, &flow[0]), "{said:x?}");
            while client.socket.hear_within(common::udp::SILENCE).is_some() {}
        }
    }
    proxy.daemon.wait_count(3, &["| Denied | rule=0", "name=www.example.com"]);
    assert_eq!(server.datagrams(), flow);
}

#[test]
fn only_whole_datagrams_of_the_client_itself_count() {
    let proxy = Proxy::start(ALL);
    let server = UdpServer::echo("127.0.0.1:0");
    let port = server.addr.port();
    let good = wrapped("127.0.0.1", port, b"good");
    let client = Client::new(proxy.addr());
    // Who comes from another address does not make the port its own.
    let (stranger, neighbour) = (UdpClient::new("127.0.0.2"), UdpClient::new("127.0.0.1"));
    stranger.send(&client.relay, &good);
    let mut fragment = good.clone();
    for part in [1, 2, 127, 128, 255] {
        fragment[2] = part;
        client.socket.send(&client.relay, &fragment);
    }
    let by_name = |name: &str| wrapped(name, port, b"bad");
    for bad in [
        &b""[..],
        &[0; 3],
        &good[..9],
        &[0, 0, 0, 2, 127, 0, 0, 1, 0, 53],
        &[0, 0, 0, 3, 0, 0, 53],
        &wrapped("127.0.0.1", 0, b"port 0"),
        &by_name("a b"),
        &by_name("127.1"),
    ] {
        client.socket.send(&client.relay, bad);
    }
    client.socket.hears_nothing();
    assert!(server.seen().is_empty());
    client.echoed("127.0.0.1", &server, b"good");
    // From now on the port is known.
    for other in [&stranger, &neighbour] {
        other.send(&client.relay, &good);
    }
    client.echoed("127.0.0.1", &server, b"more");
    assert_eq!(server.datagrams(), [b"good", b"more"]);
    stranger.hears_nothing();

    // One that says its port is not heard from another; what is not the client's own address says nothing.
    let socket = UdpClient::new("127.0.0.1");
    for (host, named, heard) in [
        ("0.0.0.0", true, false),
        ("127.0.0.1", true, false),
        ("192.0.2.1", true, true),
        ("0.0.0.0", false, true),
    ] {
        let named = if named { socket.port() } else { 0 };
        let client = Client::behind(greeted(proxy.addr()), &request(3, host, named));
        neighbour.send(&client.relay, &good);
        if heard {
            assert!(neighbour.hear(&client.relay).ends_with(b"good"));
        } else {
            socket.send(&client.relay, &good);
            assert!(socket.hear(&client.relay).ends_with(b"good"));
            neighbour.hears_nothing();
        }
    }
}

#[test]
fn the_end_of_the_connection_is_the_end_of_everything() {
    let proxy = Proxy::start(ALL);
    let servers: Vec<UdpServer> = (0..10).map(|_| UdpServer::echo("127.0.0.1:0")).collect();
    // Everything has started.
    drop(Client::new(proxy.addr()));
    proxy.daemon.wait_count(1, &["| Closed | reason=finished"]);
    wait_for("nobody", || (proxy.metric("calamary_current_connections") == "0").then_some(()));
    let before = proxy.daemon.descriptors();
    for reset in [false, true] {
        let client = Client::new(proxy.addr());
        // What it says on the connection has no meaning.
        (&client.control).write_all(&common::pattern(100_000, 1)).unwrap();
        servers.iter().for_each(|server| client.echoed("127.0.0.1", server, b"hello"));
        assert_eq!(proxy.metric("calamary_current_connections"), "11");
        let Client { control, relay, socket } = client;
        if reset {
            common::process::reset(control);
        } else {
            drop(control);
        }
        wait_for("the end of the flows", || {
            (proxy.metric("calamary_current_connections") == "0").then_some(())
        });
        proxy.daemon.wait_descriptors(before);
        socket.send(&relay, &wrapped("127.0.0.1", servers[0].addr.port(), b"too late"));
        socket.hears_nothing();
    }
    assert!(servers.iter().all(|server| server.seen().len() == 2));
    proxy.daemon.wait_count(20, &["| Closed | reason=finished", "sent=5 received="]);
}

#[test]
fn flows_end_when_they_are_silent_and_associations_when_they_are_for_long() {
    let proxy = Proxy::start(&format!("timeout: {{udpIdle: 300, idle: 2000}}\n{ALL}"));
    let server = UdpServer::echo("127.0.0.1:0");
    let mut client = Client::new(proxy.addr());
    client.echoed("127.0.0.1", &server, b"one");
    proxy.daemon.wait_log(&["| Closed | reason=idle", "sent=3 received="]);
    assert!(is_open(&mut client.control, Duration::from_millis(1)));
    client.echoed("127.0.0.1", &server, b"two");
    assert_eq!(read_end(&mut client.control), End::Closed(vec![]));
    proxy.daemon.wait_log(&["| Closed | reason=idle", "sent=0 received=0"]);
}

/// `open sesame`, as `openssl passwd -5` hashes it.
const HASH: &str = "$5$saltstring$sOFRiuqOzKEQCZAIFmMrCbPuMEMUPOi/BmBpBwWMgW3";

#[test]
fn rules_know_the_user_of_the_connection() {
    let keys = format!(", users: {{alice: '{HASH}', bob: '{HASH}'}}");
    let rules =
        "rules:\n  - {user: alice, protoL4: udp, action: accept}\n  - {protoL4: tcp, action: accept}\n";
    let proxy = Proxy::start_with(&keys, rules);
    let server = UdpServer::echo("127.0.0.1:0");
    let known = |name: &str| {
        let mut control = connect(proxy.addr());
        control.write_all(&[5, 1, 2]).unwrap();
        expect_bytes(&mut control, &[5, 2]);
        let password = [&[1, name.len() as u8][..], name.as_bytes(), b"\x0bopen sesame"].concat();
        control.write_all(&password).unwrap();
        expect_bytes(&mut control, &[1, 0]);
        control
    };
    let alice = Client::behind(known("alice"), &request(3, "0.0.0.0", 0));
    alice.echoed("www.example.com", &server, b"hello");
    proxy.daemon.wait_log(&["| Accept | rule=0", "user=alice", "name=www.example.com"]);
    // There is nothing that bob's datagrams could be accepted by, which he hears at once.
    let mut bob = known("bob");
    bob.write_all(&request(3, "0.0.0.0", 0)).unwrap();
    assert_eq!(read_reply(&mut bob).0, 2);
    assert_eq!(read_end(&mut bob), End::Closed(vec![]));
    proxy.daemon.wait_log(&["| Denied | rule=default", "user=bob"]);
}

#[test]
fn what_is_no_association_is_answered_so() {
    let proxy = Proxy::start(ALL);
    let mut client = greeted(proxy.addr());
    client.write_all(&[5, 3, 0, 2, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(read_reply(&mut client).0, 8);
    // A name says nothing about where the datagrams will come from.
    let client = Client::behind(greeted(proxy.addr()), &request(3, "www.example.com", 4000));
    client.echoed("127.0.0.1", &UdpServer::echo("127.0.0.1:0"), b"hello");
    // The proxy itself is no destination, and neither is where the client's datagrams come in.
    let relay: SocketAddr = client.relay.parse().unwrap();
    client.send("127.0.0.1", proxy.port, b"hello");
    proxy.daemon.wait_log(&[&format!("=> {} | Denied | rule=always", proxy.addr())]);
    client.send("127.0.0.1", relay.port(), &wrapped("127.0.0.1", proxy.port, b"hello"));
    client.socket.hears_nothing();
}

#[test]
fn limits_count_flows_and_associations() {
    let proxy = Proxy::start(&format!("limits: {{perSource: 4}}\n{ALL}"));
    let servers: Vec<UdpServer> = (0..4).map(|_| UdpServer::echo("127.0.0.1:0")).collect();
    let client = Client::new(proxy.addr());
    servers[..3].iter().for_each(|server| client.echoed("127.0.0.1", server, b"in"));
    client.send("127.0.0.1", servers[3].addr.port(), b"out");
    client.socket.hears_nothing();
    client.echoed("127.0.0.1", &servers[0], b"still in");
    proxy.daemon.wait_log(&["too many connections: refused 127.0.0.1"]);
    drop(client);
    wait_for("room", || (proxy.metric("calamary_current_connections") == "0").then_some(()));
    Client::new(proxy.addr()).echoed("127.0.0.1", &servers[3], b"in");
}

#[test]
fn an_association_has_so_many_flows_and_no_more() {
    let proxy = Proxy::start(&format!("limits: {{connections: 1000, perSource: 1000}}\n{ALL}"));
    let server = UdpServer::echo("127.0.0.1:0");
    let client = Client::new(proxy.addr());
    // Nobody is there, and nobody says so before the flows end.
    for i in 0..600_u16 {
        client.send(&format!("127.0.{}.{}", 1 + i / 200, 1 + i % 200), 9, b"hello");
        if i % 20 == 0 {
            client.echoed("127.0.0.1", &server, b"one after the other");
        }
    }
    client.echoed("127.0.0.1", &server, b"as before");
    assert_eq!(proxy.metric("calamary_req_udp"), "512");
    proxy.daemon.wait_log(&["too many connections: refused 127.0.0.1"]);
    // Another one has its own.
    Client::new(proxy.addr()).echoed("127.0.0.1", &server, b"hello");
}

#[test]
fn a_stop_waits_for_those_that_talk_and_for_nobody_else() {
    let mut proxy = Proxy::start(ALL);
    let server = UdpServer::echo("127.0.0.1:0");
    let (mut idle, mut busy) = (Client::new(proxy.addr()), Client::new(proxy.addr()));
    busy.echoed("127.0.0.1", &server, b"before");
    proxy.daemon.signal(libc::SIGTERM);
    assert_eq!(read_end(&mut idle.control), End::Closed(vec![]));
    for _ in 0..5 {
        busy.echoed("127.0.0.1", &server, b"still");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(read_end(&mut busy.control), End::Closed(vec![]));
    assert!(proxy.daemon.wait_exit(PATIENCE).is_some_and(|status| status.success()));
}

/// A client far from the proxy, servers far from both; and PySocks.
#[test]
fn over_a_network_and_with_pysocks() {
    let Some(lab) = Lab::build_or_skip() else { return };
    const NAMES: &[(&str, &[&str])] = &[("www.example.com", &[SERVER4]), ("six.example.com", &[SERVER6])];
    let _names = lab.server.run(|| NameServer::with(&at(DNS4, 53), NAMES));
    let config = format!(
        "listen: [{{mode: socks5, udp: true, ip4: [{ROUTER4}], ip6: ['{ROUTER6}'], port: 1080}}]\n\
         dnsNameservers: [{DNS4}]\n{ALL}"
    );
    let daemon = lab.router.run(|| Daemon::start(&config, &[1080]));
    let servers = lab.server.run(|| [SERVER4, SERVER6].map(|ip| UdpServer::echo(at(ip, 9000))));
    lab.client.run(|| {
        for proxy in [ROUTER4, ROUTER6] {
            let client = Client::new(at(proxy, 1080).parse().unwrap());
            for (host, server) in
                [(SERVER4, &servers[0]), (SERVER6, &servers[1]), ("www.example.com", &servers[0])]
            {
                client.echoed(host, server, b"hello");
            }
        }
    });
    for (server, router) in servers.iter().zip([ROUTER_OUT4, ROUTER_OUT6]) {
        assert!(server.seen().iter().all(|(from, _)| from.ip().to_string() == router));
    }
    for client in [CLIENT4, CLIENT6] {
        daemon.wait_log(&[&format!("| INFO | {client} => {} | Accept | rule=0", servers[1].addr)]);
    }
    let has_pysocks = Command::new("/usr/bin/python3").args(["-c", "import socks"]).output();
    if !has_pysocks.is_ok_and(|output| output.status.success()) {
        return skip("needs /usr/bin/python3 with PySocks (python3-socks)");
    }
    for (host, from) in [(SERVER4, SERVER4), ("www.example.com", SERVER4), ("six.example.com", SERVER6)] {
        let said =
            text(&lab.client.try_sh(&format!("/usr/bin/python3 -c '{PYSOCKS}' {ROUTER4} {host} 9000")));
        assert!(said.contains(&format!("({from}, 9000) heard {} hello", at(from, 9000))), "{host}: {said}");
    }
}

const PYSOCKS: &str = r#"
import socket, socks, sys
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, sys.argv[1], 1080)
s.settimeout(20)
s.sendto(b"hello", (sys.argv[2], int(sys.argv[3])))
data, addr = s.recvfrom(2000)
print("(%s, %d) heard %s" % (addr[0], addr[1], data.decode()))
"#;
