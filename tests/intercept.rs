//! Interception: real clients with the authority imported, what is decided inside, servers whose certificates are not good,
//! programs that accept no certificate but their own.
#![cfg(feature = "intercept")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use common::authority::Authority;
use common::client::{Http, expect_bytes, tunnel};
use common::daemon::{Daemon, run, text};
use common::origin::{HttpOrigin, Origin, Request, http_session, read_head};
use common::{Checksum, TempDir, free_port, have, pattern, skip};

type Server = StreamOwned<ServerConnection, TcpStream>;
type Client = StreamOwned<ClientConnection, TcpStream>;

fn vector(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/certificates").join(name)
}

/// A server for localhost with a certificate of `tests/vectors/certificates`.
fn origin(public: &str, alpn: &[&str], handler: impl Fn(&mut Server) + Send + Sync + 'static) -> Origin {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(vector(public)).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(vector("server.key")).unwrap();
    serve(chain, key, alpn, handler)
}

fn serve(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&str],
    handler: impl Fn(&mut Server) + Send + Sync + 'static,
) -> Origin {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    Origin::serve("127.0.0.1:0", move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = StreamOwned::new(session, stream);
        // A handshake that the other side breaks off is no request.
        if tls.conn.complete_io(&mut tls.sock).is_ok() {
            handler(&mut tls);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    })
}

/// Reads and writes one stream by two handles of a thread.
struct Halves<'a>(&'a std::cell::RefCell<&'a mut Server>);

impl Read for Halves<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Write for Halves<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// An HTTP/1.1 server that remembers its requests.
fn http_origin(alpn: &[&str]) -> (Origin, Arc<Mutex<Vec<Request>>>) {
    let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
    let log = Arc::clone(&requests);
    let origin = origin("server.pem", alpn, move |tls| {
        let cell = std::cell::RefCell::new(tls);
        http_session(&mut BufReader::new(Halves(&cell)), &mut Halves(&cell), &log);
    });
    (origin, requests)
}

fn echo(tls: &mut Server) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = tls.read(&mut buffer) {
        tls.write_all(&buffer[..n]).unwrap();
    }
}

/// The proxy, and the authority that its clients trust.
struct Proxy {
    daemon: Daemon,
    port: u16,
    ca: TempDir,
}

fn config(port: u16, ca: &Path, settings: &str, rules: &str) -> String {
    format!(
        "listen:\n  - {{mode: http, port: {port}}}\ndebug: true\noutput: {{allowLocal: true, retries: 0}}\n\
         certs:\n  interceptPublic: {ca}/ca.pem\n  interceptPrivate: {ca}/ca.key\n  caPublic: {roots}\n{settings}\n\
         rules:\n{rules}",
        ca = ca.display(),
        roots = vector("ca.pem").display()
    )
}

