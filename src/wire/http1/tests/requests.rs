//! What a request says, and what its server gets of it.

use super::*;
use crate::wire::http1::Secret;

#[test]
fn targets() {
    let check = |line: &str, target: Target, path: &str| {
        let got = request(&format!("{line} HTTP/1.1\r\nHost: other.example\r\n\r\n"));
        assert_eq!((&got.target, &*got.path), (&target, path), "{line}");
    };
    let name = |name: &str| Host::Name(name.into());
    let ip = |ip: &str| Host::Ip(ip.parse().unwrap());
    let absolute = |host, port| Target::Absolute { host, port };
    check("GET http://Example.COM", absolute(name("example.com"), 80), "/");
    check("GET http://example.com/", absolute(name("example.com"), 80), "/");
    check("GET HTTP://example.com:8080/a/B?c=d://e", absolute(name("example.com"), 8080), "/a/B?c=d://e");
    check("GET http://example.com?q", absolute(name("example.com"), 80), "/?q");
    check("GET http://a?@b/", absolute(name("a"), 80), "/?@b/");
    check("GET http://192.0.2.1/", absolute(ip("192.0.2.1"), 80), "/");
    check("GET http://[2001:db8::1]:81/x", absolute(ip("2001:db8::1"), 81), "/x");
    check("OPTIONS http://example.com", absolute(name("example.com"), 80), "*");
    check("OPTIONS http://example.com/", absolute(name("example.com"), 80), "/");
    check("OPTIONS *", Target::Asterisk, "*");
    check("GET /a?b", Target::Origin, "/a?b");
    check("GET //a/{|}\"", Target::Origin, "//a/{|}\"");
    check("CONNECT example.com:443", Target::Authority { host: name("example.com"), port: 443 }, "");
    check("CONNECT [::1]:443", Target::Authority { host: ip("::1"), port: 443 }, "");
}

