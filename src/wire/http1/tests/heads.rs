//! Where a head ends.

use super::*;

#[test]
fn the_end_is_found_in_any_segmentation() {
    let check = |bytes: &[u8], want: Option<usize>| {
        assert_eq!(HeadEnd::new().find(bytes), want, "{}", bytes.escape_ascii());
        for step in 1..=bytes.len() {
            let mut end = HeadEnd::new();
            let first =
                (0..=bytes.len()).step_by(step).chain([bytes.len()]).find_map(|n| end.find(&bytes[..n]));
            assert_eq!(first, want, "{} by {step}", bytes.escape_ascii());
        }
    };
    check(b"", None);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(27));
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(27));
    check(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22));
    check(b"GET / HTTP/1.1\r\nHost: a\r\n", None);
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r", None);
    // A lone blank ends no head, but a bare LF does, and is then refused.
    check(b"GET / HTTP/1.1\r\n \r\n", None);
    check(b"GET / HTTP/1.0\n\n", Some(16));
    check(b"GET / HTTP/1.0\r\n\n", Some(17));
    check(b"GET / HTTP/1.0\n\r\n", Some(17));
    check(b"GET / HTTP/1.0\r\r\n", None);
}

#[test]
fn a_prefix_is_never_a_head() {
    let head = b"\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for n in 0..head.len() {
        assert_eq!(HeadEnd::new().find(&head[..n]), None, "{n}");
        assert_eq!(status(&head[..n]), 400, "{n}");
    }
    assert_eq!(parse_request(head).map(|r| r.len), Ok(head.len()));
    assert_eq!(status(&[&head[..], b"G"].concat()), 400);
    assert_eq!(status(&[&head[..], b"\r\n"].concat()), 400);
}

/// httparse would refuse most of these, too; this is said before it is asked, and with the name of the thing.
#[test]
fn lines_that_are_refused() {
    let check = |lines: &str, want: &str| {
        let head = format!("GET http://a/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let reject = parse_request(head.as_bytes()).unwrap_err();
        assert_eq!((reject.status, reject.reason), (400, want), "{lines:?}");
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        assert_eq!(parse_response(head.as_bytes(), "GET"), Err(want), "{lines:?}");
    };
    check("X: y\n", "a bare LF");
    check("X: y\nZ: y\r\n", "a bare LF");
    check("X: y\rZ: y\r\n", "a bare CR");
    check("X: y\r\r\n", "a bare CR");
    check("X: y\r\n z\r\n", "a folded line");
    check("X: y\r\n\tz\r\n", "a folded line");
    check(" X: y\r\n", "a folded line");
    check("X: \0\r\n", "a control byte");
    check("X: \x1f\r\n", "a control byte");
    check("X: \x7f\r\n", "a control byte");
    check("X\x0b: y\r\n", "a control byte");
    check("X : y\r\n", "an invalid header field name");
    check("X\r\n", "an invalid header field name");
    check(": y\r\n", "an invalid header field name");
    check("X\u{e4}: y\r\n", "an invalid header field name");
    check("X: y\r\n\r\n", "not one whole head");
}
