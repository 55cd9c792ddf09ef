//! Encrypted ClientHello in HTTPS and SVCB records (RFC 9460, RFC 9848): what they publish, and messages without it.
//!
//! A message is changed by cutting bytes out. All other bytes stay as they are, except three kinds of fields that count
//! or point: RDLENGTH, the length of `mandatory`, compression pointers into what has moved. Afterwards every name of the
//! message is read in the old and in the new one; if one differs, or if anything before could not be read, the message
//! is left as it is. Signatures over changed records (RRSIG) do not hold any more: that is what a change is.

use std::ops::Range;

use super::{
    CLASS_IN, FLAG_RESPONSE, HEADER_LEN, Header, MASK_OPCODE, Name, QTYPE_AXFR, QTYPE_IXFR, same_place,
};
use crate::wire::cursor::Cursor;
use crate::wire::tls::ech::public_names;

/// Records of one message from which something is learnt.
pub const MAX_PUBLISHED: usize = 16;

const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
/// Signs the whole message (RFC 8945): a change would make the client throw it away.
const TYPE_TSIG: u16 = 250;

/// SvcParamKeys (RFC 9460 §14.3.2).
const PARAM_MANDATORY: u16 = 0;
const PARAM_ECH: u16 = 5;

/// Key and length of a SvcParam, in bytes.
const PARAM_HEADER_LEN: usize = 4;

/// The largest offset that a compression pointer can hold (RFC 1035 §4.1.4).
const MAX_POINTER: usize = 0x3fff;

/// What one record says of Encrypted ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whose record it is, as [`Query::name`](super::Query::name) is written.
    pub owner: Box<str>,
    /// The names in clear under which the servers take an encrypted hello, as published; all are
    /// [names of hosts](super::is_host_name).
    pub public_names: Vec<Box<str>>,
    /// Seconds for which this holds.
    pub ttl_secs: u32,
}

/// What the HTTPS and SVCB records of a response publish, from the first [`MAX_PUBLISHED`] that do.
///
/// The message is whole, without TCP's length prefix. Nothing from what is no response or cannot be read.
pub fn published_ech(message: &[u8]) -> Vec<Published> {
    let Some(survey) = Survey::of(message) else { return Vec::new() };
    let publishing = survey.services.iter().filter_map(|service| published(message, service));
    publishing.take(MAX_PUBLISHED).collect()
}

/// The response without Encrypted ClientHello in its HTTPS and SVCB records, in all sections; `None` if it is to be passed
/// on as it is.
///
/// The message is whole, without TCP's length prefix, which is the caller's to change. It never grows. What does not
/// parse as a whole, a truncated message that ends inside a record for example, is passed on as it is.
pub fn strip_ech(message: &[u8]) -> Option<Vec<u8>> {
    let survey = Survey::of(message)?;
    let mut edit = Edit::default();
    for service in &survey.services {
        edit.strip(message, service)?;
    }
    if edit.cuts.is_empty() {
        return None;
    }
    let stripped = edit.carry_out(message, &survey.pointers)?;
    let unchanged = |&at: &usize| Some(name_at(message, at)?.0 == name_at(&stripped, edit.moved(at))?.0);
    survey.names.iter().all(|at| unchanged(at) == Some(true)).then_some(stripped)
}

fn published(message: &[u8], service: &Service) -> Option<Published> {
    let param = service.params.iter().find(|param| param.key == PARAM_ECH)?;
    let names = public_names(message.get(param.value.clone())?)?;
    let hosts = names.into_iter().filter_map(|name| std::str::from_utf8(name).ok());
    let public_names: Vec<Box<str>> = hosts.filter(|name| super::is_host_name(name)).map(Box::from).collect();
    let owner = name_at(message, service.owner)?.to_text();
    (!public_names.is_empty()).then_some(Published { owner, public_names, ttl_secs: service.ttl_secs })
}

fn name_at(message: &[u8], at: usize) -> Option<Name> {
    Name::read(message, &mut Cursor::new(message.get(at..)?))
}

/// Where in a response everything stands that an edit must know. All numbers are offsets in bytes.
#[derive(Default)]
struct Survey {
    /// Names, in their order.
    names: Vec<usize>,
    /// Compression pointers, in their order.
    pointers: Vec<usize>,
    services: Vec<Service>,
}

