//! Moving bytes between sockets through a pipe, without copying them into this process (splice(2)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::socket::cvt;

/// A non-blocking pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A new pipe that holds about `capacity` bytes, or what the kernel grants a user without privileges.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let mut fds = [-1; 2];
        // SAFETY: the pointer is to an array of two that outlives the call.
        cvt(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        let [read, write] = fds;
        // SAFETY: two descriptors that were just made and that nobody else owns.
        let pipe = unsafe { Pipe { read: OwnedFd::from_raw_fd(read), write: OwnedFd::from_raw_fd(write) } };
        // A smaller pipe works as well, only slower, so a refusal is no error.
        // SAFETY: no pointers.
        unsafe { libc::fcntl(pipe.write.as_raw_fd(), libc::F_SETPIPE_SZ, capacity) };
        Ok(pipe)
    }

    /// Moves up to `max` bytes from a socket into the pipe; 0 is the end of the stream.
    pub fn fill(&self, from: &impl AsRawFd, max: usize) -> io::Result<usize> {
        splice(from, &self.write, max)
    }

    /// Moves up to `max` bytes from the pipe to a socket.
    pub fn drain(&self, to: &impl AsRawFd, max: usize) -> io::Result<usize> {
        splice(&self.read, to, max)
    }
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, max: usize) -> io::Result<usize> {
    // SAFETY: the offsets are null, as pipes and sockets demand; both descriptors are borrowed for the call.
    let n = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            max,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
