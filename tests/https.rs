//! The HTTP proxy inside TLS: real clients, both versions, what goes wrong in a handshake, certificates that change.
#![cfg(feature = "tls")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::client::{End, connect, expect_bytes, read_end};
use common::daemon::{Daemon, run_on, text};
use common::origin::{HttpOrigin, Origin};
use common::tls::{HttpsOrigin, TlsClient};
use common::{free_port, have, pattern, skip, wait_for};

fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/certificates").join(name)
}

fn config(port: u16, public: &str, private: &str, settings: &str) -> String {
    format!(
        "listen:\n  - {{mode: https, port: {port}}}\ndebug: true\noutput: {{allowLocal: true, retries: 0}}\n\
         certs:\n  serverPublic: {}\n  serverPrivate: {}\n{settings}\nrules:\n  \
         - {{dns: '*.blocked.example', action: deny}}\n  - {{action: accept}}\n",
        certificate(public).display(),
        certificate(private).display()
    )
}

struct Proxy {
    daemon: Daemon,
    port: u16,
}

impl Proxy {
    fn start(settings: &str) -> Proxy {
        let port = free_port();
        Proxy { daemon: Daemon::start(&config(port, "server.pem", "server.key", settings), &[port]), port }
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn client(&self) -> TlsClient {
        TlsClient::connect(self.addr())
    }

    /// A CONNECT that must be granted.
    fn tunnel(&self, target: SocketAddr) -> TlsClient {
        let mut client = self.client();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
        expect_bytes(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
        client
    }
}

/// curl through the proxy, which must have the certificate of the tests' root.
fn curl(proxy: &str, args: &[&str]) -> Output {
    let root = certificate("ca.pem");
    Command::new("curl")
        .args([
            "-sS",
            "-k",
            "-m",
            "20",
            "--noproxy",
            "",
            "--proxy-cacert",
            root.to_str().unwrap(),
            "--proxy",
            proxy,
        ])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// `openssl s_client` that says `input` and reads to the end.
fn s_client(proxy: SocketAddr, args: &[&str], input: &str) -> String {
    let root = certificate("ca.pem");
    let mut child = Command::new("timeout")
        .args([
            "20",
            "openssl",
            "s_client",
            "-connect",
            &proxy.to_string(),
            "-verify_return_error",
            "-ign_eof",
        ])
        .args(["-CAfile", root.to_str().unwrap()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    text(&child.wait_with_output().unwrap())
}

#[test]
fn curl_gets_pages_in_absolute_form_and_through_connect_over_both_families() {
    if !have("curl") {
        return skip("needs curl");
    }
    let proxy = Proxy::start("");
    for (listener, origin) in [("127.0.0.1", "127.0.0.1:0"), ("[::1]", "[::1]:0")] {
        let address = format!("https://{listener}:{}", proxy.port);
        let http = HttpOrigin::start(origin);
        let https = HttpsOrigin::start(origin);
        for (scheme, server) in [("http", http.addr()), ("https", https.addr())] {
            let page = text(&curl(&address, &[&format!("{scheme}://{server}/page")]));
            assert!(page.starts_with(&format!("GET /page HTTP/1.1 host={server}")), "{page}");
            proxy.daemon.wait_log(&[&format!("=> {server} | Accept | rule=1")]);
        }
        // Two requests on one connection to the proxy, and one that is denied.
        let url = format!("http://{}/", http.addr());
        let both = text(&curl(&address, &["-v", &url, &url]));
        assert!(both.contains("Re-using existing connection"), "{both}");
        // By name: curl 7.88 takes the address of an IPv6 proxy for a name where the target is a name.
        let (family, address) = match origin.starts_with('[') {
            true => ("-6", format!("https://localhost:{}", proxy.port)),
            false => ("-4", address),
        };
        let args = [family, "-o", "-", "-w", "%{http_code}", "http://x.blocked.example/"];
        let denied = text(&curl(&address, &args));
        assert!(denied.ends_with("403"), "{denied}");
    }
    assert!(proxy.daemon.find_log(&["tls_failed"]).is_none(), "{}", proxy.daemon.log());
}

#[test]
fn users_come_in_with_their_password_and_nobody_else() {
    if !have("curl") {
        return skip("needs curl");
    }
    // `open sesame`, as `openssl passwd -5` hashes it; for every listener.
    let proxy = Proxy::start("users: {alice: $5$saltstring$sOFRiuqOzKEQCZAIFmMrCbPuMEMUPOi/BmBpBwWMgW3}");
    let (http, https) = (HttpOrigin::start("127.0.0.1:0"), HttpsOrigin::start("127.0.0.1:0"));
    for url in [format!("http://{}/x", http.addr()), format!("https://{}/x", https.addr())] {
        let get = |user: &str, args: &[&str]| {
            let via = format!("https://{user}127.0.0.1:{}", proxy.port);
            text(&curl(&via, &[args, &["-w", "%{http_code}/%{http_connect}", &url]].concat()))
        };
        for args in [&[][..], &["--proxy-anyauth"]] {
            let said = get("alice:open%20sesame@", args);
            assert!(said.starts_with("GET /x"), "{url} {args:?}: {said}");
        }
        for user in ["", "alice:open%20barley@", "bob:open%20sesame@"] {
            let said = get(user, &[]);
            assert!(said.contains("407") && !said.contains("GET /x"), "{url} {user}: {said}");
        }
    }
    proxy.daemon.wait_log(&["| Accept | rule=1", "user=alice"]);
    assert!(!proxy.daemon.log().contains("sesame"));
    // What nobody can read needs no warning.
    assert!(proxy.daemon.find_log(&["in clear"]).is_none());
}

#[test]
fn openssl_agrees_on_version_and_protocol() {
    if !have("openssl") {
        return skip("needs openssl");
    }
    let proxy = Proxy::start("");
    let origin = HttpOrigin::start("127.0.0.1:0");
    let request = format!(
        "GET http://{}/close HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        origin.addr(),
        origin.addr()
    );
    let check = |args: &[&str], expected: &[&str]| {
        let said = s_client(proxy.addr(), args, &request);
        for words in expected {
            assert!(said.contains(words), "{args:?}, {words:?}:\n{said}");
        }
    };
    let page = "GET /close HTTP/1.1 host=";
    check(&["-tls1_2"], &["New, TLSv1.2", page, "No ALPN negotiated"]);
    check(&["-tls1_3"], &["New, TLSv1.3", page, "No ALPN negotiated"]);
    check(&["-tls1_2", "-alpn", "h2,http/1.1"], &["ALPN protocol: http/1.1", page]);
    check(&["-tls1_3", "-alpn", "http/1.1"], &["ALPN protocol: http/1.1", page]);
    check(&["-tls1_3", "-servername", "proxy.example.com"], &[page, "Verify return code: 0"]);
    // What cannot be agreed on is refused with an alert that says what, and a line.
    check(&["-alpn", "h2"], &["no application protocol"]);
    proxy.daemon.wait_log(&["| Failed | reason=tls_failed", "error="]);
}

#[test]
fn a_session_is_taken_up_again() {
    if !have("openssl") {
        return skip("needs openssl");
    }
    let proxy = Proxy::start("");
    let origin = HttpOrigin::start("127.0.0.1:0");
    let file = common::TempDir::new();
    let session = file.0.join("session");
    let session = session.to_str().unwrap();
    let request = format!(
        "GET http://{}/close HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        origin.addr(),
        origin.addr()
    );
    for version in ["-tls1_2", "-tls1_3"] {
        let first = s_client(proxy.addr(), &[version, "-sess_out", session], &request);
        assert!(first.contains("New, TLSv1."), "{first}");
        let second = s_client(proxy.addr(), &[version, "-sess_in", session], &request);
        assert!(second.contains("Reused, TLSv1.") && second.contains("GET /close HTTP/1.1"), "{second}");
    }
}

#[test]
fn a_handshake_in_one_byte_segments_and_everything_behind_it() {
    let proxy = Proxy::start("timeout: {process: 10000}");
    let origin = Origin::echo("127.0.0.1:0");
    let mut client = TlsClient::slow(proxy.addr());
    let target = origin.addr;
    client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nearly").as_bytes()).unwrap();
    expect_bytes(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\nearly");
    client.write_all(b"and late").unwrap();
    expect_bytes(&mut client, b"and late");
}

#[test]
fn who_speaks_no_tls_is_told_so_and_logged() {
    let proxy = Proxy::start("");
    for request in
        ["GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "PROXY TCP4 1.2.3.4", "C"]
    {
        let mut stream = connect(proxy.addr());
        stream.write_all(request.as_bytes()).unwrap();
        let End::Closed(said) = read_end(&mut stream) else { panic!("a reset") };
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("this port speaks TLS"), "{said}");
    }
    proxy.daemon.wait_log(&["INFO", "127.0.0.1 => ? | Failed | reason=wrong_protocol sport="]);
    wait_for("three lines", || {
        (proxy.daemon.count_log(&["Failed | reason=wrong_protocol"]) == 3).then_some(())
    });
}

#[test]
fn garbage_gets_an_alert_and_a_line() {
    let proxy = Proxy::start("");
    let mut broken = TlsClient::hello();
    // The handshake message, of a type that does not begin one.
    broken[5] = 2;
    // A hello that says that it is 16 MB long, and goes on for longer than any is; a record longer than any.
    let record = |len: usize| [&[22, 3, 1][..], &(len as u16).to_be_bytes(), &vec![0; len]].concat();
    let mut large = [record(8000), record(8000), record(8000)].concat();
    large[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let starts = [&[0; 200][..], &[5, 1, 0], &[0x80, 0x2e, 1, 3, 1], &broken, &record(20_000), &large];
    for bytes in starts {
        let mut stream = connect(proxy.addr());
        stream.write_all(bytes).unwrap();
        let End::Closed(said) = read_end(&mut stream) else { panic!("a reset: {bytes:?}") };
        // A fatal alert; for the bound that is our own, which rustls does not know of, the end.
        let fatal = matches!(said[..], [21, 3, 3, 0, 2, 2, _]);
        assert!(
            fatal || bytes == large && said == [21, 3, 3, 0, 2, 1, 0],
            "{said:?} to {} bytes",
            bytes.len()
        );
    }
    wait_for("a line for each", || {
        (proxy.daemon.count_log(&["Failed | reason=tls_failed"]) == starts.len()).then_some(())
    });
    proxy.daemon.wait_log(&["INFO", "127.0.0.1 => ? | Failed | reason=tls_failed sport=", "error="]);
}

#[test]
fn a_silent_client_and_a_slow_one_end_by_the_deadline() {
    let proxy = Proxy::start("timeout: {process: 400}");
    let hello = TlsClient::hello();
    for sent in [&[][..], &hello[..1], &hello[..hello.len() - 1], &hello[..]] {
        let begun = Instant::now();
        let mut stream = connect(proxy.addr());
        stream.write_all(sent).unwrap();
        read_end(&mut stream);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(8), "{took:?}");
    }
    wait_for("four lines", || {
        (proxy.daemon.count_log(&["Closed | reason=process_timeout"]) == 4).then_some(())
    });
    // The deadline of the handshake is not the request's.
    let mut client = proxy.client();
    assert_eq!(read_some(&mut client, 12), b"HTTP/1.1 408");
}

fn read_some(client: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_are_exact_past_slow_readers_both_ways() {
    let proxy = Proxy::start("");
    let (up, down) = (pattern(24 << 20, 3), pattern(24 << 20, 4));
    let (sent, expected) = (down.clone(), up.clone());
    // Reads the whole question, slowly at first, then answers.
    let origin = Origin::serve("127.0.0.1:0", move |mut stream: TcpStream| {
        thread::sleep(Duration::from_millis(500));
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == expected);
        stream.write_all(&sent).unwrap();
    });
    let mut client = proxy.tunnel(origin.addr);
    client.write_all(&up).unwrap();
    // A reader that rests lets everything between here and the server fill up.
    thread::sleep(Duration::from_millis(700));
    let mut got = Vec::new();
    let mut piece = vec![0; 100_000];
    while got.len() < down.len() {
        let n = client.read(&mut piece).unwrap();
        assert_ne!(n, 0, "the end after {} bytes", got.len());
        got.extend_from_slice(&piece[..n]);
    }
    assert!(got == down);
    // The server has closed: close_notify, not a bare end.
    assert_eq!(client.read(&mut piece).unwrap(), 0);
}

#[test]
fn a_client_that_ends_its_side_still_gets_the_answer() {
    let proxy = Proxy::start("");
    let origin = Origin::counts_then_answers("127.0.0.1:0");
    for notify in [true, false] {
        let mut client = proxy.tunnel(origin.addr);
        client.write_all(&pattern(300_000, 5)).unwrap();
        client.finish(notify);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "300000 bytes\n", "{notify}");
    }
    wait_for("both ends", || {
        (proxy.daemon.count_log(&["Closed | reason=finished", "sent=300000 received=13"]) == 2).then_some(())
    });
}

#[test]
fn what_is_wrong_with_certificates_is_found_before_a_start() {
    let check = |public: &str, private: &str, code: i32, words: &[&str]| {
        let output = run_on(&config(4131, public, private, ""), &["-f", "{}", "-v"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        for word in words {
            assert!(text(&output).contains(word), "{public} {private}: {}", text(&output));
        }
    };
    check("server.pem", "server.key", 0, &["https 127.0.0.1:4131"]);
    check("expired.pem", "server.key", 0, &["certs.serverPublic:", "has expired on 2021-01-31"]);
    check("server.pem", "other.key", 2, &["certs.serverPrivate:", "is not that of the certificate"]);
    check("nowhere.pem", "server.key", 2, &["certs.serverPublic:", "nowhere.pem` cannot be read"]);
    check("README.md", "server.key", 2, &["certs.serverPublic:", "holds no certificate in PEM form"]);
}

#[test]
fn a_key_that_the_daemons_user_cannot_read_again_is_found_before_a_start() {
    if !common::process::is_root() {
        return skip("needs root");
    }
    let dir = common::TempDir::new();
    let key = dir.0.join("server.key");
    std::fs::copy(certificate("server.key"), &key).unwrap();
    let config = format!("user: nobody\n{}", config(4131, "server.pem", "server.key", ""))
        .replace(certificate("server.key").to_str().unwrap(), key.to_str().unwrap());
    let mode = |mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o600);
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("server.key could not be read again at a reload"), "{}", text(&output));
    mode(0o644);
    // The other file is in a folder that may not be open to everybody.
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert!(!text(&output).contains("server.key could not"), "{}", text(&output));
}

#[test]
fn a_reload_takes_the_new_certificate_and_running_connections_stay() {
    let port = free_port();
    let dir = common::TempDir::new();
    let put = |name: &str| {
        for (kind, target) in [("pem", "live.pem"), ("key", "live.key")] {
            std::fs::copy(certificate(&format!("{name}.{kind}")), dir.0.join(target)).unwrap();
        }
    };
    put("server");
    let config = config(port, "server.pem", "server.key", "")
        .replace(&certificate("server").display().to_string(), &dir.0.join("live").display().to_string());
    // No rule asks for the first bytes.
    let config = config.replace("  - {dns: '*.blocked.example', action: deny}\n", "");
    assert!(config.contains("live.pem") && config.contains("live.key"), "{config}");
    let mut daemon = Daemon::start(&config, &[port]);
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    let origin = Origin::echo("127.0.0.1:0");
    let tunnel = || {
        let mut client = TlsClient::connect(proxy);
        let target = origin.addr;
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
        expect_bytes(&mut client, b"HTTP/1.1 200 Connection established\r\n\r\n");
        client
    };
    let mut old = tunnel();
    put("other");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log(&["Reloaded"]);
    let mut new = tunnel();
    assert_ne!(old.certificate(), new.certificate());
    for client in [&mut old, &mut new] {
        client.write_all(b"still there?").unwrap();
        expect_bytes(client, b"still there?");
    }
    // A key that does not fit changes nothing.
    std::fs::copy(certificate("server.key"), dir.0.join("live.key")).unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.wait_log(&["Not reloaded"]);
    assert_eq!(tunnel().certificate(), new.certificate());
    assert!(daemon.is_running());
}

#[test]
fn a_client_that_does_not_know_the_root_is_a_line_for_the_administrator() {
    if !have("curl") {
        return skip("needs curl");
    }
    let proxy = Proxy::start("");
    let output = Command::new("curl")
        .args(["-sS", "-m", "20", "--noproxy", "", "--proxy", &format!("https://127.0.0.1:{}", proxy.port)])
        .arg("http://127.0.0.1:9/")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(60), "{}", text(&output));
    let line = proxy.daemon.wait_log(&["Failed | reason=tls_failed"]);
    assert!(line.contains("UnknownCA"), "{line}");
}

#[test]
fn stopping_and_idling_say_goodbye() {
    let mut proxy = Proxy::start("timeout: {idle: 500}");
    let origin = HttpOrigin::start("127.0.0.1:0");
    let ask = |client: &mut TlsClient| {
        let addr = origin.addr();
        client.write_all(format!("HEAD http://{addr}/ HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(read_some(client, 12), b"HTTP/1.1 200");
    };
    let mut rest = Vec::new();
    let mut client = proxy.client();
    ask(&mut client);
    // An end without close_notify would be an error here.
    client.read_to_end(&mut rest).unwrap();
    proxy.daemon.wait_log(&["Closed | reason=idle"]);

    let mut client = proxy.client();
    ask(&mut client);
    assert!(proxy.daemon.stop().success());
    client.read_to_end(&mut rest).unwrap();
}

/// What rustls says first to `localhost`.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Signatures with a large key of RSA were made for everybody who asked before others got their turn.
#[test]
fn handshakes_let_others_through_and_a_large_key_is_warned_of() {
    const CLIENTS: usize = 100;
    if !have("openssl") {
        return skip("needs openssl");
    }
    let dir = common::TempDir::new();
    let (cert, key) = (dir.0.join("rsa.pem"), dir.0.join("rsa.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:4096", "-nodes", "-subj", "/CN=localhost", "-days", "30"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let (port, plain) = (free_port(), free_port());
    let config = format!(
        "listen:\n  - {{mode: https, ip6: [], port: {port}}}\n  - {{mode: http, ip6: [], port: {plain}}}\n\
         workers: 1\noutput: {{allowLocal: true}}\ntimeout: {{process: 60000}}\nlimits: {{perSource: 1000}}\n\
         certs: {{serverPublic: {}, serverPrivate: {}}}\nrules:\n  - {{action: accept}}\n",
        cert.display(),
        key.display()
    );
    let said = text(&run_on(&config, &["-f", "{}", "-v"]));
    assert!(said.contains("a key of RSA with 4096 bits") && said.contains("ECDSA P-256"), "{said}");

    let daemon = Daemon::start(&config, &[port, plain]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut tunnel = common::client::tunnel(("127.0.0.1", plain), &origin.addr.to_string());
    let idle = daemon.descriptors();
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(("127.0.0.1", port))).collect();
    wait_for("all to be accepted", || (daemon.descriptors() >= idle + CLIENTS).then_some(()));

    // All of them speak at the same moment, whoever is in the tunnel last.
    daemon.signal(libc::SIGSTOP);
    let hello = client_hello();
    for client in &mut clients {
        client.write_all(&hello).unwrap();
    }
    tunnel.write_all(b"is anybody there?").unwrap();
    daemon.signal(libc::SIGCONT);
    let mut back = [0; 17];
    while tunnel.peek(&mut back).unwrap() < back.len() {}
    daemon.signal(libc::SIGSTOP);
    let is_answered = |client: &&mut TcpStream| {
        client.set_nonblocking(true).unwrap();
        client.peek(&mut [0]).is_ok()
    };
    let before = clients.iter_mut().filter(is_answered).count();
    daemon.signal(libc::SIGCONT);
    assert!(before < CLIENTS * 3 / 4, "{before} of {CLIENTS} handshakes came first");
    for client in &mut clients {
        client.set_nonblocking(false).unwrap();
        let mut first = [0];
        client.read_exact(&mut first).unwrap();
        assert_eq!(first, [22], "a handshake, no alert");
    }
}
