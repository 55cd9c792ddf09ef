//! What the daemon shows: metrics with the documented names and labels, log lines to the byte.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::SocketAddr;

use common::client::{Http, Response, connect_via_proxy_header, expect_bytes, read_end};
use common::daemon::Daemon;
use common::origin::{HttpOrigin, Origin, finish};
use common::tls::{Hello, hello};
use common::{free_port, wait_for};

struct Shown {
    daemon: Daemon,
    proxy: SocketAddr,
    metrics: SocketAddr,
}

fn start(settings: &str) -> Shown {
    let (port, metrics) = (free_port(), free_port());
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\noutput: {{allowLocal: true}}\n\
         metrics: {{enabled: true, port: {metrics}}}\n{settings}\n\
         rules:\n  - {{dns: '*.blocked.example', action: deny}}\n  - {{port: 1, action: deny}}\n  - {{action: accept}}\n"
    );
    Shown {
        daemon: Daemon::start(&config, &[port, metrics]),
        proxy: SocketAddr::from(([127, 0, 0, 1], port)),
        metrics: SocketAddr::from(([127, 0, 0, 1], metrics)),
    }
}

impl Shown {
    fn get(&self, path: &str) -> Response {
        Http::connect(self.metrics)
            .ask(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.metrics))
    }

    /// The value of a line of /metrics, name and labels as printed.
    fn value(&self, line: &str) -> Option<u64> {
        let text = self.get("/metrics").text();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))?;
        Some(value.parse::<f64>().unwrap() as u64)
    }

    fn expect(&self, line: &str, value: u64) {
        common::wait_for_at_most(common::PATIENCE, || (self.value(line) == Some(value)).then_some(()))
            .unwrap_or_else(|| panic!("{line} is not {value}:\n{}", self.get("/metrics").text()));
    }

    /// A whole session: what is sent comes back.
    fn session(&self, origin: &Origin, bytes: &[u8]) {
        let mut stream = connect_via_proxy_header(self.proxy, origin.addr);
        stream.write_all(bytes).unwrap();
        expect_bytes(&mut stream, bytes);
        finish(&stream);
        let _ = read_end(&mut stream);
    }
}

#[test]
fn the_metrics_have_the_documented_names_and_labels() {
    let shown = start("");
    let (four, six) = (Origin::echo("127.0.0.1:0"), Origin::echo("[::1]:0"));
    let tls = hello("www.example.com");
    let http = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    shown.session(&four, &tls);
    shown.session(&six, &tls);
    shown.session(&four, http);
    let mut denied = connect_via_proxy_header(shown.proxy, four.addr);
    denied.write_all(&hello("x.blocked.example")).unwrap();
    let _ = read_end(&mut denied);

    let relayed = (tls.len() * 2 + http.len()) as u64;
    for (line, value) in [
        ("calamary_bytes_sent", relayed),
        ("calamary_bytes_rcv", relayed),
        ("calamary_current_connections", 0),
        ("calamary_req_tcp", 4),
        ("calamary_req_protoL3{protocol=\"IPv4\"}", 3),
        ("calamary_req_protoL3{protocol=\"IPv6\"}", 1),
        ("calamary_req_protoL5{protocol=\"TLS\"}", 3),
        ("calamary_req_protoL5{protocol=\"HTTP\"}", 1),
        ("calamary_req_tls_version{version=\"1.3\"}", 3),
        ("calamary_req_tls_version{version=\"none\"}", 1),
        ("calamary_rule_actions{action=\"accept\"}", 3),
        ("calamary_rule_actions{action=\"deny\"}", 1),
        // Rule 0 was looked at for every connection, the others for those that it did not deny.
        ("calamary_rule_hits{ruleId=\"0\"}", 4),
        ("calamary_rule_hits{ruleId=\"1\"}", 3),
        ("calamary_rule_hits{ruleId=\"2\"}", 3),
        ("calamary_rule_matches{ruleId=\"0\"}", 1),
        ("calamary_rule_matches{ruleId=\"2\"}", 3),
    ] {
        shown.expect(line, value);
    }

    // A running session counts.
    let mut running = connect_via_proxy_header(shown.proxy, four.addr);
    running.write_all(&tls).unwrap();
    expect_bytes(&mut running, &tls);
    shown.expect("calamary_current_connections", 1);
    drop(running);
    shown.expect("calamary_current_connections", 0);
}

