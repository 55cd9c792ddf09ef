//! What makes a certificate an authority's: whether it may sign others, its key, and what the certificates that it signs
//! say of it.

use super::super::cursor::{Cursor, Short};
use super::{INTEGER, SEQUENCE, VERSION, content, element};

const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[3]` constructed: the extensions.
const EXTENSIONS: u8 = 0xa3;

// RFC 5280 §4.2.1.2, §4.2.1.3, §4.2.1.9.
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// The bit of `keyCertSign` in the first byte of a KeyUsage.
const KEY_CERT_SIGN: u8 = 0x04;

/// A certificate as that of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// BasicConstraints says that it is one.
    pub is_authority: bool,
    /// KeyUsage allows it to sign certificates; so does a certificate without that extension.
    pub may_sign: bool,
    /// The SubjectPublicKeyInfo, whole.
    pub public_key: &'a [u8],
    /// The SubjectKeyIdentifier, by which the certificates that it signs name its key.
    pub key_id: Option<&'a [u8]>,
}

/// Reads a certificate (RFC 5280 §4.1); `None` if it is none.
pub fn parse(der: &[u8]) -> Option<Authority<'_>> {
    authority(der).ok()
}

/// The bits of the key in a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), of which its identifier is made; `None` if it is none.
pub fn key_bits(public_key: &[u8]) -> Option<&[u8]> {
    let mut info = content(&mut Cursor::new(public_key), SEQUENCE).ok()?;
    content(&mut info, SEQUENCE).ok()?;
    // The first byte counts the unused bits of the last one, which are none.
    content(&mut info, BIT_STRING).ok()?.rest().strip_prefix(&[0])
}

fn authority(der: &[u8]) -> Result<Authority<'_>, Short> {
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
    // The algorithm, the issuer, the validity, the subject.
    for _ in 0..4 {
        content(&mut body, SEQUENCE)?;
    }
    let before = body.rest();
    content(&mut body, SEQUENCE)?;
    let public_key = before.get(..before.len().saturating_sub(body.rest().len())).ok_or(Short)?;
    let mut found = Authority { is_authority: false, may_sign: true, public_key, key_id: None };
    while !body.is_empty() {
        match element(&mut body)? {
            (EXTENSIONS, mut tagged) => {
                let mut extensions = content(&mut tagged, SEQUENCE)?;
                while !extensions.is_empty() {
                    found.take_in(content(&mut extensions, SEQUENCE)?)?;
                }
            }
            // Unique identifiers, which nobody has.
            _ => continue,
        }
    }
    Ok(found)
}

impl<'a> Authority<'a> {
    fn take_in(&mut self, mut extension: Cursor<'a>) -> Result<(), Short> {
        let kind = content(&mut extension, OBJECT_IDENTIFIER)?.rest();
        if extension.rest().first() == Some(&BOOLEAN) {
            content(&mut extension, BOOLEAN)?;
        }
        let mut value = content(&mut extension, OCTET_STRING)?;
        match kind {
            SUBJECT_KEY_IDENTIFIER => self.key_id = Some(content(&mut value, OCTET_STRING)?.rest()),
            KEY_USAGE => {
                let bits = content(&mut value, BIT_STRING)?.rest();
                self.may_sign = bits.get(1).is_some_and(|byte| byte & KEY_CERT_SIGN != 0);
            }
            BASIC_CONSTRAINTS => {
                let mut constraints = content(&mut value, SEQUENCE)?;
                self.is_authority = match constraints.rest().first() {
                    Some(&BOOLEAN) => content(&mut constraints, BOOLEAN)?.rest() == [0xff],
                    _ => false,
                };
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::{Extension, Kind, Signature, Template, certificate, extension, to_be_signed};
    use super::*;

    /// A SubjectPublicKeyInfo of no key in particular.
    const KEY: &[u8] = &[0x30, 0x04, 0x30, 0x00, 0x03, 0x00];

    fn made(extensions: &[Extension]) -> Vec<u8> {
        let template = Template {
            serial: [7; 16],
            signature: Signature::EcdsaSha256,
            issuer: &[],
            subject: &[],
            not_before: 0,
            not_after: 86_400,
            public_key: KEY,
            extensions,
        };
        certificate(&to_be_signed(&template), Signature::EcdsaSha256, &[1, 2, 3])
    }

    #[test]
    fn who_may_sign_is_read() {
        let check = |extensions: &[Extension], is_authority: bool, may_sign: bool, key_id: Option<&[u8]>| {
            let der = made(extensions);
            let want = Authority { is_authority, may_sign, public_key: KEY, key_id };
            assert_eq!(parse(&der), Some(want), "{extensions:?}");
        };
        let (ca, leaf) = (extension::authority(Some(0)), extension::no_authority());
        check(&[], false, true, None);
        check(std::slice::from_ref(&leaf), false, true, None);
        check(&[ca.clone(), extension::key_usage(&[Kind::SignCertificates])], true, true, None);
        check(&[ca.clone(), extension::key_usage(&[Kind::SignHandshakes])], true, false, None);
        check(&[extension::subject_key(&[9; 20]), ca], true, true, Some(&[9; 20]));
        check(&[extension::key_usage(&[Kind::SignHandshakes]), leaf], false, false, None);
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let der = made(&[extension::authority(None), extension::subject_key(&[9; 20])]);
        assert!(parse(&der).is_some());
        for end in 0..der.len() {
            assert_eq!(parse(&der[..end]), None, "{end}");
        }
    }
}
