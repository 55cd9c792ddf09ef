//! X.509 certificates (RFC 5280), as far as it takes to see whether a chain is in order: who issued each for whom, from when
//! until when it counts, and how large a key of RSA is.
//!
//! Nothing is verified here. Of extensions only that is read which makes somebody an [`authority`]; [`mod@write`] is the other way
//! round. A certificate is always whole, so there is no "needs more": what is cut short is none.

pub mod authority;
pub mod write;

use super::cursor::{Cursor, Short};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// rsaEncryption (RFC 3279 §2.3.1).
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
/// `[0]` constructed: the version, which is left out for version 1.
const VERSION: u8 = 0xa0;

/// What a certificate says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The DER of the issuer's name.
    pub issuer: &'a [u8],
    /// The DER of the owner's name.
    pub subject: &'a [u8],
    /// It counts from then.
    pub not_before: Time,
    /// It counts until then.
    pub not_after: Time,
    /// Bits of the modulus, if the owner's key is one of RSA.
    pub rsa_bits: Option<usize>,
}

/// A point in time, to the second, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Full year.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// Since 1970-01-01 00:00.
    pub unix_secs: i64,
}

/// Reads a certificate (RFC 5280 §4.1); `None` if it is none.
pub fn parse(der: &[u8]) -> Option<Certificate<'_>> {
    certificate(der).ok()
}

fn certificate(der: &[u8]) -> Result<Certificate<'_>, Short> {
    let mut outer = Cursor::new(der);
    let mut signed = content(&mut outer, SEQUENCE)?;
    if !outer.is_empty() {
        return Err(Short);
    }
    let mut body = content(&mut signed, SEQUENCE)?;
    if body.rest().first() == Some(&VERSION) {
        content(&mut body, VERSION)?;
    }
    content(&mut body, INTEGER)?;
    content(&mut body, SEQUENCE)?;
    let issuer = content(&mut body, SEQUENCE)?.rest();
    let mut validity = content(&mut body, SEQUENCE)?;
    let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
    let subject = content(&mut body, SEQUENCE)?.rest();
    let rsa_bits = rsa_bits(&mut body).ok();
    Ok(Certificate { issuer, subject, not_before, not_after, rsa_bits })
}

/// The size of the key in a SubjectPublicKeyInfo (RFC 5280 §4.1), which must be one of RSA (RFC 8017 §A.1.1).
fn rsa_bits(body: &mut Cursor<'_>) -> Result<usize, Short> {
    let mut info = content(body, SEQUENCE)?;
    let mut algorithm = content(&mut info, SEQUENCE)?;
    if content(&mut algorithm, OBJECT_IDENTIFIER)?.rest() != RSA {
        return Err(Short);
    }
    let mut bits = content(&mut info, BIT_STRING)?;
    // Bits of the last byte that are not used.
    if bits.u8()? != 0 {
        return Err(Short);
    }
    let modulus = content(&mut content(&mut bits, SEQUENCE)?, INTEGER)?.rest();
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = modulus.get(zeros..).unwrap_or_default();
    let unused = digits.first().map_or(0, |byte| byte.leading_zeros());
    Ok((digits.len() * 8).saturating_sub(usize::try_from(unused).map_err(|_| Short)?))
}

/// The content of the next element, which must be of this kind (X.690 §8.1).
fn content<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<Cursor<'a>, Short> {
    match element(cursor)? {
        (found, content) if found == tag => Ok(content),
        _ => Err(Short),
    }
}

fn element<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, Cursor<'a>), Short> {
    let tag = cursor.u8()?;
    let len = match cursor.u8()? {
        short @ 0..=0x7f => u32::from(short),
        0x81 => u32::from(cursor.u8()?),
        0x82 => u32::from(cursor.u16()?),
        0x83 => cursor.u24()?,
        _ => return Err(Short),
    };
    let content = cursor.take(usize::try_from(len).map_err(|_| Short)?)?;
    Ok((tag, Cursor::new(content)))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(cursor: &mut Cursor<'_>) -> Result<Time, Short> {
    let (tag, mut digits) = element(cursor)?;
    let year = match tag {
        // Two digits stand for 1950 to 2049.
        UTC_TIME => match number(&mut digits)? {
            year @ 50.. => 1900 + u16::from(year),
            year => 2000 + u16::from(year),
        },
        GENERALIZED_TIME => u16::from(number(&mut digits)?) * 100 + u16::from(number(&mut digits)?),
        _ => return Err(Short),
    };
    let [month, day, hour, minute, second] = {
        let mut next = || number(&mut digits);
        [next()?, next()?, next()?, next()?, next()?]
    };
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day);
    if digits.rest() != b"Z" || !valid || hour > 23 || minute > 59 || second > 60 {
        return Err(Short);
    }
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    Ok(Time { year, month, day, unix_secs: days_before(year, month, day) * 86_400 + seconds })
}

/// Two digits.
fn number(digits: &mut Cursor<'_>) -> Result<u8, Short> {
    match digits.array::<2>()? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Ok((tens - b'0') * 10 + (ones - b'0')),
        _ => Err(Short),
    }
}

