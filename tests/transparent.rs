//! Redirected traffic as a router sees it: nftables REDIRECT and TPROXY, IPv4 and IPv6, real clients, real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::client::{self, End, connect, expect_bytes, read_end, write_bytewise};
use common::daemon::Daemon;
use common::dns::NameServer;
use common::lab::{self, CLIENT4, CLIENT6, Lab, ROUTER4, ROUTER6, SERVER4, SERVER6, at};
use common::origin::{HttpOrigin, Origin};
use common::tls::{self, ALERT_UNRECOGNIZED_NAME, Hello, HttpsOrigin, hello};
use common::{have, skip, wait_for};

const PORT: u16 = 4128;

/// How traffic gets to the listener.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Redirect,
    Tproxy,
}

fn listen(by: By) -> String {
    match by {
        By::Redirect => {
            format!("listen:\n  - {{mode: transparent, ip4: ['0.0.0.0'], ip6: ['::'], port: {PORT}}}\n")
        }
        By::Tproxy => format!(
            "listen:\n  - {{mode: transparent, ip4: ['127.0.0.1'], ip6: ['::1'], port: {PORT}, tproxy: true}}\n"
        ),
    }
}

/// A lab with the daemon on its router and all of the client's TCP to `dports` going through it.
fn start(by: By, dports: &str, settings_and_rules: &str) -> Option<(Lab, Daemon)> {
    let lab = Lab::build_or_skip()?;
    match by {
        By::Redirect => lab.redirect(dports, PORT),
        By::Tproxy => lab.tproxy(dports, PORT),
    }
    let config = format!("{}{settings_and_rules}", listen(by));
    let daemon = lab.router.run(|| Daemon::start(&config, &[PORT]));
    Some((lab, daemon))
}

const NAME_RULES: &str = "
rules:
  - {dns: '*.blocked.example', action: deny}
  - {protoL5: [tls, http], action: accept}
";

fn curl_through(by: By) {
    if !have("curl") {
        return skip("needs curl");
    }
    let Some((lab, daemon)) = start(by, "80, 443", NAME_RULES) else { return };
    let _https =
        lab.server.run(|| [HttpsOrigin::start(at(SERVER4, 443)), HttpsOrigin::start(at(SERVER6, 443))]);
    let _http = lab.server.run(|| [HttpOrigin::start(at(SERVER4, 80)), HttpOrigin::start(at(SERVER6, 80))]);
    let ca = tls::certificate().cert_pem.display().to_string();

    for (client, server) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
        let bracketed = at(server, 443);
        let bracketed = bracketed.trim_end_matches(":443");
        let curl = |url: &str| {
            let host = url.split("//").nth(1).unwrap().split('/').next().unwrap();
            lab.client.try_sh(&format!(
                "curl -sS -m 20 --cacert {ca} --resolve {host}:443:{bracketed} --resolve {host}:80:{bracketed} {url}"
            ))
        };

        let allowed = curl("https://www.example.com/hello");
        assert!(allowed.status.success(), "{}", common::daemon::text(&allowed));
        assert_eq!(allowed.stdout, b"GET /hello HTTP/1.1 host=www.example.com body=0\n");
        let to = at(server, 443);
        daemon.wait_log(&[
            &format!("| INFO | {client} => {to} | Accept | rule=1 sport="),
            "proto=tls name=www.example.com tls=1.3 alpn=h2,http/1.1",
        ]);

        let denied = curl("https://ads.blocked.example/");
        assert!(!denied.status.success());
        assert!(String::from_utf8_lossy(&denied.stderr).contains("unrecognized name"), "{denied:?}");
        daemon.wait_log(&[&format!("{client} => {to} | Denied | rule=0"), "name=ads.blocked.example"]);

        let plain = curl("http://plain.example.com/page");
        assert_eq!(plain.stdout, b"GET /page HTTP/1.1 host=plain.example.com body=0\n");
        daemon.wait_log(&[&format!("{client} => {} | Accept | rule=1", at(server, 80)), "proto=http"]);
    }
}

#[test]
fn curl_is_let_through_or_refused_by_name_over_redirect() {
    curl_through(By::Redirect);
}

#[test]
fn curl_is_let_through_or_refused_by_name_over_tproxy() {
    curl_through(By::Tproxy);
}

