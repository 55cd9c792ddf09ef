//! The hosts file on disk: read at the first lookup, and again when it was changed.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::connect::resolve::HOSTS_TTL;
use crate::connect::resolve::hosts::Hosts;
use crate::sys::files;

/// The file is looked at no more often than this.
const CHECK_INTERVAL: Duration = HOSTS_TTL;
/// Bytes read of it; what stands behind them is not seen.
const MAX_LEN: usize = 8 << 20;

/// Where it is, and what it was when it was read.
pub(super) struct HostsFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    next_check: Option<Instant>,
}

/// What changes with the contents, whether the file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Self {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl HostsFile {
    pub(super) fn new(path: &Path) -> Self {
        HostsFile { path: path.to_owned(), stamp: None, next_check: None }
    }

    /// The contents, if they are new. A file that is gone or cannot be read is empty.
    pub(super) fn changed(&mut self, now: Instant) -> Option<Hosts> {
        if self.next_check.is_some_and(|at| now < at) {
            return None;
        }
        self.next_check = Some(now + CHECK_INTERVAL);
        let stamp = std::fs::metadata(&self.path).ok().map(Stamp::from);
        if stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        let text = self.read().unwrap_or_else(|error| {
            log::warn!("{} cannot be read: {error}", self.path.display());
            String::new()
        });
        Some(Hosts::parse(&text))
    }

    fn read(&self) -> io::Result<String> {
        match files::read(&self.path, MAX_LEN) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_again_when_it_changed() {
        let path = std::env::temp_dir().join(format!("calamary-hosts-{}", std::process::id()));
        let mut file = HostsFile::new(&path);
        let mut now = Instant::now();
        let mut changed = |after: Duration| {
            now += after;
            file.changed(now).map(|hosts| hosts != Hosts::default())
        };
        let zero = Duration::ZERO;
        assert_eq!(changed(zero), None, "there is no file");
        std::fs::write(&path, "192.0.2.1 nas\n").unwrap();
        assert_eq!(changed(CHECK_INTERVAL / 2), None, "too early");
        assert_eq!(changed(CHECK_INTERVAL / 2), Some(true));
        assert_eq!(changed(CHECK_INTERVAL), None, "the same");
        std::fs::write(&path, "192.0.2.1 nas\n192.0.2.2 printer\n").unwrap();
        assert_eq!(changed(CHECK_INTERVAL), Some(true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(changed(CHECK_INTERVAL), Some(false), "gone");
    }
}
