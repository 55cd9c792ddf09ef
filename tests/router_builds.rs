//! The programs that cross/build.sh made, each on the CPU that it is for: qemu-user emulates the CPU, the kernel and the
//! network are this machine's. What is asserted here is behaviour that another CPU, another libc or another clock could
//! change; all the rest is the other tests' business.
//!
//! CALAMARY_ROUTER_BUILDS is the folder that cross/build.sh wrote. Timings under emulation mean nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

use common::authority::Authority;
use common::client::{End, Http, connect, expect_bytes, proxy_v2, read_end, tunnel};
use common::daemon::{self, Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, CLIENT6, DNS4, Lab, SERVER4, SERVER6, at};
use common::origin::{Origin, finish};
use common::socks::{greeted, read_reply, request};
use common::tls::{ALERT_UNRECOGNIZED_NAME, hello};
use common::udp::{UdpClient, UdpServer, is_refusal_of, quic_flow};
use common::{TempDir, free_port, have, skip, wait_for};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What cross/build.sh can build for, the emulator, and the oldest of its CPUs that must do.
const CPUS: [(&str, &str, &str); 9] = [
    ("x86_64-unknown-linux-musl", "qemu-x86_64", "qemu64"),
    ("i686-unknown-linux-musl", "qemu-i386", "n270"),
    ("aarch64-unknown-linux-musl", "qemu-aarch64", "cortex-a53"),
    ("armv7-unknown-linux-musleabihf", "qemu-arm", "cortex-a7"),
    ("arm-unknown-linux-musleabi", "qemu-arm", "arm1136"),
    ("armv5te-unknown-linux-musleabi", "qemu-arm", "arm926"),
    ("mips-unknown-linux-musl", "qemu-mips", "24Kc"),
    ("mipsel-unknown-linux-musl", "qemu-mipsel", "24Kc"),
    ("riscv64gc-unknown-linux-musl", "qemu-riscv64", "rv64"),
];

/// The daemon as it was built for one CPU.
struct Build {
    triple: &'static str,
    emulator: &'static str,
    cpu: &'static str,
    program: PathBuf,
}

impl Build {
    fn is_emulated(&self) -> bool {
        let runs_on_x86_64 = self.triple.starts_with("x86_64") || self.triple.starts_with("i686");
        !(runs_on_x86_64 && cfg!(target_arch = "x86_64"))
    }

    /// The program on its CPU.
    fn command(&self) -> Command {
        if self.is_emulated() { self.emulated() } else { Command::new(&self.program) }
    }

    /// The program in an emulator, whatever this machine's CPU.
    fn emulated(&self) -> Command {
        let mut command = Command::new(self.emulator);
        command.args(["-cpu", self.cpu]).arg(&self.program);
        command
    }

    /// Runs it to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).stdin(Stdio::null()).output().unwrap()
    }
}

/// Every build that there is, or none: then this says why, loudly.
fn builds() -> Vec<Build> {
    let Some(folder) = std::env::var_os("CALAMARY_ROUTER_BUILDS").map(PathBuf::from) else {
        skip("set CALAMARY_ROUTER_BUILDS to the folder that cross/build.sh wrote");
        return Vec::new();
    };
    let builds: Vec<Build> = CPUS
        .map(|(triple, emulator, cpu)| Build {
            triple,
            emulator,
            cpu,
            program: folder.join(triple).join("calamary"),
        })
        .into_iter()
        .filter(|build| build.program.exists())
        .collect();
    assert!(!builds.is_empty(), "no builds in {}", folder.display());
    if let Some(missing) = builds.iter().find(|build| !have(build.emulator)) {
        skip(&format!("needs {} (Debian package qemu-user)", missing.emulator));
        return Vec::new();
    }
    builds
}

const RULES: &str = "
rules:
  - {dns: '*.blocked.example', action: deny}
  - {protoL5: tls, action: accept}
";

