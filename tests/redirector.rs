//! The redirector on a router: nftables in front of it, calamary servers behind it, alone and with HAProxy between them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::{End, connect, expect_bytes, proxy_v2, read_end};
use common::daemon::{Daemon, REDIRECTOR, run_program, run_program_on, text};
use common::lab::{CLIENT4, CLIENT6, Lab, ROUTER4, SERVER4, SERVER6, at};
use common::origin::Origin;
use common::udp::{UdpClient, UdpServer};
use common::{TempDir, free_port, have, skip, wait_for, wait_for_at_most};

/// Where the redirector listens, and the calamary servers.
const PORT: u16 = 4128;
const SERVERS_PORT: u16 = 4129;
/// Where the origins listen.
const ECHO: u16 = 7007;
const BANNER: u16 = 7022;

/// The checks of a server are 5 s apart.
const CHECKED: Duration = Duration::from_secs(15);

fn server4(number: usize) -> String {
    format!("203.0.113.{}:{SERVERS_PORT}", 6 + number)
}

fn server6(number: usize) -> String {
    format!("[2001:db8:113::{}]:{SERVERS_PORT}", 6 + number)
}

/// A calamary server, in the namespace of the origins.
fn calamary(lab: &Lab, number: usize) -> Daemon {
    calamary_that_trusts(lab, number, "'203.0.113.0/24', '2001:db8:113::/64'")
}

/// The same with other senders of headers.
fn calamary_that_trusts(lab: &Lab, number: usize, trusted: &str) -> Daemon {
    let config = format!(
        "listen:\n  - {{mode: proxyproto, ip4: ['203.0.113.{0}'], ip6: ['2001:db8:113::{0}'], port: {SERVERS_PORT},\n\
         \x20    trusted: [{trusted}]}}\n\
         output: {{allowLocal: true}}\nrules:\n  - {{action: accept}}\n",
        6 + number
    );
    lab.server.run(|| Daemon::start(&config, &[SERVERS_PORT]))
}

fn origins(lab: &Lab) -> Vec<Origin> {
    lab.server.run(|| {
        let echo = [SERVER4, SERVER6].map(|server| Origin::echo(at(server, ECHO)));
        let banner = [SERVER4, SERVER6].map(|server| Origin::banner(at(server, BANNER), "SSH-2.0-x\r\n"));
        echo.into_iter().chain(banner).collect()
    })
}

/// The redirector's file; `settings` has `proxies`.
fn config(tproxy: bool, settings: &str) -> String {
    let (ip4, ip6) = if tproxy { ("127.0.0.1", "::1") } else { ("0.0.0.0", "::") };
    format!("listen:\n  - {{ip4: ['{ip4}'], ip6: ['{ip6}'], port: {PORT}, tproxy: {tproxy}}}\n{settings}\n")
}

fn redirector(lab: &Lab, tproxy: bool, settings: &str) -> Daemon {
    let dports = format!("{ECHO}, {BANNER}");
    if tproxy {
        lab.tproxy(&dports, PORT)
    } else {
        lab.redirect(&dports, PORT)
    }
    lab.router.run(|| Daemon::start_redirector(&config(tproxy, settings), &[PORT]))
}

/// Says something and hears it again.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut back)).is_ok() && &back == b"hello"
}

/// One connection of the client; the port that it came from.
fn ask(lab: &Lab, server: &str) -> Option<u16> {
    lab.client.run(|| {
        let mut stream = TcpStream::connect(at(server, ECHO)).ok()?;
        stream.set_read_timeout(Some(common::PATIENCE)).ok()?;
        let port = stream.local_addr().ok()?.port();
        echoes(&mut stream).then_some(port)
    })
}

