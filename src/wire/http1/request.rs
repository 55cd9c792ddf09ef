//! Requests: from a client's head to what is wanted, and to the head that its server gets.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::head::{
    self, MAX_CONNECTION_OPTIONS, MAX_FIELDS, MAX_HEAD, connection_options, end_to_end, has_option, list,
    push_field, the_only,
};
use super::{Authority, Framing, Host};

/// The port of an `http` URI that names none (RFC 9110 §4.2.1).
const HTTP_PORT: u16 = 80;

/// Where a request wants to go (RFC 9112 §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port/…`, as clients of a proxy send it.
    Absolute {
        /// Of the URI's authority.
        host: Host,
        /// Of the URI's authority, else 80.
        port: u16,
    },
    /// `host:port`, of CONNECT.
    Authority {
        /// The tunnel's other end.
        host: Host,
        /// The tunnel's other end.
        port: u16,
    },
    /// `/path`, as servers get it.
    Origin,
    /// `*`, of OPTIONS.
    Asterisk,
}

/// What a request's head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head.
    pub len: usize,
    /// As sent; methods are case-sensitive.
    pub method: Box<str>,
    /// Where it wants to go.
    pub target: Target,
    /// Path and query as they are sent to the server; `*` for the whole server, empty for CONNECT.
    pub path: Box<str>,
    /// Of HTTP/1.`minor`: 0 or 1.
    pub minor: u8,
    /// Whether another request may follow on this connection. A proxy does not keep those of HTTP/1.0 (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// How the body ends.
    pub body: Framing,
    /// The one Host field as sent; it is an authority, never empty.
    pub host_header: Option<Box<str>>,
    /// The client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The one Proxy-Authorization field.
    pub proxy_authorization: Option<Secret>,
}

/// A field's value that nobody may read in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The value as sent.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a request is refused, and the status that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// 400, 431 or 505.
    pub status: u16,
    /// For the reply's body and the log.
    pub reason: &'static str,
}

const fn bad(reason: &'static str) -> Reject {
    Reject { status: 400, reason }
}

/// Parses `head`, which is exactly one head as found by [`super::HeadEnd`].
///
/// # Errors
/// See the module's list; after one the connection cannot be used any further.
pub fn parse_request(head: &[u8]) -> Result<Request, Reject> {
    let (request, host) = parse_request_and_host(head)?;
    host.map(|()| request)
}

/// The same, with what is wrong with the Host field apart: such a request goes nowhere, but what its client is told depends
/// on what else it says.
///
/// # Errors
/// As [`parse_request`], but for the Host field.
pub fn parse_request_and_host(head: &[u8]) -> Result<(Request, Result<(), Reject>), Reject> {
    if head.len() > MAX_HEAD {
        return Err(Reject { status: 431, reason: "the request's head is too large" });
    }
    head::check_lines(head).map_err(bad)?;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(bad("not one whole head")),
        Err(error) => return Err(refused_by_grammar(error, head::start_line(head))),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("an invalid request line"));
    };

    let (target, path) = parse_target(method, target)?;
    let (host_header, host) = match host_header(head, minor) {
        Ok(value) => (value, Ok(())),
        Err(reject) => (None, Err(reject)),
    };
    if connection_options(head).nth(MAX_CONNECTION_OPTIONS).is_some() {
        return Err(bad("too many Connection options"));
    }
    let body = head::framing(head, minor).map_err(bad)?.unwrap_or(Framing::None);
    if method == "CONNECT" && !matches!(body, Framing::None | Framing::Length(0)) {
        return Err(bad("CONNECT with a body"));
    }
    // Proxy-Connection was never standard (RFC 9112 appendix C.2.2): it may end a connection, not keep one.
    let proxy_close = head::fields(head)
        .filter(|field| field.is("proxy-connection"))
        .any(|field| list(field.value).any(|option| option.eq_ignore_ascii_case(b"close")));
    let expects_continue = minor >= 1
        && head::fields(head)
            .filter(|field| field.is("expect"))
            .any(|field| field.value.eq_ignore_ascii_case(b"100-continue"));
    let proxy_authorization =
        the_only(head, "proxy-authorization").map_err(|_| bad("several Proxy-Authorization fields"))?;
    let request = Request {
        len: head.len(),
        method: method.into(),
        target,
        path,
        minor,
        keep_alive: minor >= 1 && !proxy_close && !has_option(head, "close"),
        body,
        host_header,
        expects_continue,
        proxy_authorization: proxy_authorization
            .map(|value| std::str::from_utf8(value).map(|text| Secret(text.into())))
            .transpose()
            .map_err(|_| bad("an invalid Proxy-Authorization"))?,
    };
    Ok((request, host))
}

fn refused_by_grammar(error: httparse::Error, line: &[u8]) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => Reject { status: 431, reason: "too many header fields" },
        httparse::Error::HeaderName => bad("an invalid header field name"),
        httparse::Error::HeaderValue => bad("an invalid header field value"),
        httparse::Error::Version if names_another_version(line) => {
            Reject { status: 505, reason: "only HTTP/1.0 and HTTP/1.1 are spoken here" }
        }
        httparse::Error::Version => bad("an invalid HTTP version"),
        _ => bad("an invalid request line"),
    }
}

/// Whether a request line that is refused for its version is well-formed but for that (RFC 9112 §2.3).
fn names_another_version(line: &[u8]) -> bool {
    let version = line.split(|&b| b == b' ').nth(2);
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']))
}