/// An HTTPS or SVCB record.
struct Service {
    owner: usize,
    ttl_secs: u32,
    /// The two bytes of RDLENGTH.
    length_at: usize,
    /// Bytes of RDATA.
    length: usize,
    params: Vec<Param>,
}

/// A SvcParam.
struct Param {
    key: u16,
    /// The four bytes before it are its key and length.
    value: Range<usize>,
}

impl Survey {
    fn of(message: &[u8]) -> Option<Survey> {
        let mut cursor = Cursor::new(message);
        let header = Header::read(&mut cursor)?;
        if header.flags & (FLAG_RESPONSE | MASK_OPCODE) != FLAG_RESPONSE {
            return None;
        }
        let mut survey = Survey::default();
        for _ in 0..header.questions {
            survey.name(message, &mut cursor)?;
            let (qtype, _class) = (cursor.u16().ok()?, cursor.u16().ok()?);
            if matches!(qtype, QTYPE_IXFR | QTYPE_AXFR) {
                return None;
            }
        }
        let records: u32 =
            [header.answers, header.authorities, header.additionals].into_iter().map(u32::from).sum();
        for _ in 0..records {
            survey.record(message, &mut cursor)?;
        }
        Some(survey)
    }

    /// Passes over a name, up to its zero or its pointer.
    fn name(&mut self, message: &[u8], cursor: &mut Cursor<'_>) -> Option<()> {
        self.names.push(offset(message, cursor)?);
        loop {
            let at = offset(message, cursor)?;
            match cursor.u8().ok()? {
                0 => return Some(()),
                length @ 1..=0x3f => cursor.take(usize::from(length)).ok()?,
                0x40..=0xbf => return None,
                0xc0..=0xff => {
                    cursor.u8().ok()?;
                    self.pointers.push(at);
                    return Some(());
                }
            };
        }
    }

    fn record(&mut self, message: &[u8], cursor: &mut Cursor<'_>) -> Option<()> {
        let owner = offset(message, cursor)?;
        self.name(message, cursor)?;
        let (rtype, class) = (cursor.u16().ok()?, cursor.u16().ok()?);
        let ttl = cursor.u32().ok()?;
        let length_at = offset(message, cursor)?;
        let length = usize::from(cursor.u16().ok()?);
        let mut data = *cursor;
        cursor.take(length).ok()?;
        match rtype {
            TYPE_TSIG => return None,
            TYPE_SVCB | TYPE_HTTPS if class == CLASS_IN => {
                let params = self.service(message, &mut data, cursor)?;
                let ttl_secs = super::seconds(ttl);
                self.services.push(Service { owner, ttl_secs, length_at, length, params });
            }
            _ => self.names_in_data(rtype, message, &mut data)?,
        }
        // What was read of the data ends inside it.
        (data.rest().len() >= cursor.rest().len()).then_some(())
    }

    /// RDATA (RFC 9460 §2.2). The target is not to be compressed, but nothing depends on that.
    fn service(&mut self, message: &[u8], data: &mut Cursor<'_>, end: &Cursor<'_>) -> Option<Vec<Param>> {
        let _priority = data.u16().ok()?;
        self.name(message, data)?;
        let mut params = Vec::new();
        while data.rest().len() > end.rest().len() {
            let key = data.u16().ok()?;
            let length = usize::from(data.u16().ok()?);
            let start = offset(message, data)?;
            data.take(length).ok()?;
            params.push(Param { key, value: start..offset(message, data)? });
        }
        same_place(data, end)?;
        Some(params)
    }

    /// Names inside other records that may be compressed (RFC 3597 §4), or once were by somebody.
    fn names_in_data(&mut self, rtype: u16, message: &[u8], data: &mut Cursor<'_>) -> Option<()> {
        let (before, names) = match rtype {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, NSAP-PTR, NXT, DNAME, NSEC
            2..=5 | 7..=9 | 12 | 23 | 30 | 39 | 47 => (0, 1),
            // SOA, MINFO, RP
            6 | 14 | 17 => (0, 2),
            // MX, AFSDB, RT, KX
            15 | 18 | 21 | 36 => (2, 1),
            // PX
            26 => (2, 2),
            // SRV
            33 => (6, 1),
            // SIG, RRSIG
            24 | 46 => (18, 1),
            // NAPTR: three strings before the name
            35 => {
                data.take(4).ok()?;
                for _ in 0..3 {
                    data.vec8().ok()?;
                }
                (0, 1)
            }
            _ => (0, 0),
        };
        data.take(before).ok()?;
        for _ in 0..names {
            self.name(message, data)?;
        }
        Some(())
    }
}