fn chain(tproxy: bool) {
    for version in ["v1", "v2"] {
        let Some(lab) = Lab::build_or_skip() else { return };
        let _origins = origins(&lab);
        let calamary = calamary(&lab, 0);
        for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
            // Each family through a server of the other one, too.
            for proxy in [server4(0), server6(0)] {
                lab.router.sh("nft delete table inet proxy 2>/dev/null; ip rule flush table 100; ip -6 rule flush table 100; ip route flush table 100; ip -6 route flush table 100; true");
                let settings = format!("proxies: ['{proxy}']\nproxyProtocol: {version}\ndebug: true");
                let mut redirector = redirector(&lab, tproxy, &settings);
                let sport = ask(&lab, server).unwrap_or_else(|| panic!("{version} {proxy}"));
                let line = format!("| {client} => {} |", at(server, ECHO));
                redirector.wait_log(&[&line, "Forward", &format!("server={proxy} sport={sport}")]);
                calamary.wait_log(&[&line, "Accept", &format!("sport={sport}")]);
                redirector.wait_log(&[
                    "Closed",
                    "reason=finished",
                    &format!("sport={sport} sent=5 received=5"),
                ]);
                lab.client.run(|| {
                    let mut stream = connect(at(server, BANNER));
                    expect_bytes(&mut stream, b"SSH-2.0-x\r\n");
                    assert!(echoes(&mut stream));
                });
                assert!(redirector.stop().success());
            }
        }
        // Neither a refused header nor a health check looks like a client's connection.
        assert_eq!(calamary.count_log(&["Denied"]), 0, "{}", calamary.log());
    }
}

#[test]
fn redirected_connections_arrive_with_their_ends() {
    chain(false);
}

#[test]
fn tproxied_connections_arrive_with_their_ends() {
    chain(true);
}

/// How many connections each server has accepted, by a word of their lines, once they are so many in all.
fn accepted<'a>(servers: impl IntoIterator<Item = &'a Daemon> + Clone, word: &str, all: usize) -> Vec<usize> {
    let counts = || -> Vec<usize> {
        servers.clone().into_iter().map(|server| server.count_log(&["Accept", word])).collect()
    };
    // A line may be written a moment after its connection has worked.
    wait_for_at_most(common::PATIENCE, || (counts().iter().sum::<usize>() >= all).then_some(()));
    counts()
}

/// Whether a connection of the client is reset without a byte.
fn is_reset(lab: &Lab, addr: &str) -> bool {
    lab.client.run(|| match TcpStream::connect(addr) {
        Ok(mut stream) => read_end(&mut stream) == End::Reset(vec![]),
        // Faster than the call returns.
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    })
}

/// Connections one after the other, until told to stop: when each began, and whether it worked.
fn load(lab: &Lab, stop: &AtomicBool) -> Vec<(Instant, bool)> {
    let mut tries = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        for server in [SERVER4, SERVER6] {
            let begun = Instant::now();
            tries.push((begun, ask(lab, server).is_some()));
        }
    }
    tries
}

/// Kills a server while connections come: none that begins after its end fails.
fn kill_under_load(lab: &Lab, server: &mut Daemon) {
    let stop = AtomicBool::new(false);
    let (killed, tries) = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..3).map(|_| scope.spawn(|| load(lab, &stop))).collect();
        std::thread::sleep(Duration::from_millis(500));
        server.signal(libc::SIGKILL);
        server.wait_exit(common::PATIENCE).unwrap();
        let killed = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::SeqCst);
        (killed, loads.into_iter().flat_map(|load| load.join().unwrap()).collect::<Vec<_>>())
    });
    let after = tries.iter().filter(|(begun, _)| *begun > killed).count();
    assert!(after > 20 && tries.len() - after > 20, "{after} of {} connections after the end", tries.len());
    let failed = tries.iter().filter(|(begun, worked)| *begun > killed && !worked).count();
    assert_eq!(failed, 0, "of {after} connections that began after the end of the server");
}

/// Kills the first of `servers` while connections come and others are open: only what went through it breaks.
fn kill_one_under_load(lab: &Lab, servers: &mut [Daemon]) {
    let mut open: Vec<TcpStream> = lab
        .client
        .run(|| (0..9).flat_map(|_| [SERVER4, SERVER6]).map(|server| connect(at(server, ECHO))).collect());
    assert!(open.iter_mut().all(echoes));
    kill_under_load(lab, &mut servers[0]);
    let (mut kept, mut broken) = (0, 0);
    for stream in &mut open {
        // The port alone is not enough: a connection of the other family may have the same.
        let client = stream.local_addr().unwrap();
        let (from, sport) = (format!("| {} => ", client.ip()), format!("sport={}", client.port()));
        let through = |server: &Daemon| {
            server.log().lines().any(|line| {
                line.contains(&from)
                    && line.contains("| Accept |")
                    && line.split(' ').any(|word| word == sport)
            })
        };
        let works = echoes(stream);
        assert_eq!(works, !through(&servers[0]), "{sport}");
        assert_eq!(works, servers[1..].iter().any(through), "{sport}");
        if works { kept += 1 } else { broken += 1 }
    }
    assert!(kept > 0, "nothing was left to compare with: {kept} kept, {broken} broken");
}

