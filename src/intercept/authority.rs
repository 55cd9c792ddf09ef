//! The authority whose certificate clients have imported.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;

use crate::sys::random;
use crate::wire::x509::write::{
    Extension, Kind, Signature, Template, certificate, extension, name, to_be_signed,
};
use crate::wire::x509::{self, authority};

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// How long a new authority counts: ten years and a day, as its first day lies before it was made.
const LIFETIME: i64 = 3653 * DAY;

/// What can be signed with, by the kind of key.
const SCHEMES: &[(SignatureScheme, Signature)] = &[
    (SignatureScheme::ECDSA_NISTP256_SHA256, Signature::EcdsaSha256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, Signature::EcdsaSha384),
    (SignatureScheme::RSA_PKCS1_SHA256, Signature::RsaSha256),
    (SignatureScheme::ED25519, Signature::Ed25519),
];

/// A certificate that may sign others, and its key.
pub struct Authority {
    /// What clients are sent behind a leaf: everything but roots, which they have.
    pub(super) path: Vec<CertificateDer<'static>>,
    /// The content of its Name.
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// From when until when it counts, in seconds since 1970.
    pub(super) validity: (i64, i64),
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    signature: Signature,
}

/// Why a certificate and a key make no authority.
#[derive(Debug, Clone, PartialEq)]
pub enum Unfit {
    /// The first certificate cannot be read.
    Unreadable,
    /// It does not say that it is an authority's.
    NoAuthority,
    /// It may not sign certificates.
    MayNotSign,
    /// The key is another certificate's.
    OtherKey,
    /// The key is of a kind that cannot be used.
    Key(rustls::Error),
    /// It has expired, at this time in seconds since 1970.
    Expired(x509::Time),
}

impl Authority {
    /// The authority of the first certificate of `chain`, each of the others having signed the one before it. `now`: seconds
    /// since 1970.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        now: i64,
    ) -> Result<Self, Unfit> {
        let own = chain.first().ok_or(Unfit::Unreadable)?;
        let read = x509::parse(own).ok_or(Unfit::Unreadable)?;
        let says = authority::parse(own).ok_or(Unfit::Unreadable)?;
        if !says.is_authority {
            return Err(Unfit::NoAuthority);
        }
        if !says.may_sign {
            return Err(Unfit::MayNotSign);
        }
        if read.not_after.unix_secs < now {
            return Err(Unfit::Expired(read.not_after));
        }
        let key = any_supported_type(key).map_err(Unfit::Key)?;
        if key.public_key().is_none_or(|public| public.as_ref() != says.public_key) {
            return Err(Unfit::OtherKey);
        }
        let scheme = SCHEMES.iter().find(|(scheme, _)| key.choose_scheme(&[*scheme]).is_some());
        let (scheme, signature) = *scheme.ok_or_else(|| {
            Unfit::Key(rustls::Error::General("certificates cannot be signed with this kind of key".into()))
        })?;
        let (subject, key_id) = (read.subject.to_vec(), says.key_id.map(<[u8]>::to_vec));
        let validity = (read.not_before.unix_secs, read.not_after.unix_secs);
        let is_root = |der: &CertificateDer<'_>| {
            x509::parse(der).is_none_or(|certificate| certificate.issuer == certificate.subject)
        };
        let path = chain.into_iter().filter(|der| !is_root(der)).collect();
        Ok(Authority { path, subject, key_id, validity, key, scheme, signature })
    }

    /// A new one, that signs leaves only: its certificate, and its key as PKCS #8.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn make(
        common_name: &str,
        now: i64,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), rustls::Error> {
        let pkcs8 = new_key()?;
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(pkcs8.clone_key()))?;
        let public = key.public_key().ok_or_else(no_random_numbers)?;
        // What others make of a key that comes without an identifier (RFC 5280 §4.2.1.2), so that they find this one by it.
        let bits = authority::key_bits(public.as_ref()).ok_or_else(no_random_numbers)?;
        let id = digest(&SHA1_FOR_LEGACY_USE_ONLY, bits);
        let subject = name(common_name);
        let (signature, scheme) = (Signature::EcdsaSha256, SignatureScheme::ECDSA_NISTP256_SHA256);
        let not_before = now.saturating_sub(DAY);
        let template = Template {
            serial: random_bytes()?,
            signature,
            issuer: &subject,
            subject: &subject,
            not_before,
            not_after: not_before.saturating_add(LIFETIME),
            public_key: public.as_ref(),
            extensions: &[
                extension::authority(Some(0)),
                extension::key_usage(&[Kind::SignCertificates, Kind::SignRevocations]),
                extension::subject_key(id.as_ref()),
            ],
        };
        let der = sign(&template, &*key, scheme)?;
        Ok((der, pkcs8))
    }

    /// Signs a certificate.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(super) fn sign(&self, leaf: &Leaf<'_>) -> Result<CertificateDer<'static>, rustls::Error> {
        let issuer_key = self.key_id.as_deref().map(extension::issuer_key);
        let extensions: Vec<Extension> = leaf.extensions.iter().cloned().chain(issuer_key).collect();
        let template = Template {
            serial: random_bytes()?,
            signature: self.signature,
            issuer: &self.subject,
            subject: leaf.subject,
            not_before: leaf.validity.0.max(self.validity.0),
            not_after: leaf.validity.1.min(self.validity.1),
            public_key: leaf.public_key,
            extensions: &extensions,
        };
        sign(&template, &*self.key, self.scheme)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("signature", &self.signature).finish_non_exhaustive()
    }
}

