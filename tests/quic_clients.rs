//! Real clients and servers over UDP: aioquic and Chromium speak HTTP/3 through TPROXY, `dig` asks a nameserver.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, CLIENT6, DNS4, Lab, SERVER4, SERVER6, at};
use common::{TempDir, have, skip};

const LISTEN: &str = "listen:
  - {mode: transparent, ip4: ['127.0.0.1'], ip6: ['::1'], port: 4128, udp: true, tproxy: true}
";

const RULES: &str = "rules:
  - {dns: '*.blocked.example', action: deny}
  - {protoL5: [quic, dns], action: accept}
";

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// The Python that has aioquic: tests/run.sh makes one.
fn aioquic() -> Option<String> {
    let python = std::env::var("CALAMARY_AIOQUIC").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import aioquic"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skip("needs aioquic: CALAMARY_AIOQUIC names a python that has it");
    None
}

/// A lab in which all UDP to ports 443 and 53 goes through the daemon.
fn start() -> Option<(Lab, Daemon)> {
    let lab = Lab::build_or_skip()?;
    lab.tproxy_after("", "{ tcp, udp }", "443, 53", 4128);
    let daemon = lab.router.run(|| Daemon::start(&format!("{LISTEN}{RULES}"), &[4128]));
    Some((lab, daemon))
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An HTTP/3 server on the lab's server.
fn serve(lab: &Lab, python: &str) -> Running {
    let mut server = lab.server.run(|| {
        let script = format!("{FOLDER}/quic/server.py");
        let certificates = format!("{FOLDER}/vectors/certificates");
        let mut command = Command::new(python);
        command.arg(script).args(["server.pem", "server.key"].map(|file| format!("{certificates}/{file}")));
        command.args([SERVER4, SERVER6]).stdout(Stdio::piped()).spawn().unwrap()
    });
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    Running(server)
}

#[test]
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
fn aioquic_is_let_through_or_told_at_once() {
    let Some(python) = aioquic() else { return };
    let Some((lab, daemon)) = start() else { return };
    let _server = serve(&lab, &python);
    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let ask = |name: &str| {
            text(&lab.client.try_sh(&format!("{python} {FOLDER}/quic/client.py {server} {name} /large")))
        };
        let answer = ask("www.example.com");
        assert!(answer.starts_with("answer 300031 "), "{answer}");
        let line = format!("{client} => {} | Accept | rule=1", at(server, 443));
        daemon.wait_log(&[&line, "proto=quic name=www.example.com tls=1.3 alpn=h3 ja4=q13d"]);
        // aioquic gives up on a handshake after a minute; a test's client after 15 seconds, with another error.
        let answer = ask("x.blocked.example");
        assert!(answer.starts_with("error ConnectionError "), "{answer}");
        println!("told no, and gave up after this many ms: {answer}");
        daemon.wait_log(&[
            &format!("{client} => {} | Denied | rule=0", at(server, 443)),
            "name=x.blocked.example",
        ]);
    }
}

#[test]
#[cfg_attr(not(feature = "quic"), ignore = "this build does not read QUIC")]
fn chromium_browses_over_quic_and_gives_up_where_it_is_refused() {
    let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|p| have(p))
    else {
        return skip("needs chromium");
    };
    let Some(python) = aioquic() else { return };
    let Some((lab, daemon)) = start() else { return };
    let _server = serve(&lab, &python);
    let hash = lab.client.sh(&format!(
        "openssl x509 -in {FOLDER}/vectors/certificates/server.pem -pubkey -noout | \
         openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"
    ));
    let browse = |name: &str| {
        let home = TempDir::new();
        // Over TCP nobody listens: what comes, came over QUIC.
        text(&lab.client.try_sh(&format!(
            "HOME={home} timeout 60 {program} --headless --no-sandbox --disable-gpu --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
             --user-data-dir={home}/profile --ignore-certificate-errors-spki-list={hash} \
             --origin-to-force-quic-on={name}:443 '--host-resolver-rules=MAP {name} {SERVER4}' \
             --dump-dom https://{name}/page",
            home = home.0.display(),
            hash = hash.trim(),
        )))
    };
    let page = browse("www.example.com");
    assert!(page.contains("over QUIC, from address /page"), "{page}\n{}", daemon.log());
    daemon.wait_log(&["| Accept | rule=1", "proto=quic name=www.example.com", "ech=grease"]);
    let begun = Instant::now();
    let page = browse("x.blocked.example");
    println!("told no; from start to end this many ms: {}", begun.elapsed().as_millis());
    assert!(page.contains("ERR_QUIC_PROTOCOL_ERROR") || page.contains("ERR_CONNECTION"), "{page}");
    daemon.wait_log(&["| Denied | rule=0", "proto=quic name=x.blocked.example"]);
}

#[test]
fn dig_asks_over_udp_and_tcp() {
    if !have("dig") {
        return skip("needs dig");
    }
    let Some((lab, daemon)) = start() else { return };
    let _names = lab.server.run(|| NameServer::with("203.0.113.9:53", &[("www.example.com", &[SERVER4])]));
    for transport in ["+notcp", "+tcp"] {
        let answer =
            lab.client.sh(&format!("dig @{DNS4} www.example.com A +short +tries=1 +time=15 {transport}"));
        assert_eq!(answer, format!("{SERVER4}\n"), "{transport}");
    }
    daemon.wait_count(
        2,
        &[&format!("{CLIENT4} => {DNS4}:53 | Accept | rule=1"), "proto=dns query=www.example.com"],
    );
}
