//! `certs`: files with certificates and keys. A file is read only where something uses it; the others' paths are only
//! checked for being text.

use std::path::{Path, PathBuf};

use super::decode::{Keys, Section, text};
use super::problem::Report;
#[cfg(feature = "tls")]
use super::secret_file::SecretFile;
use super::tree::Node;
#[cfg(feature = "tls")]
use crate::connect::trust::Trust;
use crate::relay::stream::Role;

#[cfg(feature = "tls")]
mod roots;

const KEYS: Keys =
    Keys::new(&["serverPublic", "serverPrivate", "interceptPublic", "interceptPrivate", "caPublic"]);

/// What `certs` says.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nothing is read"))]
pub(super) struct Certs<'t> {
    section: Section<'t>,
    /// What relative paths start from.
    folder: &'t Path,
    /// Files that were read.
    pub(super) files: Vec<PathBuf>,
    /// Who is trusted and why, in a few words for `-v`.
    pub(super) trusted: Option<String>,
}

/// The largest file: a chain of a few certificates has some kilobytes, a collection of roots some hundred.
#[cfg(feature = "tls")]
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file and the key that names it.
#[cfg(feature = "tls")]
struct Loaded<'t> {
    node: &'t Node,
    path: PathBuf,
    file: SecretFile,
}

impl<'t> Certs<'t> {
    /// Reads no file yet.
    pub(super) fn read(node: Option<&'t Node>, folder: &'t Path, report: &mut Report) -> Self {
        let section = node.map_or_else(Section::empty, |node| Section::read(node, &KEYS, report));
        for entry in section.entries() {
            text(entry.value, "the path of a file", report);
        }
        Certs { section, folder, files: Vec::new(), trusted: None }
    }

    /// The server's side of listeners of mode `https`. `root` is where it is said that a key is missing.
    #[cfg(feature = "tls")]
    pub(super) fn server(&mut self, root: &Node, report: &mut Report) -> Option<Role> {
        const WHY: &str = "is missing: a listener of mode `https` needs a certificate and its key";
        let public = self.needed("serverPublic", root, "certs.serverPublic", WHY, report);
        let private = self.needed("serverPrivate", root, "certs.serverPrivate", WHY, report);
        let (public, private) = (self.load(public?, report), self.load(private?, report));
        let (public, private) = (public?, private?);
        private.file.warn_if_public(&private.path, private.node, report);
        server::role(&public, &private, report)
    }

    /// Without TLS there is no such listener.
    #[cfg(not(feature = "tls"))]
    pub(super) fn server(&mut self, _: &Node, _: &mut Report) -> Option<Role> {
        None
    }

    /// Whom rules trust that ask for servers' certificates. `root` is where it is said that nobody can be trusted.
    #[cfg(feature = "tls")]
    pub(super) fn trust(&mut self, root: &Node, report: &mut Report) -> Option<Trust> {
        let (roots, source) = match self.section.get("caPublic") {
            Some(node) => {
                let file = self.load(node, report)?;
                (roots::configured(&file, report)?, roots::Source::File(file.path))
            }
            None => {
                let found = roots::of_system();
                if found.is_none() {
                    let message = "is missing: this system has no certificates of authorities";
                    report.missing(root, "certs.caPublic", message);
                }
                found?
            }
        };
        self.trusted = Some(format!("roots: {} of {source}", roots.len()));
        Some(Trust::new(roots))
    }

    #[cfg(feature = "tls")]
    fn needed(
        &self,
        key: &str,
        root: &Node,
        path: &'static str,
        why: &str,
        report: &mut Report,
    ) -> Option<&'t Node> {
        let node = self.section.get(key);
        if node.is_none() {
            report.missing(root, path, why);
        }
        node
    }

    #[cfg(feature = "tls")]
    fn load(&mut self, node: &'t Node, report: &mut Report) -> Option<Loaded<'t>> {
        // What is no text is reported already.
        let path = self.folder.join(super::decode::scalar(node)?);
        match SecretFile::read(&path, MAX_FILE_BYTES) {
            Ok(file) => {
                self.files.push(path.clone());
                Some(Loaded { node, path, file })
            }
            Err(error) => {
                report.error(node, format!("`{}` cannot be read: {error}", path.display()));
                None
            }
        }
    }
}

#[cfg(feature = "intercept")]
mod authority;

/// Whether a certificate chain and a key can be a server's.
#[cfg(feature = "tls")]
mod server {
    use rustls::pki_types::pem::{Error as PemError, PemObject as _};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{Error, InconsistentKeys};

    use super::super::problem::Report;
    use super::Loaded;
    use crate::relay::stream::Role;
    use crate::relay::tls;
    use crate::sys::time;
    use crate::wire::x509::{self, Certificate, Time};

    /// Certificates of one chain. Four are many.
    const MAX_CHAIN: usize = 16;

    /// The largest key of RSA that nobody is warned of.
    const MAX_RSA_BITS: usize = 2048;