/// Days from 1970-01-01 to this one. Years are counted from March, so that the day that comes and goes is a year's last.
fn days_before(year: u16, month: u8, day: u8) -> i64 {
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let mut out = match len {
            0..=0x7f => vec![tag, len as u8],
            0x80..=0xff => vec![tag, 0x81, len as u8],
            _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
        };
        out.extend_from_slice(content);
        out
    }

    /// A certificate of this validity, of version 3 or 1, with `filler` bytes where keys and extensions stand.
    fn made(version: bool, from: &[u8], to: &[u8], filler: usize) -> Vec<u8> {
        let mut body = if version { der(VERSION, &[2, 1, 2]) } else { Vec::new() };
        body.extend(der(INTEGER, &[7]));
        body.extend(der(SEQUENCE, b"algorithm"));
        body.extend(der(SEQUENCE, b"issuer"));
        body.extend(der(SEQUENCE, &[from, to].concat()));
        body.extend(der(SEQUENCE, b"subject"));
        body.extend(vec![0; filler]);
        let mut signed = der(SEQUENCE, &body);
        signed.extend_from_slice(b"signature");
        der(SEQUENCE, &signed)
    }

    const UTC: &[u8] = b"\x17\x0d700101000000Z";

    #[test]
    fn names_and_validity_are_read() {
        for (version, filler) in [(true, 0), (false, 0), (true, 100), (true, 5000)] {
            let bytes = made(version, UTC, b"\x18\x0f20990102030405Z", filler);
            let certificate = parse(&bytes).unwrap();
            assert_eq!((certificate.issuer, certificate.subject), (&b"issuer"[..], &b"subject"[..]));
            assert_eq!(certificate.not_before, Time { year: 1970, month: 1, day: 1, unix_secs: 0 });
            assert_eq!(
                certificate.not_after,
                Time { year: 2099, month: 1, day: 2, unix_secs: 4_071_006_245 }
            );
        }
    }

    #[test]
    fn the_size_of_an_rsa_key_is_read_and_other_keys_have_none() {
        let key = |oid: &[u8], modulus: &[u8]| {
            let algorithm = der(SEQUENCE, &[der(OBJECT_IDENTIFIER, oid), vec![5, 0]].concat());
            let numbers = der(SEQUENCE, &[der(INTEGER, modulus), der(INTEGER, &[1, 0, 1])].concat());
            der(SEQUENCE, &[algorithm, der(BIT_STRING, &[&[0], &numbers[..]].concat())].concat())
        };
        let check = |key: &[u8], want: Option<usize>| {
            // In the place of the filler, and of the signature behind it.
            let mut body = der(INTEGER, &[7]);
            for content in [&b"algorithm"[..], b"issuer", &[UTC, UTC].concat(), b"subject"] {
                body.extend(der(SEQUENCE, content));
            }
            body.extend(key);
            let bytes = der(SEQUENCE, &der(SEQUENCE, &body));
            assert_eq!(parse(&bytes).unwrap().rsa_bits, want);
        };
        let modulus = |bytes: usize, first: u8| [&[0, first][..], &vec![0xab; bytes - 1]].concat();
        check(&key(RSA, &modulus(256, 0x80)), Some(2048));
        check(&key(RSA, &modulus(256, 0x7f)), Some(2047));
        check(&key(RSA, &modulus(512, 0xff)), Some(4096));
        check(&key(RSA, &[0]), Some(0));
        check(&key(b"\x2a\x86\x48\xce\x3d\x02\x01", &modulus(256, 0x80)), None);
        let whole = key(RSA, &modulus(256, 0x80));
        for end in 0..whole.len() {
            check(&whole[..end], None);
        }
    }

    #[test]
    fn times_are_counted_as_the_calendar_has_them() {
        let check = |text: &str, tag: u8, want: Option<i64>| {
            let bytes = made(true, UTC, &der(tag, text.as_bytes()), 0);
            assert_eq!(parse(&bytes).map(|c| c.not_after.unix_secs), want, "{text}");
        };
        check("491231235959Z", UTC_TIME, Some(2_524_607_999));
        check("500101000000Z", UTC_TIME, Some(-631_152_000));
        check("000229120000Z", UTC_TIME, Some(951_825_600));
        check("260301000000Z", UTC_TIME, Some(1_772_323_200));
        check("99991231235959Z", GENERALIZED_TIME, Some(253_402_300_799));
        check("00000101000000Z", GENERALIZED_TIME, Some(-62_167_219_200));
        check("20380119031408Z", GENERALIZED_TIME, Some(2_147_483_648));
        check("261301000000Z", UTC_TIME, None);
        check("260100000000Z", UTC_TIME, None);
        check("260101240000Z", UTC_TIME, None);
        check("260101000000", UTC_TIME, None);
        check("2601010000Z", UTC_TIME, None);
        check("260101000000+0100", UTC_TIME, None);
        check("2x0101000000Z", UTC_TIME, None);
        check("260101000000Z", 0x04, None);
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let bytes = made(true, UTC, UTC, 300);
        assert!(parse(&bytes).is_some());
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        assert_eq!(parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(parse(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
