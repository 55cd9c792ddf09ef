//! The authority that signs certificates for intercepted connections, and the roots by which servers are judged.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use super::super::plan::Interception;
use super::super::problem::Report;
use super::super::secret_file::SecretFile;
use super::super::tree::Node;
use super::Certs;
use super::server::{Date, MAX_FILE_BYTES, chain, key};
use crate::intercept::{Authority, Minter, Pinned, Unfit};
use crate::relay::tls::intercepted::Ends;
use crate::sys::time;
use crate::wire::x509;

/// Where systems keep the roots that they trust.
const SYSTEM_ROOTS: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

impl Certs<'_> {
    /// What rules with `action: intercept` need. `root` is where it is said that a key is missing; `fallback`:
    /// `interceptFallback`.
    pub(in crate::config) fn interception(
        &mut self,
        root: &Node,
        fallback: bool,
        report: &mut Report,
    ) -> Option<Arc<Interception>> {
        const WHY: &str = "is missing: `action: intercept` needs the certificate of an authority and its key (see --make-ca)";
        let public = self.needed("interceptPublic", root, "certs.interceptPublic", WHY, report);
        let private = self.needed("interceptPrivate", root, "certs.interceptPrivate", WHY, report);
        let (public, private) = (self.load(public?, report), self.load(private?, report));
        let (public, private) = (public?, private?);
        private.file.warn_if_public(&private.path, private.node, report);
        let (chain, key) = (chain(&public, report), key(&private, report));
        let (chain, key) = (chain?, key?);
        let own = chain.clone();
        let authority = match Authority::new(chain, &key, time::now().secs) {
            Ok(authority) => authority,
            Err(unfit) => {
                let (public_path, private_path) = (public.path.display(), private.path.display());
                match unfit {
                    Unfit::OtherKey => report.error(
                        private.node,
                        format!(
                            "`{private_path}`: the key is not that of the certificate in `{public_path}`"
                        ),
                    ),
                    Unfit::Key(error) => {
                        report.error(
                            private.node,
                            format!("`{private_path}`: the key cannot be used: {error}"),
                        );
                    }
                    Unfit::Unreadable => {
                        report.error(public.node, format!("`{public_path}`: the certificate cannot be read"));
                    }
                    Unfit::NoAuthority => report.error(
                        public.node,
                        format!("`{public_path}`: the certificate is not an authority's: it lacks `CA:TRUE`"),
                    ),
                    Unfit::MayNotSign => report.error(
                        public.node,
                        format!(
                            "`{public_path}`: the certificate may not sign others: it lacks `keyCertSign`"
                        ),
                    ),
                    Unfit::Expired(time) => report.error(
                        public.node,
                        format!("`{public_path}`: the certificate has expired on {}", Date(time)),
                    ),
                }
                return None;
            }
        };
        if let Some(read) = own.first().and_then(|der| x509::parse(der))
            && read.not_before.unix_secs > time::now().secs
        {
            let (path, date) = (public.path.display(), Date(read.not_before));
            report.warn(
                public.node,
                format!("`{path}`: the certificate counts from {date} on, if this machine's clock is right"),
            );
        }
        let mut made_of = Sha256::new();
        for file in [&public.file, &private.file] {
            made_of.update(Sha256::digest(&file.bytes));
        }
        made_of.update([u8::from(fallback)]);
        let verifier = self.verifier(root, &mut made_of, report)?;
        match Minter::new(authority).and_then(|minter| Ok((minter, Ends::new(verifier)?))) {
            Ok((minter, ends)) => {
                let (made_of, pinned) = (made_of.finalize().into(), fallback.then(Pinned::default));
                Some(Arc::new(Interception { minter, ends, made_of, pinned }))
            }
            Err(error) => {
                report.error(public.node, format!("nothing can be intercepted: {error}"));
                None
            }
        }
    }

    /// Judges servers' certificates.
    fn verifier(
        &mut self,
        root: &Node,
        made_of: &mut Sha256,
        report: &mut Report,
    ) -> Option<Arc<dyn ServerCertVerifier>> {
        let mut roots = RootCertStore::empty();
        match self.section.get("caPublic") {
            Some(node) => {
                let file = self.load(node, report)?;
                made_of.update(&file.file.bytes);
                roots.add_parsable_certificates(chain(&file, report)?);
            }
            None => {
                let system = SYSTEM_ROOTS.iter().find_map(|path| {
                    SecretFile::read(Path::new(path), MAX_FILE_BYTES).ok().map(|file| file.bytes)
                });
                let system = system.unwrap_or_default();
                made_of.update(&system);
                let certificates = CertificateDer::pem_slice_iter(&system);
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
            Ok(verifier) => Some(verifier),
            Err(error) => {
                report.missing(
                    root,
                    "certs.caPublic",
                    format!("there are no roots to judge servers by: {error}"),
                );
                None
            }
        }
    }
}