fn make_ca(dir: &Path) {
    let output = run(&["--make-ca", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}

impl Proxy {
    fn start(settings: &str, rules: &str) -> Proxy {
        Self::trusting(&vector("ca.pem"), settings, rules)
    }

    /// One that trusts these roots.
    fn trusting(roots: &Path, settings: &str, rules: &str) -> Proxy {
        let (port, ca) = (free_port(), TempDir::new());
        make_ca(&ca.0);
        let config = config(port, &ca.0, settings, rules)
            .replace(vector("ca.pem").to_str().unwrap(), roots.to_str().unwrap());
        Proxy { daemon: Daemon::start(&config, &[port]), port, ca }
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn ca(&self) -> PathBuf {
        self.ca.0.join("ca.pem")
    }

    /// A client inside of a CONNECT to `target`, which wants the server `name`, with TLS that stands.
    fn client(&self, target: SocketAddr, name: &str, alpn: &[&str]) -> io::Result<Client> {
        client(&self.ca(), tunnel(self.addr(), &target.to_string()), name, alpn)
    }

    fn curl(&self, origin: &Origin, args: &[&str]) -> Output {
        Command::new("curl")
            .args(["-sS", "-m", "20", "--noproxy", "", "--cacert", self.ca().to_str().unwrap()])
            .args(["--proxy", &format!("http://{}", self.addr())])
            // The name for TLS, the address for CONNECT: nothing is resolved.
            .args(["--connect-to", &format!("localhost:443:127.0.0.1:{}", origin.port())])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn client(roots: &Path, stream: TcpStream, name: &str, alpn: &[&str]) -> io::Result<Client> {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_file(roots).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

const INTERCEPT_ALL: &str = "  - {path: '/ads*', action: deny}\n  - {action: intercept}\n";

#[test]
fn curl_keeps_its_connection_and_a_denied_path_gets_403_inside_of_it() {
    if !have("curl") {
        return skip("no curl");
    }
    let proxy = Proxy::start("", INTERCEPT_ALL);
    for (alpn, version) in [(&["h2", "http/1.1"][..], "1.3"), (&[], "1.3"), (&["http/1.1"], "1.2")] {
        let (origin, requests) = http_origin(alpn);
        let output = proxy.curl(
            &origin,
            &[
                "--tls-max",
                version,
                "-w",
                " %{http_code} %{num_connects} %{http_version}\n",
                "https://localhost/one?x=1",
                "https://localhost/x/../%61ds/two",
                "https://localhost/three",
            ],
        );
        let said = text(&output);
        // The server would speak h2, but then nobody could tell the paths.
        let codes: Vec<&str> = said
            .lines()
            .filter_map(|line| line.rsplit_once(' ').map(|_| line))
            .filter(|l| l.ends_with(" 1.1"))
            .collect();
        let ends =
            codes.iter().map(|line| line.rsplitn(4, ' ').take(3).collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(ends, [["1.1", "1", "200"], ["1.1", "0", "403"], ["1.1", "0", "200"]], "{said}");
        assert!(said.contains("denied by the proxy's rules"), "{said}");
        let seen: Vec<String> = requests.lock().unwrap().iter().map(|request| request.line.clone()).collect();
        assert_eq!(seen, ["GET /one?x=1 HTTP/1.1", "GET /three HTTP/1.1"]);
        assert_eq!(origin.accepted(), 1);
    }
    proxy.daemon.wait_count(3, &["| Intercept | rule=1 ", "name=localhost"]);
    proxy.daemon.wait_count(3, &["| Denied | rule=0 ", "inside=http host=localhost path=/ads/two"]);
    proxy.daemon.wait_count(6, &["| Accept | rule=1 "]);
}

#[test]
fn the_certificate_is_the_authoritys_and_a_session_is_resumed() {
    if !have("openssl") {
        return skip("no openssl");
    }
    let proxy = Proxy::start("", INTERCEPT_ALL);
    let (origin, _) = http_origin(&["http/1.1"]);
    let session = proxy.ca.0.join("session");
    for version in ["-tls1_2", "-tls1_3"] {
        for (round, flag) in [("New", "-sess_out"), ("Reused", "-sess_in")] {
            let mut child = Command::new("timeout")
                .args(["20", "openssl", "s_client", "-proxy", &proxy.addr().to_string()])
                .args(["-connect", &origin.addr.to_string(), "-servername", "localhost"])
                .args(["-verify_return_error", "-verify_hostname", "localhost", "-ign_eof", version])
                .args(["-CAfile", proxy.ca().to_str().unwrap(), flag, session.to_str().unwrap()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            child.stdin.take().unwrap().write_all(request).unwrap();
            let said = text(&child.wait_with_output().unwrap());
            assert!(said.contains("HTTP/1.1 200 "), "{version} {round}: {said}");
            assert!(said.contains(&format!("{round}, TLSv1.")), "{version} {round}: {said}");
            if round == "New" {
                assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
                assert!(said.contains("CN = calamary ") && said.contains("CN = localhost"), "{said}");
            }
        }
    }
}

#[test]
fn a_client_of_the_https_proxy_has_tls_inside_of_tls() {
    let (port, ca) = (free_port(), TempDir::new());
    make_ca(&ca.0);
    let certs = format!(
        "  serverPublic: {}\n  serverPrivate: {}\n",
        vector("server.pem").display(),
        vector("server.key").display()
    );
    let config = config(port, &ca.0, "", INTERCEPT_ALL)
        .replace("mode: http,", "mode: https,")
        .replace("certs:\n", &format!("certs:\n{certs}"));
    let daemon = Daemon::start(&config, &[port]);
    let origin = origin("server.pem", &["http/1.1"], |tls| {
        let cell = std::cell::RefCell::new(tls);
        let mut reader = BufReader::new(Halves(&cell));
        while let Some(request) = Request::read(&mut reader) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            Halves(&cell).write_all(head.as_bytes()).unwrap();
            Halves(&cell).write_all(&request.body).unwrap();
        }
    });
    let sent = ca.write("sent", pattern(5_000_000, 11));
    let output = Command::new("curl")
        .args(["-sS", "-m", "30", "--noproxy", "", "--cacert", ca.0.join("ca.pem").to_str().unwrap()])
        .args(["--proxy", &format!("https://localhost:{port}"), "--proxy-cacert"])
        .args([vector("ca.pem").to_str().unwrap(), "-H", "Expect:", "--data-binary"])
        .args([&format!("@{}", sent.display()), "-w", " %{http_code}\n"])
        .args([
            "-o",
            ca.0.join("received").to_str().unwrap(),
            &format!("https://localhost:{}/one", origin.port()),
        ])
        .args(["-o", "/dev/null", &format!("https://localhost:{}/ads", origin.port())])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        " 200\n 403\n",
        "{}\n{}",
        text(&output),
        daemon.log()
    );
    assert_eq!(std::fs::read(ca.0.join("received")).unwrap(), std::fs::read(sent).unwrap());
    daemon.wait_log(&["| Denied | rule=0 ", "inside=http host=localhost path=/ads"]);
}

#[test]
fn python_talks_through_it() {
    if !have("python3") {
        return skip("no python3");
    }
    let proxy = Proxy::start("", INTERCEPT_ALL);
    let (origin, requests) = http_origin(&["http/1.1"]);
    let script = "import http.client, ssl, sys\n\
        c = ssl.create_default_context(cafile=sys.argv[1])\n\
        h = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[2]), context=c, timeout=20)\n\
        h.set_tunnel('127.0.0.1', int(sys.argv[3]))\n\
        for path in ['/a', '/ads', '/b']:\n\
        \x20 h.request('POST', path, body=b'x' * 70000)\n\
        \x20 r = h.getresponse()\n\
        \x20 r.read()\n\
        \x20 print(path, r.status)\n\
        \x20 h.close() if r.getheader('Connection') == 'close' else None\n";
    let output = Command::new("python3")
        .args(["-c", script, proxy.ca().to_str().unwrap()])
        .args([proxy.port.to_string(), origin.port().to_string()])
        .output()
        .unwrap();
    assert_eq!(text(&output), "/a 200\n/ads 403\n/b 200\n");
    let bodies: Vec<usize> = requests.lock().unwrap().iter().map(|request| request.body.len()).collect();
    assert_eq!(bodies, [70_000, 70_000]);
    // Without SNI the certificate is the address's.
    proxy.daemon.wait_log(&["| Accept | rule=1 ", "inside=http path=/b"]);
}

#[test]
fn http_2_is_offered_only_where_nobody_asks_what_is_in_it() {
    let rules = "  - {dns: localhost, path: '/ads*', action: deny}\n  - {protoL7: none, action: deny}\n  - {action: intercept}\n";
    let proxy = Proxy::start("", rules);
    let check = |served: &[&str], offered: &[&str], name: &str, want: Option<&str>| {
        let origin = origin("server.pem", served, echo);
        let client = proxy
            .client(origin.addr, name, offered)
            .map(|client| client.conn.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned()));
        assert_eq!(client.unwrap().as_deref(), want, "{served:?} {offered:?} {name}");
    };
    let both = &["h2", "http/1.1"];
    check(both, both, "localhost", Some("http/1.1"));
    check(both, both, "127.0.0.1", Some("h2"));
    check(both, &["http/1.1"], "127.0.0.1", Some("http/1.1"));
    check(&["http/1.1"], both, "127.0.0.1", Some("http/1.1"));
    check(&[], both, "127.0.0.1", None);

    // What is HTTP/2 goes through as it is.
    let origin = origin("server.pem", both, echo);
    let mut h2 = proxy.client(origin.addr, "127.0.0.1", both).unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    expect_bytes(&mut h2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    proxy.daemon.wait_log(&["| Accept | rule=2 ", "inside=h2"]);
    // Also where nobody said what it is, but then the rules come first.
    let mut hidden = proxy.client(origin.addr, "localhost", &[]).unwrap();
    hidden.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(hidden.read(&mut [0; 10]).unwrap(), 0);
    proxy.daemon.wait_log(&["| Denied | rule=default ", "inside=h2"]);
    let mut other = proxy.client(origin.addr, "127.0.0.1", &[]).unwrap();
    other.write_all(b"\0\x01 what is this\n").unwrap();
    assert_eq!(other.read(&mut [0; 10]).unwrap(), 0);
    proxy.daemon.wait_log(&["| Denied | rule=1 ", "inside=none"]);
}

#[test]
fn nginx_and_curl_speak_http_2_through_it() {
    if !have("nginx") || !have("curl") {
        return skip("no nginx or curl");
    }
    let proxy = Proxy::start("", "  - {action: intercept}\n");
    let (dir, port) = (TempDir::new(), free_port());
    dir.write("page", pattern(3_000_000, 7));
    let nginx = format!(
        "daemon off; pid {dir}/pid; error_log {dir}/log; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};\n\
         uwsgi_temp_path {dir}; scgi_temp_path {dir};\n\
         server {{ listen 127.0.0.1:{port} ssl http2; root {dir}; ssl_certificate {public};\n\
         ssl_certificate_key {private}; }} }}\n",
        dir = dir.0.display(),
        public = vector("server.pem").display(),
        private = vector("server.key").display(),
    );
    let path = dir.write("nginx.conf", nginx);
    let mut server =
        Command::new("nginx").args(["-c", path.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
    let output = Command::new("curl")
        .args(["-sS", "-m", "30", "--http2", "--cacert", proxy.ca().to_str().unwrap(), "--parallel"])
        .args(["--proxy", &format!("http://{}", proxy.addr()), "-w", "%{http_version} %{size_download}\n"])
        .args(["-o", "/dev/null", &format!("https://localhost:{port}/page")])
        .args(["-o", "/dev/null", &format!("https://localhost:{port}/page")])
        .output()
        .unwrap();
    common::process::signal(server.id(), libc::SIGTERM);
    server.wait().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 3000000\n2 3000000\n", "{}", text(&output));
}

#[test]
fn a_websocket_goes_on_as_a_tunnel_and_a_refused_one_as_http() {
    let proxy = Proxy::start("", INTERCEPT_ALL);
    let origin = origin("server.pem", &["http/1.1"], |tls| {
        loop {
            let cell = std::cell::RefCell::new(&mut *tls);
            let mut reader = BufReader::with_capacity(1, Halves(&cell));
            let Some(head) = read_head(&mut reader) else { return };
            drop(reader);
            let lower = head.to_lowercase();
            assert!(lower.contains("connection: upgrade") && lower.contains("upgrade: websocket"), "{head}");
            if head.starts_with("GET /refused") {
                tls.write_all(b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno").unwrap();
                continue;
            }
            tls.write_all(
                b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            )
            .unwrap();
            return echo(tls);
        }
    });
    let mut client = proxy.client(origin.addr, "localhost", &["http/1.1"]).unwrap();
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
        )
    };
    client.write_all(ask("/refused").as_bytes()).unwrap();
    expect_bytes(&mut client, b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno");
    // Nothing was switched: what follows is still decided.
    client.write_all(ask("/ads").as_bytes()).unwrap();
    expect_bytes(&mut client, b"HTTP/1.1 403 ");
    let mut reader = BufReader::new(&mut client);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    line.clear();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "denied by the proxy's rules\n");
    drop(reader);
    client.write_all(ask("/ws").as_bytes()).unwrap();
    expect_bytes(
        &mut client,
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    );
    // Not even what looks like a request is one any more.
    client.write_all(b"\x81\x05first GET /ads HTTP/1.1\r\n\r\n").unwrap();
    expect_bytes(&mut client, b"\x81\x05first GET /ads HTTP/1.1\r\n\r\n");
}

#[test]
fn large_bodies_arrive_as_they_were_sent_both_ways_at_once() {
    const SIZE: usize = 6 << 20;
    let proxy = Proxy::start("", "  - {action: intercept}\n");
    let origin = origin("server.pem", &["http/1.1"], |tls| {
        let cell = std::cell::RefCell::new(&mut *tls);
        let mut reader = BufReader::with_capacity(1, Halves(&cell));
        read_head(&mut reader).unwrap();
        drop(reader);
        tls.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).unwrap();
        let (mut left, mut buffer) = (SIZE, vec![0; 60_000]);
        while left > 0 {
            let n = tls.read(&mut buffer).unwrap();
            tls.write_all(&buffer[..n]).unwrap();
            left -= n;
        }
    });
    let mut client = proxy.client(origin.addr, "localhost", &["http/1.1"]).unwrap();
    client
        .write_all(format!("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
        .unwrap();
    let (sent, mut received, mut buffer) = (pattern(SIZE, 3), Checksum::new(), vec![0; 100_000]);
    expect_bytes(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 6291456\r\n\r\n");
    for piece in sent.chunks(32_000) {
        client.write_all(piece).unwrap();
        let mut echoed = 0;
        while echoed < piece.len() {
            let n = client.read(&mut buffer).unwrap();
            received.add(&buffer[..n]);
            echoed += n;
        }
    }
    assert_eq!(received, Checksum::of(&sent));
}

#[test]
fn a_server_with_a_bad_certificate_is_never_hidden() {
    let proxy = Proxy::start("", "  - {action: intercept}\n");
    let own = common::tls::certificate();
    let key = || PrivateKeyDer::try_from(own.key_der.clone()).unwrap();
    let self_signed = serve(vec![own.cert_der.clone().into()], key(), &[], echo);
    let (good, expired) = (origin("server.pem", &[], echo), origin("expired.pem", &[], echo));
    let no_tls = HttpOrigin::start("127.0.0.1:0");
    let check = |target: SocketAddr, name: &str, log: &str| {
        let error = proxy.client(target, name, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{name}: {error}");
        proxy.daemon.wait_log(&["INFO", &format!("{target} | Failed | reason={log}")]);
    };
    check(self_signed.addr, "example.com", "bad_certificate");
    proxy.daemon.wait_log(&["Failed", "name=example.com error=self_signed"]);
    check(expired.addr, "localhost", "bad_certificate");
    proxy.daemon.wait_log(&["Failed", "name=localhost error=expired"]);
    check(good.addr, "www.example.com", "bad_certificate");
    proxy.daemon.wait_log(&["Failed", "name=www.example.com error=wrong_name"]);
    check(no_tls.addr(), "localhost", "server_tls_failed");
    assert!(proxy.client(good.addr, "localhost", &[]).is_ok());
}

#[test]
fn every_kind_of_server_is_served_or_refused_for_what_it_is() {
    let authority = Authority::new();
    let proxy = Proxy::trusting(&authority.root(), "timeout: {connect: 700}", "  - {action: intercept}\n");
    let name = "www.example.com";
    let serve = |tls: Arc<ServerConfig>| {
        Origin::serve("127.0.0.1:0", move |stream| {
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream);
            let mut buffer = [0; 16];
            while let Ok(n @ 1..) = tls.read(&mut buffer) {
                let _ = tls.write_all(&buffer[..n]);
            }
        })
    };
    let works = |tls: Arc<ServerConfig>| {
        let origin = serve(tls);
        let mut client = proxy.client(origin.addr, name, &[]).unwrap();
        client.write_all(b"hello").unwrap();
        expect_bytes(&mut client, b"hello");
    };
    let fails = |origin: Origin, log: &str| {
        let error = proxy.client(origin.addr, name, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{log}: {error}");
        proxy.daemon.wait_log(&[&format!("{} | Failed | reason={log}", origin.addr)]);
    };
    let incomplete = || authority.issue(name).without_intermediate().server();
    let only = |version, clients| authority.issue(name).server_of(&[version], clients);
    // Before anybody knows the intermediate.
    fails(serve(incomplete()), "bad_certificate");
    works(only(&rustls::version::TLS12, None));
    works(only(&rustls::version::TLS13, None));
    works(incomplete());
    for bad in
        [authority.not_yet_valid(name), authority.issue("other.example.com"), Authority::new().issue(name)]
    {
        fails(serve(bad.server()), "bad_certificate");
    }
    fails(Origin::silent("127.0.0.1:0"), "server_tls_failed");
    // Who wants to know the client hears nothing from us: with TLS 1.2 within the handshake, with 1.3 behind it.
    let root = authority.root();
    fails(serve(only(&rustls::version::TLS12, Some(&root))), "server_tls_failed");
    let origin = serve(only(&rustls::version::TLS13, Some(&root)));
    let mut client = proxy.client(origin.addr, name, &[]).unwrap();
    assert!(client.read(&mut [0; 1]).is_err());
    proxy.daemon.wait_log(&[&format!("{} | Closed | reason=server_reset", origin.addr)]);
}

#[test]
fn a_hundred_clients_of_one_cold_name_get_one_certificate_and_cause_one_probe() {
    let authority = Authority::new();
    let rules = "  - {cert: invalid, action: deny}\n  - {action: intercept}\n";
    let proxy =
        Proxy::trusting(&authority.root(), "workers: 4\ntimeout: {process: 20000, connect: 20000}", rules);
    let tls = authority.issue("www.example.com").server();
    let origin = Origin::serve("127.0.0.1:0", move |stream| {
        // All of them are there before the first is served.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let _ = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream).read(&mut [0; 1]);
    });
    let shown: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let client = proxy.client(origin.addr, "www.example.com", &[]).unwrap();
                    client.conn.peer_certificates().unwrap()[0].to_vec()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(shown.iter().all(|certificate| *certificate == shown[0]));
    assert_eq!(origin.accepted(), 101);
}

#[test]
fn who_accepts_no_certificate_of_ours_is_let_through_the_next_time_if_that_is_wanted() {
    let check = |settings: &str, lets_through: bool| {
        let proxy = Proxy::start(settings, INTERCEPT_ALL);
        let (origin, _) = http_origin(&["http/1.1"]);
        // It knows the server's own authority and nobody else.
        let pinned = || {
            let stream = tunnel(proxy.addr(), &origin.addr.to_string());
            client(&vector("ca.pem"), stream, "localhost", &["http/1.1"])
        };
        assert!(pinned().is_err());
        proxy.daemon.wait_log(&["Failed | reason=tls_failed", "name=localhost", "UnknownCA"]);
        assert_eq!(pinned().is_ok(), lets_through, "{settings}");
        if lets_through {
            proxy.daemon.wait_log(&["| Accept | rule=1 ", "name=localhost"]);
        }
        // Another name is another matter.
        let stream = tunnel(proxy.addr(), &origin.addr.to_string());
        assert!(client(&vector("ca.pem"), stream, "127.0.0.1", &[]).is_err());
    };
    check("", false);
    check("interceptFallback: true", true);
}

#[test]
fn only_the_names_of_the_rule_are_intercepted() {
    let rules = "  - {dns: '.example.com', action: intercept}\n  - {action: accept}\n";
    let proxy = Proxy::start("", rules);
    let origin = origin("server.pem", &[], echo);
    let stream = tunnel(proxy.addr(), &origin.addr.to_string());
    let mut untouched = client(&vector("ca.pem"), stream, "localhost", &[]).unwrap();
    untouched.write_all(b"as it is").unwrap();
    expect_bytes(&mut untouched, b"as it is");
}

#[test]
fn a_server_may_speak_first_inside_and_both_ends_may_close_by_halves() {
    let proxy = Proxy::start("", "  - {action: intercept}\n");
    let origin = origin("server.pem", &[], |tls| {
        tls.write_all(b"220 welcome\r\n").unwrap();
        let mut said = Vec::new();
        let _ = tls.read_to_end(&mut said);
        tls.write_all(format!("you said {}", said.len()).as_bytes()).unwrap();
    });
    let mut client = proxy.client(origin.addr, "localhost", &[]).unwrap();
    expect_bytes(&mut client, b"220 welcome\r\n");
    client.write_all(&pattern(100_000, 5)).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    common::origin::finish(&client.sock);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "you said 100000");

    // It may also say all that it has to say while nobody knows what the client will speak.
    let brief = self::origin("server.pem", &[], |tls| tls.write_all(b"the time is now\r\n").unwrap());
    let mut client = proxy.client(brief.addr, "localhost", &[]).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "the time is now\r\n");
}

#[test]
fn a_reload_takes_another_authority_and_no_key_is_ever_logged() {
    let proxy = Proxy::start("", "  - {action: intercept}\n");
    let origin = origin("server.pem", &[], echo);
    proxy.client(origin.addr, "localhost", &[]).unwrap();
    let other = TempDir::new();
    make_ca(&other.0);
    for name in ["ca.pem", "ca.key"] {
        std::fs::rename(other.0.join(name), proxy.ca.0.join(name)).unwrap();
    }
    assert!(proxy.client(origin.addr, "localhost", &[]).is_err());
    proxy.daemon.signal(libc::SIGHUP);
    proxy.daemon.wait_log(&["Reloaded"]);
    proxy.client(origin.addr, "localhost", &[]).unwrap();
    let key = std::fs::read_to_string(proxy.ca.0.join("ca.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!proxy.daemon.log().contains(secret));
}

#[test]
fn a_process_with_an_authoritys_key_lets_nobody_read_its_memory() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    const NOBODY: u32 = 65534;
    if !common::process::is_root() || !have("setpriv") {
        return skip("not root or no setpriv");
    }
    let (port, ca) = (free_port(), TempDir::new());
    make_ca(&ca.0);
    for name in ["", "ca.key"] {
        std::fs::set_permissions(ca.0.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let owner = |rules: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", common::daemon::PROGRAM]);
        let daemon = Daemon::start_by(command, &config(port, &ca.0, "", rules), &[port]);
        std::fs::metadata(format!("/proc/{}/mem", daemon.pid())).unwrap().uid()
    };
    // The kernel takes such a process's files in /proc away from its user.
    assert_eq!(owner("  - {action: accept}\n"), NOBODY);
    assert_eq!(owner("  - {action: intercept}\n"), 0);
}

#[test]
fn paths_are_known_to_an_http_proxy_too() {
    let proxy = Proxy::start(
        "",
        "  - {host: '.blocked.example', action: deny}\n  - {path: '/ads*', action: deny}\n  - {action: accept}\n",
    );
    let origin = HttpOrigin::start("127.0.0.1:0");
    let mut client = Http::connect(proxy.addr());
    let mut ask = |path: &str| {
        let authority = origin.addr();
        client.ask(format!("GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).status
    };
    assert_eq!([ask("/"), ask("/%41ds/x"), ask("/a?/ads")], [200, 403, 200]);
}