#[test]
fn the_end_of_one_server_breaks_nothing_but_what_went_through_it() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let mut servers: Vec<Daemon> = (0..3).map(|number| calamary(&lab, number)).collect();
    let proxies: Vec<String> = (0..3).map(server4).collect();
    let settings = format!("proxies: {proxies:?}\nselect: spread");
    let redirector = redirector(&lab, false, &settings);
    // The one to be killed is the one that this client's IPv4 connections go to.
    ask(&lab, SERVER4).unwrap();
    let used = accepted(&servers, "", 1).iter().position(|count| *count > 0).unwrap();
    servers.swap(0, used);
    let mut open = lab.client.run(|| connect(at(SERVER4, ECHO)));
    assert!(echoes(&mut open));
    kill_under_load(&lab, &mut servers[0]);
    assert!(!echoes(&mut open), "it went through the server that is gone");
    redirector.wait_log(&[&server4(used), "is down"]);
}

/// Ends with its test.
struct HaProxy {
    child: Child,
    /// Its configuration.
    _dir: TempDir,
}

impl HaProxy {
    /// `checks`: what the frontend does about the redirectors' checks.
    fn start(lab: &Lab, servers: usize, checks: &str) -> HaProxy {
        let dir = TempDir::new();
        let servers: String = (0..servers)
            .map(|n| {
                format!(
                    "  server calamary{n} {} send-proxy-v2 check check-send-proxy inter 500\n",
                    server4(n)
                )
            })
            .collect();
        let config = format!(
            "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
             \x20 retries 3\n  option redispatch 1\nfrontend redirectors\n  bind 203.0.113.5:4000 accept-proxy\n\
             \x20 bind [2001:db8:113::5]:4000 accept-proxy\n{checks}  default_backend fleet\nbackend fleet\n  balance roundrobin\n{servers}"
        );
        let path = dir.write("haproxy.cfg", config);
        let child = lab.server.run(|| {
            let mut command = Command::new("haproxy");
            command
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .arg("-db")
                .arg("-f")
                .arg(path)
                .spawn()
                .unwrap()
        });
        let haproxy = HaProxy { child, _dir: dir };
        wait_for("HAProxy", || lab.server.run(|| TcpStream::connect("203.0.113.5:4000").ok()));
        haproxy
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As docs/fleet.md has it.
const CHECKS: &str = "  tcp-request connection reject if { nbsrv(fleet) eq 0 }
  tcp-request session reject if { dst 203.0.113.5 2001:db8:113::5 } { dst_port 4000 }\n";

#[test]
fn a_fleet_behind_haproxy_loses_one_server_under_load() {
    if !have("haproxy") {
        return skip("needs haproxy");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let mut servers: Vec<Daemon> = (0..3).map(|number| calamary(&lab, number)).collect();
    let _haproxy = HaProxy::start(&lab, 3, CHECKS);
    let redirector =
        redirector(&lab, false, "proxies: ['203.0.113.5:4000', '[2001:db8:113::5]:4000']\nselect: first");
    for balancer in ["203.0.113.5:4000", "[2001:db8:113::5]:4000"] {
        redirector.wait_log(&[&format!("Server: {balancer}, up")]);
    }
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let sport = format!("sport={}", ask(&lab, server).unwrap());
        let line = format!("| {client} => {} | Accept", at(server, ECHO));
        wait_for("the connection in the log of a server", || {
            servers.iter().find_map(|daemon| daemon.find_log(&[&line, &sport]))
        });
    }
    kill_one_under_load(&lab, &mut servers);
    // The checks ended at HAProxy: what it passes on would look like a client that wants HAProxy itself.
    for server in &servers {
        assert_eq!(server.count_log(&[&format!("=> {}", at(SERVER4, 4000))]), 0, "{}", server.log());
        assert_eq!(server.count_log(&[&format!("=> {}", at(SERVER6, 4000))]), 0, "{}", server.log());
    }
    // A balancer without servers does not answer, either.
    for server in &mut servers[1..] {
        server.signal(libc::SIGKILL);
        server.wait_exit(common::PATIENCE).unwrap();
    }
    for balancer in ["203.0.113.5:4000", "[2001:db8:113::5]:4000"] {
        redirector.wait_log(&[&format!("{balancer} is down: reset")]);
    }
}

/// One that was not told about checks passes them on to its servers: it counts as up all the same.
#[test]
fn a_balancer_that_passes_checks_on_is_up() {
    if !have("haproxy") {
        return skip("needs haproxy");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let server = calamary(&lab, 0);
    let _haproxy = HaProxy::start(&lab, 1, "");
    let redirector = redirector(&lab, false, "proxies: ['203.0.113.5:4000', '[2001:db8:113::5]:4000']");
    for balancer in ["203.0.113.5:4000", "[2001:db8:113::5]:4000"] {
        redirector.wait_log(&[&format!("Server: {balancer}, up")]);
    }
    server.wait_log(&[&format!("| 203.0.113.1 => {} | ", at(SERVER4, 4000))]);
    assert!(ask(&lab, SERVER4).is_some());
}

#[test]
fn the_first_server_takes_everything_until_it_ends_and_again_when_it_is_back() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let (mut first, second) = (calamary(&lab, 0), calamary(&lab, 1));
    let settings = format!("proxies: ['{}', '{}']\nselect: first", server4(0), server4(1));
    let redirector = redirector(&lab, false, &settings);
    for _ in 0..4 {
        ask(&lab, SERVER4).unwrap();
    }
    assert_eq!(accepted([&first, &second], "", 4), [4, 0]);
    first.signal(libc::SIGKILL);
    first.wait_exit(common::PATIENCE).unwrap();
    for _ in 0..4 {
        ask(&lab, SERVER4).unwrap();
    }
    assert_eq!(accepted([&second], "", 4), [4]);
    redirector.wait_log(&[&server4(0), "is down"]);
    let first = calamary(&lab, 0);
    let back = wait_for_at_most(CHECKED, || redirector.find_log(&[&server4(0), "is up again"]));
    assert!(back.is_some(), "{}", redirector.log());
    ask(&lab, SERVER4).unwrap();
    assert_eq!(accepted([&first, &second], "", 5), [1, 4]);
    redirector.signal(libc::SIGUSR1);
    redirector.wait_log(&["Counters: connections=9 open=", "sent=45 received=45"]);
    redirector.wait_log(&[&format!("Server: {}, up, connections=5 failures=", server4(0))]);
    redirector.wait_log(&[&format!("Server: {}, up, connections=4 failures=0", server4(1))]);
}

/// The kernel goes on accepting for a process that hangs, so clients would wait for it for ever.
#[test]
fn a_server_that_hangs_or_does_not_trust_this_machine_is_down() {
    for version in ["v1", "v2"] {
        let Some(lab) = Lab::build_or_skip() else { return };
        let _origins = origins(&lab);
        let stranger = calamary_that_trusts(&lab, 0, "'198.51.100.0/24'");
        let (hanging, healthy) = (calamary(&lab, 1), calamary(&lab, 2));
        let proxies: Vec<String> = (0..3).map(server4).collect();
        let settings = format!(
            "proxies: {proxies:?}\nselect: first\nproxyProtocol: {version}\ntimeout: {{connect: 500}}"
        );
        let redirector = redirector(&lab, false, &settings);
        // Both are known before the first client comes, and the log says what to look at.
        redirector.wait_log(&[&format!("{} is down: reset: does it trust this machine?", server4(0))]);
        redirector.wait_log(&[&format!("Server: {}, down", server4(0))]);
        redirector.wait_log(&[&format!("Server: {}, up", server4(1))]);
        assert!(ask(&lab, SERVER4).is_some());
        assert_eq!(accepted([&hanging, &healthy], "", 1), [1, 0]);

        hanging.signal(libc::SIGSTOP);
        redirector.wait_log(&[&format!("{} is down: no answer", server4(1))]);
        for _ in 0..3 {
            assert!(ask(&lab, SERVER4).is_some(), "{version}: new connections go to the server that answers");
        }
        assert_eq!(accepted([&healthy], "", 3), [3]);

        hanging.signal(libc::SIGCONT);
        redirector.wait_log(&[&format!("{} is up again", server4(1))]);
        assert!(ask(&lab, SERVER4).is_some());
        assert_eq!(accepted([&hanging, &healthy], "", 5), [2, 3]);
        for server in [&hanging, &healthy] {
            assert_eq!(server.count_log(&["Denied"]) + server.count_log(&["Failed"]), 0, "{}", server.log());
        }
        drop(stranger);
    }
}

/// It reads nothing, so nothing that a client says can be malformed, too long or too slow for it, nor be taken for something
/// that it says itself.
#[test]
fn whatever_a_client_says_is_passed_on_and_nothing_else_is_believed() {
    let forged = [
        b"PROXY TCP4 192.0.2.66 203.0.113.5 6666 7022\r\n".to_vec(),
        proxy_v2(1, "192.0.2.66:6666".parse().unwrap(), at(SERVER4, BANNER).parse().unwrap(), &[]),
        proxy_v2(0, "192.0.2.66:6666".parse().unwrap(), at(SERVER4, BANNER).parse().unwrap(), &[]),
    ];
    let others =
        [vec![0; 3], b"\r\n\r\n\0\r\nQUIT\n".to_vec(), vec![0xff; 300_000], b"\x16\x03\x01\x40\x00".to_vec()];
    for version in ["v1", "v2"] {
        let Some(lab) = Lab::build_or_skip() else { return };
        let _origins = origins(&lab);
        let calamary = calamary(&lab, 0);
        let settings =
            format!("proxies: ['{}']\nproxyProtocol: {version}\ntimeout: {{process: 200}}", server4(0));
        let _redirector = redirector(&lab, false, &settings);
        for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
            for said in forged.iter().chain(&others) {
                let sport = lab.client.run(|| {
                    let mut stream = connect(at(server, ECHO));
                    let mut writer = stream.try_clone().unwrap();
                    std::thread::scope(|scope| {
                        scope.spawn(move || writer.write_all(said).unwrap());
                        expect_bytes(&mut stream, said);
                    });
                    stream.local_addr().unwrap().port()
                });
                calamary.wait_log(&[&format!(
                    "| {client} => {} | Accept | rule=0 sport={sport}",
                    at(server, ECHO)
                )]);
            }
            // One that says nothing for longer than first bytes are waited for elsewhere, then a byte at a time.
            lab.client.run(|| {
                let mut stream = connect(at(server, ECHO));
                for byte in b"slow" {
                    std::thread::sleep(Duration::from_millis(150));
                    stream.write_all(&[*byte]).unwrap();
                    expect_bytes(&mut stream, &[*byte]);
                }
            });
        }
        assert!(!calamary.log().contains("192.0.2.66"), "{}", calamary.log());
    }
}

#[test]
fn clients_are_spread_by_their_address() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let servers: Vec<Daemon> = (0..3).map(|number| calamary(&lab, number)).collect();
    let proxies: Vec<String> = (0..3).map(server4).collect();
    let _redirector = redirector(&lab, false, &format!("proxies: {proxies:?}\nselect: spread"));
    for client in 20..50 {
        lab.client.sh(&format!(
            "ip addr add 192.168.77.{client}/24 dev lan && ip route replace default via {ROUTER4} src 192.168.77.{client}"
        ));
        ask(&lab, SERVER4).unwrap();
        ask(&lab, SERVER4).unwrap();
        let line = format!("| 192.168.77.{client} => ");
        let of_each = accepted(&servers, &line, 2);
        assert!(of_each.contains(&2), "a client keeps its server: {of_each:?}");
    }
    for server in &servers {
        assert!(server.count_log(&["Accept"]) >= 6, "{}", server.log());
    }
}

