//! The frames of an Initial packet (RFC 9000 §12.4, §17.2.2): CRYPTO is kept, what may stand between is passed over.

use super::varint;
use crate::wire::cursor::{Cursor, Short};

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
/// ACK, and ACK with counts of ECN marks.
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;
/// CONNECTION_CLOSE of the transport; an application's has no place here (§12.5).
const CONNECTION_CLOSE: u64 = 0x1c;

/// A piece of the handshake (RFC 9000 §19.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CryptoFrame<'a> {
    /// Where in the stream it belongs, in bytes.
    pub offset: u64,
    /// What belongs there.
    pub data: &'a [u8],
}

/// The CRYPTO frames of an Initial packet's payload, in its order.
///
/// `None` is malformed: a frame that has no place in an Initial, or one that is cut off. An endpoint would close the
/// connection (§12.4).
pub fn crypto_frames(payload: &[u8]) -> Option<Vec<CryptoFrame<'_>>> {
    let mut cursor = Cursor::new(payload);
    let mut found = Vec::new();
    while !cursor.is_empty() {
        match varint::read(&mut cursor).ok()? {
            PADDING | PING => {}
            kind @ (ACK | ACK_ECN) => skip_ack(&mut cursor, kind).ok()?,
            CRYPTO => found.push(read_crypto(&mut cursor).ok()?),
            CONNECTION_CLOSE => skip_close(&mut cursor).ok()?,
            _ => return None,
        }
    }
    Some(found)
}

fn read_crypto<'a>(cursor: &mut Cursor<'a>) -> Result<CryptoFrame<'a>, Short> {
    Ok(CryptoFrame { offset: varint::read(cursor)?, data: varint::read_vec(cursor)? })
}

/// RFC 9000 §19.19.
fn skip_close(cursor: &mut Cursor<'_>) -> Result<(), Short> {
    let (_code, _frame_type) = (varint::read(cursor)?, varint::read(cursor)?);
    varint::read_vec(cursor).map(|_reason| ())
}

/// RFC 9000 §19.3.
fn skip_ack(cursor: &mut Cursor<'_>, kind: u64) -> Result<(), Short> {
    let (_largest, _delay) = (varint::read(cursor)?, varint::read(cursor)?);
    let ranges = varint::read(cursor)?;
    let _first_range = varint::read(cursor)?;
    // However many are promised, each takes two bytes at least.
    for _ in 0..ranges {
        let (_gap, _length) = (varint::read(cursor)?, varint::read(cursor)?);
    }
    if kind == ACK_ECN {
        for _ in 0..3 {
            varint::read(cursor)?;
        }
    }
    Ok(())
}
