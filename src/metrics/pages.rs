//! What the endpoint answers: `/metrics` for Prometheus, `/healthz` for whoever restarts things, and the status page for people.
//!
//! From the bytes of a request's head to the bytes of its answer. How they come and go is [`super::server`]'s business.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Metrics;
use super::render::CONTENT_TYPE;
use super::server::Site;
use super::status::{self, Asked, History, Overview};
use crate::sys::files;

/// What the status page shows may be so old: whoever asks more often costs no more.
const FRESH: Duration = Duration::from_secs(1);
/// The longest name that a machine gives itself.
const MAX_HOST: usize = 255;

/// What the status page's answers say beside their type: they are nobody else's, and nothing is kept of them.
const PRIVATE: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
     Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n";

/// Everything that is served.
pub(super) struct Pages {
    metrics: Arc<Metrics>,
    overview: Box<dyn Overview>,
    history: History,
    /// The last document of the status page, and when it was made.
    made: Option<(Instant, Vec<u8>)>,
}

impl Pages {
    /// From now on the status page has something to show.
    pub(super) fn new(metrics: Arc<Metrics>, overview: Box<dyn Overview>, now: Instant) -> Self {
        metrics.denied.keep();
        Pages { history: History::new(now, &metrics), metrics, overview, made: None }
    }

    /// Looks at the request line (RFC 9112 §3) and, for the status page, at the host that is asked for.
    fn respond(&mut self, head: &[u8]) -> Response {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(b"HTTP/1.0" | b"HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Response::error("400 Bad Request", true);
        };
        let with_body = match method {
            b"GET" => true,
            b"HEAD" => false,
            _ => return Response::error("405 Method Not Allowed", true),
        };
        match target.split(|byte| *byte == b'?').next() {
            Some(b"/metrics") => Response::ok(CONTENT_TYPE, self.metrics.render().into_bytes(), with_body),
            Some(b"/healthz") => Response::ok("text/plain", b"ok\n", with_body),
            Some(b"/" | b"/status") => self.for_us(head, with_body, |_| {
                let page = Response::ok("text/html; charset=utf-8", status::PAGE.as_bytes(), with_body);
                Response { policy: Some(status::POLICY), ..page }
            }),
            Some(b"/status.json") => self.for_us(head, with_body, |pages| {
                Response::ok("application/json", pages.document(Instant::now()), with_body)
            }),
            _ => Response::error("404 Not Found", with_body),
        }
    }

    /// The answer to somebody who knows whom he asks.
    fn for_us(&mut self, head: &[u8], with_body: bool, then: impl FnOnce(&mut Self) -> Response) -> Response {
        match status::asked_for(head, &own_name()) {
            Asked::Us => Response { is_private: true, ..then(self) },
            Asked::Another => Response::error("421 Misdirected Request", with_body),
            Asked::Unclear => Response::error("400 Bad Request", with_body),
        }
    }

    fn document(&mut self, now: Instant) -> Vec<u8> {
        if let Some((at, document)) = &self.made
            && now.saturating_duration_since(*at) < FRESH
        {
            return document.clone();
        }
        let document = status::document(&self.metrics, &self.history, &*self.overview, &own_name());
        self.made = Some((now, document.clone()));
        document
    }
}

impl Site for Pages {
    fn answer(&mut self, head: &[u8]) -> Vec<u8> {
        self.respond(head).bytes()
    }

    fn go_on(&mut self, now: Instant) -> Option<Instant> {
        self.history.go_on(now, &self.metrics);
        Some(self.history.due())
    }
}

/// The answer to a request whose head does not end within what is read of one.
pub(super) fn too_large() -> Vec<u8> {
    Response::error("431 Request Header Fields Too Large", true).bytes()
}

/// How this machine calls itself, as of now; nothing where it does not tell.
fn own_name() -> String {
    let name = files::read(Path::new("/proc/sys/kernel/hostname"), MAX_HOST).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    /// What a browser may do with it.
    policy: Option<&'static str>,
    is_private: bool,
    body: Cow<'static, [u8]>,
    /// HEAD gets no body, but the length that it would have.
    with_body: bool,
}

impl Response {
    fn ok(content_type: &'static str, body: impl Into<Cow<'static, [u8]>>, with_body: bool) -> Self {
        let (status, body) = ("200 OK", body.into());
        Response { status, content_type, policy: None, is_private: false, body, with_body }
    }

    fn error(status: &'static str, with_body: bool) -> Self {
        Response { status, ..Response::ok("text/plain", format!("{status}\n").into_bytes(), with_body) }
    }

    fn bytes(&self) -> Vec<u8> {
        let Response { status, content_type, body, .. } = self;
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        );
        if status.starts_with("405") {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        if let Some(policy) = self.policy {
            head.push_str(&format!("Content-Security-Policy: {policy}\r\n"));
        }
        if self.is_private {
            head.push_str(PRIVATE);
        }
        head.push_str("Connection: close\r\n\r\n");
        let mut bytes = head.into_bytes();
        if self.with_body {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Counts how often it is asked.
    struct Counts(Arc<AtomicU32>);

    impl Overview for Counts {
        fn describe(&self, _: &Metrics, json: &mut status::Json) {
            json.key("asked").number(self.0.fetch_add(1, Ordering::Relaxed).into());
        }
    }

    #[test]
    fn who_asks_often_costs_no_more() {
        let (asked, now) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let mut pages = Pages::new(Arc::new(Metrics::new()), Box::new(Counts(Arc::clone(&asked))), now);
        let first = pages.document(now);
        assert_eq!(pages.document(now + FRESH / 2), first);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_ne!(pages.document(now + FRESH), first);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_status_page_is_for_those_who_know_whom_they_ask() {
        let mut pages = Pages::new(Arc::new(Metrics::new()), Box::new(()), Instant::now());
        let mut check = |request: &str, status: &str| {
            let answer = String::from_utf8(pages.answer(request.as_bytes())).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
            answer
        };
        for path in ["/", "/status", "/status.json", "/?a", "/status.json?b"] {
            let answer = check(&format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9512\r\n\r\n"), "200 OK");
            assert!(answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{answer}");
            let is_page = !path.contains("json");
            assert_eq!(answer.contains("\r\nContent-Security-Policy: default-src 'none'; "), is_page);
            let other = check(&format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421 ");
            assert!(other.ends_with("\r\n\r\n421 Misdirected Request\n"), "{other}");
            check(&format!("GET {path} HTTP/1.1\r\n\r\n"), "400 ");
        }
        // Whoever scrapes calls it as he likes.
        check("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "200 OK");
        check("POST /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 ");
        let head = check("HEAD /status HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
}