#[test]
fn without_a_server_the_client_is_reset_or_goes_directly() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    // Refused, and one that never answers.
    let proxies =
        format!("proxies: ['{}', '203.0.113.77:{SERVERS_PORT}']\ntimeout: {{connect: 300}}", server4(0));
    let mut daemon = redirector(&lab, false, &proxies);
    for server in [SERVER4, SERVER6] {
        assert!(is_reset(&lab, &at(server, ECHO)), "{server}");
        daemon.wait_log(&[&format!("=> {} | Failed | reason=connect_", at(server, ECHO))]);
    }
    daemon.reload(&config(false, &format!("{proxies}\nonFailure: direct")));
    daemon.wait_log(&["Reloaded: 2 servers, 2 listeners"]);
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        ask(&lab, server).unwrap();
        daemon.wait_log(&[&format!("| {client} => {} | Direct | sport=", at(server, ECHO))]);
    }
    // Whoever talks to the listener itself has no destination, and gets no further.
    assert!(is_reset(&lab, &at(ROUTER4, PORT)));
    daemon.wait_log(&[&format!("| {CLIENT4} => ? | Denied | reason=no_destination sport=")]);
    // Two listeners: neither is dialled for a client of the other.
    lab.router
        .nft("table inet proxy { chain prerouting { iifname lan tcp dport 9999 redirect to :4128; }; }");
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_loses_nothing_and_a_broken_one_changes_nothing() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let servers = [calamary(&lab, 0), calamary(&lab, 1)];
    let mut daemon = redirector(&lab, false, &format!("proxies: ['{}']", server4(0)));
    let mut open = lab.client.run(|| connect(at(SERVER4, ECHO)));
    assert!(echoes(&mut open));
    daemon.reload(&config(false, "proxies: ['203.0.113.7']"));
    daemon.wait_log(&["config.yml:3:11: proxies[0]:", "a server:"]);
    daemon.wait_log(&["Not reloaded: the configuration in force stays"]);
    ask(&lab, SERVER4).unwrap();
    assert_eq!(accepted(&servers, "", 2), [2, 0]);
    daemon.reload(&config(false, &format!("proxies: ['{}']", server4(1))));
    daemon.wait_log(&["Reloaded: 1 servers, 2 listeners"]);
    ask(&lab, SERVER4).unwrap();
    assert_eq!(accepted(&servers, "", 3), [2, 1]);
    assert!(echoes(&mut open), "a running connection keeps its server");
    // What runs may end by itself, within `timeout.drain`.
    daemon.signal(libc::SIGTERM);
    daemon.wait_log(&["Stopping"]);
    assert!(echoes(&mut open));
    drop(open);
    assert!(daemon.wait_exit(common::PATIENCE).unwrap().success());
}

