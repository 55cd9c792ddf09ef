//! The few system calls that std does not offer: signals, namespaces, descriptor limits, resets.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill takes plain numbers.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "kill({pid}, {signal}): {}", io::Error::last_os_error());
}

/// Moves the calling thread, and what it starts from now on, into a network namespace.
pub fn enter_namespace(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the time of the call.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the time of the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    #[allow(clippy::useless_conversion)] // 32 bits wide on some targets
    u64::from(limit.rlim_cur)
}

/// Wakes a thread that is blocked in `accept`, and makes the port refuse.
pub fn stop_listening(listener: &TcpListener) {
    // SAFETY: the descriptor is open for the time of the call.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Closes with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is a `linger` of that size, and the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Makes a socket's receive buffer small, so that a reader that stops is felt by the sender at once.
pub fn small_receive_buffer(fd: &impl AsRawFd, bytes: i32) {
    // SAFETY: the option's value is an int, and the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Whether this process may build namespaces and firewall rules.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