/// What a leaf says; the authority adds the rest.
pub(super) struct Leaf<'a> {
    pub subject: &'a [u8],
    pub validity: (i64, i64),
    pub public_key: &'a [u8],
    pub extensions: &'a [Extension],
}

fn sign(
    template: &Template<'_>,
    key: &dyn SigningKey,
    scheme: SignatureScheme,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let signed = to_be_signed(template);
    let signer = key.choose_scheme(&[scheme]).ok_or_else(no_random_numbers)?;
    Ok(certificate(&signed, template.signature, &signer.sign(&signed)?).into())
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<PrivatePkcs8KeyDer<'static>, rustls::Error> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    made.map(|key| PrivatePkcs8KeyDer::from(key.as_ref().to_vec())).map_err(|_| no_random_numbers())
}

fn random_bytes<const N: usize>() -> Result<[u8; N], rustls::Error> {
    random::bytes().map_err(|_| no_random_numbers())
}

fn no_random_numbers() -> rustls::Error {
    rustls::Error::FailedToGetRandomBytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01.
    const NOW: i64 = 1_772_323_200;

    #[test]
    fn what_is_made_is_one() {
        let (der, key) = Authority::make("calamary router", NOW).unwrap();
        let key = PrivateKeyDer::Pkcs8(key);
        let made = Authority::new(vec![der.clone()], &key, NOW).unwrap();
        assert_eq!(made.validity, (NOW - DAY, NOW - DAY + LIFETIME));
        // Clients have it.
        assert!(made.path.is_empty());
        assert!(!format!("{made:?}").contains("key"), "{made:?}");

        let expired = Authority::new(vec![der.clone()], &key, NOW + LIFETIME);
        assert!(matches!(expired, Err(Unfit::Expired(_))), "{expired:?}");
        let (_, other) = Authority::make("calamary router", NOW).unwrap();
        let other = Authority::new(vec![der], &PrivateKeyDer::Pkcs8(other), NOW).unwrap_err();
        assert_eq!(other, Unfit::OtherKey);
        assert_eq!(Authority::new(Vec::new(), &key, NOW).unwrap_err(), Unfit::Unreadable);
        assert_eq!(Authority::new(vec![vec![0x30, 0].into()], &key, NOW).unwrap_err(), Unfit::Unreadable);
    }

    /// RFC 5280 §4.2.1.2: so others find the certificate by a key that they have, or made the same identifier of.
    #[test]
    fn the_key_is_named_by_its_hash() {
        let (der, key) = Authority::make("calamary router", NOW).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            key.secret_pkcs8_der(),
            &SystemRandom::new(),
        )
        .unwrap();
        let point = ring::signature::KeyPair::public_key(&pair);
        let id = digest(&SHA1_FOR_LEGACY_USE_ONLY, point.as_ref());
        assert_eq!(authority::parse(&der).unwrap().key_id, Some(id.as_ref()));
    }

    /// The first leaf ended the program.
    #[test]
    fn one_that_ends_before_it_begins_signs_as_well() {
        let pkcs8 = new_key().unwrap();
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(pkcs8.clone_key())).unwrap();
        let public_key = key.public_key().unwrap();
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let template = Template {
            serial: [7; 16],
            signature: Signature::EcdsaSha256,
            issuer: &[],
            subject: &[],
            not_before: NOW + 2 * DAY,
            not_after: NOW + DAY,
            public_key: public_key.as_ref(),
            extensions: &[extension::authority(None)],
        };
        let der = sign(&template, &*key, scheme).unwrap();
        let made = Authority::new(vec![der], &PrivateKeyDer::Pkcs8(pkcs8), NOW).unwrap();
        let leaf = Leaf {
            subject: &[],
            validity: (NOW, NOW + DAY),
            public_key: public_key.as_ref(),
            extensions: &[],
        };
        let leaf = made.sign(&leaf).unwrap();
        assert_eq!(x509::parse(&leaf).unwrap().not_after.unix_secs, NOW + DAY);
    }
}
