//! DNS messages (RFC 1035): what the identification and a stub resolver need.
//!
//! Reads a query's first question; writes queries for addresses and reads their answers, aliases followed; cuts
//! Encrypted ClientHello out of answers that pass ([`ech`], over TCP [`stream`]). It is no general DNS library: other record types are passed
//! over, nothing is validated by DNSSEC.

pub mod ech;
pub mod stream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cursor::Cursor;

/// Characters of the longest name, without a last dot: what a name takes on the wire (RFC 1035 §2.3.4) without the first
/// length and the root's zero.
pub const MAX_NAME_TEXT: usize = MAX_NAME - 2;
/// Type of IPv4 addresses (RFC 1035 §3.2.2).
pub const TYPE_A: u16 = 1;
/// Type of IPv6 addresses (RFC 3596).
pub const TYPE_AAAA: u16 = 28;
/// RCODE: no error; without records the name has none of this type.
pub const RCODE_OK: u8 = 0;
/// RCODE: the name does not exist (NXDOMAIN).
pub const RCODE_NAME_ERROR: u8 = 3;

const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
/// Zone transfers: data for another server, not answers.
const QTYPE_IXFR: u16 = 251;
const QTYPE_AXFR: u16 = 252;

/// Bytes of the header (RFC 1035 §4.1.1); no name begins before.
const HEADER_LEN: usize = 12;
/// Bytes of a name on the wire, the root's zero included (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
/// Bytes of one label (RFC 1035 §2.3.4).
const MAX_LABEL: u8 = 63;
/// Compression pointers followed in one name; every label could need one, senders use one or two.
const MAX_POINTERS: usize = 16;
/// Records of one section that are read; what stands behind them is not seen.
const MAX_RECORDS: usize = 128;
/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 32;
/// Aliases followed in one answer; BIND and unbound stop at 11 to 17.
const MAX_ALIASES: usize = 16;
/// Bytes of an answer over UDP that we take without fragments (the value of the DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// QR: this is a response.
const FLAG_RESPONSE: u16 = 0x8000;
/// OPCODE; 0 is a standard query.
const MASK_OPCODE: u16 = 0x7800;
/// TC: the answer did not fit.
const FLAG_TRUNCATED: u16 = 0x0200;
/// RD: the server shall ask others.
const FLAG_RECURSION: u16 = 0x0100;
/// RCODE.
const MASK_RCODE: u16 = 0x000f;

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

/// Whether a host may be called `name`: not empty or too long, no empty or overlong label, no bytes outside 0x21–0x7e.
/// A last dot is allowed.
pub fn is_host_name(name: &str) -> bool {
    Name::from_text(name).is_some()
}

/// A recursive query for `name`, with EDNS(0) (RFC 6891 §6.1.2) so that most answers fit a datagram.
///
/// `None` if no [host may be called](is_host_name) so.
pub fn encode_query(id: u16, name: &str, qtype: u16) -> Option<Vec<u8>> {
    let name = Name::from_text(name)?;
    let mut message = Vec::with_capacity(HEADER_LEN + name.0.len() + 15);
    for field in [id, FLAG_RECURSION, 1, 0, 0, 1] {
        message.extend(field.to_be_bytes());
    }
    message.extend(&name.0);
    for field in [qtype, CLASS_IN] {
        message.extend(field.to_be_bytes());
    }
    message.push(0); // OPT belongs to the root
    for field in [TYPE_OPT, UDP_PAYLOAD, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    Some(message)
}

/// What a server said to a query for addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// [`RCODE_OK`], [`RCODE_NAME_ERROR`], or why the server cannot say.
    pub rcode: u8,
    /// Only the header and the question were read: ask again over TCP.
    pub truncated: bool,
    /// Addresses of the name or of what it is an alias of.
    pub addrs: Vec<IpAddr>,
    /// Seconds that this may be kept: the least of all records used; without addresses, what the zone says about
    /// absence (RFC 2308 §5).
    pub ttl_secs: Option<u32>,
}

/// Why a message is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerError {
    /// Another id or question, or no response: somebody else's, late or forged. The answer may still come.
    NotOurs,
    /// The server's answer, but it cannot be read.
    Malformed,
}

/// Reads a whole message, without TCP's length prefix, as the answer to the query with this id, name and type.
pub fn parse_answer(message: &[u8], id: u16, name: &str, qtype: u16) -> Result<Answer, AnswerError> {
    let mut cursor = Cursor::new(message);
    let header = Header::read(&mut cursor).ok_or(AnswerError::NotOurs)?;
    if header.id != id || header.flags & (FLAG_RESPONSE | MASK_OPCODE) != FLAG_RESPONSE {
        return Err(AnswerError::NotOurs);
    }
    let rcode = (header.flags & MASK_RCODE) as u8;
    let refused = !matches!(rcode, RCODE_OK | RCODE_NAME_ERROR);
    if refused && header.questions == 0 {
        // Servers that could not read or would not take a query may leave the question out.
        return Ok(Answer { rcode, ..Answer::default() });
    }
    if header.questions != 1 {
        return Err(AnswerError::Malformed);
    }
    let asked = Name::from_text(name).ok_or(AnswerError::NotOurs)?;
    let question = read_question(message, &mut cursor).ok_or(AnswerError::Malformed)?;
    if question != (asked.clone(), qtype, CLASS_IN) {
        return Err(AnswerError::NotOurs);
    }
    let truncated = header.flags & FLAG_TRUNCATED != 0;
    if refused || truncated {
        return Ok(Answer { rcode, truncated, ..Answer::default() });
    }
    read_addresses(message, cursor, &header, asked, qtype)
        .map(|(addrs, ttl_secs)| Answer { rcode, truncated, addrs, ttl_secs })
        .ok_or(AnswerError::Malformed)
}

