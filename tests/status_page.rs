//! The status page at the metrics' port: who gets it, what it says, and how it looks in a real browser.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg(feature = "metrics")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::client::{Http, Response, connect_via_proxy_header, expect_bytes, read_end};
use common::daemon::{Daemon, text};
use common::lab::{Lab, ROUTER4};
use common::origin::Origin;
use common::tls::hello;
use common::{TempDir, free_port, have, skip, wait_for};

/// Names as a client may send them.
fn hostile() -> [String; 4] {
    [
        "<script>document.title='owned'</script>".to_owned(),
        "\u{202e}elpmaxe.\u{645}\u{648}\u{642}\u{639}".to_owned(),
        "x".repeat(255),
        "\"><img src=x onerror=alert(1)>&amp;\\".to_owned(),
    ]
}

struct House {
    daemon: Daemon,
    port: u16,
    /// Keeps its sessions open.
    _live: Vec<TcpStream>,
    _origin: Origin,
}

const METRICS: u16 = 9512;

/// A daemon whose clients were denied things, and one of whom is still there.
fn house(settings: &str) -> House {
    let port = free_port();
    let list = TempDir::new();
    let ads = list.write("ads.txt", "||ads.example^\n0.0.0.0 tracker.example\n198.51.100.0/24\n");
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\noutput: {{allowLocal: true}}\n{settings}\n\
         devices: {{'<b>Küche</b>': '192.0.2.7'}}\nvars:\n  - {{name: ads, file: '{}'}}\n\
         rules:\n  - {{dns: $ads, action: deny}}\n  - {{device: nobody, action: accept}}\n  - {{port: 9, action: deny}}\n  \
         - {{dns: .live.example, action: accept}}\n  - {{protoL5: tls, action: deny}}\n  - {{action: accept}}\n",
        ads.display()
    );
    let daemon = Daemon::start(&config, &[port]);
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let origin = Origin::echo("127.0.0.1:0");
    let mut denied: Vec<String> = hostile().into();
    denied.extend(["www.ads.example", "WWW.ads.example", "www.ads.example"].map(str::to_owned));
    for name in denied {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(&hello(&name)).unwrap();
        let _ = read_end(&mut stream);
    }
    let live = ["a.live.example".to_owned(), format!("{}.live.example", "y".repeat(60))].map(|name| {
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        let hello = hello(&name);
        stream.write_all(&hello).unwrap();
        expect_bytes(&mut stream, &hello);
        stream
    });
    House { daemon, port, _live: live.into(), _origin: origin }
}

