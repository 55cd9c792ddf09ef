//! Sockets in the file system, whose permissions are their guard (unix(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::socket::cvt;

/// The owner and the group, nobody else.
const MODE: u32 = 0o660;
/// Clients that wait to be served.
const BACKLOG: libc::c_int = 8;

/// Listens at `path`, for its owner and group. What a program left there that is gone is taken away.
///
/// # Errors
/// Somebody answers there (`AddrInUse`), something that is no socket is in the way, or those of the system.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            bind(path)
        }
        other => other,
    }
}

/// Whether it is a socket at which nobody listens. What is no socket refuses connections, too.
fn is_stale(path: &Path) -> bool {
    if !path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket()) {
        return false;
    }
    matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // SAFETY: sockaddr_un is plain data for which all zeroes is a value.
    let mut addr: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // One byte has to stay zero.
    if bytes.len() >= addr.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    for (place, byte) in addr.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    // SAFETY: no pointers; the result is checked.
    let fd = cvt(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // The file gets the mode of the socket, so there is no moment in which it has another.
    socket.set_permissions(PermissionsExt::from_mode(MODE))?;
    // SAFETY: the pointer and the length describe a local that outlives the call.
    cvt(unsafe {
        let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len)
    })?;
    // SAFETY: no pointers.
    cvt(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_and_group_and_a_stale_one_is_taken_away() {
        let path = std::env::temp_dir().join(format!("calamary-local-{}", std::process::id()));
        let listener = listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !MODE, 0, "{mode:o}");
        UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody listens");
        drop(listener);
        drop(listen(&path).unwrap());
        std::fs::remove_file(&path).unwrap();

        std::fs::write(&path, "no socket").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "no socket");
        std::fs::remove_file(&path).unwrap();
        assert!(listen(Path::new(&"x".repeat(200))).is_err());
    }
}
