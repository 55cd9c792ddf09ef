//! HTTP/1.0 and 1.1 heads and message framing (RFC 9110, RFC 9112), as a forward proxy needs them.
//!
//! Two readers of one message must agree on where it ends, or a request can be hidden in another's body, past the
//! decision. So there is no lenience here: what the standard lets a recipient repair is refused instead, and what is
//! passed on is exactly what was looked at. Refused are, in particular:
//!
//! - lines that end in anything but CRLF, folded lines, control bytes, whitespace before a colon (RFC 9112 §2.2, §5);
//! - Content-Length together with Transfer-Encoding, a repeated Content-Length and one that is a list, even of equal
//!   values (RFC 9110 §8.6 leaves the choice), and one that is not plain digits;
//! - any transfer coding but one `chunked`, and any at all in HTTP/1.0 (RFC 9112 §6.1);
//! - several Host fields, none in HTTP/1.1, and authorities that other readers could take for another (userinfo, zone
//!   ids, percent-encoding, `127.1`).
//!
//! It does no I/O, never decodes a body and never changes one: a chunked body is passed on chunk by chunk as it came,
//! with the trailers. A *head* is the start line with the fields and the empty line behind them.

mod authority;
mod body;
mod head;
mod reply;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use authority::{Authority, Host};
pub use body::{Body, MAX_CHUNK_EXTENSION, MAX_TRAILERS, Malformed};
pub use head::{HeadEnd, MAX_CONNECTION_OPTIONS, MAX_FIELDS, MAX_HEAD, MAX_LENGTH, without_leading_lines};
pub use reply::{ESTABLISHED, redirect, reply, reply_to};
pub use request::{
    Reject, Request, Secret, Target, asks_for_upgrade, forward_request, forward_upgrade, parse_request,
    parse_request_and_host, target_of,
};
pub use response::{Response, forward_response, parse_response, switches_protocols};

/// How the end of a message's body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes (Content-Length).
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection is closed; responses only.
    ToEof,
}