    /// What a listener needs, if the files are in order.
    pub(super) fn role(public: &Loaded<'_>, private: &Loaded<'_>, report: &mut Report) -> Option<Role> {
        let (chain, key) = (chain(public, report), key(private, report));
        let (chain, key) = (chain?, key?);
        match tls::server(chain.clone(), key.clone_key()) {
            Ok(role) => {
                doubts(public, &chain, report);
                Some(role)
            }
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let own =
                    chain.iter().position(|der| tls::server(vec![der.clone()], key.clone_key()).is_ok());
                let (public, path) = (public, public.path.display());
                match own {
                    Some(place) => report.error(
                        public.node,
                        format!(
                            "`{path}`: the key belongs to certificate {}: the server's own must come first, then each \
                             that signed the one before it",
                            place + 1
                        ),
                    ),
                    None => report.error(
                        private.node,
                        format!("`{}`: the key is not that of the certificate in `{path}`", private.path.display()),
                    ),
                }
                None
            }
            Err(Error::InvalidCertificate(error)) => {
                let path = public.path.display();
                report.error(public.node, format!("`{path}`: the certificate cannot be used: {error}"));
                None
            }
            Err(error) => {
                let path = private.path.display();
                report.error(private.node, format!("`{path}`: the key cannot be used: {error}"));
                None
            }
        }
    }

    pub(super) fn chain(file: &Loaded<'_>, report: &mut Report) -> Option<Vec<CertificateDer<'static>>> {
        let path = file.path.display();
        // One more than is allowed tells that there is more.
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&file.file.bytes).take(MAX_CHAIN + 1).collect();
        let problem = match chain {
            Ok(chain) if chain.is_empty() => format!(
                "`{path}` holds no certificate in PEM form, which begins with `-----BEGIN CERTIFICATE-----`"
            ),
            Ok(chain) if chain.len() > MAX_CHAIN => {
                format!("`{path}` holds more than {MAX_CHAIN} certificates: one chain is needed")
            }
            Ok(chain) => return Some(chain),
            Err(error) => format!("`{path}` is no PEM file: {error}"),
        };
        report.error(file.node, problem);
        None
    }

    pub(super) fn key(file: &Loaded<'_>, report: &mut Report) -> Option<PrivateKeyDer<'static>> {
        let path = file.path.display();
        let is_encrypted = || file.file.bytes.windows(9).any(|text| text == b"ENCRYPTED");
        let problem = match PrivateKeyDer::from_pem_slice(&file.file.bytes) {
            Ok(key) => return Some(key),
            Err(PemError::NoItemsFound) if is_encrypted() => {
                format!("`{path}`: the key is encrypted: nobody could type its password at a start")
            }
            Err(PemError::NoItemsFound) => format!(
                "`{path}` holds no private key in PEM form, which begins with `-----BEGIN PRIVATE KEY-----`"
            ),
            Err(error) => format!("`{path}` is no PEM file: {error}"),
        };
        report.error(file.node, problem);
        None
    }

    /// What clients will object to.
    fn doubts(file: &Loaded<'_>, chain: &[CertificateDer<'_>], report: &mut Report) {
        let path = file.path.display();
        let parsed: Vec<Option<Certificate<'_>>> = chain.iter().map(|der| x509::parse(der)).collect();
        let now = time::now().secs;
        for (place, certificate) in parsed.iter().enumerate() {
            let Some(Certificate { not_before, not_after, .. }) = certificate else { continue };
            let which = place + 1;
            if not_after.unix_secs < now {
                let date = Date(*not_after);
                report.warn(file.node, format!("`{path}`: certificate {which} has expired on {date}"));
            } else if not_before.unix_secs > now {
                let date = Date(*not_before);
                report.warn(
                    file.node,
                    format!("`{path}`: certificate {which} counts from {date} on, if this machine's clock is right"),
                );
            }
        }
        if let Some(Some(Certificate { rsa_bits: Some(bits), .. })) = parsed.first()
            && *bits > MAX_RSA_BITS
        {
            report.warn(
                file.node,
                format!(
                    "`{path}`: a key of RSA with {bits} bits: each handshake holds up other connections, on a small router for a \
                     second; ECDSA P-256 is a hundred times faster"
                ),
            );
        }
        for (place, pair) in parsed.windows(2).enumerate() {
            if let [Some(one), Some(next)] = pair
                && one.issuer != next.subject
            {
                report.warn(
                    file.node,
                    format!(
                        "`{path}`: certificate {} did not sign certificate {}: clients may not find the way to a root",
                        place + 2,
                        place + 1
                    ),
                );
            }
        }
    }

    /// `2026-01-31`.
    pub(super) struct Date(pub Time);

    impl std::fmt::Display for Date {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:04}-{:02}-{:02}", self.0.year, self.0.month, self.0.day)
        }
    }
}

#[cfg(test)]
mod tests;
