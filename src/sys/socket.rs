//! Sockets with the options that std does not know.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Options on every socket that this program sends from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// SO_MARK; needs CAP_NET_ADMIN (or, since Linux 5.17, CAP_NET_RAW).
    pub fwmark: Option<u32>,
    /// SO_BINDTODEVICE.
    pub interface: Option<String>,
}

/// `result` of a system call, -1 being the error in errno.
pub(super) fn cvt(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A socket address as the kernel takes it.
pub(super) struct RawAddr {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

impl RawAddr {
    pub(super) fn new(addr: SocketAddr) -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = match addr {
            SocketAddr::V4(a) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is at least as large and as aligned as every sockaddr type.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(a) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: a.port().to_be(),
                    sin6_flowinfo: a.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                    sin6_scope_id: a.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        RawAddr { storage, len: len as libc::socklen_t }
    }

    fn ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

/// The address in `storage`, if it is one of IPv4 or IPv6.
pub(super) fn decode(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, and the storage is large and aligned enough.
            let a = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            Some(SocketAddr::from((a.sin_addr.s_addr.to_ne_bytes(), u16::from_be(a.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let a = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            Some(SocketAddr::from((a.sin6_addr.s6_addr, u16::from_be(a.sin6_port))))
        }
        _ => None,
    }
}

/// The address at `from`, if it is one of IPv4 or IPv6.
///
/// # Safety
/// `from` is null or points to an address as large as its family's are.
pub(super) unsafe fn decode_at(from: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: so says the caller.
    let len = match i32::from(unsafe { from.as_ref() }?.sa_family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: the caller says that there is so much, and the storage is larger.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut storage).cast(), len) };
    decode(&storage)
}

pub(super) fn socket(addr: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let domain = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers; the result is checked.
    let fd = cvt(unsafe { libc::socket(domain, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn set<T>(fd: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only reads it.
    cvt(unsafe {
        libc::setsockopt(fd, level, option, (&raw const *value).cast(), size_of::<T>() as libc::socklen_t)
    })
    .map(drop)
}

pub(super) fn set_flag(fd: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set::<libc::c_int>(fd.as_raw_fd(), level, option, &1)
}

/// Lets a socket have addresses of others (IP_TRANSPARENT); needs CAP_NET_ADMIN or CAP_NET_RAW.
pub(super) fn set_transparent(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(_) => set_flag(fd, libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        SocketAddr::V6(_) => set_flag(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    }
}

pub(super) fn bind(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let raw = RawAddr::new(addr);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    cvt(unsafe { libc::bind(fd.as_raw_fd(), raw.ptr(), raw.len) }).map(drop)
}

/// Starts connecting; a connection under way is success.
pub(super) fn connect(fd: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let raw = RawAddr::new(addr);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    match cvt(unsafe { libc::connect(fd.as_raw_fd(), raw.ptr(), raw.len) }) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other.map(drop),
    }
}

fn apply(fd: &OwnedFd, out: &Outgoing) -> io::Result<()> {
    if let Some(mark) = out.fwmark {
        set::<u32>(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, &mark)?;
    }
    if let Some(name) = &out.interface {
        // SAFETY: the pointer and the length describe the name, which outlives the call; no terminator is needed.
        cvt(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        })?;
    }
    Ok(())
}

/// A non-blocking TCP connection to `addr`, begun: writable once it stands.
///
/// `data_waits`: there is something to send as soon as it stands. Then the last segment of the handshake goes out with it,
/// which saves both ends a packet.
pub fn tcp_connect(addr: SocketAddr, out: &Outgoing, data_waits: bool) -> io::Result<TcpStream> {
    let fd = socket(addr, libc::SOCK_STREAM)?;
    apply(&fd, out)?;
    set_flag(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    if data_waits {
        let off: libc::c_int = 0;
        // Where that fails there is a packet more. Too long it cannot wait: the kernel acknowledges after 200 ms.
        let _ = set(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, &off);
    }
    connect(&fd, addr)?;
    Ok(TcpStream::from(fd))
}

/// A blocking TCP connection to `addr` that stands, within `timeout`, which then counts for its writes, too.
pub fn tcp_connect_within(addr: SocketAddr, out: &Outgoing, timeout: Duration) -> io::Result<TcpStream> {
    let fd = socket(addr, libc::SOCK_STREAM)?;
    apply(&fd, out)?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    // Counts for connect(2), too (socket(7), SO_SNDTIMEO).
    stream.set_write_timeout(Some(timeout))?;
    let raw = RawAddr::new(addr);
    // SAFETY: the pointer and the length describe `raw`, which outlives the call.
    match cvt(unsafe { libc::connect(stream.as_raw_fd(), raw.ptr(), raw.len) }) {
        Ok(_) => Ok(stream),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(e) => Err(e),
    }
}

/// A non-blocking UDP socket that talks to `addr` only, from a port of the kernel's choice, and hears its ICMP errors.
pub fn udp_connect(addr: SocketAddr, out: &Outgoing) -> io::Result<UdpSocket> {
    let fd = socket(addr, libc::SOCK_DGRAM)?;
    apply(&fd, out)?;
    connect(&fd, addr)?;
    Ok(UdpSocket::from(fd))
}

/// `count` listening sockets on one address, one per worker, between which the kernel spreads connections.
///
/// The first is bound before it joins the SO_REUSEPORT group, so a port that another process listens on (with or
/// without SO_REUSEPORT) is an error, and a second daemon cannot take part of the first one's connections. With `beside`
/// the port is our own already, on another address or with other options, and is shared until the old sockets are closed;
/// the kernel allows that to the user who bound those.
pub fn tcp_listeners(
    addr: SocketAddr,
    tproxy: bool,
    count: usize,
    beside: bool,
) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(count);
    let mut addr = addr;
    for i in 0..count {
        let fd = socket(addr, libc::SOCK_STREAM)?;
        set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        if addr.is_ipv6() {
            set_flag(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        }
        if tproxy {
            set_transparent(&fd, addr)?;
        }
        // Accepted sockets inherit it: one system call less for each.
        set_flag(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
        if i > 0 || beside {
            set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        bind(&fd, addr)?;
        set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        // SAFETY: no pointers.
        cvt(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG as libc::c_int) })?;
        let listener = TcpListener::from(fd);
        if i == 0 {
            // Port 0 (tests): the others take the port that the first one got.
            addr = listener.local_addr()?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Connections that may wait to be accepted on one listening socket; the kernel lowers it to net.core.somaxconn.
pub const BACKLOG: usize = 4096;

/// Where a connection was going before the firewall redirected it here (SO_ORIGINAL_DST), as connection tracking knows it.
pub fn original_dst(stream: &impl AsRawFd, v4: bool) -> io::Result<SocketAddr> {
    const IP6T_SO_ORIGINAL_DST: libc::c_int = 80;
    let (level, option) =
        if v4 { (libc::SOL_IP, libc::SO_ORIGINAL_DST) } else { (libc::SOL_IPV6, IP6T_SO_ORIGINAL_DST) };
    // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the pointers are to locals that outlive the call, and `len` is the size of the storage.
    cvt(unsafe {
        libc::getsockopt(stream.as_raw_fd(), level, option, (&raw mut storage).cast(), &raw mut len)
    })?;
    decode(&storage).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Makes closing the socket send a reset and forget what was not sent.
pub fn reset_on_close(stream: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Lets the kernel find out that a silent peer is gone: after `idle_secs`, then three probes `interval_secs` apart.
pub fn keepalive(stream: &impl AsRawFd, idle_secs: u16, interval_secs: u16) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    set::<libc::c_int>(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &libc::c_int::from(idle_secs))?;
    set::<libc::c_int>(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &libc::c_int::from(interval_secs))?;
    set::<libc::c_int>(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &3)?;
    set::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)
}

/// Whether an error says that this machine does not have the address, or nothing of its family.
pub fn is_no_address(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Whether an error says that this process or machine is out of descriptors or memory.
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_the_kernels_form() {
        for text in ["127.0.0.1:4128", "[fd77::1]:443", "[::]:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&RawAddr::new(addr).storage), Some(addr));
        }
    }

    #[test]
    fn a_port_that_is_listened_on_cannot_be_shared() {
        let first = tcp_listeners("127.0.0.1:0".parse().unwrap(), false, 2, false).unwrap();
        let addr = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), addr);
        let second = tcp_listeners(addr, false, 2, false).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }
}