#[test]
fn what_it_prints_is_the_same_on_every_cpu() {
    let dir = TempDir::new();
    let good = dir.write("good.yml", format!("listen:\n  - {{mode: http, port: 4130}}\n{RULES}"));
    let bad = dir
        .write("bad.yml", "listen: [{mode: http, port: 99999}]\nrules: [{dest: 10.0.0.0/33, action: x}]\n");
    let [good, bad] = [&good, &bad].map(|path| path.to_str().unwrap());
    for build in builds() {
        for args in [
            &["-V"][..],
            &["--help"],
            &["--print-config"],
            &["-f", good, "-v"],
            &["-f", bad, "-v"],
            &[
                "-f",
                good,
                "--why",
                "src=192.168.1.20 dest=192.0.2.1 port=443 dns=a.blocked.example protoL5=tls",
            ],
            &["-f", good, "--why", "src=fd00::20 dest=2001:db8::1 port=443 dns=www.example.com protoL5=tls"],
        ] {
            let (here, there) = (daemon::run(args), build.run(args));
            assert_eq!(text(&there), text(&here), "{} {args:?}", build.triple);
            assert_eq!(there.status.code(), here.status.code(), "{} {args:?}", build.triple);
        }
        assert_eq!(build.run(&["-f", good, "-v"]).status.code(), Some(0), "{}", build.triple);
        assert_eq!(build.run(&["-f", bad, "-v"]).status.code(), Some(2), "{}", build.triple);
    }
}

/// A client whose hello names `name`: let through to an echoing server, or refused with the alert.
fn tls_session(to: &str, name: &str, allowed: bool) {
    let mut stream = connect(to);
    stream.write_all(&hello(name)).unwrap();
    if allowed {
        expect_bytes(&mut stream, &hello(name));
        // More than the relay copies before it splices.
        let bytes = common::pattern(300_000, 5);
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&bytes).unwrap();
                finish(&writer);
            });
            expect_bytes(&mut stream, &bytes);
        });
        assert_eq!(read_end(&mut stream), End::Closed(vec![]));
    } else {
        assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    }
}

/// qemu-user does not hand SO_ORIGINAL_DST on to the kernel: under it every redirected connection is one whose
/// destination was lost, which the name in its hello replaces. Where no emulator is needed, the nameserver isn't, either.
#[test]
fn redirected_sessions_are_let_through_or_refused_by_name() {
    const PORT: u16 = 4128;
    for build in builds() {
        let Some(lab) = Lab::build_or_skip() else { return };
        lab.redirect("443", PORT);
        let config = format!(
            "listen:\n  - {{mode: transparent, ip4: ['0.0.0.0'], ip6: ['::'], port: {PORT}}}\n\
             dnsNameservers: ['{DNS4}']\n{RULES}"
        );
        let daemon = lab.router.run(|| Daemon::start_by(build.command(), &config, &[PORT]));
        let names = lab.server.run(|| {
            NameServer::with(
                &at(DNS4, 53),
                &[("four.example.com", &[SERVER4]), ("six.example.com", &[SERVER6])],
            )
        });
        for (client, server, name) in
            [(CLIENT4, SERVER4, "four.example.com"), (CLIENT6, SERVER6, "six.example.com")]
        {
            let server = at(server, 443);
            let _origin = lab.server.run(|| Origin::echo(&server));
            lab.client.run(|| {
                tls_session(&server, name, true);
                tls_session(&server, "ads.blocked.example", false);
            });
            daemon.wait_log(&[
                &format!("=> {server} | Accept | rule=1"),
                &format!("proto=tls name={name} tls=1.3"),
            ]);
            daemon.wait_log(&[&format!("| {client} => "), "| Denied | rule=0", "name=ads.blocked.example"]);
        }
        assert_eq!(names.questions().is_empty(), !build.is_emulated(), "{}", build.triple);
    }
}