fn openssl_through(by: By) {
    if !have("openssl") {
        return skip("needs openssl");
    }
    let Some((lab, _daemon)) = start(by, "443", NAME_RULES) else { return };
    let _origins =
        lab.server.run(|| [HttpsOrigin::start(at(SERVER4, 443)), HttpsOrigin::start(at(SERVER6, 443))]);
    for server in [at(SERVER4, 443), at(SERVER6, 443)] {
        let s_client = |name: &str| {
            lab.client.try_sh(&format!(
                "printf 'GET /close HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | \
                 timeout 20 openssl s_client -quiet -connect '{server}' -servername {name} 2>&1"
            ))
        };
        let allowed = s_client("www.example.com");
        assert!(
            common::daemon::text(&allowed).contains("HTTP/1.1 200 OK"),
            "{}",
            common::daemon::text(&allowed)
        );
        let denied = s_client("x.blocked.example");
        let text = common::daemon::text(&denied);
        assert!(text.contains("unrecognized name") && text.contains("alert number 112"), "{text}");
    }
}

#[test]
fn openssl_is_let_through_or_refused_by_name_over_redirect() {
    openssl_through(By::Redirect);
}

#[test]
fn openssl_is_let_through_or_refused_by_name_over_tproxy() {
    openssl_through(By::Tproxy);
}