/// A firewall that sends the redirector's own connections back to it, and a server that is its own listener under another
/// address than the one in the file.
#[test]
fn what_comes_back_is_not_sent_round() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    lab.redirect(&ECHO.to_string(), PORT);
    let config = |proxy: &str| {
        format!(
            "listen:\n  - {{ip4: ['192.168.77.1'], ip6: [], port: {PORT}}}\nproxies: ['{proxy}']\nonFailure: direct\n"
        )
    };
    let daemon =
        lab.router.run(|| Daemon::start_redirector(&config(&format!("203.0.113.1:{PORT}")), &[PORT]));
    let denied = format!("=> {} | Denied | reason=denied sport=", at(SERVER4, ECHO));
    assert!(ask(&lab, SERVER4).is_some(), "nobody listens there, so the destination is dialled");
    daemon.wait_log(&["| Direct |"]);

    lab.router.nft(&format!(
        "table ip loop {{
            chain output {{
                type nat hook output priority -100;
                tcp dport {ECHO} dnat to 192.168.77.1:{PORT}
            }}
        }}"
    ));
    assert!(is_reset(&lab, &at(SERVER4, ECHO)));
    daemon.wait_log(&[&denied]);
    // The reset of what came back meets the connection that was going out just after it is made, or while: then it is made
    // once again (`output.retries`).
    let (direct, came_back) = (daemon.count_log(&["| Direct |"]), daemon.count_log(&[&denied]));
    assert!(direct <= 2 && came_back <= 2, "once round, and no further:\n{}", daemon.log());

    let wide = config(&format!("203.0.113.1:{PORT}")).replace("192.168.77.1", "0.0.0.0");
    let daemon_log = daemon.count_log(&["Denied"]);
    daemon.reload(&wide);
    daemon.wait_log(&["proxies[0]: this is the redirector's own listener on 0.0.0.0:4128"]);
    assert_eq!(daemon.count_log(&["Denied"]), daemon_log);
}