fn get(metrics: SocketAddr, path: &str, host: &str) -> Response {
    Http::connect(metrics).ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// What Python's JSON parser, which is nobody's of ours, takes out of a document.
fn python(document: &str, expression: &str) -> String {
    let program = format!("import json, sys\ns = json.load(sys.stdin)\nprint({expression})");
    let mut child = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{document}", text(&output));
    text(&output).trim().to_owned()
}

#[test]
fn the_document_says_what_the_program_does() {
    if !have("python3") {
        return skip("needs python3");
    }
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let house = house(&format!("metrics: {{enabled: true, port: {}}}", metrics.port()));
    let document = wait_for("both sessions", || {
        let document = get(metrics, "/status.json", &metrics.to_string()).text();
        (python(&document, "len(s['sessions'])") == "2").then_some(document)
    });
    for (expression, want) in [
        ("s['open'], s['connections'], s['verdicts']['deny'], s['verdicts']['accept']", "2 9 7 2".to_owned()),
        ("s['denied']['names'][0]", "{'name': 'www.ads.example', 'count': 3}".to_owned()),
        ("len(s['denied']['names'])", "5".to_owned()),
        ("s['denied']['devices']", "[{'name': '<b>k%c3%bcche</b>', 'count': 7}]".to_owned()),
        ("'x' * 255 in [n['name'] for n in s['denied']['names']]", "True".to_owned()),
        ("[r['matches'] for r in s['rules']]", "[3, 0, 0, 2, 4, 0, 0, 0, 0, 0]".to_owned()),
        ("s['rules'][0]['asks'], s['rules'][0]['action']", "dns deny".to_owned()),
        ("s['lists'][0]['list'], s['lists'][0]['names'], s['lists'][0]['ranges']", "ads 2 1".to_owned()),
        ("sorted(r['name'] for r in s['sessions'])[0]", "a.live.example".to_owned()),
        (
            "{r['verdict'] + r['rule'] + r['device'] for r in s['sessions']}",
            "{'Accept3<b>k%c3%bcche</b>'}".to_owned(),
        ),
        ("s['history']['interval'] * s['history']['samples']", "3600".to_owned()),
        ("s['memory'] > 100000 and s['uptime'] >= 0 and s['moreSessions'] == 0", "True".to_owned()),
    ] {
        assert_eq!(python(&document, expression), want, "{expression}\n{document}");
    }
    assert!(document.is_ascii());
    drop(house);
}

#[test]
fn only_those_who_know_the_machine_get_it() {
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: http, ip6: [], port: {port}}}\nmetrics: {{enabled: true, port: {}}}\nrules: [{{action: deny}}]\n",
        metrics.port()
    );
    let _daemon = Daemon::start(&config, &[port, metrics.port()]);
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for path in ["/", "/status", "/status.json"] {
        for (host, status) in [
            (metrics.to_string().as_str(), 200),
            ("localhost", 200),
            (own.trim(), 200),
            ("rebound.example", 421),
            (&format!("rebound.example:{}", metrics.port()), 421),
            ("127.0.0.1.rebound.example", 421),
        ] {
            let response = get(metrics, path, host);
            assert_eq!(response.status, status, "{path} {host}");
            if status == 200 {
                assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
                assert_eq!(response.header("cache-control"), Some("no-store"));
                assert_eq!(response.header("access-control-allow-origin"), None);
            } else {
                assert!(!response.text().contains("version"), "{}", response.text());
            }
        }
    }
    let page = get(metrics, "/", "localhost");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; connect-src 'self'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text().ends_with("</html>\n"));
    // It only shows.
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request =
            format!("{method} /status.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(Http::connect(metrics).ask(request).status, 405);
    }
}

#[test]
fn without_metrics_nothing_is_there() {
    let metrics = free_port();
    let house = house(&format!("metrics: {{enabled: false, port: {metrics}}}"));
    assert!(TcpStream::connect(("127.0.0.1", metrics)).is_err());
    assert!(!house.daemon.listens_on(metrics));
    // A proxy's port is no way to it either.
    let mut stream = TcpStream::connect(("127.0.0.1", house.port)).unwrap();
    stream.write_all(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    assert!(got.is_empty(), "{got:?}");
}

/// Chromium, once, on a page.
struct Browser<'a> {
    lab: &'a Lab,
    program: &'static str,
}

impl Browser<'_> {
    fn run(&self, flags: &str, url: &str) -> String {
        let home = TempDir::new();
        let output = self.lab.client.try_sh(&format!(
            "HOME={home} timeout 90 {} --headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars \
             --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
             --user-data-dir={home}/profile --virtual-time-budget=3000 {flags} {url}",
            self.program,
            home = home.0.display()
        ));
        text(&output)
    }

    fn screenshot(&self, path: &Path, width: u32, height: u32, flags: &str, url: &str) {
        let size = format!("--window-size={width},{height} --screenshot={} {flags}", path.display());
        let said = self.run(&size, url);
        let picture = std::fs::read(path).unwrap_or_else(|_| panic!("no picture: {said}"));
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{} bytes", picture.len());
    }
}

/// Where pictures are kept for somebody who wants to look at them.
fn pictures(dir: &TempDir) -> PathBuf {
    std::env::var_os("CALAMARY_PICTURES").map_or_else(|| dir.0.clone(), PathBuf::from)
}

/// The document as it would be three quarters of an hour later.
fn with_history(document: &str) -> String {
    let samples = |value: fn(u32) -> u32| {
        let samples: Vec<String> = (0..90).map(|n| value(n).to_string()).collect();
        format!("[{}]", samples.join(","))
    };
    let (sent, received) = (samples(|n| n * n * 40), samples(|n| (n * 7919 % 31) * 300_000));
    let sessions = samples(|n| 20 + n * 31 % 17);
    let later = document
        .replace("\"sent\":[]", &format!("\"sent\":{sent}"))
        .replace("\"received\":[]", &format!("\"received\":{received}"))
        .replace("\"sessions\":[]}", &format!("\"sessions\":{sessions}}}"));
    assert_ne!(later, document);
    later
}

