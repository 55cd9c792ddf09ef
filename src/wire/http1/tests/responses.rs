//! How an answer ends, and what the client gets of it.

use super::*;

#[test]
fn framing() {
    let check = |method: &str, start: &str, fields: &str, want: Framing| {
        let got = response(&format!("{start}\r\n{fields}\r\n"), method);
        assert_eq!(got.body, want, "{method} {start} {fields:?}");
    };
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    check("GET", "HTTP/1.1 200 OK", length, Framing::Length(5));
    check("GET", "HTTP/1.1 200 OK", chunked, Framing::Chunked);
    check("GET", "HTTP/1.1 200 OK", "", Framing::ToEof);
    check("GET", "HTTP/1.0 200 OK", length, Framing::Length(5));
    check("GET", "HTTP/1.1 404", length, Framing::Length(5));
    check("HEAD", "HTTP/1.1 200 OK", length, Framing::None);
    check("HEAD", "HTTP/1.1 200 OK", chunked, Framing::None);
    check("head", "HTTP/1.1 200 OK", length, Framing::Length(5));
    check("GET", "HTTP/1.1 304 Not Modified", length, Framing::None);
    check("GET", "HTTP/1.1 204 No Content", length, Framing::None);
    check("GET", "HTTP/1.1 205 Reset Content", length, Framing::Length(5));
    check("GET", "HTTP/1.1 100 Continue", "", Framing::None);
    check("GET", "HTTP/1.1 103 Early Hints", chunked, Framing::None);
    check("CONNECT", "HTTP/1.1 200 OK", length, Framing::None);
    check("CONNECT", "HTTP/1.1 403 No", length, Framing::Length(5));
}

#[test]
fn persistence() {
    let check = |start: &str, fields: &str, want: bool| {
        let got = response(&format!("{start}\r\n{fields}\r\n"), "GET");
        assert_eq!(got.keep_alive, want, "{start} {fields:?}");
    };
    let length = "Content-Length: 5\r\n";
    check("HTTP/1.1 200 OK", length, true);
    check("HTTP/1.1 200 OK", "", false);
    check("HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: close\r\n", false);
    check("HTTP/1.0 200 OK", length, false);
    check("HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: Keep-Alive\r\n", true);
    check("HTTP/1.0 200 OK", "Connection: Keep-Alive\r\n", false);
    check("HTTP/1.1 304 Not Modified", "", true);
}

#[test]
fn interim() {
    for (status, want) in [(100, true), (102, true), (103, true), (200, false), (999, false)] {
        let got = response(&format!("HTTP/1.1 {status} x\r\n\r\n"), "GET");
        assert_eq!((got.status, got.interim), (status, want));
    }
}

#[test]
fn refused() {
    for head in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\rX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n\r\nx",
        // Also where there is no body that could be framed.
        "HTTP/1.1 204 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(parse_response(head.as_bytes(), "GET").is_err(), "{head:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    assert!(parse_response(long.as_bytes(), "GET").is_err());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS + 1));
    assert!(parse_response(many.as_bytes(), "GET").is_err());
}

#[test]
fn what_is_forwarded() {
    let check = |head: &str, want: &str| {
        let response = response(head, "GET");
        assert_eq!(text(forward_response(head.as_bytes(), &response)), want, "{head:?}");
    };
    check(
        "HTTP/1.0 404 Not  Found \r\nServer:x\r\nConnection: X-Hop, content-length\r\nX-Hop: 1\r\nKeep-Alive: y\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 404 Not  Found \r\nServer:x\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\n",
    );
    check("HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200\r\n\r\n");
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
    );
    check(
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nA: b\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
    );
    check("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n");
}