/// A name may mean anything, at any time, so `-v` cannot know.
#[test]
fn a_name_that_leads_to_the_listener_itself_is_no_server() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _origins = origins(&lab);
    let proxies = format!("proxies: ['localhost:{PORT}']\nonFailure: direct");
    let output = run_program_on(REDIRECTOR, &config(false, &proxies), &["-f", "{}", "-v"]);
    assert!(output.status.success(), "{}", text(&output));
    let daemon = redirector(&lab, false, &proxies);
    daemon.wait_log(&[&format!("localhost:{PORT} is down: it is this program's own listener")]);
    for _ in 0..3 {
        assert!(ask(&lab, SERVER4).is_some());
    }
    daemon.wait_count(3, &["| Direct |"]);
    daemon.reload(&config(false, &format!("proxies: ['localhost:{PORT}']")));
    daemon.wait_log(&["Reloaded: 1 servers, 2 listeners"]);
    assert!(is_reset(&lab, &at(SERVER4, ECHO)));
    daemon.wait_log(&["| Failed | reason="]);
    // The clients' own, and a few checks, which end where they begin.
    daemon.signal(libc::SIGUSR1);
    let counters = daemon.wait_log(&["Counters: connections="]);
    let connections = counters.split_once("connections=").unwrap().1.split(' ').next().unwrap();
    assert!((4..20).contains(&connections.parse::<u32>().unwrap()), "{}", daemon.log());
}

