//! Why a server's certificate is not trusted.

use std::fmt;

#[cfg(feature = "tls")]
use rustls::{CertificateError, Error, OtherError};

/// Why a certificate is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distrust {
    /// It, or one that it hangs on, has expired.
    Expired,
    /// It, or one that it hangs on, counts from a later time on.
    NotYetValid,
    /// It is for other names.
    WrongName,
    /// Its owner has signed it, and nobody else.
    SelfSigned,
    /// No way leads from it to a root.
    Untrusted,
    /// It, or one that it hangs on, is made for something else than what it is used for.
    Unsuitable,
    /// A signature is wrong: somebody shows a certificate that is not his, or one that was tampered with.
    BadSignature,
    /// It cannot be read.
    Malformed,
    /// It is signed in a way that nothing here can check.
    Unsupported,
    /// The machine's clock shows a time at which this program did not exist.
    WrongClock,
}

impl Distrust {
    /// The log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Distrust::Expired => "expired",
            Distrust::NotYetValid => "not_yet_valid",
            Distrust::WrongName => "wrong_name",
            Distrust::SelfSigned => "self_signed",
            Distrust::Untrusted => "untrusted",
            Distrust::Unsuitable => "unsuitable",
            Distrust::BadSignature => "bad_signature",
            Distrust::Malformed => "malformed",
            Distrust::Unsupported => "unsupported",
            Distrust::WrongClock => "wrong_clock",
        }
    }

    /// Whether it is the certificate's fault. Otherwise nobody knows what it is worth.
    pub fn is_certain(self) -> bool {
        !matches!(self, Distrust::Unsupported | Distrust::WrongClock)
    }

    /// What of a failed handshake is about the server's certificate.
    #[cfg(feature = "tls")]
    pub fn of(error: &Error) -> Option<Distrust> {
        let Error::InvalidCertificate(error) = error else { return None };
        Some(match error {
            // As `Trust` says it.
            CertificateError::Other(OtherError(reason)) => {
                reason.downcast_ref().copied().unwrap_or(Distrust::Unsuitable)
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Distrust::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Distrust::WrongName
            }
            CertificateError::UnknownIssuer => Distrust::Untrusted,
            CertificateError::BadSignature => Distrust::BadSignature,
            CertificateError::BadEncoding => Distrust::Malformed,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Distrust::Unsupported
            }
            // A purpose, a name constraint, an authority that shows itself as a server, …
            _ => Distrust::Unsuitable,
        })
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Distrust {}

#[cfg(feature = "tls")]
impl From<Distrust> for Error {
    fn from(distrust: Distrust) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(distrust))))
    }
}
