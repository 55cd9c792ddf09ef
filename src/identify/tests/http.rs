//! HTTP/1.

use super::prefix::{Random, identify};
use super::*;
use crate::identify::tcp::MAX_HEAD;

fn http(host: Option<&str>) -> Outcome {
    Outcome::Identified(Identity::Http { host: host.map(Box::from) })
}

#[test]
fn a_request_line_makes_it_http() {
    let check = |head: &str, expected: Outcome| assert_eq!(identify(head.as_bytes()), expected, "{head:?}");
    check("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", http(Some("a.example")));
    check(
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n",
        http(Some("a.example")),
    );
    check("GET / HTTP/1.0\r\n\r\n", http(None));
    check("GET / HTTP/1.0\n\n", http(None));
    check("get / HTTP/1.1\nhost:a.example\n\n", http(Some("a.example")));
    check("x-!#$%&'*+.^_`|~9 * HTTP/1.1\r\n\r\n", http(None));
    check("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", http(Some("a")));
    check("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", http(Some("a.example:443")));
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", http(Some("a")));
    check("GET /\u{e4} HTTP/1.1\r\n\r\n", http(None));
    // Broken fields are the server's business, but their host is no place to dial.
    check("GET / HTTP/1.1\r\nbad field\r\nHost: a\r\n\r\n", http(None));

    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NONE);
    check("GET / HTTP/1.2\r\n\r\n", NONE);
    check("GET / HTTP/11\r\n\r\n", NONE);
    check("GET / http/1.1\r\n\r\n", NONE);
    check("GET /\r\n", NONE);
    check("GET  / HTTP/1.1\r\n\r\n", NONE);
    check("GET /  HTTP/1.1\r\n\r\n", NONE);
    check("GET / HTTP/1.1 \r\n\r\n", NONE);
    check("GET / HTTP/1.1\rX", NONE);
    check("GET\t/ HTTP/1.1\r\n\r\n", NONE);
    check(" GET / HTTP/1.1\r\n\r\n", NONE);
    check("GE(T / HTTP/1.1\r\n\r\n", NONE);
    check("EHLO mail.example.com\r\n", NONE);
    check("hello there world\n", NONE);
}

#[test]
fn begun_from_the_first_space_on() {
    let check = |head: &str, expected: Outcome| assert_eq!(identify(head.as_bytes()), expected, "{head:?}");
    check("G", NOT_BEGUN);
    check("GET", NOT_BEGUN);
    check("\r\n", NOT_BEGUN);
    check("GET ", BEGUN);
    check("GET / HT", BEGUN);
    check("PRI * HTTP/", BEGUN);
    check("GET / HTTP/1.1", BEGUN);
    check("GET / HTTP/1.1\r\n", BEGUN);
    check("GET / HTTP/1.1\r\nHost: a.example\r\n", BEGUN);
    check("GET / HTTP/1.1\r\nHost: a.example\r\n\r", BEGUN);
    check("GET / HTTP/1.1\r\n\rX\n", BEGUN);
}

#[test]
fn the_one_valid_host() {
    let check = |fields: &str, expected: Option<&str>| {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(identify(head.as_bytes()), http(expected), "{head:?}");
    };
    check("", None);
    check("Hosts: a\r\nX-Host: b\r\n", None);
    check("HOST:  A.Example. \r\n", Some("A.Example."));
    check("Host: a\r\nHost: a\r\n", None);
    check("Host: a\r\nhost: b\r\n", None);
    check("Host:\r\n", None);
    check("Host: a.example:8080\r\n", Some("a.example:8080"));
    check("Host: a.example:\r\n", Some("a.example:"));
    check("Host: a.example:65536\r\n", None);
    check("Host: a.example:+80\r\n", None);
    check("Host: a.example:80:80\r\n", None);
    check("Host: :80\r\n", None);
    check("Host: 192.0.2.1:80\r\n", Some("192.0.2.1:80"));
    check("Host: [2001:db8::1]\r\n", Some("[2001:db8::1]"));
    check("Host: [2001:db8::1]:80\r\n", Some("[2001:db8::1]:80"));
    check("Host: [2001:db8::1]80\r\n", None);
    check("Host: [2001:db8::1\r\n", None);
    check("Host: [192.0.2.1]\r\n", None);
    check("Host: 2001:db8::1\r\n", None);
    check("Host: user@a.example\r\n", None);
    check("Host: a b\r\n", None);
    check("Host: a.example, b.example\r\n", None);
    check("Host: a\u{1}b\r\n", None);
    check("Host: b\u{fc}cher.example\r\n", None);
    check("Host: a/b\r\n", None);
    check("Host: my_host%20.example\r\n", Some("my_host%20.example"));
}

#[test]
fn a_head_is_whole_within_the_bound_or_too_large() {
    let of_len = |len: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a.example\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
    };
    assert_eq!(identify(of_len(MAX_HEAD).as_bytes()), http(Some("a.example")));
    assert_eq!(identify(&of_len(MAX_HEAD + 1).as_bytes()[..MAX_HEAD - 1]), BEGUN);
    assert_eq!(identify(of_len(MAX_HEAD + 1).as_bytes()), Outcome::TooLarge);
    let long_target = format!("GET /{}", "x".repeat(MAX_HEAD));
    assert_eq!(identify(long_target.as_bytes()), Outcome::TooLarge);
    // Never a space: it never began.
    assert_eq!(identify("x".repeat(MAX_HEAD).as_bytes()), NONE);
    assert_eq!(identify("x".repeat(MAX_HEAD - 1).as_bytes()), NOT_BEGUN);

    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x:\r\n".repeat(1000));
    assert_eq!(identify(many_fields.as_bytes()), http(None));
}

#[test]
fn whatever_httparse_takes_is_http() {
    let heads = [
        "GET /a?b HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\n\r\n",
        "\r\nPOST * HTTP/1.0\nHost: [::1]\n\nbody",
        "M-SEARCH x://y HTTP/1.1\r\n\r\n",
    ];
    let mut random = Random::new(3);
    let mut taken = 0;
    for round in 0..3000 {
        let mut head = heads[round % heads.len()].as_bytes().to_vec();
        for _ in 0..=random.below(2) {
            let (at, from) = (random.below(head.len()), random.below(head.len()));
            match random.below(4) {
                0 => head[at] = u8::try_from(random.below(256)).unwrap(),
                1 => head[at] = head[from],
                2 => head.insert(at, head[from]),
                _ => drop(head.remove(at)),
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut fields);
        if let Ok(httparse::Status::Complete(_)) = request.parse(&head) {
            taken += 1;
            let outcome = identify(&head);
            assert!(
                matches!(outcome, Outcome::Identified(Identity::Http { .. })),
                "{:?}",
                head.escape_ascii()
            );
        }
    }
    assert!(taken > 500, "only {taken} were compared");
}
