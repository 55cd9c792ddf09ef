//! What the proxy itself answers. Every answer says how it ends, and carries no byte of the client's but an escaped
//! `Location`.

use std::fmt::Write as _;

use super::{Authority, Host, Request, Target};

/// The answer to a CONNECT: the tunnel begins behind it. It has no Content-Length (RFC 9110 §9.3.6).
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What a client that must say who it is may use. Without the charset it may send names and passwords in another encoding
/// than the configuration has them (RFC 7617 §2.1).
const CHALLENGE: &str = "Proxy-Authenticate: Basic realm=\"calamary\", charset=\"UTF-8\"\r\n";

/// A reply with a one-line text body that names the reason. `close` says that the connection ends behind it, which must
/// be so unless the request's body was read to its end. 407 asks for Basic credentials.
pub fn reply(status: u16, reason: &str, close: bool) -> Vec<u8> {
    reply_to("", status, reason, close)
}

/// The same to a request of a known method: HEAD gets no body (RFC 9110 §9.3.2).
pub fn reply_to(method: &str, status: u16, reason: &str, close: bool) -> Vec<u8> {
    let challenge = if status == 407 { CHALLENGE } else { "" };
    let content = Content { kind: "text/plain; charset=utf-8", text: format!("{reason}\n") };
    message(method, status, challenge, &content, close)
}

/// The answer that sends a plain HTTP request to https: 301 for GET and HEAD, 308 for methods that must not change. The
/// port is dropped, as the one of https is not known. `None` where there is no valid place to send it to, which is then
/// refused with 403: no Host field in origin form, `*`, CONNECT.
pub fn redirect(request: &Request, close: bool) -> Option<Vec<u8>> {
    let host = match &request.target {
        Target::Absolute { host, .. } => host.clone(),
        Target::Origin => Authority::parse(request.host_header.as_deref()?).ok()?.host,
        Target::Authority { .. } | Target::Asterisk => return None,
    };
    let location = https_url(&host, &request.path)?;
    let status = if matches!(&*request.method, "GET" | "HEAD") { 301 } else { 308 };
    let link = escape_html(&location);
    let text = format!("<!doctype html><title>Moved</title><p>Moved to <a href=\"{link}\">{link}</a>.\n");
    let content = Content { kind: "text/html; charset=utf-8", text };
    Some(message(&request.method, status, &format!("Location: {location}\r\n"), &content, close))
}

/// A body of ours.
struct Content {
    kind: &'static str,
    text: String,
}

/// `fields` are whole lines with their CRLF.
fn message(method: &str, status: u16, fields: &str, content: &Content, close: bool) -> Vec<u8> {
    let Content { kind, text } = content;
    let connection = if close { "Connection: close\r\n" } else { "" };
    let mut out = format!(
        "HTTP/1.1 {status} {}\r\n{fields}Content-Type: {kind}\r\nContent-Length: {}\r\n{connection}\r\n",
        phrase(status),
        text.len(),
    );
    if method != "HEAD" {
        out.push_str(text);
    }
    out.into_bytes()
}

/// RFC 9110 §15, RFC 6585 §5.
fn phrase(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// `path` is a path and query; what may not stand there (RFC 3986 §3.3, §3.4) is percent-encoded.
fn https_url(host: &Host, path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut url = format!("https://{host}");
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let is_encoded =
            byte == b'%' && behind.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if is_encoded || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        rest = behind;
    }
    Some(url)
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
