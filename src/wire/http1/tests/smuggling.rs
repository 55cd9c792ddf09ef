//! Attempts at hiding a request in another's body.

use super::*;

/// How a POST with these field lines is framed, or the status that refuses it.
fn framed(minor: u8, fields: &str) -> Result<Framing, u16> {
    let head = format!("POST http://a/ HTTP/1.{minor}\r\nHost: a\r\n{fields}\r\n");
    parse_request(head.as_bytes()).map(|r| r.body).map_err(|reject| reject.status)
}

#[test]
fn framing_that_is_accepted() {
    let check = |fields: &str, want| assert_eq!(framed(1, fields), Ok(want), "{fields:?}");
    check("", Framing::None);
    check("Content-Length: 0\r\n", Framing::Length(0));
    check("Content-Length:\t 0012 \r\n", Framing::Length(12));
    check("content-length: 9007199254740991\r\n", Framing::Length(MAX_LENGTH));
    check("Transfer-Encoding: chunked\r\n", Framing::Chunked);
    check("TRANSFER-ENCODING:Chunked\t\r\n", Framing::Chunked);
    assert_eq!(framed(0, "Content-Length: 5\r\n"), Ok(Framing::Length(5)));
}

#[test]
fn framing_that_is_refused() {
    for fields in [
        // CL.TE and TE.CL
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Connection: content-length\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        // TE.TE
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \u{a0}chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\n chunked\r\n",
        "X: x\nTransfer-Encoding: chunked\r\n",
        "X: x\rTransfer-Encoding: chunked\r\n",
        "X: x\r\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\rX: y\r\n",
        "Transfer\rEncoding: chunked\r\n",
        "Transfer-Encoding\0: chunked\r\n",
        "\0Transfer-Encoding: chunked\r\n",
        "Foo: bar\r\n\tTransfer-Encoding: chunked\r\n",
        // CL.CL
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length:\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 0\r\n",
        "Content-Length: 1\r\n 0\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e1\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: \u{665}\r\n",
        "Content-Length: 9007199254740992\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\r\n",
        "Content-Length 5\r\n",
        ": 5\r\n",
        "Content-Length: 5\n",
        "Content-Length: 5\n\r\n",
        "Content-Length: 5\r\nX: \x7f\r\n",
        "Content-Length: 5\r\nX: \x1b\r\n",
        // Host
        "Host: a\r\n",
        "Host: b\r\n",
        "HOST:\r\n",
    ] {
        assert_eq!(framed(1, fields), Err(400), "{fields:?}");
    }
    assert_eq!(framed(0, "Transfer-Encoding: chunked\r\n"), Err(400));
    assert_eq!(framed(0, "Transfer-Encoding: identity\r\n"), Err(400));
}

#[test]
fn hosts_that_are_refused() {
    assert_eq!(status(b"GET http://a/ HTTP/1.1\r\n\r\n"), 400);
    for host in
        ["a@b", "a b", "a,b", "http://a/", "a/b", "a:", "a:x", "a:0", "\u{e4}", "%61", "[::1", "::1", "a#"]
    {
        let head = format!("GET http://a/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(status(head.as_bytes()), 400, "{host}");
    }
}

#[test]
fn connect_has_no_body() {
    let check = |fields: &str, want| {
        let head = format!("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(status(head.as_bytes()), want, "{fields:?}");
    };
    check("", 0);
    // WinHTTP says so.
    check("Content-Length: 0\r\n", 0);
    check("Content-Length: 1\r\n", 400);
    check("Transfer-Encoding: chunked\r\n", 400);
}

#[test]
fn two_authorization_fields_are_refused() {
    let head =
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: a\r\nproxy-authorization: b\r\n\r\n";
    assert_eq!(status(head.as_bytes()), 400);
}
