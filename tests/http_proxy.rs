//! The HTTP proxy: requests in absolute form, CONNECT, what is refused and with which status.
//!
//! Names come from a nameserver of the test; every origin is on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::client::{End, Http, ask_once, connect, expect_bytes, read_end, tunnel, write_bytewise};
use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, CLIENT6, DNS4, Lab, ROUTER4, ROUTER6, SERVER4, SERVER6, at};
use common::origin::{HttpOrigin, Origin, finish};
use common::proxy::Proxy;
use common::tls::{ALERT_UNRECOGNIZED_NAME, Hello, HttpsOrigin, hello};
use common::{PATIENCE, free_port, have, skip, wait_for};

const ALL: &str = "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {action: accept}\n";

fn start(settings_and_rules: &str) -> Proxy {
    Proxy::start("http", settings_and_rules)
}

/// A browser whose proxy is `https://` by mistake waited for `timeout.process`, and the log said nothing.
#[test]
fn who_speaks_tls_or_socks_is_told_at_once() {
    let proxy = start(&format!("timeout: {{process: 60000}}\n{ALL}"));
    let starts = [hello("proxy.example"), vec![5, 1, 0], vec![4, 1, 0, 80, 127, 0, 0, 1, 0]];
    for start in &starts {
        let mut http = Http::connect(proxy.addr());
        http.send(start);
        let answer = http.response();
        assert_eq!(
            (answer.status, &*answer.text()),
            (400, "this port is an HTTP proxy, and that is no request\n")
        );
        assert!(http.is_closed());
    }
    proxy.daemon.wait_count(starts.len(), &["INFO", "Failed | reason=wrong_protocol", "mode=http"]);
}

/// Some clients send an empty line behind a body. It began the next request, so that the connection, had it been kept for
/// longer than `timeout.process`, ended with 408.
#[test]
fn an_empty_line_between_requests_ends_nothing() {
    let proxy = start(&format!("timeout: {{process: 300}}\n{ALL}"));
    let origin = HttpOrigin::start("127.0.0.1:0");
    let url = format!("http://www.example.com:{}/", origin.port());
    let post = format!("POST {url} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n");
    let mut http = Http::connect(proxy.addr());
    for _ in 0..2 {
        assert_eq!(http.ask(&post).status, 200);
        http.send("\r\n");
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(http.ask(&post).status, 200);
}

#[test]
fn get_post_and_chunked_bodies_pass_and_the_target_replaces_the_host() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let base = format!("http://www.example.com:{}", origin.port());
    let mut http = Http::connect(proxy.addr());

    let answer = http.ask(format!("GET {base}/a?b=c HTTP/1.1\r\nHost: liar.example\r\nAccept: */*\r\n\r\n"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), format!("GET /a?b=c HTTP/1.1 host=www.example.com:{} body=0\n", origin.port()));

    let answer = http.ask(format!("POST {base}/p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"));
    assert!(answer.text().ends_with("body=5\n"), "{}", answer.text());

    let chunked = "4;ext=1\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\n";
    let answer =
        http.ask(format!("PUT {base}/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"));
    assert!(answer.text().ends_with("body=9\n"), "{}", answer.text());

    let answer = http.ask(format!("GET {base}/chunked HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(answer.text().ends_with("end"), "{}", answer.text());

    http.send(format!("HEAD {base}/h HTTP/1.1\r\nHost: x\r\n\r\n"));
    let head = http.head();
    assert_eq!(head.status, 200);
    assert_ne!(head.header("content-length"), Some("0"));
    // The length of a HEAD's answer counts nothing: the next answer follows at once.
    assert_eq!(http.ask(format!("GET {base}/after HTTP/1.1\r\nHost: x\r\n\r\n")).status, 200);

    for request in origin.requests() {
        assert_eq!(
            request.header("host"),
            Some(format!("www.example.com:{}", origin.port()).as_str()),
            "{request:?}"
        );
        assert_eq!(request.count("host"), 1);
    }
}

#[test]
fn hop_by_hop_and_proxy_headers_are_removed_and_nothing_is_added() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let answer = Http::connect(proxy.addr()).ask(format!(
        "GET http://www.example.com:{}/ HTTP/1.1\r\nHost: www.example.com\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eDp5\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
         TE: trailers\r\nX-Kept: yes\r\nUser-Agent: test\r\n\r\n",
        origin.port()
    ));
    assert_eq!(answer.status, 200);
    let request = origin.requests().remove(0);
    for gone in ["proxy-connection", "proxy-authorization", "x-private", "keep-alive", "te"] {
        assert_eq!(request.header(gone), None, "{}", request.raw_head);
    }
    assert_eq!(request.header("x-kept"), Some("yes"));
    assert_eq!(request.header("user-agent"), Some("test"));
    for added in ["via", "forwarded", "x-forwarded-for", "x-cache"] {
        assert_eq!(request.header(added), None, "{}", request.raw_head);
    }
}

#[test]
fn every_request_on_a_kept_connection_is_decided_by_itself() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let port = origin.port();
    let mut http = Http::connect(proxy.addr());
    let get =
        |name: &str, path: &str| format!("GET http://{name}:{port}{path} HTTP/1.1\r\nHost: {name}\r\n\r\n");
    assert_eq!(http.ask(get("www.example.com", "/1")).status, 200);
    let denied = http.ask(get("x.blocked.example", "/secret"));
    assert_eq!(denied.status, 403);
    assert_eq!(
        denied.text().trim_end().lines().count(),
        1,
        "one line that names the reason: {}",
        denied.text()
    );
    // The connection may go on or end with the 403; the next request is allowed either way.
    let mut http = if http.is_closed_now() { Http::connect(proxy.addr()) } else { http };
    assert_eq!(http.ask(get("other.example.com", "/2")).status, 200);
    let lines: Vec<String> = origin.requests().into_iter().map(|r| r.line).collect();
    assert_eq!(lines, ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]);
    proxy.daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);
    assert_eq!(proxy.names.asked("x.blocked.example"), 0, "a denied name was resolved");
}

