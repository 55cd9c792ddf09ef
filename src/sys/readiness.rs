//! Waiting for one of a few descriptors: for threads that have no event loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// There is something to read or to accept, or the end.
    Readable,
    /// There is room to write.
    Writable,
}

/// Waits until one of `fds` has what is wanted of it, or until then; which of them do. One that is broken has: the call that
/// follows says how. After a signal it may be none before the time.
pub fn wait(fds: &[(BorrowedFd<'_>, Wanted)], until: Option<Instant>) -> io::Result<Vec<bool>> {
    let mut polls: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, wanted)| {
            let events = match wanted {
                Wanted::Readable => libc::POLLIN,
                Wanted::Writable => libc::POLLOUT,
            };
            libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
        })
        .collect();
    let count = libc::nfds_t::try_from(polls.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let timeout_ms = until.map_or(-1, |until| {
        // Rounded up: a turn too early finds nothing to do.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: the pointer and the count describe a vector that outlives the call.
    match super::socket::cvt(unsafe { libc::poll(polls.as_mut_ptr(), count, timeout_ms) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        Err(_) => Ok(vec![false; fds.len()]),
        Ok(_) => Ok(polls.iter().map(|poll| poll.revents != 0).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn it_tells_who_has_what_is_wanted() {
        let (reader, mut writer) = io::pipe().unwrap();
        let (other, _quiet) = io::pipe().unwrap();
        let wanted = [
            (reader.as_fd(), Wanted::Readable),
            (writer.as_fd(), Wanted::Writable),
            (other.as_fd(), Wanted::Readable),
        ];
        assert_eq!(wait(&wanted, None).unwrap(), [false, true, false]);
        let now = Instant::now();
        assert_eq!(wait(&wanted[..1], Some(now)).unwrap(), [false]);
        let later = now + Duration::from_millis(30);
        assert_eq!(wait(&[wanted[0], wanted[2]], Some(later)).unwrap(), [false, false]);
        assert!(Instant::now() >= later);
        assert_eq!(wait(&[], Some(later)).unwrap(), [false; 0]);
        let broken = reader.as_fd().try_clone_to_owned().unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(&[(broken.as_fd(), Wanted::Readable)], None).unwrap(), [true]);
        drop(writer);
        assert_eq!(wait(&[(broken.as_fd(), Wanted::Readable)], None).unwrap(), [true]);
    }
}