#[test]
fn the_daemon_serves_connect_counts_reloads_and_drains() {
    for build in builds() {
        let (port, metrics) = (free_port(), free_port());
        let config = format!(
            "listen:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true}}\ntimeout: {{drain: 15000}}\n\
             metrics: {{enabled: true, port: {metrics}}}\n{RULES}"
        );
        let mut daemon = Daemon::start_by(build.command(), &config, &[port, metrics]);
        let origin = Origin::echo("127.0.0.1:0");
        let tunnel = |name: &str| {
            let mut http = Http::connect(("127.0.0.1", port));
            http.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr));
            assert_eq!(http.head().status, 200);
            let mut stream = http.into_stream();
            stream.write_all(&hello(name)).unwrap();
            stream
        };
        let refused = |name| read_end(&mut tunnel(name)) == End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec());
        let mut running = tunnel("www.example.com");
        expect_bytes(&mut running, &hello("www.example.com"));
        assert!(refused("ads.blocked.example"), "{}", build.triple);

        let metrics =
            || Http::connect(("127.0.0.1", metrics)).ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").text();
        wait_for("the counters", || {
            let text = metrics();
            let has = |line: &str| text.lines().any(|l| l == line);
            (has("calamary_rule_actions{action=\"accept\"} 1")
                && has("calamary_rule_actions{action=\"deny\"} 1"))
            .then_some(())
        });

        daemon.reload("listen: [");
        daemon.wait_log(&["| ERROR |"]);
        daemon.reload(&config.replace("blocked", "example"));
        daemon.wait_log(&["Reloaded: 2 rules"]);
        assert!(refused("www.example.example"), "{}", build.triple);

        daemon.signal(libc::SIGTERM);
        wait_for("the listener to close", || (!daemon.listens_on(port)).then_some(()));
        assert!(daemon.is_running(), "it did not wait for the running session");
        running.write_all(b"last words").unwrap();
        expect_bytes(&mut running, b"last words");
        drop(running);
        let status = daemon.wait_exit(common::PATIENCE).expect("it did not stop");
        assert_eq!(status.code(), Some(0), "{}", build.triple);
    }
}

/// A way on which datagrams go through the proxy to one server, each behind the same bytes.
struct Way {
    socket: UdpClient,
    to: String,
    head: Vec<u8>,
    /// What ends the way when it ends.
    _control: Option<TcpStream>,
}

impl Way {
    fn by_socks(port: u16, server: SocketAddr) -> Way {
        let mut control = greeted(("127.0.0.1", port));
        control.write_all(&request(3, "0.0.0.0", 0)).unwrap();
        let (_, relay) = read_reply(&mut control);
        let target = request(0, &server.ip().to_string(), server.port());
        Way {
            socket: UdpClient::new("127.0.0.1"),
            to: relay.to_string(),
            head: [&[0; 3], &target[3..]].concat(),
            _control: Some(control),
        }
    }

    fn behind_headers(port: u16, server: SocketAddr) -> Way {
        let mut head = proxy_v2(1, "[2001:db8::7]:51234".parse().unwrap(), server, &[]);
        head[13] = 0x22; // for datagrams
        Way { socket: UdpClient::new("::1"), to: format!("[::1]:{port}"), head, _control: None }
    }

    /// Sends all of them, and hears one.
    fn say(&self, datagrams: &[Vec<u8>]) -> Vec<u8> {
        datagrams
            .iter()
            .for_each(|datagram| self.socket.send(&self.to, &[&self.head, &datagram[..]].concat()));
        self.socket.hear(&self.to).strip_prefix(&self.head[..]).expect("the same address").to_vec()
    }
}

/// The ways that an emulator can play: of TPROXY qemu-user knows no option, and of IPv4 not the one that tells where a
/// datagram was going, which a listener for PROXY headers asks for.
#[test]
fn quic_is_let_through_or_told_by_the_name_in_its_hello() {
    let (good, bad) = (quic_flow("aioquic-v1"), quic_flow("chromium"));
    for build in builds() {
        let (socks, introduced) = (free_port(), free_port());
        let config = format!(
            "listen:\n  - {{mode: socks5, udp: true, port: {socks}}}\n\
             \x20 - {{mode: proxyproto, udp: true, ip4: [], ip6: ['::1'], port: {introduced}}}\n\
             output: {{allowLocal: true}}\nrules:\n  - {{dns: quic.example.com, protoL5: quic, action: accept}}\n"
        );
        let daemon = Daemon::start_by(build.command(), &config, &[socks, introduced]);
        let by_socks: &dyn Fn(SocketAddr) -> Way = &|server| Way::by_socks(socks, server);
        for (way, server) in
            [(by_socks, "127.0.0.1:0"), (&|server| Way::behind_headers(introduced, server), "[::1]:0")]
        {
            let server = UdpServer::echo(server);
            assert!(is_refusal_of(&way(server.addr).say(&bad), &bad[0]), "{}", build.triple);
            assert!(way(server.addr).say(&good).ends_with(&good[0]), "{}", build.triple);
            wait_for("the whole flow", || (server.datagrams() == good).then_some(()));
            let to = server.addr;
            daemon.wait_log(&[&format!("=> {to} | Accept | rule=0"), "proto=quic name=quic.example.com"]);
            daemon.wait_log(&[&format!("=> {to} | Denied"), "proto=quic name=www.example.com"]);
        }
    }
}

