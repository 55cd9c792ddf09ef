//! Small files that hold secrets, hashes of passwords or keys: read whole, never without a bound, and better not readable
//! by everybody.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::problem::Report;
use super::tree::Node;
use crate::sys::error::described;
use crate::sys::files;

/// The permission bit of a file that everybody may read.
const READABLE_BY_OTHERS: u32 = 0o004;

/// What a file holds, and whether everybody may know it.
pub(super) struct SecretFile {
    pub(super) bytes: Vec<u8>,
    is_public: bool,
}

impl SecretFile {
    /// Reads the file, of `max` bytes at most, whole MiB.
    ///
    /// # Errors
    /// It cannot be read, is larger, or is no regular file.
    pub(super) fn read(path: &Path, max: u64) -> io::Result<Self> {
        // Asked before it is opened: opening a named pipe would wait for a writer.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(described(io::ErrorKind::Other, "not a regular file"));
        }
        if metadata.len() > max {
            return Err(described(io::ErrorKind::Other, format!("larger than {} MiB", max >> 20)));
        }
        let bytes = files::read(path, usize::try_from(max).unwrap_or(usize::MAX))?;
        let is_public = metadata.permissions().mode() & READABLE_BY_OTHERS != 0;
        Ok(SecretFile { bytes, is_public })
    }

    /// Warns at `node`, which names `path`, if everybody may read it.
    pub(super) fn warn_if_public(&self, path: &Path, node: &Node, report: &mut Report) {
        if self.is_public {
            report.warn(node, format!("`{0}` can be read by everybody: chmod o-rwx {0}", path.display()));
        }
    }
}