#[test]
fn the_command_line_is_that_of_the_proxy() {
    let check = |args: &[&str], status: i32, words: &[&str]| {
        let output = run_program(REDIRECTOR, args);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
    };
    check(&["-V"], 0, &[&format!("calamary-redirector {}\n", env!("CARGO_PKG_VERSION"))]);
    check(
        &["-h"],
        0,
        &["Usage: calamary-redirector [options]", "/etc/calamary/redirector.yml", "--validate"],
    );
    check(&["--why", "src=192.0.2.1"], 2, &["calamary-redirector: ", "why"]);
    check(&["stray"], 2, &["`stray` is not an option"]);
    check(&["-f", "/nowhere/redirector.yml"], 2, &["/nowhere/redirector.yml: cannot be read"]);
}

#[test]
fn bad_configurations_are_refused_with_their_place() {
    let check = |config: &str, status: i32, words: &[&str]| {
        for args in [&["-f", "{}", "-v"][..], &["-v", "-d", "--config", "{}"]] {
            let output = run_program_on(REDIRECTOR, config, args);
            let text = text(&output);
            assert_eq!(output.status.code(), Some(status), "{config}: {text}");
            assert!(words.iter().all(|word| text.contains(word)), "{config}: {text}");
        }
    };
    let good = "listen: [{ port: 4128 }]\nproxies: ['192.0.2.1:4129', 'proxy.example:4129']\n";
    let valid = "Config validated successfully\nlisteners: 2 (transparent 127.0.0.1:4128, transparent [::1]:4128)\n\
                 proxies: 2 (192.0.2.1:4129, proxy.example:4129)\n";
    check(good, 0, &[valid]);
    check("", 2, &["config.yml:1:1: the file is empty"]);
    check(
        "listen: [{ port: 4128 }]\nproxies: [192.0.2.1]",
        2,
        &["config.yml:2:11: proxies[0]: ", "`192.0.2.1`"],
    );
    check(&format!("{good}slect: first"), 2, &["config.yml:3:1:", "did you mean `select`"]);
    check(&format!("{good}select: frist"), 2, &["select:", "did you mean `first`"]);
    check(&format!("{good}rules: []"), 2, &["`rules` is no key here"]);
    check(&format!("{good}output: {{ interface: nothere0 }}"), 2, &["output.interface", "nothere0"]);
    check(&format!("{good}user: nobody-at-all"), 2, &["nobody-at-all"]);
    check("listen: [{ mode: socks5, port: 1 }]\nproxies: [a:1]", 2, &["listen[0].mode:", "`transparent`"]);
    let datagrams = "listen: [{ port: 1, udp: true, tproxy: true }]\nproxies: [a:1]";
    if cfg!(feature = "udp") {
        check(datagrams, 0, &["transparent 127.0.0.1:1/udp"]);
    } else {
        check(datagrams, 2, &["listen[0].udp:", "not part of this build"]);
    }
}

