//! Rules that hang on servers' certificates: real servers with every kind of them, and who asks whom how often.
#![cfg(feature = "tls")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::authority::Authority;
use common::client::{End, connect, expect_bytes, read_end};
use common::daemon::{Daemon, run_on, text};
use common::lab::{CLIENT4, Lab, SERVER4, at};
use common::origin::Origin;
use common::tls::{ALERT_UNRECOGNIZED_NAME, Hello};
use common::{free_port, unique, wait_for};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const EVERYWHERE: &str = "  - {cert: invalid, action: deny}\n  - {action: accept}\n";

fn config(port: u16, root: &Path, probe_ms: u32, rules: &str) -> String {
    format!(
        "listen:\n  - {{mode: http, port: {port}, ip6: []}}\ncerts: {{caPublic: {}}}\n\
         timeout: {{probe: {probe_ms}, process: 20000}}\noutput: {{allowLocal: true, retries: 0}}\nworkers: 2\n\
         rules:\n{rules}",
        root.display()
    )
}

struct Proxy {
    daemon: Daemon,
    addr: SocketAddr,
}

impl Proxy {
    fn start(root: &Path, rules: &str) -> Proxy {
        Self::with_timeout(root, 20_000, rules)
    }

    fn with_timeout(root: &Path, probe_ms: u32, rules: &str) -> Proxy {
        let port = free_port();
        let daemon = Daemon::start(&config(port, root, probe_ms, rules), &[port]);
        Proxy { daemon, addr: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// A tunnel to `server` in which a ClientHello for `name` was sent.
    fn hello(&self, server: SocketAddr, name: &str) -> TcpStream {
        let mut client = connect(self.addr);
        client.write_all(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes()).unwrap();
        expect_bytes(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
        client.write_all(&common::tls::hello(name)).unwrap();
        client
    }

    /// The verdict line of a connection to `server` with a hello for `name`: from the verdict on.
    fn verdict(&self, server: SocketAddr, name: &str) -> String {
        let client = self.hello(server, name);
        let sport = format!("sport={} ", client.local_addr().unwrap().port());
        let line = self.daemon.wait_log(&[&sport, &format!("=> {server} ")]);
        let word = line.split(" | ").nth(3).unwrap().to_string();
        let cert = line.split(' ').filter(|word| word.starts_with("cert"));
        cert.fold(word, |line, word| line + " " + word)
    }
}

/// A server that shakes hands, if the client does, and waits for its end.
fn server(tls: Arc<ServerConfig>) -> Origin {
    Origin::serve("127.0.0.1:0", move |stream| serve(&tls, stream))
}

fn serve(tls: &Arc<ServerConfig>, stream: TcpStream) {
    let session = ServerConnection::new(Arc::clone(tls)).unwrap();
    let _ = StreamOwned::new(session, stream).read(&mut [0; 1]);
}

#[test]
fn every_kind_of_certificate_has_its_word() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let proxy = Proxy::start(&authority.root(), EVERYWHERE);
    let check = |tls: Arc<ServerConfig>, name: &str, expected: &str| {
        let server = server(tls);
        assert_eq!(proxy.verdict(server.addr, name), expected, "{name}");
    };
    let name = "www.example.com";
    // Before anybody knows the intermediate.
    let incomplete = || authority.issue(name).without_intermediate().server();
    check(incomplete(), name, "Denied cert=invalid cert_reason=untrusted");
    check(authority.issue(name).server(), name, "Accept cert=valid");
    check(incomplete(), name, "Accept cert=valid");
    let only = |version, clients| authority.issue(name).server_of(&[version], clients);
    check(only(&rustls::version::TLS12, None), name, "Accept cert=valid");
    check(only(&rustls::version::TLS13, None), name, "Accept cert=valid");
    check(authority.expired(name).server(), name, "Denied cert=invalid cert_reason=expired");
    check(authority.not_yet_valid(name).server(), name, "Denied cert=invalid cert_reason=not_yet_valid");
    check(authority.issue("other.example.com").server(), name, "Denied cert=invalid cert_reason=wrong_name");
    check(authority.issue_self_signed(name).server(), name, "Denied cert=invalid cert_reason=self_signed");
    check(strangers.issue(name).server(), name, "Denied cert=invalid cert_reason=untrusted");
    let impostor = authority.impostor();
    check(impostor.issue(name).server(), name, "Denied cert=invalid cert_reason=bad_signature");
    let root = authority.root();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        check(only(version, Some(&root)), name, "Accept cert=unknown cert_reason=client_certificate");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(proxy.verdict(closed, name), "Accept cert=unknown cert_reason=refused");
    let plain = Origin::banner("127.0.0.1:0", "220 smtp\r\n");
    assert_eq!(proxy.verdict(plain.addr, name), "Accept cert=unknown cert_reason=handshake");
}

#[test]
fn a_slow_server_costs_the_time_of_a_probe_once() {
    let authority = Authority::new();
    let rules = "  - {cert: unknown, action: deny}\n  - {action: accept}\n";
    let proxy = Proxy::with_timeout(&authority.root(), 400, rules);
    let silent = Origin::silent("127.0.0.1:0");
    let begun = Instant::now();
    let expected = "Denied cert=unknown cert_reason=timeout";
    assert_eq!(proxy.verdict(silent.addr, "slow.example"), expected);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(proxy.verdict(silent.addr, "slow.example"), expected);
    assert_eq!(silent.accepted(), 1);
    // Others are not held up by it, and a server that is merely not fast is waited for.
    let slow = authority.issue("www.example.com").server();
    let slow = Origin::serve("127.0.0.1:0", move |stream| {
        thread::sleep(Duration::from_millis(100));
        serve(&slow, stream);
    });
    assert_eq!(proxy.verdict(slow.addr, "www.example.com"), "Accept cert=valid");
}

#[test]
fn a_denied_client_hears_the_alert_and_nothing_else_goes_to_the_server() {
    let authority = Authority::new();
    let proxy = Proxy::start(&authority.root(), EVERYWHERE);
    let server = server(authority.issue("other.example.com").server());
    // An allowed name at an address that serves another certificate.
    let mut client = proxy.hello(server.addr, "www.example.com");
    assert_eq!(read_end(&mut client), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    assert_eq!(server.accepted(), 1, "the probe and nothing else");
    // The same server under its own name.
    let _client = proxy.hello(server.addr, "other.example.com");
    wait_for("the probe and the client", || (server.accepted() == 3).then_some(()));
}

#[test]
fn a_hundred_clients_of_one_cold_name_cause_one_probe() {
    let authority = Authority::new();
    let proxy = Proxy::start(&authority.root(), "  - {cert: valid, action: deny}\n  - {action: accept}\n");
    // All of them are there before the probe has its answer.
    let tls = authority.issue("www.example.com").server();
    let server = Origin::serve("127.0.0.1:0", move |stream| {
        thread::sleep(Duration::from_millis(700));
        serve(&tls, stream);
    });
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut client = proxy.hello(server.addr, "www.example.com");
                assert_eq!(read_end(&mut client), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
            });
        }
    });
    proxy.daemon.wait_count(100, &["Denied", "cert=valid"]);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn the_server_is_asked_as_the_client_asks() {
    let authority = Authority::new();
    let proxy = Proxy::start(&authority.root(), EVERYWHERE);
    // The name is folded, and whoever offers h2 alone is shown what h2 gets.
    let mut tls = Arc::unwrap_or_clone(authority.issue("www.example.com").server());
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let server = server(Arc::new(tls));
    assert_eq!(proxy.verdict(server.addr, "WWW.Example.COM"), "Accept cert=valid");
    let mut client = connect(proxy.addr);
    client.write_all(format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", server.addr).as_bytes()).unwrap();
    expect_bytes(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
    let name = format!("www{}.example.com", unique());
    let hello = Hello { name: Some(&name), alpn: &["http/1.1"], ..Hello::default() };
    client.write_all(&hello.record()).unwrap();
    // rustls refuses who offers nothing that it has.
    proxy.daemon.wait_log(&[&format!("name={name} "), "cert=unknown cert_reason=handshake"]);
}

#[test]
fn a_reload_with_other_roots_judges_anew() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let proxy = Proxy::start(&authority.root(), EVERYWHERE);
    let server = server(authority.issue("www.example.com").server());
    let name = "www.example.com";
    assert_eq!(proxy.verdict(server.addr, name), "Accept cert=valid");
    let reload = |root: &Path, reloads: usize| {
        proxy.daemon.reload(&config(proxy.addr.port(), root, 20_000, EVERYWHERE));
        proxy.daemon.wait_count(reloads, &["Reloaded"]);
    };
    reload(&strangers.root(), 1);
    assert_eq!(proxy.verdict(server.addr, name), "Denied cert=invalid cert_reason=untrusted");
    // The same roots again: what is known stays known.
    let before = server.accepted();
    reload(&strangers.root(), 2);
    assert_eq!(proxy.verdict(server.addr, name), "Denied cert=invalid cert_reason=untrusted");
    assert_eq!(server.accepted(), before);
}

#[test]
fn the_command_line_explains_and_validates() {
    let authority = Authority::new();
    let config = config(4130, &authority.root(), 500, EVERYWHERE);
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("roots: 1 of "), "{}", text(&output));
    let why = |facts: &str| {
        let output = run_on(&config, &["-f", "{}", "--why", facts]);
        (output.status.code(), text(&output))
    };
    let facts = "dest=203.0.113.5 port=443 dns=www.example.com protoL5=tls";
    let (code, text) = why(facts);
    assert!(code == Some(4) && text.contains("cert is not known: the server would be asked"), "{text}");
    assert_eq!(why(&format!("{facts} cert=invalid")).0, Some(3));
    assert_eq!(why(&format!("{facts} cert=valid")).0, Some(0));
}

