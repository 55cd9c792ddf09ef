//! A DNS query: over UDP the message alone (RFC 1035 §4.2.1), over TCP behind two bytes of length (§4.2.2).

use super::{Identity, Outcome};
use crate::wire::cursor::Cursor;
use crate::wire::dns::parse_query;

/// Largest query, without its length prefix; the longest name, options and padding to a multiple of 128 bytes (RFC 8467
/// §4.1) leave room. The bound keeps the first byte apart from those of TLS, HTTP and SOCKS 5, whose clients would
/// wait for the answer to a greeting that looks like a length.
pub(super) const MAX_QUERY: usize = 0x04ff;
/// Header, the root's name, type and class (RFC 1035 §4.1).
const MIN_QUERY: usize = 12 + 1 + 4;
/// QR and OPCODE: all zero in a standard query.
const MASK_NOT_QUERY: u16 = 0xf800;

/// Looks at all bytes so far. Nothing here is *begun*: too many other protocols start with a small number.
pub(super) fn look(prelude: &[u8]) -> Outcome {
    let mut cursor = Cursor::new(prelude);
    let Ok(length) = cursor.u16().map(usize::from) else { return Outcome::NeedMore { begun: false } };
    if !(MIN_QUERY..=MAX_QUERY).contains(&length) || !header_may_fit(cursor) {
        return Outcome::Identified(Identity::None);
    }
    match cursor.take(length) {
        // Of a query that is cut off, the header is all that is judged: the name is read once, when it is whole.
        Err(_) => Outcome::NeedMore { begun: false },
        Ok(message) => Outcome::Identified(match parse_query(message) {
            Some(query) => Identity::Dns { query: Some(query.name) },
            None => Identity::None,
        }),
    }
}

/// The name that a datagram asks for. One with several questions is no query (RFC 9619 §4), and not to be told from other
/// protocols: the version of a QUIC packet stands where the flags do, and its number of questions is never 1.
pub(super) fn datagram_query(datagram: &[u8]) -> Option<Box<str>> {
    let counts = datagram.get(4..6)?;
    (counts == [0, 1]).then(|| parse_query(datagram))?.map(|query| query.name)
}

/// Whether the fields of the header that have come are those of a query with a question, so that other protocols
/// need not wait for the rest of a length that is none.
fn header_may_fit(mut message: Cursor<'_>) -> bool {
    let (_id, flags) = (message.u16(), message.u16());
    let Ok(flags) = flags else { return true };
    flags & MASK_NOT_QUERY == 0 && message.u16() != Ok(0)
}
