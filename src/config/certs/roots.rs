//! Whom to trust: `certs.caPublic`, else the system's store, else the roots that are part of the program.
//!
//! Read only where a rule needs it: parsed they take some hundred kilobytes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::super::problem::Report;
use super::super::secret_file::SecretFile;
use super::{Loaded, MAX_FILE_BYTES};
use crate::connect::trust::Roots;

/// Roots that are read. Mozilla's are some 150.
const MAX_ROOTS: usize = 1024;

/// Where systems keep all of their roots in one file.
const SYSTEM_FILES: &[&str] = &[
    // Debian, Alpine, Arch, OpenWrt (ca-bundle).
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora and its relatives.
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    // Alpine, OpenWrt, the BSDs.
    "/etc/ssl/cert.pem",
];

/// Where OpenWrt's ca-certificates puts each into a file of its own.
const SYSTEM_FOLDER: &str = "/etc/ssl/certs";

/// Where roots came from.
pub(in crate::config) enum Source {
    File(PathBuf),
    Folder(&'static str),
    #[cfg(feature = "embedded-roots")]
    Program,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Folder(path) => f.write_str(path),
            #[cfg(feature = "embedded-roots")]
            Source::Program => f.write_str("this program"),
        }
    }
}

/// Those of `certs.caPublic`.
pub(super) fn configured(file: &Loaded<'_>, report: &mut Report) -> Option<Roots> {
    let path = file.path.display();
    let problem = match certificates(&file.file.bytes) {
        Ok(found) if found.is_empty() => format!(
            "`{path}` holds no certificate in PEM form, which begins with `-----BEGIN CERTIFICATE-----`"
        ),
        Ok(found) if found.len() > MAX_ROOTS => format!("`{path}` holds more than {MAX_ROOTS} certificates"),
        Ok(found) => match Roots::new(found) {
            (roots, _) if roots.is_empty() => format!("`{path}` holds no certificate that can be a root"),
            (roots, unusable) => {
                if unusable > 0 {
                    let message =
                        format!("`{path}`: {unusable} certificates cannot be used and are left out");
                    report.warn(file.node, message);
                }
                return Some(roots);
            }
        },
        Err(error) => format!("`{path}` is no PEM file: {error}"),
    };
    report.error(file.node, problem);
    None
}

/// Those of this machine, or of the program where the machine has none.
pub(super) fn of_system() -> Option<(Roots, Source)> {
    let file = SYSTEM_FILES.iter().find_map(|path| {
        let (roots, _) = Roots::new(read(Path::new(path))?);
        (!roots.is_empty()).then(|| (roots, Source::File(PathBuf::from(path))))
    });
    file.or_else(|| of_folder(SYSTEM_FOLDER)).or_else(of_program)
}

fn of_folder(folder: &'static str) -> Option<(Roots, Source)> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let is_certificate =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "crt" || extension == "pem");
    let files = entries.map(|entry| entry.path()).filter(is_certificate).take(MAX_ROOTS);
    let (roots, _) = Roots::new(files.filter_map(|path| read(&path)).flatten().take(MAX_ROOTS));
    (!roots.is_empty()).then_some((roots, Source::Folder(folder)))
}

#[cfg(feature = "embedded-roots")]
fn of_program() -> Option<(Roots, Source)> {
    Some((Roots::embedded(), Source::Program))
}

#[cfg(not(feature = "embedded-roots"))]
fn of_program() -> Option<(Roots, Source)> {
    None
}

fn read(path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let found = certificates(&SecretFile::read(path, MAX_FILE_BYTES).ok()?.bytes).ok()?;
    (found.len() <= MAX_ROOTS).then_some(found)
}

/// At most one more than is allowed, which tells that there is more.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).take(MAX_ROOTS + 1).collect()
}
