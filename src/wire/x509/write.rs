//! Certificates written (RFC 5280 in DER, X.690): just what an authority for interception and the leaves that it signs are
//! made of.
//!
//! Nothing is signed here, and nothing is drawn by lot: serial numbers and signatures are handed in. A library for this would
//! write the issuer's name anew; here it is copied byte by byte, as path building compares it (RFC 5280 §7.1).

use std::net::IpAddr;

use super::{GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, VERSION};

const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const SET: u8 = 0x31;
const EXTENSIONS: u8 = 0xa3;

/// id-at-commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Bytes of a common name at most (RFC 5280 appendix A.1, ub-common-name).
pub const MAX_COMMON_NAME: usize = 64;

/// How a certificate is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// RFC 5758 §3.2.
    EcdsaSha256,
    /// RFC 5758 §3.2.
    EcdsaSha384,
    /// PKCS #1 v1.5, RFC 4055 §5.
    RsaSha256,
    /// RFC 8410 §3.
    Ed25519,
}

impl Signature {
    /// The AlgorithmIdentifier.
    fn der(self) -> Vec<u8> {
        let (oid, null): (&[u8], &[u8]) = match self {
            Signature::EcdsaSha256 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], &[]),
            Signature::EcdsaSha384 => (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], &[]),
            Signature::RsaSha256 => (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], &[0x05, 0x00]),
            Signature::Ed25519 => (&[0x2b, 0x65, 0x70], &[]),
        };
        element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[oid]), null])
    }
}

/// What a certificate says.
#[derive(Debug)]
pub struct Template<'a> {
    /// Drawn by lot.
    pub serial: [u8; 16],
    /// How it will be signed.
    pub signature: Signature,
    /// The content of the issuer's Name, as [`super::Certificate::subject`] of its certificate has it.
    pub issuer: &'a [u8],
    /// The content of the owner's Name, as [`name`] makes it; empty for none.
    pub subject: &'a [u8],
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// The SubjectPublicKeyInfo, whole.
    pub public_key: &'a [u8],
    /// As [`extension`] makes them.
    pub extensions: &'a [Extension],
}

/// The part of a certificate that is signed.
pub fn to_be_signed(template: &Template<'_>) -> Vec<u8> {
    let mut serial = template.serial;
    // Positive, and 16 bytes long whatever the lot was (RFC 5280 §4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    let extensions: Vec<u8> = template.extensions.iter().flat_map(|extension| extension.0.clone()).collect();
    element(
        SEQUENCE,
        &[
            // Version 3.
            &element(VERSION, &[&element(INTEGER, &[&[2]])]),
            &element(INTEGER, &[&serial]),
            &template.signature.der(),
            &element(SEQUENCE, &[template.issuer]),
            &element(SEQUENCE, &[&time(template.not_before), &time(template.not_after)]),
            &element(SEQUENCE, &[template.subject]),
            template.public_key,
            &element(EXTENSIONS, &[&element(SEQUENCE, &[&extensions])]),
        ],
    )
}

/// The whole certificate.
pub fn certificate(to_be_signed: &[u8], algorithm: Signature, signature: &[u8]) -> Vec<u8> {
    let signature = element(BIT_STRING, &[&[0], signature]);
    element(SEQUENCE, &[to_be_signed, &algorithm.der(), &signature])
}

/// The content of a Name that is a common name and nothing else.
pub fn name(common_name: &str) -> Vec<u8> {
    let (kind, text) =
        (element(OBJECT_IDENTIFIER, &[COMMON_NAME]), element(UTF8_STRING, &[common_name.as_bytes()]));
    element(SET, &[&element(SEQUENCE, &[&kind, &text])])
}

/// One extension, whole.
#[derive(Debug, Clone)]
pub struct Extension(Vec<u8>);

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `digitalSignature`.
    SignHandshakes,
    /// `keyCertSign`.
    SignCertificates,
    /// `cRLSign`.
    SignRevocations,
}

/// The extensions that are known here.
pub mod extension {
    use super::*;

    /// BasicConstraints of an authority; `below`: authorities that may stand between it and a leaf.
    pub fn authority(below: Option<u8>) -> Extension {
        let below = below.map(|below| element(INTEGER, &[&[below & 0x7f]])).unwrap_or_default();
        let value = element(SEQUENCE, &[&element(BOOLEAN, &[&[0xff]]), &below]);
        made(&[0x55, 0x1d, 0x13], true, &value)
    }

    /// BasicConstraints of everybody else.
    pub fn no_authority() -> Extension {
        made(&[0x55, 0x1d, 0x13], true, &element(SEQUENCE, &[]))
    }