#[test]
fn targets_that_are_refused() {
    for line in [
        "GET https://example.com/",
        "GET ftp://example.com/",
        "GET http:/example.com/",
        "GET http:///",
        "GET http://",
        "GET http://:80/",
        "GET http://u@example.com/",
        "GET http://u:p@example.com/",
        "GET http://allowed.example#@denied.example/",
        "GET http://allowed.example\\@denied.example/",
        "GET http://example.com:/",
        "GET http://example.com:0/",
        "GET http://example.com:65536/",
        "GET http://example.com:80x/",
        "GET http://ex%61mple.com/",
        "GET http://ex\u{e4}mple.com/",
        "GET http://[fe80::1%25eth0]/",
        "GET http://::1/",
        "GET http://127.1/",
        "GET http://a/\u{e4}",
        "GET http://a/#f",
        "GET example.com",
        "GET example.com:80",
        "GET *",
        "GET a",
        "connect example.com:443",
        "CONNECT example.com",
        "CONNECT http://example.com/",
        "CONNECT /",
        "CONNECT *",
        "CONNECT :443",
        "CONNECT example.com:443/",
        "CONNECT u@example.com:443",
    ] {
        assert_eq!(status(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), 400, "{line}");
    }
    let reject = parse_request(b"GET https://example.com/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err();
    assert!(reject.reason.contains("CONNECT"), "{}", reject.reason);
}

#[test]
fn start_lines() {
    let check = |line: &str, want: u16| {
        assert_eq!(status(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), want, "{line:?}");
    };
    check("GET http://a/ HTTP/1.1", 0);
    check("X!-~|1 http://a/ HTTP/1.0", 0);
    check("PRI * HTTP/2.0", 505);
    check("GET http://a/ HTTP/2.0", 505);
    check("GET http://a/ HTTP/1.2", 505);
    check("GET http://a/ HTTP/0.9", 505);
    check("GET http://a/ HTTP/2", 400);
    check("GET http://a/ HTTP/1.10", 400);
    check("GET http://a/ HTTP/11.1", 400);
    check("GET http://a/ HTTP/1.1 ", 400);
    check("GET http://a/ http/1.1", 400);
    check("GET http://a/ XHTTP/2.0", 400);
    check("GET http://a/", 400);
    check("GET", 400);
    check("GET  http://a/ HTTP/1.1", 400);
    check("GET http://a/  HTTP/1.1", 400);
    check("GET http://a/ b HTTP/1.1", 400);
    check("GET\thttp://a/ HTTP/1.1", 400);
    check(" GET http://a/ HTTP/1.1", 400);
    check("G(T http://a/ HTTP/1.1", 400);
}

#[test]
fn persistence() {
    let check = |minor: u8, fields: &str, want: bool| {
        let got = request(&format!("GET http://a/ HTTP/1.{minor}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!((got.keep_alive, got.minor), (want, minor), "1.{minor} {fields:?}");
    };
    check(1, "", true);
    check(1, "Connection: keep-alive\r\n", true);
    check(1, "Connection: CLOSE\r\n", false);
    check(1, "Connection: x, close ,y\r\n", false);
    check(1, "Connection: x\r\nConnection: close\r\n", false);
    check(1, "Connection: close-not\r\n", true);
    check(1, "Proxy-Connection: keep-alive\r\n", true);
    check(1, "Proxy-Connection: close\r\n", false);
    check(0, "", false);
    check(0, "Connection: keep-alive\r\n", false);
    check(0, "Proxy-Connection: keep-alive\r\n", false);
}

#[test]
fn single_fields() {
    let got = request(
        "POST http://a/ HTTP/1.1\r\nhost:\t B:1 \r\nExpect: 100-Continue\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
    );
    assert_eq!(got.host_header.as_deref(), Some("B:1"));
    assert!(got.expects_continue);
    assert_eq!(got.proxy_authorization.as_ref().map(Secret::text), Some("Basic eDp5"));
    let got = request("GET http://a/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!((got.host_header, got.expects_continue, got.proxy_authorization), (None, false, None));
    assert_eq!(request("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n").host_header, None);
}

#[test]
fn limits() {
    let fields = |n: usize| format!("GET http://a/ HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n));
    assert_eq!(status(fields(MAX_FIELDS - 1).as_bytes()), 0);
    assert_eq!(status(fields(MAX_FIELDS).as_bytes()), 431);
    let sized = |n: usize| {
        let start = "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(n - start.len() - 4))
    };
    assert_eq!(status(sized(MAX_HEAD).as_bytes()), 0);
    assert_eq!(status(sized(MAX_HEAD + 1).as_bytes()), 431);
    let options =
        |n: usize| format!("GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(n));
    assert_eq!(status(options(MAX_CONNECTION_OPTIONS).as_bytes()), 0);
    assert_eq!(status(options(MAX_CONNECTION_OPTIONS + 1).as_bytes()), 400);
}

#[test]
fn what_is_forwarded() {
    let check = |head: &str, want: &str| {
        let request = request(head);
        assert_eq!(text(forward_request(head.as_bytes(), &request)), want, "{head:?}");
    };
    check(
        "GET http://Example.com/a?b HTTP/1.1\r\nUser-Agent: x  y\r\nHost: evil.example\r\naccept:*/*\r\nX-Empty:\r\n\
         Accept: \t b \r\n\r\n",
        "GET /a?b HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x  y\r\naccept:*/*\r\nX-Empty:\r\nAccept: \t b \r\n\r\n",
    );
    check("\r\nGET http://a:80 HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    check("GET http://a:81/ HTTP/1.1\r\nHost: a:82\r\n\r\n", "GET / HTTP/1.1\r\nHost: a:81\r\n\r\n");
    check("GET http://[::1]:81/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1]:81\r\n\r\n");
    check("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    check("GET /x HTTP/1.1\r\nA: b\r\nhost: B:81\r\n\r\n", "GET /x HTTP/1.1\r\nHost: B:81\r\nA: b\r\n\r\n");
    check(
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: X-Hop , te,close\r\nconnection: x-two\r\nX-Hop: 1\r\n\
         X-hop: 2\r\nX-Two: 3\r\nX-Hop2: 4\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nPROXY-foo: 1\r\n\
         Proxy: 5\r\nTrailer: X-Sum\r\nAuthorization: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Hop2: 4\r\nProxy: 5\r\nTrailer: X-Sum\r\nAuthorization: z\r\n\r\n",
    );
    // Connection does not remove what says where the message ends or goes.
    check(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, transfer-encoding\r\n\
         Content-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    );
    check(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\ntransfer-encoding: CHUNKED\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    // What frames the body is spelled so that nobody can overlook it.
    check(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunkeD \t\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    check(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\ncontent-length:  0010\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 10\r\n\r\n",
    );
    check(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length:00\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    );
}

/// Every protocol that was asked for was passed on. HTTP/2 would then carry requests that nobody decides.
#[test]
fn nobody_changes_to_another_protocol_than_websocket() {
    let check = |fields: &str, want: bool| {
        let head = format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
        let request = request(&head);
        assert_eq!(asks_for_upgrade(head.as_bytes(), &request), want, "{fields}");
    };
    check("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", true);
    check("upgrade:  WebSocket \r\nconnection: upgrade\r\n", true);
    check("Upgrade: websocket\r\n", false);
    check("Connection: Upgrade\r\n", false);
    check("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", false);
    check(
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        false,
    );
    for other in ["h2c", "TLS/1.0", "websocket, h2c", "h2c, websocket", "websocket/13", ""] {
        check(&format!("Connection: Upgrade\r\nUpgrade: {other}\r\n"), false);
    }
    check("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", false);

    let head = "GET /a HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, x-hop\r\nX-Hop: 1\r\nupgrade: WebSocket\r\n\
                Sec-WebSocket-Key: x\r\n\r\n";
    let forwarded = forward_upgrade(head.as_bytes(), &request(head));
    let want = "GET /a HTTP/1.1\r\nHost: a.example\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(String::from_utf8(forwarded).unwrap(), want);
}