/// A server that shakes hands, if the client does, and answers a request, if one comes.
fn tls_server(tls: Arc<ServerConfig>) -> Origin {
    Origin::serve("127.0.0.1:0", move |stream| {
        let session = ServerConnection::new(Arc::clone(&tls)).unwrap();
        let mut tls = StreamOwned::new(session, stream);
        if let Ok(1..) = tls.read(&mut [0; 4096]) {
            tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").unwrap();
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
    })
}

const JUDGED: &str = "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {cert: invalid, action: deny}\n  - {action: accept}\n";

/// The listener of a proxy that trusts nobody but the root.
fn judging(port: u16, root: &Path) -> String {
    format!(
        "listen:\n  - {{mode: http, port: {port}}}\ncerts: {{caPublic: {}}}\ntimeout: {{probe: 20000, process: 30000}}\n\
         output: {{allowLocal: true}}\n{JUDGED}",
        root.display()
    )
}

/// What the log says of a connection through the proxy at `port` whose hello names `name`: time, verdict, certificate.
fn judged(daemon: &Daemon, port: u16, server: &Origin, name: &str) -> (String, String) {
    let mut client: TcpStream = tunnel(("127.0.0.1", port), &server.addr.to_string());
    client.write_all(&hello(name)).unwrap();
    let sport = format!("sport={} ", client.local_addr().unwrap().port());
    let line = daemon.wait_log(&[&sport, &format!("=> {} ", server.addr)]);
    let word = line.split(" | ").nth(3).unwrap().to_owned();
    let cert = line.split(' ').filter(|word| word.starts_with("cert"));
    (cert.fold(word, |line, word| line + " " + word), line)
}

#[test]
fn servers_certificates_are_asked_for_and_judged() {
    const NAME: &str = "www.example.com";
    let (authority, strangers) = (Authority::new(), Authority::new());
    let servers = [
        (authority.issue(NAME), "Accept cert=valid"),
        (authority.expired(NAME), "Denied cert=invalid cert_reason=expired"),
        (authority.issue("other.example.com"), "Denied cert=invalid cert_reason=wrong_name"),
        (strangers.issue(NAME), "Denied cert=invalid cert_reason=untrusted"),
    ];
    let servers = servers.map(|(issued, expected)| (tls_server(issued.server()), expected));
    for build in builds() {
        let port = free_port();
        let daemon = Daemon::start_by(build.command(), &judging(port, &authority.root()), &[port]);
        for (server, expected) in &servers {
            assert_eq!(judged(&daemon, port, server, NAME).0, *expected, "{}", build.triple);
        }
    }
}

/// With an authority of its own making, as a client sees it that trusts this authority only.
#[test]
fn intercepted_requests_are_let_through_or_refused_by_path() {
    const NAME: &str = "www.example.com";
    if !have("curl") {
        return skip("needs curl");
    }
    let authority = Authority::new();
    let good = tls_server(authority.issue(NAME).server());
    let bad = tls_server(authority.expired(NAME).server());
    for build in builds() {
        let (port, ca) = (free_port(), TempDir::new());
        let dir = ca.0.display();
        let made = build.run(&["--make-ca", &dir.to_string()]);
        assert!(made.status.success(), "{}: {}", build.triple, text(&made));
        let config = format!(
            "listen:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true}}\n\
             certs: {{caPublic: {}, interceptPublic: {dir}/ca.pem, interceptPrivate: {dir}/ca.key}}\n\
             rules:\n  - {{path: '/ads*', action: deny}}\n  - {{action: intercept}}\n",
            authority.root().display()
        );
        let daemon = Daemon::start_by(build.command(), &config, &[port]);
        let status = |server: &Origin, path: &str| {
            let output = Command::new("curl")
                .args(["-sS", "-m", "60", "--noproxy", "", "-o", "/dev/null", "-w", "%{http_code}"])
                .args(["--cacert", &format!("{dir}/ca.pem"), "--proxy", &format!("http://127.0.0.1:{port}")])
                .args(["--connect-to", &format!("{NAME}:443:127.0.0.1:{}", server.port())])
                .arg(format!("https://{NAME}{path}"))
                .output()
                .unwrap();
            text(&output)
        };
        assert_eq!(status(&good, "/"), "200", "{}", build.triple);
        assert_eq!(status(&good, "/ads/1"), "403", "{}", build.triple);
        daemon.wait_log(&["| Accept | rule=1 ", "inside=http host=www.example.com path=/"]);
        daemon.wait_log(&["| Denied | rule=0 ", "inside=http host=www.example.com path=/ads/1"]);
        assert_ne!(status(&bad, "/"), "200", "{}", build.triple);
        daemon.wait_log(&["| Failed | reason=bad_certificate", "error=expired"]);
    }
}

/// On a router a tunnel that nobody uses for the moment must cost next to nothing. An emulator's memory is not the program's.
#[test]
fn two_hundred_idle_tunnels_cost_a_router_little() {
    const TUNNELS: u64 = 200;
    for build in builds().into_iter().filter(|build| !build.is_emulated()) {
        let port = free_port();
        let config = format!(
            "listen:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true}}\nworkers: 2\n{RULES}"
        );
        let daemon = Daemon::start_by(build.command(), &config, &[port]);
        let origin = Origin::echo("127.0.0.1:0");
        let tunnels: Vec<_> = (0..TUNNELS)
            .map(|_| {
                let mut stream = tunnel(("127.0.0.1", port), &origin.addr.to_string());
                stream.write_all(&hello("www.example.com")).unwrap();
                expect_bytes(&mut stream, &hello("www.example.com"));
                stream
            })
            .collect();
        let memory = daemon.memory_kib();
        assert!(memory < 3 * 1024, "{}: {memory} KiB with {} tunnels", build.triple, tunnels.len());
    }
}

/// The library that gives an emulated program another time of day.
fn clock_library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    if !have("cc") {
        skip("needs cc");
        return None;
    }
    let (_, path) = LIBRARY.get_or_init(|| {
        let dir = TempDir::new();
        let path = dir.0.join("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated/clock.c");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&path, &source])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        (dir, path)
    });
    Some(path)
}