/// Serves the page and its JSON as they were, and a frame as wide as a phone that measures it.
fn replica(page: String, document: String) -> Origin {
    const FRAME: &str = "<!doctype html><title>?</title><body style='margin:0'>\
        <iframe src=page style='border:0;width:360px;height:2600px'></iframe><script>\
        setTimeout(() => { const d = document.querySelector('iframe').contentDocument; const e = d.documentElement; \
        const wide = [...d.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > 360.5); \
        document.title = 'width ' + e.clientWidth + ' scrolls ' + e.scrollWidth + ' rows ' + d.querySelectorAll('tr').length \
        + ' points ' + [...d.querySelectorAll('polyline')].map(n => n.points.length).join() + ' over ' + wide.map(n => n.tagName).join(); }, 1500)</script>";
    Origin::serve("203.0.113.9:8080", move |stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let Some(request) = common::origin::Request::read(&mut reader) else { return };
        let (kind, body) = match request.line.split(' ').nth(1) {
            Some("/page") => ("text/html", page.as_str()),
            Some("/status.json") => ("application/json", document.as_str()),
            _ => ("text/html", FRAME),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
    })
}

#[test]
fn chromium_shows_it_on_a_phone_and_on_a_desk() {
    let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|p| have(p))
    else {
        return skip("needs chromium");
    };
    let Some(lab) = Lab::build_or_skip() else { return };
    let house =
        lab.router.run(|| house(&format!("metrics: {{enabled: true, ip: {ROUTER4}, port: {METRICS}}}")));
    let browser = Browser { lab: &lab, program };
    let url = format!("http://{ROUTER4}:{METRICS}/");
    let dom = browser.run("--dump-dom", &url);
    // The policy lets the script run, which puts everything into text.
    for shown in [
        "<bdi>&lt;script&gt;document.title='owned'&lt;/script&gt;</bdi>",
        "<bdi>%e2%80%aeelpmaxe.%d9%85%d9%88%d9%82%d8%b9</bdi>",
        "\"&gt;&lt;img%20src=x%20onerror=alert(1)&gt;&amp;amp;\\</bdi>",
        &format!("<bdi>{}</bdi>", "x".repeat(255)),
        "&lt;b&gt;küche&lt;/b&gt;",
        "<span class=\"never\">never</span>",
        "a.live.example",
        "<title>Calamary on ",
        "$ads",
    ] {
        assert!(dom.contains(shown), "{shown}\n{dom}");
    }
    assert_eq!(dom.matches("<script>").count(), 1, "{dom}");
    assert!(!dom.contains("<img") && !dom.contains("<b>") && !dom.contains("owned</title>"), "{dom}");

    let dir = TempDir::new();
    let kept = pictures(&dir);
    browser.screenshot(&kept.join("desk-light.png"), 1200, 1500, "", &url);
    let dark = "--blink-settings=preferredColorScheme=0";
    browser.screenshot(&kept.join("desk-dark.png"), 1200, 1500, dark, &url);

    // As wide as a phone, which no window of Chromium is: in a frame, which only a copy allows.
    let metrics: SocketAddr = format!("{ROUTER4}:{METRICS}").parse().unwrap();
    let (page, document) =
        lab.client.run(|| (get(metrics, "/", ROUTER4).text(), get(metrics, "/status.json", ROUTER4).text()));
    let _replica = lab.server.run(|| replica(page, with_history(&document)));
    let measured = browser.run("--dump-dom", "http://203.0.113.9:8080/");
    let title = measured.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let title = title.unwrap_or_else(|| panic!("{measured}"));
    assert!(title.starts_with("width 360 scrolls 360 rows "), "{title}");
    assert!(title.ends_with(" points 90,90,90 over ") && !title.contains("rows 0"), "{title}");
    browser.screenshot(&kept.join("phone-light.png"), 500, 2600, "", "http://203.0.113.9:8080/");
    browser.screenshot(&kept.join("phone-dark.png"), 500, 2600, dark, "http://203.0.113.9:8080/");
    drop(house);
}
