//! DNS messages (RFC 1035): what the identification and a stub resolver need.
//!
//! Reads a query's first question; writes queries for addresses and reads their answers, aliases followed. It is no
//! general DNS library: other record types are passed over, nothing is validated by DNSSEC, no message is changed.

use super::cursor::Cursor;

/// Bytes of the header (RFC 1035 §4.1.1); no name begins before.
const HEADER_LEN: usize = 12;
/// Bytes of a name on the wire, the root's zero included (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
/// Compression pointers followed in one name; every label could need one, senders use one or two.
const MAX_POINTERS: usize = 16;

/// QR: this is a response.
const FLAG_RESPONSE: u16 = 0x8000;
/// OPCODE; 0 is a standard query.
const MASK_OPCODE: u16 = 0x7800;

/// A question, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The sender's number, which the answer repeats.
    pub id: u16,
    /// The first question's name as sent, without the last dot (the root is `.`); a dot or backslash inside a label
    /// and bytes outside 0x21–0x7e are escaped as in zone files (RFC 1035 §5.1).
    pub name: Box<str>,
    /// The first question's type.
    pub qtype: u16,
}

/// Reads a whole message, without TCP's length prefix, as a standard query.
///
/// `None` for responses, other operations, and what has no well-formed question.
pub fn parse_query(message: &[u8]) -> Option<Query> {
    let mut cursor = Cursor::new(message);
    let header = Header::read(&mut cursor)?;
    if header.flags & (FLAG_RESPONSE | MASK_OPCODE) != 0 || header.questions == 0 {
        return None;
    }
    let (name, qtype, _class) = read_question(message, &mut cursor)?;
    Some(Query { id: header.id, name: name.to_text(), qtype })
}

/// The part of a message that is always there.
struct Header {
    id: u16,
    flags: u16,
    questions: u16,
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Option<Header> {
        let id = cursor.u16().ok()?;
        let flags = cursor.u16().ok()?;
        let questions = cursor.u16().ok()?;
        cursor.take(6).ok()?;
        Some(Header { id, flags, questions })
    }
}

/// Name, type and class (RFC 1035 §4.1.2).
fn read_question<'a>(message: &'a [u8], cursor: &mut Cursor<'a>) -> Option<(Name, u16, u16)> {
    let name = Name::read(message, cursor)?;
    Some((name, cursor.u16().ok()?, cursor.u16().ok()?))
}

/// A name in wire form without compression: labels behind their lengths, the root's zero last.
#[derive(Debug, Clone)]
struct Name(Vec<u8>);

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        // Lengths are at most 63, below every letter, so that folding case leaves them alone.
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Name {
    /// The name at `cursor`, which reads in `message`. A pointer must lead to before the part of the name that it ends,
    /// so following them comes to an end.
    fn read<'a>(message: &'a [u8], cursor: &mut Cursor<'a>) -> Option<Name> {
        let mut wire = Vec::with_capacity(64);
        let mut part = *cursor;
        let mut part_start = message.len().checked_sub(cursor.rest().len())?;
        let mut pointers = 0;
        loop {
            let length = part.u8().ok()?;
            match length {
                0 => {
                    wire.push(0);
                    if pointers == 0 {
                        *cursor = part;
                    }
                    return Some(Name(wire));
                }
                1..=63 => {
                    let label = part.take(usize::from(length)).ok()?;
                    // The root's zero must still fit.
                    if wire.len() + 1 + label.len() + 1 > MAX_NAME {
                        return None;
                    }
                    wire.push(length);
                    wire.extend_from_slice(label);
                }
                0xc0..=0xff => {
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, part.u8().ok()?]));
                    if pointers == 0 {
                        *cursor = part;
                    }
                    pointers += 1;
                    if target < HEADER_LEN || target >= part_start || pointers > MAX_POINTERS {
                        return None;
                    }
                    part_start = target;
                    part = Cursor::new(message.get(target..)?);
                }
                // Extended label types (RFC 6891 §5 gave them up).
                64..=0xbf => return None,
            }
        }
    }

    /// As [`Query::name`] says.
    fn to_text(&self) -> Box<str> {
        let mut text = String::with_capacity(self.0.len());
        let mut cursor = Cursor::new(&self.0);
        while let Ok(label) = cursor.vec8() {
            if label.is_empty() {
                break;
            }
            if !text.is_empty() {
                text.push('.');
            }
            for &byte in label.rest() {
                match byte {
                    b'.' | b'\\' => text.extend(['\\', char::from(byte)]),
                    0x21..=0x7e => text.push(char::from(byte)),
                    _ => {
                        let digit = |n: u8| char::from(b'0' + n % 10);
                        text.extend(['\\', digit(byte / 100), digit(byte / 10), digit(byte)]);
                    }
                }
            }
        }
        if text.is_empty() {
            text.push('.');
        }
        text.into_boxed_str()
    }
}

#[cfg(test)]
mod tests;
