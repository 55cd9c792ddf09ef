//! Responses: how a server's answer ends, and the head that the client gets.

use super::Framing;
use super::head::{
    self, MAX_CONNECTION_OPTIONS, MAX_FIELDS, MAX_HEAD, connection_options, end_to_end, has_option,
    push_field, start_line,
};

/// What a response's head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Bytes of the head.
    pub len: usize,
    /// 100 to 999.
    pub status: u16,
    /// Of HTTP/1.`minor`: 0 or 1.
    pub minor: u8,
    /// 1xx: the answer itself comes behind it. Clients of HTTP/1.0 must not get one (RFC 9110 §15.2).
    pub interim: bool,
    /// Whether the server takes another request on this connection.
    pub keep_alive: bool,
    /// How the body ends.
    pub body: Framing,
}

/// Whether `head`, which is exactly one head as found by [`super::HeadEnd`], says that its server goes on in another protocol
/// (RFC 9110 §15.2.2). To be asked only by who has asked for that; the head is then passed on as it is.
pub fn switches_protocols(head: &[u8]) -> bool {
    head::check_lines(head).is_ok()
        && head.starts_with(b"HTTP/1.1 101 ")
        && has_option(head, "upgrade")
        && head::fields(head).any(|field| field.is("upgrade"))
}

/// Parses `head`, which is exactly one head as found by [`super::HeadEnd`], of the answer to a request of that method.
///
/// # Errors
/// The module's list, and 101: Upgrade is never passed on, so a server that switches protocols was asked by nobody.
/// After an error the connection cannot be used any further.
pub fn parse_response(head: &[u8], request_method: &str) -> Result<Response, &'static str> {
    if head.len() > MAX_HEAD {
        return Err("the response's head is too large");
    }
    if head.starts_with(b"\r\n") {
        return Err("an empty line before the response");
    }
    head::check_lines(head)?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err("not one whole head"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields"),
        Err(httparse::Error::HeaderName) => return Err("an invalid header field name"),
        Err(httparse::Error::HeaderValue) => return Err("an invalid header field value"),
        Err(_) => return Err("an invalid status line"),
    }
    let (Some(status @ 100..), Some(minor)) = (parsed.code, parsed.version) else {
        return Err("an invalid status line");
    };
    if status == 101 {
        return Err("a switch of protocols that was not asked for");
    }
    if connection_options(head).nth(MAX_CONNECTION_OPTIONS).is_some() {
        return Err("too many Connection options");
    }

    let declared = head::framing(head, minor)?;
    // RFC 9112 §6.3, items 1 and 2; then what is declared, then the end of the connection.
    let without_body = is_without_framing(status)
        || status == 304
        || request_method == "HEAD"
        || (request_method == "CONNECT" && (200..300).contains(&status));
    let body = if without_body { Framing::None } else { declared.unwrap_or(Framing::ToEof) };
    let persists = minor >= 1 || has_option(head, "keep-alive");
    Ok(Response {
        len: head.len(),
        status,
        minor,
        interim: status < 200,
        keep_alive: persists && !has_option(head, "close") && body != Framing::ToEof,
        body,
    })
}

/// 1xx and 204 have no body and may not declare one (RFC 9110 §8.6, RFC 9112 §6.1).
fn is_without_framing(status: u16) -> bool {
    status < 200 || status == 204
}

/// The head that the client gets for `head`, which is the one that `response` was parsed from: our own version, status
/// and reason as sent, hop-by-hop and `Proxy-*` fields removed; the others in their order, byte by byte, but for the
/// spelling of those that frame the body. A body that is
/// declared where there can be none is not passed on, so that no client waits for it.
pub fn forward_response(head: &[u8], response: &Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len());
    out.extend_from_slice(b"HTTP/1.1");
    out.extend_from_slice(start_line(head).get(b"HTTP/1.x".len()..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    let unframed = is_without_framing(response.status);
    for field in end_to_end(head) {
        if !(unframed && (field.is("content-length") || field.is("transfer-encoding"))) {
            push_field(&mut out, &field);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
