//! Waiting for room in an output, for a bounded time.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// Whether something can be written to `fd` without blocking, within `timeout` (whole milliseconds). An output that is
/// broken counts as writable: the write then says how.
pub fn writable_within(fd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX);
        // SAFETY: the pointer and the count describe one local, which outlives the call.
        match super::socket::cvt(unsafe { libc::poll(&raw mut poll, 1, left) }) {
            Ok(ready) => return Ok(ready > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_pipe_is_not_writable_and_a_broken_one_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut written = 0_usize;
        while writable_within(&writer, Duration::ZERO).unwrap() {
            written += writer.write(&[b'x'; 4096]).unwrap();
            assert!(written <= 16 << 20, "a pipe without end");
        }
        assert!(written > 0);
        drop(reader);
        assert!(writable_within(&writer, Duration::ZERO).unwrap());
        assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