#[test]
fn the_built_in_rule_has_its_own_label_and_no_label_is_chosen_by_a_client() {
    let shown = start("");
    let mut stream = connect_via_proxy_header(shown.proxy, shown.proxy);
    let _ = read_end(&mut stream);
    shown.expect("calamary_rule_matches{ruleId=\"always\"}", 1);
    let origin = Origin::echo("127.0.0.1:0");
    shown.session(&origin, &hello("chosen-by-a-client.example.com"));
    let text = shown.get("/metrics").text();
    assert!(!text.contains("chosen-by-a-client"), "{text}");
    // Well-formed: a name, labels, one number; every family has its TYPE.
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(name.starts_with("calamary_") || name.starts_with("process_"), "{line}");
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
    }
}

#[test]
fn healthz_answers_and_nothing_else_is_there() {
    let shown = start("");
    assert_eq!(shown.get("/healthz").status, 200);
    assert_eq!(shown.get("/nothing").status, 404);
    let post =
        Http::connect(shown.metrics).ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(post.status, 404 | 405), "{}", post.status);
}

/// `2023-10-01 23:43:01 | INFO | `, and nothing else in front.
fn check_line(line: &str) {
    let shape: String = line.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{line}");
    let level = line[19..].strip_prefix(" | ").and_then(|l| l.split(" | ").next()).unwrap_or_default();
    assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
}

