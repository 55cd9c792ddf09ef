//! Whatever is forwarded must be read by the next one as what was decided on.

use super::*;

const HEADS: [&str; 6] = [
    "GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nConnection: keep-alive, X-Hop\r\n\
     X-Hop: 1\r\n\r\n",
    "POST http://[2001:db8::1]:8080/ HTTP/1.1\r\nContent-Length: 12\r\nHost: a:1\r\nExpect: 100-continue\r\n\r\n",
    "PUT http://192.0.2.1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nTE: trailers\r\n\r\n",
    "\r\nOPTIONS http://example.com HTTP/1.0\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
    "HEAD /path HTTP/1.1\r\nHost: example.com:81\r\nConnection: host, content-length\r\nContent-Length: 0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: example.com\r\nProxy-Connection: close\r\n\r\n",
];

/// Forwards what parses; whether it did.
fn check(head: &[u8]) -> bool {
    let Ok(request) = parse_request(head) else { return false };
    let out = forward_request(head, &request);
    let shown = out.escape_ascii();
    assert_eq!(HeadEnd::new().find(&out), Some(out.len()), "one head: {shown}");
    if matches!(request.target, Target::Authority { .. }) {
        return true;
    }
    let again = parse_request(&out).unwrap_or_else(|reject| panic!("{}: {shown}", reject.reason));
    let host = match &request.target {
        Target::Absolute { host, port: 80 } => Some(host.to_string().into()),
        Target::Absolute { host, port } => Some(format!("{host}:{port}").into()),
        _ => request.host_header.clone(),
    };
    let target = if &*request.path == "*" { Target::Asterisk } else { Target::Origin };
    let want = Request {
        len: out.len(),
        target,
        host_header: host,
        proxy_authorization: None,
        // Connection is gone; whoever sends this decides.
        keep_alive: again.keep_alive,
        // Connection may name it.
        expects_continue: again.expects_continue,
        ..request
    };
    assert_eq!(again, want, "{shown}");
    // The server hears the Host once, and nothing that was for us.
    let lower = out.to_ascii_lowercase();
    let names: Vec<&[u8]> =
        lower.split(|&b| b == b'\n').map(|l| l.split(|&b| b == b':').next().unwrap_or_default()).collect();
    let count = |name: &[u8]| names.iter().filter(|n| **n == name).count();
    assert!(count(b"host") <= 1 && count(b"connection") == 0 && count(b"te") == 0, "{shown}");
    assert!(names.iter().all(|name| !name.starts_with(b"proxy-")), "{shown}");
    true
}

#[test]
fn is_read_again_as_the_same() {
    for head in HEADS {
        assert!(check(head.as_bytes()), "{head:?}");
    }
}

#[test]
fn survives_mutation() {
    const PARTS: [&str; 28] = [
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ",",
        "\0",
        "\x0b",
        "#",
        "@",
        "?",
        "/",
        "*",
        "http://",
        "HTTP/1.0",
        "HTTP/1.1",
        "Host: b\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "chunked",
        "Connection: close, host\r\n",
        "Connection: content-length\r\n",
        "Content-Length",
        "CONNECT",
        "[::1]",
        "\u{e4}",
        "\r\n\r\n",
    ];
    let mut random = Random(0x2545_f491);
    let mut accepted = 0;
    for _ in 0..30_000 {
        let mut head = HEADS[random.below(HEADS.len())].as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let (a, b) = (random.below(head.len() + 1), random.below(head.len() + 1));
            let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 40));
            let part = PARTS[random.below(PARTS.len())].as_bytes();
            match random.below(5) {
                0 => drop(head.drain(from..to)),
                1 => drop(head.splice(from..from, part.iter().copied())),
                2 => drop(head.splice(from..to, part.iter().copied())),
                3 => {
                    let copy = head[from..to].to_vec();
                    drop(head.splice(b..b, copy));
                }
                _ => {
                    if let Some(byte) = head.get_mut(from) {
                        *byte = random.below(256) as u8;
                    }
                }
            }
        }
        accepted += usize::from(check(&head));
        if let Ok(response) = parse_response(&head, "GET") {
            forward_response(&head, &response);
        }
    }
    // Enough of them get through for this to mean something, and not all.
    assert!((2_000..25_000).contains(&accepted), "{accepted}");
}

#[test]
fn responses_are_read_again_as_the_same() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close, content-length\r\n\r\n",
        "HTTP/1.0 200 OK\r\nKeep-Alive: 5\r\nConnection: keep-alive, transfer-encoding\r\n\r\n",
        "HTTP/1.1 500 \u{e4}\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n\r\n",
        "HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n",
    ] {
        let first = response(head, "GET");
        let out = text(forward_response(head.as_bytes(), &first));
        let again = response(&out, "GET");
        assert_eq!((again.status, again.body, again.len), (first.status, first.body, out.len()), "{head:?}");
    }
}
