//! An HTTP/1 request (RFC 9112): its request line makes it one, its head must be whole.
//!
//! The request line is strict (one space between its parts, HTTP/1.0 or 1.1), so that other line-based protocols are
//! not mistaken for HTTP. Header fields are not judged: a head with broken ones is still HTTP, only without a host.

use std::net::Ipv6Addr;

use super::{Identity, Outcome};

/// Largest request head, in bytes, the empty line included.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most header fields of a head that is read.
const MAX_FIELDS: usize = 256;

/// Follows the head's bytes, each looked at once.
#[derive(Debug)]
pub(super) struct RequestScanner {
    /// Bytes that are done with.
    scanned: usize,
    part: Part,
}

/// Where in the head the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Before the request line, where empty lines are allowed (RFC 9112 §2.2).
    EmptyLines,
    Method,
    /// Behind the first space, with nothing of the target yet.
    TargetStart,
    Target,
    /// Behind the second space; so many bytes of [`VERSION`] have come.
    Version(usize),
    MinorVersion,
    /// Behind the version: the line's end.
    RequestLineEnd,
    /// Behind the request line's CR.
    RequestLineCr,
    /// At the start of a line of the header section.
    LineStart,
    /// Behind a CR at the start of a line.
    LineStartCr,
    /// Inside such a line.
    Line,
    /// Behind the empty line.
    End,
}

/// The version without its minor number (RFC 9112 §2.3).
const VERSION: &[u8] = b"HTTP/1.";

impl RequestScanner {
    pub(super) fn new() -> Self {
        RequestScanner { scanned: 0, part: Part::EmptyLines }
    }

    /// Looks at all bytes so far.
    pub(super) fn look(&mut self, prelude: &[u8]) -> Outcome {
        let bounded = prelude.get(..MAX_HEAD).unwrap_or(prelude);
        for &byte in bounded.get(self.scanned..).unwrap_or_default() {
            if matches!(self.part, Part::End) {
                break;
            }
            match self.part.after(byte) {
                Some(part) => self.part = part,
                None => return Outcome::Identified(Identity::None),
            }
            self.scanned += 1;
        }
        match self.part {
            Part::End => {
                let head = bounded.get(..self.scanned).unwrap_or(bounded);
                Outcome::Identified(Identity::Http { host: only_host(head) })
            }
            part if bounded.len() < MAX_HEAD => Outcome::NeedMore { begun: part.begun() },
            part if part.begun() => Outcome::TooLarge,
            _ => Outcome::Identified(Identity::None),
        }
    }
}

impl Part {
    /// The part behind `byte`; `None` if no request goes on like that.
    fn after(self, byte: u8) -> Option<Part> {
        match (self, byte) {
            (Part::EmptyLines, b'\r' | b'\n') => Some(Part::EmptyLines),
            (Part::EmptyLines | Part::Method, _) if is_token(byte) => Some(Part::Method),
            (Part::Method, b' ') => Some(Part::TargetStart),
            (Part::TargetStart | Part::Target, _) if is_target(byte) => Some(Part::Target),
            (Part::Target, b' ') => Some(Part::Version(0)),
            (Part::Version(seen), _) if VERSION.get(seen) == Some(&byte) => match seen + 1 {
                seen if seen == VERSION.len() => Some(Part::MinorVersion),
                seen => Some(Part::Version(seen)),
            },
            (Part::MinorVersion, b'0' | b'1') => Some(Part::RequestLineEnd),
            // A lone LF ends a line, too (RFC 9112 §2.2).
            (Part::RequestLineEnd, b'\r') => Some(Part::RequestLineCr),
            (Part::RequestLineEnd | Part::RequestLineCr, b'\n') => Some(Part::LineStart),
            (Part::LineStart, b'\r') => Some(Part::LineStartCr),
            (Part::LineStart | Part::LineStartCr, b'\n') => Some(Part::End),
            (Part::Line, b'\n') => Some(Part::LineStart),
            (Part::LineStart | Part::LineStartCr | Part::Line, _) => Some(Part::Line),
            _ => None,
        }
    }

    /// Whether the first space of the request line has come.
    fn begun(self) -> bool {
        !matches!(self, Part::EmptyLines | Part::Method)
    }
}

/// tchar (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a request target is made of; servers take bytes beyond ASCII, too.
fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// The value of the Host field if there is exactly one and it is an authority.
fn only_host(head: &[u8]) -> Option<Box<str>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).ok()?;
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let value = std::str::from_utf8(host.value).ok()?;
            is_authority(value).then(|| Box::from(value))
        }
        _ => None,
    }
}

/// uri-host [ ":" port ] (RFC 9110 §7.2, RFC 3986 §3.2.2), the host not empty: a place to dial.
fn is_authority(value: &str) -> bool {
    let (host_ok, port) = match value.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (host, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            (!host.is_empty() && host.bytes().all(is_reg_name), port)
        }
    };
    // RFC 3986 §3.2.3: the digits behind the colon may be missing.
    let port_ok = match port.strip_prefix(':') {
        Some("") => true,
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    host_ok && port_ok
}

/// unreserved, sub-delims and the sign of percent-encoding (RFC 3986 §3.2.2).
fn is_reg_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}