/// On the way of redirected connections: the address that the client wanted, under the mark of everything that we send.
#[test]
fn redirected_clients_are_judged_by_the_address_they_wanted() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let authority = Authority::new();
    lab.router.nft(&format!(
        "table inet transparent {{
            counter ours {{ }}
            chain prerouting {{
                type nat hook prerouting priority dstnat
                ip saddr {CLIENT4} tcp dport 443 redirect to :4128
            }}
            chain output {{
                type filter hook output priority 0
                meta mark 42 tcp dport 443 tcp flags & (syn | ack) == syn counter name ours
            }}
        }}"
    ));
    let config = format!(
        "listen:\n  - {{mode: transparent, ip4: ['0.0.0.0'], ip6: [], port: 4128}}\ncerts: {{caPublic: {}}}\n\
         timeout: {{probe: 20000}}\noutput: {{fwmark: 42}}\nrules:\n{EVERYWHERE}",
        authority.root().display()
    );
    let daemon = lab.router.run(|| Daemon::start(&config, &[4128]));
    let tls = authority.issue("www.example.com").server();
    let _server = lab.server.run(|| Origin::serve(at(SERVER4, 443), move |stream| serve(&tls, stream)));
    let say = |name: &str| {
        lab.client.run(|| {
            let mut client = connect(at(SERVER4, 443));
            client.write_all(&common::tls::hello(name)).unwrap();
            let _ = client.read(&mut [0; 1]);
        });
    };
    say("www.example.com");
    daemon.wait_log(&["Accept", "cert=valid"]);
    say("www.example.org");
    daemon.wait_log(&["Denied", "rule=0", "cert=invalid cert_reason=wrong_name"]);
    // Two probes, one connection.
    let counted = lab.router.sh("nft list counter inet transparent ours");
    assert!(counted.contains("packets 3 "), "{counted}");
}