    /// KeyUsage.
    pub fn key_usage(kinds: &[Kind]) -> Extension {
        let bits = kinds.iter().fold(0u8, |bits, kind| {
            bits | match kind {
                Kind::SignHandshakes => 0x80,
                Kind::SignCertificates => 0x04,
                Kind::SignRevocations => 0x02,
            }
        });
        // DER leaves out the zero bits at the end (X.690 §11.2.2).
        let unused = u8::try_from(bits.trailing_zeros().min(7)).unwrap_or_default();
        made(&[0x55, 0x1d, 0x0f], true, &element(BIT_STRING, &[&[unused, bits]]))
    }

    /// ExtendedKeyUsage: TLS servers.
    pub fn for_servers() -> Extension {
        let server = element(OBJECT_IDENTIFIER, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]]);
        made(&[0x55, 0x1d, 0x25], false, &element(SEQUENCE, &[&server]))
    }

    /// SubjectAltName: one name. `critical` where there is no subject (RFC 5280 §4.2.1.6).
    pub fn dns_name(name: &str, critical: bool) -> Extension {
        made(ALTERNATIVE_NAME, critical, &element(SEQUENCE, &[&element(0x82, &[name.as_bytes()])]))
    }

    /// SubjectAltName: one address.
    pub fn address(ip: IpAddr, critical: bool) -> Extension {
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        made(ALTERNATIVE_NAME, critical, &element(SEQUENCE, &[&element(0x87, &[&ip])]))
    }

    /// SubjectKeyIdentifier.
    pub fn subject_key(id: &[u8]) -> Extension {
        made(&[0x55, 0x1d, 0x0e], false, &element(OCTET_STRING, &[id]))
    }

    /// AuthorityKeyIdentifier: the issuer's SubjectKeyIdentifier.
    pub fn issuer_key(id: &[u8]) -> Extension {
        made(&[0x55, 0x1d, 0x23], false, &element(SEQUENCE, &[&element(0x80, &[id])]))
    }

    const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

    fn made(kind: &[u8], critical: bool, value: &[u8]) -> Extension {
        let critical = if critical { element(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
        let value = element(OCTET_STRING, &[value]);
        Extension(element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[kind]), &critical, &value]))
    }
}

/// One element (X.690 §8.1), of less than 16 MiB.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let [_, high, middle, low] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(low),
        0x80..=0xff => out.extend([0x81, low]),
        0x100..=0xffff => out.extend([0x82, middle, low]),
        _ => out.extend([0x83, high, middle, low]),
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5); what no calendar of four digits has is its end or
/// its beginning.
fn time(unix_secs: i64) -> Vec<u8> {
    let secs = unix_secs.clamp(0, LAST_SECOND);
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if year < 2050 {
        element(UTC_TIME, &[format!("{:02}", year % 100).as_bytes(), rest.as_bytes()])
    } else {
        element(GENERALIZED_TIME, &[format!("{year:04}").as_bytes(), rest.as_bytes()])
    }
}

/// 9999-12-31 23:59:59.
const LAST_SECOND: i64 = 253_402_300_799;

/// The date so many days after 1970-01-01: [`super::days_before`] the other way round. The year is counted from March, in
/// eras of 400 years, each 146,097 days long.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let (issuer, subject) = (name("an authority"), name("example.com"));
        for (not_before, not_after) in [
            (0, 1),
            (1_772_323_200, 1_804_000_000),
            (2_524_607_999, 2_524_608_000),
            (951_825_600, LAST_SECOND),
        ] {
            let template = Template {
                serial: [0xff; 16],
                signature: Signature::RsaSha256,
                issuer: &issuer,
                subject: &subject,
                not_before,
                not_after,
                public_key: &[0x30, 0x00],
                extensions: &[extension::dns_name("example.com", false)],
            };
            let der = certificate(&to_be_signed(&template), Signature::RsaSha256, &[0; 256]);
            let read = parse(&der).unwrap();
            assert_eq!((read.issuer, read.subject), (&*issuer, &*subject));
            assert_eq!((read.not_before.unix_secs, read.not_after.unix_secs), (not_before, not_after));
        }
    }

    #[test]
    fn every_day_of_eight_thousand_years_reads_as_itself() {
        for days in 0..=LAST_SECOND / 86_400 {
            let (year, month, day) = date(days);
            let read = super::super::days_before(year as u16, month as u8, day as u8);
            assert_eq!(read, days, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        for (len, head) in [
            (0x7f, &[4, 0x7f][..]),
            (0x80, &[4, 0x81, 0x80]),
            (0xff, &[4, 0x81, 0xff]),
            (0x100, &[4, 0x82, 1, 0]),
            (0x1_0000, &[4, 0x83, 1, 0, 0]),
        ] {
            let made = element(OCTET_STRING, &[&vec![0; len]]);
            assert_eq!((&made[..head.len()], made.len()), (head, head.len() + len));
        }
    }
}
