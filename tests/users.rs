//! Listeners with users: who comes in, who does not, who is slowed, and what nobody ever reads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::client::{Http, ask_once};
use common::daemon::{Daemon, run, text};
use common::origin::HttpOrigin;
use common::{free_port, have, skip, wait_for};

/// `password` as `calamary --hash-password` hashes it.
fn hash(password: &str) -> String {
    let output = hash_password(format!("{password}\n").as_bytes());
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn hash_password(input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_calamary"))
        .arg("--hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The value of a Proxy-Authorization field.
fn basic(name: &str, password: &str) -> String {
    use base64ct::{Base64, Encoding};
    format!("Basic {}", Base64::encode_string(format!("{name}:{password}").as_bytes()))
}

struct Proxy {
    daemon: Daemon,
    port: u16,
    metrics: u16,
    origin: HttpOrigin,
}

const ACCEPT: &str = "  - {action: accept}\n";

impl Proxy {
    /// `users` is the value of the listener's key.
    fn start(users: &str, rules: &str) -> Proxy {
        let (port, metrics) = (free_port(), free_port());
        let config = config(port, metrics, users, rules);
        let daemon = Daemon::start_with(&config, &[port, metrics], &["-d"]);
        Proxy { daemon, port, metrics, origin: HttpOrigin::start("127.0.0.1:0") }
    }

    fn reload(&self, users: &str, rules: &str) {
        let before = self.daemon.count_log(&["eloaded:"]);
        self.daemon.reload(&config(self.port, self.metrics, users, rules));
        wait_for("the reload", || (self.daemon.count_log(&["eloaded:"]) > before).then_some(()));
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A request for the origin with these credentials, which may be none.
    fn request(&self, credentials: Option<(&str, &str)>) -> String {
        let field = credentials
            .map(|(name, password)| format!("Proxy-Authorization: {}\r\n", basic(name, password)))
            .unwrap_or_default();
        format!("GET http://{}/x HTTP/1.1\r\nHost: x\r\n{field}\r\n", self.origin.addr())
    }

    fn status(&self, name: &str, password: &str) -> u16 {
        ask_once(self.addr(), self.request(Some((name, password)))).status
    }

    fn counted(&self, result: &str) -> u64 {
        let answer = Http::connect(("127.0.0.1", self.metrics))
            .ask("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let line = format!("calamary_authentications{{result=\"{result}\"}} ");
        let page = answer.text();
        page.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or_else(|| panic!("{page}")).parse().unwrap()
    }
}

fn config(port: u16, metrics: u16, users: &str, rules: &str) -> String {
    format!(
        "listen:\n  - {{mode: http, port: {port}, users: {users}}}\noutput: {{allowLocal: true, retries: 0}}\n\
         metrics: {{enabled: true, port: {metrics}}}\nrules:\n{rules}"
    )
}

fn alice() -> String {
    format!("{{alice: {}}}", hash("open sesame"))
}

#[test]
fn curl_comes_in_with_credentials_and_not_without() {
    if !have("curl") {
        return skip("needs curl");
    }
    let proxy = Proxy::start(&alice(), ACCEPT);
    let url = format!("http://{}/x", proxy.origin.addr());
    let curl = |args: &[&str]| {
        let via = format!("http://{}", proxy.addr());
        let args = [&["-sS", "-m", "20", "-w", "%{http_code}/%{http_connect}", "-x", &via], args].concat();
        text(&Command::new("curl").args(&args).arg(&url).output().unwrap())
    };
    for tunnel in [&[][..], &["-p"]] {
        let with = |more: &[&str]| curl(&[tunnel, more].concat());
        let inside = |said: String| said.contains("GET /x HTTP/1.1") && said.contains("200/");
        assert!(inside(with(&["-U", "alice:open sesame"])), "{tunnel:?}");
        // Asked first, as clients that do not know the scheme do: the same connection is used again.
        assert!(inside(with(&["--proxy-anyauth", "-U", "alice:open sesame"])), "{tunnel:?}");
        for wrong in [&[][..], &["-U", "alice:close sesame"], &["-U", "bob:open sesame"], &["-U", "alice:"]] {
            let said = with(wrong);
            assert!(said.contains("407") && !said.contains("GET /x"), "{tunnel:?} {wrong:?}: {said}");
        }
    }
    for request in proxy.origin.requests() {
        assert_eq!(request.count("proxy-authorization"), 0, "the origin hears of it");
    }
}

#[test]
fn every_request_of_a_kept_connection_is_asked() {
    let proxy = Proxy::start(&alice(), "  - {user: alice, action: accept}\n");
    let mut http = Http::connect(proxy.addr());
    let answer = http.ask(proxy.request(None));
    assert_eq!(answer.status, 407);
    assert_eq!(answer.header("proxy-authenticate"), Some("Basic realm=\"calamary\", charset=\"UTF-8\""));
    assert_eq!(answer.header("connection"), None, "it can be used again");
    assert_eq!(http.ask(proxy.request(Some(("alice", "open sesame")))).status, 200);
    assert_eq!(http.ask(proxy.request(Some(("alice", "wrong")))).status, 407);
    assert_eq!(http.ask(proxy.request(None)).status, 407);
    assert_eq!(http.ask(proxy.request(Some(("alice", "open sesame")))).status, 200);
    proxy.daemon.wait_log(&["| Accept |", " user=alice "]);
    proxy.daemon.signal(10);
    proxy.daemon.wait_log(&["| Live | mode=http rule=0 ", " user=alice "]);
    drop(http);
    proxy.daemon.wait_log(&["| Closed | reason=finished ", " user=alice "]);
}

#[test]
fn a_password_is_hashed_once() {
    let proxy = Proxy::start(&alice(), ACCEPT);
    for _ in 0..20 {
        assert_eq!(proxy.status("alice", "open sesame"), 200);
    }
    assert_eq!((proxy.counted("right"), proxy.counted("remembered")), (1, 19));
    assert_eq!(proxy.status("alice", "wrong"), 407);
    assert_eq!((proxy.counted("right"), proxy.counted("wrong")), (1, 1));
}

#[test]
fn who_tries_often_is_slowed_and_nobody_else() {
    if !have("curl") {
        return skip("needs curl");
    }
    let proxy = Proxy::start(&alice(), ACCEPT);
    assert_eq!(proxy.status("alice", "open sesame"), 200);
    // Another source on loopback. Five tries are free, before the two others are 250 and 500 ms.
    let started = Instant::now();
    let via = format!("http://{}", proxy.addr());
    let guessing: Vec<_> = (0..7)
        .map(|i| {
            let guess = format!("alice:guess{i}");
            let url = format!("http://{}/x", proxy.origin.addr());
            let args =
                ["-sS", "-m", "20", "--interface", "127.0.0.2", "-o", "/dev/null", "-x", &via, "-U", &guess];
            let code = ["-w", "%{http_code}", &url];
            Command::new("curl").args(args).args(code).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    // Who is known is served at once, also from there.
    let mut served = 0;
    while served < 20 {
        assert_eq!(proxy.status("alice", "open sesame"), 200);
        served += 1;
    }
    for child in guessing {
        assert_eq!(text(&child.wait_with_output().unwrap()), "407");
    }
    assert!(started.elapsed() >= Duration::from_millis(750), "{:?}", started.elapsed());
    assert_eq!(proxy.counted("wrong"), 7);
    // A line a second at most.
    let lines = proxy
        .daemon
        .count_log(&["| WARN | 127.0.0.2 => ? | Unauthenticated | credentials=wrong", "user=alice"]);
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s");
}

#[test]
fn a_reload_reads_the_file_again() {
    let dir = common::TempDir::new();
    let path = dir.write("users", format!("# who\nalice:{}\n\nbob:{}\n", hash("one"), hash("other")));
    let value = path.display().to_string();
    let proxy = Proxy::start(&value, ACCEPT);
    proxy.daemon.wait_log(&["| WARN |", "can be read by everybody"]);
    let mut kept = Http::connect(proxy.addr());
    assert_eq!(kept.ask(proxy.request(Some(("alice", "one")))).status, 200);
    assert_eq!(proxy.status("bob", "other"), 200);

    dir.write("users", format!("alice:{}\n", hash("two")));
    proxy.reload(&value, ACCEPT);
    assert_eq!(kept.ask(proxy.request(Some(("alice", "one")))).status, 407);
    assert_eq!(kept.ask(proxy.request(Some(("alice", "two")))).status, 200);
    assert_eq!(proxy.status("alice", "one"), 407);
    assert_eq!(proxy.status("bob", "other"), 407);

    dir.write("users", "alice:two\n");
    proxy.reload(&value, ACCEPT);
    let line = proxy.daemon.wait_log(&["| ERROR |", "users:1: the hash of `alice` is no hash"]);
    assert!(!line.contains("two"), "{line}");
    assert_eq!(proxy.status("alice", "two"), 200, "the old ones stay");
}

#[test]
fn nothing_of_a_password_is_logged() {
    let proxy = Proxy::start(&alice(), "  - {user: alice, action: accept}\n");
    let evil = "x | INFO\u{1b}[31m";
    for (name, password) in
        [("alice", "open sesame"), ("alice", "Pa55word"), (evil, "Pa55word"), ("Pa:55", "word")]
    {
        let mut http = Http::connect(proxy.addr());
        http.ask(proxy.request(Some((name, password))));
        http.ask(proxy.request(Some((name, password))));
    }
    // Broken heads, too.
    for head in ["GET http://x/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n", "GET / HTTP/9\r\n", "\0 x HTTP/1.1\r\n"]
    {
        ask_once(proxy.addr(), format!("{head}Proxy-Authorization: {}\r\n\r\n", basic("alice", "Pa55word")));
    }
    proxy.daemon.wait_log(&["Unauthenticated", "user=alice"]);
    wait_for("the closing lines", || (proxy.daemon.count_log(&["| Closed |"]) >= 7).then_some(()));
    proxy.daemon.signal(10);
    proxy.daemon.reload("listen: [");
    proxy.daemon.wait_log(&["| ERROR |"]);
    let log = proxy.daemon.log();
    for secret in
        ["sesame", "Pa55word", "word", &basic("alice", "Pa55word")["Basic ".len()..], "$6$", "\u{1b}"]
    {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}

#[test]
fn a_hashed_password_comes_in_and_goes_round() {
    let proxy = Proxy::start(&format!("{{Änne: {}}}", hash("pässwörd")), ACCEPT);
    assert_eq!(proxy.status("Änne", "pässwörd"), 200);
    assert_eq!(proxy.status("änne", "pässwörd"), 407);
    assert_ne!(hash("same"), hash("same"), "salted");

    let empty = hash_password(b"\n");
    assert_eq!((empty.status.code(), empty.stdout.len()), (Some(2), 0), "{}", text(&empty));
    let long = hash_password(&[b'x'; 300]);
    assert_eq!((long.status.code(), long.stdout.len()), (Some(2), 0), "{}", text(&long));

    if !have("openssl") {
        return skip("needs openssl");
    }
    let hash = hash("pässwörd");
    let (prefix, _) = hash.rsplit_once('$').unwrap();
    let salt = prefix.strip_prefix("$6$").unwrap();
    let made = Command::new("openssl").args(["passwd", "-6", "-salt", salt, "pässwörd"]).output().unwrap();
    assert_eq!(text(&made).trim(), hash);
}

#[test]
fn a_terminal_is_asked_twice_and_shows_nothing() {
    if !have("script") {
        return skip("needs script");
    }
    let ask = |typed: &[&str]| {
        // script(1) gives the program a terminal; what the program says comes back with what that terminal echoes.
        let mut child = Command::new("script")
            .args(["-qec", &format!("{} --hash-password", env!("CARGO_BIN_EXE_calamary")), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut terminal = child.stdin.take().unwrap();
        let mut said = Vec::new();
        let mut output = child.stdout.take().unwrap();
        for (question, line) in ["Password: ", "Again: "].iter().zip(typed) {
            while !String::from_utf8_lossy(&said).contains(question) {
                let mut byte = [0];
                std::io::Read::read_exact(&mut output, &mut byte).expect("the question");
                said.push(byte[0]);
            }
            // The echo is off before the answer counts: what is typed earlier is thrown away.
            std::thread::sleep(Duration::from_millis(300));
            terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        std::io::Read::read_to_end(&mut output, &mut said).unwrap();
        child.wait().unwrap();
        String::from_utf8(said).unwrap()
    };
    let said = ask(&["tip-toe", "tip-toe"]);
    assert!(said.contains("$6$rounds=5000$") && !said.contains("tip-toe"), "{said}");
    let said = ask(&["tip-toe", "tiptoe"]);
    assert!(said.contains("two different passwords") && !said.contains("$6$"), "{said}");
}

#[test]
fn an_interrupted_question_leaves_the_terminal_as_it_was() {
    if !have("script") {
        return skip("needs script");
    }
    // The shell is interrupted, too, and goes on.
    let program = env!("CARGO_BIN_EXE_calamary");
    let shell = format!("trap : INT; {program} --hash-password; echo \"status $?\"; stty -a; echo over");
    let mut child = Command::new("script")
        .args(["-qec", &shell, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut terminal, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = Vec::new();
    let mut hear = |word: &str| {
        while !String::from_utf8_lossy(&said).contains(word) {
            let mut byte = [0];
            std::io::Read::read_exact(&mut output, &mut byte).expect("more to be said");
            said.push(byte[0]);
        }
        String::from_utf8_lossy(&said).into_owned()
    };
    hear("Password: ");
    std::thread::sleep(Duration::from_millis(300));
    terminal.write_all(b"half a pass\x03").unwrap();
    let said = hear("over");
    drop(terminal);
    child.wait().unwrap();
    assert!(said.contains("status 130") && !said.contains("half a pass"), "{said}");
    assert!(said.contains(" echo ") && !said.contains("-echo "), "{said}");
}

#[test]
fn why_knows_users() {
    let port = free_port();
    let config = config(
        port,
        free_port(),
        &alice(),
        "  - {user: [bob, alice], action: accept}\n  - {user: none, action: deny}\n",
    );
    let dir = common::TempDir::new();
    let path = dir.write("config.yml", config);
    let check = |facts: &str, status: i32, words: &str| {
        let output = run(&["-f", path.to_str().unwrap(), "--why", facts]);
        assert_eq!(output.status.code(), Some(status), "{facts}: {}", text(&output));
        assert!(text(&output).contains(words), "{facts}: {}", text(&output));
    };
    check("dest=203.0.113.5 user=Alice", 0, "user Alice is alice");
    check("dest=203.0.113.5 user=mallory", 3, "user mallory not in bob, alice");
    check("dest=203.0.113.5 user=none", 3, "user is none");
    check("dest=203.0.113.5", 4, "hangs on user");
}