#[test]
fn nginx_serves_a_large_file_over_http2_through_the_proxy() {
    if !have("nginx") || !have("curl") {
        return skip("needs nginx and curl");
    }
    let Some((lab, daemon)) = start(By::Redirect, "443", NAME_RULES) else { return };
    let dir = common::TempDir::new();
    let content = common::pattern(20 << 20, 3);
    dir.write("file", &content);
    let certificate = tls::certificate();
    let conf = dir.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
             events {{}}
             http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
                     uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
                     server {{ listen {SERVER4}:443 ssl http2; listen [{SERVER6}]:443 ssl http2; root {dir};
                               ssl_certificate {cert}; ssl_certificate_key {key}; }} }}
             user root;",
            dir = dir.0.display(),
            cert = certificate.cert_pem.display(),
            key = certificate.key_pem.display(),
        ),
    );
    let nginx = lab.server.run(|| std::process::Command::new("nginx").arg("-c").arg(&conf).spawn().unwrap());
    let _guard = KillOnDrop(nginx);
    wait_for("nginx", || {
        lab.server.try_sh(&format!("curl -sk -o /dev/null https://{SERVER4}/")).status.success().then_some(())
    });
    for server in [SERVER4.to_string(), format!("[{SERVER6}]")] {
        let output = lab.client.try_sh(&format!(
            "curl -sS -m 60 --http2 --cacert {} --resolve www.example.com:443:{server} -w '%{{stderr}}%{{http_version}}' \
             https://www.example.com/file",
            certificate.cert_pem.display()
        ));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "2");
        assert!(output.stdout == content, "{} bytes", output.stdout.len());
    }
    daemon.wait_log(&["Accept", "alpn=h2,http/1.1"]);
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn banner_arrives(by: By) {
    let rules = "timeout: {process: 20000}\nrules:\n  - {port: 22, action: accept}\n";
    let Some((lab, daemon)) = start(by, "22", rules) else { return };
    let _ssh = lab.server.run(|| {
        [at(SERVER4, 22), at(SERVER6, 22)].map(|addr| Origin::banner(addr, "SSH-2.0-OpenSSH_9.2\r\n"))
    });
    for server in [at(SERVER4, 22), at(SERVER6, 22)] {
        let start = Instant::now();
        lab.client.run(|| {
            let mut stream = connect(&server);
            expect_bytes(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n");
            // The tunnel works both ways after the server spoke first.
            stream.write_all(b"hello").unwrap();
            expect_bytes(&mut stream, b"hello");
        });
        assert!(start.elapsed() < Duration::from_secs(15), "the banner waited for the client's first bytes");
        daemon.wait_log(&[&format!("=> {server} | Accept | rule=0")]);
    }
}

#[test]
fn a_server_that_speaks_first_is_not_delayed_under_port_rules_over_redirect() {
    banner_arrives(By::Redirect);
}

#[test]
fn a_server_that_speaks_first_is_not_delayed_under_port_rules_over_tproxy() {
    banner_arrives(By::Tproxy);
}

#[test]
fn a_server_that_speaks_first_waits_for_process_only_where_a_rule_asks_for_the_first_bytes() {
    let rules = "timeout: {process: 700}\nrules:\n  - {protoL5: none, action: accept}\n";
    let Some((lab, daemon)) = start(By::Redirect, "22", rules) else { return };
    let _ssh = lab.server.run(|| Origin::banner(at(SERVER4, 22), "220 hello\r\n"));
    lab.client.run(|| {
        let start = Instant::now();
        expect_bytes(&mut connect(at(SERVER4, 22)), b"220 hello\r\n");
        assert!(
            start.elapsed() >= Duration::from_millis(600),
            "decided as silence before `process` had passed"
        );
    });
    daemon.wait_log(&["Accept | rule=0", "proto=none"]);
}

#[test]
fn a_denied_tls_name_gets_the_alert_and_a_fin_and_the_server_never_sees_a_syn() {
    for by in [By::Redirect, By::Tproxy] {
        let Some((lab, _daemon)) = start(by, "443", NAME_RULES) else { return };
        let origin =
            lab.server.run(|| [HttpsOrigin::start(at(SERVER4, 443)), HttpsOrigin::start(at(SERVER6, 443))]);
        lab.server.count_syns();
        for server in [at(SERVER4, 443), at(SERVER6, 443)] {
            lab.client.run(|| {
                let mut stream = connect(&server);
                stream.write_all(&hello("ads.blocked.example")).unwrap();
                assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
            });
        }
        assert_eq!(lab.server.syns(), 0);
        assert_eq!(origin[0].accepted() + origin[1].accepted(), 0);
        // The counter counts: an allowed name is seen.
        lab.client.run(|| {
            let mut stream = connect(at(SERVER4, 443));
            stream.write_all(&hello("www.example.com")).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
        });
        assert!(lab.server.syns() > 0);
    }
}

#[test]
fn a_denied_address_is_reset_at_once_and_never_sees_a_syn() {
    let rules = "timeout: {process: 20000}\nrules:\n  - {dest: [203.0.113.0/24, '2001:db8:113::/48'], action: deny}\n  - {action: accept}\n";
    for by in [By::Redirect, By::Tproxy] {
        let Some((lab, daemon)) = start(by, "443", rules) else { return };
        lab.server.count_syns();
        for server in [at(SERVER4, 443), at(SERVER6, 443)] {
            let start = Instant::now();
            // The reset may arrive before or after the client's connect returns.
            lab.client.run(|| {
                if let Ok(mut stream) = std::net::TcpStream::connect(&server) {
                    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
                    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
                }
            });
            assert!(start.elapsed() < Duration::from_secs(15));
            daemon.wait_log(&[&format!("=> {server} | Denied | rule=0")]);
        }
        assert_eq!(lab.server.syns(), 0);
    }
}

#[test]
fn a_hello_in_one_byte_segments_or_one_byte_records_is_identified() {
    let Some((lab, daemon)) = start(By::Redirect, "443", NAME_RULES) else { return };
    let _origin = lab.server.run(|| Origin::echo(at(SERVER4, 443)));
    let hello = |name| Hello { name: Some(name), ..Hello::default() };
    let ways: [(&str, Vec<u8>); 4] = [
        ("segments", hello("segments.blocked.example").record()),
        ("records", hello("records.blocked.example").records(1)),
        ("allowed-segments", hello("allowed-segments.example.com").record()),
        ("allowed-records", hello("allowed-records.example.com").records(1)),
    ];
    for (way, bytes) in ways {
        lab.client.run(|| {
            let mut stream = connect(at(SERVER4, 443));
            write_bytewise(&mut stream, &bytes);
            if way.starts_with("allowed") {
                // What was read before the verdict reaches the server byte for byte.
                expect_bytes(&mut stream, &bytes);
            } else {
                assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
            }
        });
        let verdict = if way.starts_with("allowed") { "Accept" } else { "Denied" };
        daemon.wait_log(&[verdict, &format!("name={way}.")]);
    }
}

#[test]
fn plain_http_is_redirected_to_https_and_everything_else_refused_by_the_redirect_action() {
    let rules = "rules:\n  - {encrypted: no, action: redirect}\n  - {action: accept}\n";
    let Some((lab, daemon)) = start(By::Redirect, "80", rules) else { return };
    let origin = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let ask = |request: &str| {
        lab.client.run(|| {
            let mut http = client::Http::connect(at(SERVER4, 80));
            http.send(request);
            http.head()
        })
    };
    for (request, status, location) in [
        (
            "GET /a?b=c HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n",
            301,
            Some("https://www.example.com/a?b=c"),
        ),
        ("HEAD / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", 301, Some("https://www.example.com/")),
        (
            "POST /x HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 0\r\n\r\n",
            308,
            Some("https://www.example.com/x"),
        ),
        ("GET / HTTP/1.1\r\n\r\n", 403, None),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 403, None),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 403, None),
    ] {
        let answer = ask(request);
        assert_eq!((answer.status, answer.header("location")), (status, location), "{request}");
    }
    daemon.wait_log(&["| Redirect | rule=0", "proto=http"]);
    // Not HTTP: a reset.
    lab.client.run(|| {
        let mut stream = connect(at(SERVER4, 80));
        stream.write_all(b"\x00\x01\x02\x03 nothing known\r\n").unwrap();
        assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    });
    assert_eq!(origin.accepted(), 0);
}