/// The target and what is sent to the server in its place.
fn parse_target(method: &str, text: &str) -> Result<(Target, Box<str>), Reject> {
    // A fragment is not part of a request target, but some readers would cut one off, an authority's end, too.
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(bad("an invalid byte in the request target"));
    }
    if method == "CONNECT" {
        let Authority { host, port } = Authority::parse(text).map_err(bad)?;
        let port = port.ok_or(bad("CONNECT without a port"))?;
        return Ok((Target::Authority { host, port }, "".into()));
    }
    if text.starts_with('/') {
        return Ok((Target::Origin, text.into()));
    }
    if text == "*" {
        let target = (method == "OPTIONS").then(|| (Target::Asterisk, text.into()));
        return target.ok_or(bad("only OPTIONS has the target *"));
    }
    let (scheme, rest) = text.split_once("://").ok_or(bad("an invalid request target"))?;
    if scheme.eq_ignore_ascii_case("https") {
        return Err(bad("https must use CONNECT"));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(bad("only http URLs are proxied"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let Authority { host, port } = Authority::parse(authority).map_err(bad)?;
    let path = match path {
        // RFC 9112 §3.2.4: OPTIONS without a path means the whole server.
        "" if method == "OPTIONS" => "*".into(),
        "" => "/".into(),
        query if query.starts_with('?') => format!("/{query}").into(),
        path => path.into(),
    };
    Ok((Target::Absolute { host, port: port.unwrap_or(HTTP_PORT) }, path))
}

/// RFC 9112 §3.2: exactly one in HTTP/1.1, at most one in HTTP/1.0, and valid. An empty one is valid, but names nobody.
fn host_header(head: &[u8], minor: u8) -> Result<Option<Box<str>>, Reject> {
    match the_only(head, "host").map_err(|_| bad("several Host fields"))? {
        None if minor >= 1 => Err(bad("no Host field")),
        None | Some(b"") => Ok(None),
        Some(value) => {
            let value = std::str::from_utf8(value).map_err(|_| bad("an invalid Host field"))?;
            Authority::parse(value).map_err(|_| bad("an invalid Host field"))?;
            Ok(Some(value.into()))
        }
    }
}

/// The one protocol to which a connection may change (RFC 6455). In HTTP/2 there would be requests that nobody looks at.
const WEBSOCKET: &[u8] = b"websocket";

/// Whether `head`, from which `request` was parsed, asks its server to go on with WebSocket (RFC 9110 §7.8).
pub fn asks_for_upgrade(head: &[u8], request: &Request) -> bool {
    request.minor >= 1
        && matches!(request.body, Framing::None | Framing::Length(0))
        && has_option(head, "upgrade")
        && matches!(the_only(head, "upgrade"), Ok(Some(protocol)) if protocol.eq_ignore_ascii_case(WEBSOCKET))
}

/// As [`forward_request`], with the wish for WebSocket, which only who gives up its own part in the connection may pass on.
pub fn forward_upgrade(head: &[u8], request: &Request) -> Vec<u8> {
    let mut out = forward_request(head, request);
    // The empty line.
    out.truncate(out.len().saturating_sub(2));
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
    out.extend_from_slice(WEBSOCKET);
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// The target of the request that `bytes` begin with, as a path: of an absolute URL what stands behind the authority. It
/// is read without the strictness of [`parse_request`], for those who only want to know what a server may understand.
pub fn target_of(bytes: &[u8]) -> Cow<'_, str> {
    let start = bytes.iter().position(|b| !b"\r\n".contains(b)).unwrap_or_default();
    let line = bytes.get(start..).unwrap_or_default().split(|&b| b == b'\r' || b == b'\n').next();
    let target = line.unwrap_or_default().split(|&b| b == b' ').nth(1).unwrap_or_default();
    let scheme = target.windows(3).position(|at| at == b"://").filter(|_| !target.starts_with(b"/"));
    let Some(scheme) = scheme else { return String::from_utf8_lossy(target) };
    let behind = target.get(scheme.saturating_add(3)..).unwrap_or_default();
    match behind.iter().position(|b| b"/?".contains(b)).and_then(|at| behind.get(at..)) {
        Some(path) if path.starts_with(b"/") => String::from_utf8_lossy(path),
        _ => Cow::Borrowed("/"),
    }
}

/// The head that the server gets for `head`, which is the one that `request` was parsed from: the target in origin form,
/// Host from the target's authority and in front, hop-by-hop and `Proxy-*` fields removed; the other fields in their
/// order, byte by byte, but for the spelling of those that frame the body.
///
/// The version stays the client's, as a server that is told 1.1 may answer with what a client of 1.0 cannot read.
pub fn forward_request(head: &[u8], request: &Request) -> Vec<u8> {
    let mut start = format!("{} {} HTTP/1.{}\r\n", request.method, request.path, request.minor);
    // Writing to a String cannot fail.
    let _ = match &request.target {
        Target::Absolute { host, port: HTTP_PORT } => write!(start, "Host: {host}\r\n"),
        Target::Absolute { host, port } | Target::Authority { host, port } => {
            write!(start, "Host: {host}:{port}\r\n")
        }
        Target::Origin | Target::Asterisk => match &request.host_header {
            Some(host) => write!(start, "Host: {host}\r\n"),
            None if request.minor >= 1 => write!(start, "Host:\r\n"),
            None => Ok(()),
        },
    };
    let mut out = start.into_bytes();
    for field in end_to_end(head).filter(|field| !field.is("host")) {
        push_field(&mut out, &field);
    }
    out.extend_from_slice(b"\r\n");
    out
}
