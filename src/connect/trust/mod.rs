//! Whether a server's certificate is to be trusted, and if not, why.
//!
//! The chain, the dates and the name are rustls' own checks (webpki). Added here: the reason in a word of ours; a clock that
//! cannot be right says nothing about a certificate; intermediates that a server forgot to send are tried from those that
//! were seen in valid chains; and a certificate that is itself among the roots needs nobody to sign it, as a device at home
//! often has one of its own making.
//!
//! Revocation is not checked: neither lists nor responders are asked, as browsers have mostly stopped to do.

mod intermediates;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use self::intermediates::Intermediates;
pub use super::distrust::Distrust;
use crate::sys::time;
use crate::wire::x509;

/// Whom to trust: the public keys and names of authorities.
#[derive(Clone)]
pub struct Roots(RootCertStore);

impl Roots {
    /// The certificates that can be used, and how many cannot: collections hold ancient ones, too.
    pub fn new<'a>(certificates: impl IntoIterator<Item = CertificateDer<'a>>) -> (Roots, usize) {
        let mut store = RootCertStore::empty();
        let (_, unusable) = store.add_parsable_certificates(certificates);
        (Roots(store), unusable)
    }

    /// Those of Mozilla that are part of the program.
    #[cfg(feature = "embedded-roots")]
    pub fn embedded() -> Roots {
        Roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, so that nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this certificate is itself one of them.
    fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Roots(one), _) = Roots::new([certificate.clone()]);
        one.roots.first().is_some_and(|one| self.0.roots.contains(one))
    }
}

/// Checks servers' certificates against [`Roots`]. What it refuses it refuses with a [`Distrust`], to be found by
/// [`Distrust::of`].
pub struct Trust {
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
    /// Of all who ask: rarely locked, and never for long.
    seen: Mutex<Intermediates>,
}

impl Trust {
    /// Trusts these and nobody else.
    pub fn new(roots: Roots) -> Trust {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Trust { roots, algorithms, seen: Mutex::default() }
    }

    /// Whether `other` trusts the same authorities.
    pub fn is_same(&self, other: &Trust) -> bool {
        self.roots.0.roots == other.roots.0.roots
    }

    /// Judges a chain as a server shows it: its own certificate first, then the others.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Distrust> {
        if !i64::try_from(now.as_secs()).is_ok_and(time::is_plausible) {
            return Err(Distrust::WrongClock);
        }
        let certificate = ParsedCertificate::try_from(own).map_err(reason)?;
        self.judge_chain(&certificate, own, others, now)?;
        verify_server_name(&certificate, name).map_err(reason)
    }

    fn judge_chain(
        &self,
        certificate: &ParsedCertificate<'_>,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Distrust> {
        let verify = |others: &[CertificateDer<'_>]| {
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(certificate, &self.roots.0, others, now, all)
                .map_err(reason)
        };
        let Err(distrust) = verify(others) else {
            self.seen().keep(own, others, |way| verify(way).is_ok());
            return Ok(());
        };
        if !matches!(distrust, Distrust::Untrusted | Distrust::Unsuitable) {
            return Err(distrust);
        }
        let is_own_issuer = x509::parse(own).is_some_and(|own| own.issuer == own.subject);
        if is_own_issuer && self.roots.contain(own) {
            return in_time(own, now);
        }
        if is_own_issuer {
            return Err(Distrust::SelfSigned);
        }
        let missing = self.seen().find(own, others);
        if missing.is_empty() {
            return Err(distrust);
        }
        verify(&[others, &missing].concat())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Intermediates> {
        // What a panicking thread left behind is still whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} roots)", self.roots.len())
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(own, others, name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn reason(error: Error) -> Distrust {
    Distrust::of(&error).unwrap_or(Distrust::Malformed)
}

/// The dates of a certificate that is a root itself.
fn in_time(own: &CertificateDer<'_>, now: UnixTime) -> Result<(), Distrust> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match x509::parse(own) {
        None => Err(Distrust::Malformed),
        Some(own) if own.not_after.unix_secs < now => Err(Distrust::Expired),
        Some(own) if own.not_before.unix_secs > now => Err(Distrust::NotYetValid),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