/// A router without a battery starts in 1970; and 32 bits of seconds are full in 2038.
#[test]
fn clocks_beyond_2038_and_in_1970_are_shown_and_end_nothing() {
    const NAME: &str = "www.example.com";
    let Some(library) = clock_library() else { return };
    let authority = Authority::new();
    let now = tls_server(authority.issue(NAME).server());
    let until_2039 = tls_server(authority.issue_between(NAME, "20200101000000Z", "20390101000000Z").server());
    for (clock, date, verdicts) in [
        ("7200", "1970-01-01", ["Accept cert=unknown cert_reason=wrong_clock"; 2]),
        ("2209032000", "2040-01-01", ["Accept cert=valid", "Denied cert=invalid cert_reason=expired"]),
    ] {
        for build in builds() {
            let port = free_port();
            let command = || {
                let mut command = build.emulated();
                command.env("LD_PRELOAD", library).env("CALAMARY_TEST_CLOCK", clock).env("TZ", "UTC");
                command
            };
            let mut daemon = Daemon::start_by(command(), &judging(port, &authority.root()), &[port]);
            for (server, name, expected) in [
                (&now, NAME, verdicts[0]),
                (&until_2039, NAME, verdicts[1]),
                (&now, "ads.blocked.example", "Denied"),
            ] {
                let (verdict, line) = judged(&daemon, port, server, name);
                assert_eq!(verdict, expected, "{}", build.triple);
                assert!(line.starts_with(date), "{}: {line}", build.triple);
            }
            assert_eq!(daemon.stop().code(), Some(0), "{}", build.triple);
        }
    }
}