/// Where `cursor` stands, which reads to the message's end.
fn offset(message: &[u8], cursor: &Cursor<'_>) -> Option<usize> {
    message.len().checked_sub(cursor.rest().len())
}

/// What is cut out of a message, and which lengths change by that.
#[derive(Default)]
struct Edit {
    /// In their order, apart from each other, with all bytes that are cut up to the end of each.
    cuts: Vec<(Range<usize>, usize)>,
    /// Lengths of two bytes, by where they stand.
    lengths: Vec<(usize, u16)>,
}

impl Edit {
    fn strip(&mut self, message: &[u8], service: &Service) -> Option<()> {
        if !service.params.iter().any(|param| param.key == PARAM_ECH) {
            return Some(());
        }
        let cut_before = self.removed();
        for param in &service.params {
            let header_at = param.value.start.checked_sub(PARAM_HEADER_LEN)?;
            match param.key {
                PARAM_ECH => self.cut(header_at..param.value.end),
                // A record that calls mandatory what it does not have is unusable (RFC 9460 §8).
                PARAM_MANDATORY => self.strip_mandatory(message, header_at, &param.value)?,
                _ => {}
            }
        }
        let length = service.length.checked_sub(self.removed().checked_sub(cut_before)?)?;
        self.lengths.push((service.length_at, u16::try_from(length).ok()?));
        Some(())
    }

    fn strip_mandatory(&mut self, message: &[u8], header_at: usize, value: &Range<usize>) -> Option<()> {
        let (keys, rest) = message.get(value.clone())?.as_chunks::<2>();
        let is_ech = |key: &[u8; 2]| u16::from_be_bytes(*key) == PARAM_ECH;
        if !rest.is_empty() {
            return None;
        }
        if !keys.is_empty() && keys.iter().all(is_ech) {
            self.cut(header_at..value.end);
            return Some(());
        }
        let cut_before = self.removed();
        for (start, key) in (value.start..).step_by(2).zip(keys) {
            if is_ech(key) {
                self.cut(start..start.checked_add(2)?);
            }
        }
        let length = value.len().checked_sub(self.removed().checked_sub(cut_before)?)?;
        self.lengths.push((header_at.checked_add(2)?, u16::try_from(length).ok()?));
        Some(())
    }

    fn cut(&mut self, range: Range<usize>) {
        let removed = self.removed().saturating_add(range.len());
        self.cuts.push((range, removed));
    }

    fn removed(&self) -> usize {
        self.cuts.last().map_or(0, |(_, removed)| *removed)
    }

    /// Where the byte at `at` stands afterwards; the first one behind a cut, if it is cut.
    fn moved(&self, at: usize) -> usize {
        let behind = self.cuts.partition_point(|(cut, _)| cut.end <= at);
        let removed =
            behind.checked_sub(1).and_then(|last| self.cuts.get(last)).map_or(0, |(_, removed)| *removed);
        let at = self.cuts.get(behind).map_or(at, |(cut, _)| at.min(cut.start));
        at.saturating_sub(removed)
    }

    fn carry_out(&self, message: &[u8], pointers: &[usize]) -> Option<Vec<u8>> {
        let mut edited = Vec::with_capacity(message.len());
        let mut from = 0;
        for (cut, _) in &self.cuts {
            edited.extend_from_slice(message.get(from..cut.start)?);
            from = cut.end;
        }
        edited.extend_from_slice(message.get(from..)?);
        for &(at, length) in &self.lengths {
            *field(&mut edited, self.moved(at))? = length.to_be_bytes();
        }
        for &at in pointers {
            let pointer = field(&mut edited, self.moved(at))?;
            let target = usize::from(u16::from_be_bytes(*pointer)) & MAX_POINTER;
            if target < HEADER_LEN {
                return None;
            }
            let [high, low] = u16::try_from(self.moved(target)).ok()?.to_be_bytes();
            *pointer = [0xc0 | high, low];
        }
        Some(edited)
    }
}

/// The two bytes at `at`.
fn field(message: &mut [u8], at: usize) -> Option<&mut [u8; 2]> {
    message.get_mut(at..)?.first_chunk_mut()
}

#[cfg(test)]
pub(super) mod tests;
