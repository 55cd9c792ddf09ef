//! Connections that lead back to this machine in ways that neither the rules nor the addresses of its interfaces show.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::time::Duration;

use common::client::{End, Http, connect, read_end};
use common::daemon::Daemon;
use common::lab::{Lab, SERVER4, SERVER6, at};
use common::origin::Origin;

/// A rule for this machine's own connections that does not leave the daemon's out.
#[test]
fn a_connection_that_the_firewall_sends_back_is_denied_in_its_first_round() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.router.nft(
        "table inet own {
            chain output {
                type nat hook output priority -100
                tcp dport { 80, 443 } redirect to :4128
            }
        }",
    );
    let config = "listen:\n  - {mode: transparent, ip4: ['0.0.0.0'], ip6: ['::'], port: 4128}\noutput: {retries: 0}\nrules:\n  - {action: accept}\n";
    let daemon = lab.router.run(|| Daemon::start(config, &[4128]));
    for (round, dest) in [at(SERVER4, 80), at(SERVER6, 443)].into_iter().enumerate() {
        // The reset may come before connect() has returned.
        let was_reset = lab.router.run(|| match std::net::TcpStream::connect(&*dest) {
            Ok(mut stream) => matches!(read_end(&mut stream), End::Reset(_)),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        });
        assert!(was_reset, "{dest}");
        daemon.wait_log(&[&dest, "Denied", "rule=always"]);
        // A loop would need no time at all.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(daemon.count_log(&["| Accept |"]), round + 1, "{}", daemon.log());
        assert_eq!(daemon.count_log(&["| Denied | rule=always"]), round + 1, "{}", daemon.log());
    }
}

/// With the rule that the documentation has, this machine's own connections do go through.
#[test]
fn connections_of_the_router_itself_are_served() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.router.nft(
        "table inet own {
            chain output {
                type nat hook output priority -100
                meta mark != 42 tcp dport 80 redirect to :4128
            }
        }",
    );
    let config = "listen:\n  - {mode: transparent, ip4: ['0.0.0.0'], ip6: ['::'], port: 4128}\noutput: {fwmark: 42}\nrules:\n  - {action: accept}\n";
    let _daemon = lab.router.run(|| Daemon::start(config, &[4128]));
    let _echo = lab.server.run(|| Origin::echo(at(SERVER4, 80)));
    lab.router.run(|| {
        let mut stream = connect(at(SERVER4, 80));
        stream.write_all(b"ping").unwrap();
        common::client::expect_bytes(&mut stream, b"ping");
    });
}

/// A local route makes addresses this machine's that no interface has.
#[test]
fn a_destination_that_turns_out_to_be_this_machine_is_denied() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.router.sh("ip route add local 198.51.100.0/24 dev lo");
    let _origin = lab.router.run(|| Origin::echo("0.0.0.0:8080"));
    let rules = "rules:\n  - {action: accept}\n";
    let listen = "listen:\n  - {mode: http, ip4: ['0.0.0.0'], ip6: [], port: 4130}\n";
    let mut daemon = lab.router.run(|| Daemon::start(&format!("{listen}{rules}"), &[4130]));
    let ask = || {
        lab.client.run(|| {
            let mut client = Http::connect(at("192.168.77.1", 4130));
            client.send("CONNECT 198.51.100.7:8080 HTTP/1.1\r\nHost: x\r\n\r\n");
            client.head().status
        })
    };
    assert_eq!(ask(), 403);
    daemon.wait_log(&["=> 198.51.100.7:8080 | Denied | rule=always"]);
    // A request that ends with its refusal leaves the connection usable, as every denied one.
    lab.client.run(|| {
        let mut client = Http::connect(at("192.168.77.1", 4130));
        for _ in 0..2 {
            let response = client.ask("GET http://198.51.100.7:8080/ HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(response.status, 403);
        }
    });
    daemon.reload(&format!("{listen}output: {{allowLocal: true}}\n{rules}"));
    daemon.wait_log(&["Reloaded"]);
    assert_eq!(ask(), 200);
    // Our own listener is not reached even so.
    let status = lab.client.run(|| {
        let mut client = Http::connect(at("192.168.77.1", 4130));
        client.send("CONNECT 198.51.100.7:4130 HTTP/1.1\r\nHost: x\r\n\r\n");
        client.head().status
    });
    assert_eq!(status, 403);
    assert!(daemon.is_running());
}