/// What is redirected though it was meant for the router itself has no foreign destination: who says a name is taken there,
/// who says none is denied, and nobody gets to what listens on the router.
#[test]
fn who_asks_for_the_routers_own_services_is_denied_by_the_built_in_rule() {
    let rules = "timeout: {process: 300}\ndnsNameservers: ['203.0.113.9']\nrules:\n  - {action: accept}\n";
    for by in [By::Redirect, By::Tproxy] {
        let Some((lab, daemon)) = start(by, "22, 80, 443", rules) else { return };
        let names: &[(&str, &[&str])] =
            &[("www.example.com", &[SERVER4]), ("router.example.com", &[ROUTER4])];
        let _names = lab.server.run(|| NameServer::with(&at(lab::DNS4, 53), names));
        let foreign = lab.server.run(|| Origin::echo(at(SERVER4, 443)));
        let own = [ROUTER4, lab::ROUTER_OUT4, ROUTER6];
        let services: Vec<Origin> = lab.router.run(|| {
            let ports = [22, 80, 443];
            let all = own.iter().flat_map(|addr| ports.map(|port| at(addr, port)));
            all.map(|addr| Origin::banner(addr, "router\r\n")).collect()
        });
        for addr in own {
            let client = if addr == ROUTER6 { CLIENT6 } else { CLIENT4 };
            let end = |port: u16, bytes: &[u8]| {
                lab.client.run(|| {
                    let mut stream = connect(at(addr, port));
                    stream.write_all(bytes).unwrap();
                    read_end(&mut stream)
                })
            };
            let denied = |to: &str| {
                daemon.wait_log(&[&format!("{client} => {to} | Denied | rule=always")]);
            };
            // A client that waits for the server to speak, and one whose protocol has no name.
            assert_eq!(end(22, b""), End::Reset(vec![]), "{addr}");
            assert_eq!(end(22, b"SSH-2.0-x\r\n"), End::Reset(vec![]), "{addr}");
            denied("?");
            // Names that lead back.
            assert_eq!(end(443, &hello("router.example.com")), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
            denied(&at(ROUTER4, 443));
            let asked = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", at(addr, 80));
            assert!(
                matches!(end(80, asked.as_bytes()), End::Closed(answer) if answer.starts_with(b"HTTP/1.1 403 "))
            );
            denied(&at(addr, 80));
            // A name that leads elsewhere is where it goes.
            lab.client.run(|| {
                let mut stream = connect(at(addr, 443));
                let bytes = hello("www.example.com");
                stream.write_all(&bytes).unwrap();
                expect_bytes(&mut stream, &bytes);
            });
            daemon.wait_log(&[&format!("{client} => {} | Accept | rule=0", at(SERVER4, 443))]);
        }
        assert_eq!(foreign.accepted(), own.len());
        assert_eq!(services.iter().map(Origin::accepted).sum::<usize>(), 0);
    }
}

#[test]
fn allow_local_lets_the_routers_services_be_reached_but_not_the_listeners() {
    let rules = "timeout: {process: 300}\noutput: {allowLocal: true}\nrules:\n  - {port: 22, action: accept}\n  - {action: accept}\n";
    for by in [By::Redirect, By::Tproxy] {
        let Some((lab, daemon)) = start(by, "22, 4128", rules) else { return };
        let _services =
            lab.router.run(|| [ROUTER4, ROUTER6].map(|addr| Origin::banner(at(addr, 22), "router\r\n")));
        for addr in [ROUTER4, ROUTER6] {
            lab.client.run(|| expect_bytes(&mut connect(at(addr, 22)), b"router\r\n"));
            daemon.wait_log(&[&format!("=> {} | Accept | rule=0", at(addr, 22))]);
            let end = lab.client.run(|| read_end(&mut connect(at(addr, PORT))));
            assert_eq!(end, End::Reset(vec![]));
        }
        daemon.wait_count(2, &["=> ? | Denied | rule=always"]);
    }
}

#[test]
fn a_client_that_connects_to_the_listener_itself_causes_no_loop() {
    let rules = "timeout: {process: 300}\ndnsNameservers: ['203.0.113.9']\noutput: {retries: 0}\nrules:\n  - {action: accept}\n";
    let Some((lab, daemon)) = start(By::Redirect, "443", rules) else { return };
    let names: &[(&str, &[&str])] = &[("www.example.com", &[SERVER4]), ("router.example.com", &[ROUTER4])];
    let _names = lab.server.run(|| NameServer::with(&at(lab::DNS4, 53), names));
    let _origin = lab.server.run(|| Origin::banner(at(SERVER4, 443), "hello"));
    // Nobody but the daemon connects from there.
    lab.router.count_syns_sent();
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    for (bytes, connections) in [
        (host(&at(ROUTER4, PORT)), 0),
        (host(&at(ROUTER6, PORT)), 0),
        (host("router.example.com"), 0),
        (hello("router.example.com"), 0),
        (b"x\n".to_vec(), 0),
        (b"".to_vec(), 0),
        // One to the server that is named, and that is all.
        (hello("www.example.com"), 1),
    ] {
        for addr in [ROUTER4, ROUTER6] {
            let before = lab.router.syns();
            let end = lab.client.run(|| {
                let mut stream = connect(at(addr, PORT));
                stream.write_all(&bytes).unwrap();
                let mut byte = [0];
                if connections > 0 {
                    stream.read_exact(&mut byte).map(|()| End::Closed(vec![]))
                } else {
                    Ok(read_end(&mut stream))
                }
            });
            end.unwrap();
            // A loop would need no time at all.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(
                lab.router.syns() - before,
                connections,
                "{} to {addr}\n{}",
                bytes.escape_ascii(),
                daemon.log()
            );
        }
    }
    daemon.wait_count(2, &["| Accept |"]);
    daemon.wait_count(12, &["| Denied | rule=always"]);
}

