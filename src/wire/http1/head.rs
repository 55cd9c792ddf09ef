//! What requests and responses share: where a head ends, its strict reading, its fields and what they say of framing.

use super::Framing;

/// Largest head in bytes; a request's head above it is answered 431.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a head; a request with more is answered 431.
pub const MAX_FIELDS: usize = 128;
/// Most options in the Connection fields of one head, as each is compared with each field.
pub const MAX_CONNECTION_OPTIONS: usize = 64;
/// Largest Content-Length and chunk size: the largest number that every reader holds exactly, also one that keeps
/// numbers as floating point or signed.
pub const MAX_LENGTH: u64 = (1 << 53) - 1;

/// Finds the end of a head while it arrives. Empty lines before the start line belong to the head (RFC 9112 §2.2).
///
/// A line that ends in a bare LF counts as a line here, so that a head of such lines ends, too, and is refused at once by
/// its parser instead of at a deadline.
#[derive(Debug, Clone, Default)]
pub struct HeadEnd {
    /// Bytes looked at.
    scanned: usize,
    /// Where the line begins that is being looked at.
    line: usize,
    /// Whether the start line was seen.
    started: bool,
}

impl HeadEnd {
    /// Nothing seen yet.
    pub fn new() -> Self {
        HeadEnd::default()
    }

    /// The length of the head at the front of `bytes`, once it is whole. `bytes` is everything received so far; each
    /// call's slice begins with the one before, and only what is new is looked at.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(new) = bytes.get(self.scanned..) {
            let Some(lf) = new.iter().position(|&b| b == b'\n') else {
                self.scanned = bytes.len();
                return None;
            };
            let lf = self.scanned.saturating_add(lf);
            let end = lf.saturating_add(1);
            let is_empty = matches!(bytes.get(self.line..lf), Some(b"" | b"\r"));
            (self.scanned, self.line) = (end, end);
            if is_empty && self.started {
                return Some(end);
            }
            self.started |= !is_empty;
        }
        None
    }
}

/// Checks that `head` is one whole head, nothing behind it, with every line ended by CRLF, none folded, and no control
/// byte but HTAB. The grammar within the lines is httparse's business.
pub(super) fn check_lines(head: &[u8]) -> Result<(), &'static str> {
    if HeadEnd::new().find(head) != Some(head.len()) {
        return Err("not one whole head");
    }
    let mut previous = b'\n';
    for &byte in head {
        match (previous, byte) {
            (b'\r', b'\n') => {}
            (b'\r', _) => return Err("a bare CR"),
            (_, b'\n') => return Err("a bare LF"),
            (b'\n', b' ' | b'\t') => return Err("a folded line"),
            (_, b'\t' | b'\r') => {}
            (_, 0..=0x1f | 0x7f) => return Err("a control byte"),
            _ => {}
        }
        previous = byte;
    }
    Ok(())
}

/// `head` without the empty lines before its start line. Before a request a server should pass over one at least
/// (RFC 9112 §2.2): some clients send one behind a body.
pub fn without_leading_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

/// One field of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// As sent.
    pub(super) name: &'a [u8],
    /// Without the whitespace around it.
    pub(super) value: &'a [u8],
    /// The whole line with its CRLF.
    pub(super) line: &'a [u8],
}

impl Field<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The start line without CRLF, of a head that passed [`check_lines`].
pub(super) fn start_line(head: &[u8]) -> &[u8] {
    let line = without_leading_lines(head).split(|&b| b == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The fields of a head that passed [`check_lines`]. Both what is looked at and what is passed on is read by this.
pub(super) fn fields(head: &[u8]) -> impl Iterator<Item = Field<'_>> + Clone {
    without_leading_lines(head).split_inclusive(|&b| b == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        Some(Field { name, value, line })
    })
}

/// The options of all Connection fields (RFC 9110 §7.6.1).
pub(super) fn connection_options(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields(head).filter(|field| field.is("connection")).flat_map(|field| list(field.value))
}

/// The elements of a comma-separated list.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Whether `option` is among the Connection options.
pub(super) fn has_option(head: &[u8], option: &str) -> bool {
    connection_options(head).any(|o| o.eq_ignore_ascii_case(option.as_bytes()))
}

/// Fields that concern one connection only, besides those that Connection names (RFC 9110 §7.6.1, RFC 9113 §8.2.2) and
/// `Proxy-*`. Trailer stays, as the trailers do.
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "te", "upgrade", "http2-settings"];
/// What Connection cannot remove: naming one of these there is an attempt at changing where the message ends or goes.
const NEVER_HOP_BY_HOP: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// The fields that are passed on, in their order: without the hop-by-hop ones.
pub(super) fn end_to_end(head: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let named: Vec<&[u8]> = connection_options(head).take(MAX_CONNECTION_OPTIONS).collect();
    fields(head).filter(move |field| {
        let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
        let is_proxy = field.name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-"));
        let is_named = named.iter().any(|name| field.name.eq_ignore_ascii_case(name));
        let is_hop_by_hop = is_one_of(&HOP_BY_HOP) || is_proxy || is_named;
        is_one_of(&NEVER_HOP_BY_HOP) || !is_hop_by_hop
    })
}

/// Appends a field as it is passed on: byte by byte, but for what frames the body. Content-Length without leading zeros,
/// `chunked` in lower case and one blank before them leave no reader a reason to see something else there.
pub(super) fn push_field(out: &mut Vec<u8>, field: &Field<'_>) {
    let value = if field.is("content-length") {
        let zeros = field.value.iter().take_while(|&&b| b == b'0').count();
        field.value.get(zeros..).filter(|digits| !digits.is_empty()).unwrap_or(b"0")
    } else if field.is("transfer-encoding") {
        // No other coding passes `framing`.
        b"chunked"
    } else {
        return out.extend_from_slice(field.line);
    };
    for part in [field.name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What Transfer-Encoding and Content-Length say; `None` where there is neither (RFC 9112 §6.1–6.3).
pub(super) fn framing(head: &[u8], minor: u8) -> Result<Option<Framing>, &'static str> {
    let transfer_encoding =
        the_only(head, "transfer-encoding").map_err(|_| "several Transfer-Encoding fields")?;
    let content_length = the_only(head, "content-length").map_err(|_| "several Content-Length fields")?;
    match (transfer_encoding, content_length) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("both Transfer-Encoding and Content-Length"),
        (Some(_), None) if minor == 0 => Err("Transfer-Encoding in HTTP/1.0"),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        (Some(_), None) => Err("a Transfer-Encoding other than chunked"),
        (None, Some(length)) => parse_length(length).map(|n| Some(Framing::Length(n))),
    }
}

/// There is more than one such field.
#[derive(Debug)]
pub(super) struct Several;

/// The value of the one field of that name, if it is there.
pub(super) fn the_only<'a>(head: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, Several> {
    let mut values = fields(head).filter(|field| field.is(name)).map(|field| field.value);
    let first = values.next();
    if values.next().is_some() { Err(Several) } else { Ok(first) }
}

/// 1*DIGIT: no sign, no list, no blank within.
fn parse_length(value: &[u8]) -> Result<u64, &'static str> {
    const INVALID: &str = "an invalid Content-Length";
    if value.is_empty() {
        return Err(INVALID);
    }
    value.iter().try_fold(0u64, |sum, &byte| {
        if !byte.is_ascii_digit() {
            return Err(INVALID);
        }
        let sum = sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(byte & 0x0f)));
        sum.filter(|&sum| sum <= MAX_LENGTH).ok_or("a Content-Length beyond every use")
    })
}