#[test]
fn verdict_lines_are_as_documented() {
    let shown = start("");
    let origin = Origin::echo("127.0.0.1:0");
    shown.session(&origin, &hello("www.example.com"));
    let line = shown.daemon.wait_log(&["Accept", "proto=tls"]);
    let expected = format!(
        " | INFO | 192.0.2.7 => {} | Accept | rule=2 sport=51234 proto=tls name=www.example.com tls=1.3 alpn=h2,http/1.1 ja4=t13d",
        origin.addr
    );
    assert_eq!(line.get(19..19 + expected.len()), Some(expected.as_str()), "{line}");

    shown.session(&origin, b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
    let line = shown.daemon.wait_log(&["Accept", "proto=http"]);
    assert!(!line.contains("name="), "the Host is no name: {line}");

    let six = Origin::echo("[::1]:0");
    shown.session(&six, &hello("www.example.com"));
    shown.daemon.wait_log(&[&format!("| 2001:db8::7 => [::1]:{} | Accept", six.port())]);

    let mut denied = connect_via_proxy_header(shown.proxy, "127.0.0.1:1".parse().unwrap());
    let _ = read_end(&mut denied);
    // Whatever the name turned out to be, rule 0 or rule 1 would deny: it is the first of them, before any byte.
    let line = shown.daemon.wait_log(&["=> 127.0.0.1:1 | Denied"]);
    assert!(line.ends_with(" | 192.0.2.7 => 127.0.0.1:1 | Denied | rule=0 sport=51234"), "{line}");
    shown.daemon.log().lines().for_each(check_line);
    assert_eq!(shown.daemon.find_log(&["| DEBUG |"]), None);
}

#[test]
fn extensions_of_the_hello_stand_in_the_line_when_present() {
    let shown = start("");
    let origin = Origin::echo("127.0.0.1:0");
    // An outer ECH extension: type 0, suites, config id, enc, payload.
    let ech = [0u8, 0, 1, 0, 1, 7, 0, 2, 1, 2, 0, 4, 1, 2, 3, 4];
    let with = Hello {
        name: Some("www.example.com"),
        extra: &[(0xfe0d, &ech), (0xffce, &[0; 30])],
        ..Hello::default()
    };
    shown.session(&origin, &with.record());
    shown.daemon.wait_log(&["Accept", "ech=grease", "esni=yes"]);
}

#[test]
fn bytes_that_could_forge_a_line_are_escaped() {
    let shown = start("");
    let origin = Origin::echo("127.0.0.1:0");
    shown.session(&origin, &hello("a|b%c d\u{e9}\n2023-01-01 00:00:00 | INFO | forged"));
    let line = shown.daemon.wait_log(&["name=a%7cb%25c%20d%c3%a9%0a2023"]);
    check_line(&line);
    assert_eq!(shown.daemon.find_log(&["| forged"]), None);
    shown.daemon.log().lines().for_each(check_line);
}

#[test]
fn debug_lines_name_their_module_and_the_end_of_a_session() {
    let shown = start("debug: true");
    let origin = Origin::echo("127.0.0.1:0");
    let bytes = hello("www.example.com");
    shown.session(&origin, &bytes);
    let line = shown.daemon.wait_log(&["| DEBUG |", "Closed | reason=finished"]);
    assert!(line.contains(&format!("sent={0} received={0} ms=", bytes.len())), "{line}");
    let module = line.split(" | ").nth(2).unwrap();
    assert!(module.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
    shown.daemon.log().lines().for_each(check_line);
}

#[test]
fn the_end_of_a_refused_session_says_what_was_refused() {
    let shown = start("debug: true");
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = connect_via_proxy_header(shown.proxy, origin.addr);
    stream.write_all(&hello("www.blocked.example")).unwrap();
    let line = shown.daemon.wait_log(&["Closed | reason=denied"]);
    check_line(&line);
    assert!(line.contains(&format!("=> {} |", origin.addr)), "{line}");
    assert!(line.contains("name=www.blocked.example"), "{line}");
}

/// A denied request leaves the connection usable; when it then ends, the request was still its last one.
#[test]
fn the_end_of_a_kept_connection_says_what_was_asked_for_last() {
    let port = free_port();
    let origin = HttpOrigin::start("127.0.0.1:0");
    let config = format!(
        "debug: true\nlisten:\n  - {{mode: http, port: {port}}}\noutput: {{allowLocal: true}}\n\
         timeout: {{process: 300}}\nrules:\n  - {{port: 81, action: deny}}\n  - {{action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    let served = (format!("http://{}/", origin.addr()), 200, format!("=> {} |", origin.addr()));
    let denied = ("http://127.0.0.9:81/".to_string(), 403, "=> 127.0.0.9:81 |".to_string());
    // Behind the last answer the client says nothing, or begins a request that it never ends.
    for rest in ["", "GET "] {
        for asked in [&[&denied][..], &[&served, &denied], &[&denied, &served], &[&denied, &denied]] {
            let mut client = Http::connect(("127.0.0.1", port));
            let sport = client.stream().local_addr().unwrap().port();
            for (url, status, _) in asked {
                let answer = client.ask(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n"));
                assert_eq!(answer.status, *status);
            }
            client.send(rest);
            if rest.is_empty() {
                drop(client);
            }
            let line = daemon.wait_log(&["Closed | reason=", &format!("sport={sport} ")]);
            check_line(&line);
            assert!(
                line.contains(&asked.last().unwrap().2) && line.contains("proto=http"),
                "{rest:?} {line}"
            );
        }
    }
}

#[test]
fn json_lines_are_objects_with_the_same_facts() {
    let shown = start("log: {format: json}");
    let origin = Origin::echo("127.0.0.1:0");
    shown.session(&origin, &hello("www.example.com"));
    let line = shown.daemon.wait_log(&["www.example.com"]);
    for line in shown.daemon.log().lines() {
        // JSON is YAML.
        let object: serde_yaml::Mapping =
            serde_yaml::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line.starts_with('{') && line.ends_with('}') && !object.is_empty(), "{line}");
    }
    let object: serde_yaml::Mapping = serde_yaml::from_str(&line).unwrap();
    let values: Vec<String> = object
        .values()
        .map(|v| serde_yaml::to_string(v).unwrap().trim().trim_matches(['\'', '"']).to_string())
        .collect();
    for value in ["Accept", "192.0.2.7", "www.example.com", "51234", "tls"] {
        assert!(values.iter().any(|v| v == value), "no {value:?} in {line}");
    }
    for key in ["rule", "name"] {
        assert!(object.contains_key(key), "no {key:?} in {line}");
    }
}

/// A socket where the daemon, and nobody else, finds `/dev/log`; a reload leads from there to standard output and back.
#[test]
fn syslog_gets_the_lines_and_the_target_follows_a_reload() {
    if !(common::process::is_root() && common::have("unshare")) {
        return common::skip("needs root and unshare");
    }
    let dir = common::TempDir::new();
    let dev = dir.0.display();
    let syslog = std::os::unix::net::UnixDatagram::bind(dir.0.join("log")).unwrap();
    syslog.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let receive = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let len = syslog.recv(&mut buffer).unwrap_or_else(|e| panic!("no line with {word:?}: {e}"));
            let line = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if line.contains(word) {
                return line;
            }
        }
    };
    let port = free_port();
    let config = |log: &str| {
        format!(
            "listen:\n  - {{mode: proxyproto, port: {port}}}\nlog: {{{log}}}\noutput: {{allowLocal: true}}\n\
             rules:\n  - {{action: accept}}\n"
        )
    };
    let mut daemon = Daemon::spawn_after(
        &format!("touch {dev}/null && mount --bind /dev/null {dev}/null && mount --bind {dev} /dev"),
        &config("target: syslog"),
    );
    daemon.wait_listening(&[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let session = || {
        let mut stream = connect_via_proxy_header(("127.0.0.1", port), origin.addr);
        stream.write_all(b"x").unwrap();
        expect_bytes(&mut stream, b"x");
    };

    // RFC 3164: facility daemon and severity info, the time, the program; then the line without a time of its own.
    session();
    let line = receive("Accept");
    let expected = format!(
        " calamary[{}]: INFO | 192.0.2.7 => {} | Accept | rule=0 sport=51234",
        daemon.pid(),
        origin.addr
    );
    assert!(line.starts_with("<30>") && line.ends_with(&expected), "{line}");
    assert_eq!(daemon.log(), "", "both targets");

    daemon.reload(&config("target: stdout"));
    daemon.wait_log(&["Reloaded"]);
    session();
    check_line(&daemon.wait_log(&["Accept"]));

    daemon.reload(&config("target: syslog, format: json"));
    receive("Reloaded");
    session();
    let line = receive("Accept");
    let json = line.split_once("]: ").unwrap().1;
    let object: serde_yaml::Mapping = serde_yaml::from_str(json).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(object.contains_key("rule"), "{line}");
    assert_eq!(daemon.count_log(&["Accept"]), 1);
}

#[test]
fn the_log_is_in_the_local_time_of_tz() {
    let port = free_port();
    let dir = common::TempDir::new();
    let config = dir.write(
        "config.yml",
        format!("listen:\n  - {{mode: http, port: {port}}}\ndebug: true\nrules:\n  - {{action: deny}}\n"),
    );
    let hour = |tz: &str| {
        let log = dir.0.join("log");
        let mut child = std::process::Command::new(common::daemon::PROGRAM)
            .arg("-f")
            .arg(&config)
            .env("TZ", tz)
            .stdout(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        wait_for("the daemon", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        let _ = Http::connect(("127.0.0.1", port)).ask("GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n");
        let line = wait_for("a line", || {
            let text = std::fs::read_to_string(&log).unwrap();
            text.lines().find(|l| l.contains("Denied")).map(str::to_string)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        line[11..13].parse::<i32>().unwrap()
    };
    // POSIX: the offset's sign is west-positive. Twelve hours apart whatever the clock says, give or take a full hour.
    let apart = (hour("AAA-6") - hour("BBB6")).rem_euclid(24);
    assert!((11..=13).contains(&apart), "{apart}");
}