/// The addresses that `name` leads to in the answer section at `cursor`, and how long this may be kept.
fn read_addresses<'a>(
    message: &'a [u8],
    mut cursor: Cursor<'a>,
    header: &Header,
    name: Name,
    qtype: u16,
) -> Option<(Vec<IpAddr>, Option<u32>)> {
    let records = read_records(message, &mut cursor, header.answers)?;
    let mut ttl_secs = u32::MAX;
    let mut name = name;
    for _ in 0..=MAX_ALIASES {
        let mut addrs = Vec::new();
        let mut alias = None;
        for record in records.iter().filter(|r| r.name == name) {
            let (addr, target) = match &record.data {
                Data::Address(addr) if record.rtype == qtype => (Some(*addr), None),
                Data::Alias(target) => (None, Some(target)),
                _ => continue,
            };
            ttl_secs = ttl_secs.min(record.ttl_secs);
            addrs.extend(addr);
            alias = alias.or(target);
        }
        if !addrs.is_empty() {
            addrs.truncate(MAX_ADDRESSES);
            return Some((addrs, Some(ttl_secs)));
        }
        let Some(target) = alias else {
            // There is nothing of this type. A list cut off at MAX_RECORDS says nothing about the next section.
            let whole = usize::from(header.answers) <= MAX_RECORDS;
            let absence =
                if whole { read_records(message, &mut cursor, header.authorities)? } else { Vec::new() };
            let limit = absence.iter().find_map(|r| match r.data {
                Data::Zone { minimum_secs } => Some(minimum_secs.min(r.ttl_secs)),
                _ => None,
            });
            return Some((Vec::new(), limit.map(|secs| secs.min(ttl_secs))));
        };
        name = target.clone();
    }
    None
}

/// A resource record of class IN (RFC 1035 §4.1.3).
struct Record {
    name: Name,
    rtype: u16,
    ttl_secs: u32,
    data: Data,
}

/// What a record says.
enum Data {
    Address(IpAddr),
    Alias(Name),
    Zone {
        minimum_secs: u32,
    },
    /// Something that we don't use.
    Other,
}

/// The first records of a section of `count`.
fn read_records<'a>(message: &'a [u8], cursor: &mut Cursor<'a>, count: u16) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..usize::from(count).min(MAX_RECORDS) {
        records.push(Record::read(message, cursor)?);
    }
    Some(records)
}

impl Record {
    fn read<'a>(message: &'a [u8], cursor: &mut Cursor<'a>) -> Option<Record> {
        let name = Name::read(message, cursor)?;
        let rtype = cursor.u16().ok()?;
        let class = cursor.u16().ok()?;
        let ttl = cursor.u32().ok()?;
        let ttl_secs = seconds(ttl);
        let mut data = *cursor;
        let length = usize::from(data.u16().ok()?);
        *cursor = data;
        cursor.take(length).ok()?;
        let data = match (class, rtype, length) {
            (CLASS_IN, TYPE_A, 4) => Data::Address(Ipv4Addr::from(data.array::<4>().ok()?).into()),
            (CLASS_IN, TYPE_AAAA, 16) => Data::Address(Ipv6Addr::from(data.array::<16>().ok()?).into()),
            (CLASS_IN, TYPE_A | TYPE_AAAA, _) => return None,
            (CLASS_IN, TYPE_CNAME, _) => {
                let target = Name::read(message, &mut data)?;
                same_place(&data, cursor)?;
                Data::Alias(target)
            }
            (CLASS_IN, TYPE_SOA, _) => {
                Name::read(message, &mut data)?;
                Name::read(message, &mut data)?;
                data.take(16).ok()?;
                let minimum_secs = data.u32().ok()?;
                same_place(&data, cursor)?;
                Data::Zone { minimum_secs }
            }
            _ => Data::Other,
        };
        Some(Record { name, rtype, ttl_secs, data })
    }
}

/// A TTL as it is to be taken: a set top bit means zero (RFC 2181 §8).
fn seconds(ttl: u32) -> u32 {
    if ttl > u32::MAX / 2 { 0 } else { ttl }
}

/// What was read inside a record must end where its length says.
fn same_place(read: &Cursor<'_>, end: &Cursor<'_>) -> Option<()> {
    (read.rest().len() == end.rest().len()).then_some(())
}

/// The part of a message that is always there.
struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Option<Header> {
        let id = cursor.u16().ok()?;
        let flags = cursor.u16().ok()?;
        let questions = cursor.u16().ok()?;
        let answers = cursor.u16().ok()?;
        let authorities = cursor.u16().ok()?;
        let additionals = cursor.u16().ok()?;
        Some(Header { id, flags, questions, answers, authorities, additionals })
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
    /// A host's name as users and peers write it: no escapes.
    fn from_text(text: &str) -> Option<Name> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            let length = u8::try_from(label.len()).ok().filter(|n| (1..=MAX_LABEL).contains(n))?;
            if !label.bytes().all(|b| matches!(b, 0x21..=0x7e)) {
                return None;
            }
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
            if wire.len() >= MAX_NAME {
                return None;
            }
        }
        wire.push(0);
        Some(Name(wire))
    }

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
                1..=MAX_LABEL => {
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
pub(crate) mod testing;
#[cfg(test)]
mod tests;