#[test]
fn requests_on_one_connection_may_go_to_different_servers() {
    let proxy = start(ALL);
    let (one, two) = (HttpOrigin::start("127.0.0.1:0"), HttpOrigin::start("127.0.0.2:0"));
    let mut http = Http::connect(proxy.addr());
    for _ in 0..3 {
        for (name, origin) in [("www.example.com", &one), ("two.example.com", &two)] {
            let answer =
                http.ask(format!("GET http://{name}:{}/ HTTP/1.1\r\nHost: {name}\r\n\r\n", origin.port()));
            assert!(answer.text().contains(name), "{}", answer.text());
        }
    }
    assert_eq!((one.requests().len(), two.requests().len()), (3, 3));
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_is_decided() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let port = origin.port();
    let get =
        |name: &str, path: &str| format!("GET http://{name}:{port}{path} HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let mut http = Http::connect(proxy.addr());
    http.send(
        [get("www.example.com", "/1"), get("other.example.com", "/2"), get("www.example.com", "/3")].concat(),
    );
    for path in ["/1", "/2", "/3"] {
        assert!(http.response().text().starts_with(&format!("GET {path} ")));
    }
    // A denied one in the middle never reaches the server.
    let mut http = Http::connect(proxy.addr());
    http.send([get("www.example.com", "/4"), get("x.blocked.example", "/5")].concat());
    assert_eq!(http.response().status, 200);
    assert_eq!(http.response().status, 403);
    assert!(origin.requests().iter().all(|r| !r.line.contains("/5")));
}

#[test]
fn the_head_may_come_one_byte_at_a_time() {
    let proxy = start("timeout: {process: 10000}\nrules:\n  - {action: accept}\n");
    let origin = HttpOrigin::start("127.0.0.1:0");
    let mut http = Http::connect(proxy.addr());
    let request = format!(
        "POST http://www.example.com:{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        origin.port()
    );
    write_bytewise(http.stream(), request.as_bytes());
    assert!(http.response().text().ends_with("body=3\n"));
}

#[test]
fn smuggling_attempts_get_400_and_nothing_reaches_the_server() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let url = format!("http://www.example.com:{}/", origin.port());
    let inner = format!("GET http://x.blocked.example:{}/inner HTTP/1.1\r\nHost: x\r\n\r\n", origin.port());
    let cases: &[(&str, String)] = &[
        ("both lengths", format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}")),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        ("list of lengths", format!("Content-Length: 0, {}\r\n\r\n{inner}", inner.len())),
        ("signed length", format!("Content-Length: +0\r\n\r\n{inner}")),
        ("negative length", format!("Content-Length: -1\r\n\r\n{inner}")),
        ("hex length", format!("Content-Length: 0x10\r\n\r\n{inner}")),
        ("huge length", format!("Content-Length: 99999999999999999999999\r\n\r\n{inner}")),
        ("empty length", format!("Content-Length:\r\n\r\n{inner}")),
        ("unknown coding", format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}")),
        ("chunked not last", format!("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{inner}")),
        (
            "chunked twice",
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        ("space before colon", format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}")),
        ("vertical tab", format!("Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{inner}")),
        ("folded header", format!("X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}")),
        ("NUL in a value", format!("X-A: b\0c\r\n\r\n{inner}")),
        ("bare CR in a value", format!("X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}")),
    ];
    for (what, rest) in cases {
        let mut http = Http::connect(proxy.addr());
        http.send(format!("POST {url} HTTP/1.1\r\nHost: www.example.com\r\n{rest}"));
        let answer = http.response();
        assert_eq!(answer.status, 400, "{what}: {}", answer.raw_head);
        assert!(http.is_closed(), "{what}: the connection goes on after a request without clear bounds");
    }
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
}

#[test]
fn a_chunked_body_with_broken_framing_ends_the_connection_and_hides_no_request() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let port = origin.port();
    let inner = format!("GET http://x.blocked.example:{port}/inner HTTP/1.1\r\nHost: x\r\n\r\n");
    for chunks in [
        format!("zz\r\n{inner}"),
        format!("-1\r\n{inner}"),
        format!("fffffffffffffffff\r\n{inner}"),
        format!("3\r\nabcX\r\n0\r\n\r\n{inner}"),
        format!("3 \n\nabc\r\n0\r\n\r\n{inner}"),
        format!("{}\r\n{inner}", "0".repeat(100_000)),
        format!("1;{}\r\na\r\n0\r\n\r\n{inner}", "x".repeat(100_000)),
    ] {
        let mut http = Http::connect(proxy.addr());
        let _ = http.stream().write_all(
            format!(
                "POST http://www.example.com:{port}/outer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            )
            .as_bytes(),
        );
        let _ = http.rest();
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(origin.requests().iter().all(|r| !r.raw_head.contains("inner")), "{:?}", origin.requests());
}

#[test]
fn bodies_of_chunks_with_content_that_looks_like_requests_stay_bodies() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let port = origin.port();
    let body = "GET http://x.blocked.example/ HTTP/1.1\r\n\r\n0\r\n\r\n";
    let mut http = Http::connect(proxy.addr());
    let answer = http.ask(format!(
        "POST http://www.example.com:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    ));
    assert!(answer.text().ends_with(&format!("body={}\n", body.len())));
    assert_eq!(
        http.ask(format!("GET http://www.example.com:{port}/next HTTP/1.1\r\nHost: x\r\n\r\n")).status,
        200
    );
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn malformed_requests_get_400_and_oversized_heads_431() {
    let proxy = start(ALL);
    for (what, request) in [
        ("origin form", "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_string()),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_string()),
        ("no version", "GET http://www.example.com/\r\n\r\n".to_string()),
        ("not HTTP", "\x16\x03\x01 hello\r\n\r\n".to_string()),
        ("no host in the target", "GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("bad port", "GET http://www.example.com:99999/ HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("port 0", "CONNECT www.example.com:0 HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("CONNECT without a port", "CONNECT www.example.com HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("CONNECT with a URL", "CONNECT http://www.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("open bracket", "CONNECT [::1:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
        ("other scheme", "GET ftp://www.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n".to_string()),
    ] {
        let answer = ask_once(proxy.addr(), &request);
        assert_eq!(answer.status, 400, "{what}: {}", answer.raw_head);
        assert!(
            answer.header("content-type").is_some_and(|t| t.starts_with("text/plain")),
            "{}",
            answer.raw_head
        );
        assert_eq!(answer.text().trim_end().lines().count(), 1, "{what}: {}", answer.text());
    }

    let mut http = Http::connect(proxy.addr());
    let _ = http.stream().write_all(
        format!("GET http://www.example.com/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(40_000))
            .as_bytes(),
    );
    assert_eq!(http.response().status, 431);
    // And without an end.
    let mut http = Http::connect(proxy.addr());
    let _ = http.stream().write_all(&b"GET http://www.example.com/".repeat(2000));
    assert_eq!(http.response().status, 431);
}

#[test]
fn a_head_that_does_not_come_in_time_gets_408() {
    let proxy = start("timeout: {process: 400}\nrules:\n  - {action: accept}\n");
    let origin = Origin::echo("127.0.0.1:0");
    let whole = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    for part in ["", "\r\n", "G", "GET http://www.example.com/ HTTP/1.1\r\nHo", &whole[..whole.len() - 1]] {
        let mut http = Http::connect(proxy.addr());
        http.send(part);
        assert_eq!(http.response().status, 408, "{part:?}");
        assert!(http.is_closed(), "{part:?}");
    }
    // A byte now and then does not buy time.
    let mut stream = connect(proxy.addr());
    let begun = Instant::now();
    let sent = whole.as_bytes().iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(std::slice::from_ref(*byte)).is_ok() && begun.elapsed() < Duration::from_secs(15)
    });
    assert!(sent.count() < whole.len());
    assert_eq!(origin.accepted(), 0);
    proxy.daemon.wait_count(6, &["Closed | reason=process_timeout"]);
}

#[test]
fn between_kept_alive_requests_process_does_not_count() {
    let proxy = start("timeout: {process: 500}\nrules:\n  - {action: accept}\n");
    let origin = HttpOrigin::start("127.0.0.1:0");
    let mut http = Http::connect(proxy.addr());
    for _ in 0..2 {
        let answer =
            http.ask(format!("GET http://www.example.com:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.port()));
        assert_eq!(answer.status, 200);
        std::thread::sleep(Duration::from_millis(1800));
    }
}

#[test]
fn dial_errors_get_502_and_504() {
    let proxy =
        start("timeout: {connect: 600, dnsLookup: 600}\nrules:\n  - {port: '1-65535', action: accept}\n");
    let refused = free_port();
    for (what, target, status) in [
        ("refused", format!("127.0.0.1:{refused}"), 502),
        ("NXDOMAIN", "nowhere.example.com:80".to_string(), 502),
        ("no addresses", "empty.example.com:80".to_string(), 502),
    ] {
        let answer = ask_once(proxy.addr(), format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, status, "{what}");
        // One decided without inner bytes is dialled before it is answered.
        let answer = ask_once(proxy.addr(), format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, status, "CONNECT, {what}");
    }
    // The verdict's line says that it was accepted; a second one says why nothing came of it.
    proxy.daemon.wait_log(&[&format!("127.0.0.1:{refused} | Failed | reason=connect_refused")]);
    proxy.daemon.wait_log(&["=> ? | Failed | reason=name_not_found", "name=nowhere.example.com"]);
    let silent = common::dns::NameServer::start("127.0.0.1:0", |_| common::dns::Answer::Silent);
    let port = free_port();
    let _second = Daemon::start(
        &format!(
            "listen:\n  - {{mode: http, port: {port}}}\ntimeout: {{dnsLookup: 500}}\ndnsNameservers: ['{}']\n\
             rules:\n  - {{action: accept}}\n",
            silent.addr
        ),
        &[port],
    );
    let answer = ask_once(("127.0.0.1", port), "GET http://www.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(matches!(answer.status, 502 | 504), "{}", answer.raw_head);
}

#[test]
fn a_server_that_answers_no_http_gives_502() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let answer = ask_once(
        proxy.addr(),
        format!("GET http://www.example.com:{}/garbage HTTP/1.1\r\nHost: x\r\n\r\n", origin.port()),
    );
    assert_eq!(answer.status, 502);
}

#[test]
fn an_answer_without_a_length_ends_with_the_connection() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let mut http = Http::connect(proxy.addr());
    http.send(format!(
        "GET http://www.example.com:{}/until-close HTTP/1.1\r\nHost: x\r\n\r\n",
        origin.port()
    ));
    assert_eq!(http.head().status, 200);
    assert!(String::from_utf8_lossy(&http.rest()).starts_with("GET /until-close"));
}

#[test]
fn large_bodies_pass_whole() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let url = format!("http://www.example.com:{}", origin.port());
    let mut http = Http::connect(proxy.addr());
    let answer = http.ask(format!("GET {url}/bytes/5000000 HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(answer.body == common::pattern(5_000_000, 7));
    let body = common::pattern(3_000_000, 8);
    http.send(format!("POST {url}/up HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
    http.send(&body);
    assert!(http.response().text().ends_with("body=3000000\n"));
    assert!(origin.requests().last().unwrap().body == body);
    assert_eq!(http.ask(format!("GET {url}/after HTTP/1.1\r\nHost: x\r\n\r\n")).status, 200);
}

#[test]
fn an_old_client_that_speaks_http_1_0_is_answered_and_closed() {
    let proxy = start(ALL);
    let origin = HttpOrigin::start("127.0.0.1:0");
    let mut http = Http::connect(proxy.addr());
    let answer = http.ask(format!("GET http://www.example.com:{}/ HTTP/1.0\r\n\r\n", origin.port()));
    assert_eq!(answer.status, 200);
    assert!(http.is_closed());
}

#[test]
fn connect_opens_a_tunnel_and_the_200_carries_no_content_length() {
    let proxy = start(ALL);
    for (name, origin) in [
        ("www.example.com", Origin::echo("127.0.0.1:0")),
        ("127.0.0.1", Origin::echo("127.0.0.1:0")),
        ("[::1]", Origin::echo("[::1]:0")),
        ("six.example.com", Origin::echo("[::1]:0")),
    ] {
        let mut http = Http::connect(proxy.addr());
        let target = format!("{name}:{}", origin.port());
        http.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        let answer = http.head();
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        let mut stream = http.into_stream();
        let bytes = hello(if name == "six.example.com" { name } else { "www.example.com" });
        stream.write_all(&bytes).unwrap();
        expect_bytes(&mut stream, &bytes);
        finish(&stream);
        assert_eq!(read_end(&mut stream), End::Closed(vec![]));
    }
}

#[test]
fn a_connect_that_nothing_inside_could_save_gets_its_403_at_once() {
    let rules = "timeout: {process: 20000}\nrules:\n  - {port: 25, action: deny}\n  - {dest: 127.0.0.9, action: deny}\n\
                 \x20 - {protoL5: tls, dns: '*.example.com', action: accept}\n";
    let proxy = start(rules);
    for target in ["www.example.com:25", "127.0.0.9:443"] {
        let start = Instant::now();
        let answer = ask_once(proxy.addr(), format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        assert_eq!(answer.status, 403, "{target}");
        assert!(start.elapsed() < Duration::from_secs(15), "it waited for the first bytes");
    }
    assert_eq!(proxy.names.asked("www.example.com"), 0, "a denied destination was resolved");
}

#[test]
fn data_sent_along_with_connect_is_kept() {
    let proxy = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let bytes = hello("www.example.com");
    let mut http = Http::connect(proxy.addr());
    let target = format!("www.example.com:{}", origin.port());
    http.send(
        [format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes(), bytes.clone()].concat(),
    );
    assert_eq!(http.head().status, 200);
    let mut got = vec![0; bytes.len()];
    http.read_exact(&mut got);
    assert_eq!(got, bytes);
}

#[test]
fn the_sni_beats_the_connect_host_as_name_and_as_what_is_dialled() {
    let proxy = start(ALL);
    let (one, two) = (Origin::echo("127.0.0.1:0"), Origin::serve(("127.0.0.2", 0), |_| {}));
    // The CONNECT's name is fine, the SNI's is not.
    let mut stream = tunnel(proxy.addr(), &format!("www.example.com:{}", one.port()));
    stream.write_all(&hello("x.blocked.example")).unwrap();
    assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    assert_eq!(one.accepted(), 0);
    proxy.daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);

    // The SNI's address is dialled, on the CONNECT's port.
    let mut stream = tunnel(proxy.addr(), &format!("www.example.com:{}", two.port()));
    stream.write_all(&hello("two.example.com")).unwrap();
    wait_for("the SNI's server", || (two.accepted() == 1).then_some(()));
    assert_eq!(one.accepted(), 0);
}

#[test]
fn a_connect_to_a_denied_name_is_settled_by_its_first_bytes() {
    let proxy = start(
        "rules:\n  - {dns: '*.blocked.example', action: deny}\n  - {port: 1, action: deny}\n  - {action: accept}\n",
    );
    let origin = Origin::echo("127.0.0.1:0");
    let target = format!("x.blocked.example:{}", origin.port());
    let nameless = Hello { name: None, ..Hello::default() }.record();
    for bytes in [hello("x.blocked.example"), nameless] {
        let mut stream = tunnel(proxy.addr(), &target);
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_end(&mut stream), End::Closed(ALERT_UNRECOGNIZED_NAME.to_vec()));
    }
    assert_eq!((origin.accepted(), proxy.names.asked("x.blocked.example")), (0, 0));
    // Another name inside is what counts, and where it leads.
    let mut stream = tunnel(proxy.addr(), &target);
    let bytes = hello("www.example.com");
    stream.write_all(&bytes).unwrap();
    expect_bytes(&mut stream, &bytes);
    assert_eq!(proxy.names.asked("x.blocked.example"), 0);
    // Nothing inside makes this one acceptable.
    let answer = ask_once(proxy.addr(), "CONNECT x.blocked.example:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer.status, 403);
}

#[test]
fn a_literal_address_is_dialled_as_it_is_whatever_the_sni_says() {
    let proxy = start(ALL);
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = tunnel(proxy.addr(), &format!("127.0.0.1:{}", origin.port()));
    let bytes = hello("two.example.com");
    stream.write_all(&bytes).unwrap();
    expect_bytes(&mut stream, &bytes);
    assert_eq!(proxy.names.asked("two.example.com"), 0);
}

#[test]
fn a_server_that_speaks_first_works_through_connect_under_port_rules() {
    let origin = Origin::banner("127.0.0.1:0", "SSH-2.0-x\r\n");
    let proxy = start(&format!(
        "timeout: {{process: 20000}}\nrules:\n  - {{port: {}, action: accept}}\n",
        origin.port()
    ));
    let start = Instant::now();
    let mut stream = tunnel(proxy.addr(), &format!("www.example.com:{}", origin.port()));
    expect_bytes(&mut stream, b"SSH-2.0-x\r\n");
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn plain_requests_are_redirected_by_the_redirect_action() {
    let proxy = start("rules:\n  - {encrypted: no, action: redirect}\n  - {action: accept}\n");
    for (request, status, location) in [
        (
            "GET http://www.example.com:8080/a?b HTTP/1.1\r\nHost: www.example.com:8080\r\n\r\n",
            301,
            "https://www.example.com/a?b",
        ),
        (
            "POST http://www.example.com/x HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 0\r\n\r\n",
            308,
            "https://www.example.com/x",
        ),
    ] {
        let answer = ask_once(proxy.addr(), request);
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{request}");
    }
    assert_eq!(proxy.names.questions(), []);
}

#[test]
fn a_client_that_names_the_proxy_itself_is_refused_in_the_first_round() {
    // Even with allowLocal.
    let proxy = start("rules:\n  - {action: accept}\n");
    let own = proxy.port;
    for target in [
        format!("127.0.0.1:{own}"),
        format!("[::1]:{own}"),
        format!("www.example.com:{own}"),
        format!("[::ffff:127.0.0.1]:{own}"),
    ] {
        let answer = ask_once(proxy.addr(), format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, 403, "{target}");
        let answer = ask_once(proxy.addr(), format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, 403, "CONNECT {target}");
    }
    wait_for("eight verdicts", || (proxy.daemon.count_log(&["Denied | rule=always"]) == 8).then_some(()));
    assert_eq!(proxy.daemon.count_log(&["| Accept |"]), 0);
}

#[test]
fn without_allow_local_loopback_and_this_machines_addresses_are_refused() {
    let names = NameServer::with("127.0.0.1:0", common::proxy::NAMES);
    let port = free_port();
    let daemon = Daemon::start(
        &format!(
            "listen:\n  - {{mode: http, port: {port}}}\ndnsNameservers: ['{}']\nrules:\n  - {{action: accept}}\n",
            names.addr
        ),
        &[port],
    );
    let origin = HttpOrigin::start("127.0.0.1:0");
    for host in [
        "127.0.0.1",
        "[::1]",
        "www.example.com",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "[100::1]",
        "[fe80::1]",
        "[ff02::1]",
    ] {
        let answer = ask_once(
            ("127.0.0.1", port),
            format!("GET http://{host}:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.port()),
        );
        assert_eq!(answer.status, 403, "{host}");
    }
    assert_eq!(origin.accepted(), 0);
    daemon.wait_log(&["Denied | rule=always"]);
}

#[test]
fn an_expect_100_continue_is_answered_by_the_server_or_not_at_all() {
    let proxy = start(ALL);
    let origin = Origin::serve("127.0.0.1:0", |mut stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let _ = common::origin::read_head(&mut reader);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 4];
        let _ = reader.read_exact(&mut body);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let mut http = Http::connect(proxy.addr());
    http.send(format!(
        "POST http://www.example.com:{}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        origin.port()
    ));
    assert_eq!(http.head().status, 100);
    http.send("body");
    assert_eq!(http.response().text(), "ok");
}

#[test]
fn a_peer_that_connects_and_says_nothing_is_let_go() {
    let proxy = start("timeout: {process: 500}\nrules:\n  - {action: accept}\n");
    let mut stream = connect(proxy.addr());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = read_end(&mut stream);
}

/// What real clients say, over both families, to servers of both.
#[test]
fn curl_gets_pages_in_absolute_form_and_through_connect_over_both_families() {
    if !have("curl") {
        return skip("needs curl");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let names: &[(&str, &[&str])] = &[
        ("www.example.com", &[SERVER4]),
        ("six.example.com", &[SERVER6]),
        ("x.blocked.example", &[SERVER4]),
    ];
    let _names = lab.server.run(|| NameServer::with(&at(DNS4, 53), names));
    let _https = [SERVER4, SERVER6].map(|ip| lab.server.run(|| HttpsOrigin::start(at(ip, 443))));
    let _http = [SERVER4, SERVER6].map(|ip| lab.server.run(|| HttpOrigin::start(at(ip, 80))));
    let config = format!(
        "listen:\n  - {{mode: http, ip4: ['{ROUTER4}'], ip6: ['{ROUTER6}'], port: 4130}}\ndnsNameservers: ['{DNS4}']\n{ALL}"
    );
    let daemon = lab.router.run(|| Daemon::start(&config, &[4130]));
    for (client, router) in [(CLIENT4, ROUTER4), (CLIENT6, ROUTER6)] {
        let curl = |url: &str| {
            let proxy = at(router, 4130);
            text(
                &lab.client.try_sh(&format!("curl -sSk -m 20 -w '%{{http_code}}' -x http://{proxy} '{url}'")),
            )
        };
        for (host, server) in [
            ("www.example.com".to_string(), SERVER4),
            ("six.example.com".to_string(), SERVER6),
            (SERVER4.to_string(), SERVER4),
            (format!("[{SERVER6}]"), SERVER6),
        ] {
            for (scheme, port) in [("http", 80), ("https", 443)] {
                let page = curl(&format!("{scheme}://{host}/x"));
                assert!(page.starts_with(&format!("GET /x HTTP/1.1 host={host}")), "{scheme} {host}: {page}");
                daemon.wait_log(&[&format!("{client} => {} | Accept | rule=1", at(server, port))]);
            }
        }
        assert!(curl("http://x.blocked.example/").ends_with("403"));
        assert!(curl("https://x.blocked.example/").contains("unrecognized name"));
    }
}