#[test]
fn what_cannot_run_is_exit_1() {
    let port = free_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let config = format!("listen: [{{ ip6: [], port: {port} }}]\nproxies: ['192.0.2.1:4129']");
    let output = run_program_on(REDIRECTOR, &config, &["-f", "{}"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("another program listens there"), "{}", text(&output));
    drop(taken);
}

/// A calamary server for datagrams alone, `proxyproto` over UDP beside TCP for the checks.
fn calamary_for_datagrams(lab: &Lab, number: usize) -> Daemon {
    let config = format!(
        "listen:\n  - {{mode: proxyproto, ip4: ['203.0.113.{0}'], ip6: ['2001:db8:113::{0}'], port: {SERVERS_PORT}, udp: true,\n\
         \x20    trusted: ['203.0.113.0/24', '2001:db8:113::/64']}}\n\
         output: {{allowLocal: true}}\nrules:\n  - {{action: accept}}\n",
        6 + number
    );
    lab.server.run(|| Daemon::start(&config, &[SERVERS_PORT]))
}

/// A redirector's file for datagrams.
fn config_for_datagrams(settings: &str) -> String {
    format!(
        "listen:\n  - {{ip4: ['127.0.0.1'], ip6: ['::1'], port: {PORT}, tproxy: true, udp: true}}\n{settings}\n"
    )
}

/// A redirector on the lab's router to which datagrams for the echo's port go.
fn redirector_of_datagrams(lab: &Lab, settings: &str) -> Daemon {
    lab.tproxy_udp(&ECHO.to_string(), PORT);
    lab.router.run(|| Daemon::start_redirector(&config_for_datagrams(settings), &[PORT]))
}

#[test]
#[cfg_attr(not(feature = "udp"), ignore = "this build takes no datagrams")]
fn datagrams_arrive_with_their_ends_and_are_answered_by_whom_they_were_sent_to() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let _echo = lab.server.run(|| [SERVER4, SERVER6].map(|server| UdpServer::echo(at(server, ECHO))));
    let calamary = calamary_for_datagrams(&lab, 1);
    // The first one is dead.
    let settings = format!("proxies: ['{}', '{}', '{}']\ndebug: true", server4(0), server4(1), server6(1));
    let redirector = redirector_of_datagrams(&lab, &settings);
    redirector.wait_log(&[&server4(0), "is down"]);
    let flows = |redirector: &Daemon| {
        for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
            let sport = lab.client.run(|| {
                let socket = UdpClient::new(client);
                for datagram in [b"hello".as_slice(), b"", &[7; 1200]] {
                    socket.echoed(&at(server, ECHO), datagram);
                }
                socket.port()
            });
            let line = format!("| {client} => {} |", at(server, ECHO));
            redirector.wait_log(&[&line, "Forward", &format!("server={} sport={sport}", server4(1))]);
            calamary.wait_log(&[&line, "Accept", &format!("sport={sport}")]);
        }
    };
    flows(&redirector);
    redirector.reload(&config_for_datagrams(&settings));
    redirector.wait_log(&["Reloaded: 3 servers, 4 listeners"]);
    flows(&redirector);
}

#[test]
#[cfg_attr(not(feature = "udp"), ignore = "this build takes no datagrams")]
fn datagrams_without_a_server_are_lost_or_go_directly() {
    for (on_failure, is_echoed) in [("close", false), ("direct", true)] {
        let Some(lab) = Lab::build_or_skip() else { return };
        let _echo = lab.server.run(|| UdpServer::echo(at(SERVER4, ECHO)));
        let settings = format!("proxies: ['{}']\nonFailure: {on_failure}", server4(0));
        let redirector = redirector_of_datagrams(&lab, &settings);
        redirector.wait_log(&[&server4(0), "is down"]);
        lab.client.run(|| {
            let socket = UdpClient::new(CLIENT4);
            if is_echoed {
                socket.echoed(&at(SERVER4, ECHO), b"hello");
            } else {
                socket.send(&at(SERVER4, ECHO), b"hello");
                socket.hears_nothing();
            }
        });
    }
}