#[test]
fn a_destination_lost_by_a_remote_dnat_is_replaced_by_the_name() {
    // DNAT on the client's side of the network: conntrack on the router does not know the first destination.
    let dns = "dnsNameservers: ['203.0.113.9']\nrules:\n  - {dns: '*.blocked.example', action: deny}\n  - {action: accept}\n";
    let Some((lab, daemon)) = start(By::Redirect, "9", dns) else { return };
    let _names = lab.server.run(|| NameServer::with("203.0.113.9:53", &[("www.example.com", &[SERVER4])]));
    let _origin = lab.server.run(|| HttpsOrigin::start(at(SERVER4, 443)));
    let _plain = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    lab.client.nft(&format!(
        "table ip away {{
            chain output {{
                type nat hook output priority -100
                ip daddr 198.51.100.1 tcp dport {{ 80, 443 }} dnat to {ROUTER4}:{PORT}
            }}
        }}"
    ));
    let ca = tls::certificate().cert_pem.display().to_string();
    for (url, words) in [("https://www.example.com/", "proto=tls"), ("http://www.example.com/", "proto=http")]
    {
        let output = lab.client.try_sh(&format!(
            "curl -sS -m 20 --cacert {ca} --resolve www.example.com:443:198.51.100.1 --resolve www.example.com:80:198.51.100.1 {url}"
        ));
        assert!(output.status.success(), "{}", common::daemon::text(&output));
        daemon.wait_log(&["Accept", words]);
    }
}

#[test]
fn the_client_keeps_its_address_in_the_log_and_in_src_rules() {
    let rules = "rules:\n  - {src: 192.168.77.0/24, port: 7001, action: accept}\n  - {src: 'fd00:77::/64', port: 7002, action: accept}\n";
    for by in [By::Redirect, By::Tproxy] {
        let Some((lab, daemon)) = start(by, "7001, 7002", rules) else { return };
        let _echo = lab.server.run(|| [Origin::echo(at(SERVER4, 7001)), Origin::echo(at(SERVER6, 7002))]);
        for (server, client) in [(at(SERVER4, 7001), CLIENT4), (at(SERVER6, 7002), CLIENT6)] {
            let sport = lab.client.run(|| {
                let mut stream = connect(&server);
                stream.write_all(b"ping").unwrap();
                expect_bytes(&mut stream, b"ping");
                stream.local_addr().unwrap().port()
            });
            daemon.wait_log(&[&format!("{client} => {server} | Accept"), &format!("sport={sport}")]);
        }
    }
}
