//! Small files, read whole and never without a bound.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::socket::cvt;

/// What is asked of the kernel at once.
const PIECE: usize = 4096;

/// The first `most` bytes of the file.
///
/// `std::fs::File::open` would word mistakes in its options, which cannot be made here, in 5 KB of a MIPS binary.
///
/// # Errors
/// It cannot be opened or read.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the path is terminated and outlives the call.
    let fd = cvt(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut bytes = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let room = most.saturating_sub(bytes.len()).min(PIECE);
        match file.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => return Ok(bytes),
            Ok(got) => bytes.extend_from_slice(piece.get(..got).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let path = std::env::temp_dir().join(format!("calamary-files-{}", std::process::id()));
        let text: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
        std::fs::write(&path, &text).unwrap();
        for most in [0, 1, PIECE, PIECE + 1, text.len(), text.len() + 1, usize::MAX] {
            let found = read(&path, most).unwrap();
            assert!(found == text[..most.min(text.len())], "{most}: {} bytes", found.len());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(Path::new("/dev/null/x"), 1).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(read(Path::new("a\0b"), 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read(Path::new("/"), 1).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
