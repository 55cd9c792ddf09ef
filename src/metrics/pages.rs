//! What the endpoint answers: `/metrics` for Prometheus, `/healthz` for whoever restarts things.
//!
//! From the bytes of a request's head to the bytes of its answer. How they come and go is [`super::server`]'s business.

use super::Metrics;
use super::render::CONTENT_TYPE;

/// The answer to a request whose head does not end within what is read of one.
pub(super) fn too_large() -> Vec<u8> {
    Response::error("431 Request Header Fields Too Large", true).bytes()
}

/// The answer to the request with this head.
pub(super) fn answer(head: &[u8], metrics: &Metrics) -> Vec<u8> {
    respond(head, metrics).bytes()
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
    /// HEAD gets no body, but the length that it would have.
    with_body: bool,
}

impl Response {
    fn ok(content_type: &'static str, body: String, with_body: bool) -> Self {
        Response { status: "200 OK", content_type, body, with_body }
    }

    fn error(status: &'static str, with_body: bool) -> Self {
        Response { status, content_type: "text/plain", body: format!("{status}\n"), with_body }
    }

    fn bytes(&self) -> Vec<u8> {
        let Response { status, content_type, body, .. } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
            body.len()
        );
        if self.with_body {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

/// Looks at the request line only (RFC 9112 §3): no header changes the answer.
fn respond(head: &[u8], metrics: &Metrics) -> Response {
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
        Some(b"/metrics") => Response::ok(CONTENT_TYPE, metrics.render(), with_body),
        Some(b"/healthz") => Response::ok("text/plain", "ok\n".to_owned(), with_body),
        _ => Response::error("404 Not Found", with_body),
    }
}
