//! What the proxy itself answers.

use super::*;

fn split(reply: Vec<u8>) -> (Response, String, String) {
    let end = HeadEnd::new().find(&reply).unwrap();
    let reply = text(reply);
    let (head, body) = reply.split_at(end);
    (response(head, "GET"), head.into(), body.into())
}

#[test]
fn one_line_that_names_the_reason() {
    for (status, close) in
        [(400, true), (403, false), (407, false), (408, true), (431, true), (502, false), (504, true)]
    {
        let (parsed, head, body) = split(reply(status, "it is \u{2014} so", close));
        assert_eq!((parsed.status, parsed.keep_alive, &*body), (status, !close, "it is \u{2014} so\n"));
        assert_eq!(parsed.body, Framing::Length(body.len() as u64));
        assert_eq!(head.contains("\r\nConnection: close\r\n"), close);
        assert_eq!(
            head.contains("\r\nProxy-Authenticate: Basic realm=\"calamary\", charset=\"UTF-8\"\r\n"),
            status == 407
        );
    }
    let (_, head, body) = split(reply_to("HEAD", 403, "denied", false));
    assert!(head.contains("Content-Length: 7\r\n"));
    assert_eq!(body, "");
}

#[test]
fn established_has_no_length() {
    let established = std::str::from_utf8(ESTABLISHED).unwrap();
    assert!(established.starts_with("HTTP/1.1 200 ") && established.ends_with("\r\n\r\n"));
    assert_eq!(established.lines().count(), 2);
}

#[test]
fn redirects() {
    let check = |line: &str, host: &str, want: Option<(u16, &str)>| {
        let request = request(&format!("{line}\r\nHost: {host}\r\n\r\n"));
        let got = redirect(&request, true).map(|reply| {
            let (parsed, head, body) = split(reply);
            assert_eq!(body.is_empty(), &*request.method == "HEAD");
            let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
            (parsed.status, location.unwrap_or_default().to_owned())
        });
        assert_eq!(got, want.map(|(status, url)| (status, url.to_owned())), "{line} {host}");
    };
    check("GET / HTTP/1.1", "Example.com", Some((301, "https://example.com/")));
    check("HEAD /a?b=c HTTP/1.1", "example.com:8080", Some((301, "https://example.com/a?b=c")));
    check("POST /a HTTP/1.1", "[2001:DB8::1]:80", Some((308, "https://[2001:db8::1]/a")));
    check("get / HTTP/1.1", "a", Some((308, "https://a/")));
    check("GET http://a:81/x HTTP/1.1", "b", Some((301, "https://a/x")));
    check("GET http://a?x HTTP/1.1", "b", Some((301, "https://a/?x")));
    check("GET //b/ HTTP/1.1", "a", Some((301, "https://a//b/")));
    check("GET /%41%zz%4 HTTP/1.1", "a", Some((301, "https://a/%41%25zz%254")));
    check(
        "GET /\"><b>'[\\]^`{|} HTTP/1.1",
        "a",
        Some((301, "https://a/%22%3E%3Cb%3E'%5B%5C%5D%5E%60%7B%7C%7D")),
    );
    check("GET / HTTP/1.1", "", None);
    check("OPTIONS * HTTP/1.1", "a", None);
    check("CONNECT a:443 HTTP/1.1", "a", None);
    assert_eq!(redirect(&request("GET / HTTP/1.0\r\n\r\n"), true), None);
}

#[test]
fn a_path_cannot_become_markup() {
    let request = request("GET /?a=1&b='onmouseover=x\"<script> HTTP/1.1\r\nHost: a\r\n\r\n");
    let (_, _, body) = split(redirect(&request, false).unwrap());
    let link = "https://a/?a=1&amp;b=&#39;onmouseover=x%22%3Cscript%3E";
    assert_eq!(
        body,
        format!("<!doctype html><title>Moved</title><p>Moved to <a href=\"{link}\">{link}</a>.\n")
    );
}
