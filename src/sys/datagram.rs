//! Datagrams: listeners that hear where a datagram was going, sockets that answer in a foreign address's name, and many
//! datagrams by one system call.
//!
//! A socket that is bound to a foreign address would be found by the kernel when the next datagram to that address comes:
//! TPROXY passes over it, but `socket transparent` of nftables does not, and a firewall with that rule would lead a client's
//! datagrams past the listener. So such a socket is connected, too, to where no datagram comes from: then it is found for
//! nobody, and still sends to whom it is told to.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use super::socket::{RawAddr, bind, connect, cvt, decode, set, set_flag, set_transparent, socket};

/// Datagrams that one system call moves at most.
pub const BATCH: usize = 16;

/// Room for one datagram: what an IP packet can carry.
const SLOT: usize = 64 * 1024;

/// Room for control messages of one datagram: its destination takes 48 bytes at most. In words, for their alignment.
const CONTROL_WORDS: usize = 16;

/// What a listener may hold until its worker comes to it: half a second at 16 Mbit/s. Only what waits takes memory.
const LISTENER_BUFFER: libc::c_int = 1 << 20;

/// The port of the discard service (RFC 863): a datagram from there is never sent.
const NOBODY: u16 = 9;

/// `count` sockets on one address, one per worker, that hear where a datagram was going. The kernel spreads clients between
/// them by address and port, so that what one client's socket sends always comes to the same worker.
///
/// As for [`super::socket::tcp_listeners`], the port is not shared with other processes, and `beside` shares it with
/// sockets of our own.
pub fn udp_listeners(
    addr: SocketAddr,
    tproxy: bool,
    count: usize,
    beside: bool,
) -> io::Result<Vec<UdpSocket>> {
    let mut listeners = Vec::with_capacity(count);
    let mut addr = addr;
    for i in 0..count {
        let fd = socket(addr, libc::SOCK_DGRAM)?;
        if addr.is_ipv6() {
            set_flag(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        }
        if tproxy {
            set_transparent(&fd, addr)?;
        }
        match addr {
            SocketAddr::V4(_) => set_flag(&fd, libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR)?,
            SocketAddr::V6(_) => set_flag(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR)?,
        }
        if set(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &LISTENER_BUFFER).is_err() {
            // Without CAP_NET_ADMIN up to net.core.rmem_max.
            let _ = set(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &LISTENER_BUFFER);
        }
        if i > 0 || beside {
            set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        bind(&fd, addr)?;
        set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        let listener = UdpSocket::from(fd);
        if i == 0 {
            // Port 0 (tests): the others take the port that the first one got.
            addr = listener.local_addr()?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A socket that answers in the name of `addr`, which is somebody else's, and that hears nothing itself. Each worker may
/// have one.
pub fn answering_as(addr: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket(addr, libc::SOCK_DGRAM)?;
    set_flag(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set_transparent(&fd, addr)?;
    bind(&fd, addr)?;
    let nobody = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, NOBODY).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, NOBODY).into(),
    };
    connect(&fd, nobody)?;
    Ok(fd)
}

/// One datagram that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// Where it was going before the firewall led it here, if the socket asks for that.
    pub to: Option<SocketAddr>,
    /// What it says.
    pub bytes: &'a [u8],
}

/// What one system call has received. The memory is the kernel's until something is written to it, so room for the largest
/// datagrams costs nothing where there are none.
pub struct Batch {
    /// [`SLOT`] bytes for each datagram.
    buffer: Vec<u8>,
    heads: [Head; BATCH],
    received: usize,
}

/// What comes beside a datagram's bytes.
#[derive(Clone, Copy)]
struct Head {
    name: libc::sockaddr_storage,
    control: [u64; CONTROL_WORDS],
    control_len: usize,
    named: bool,
    len: usize,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl Batch {
    /// Nothing received.
    pub fn new() -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
        let name = unsafe { std::mem::zeroed() };
        let head = Head { name, control: [0; CONTROL_WORDS], control_len: 0, named: false, len: 0 };
        Batch { buffer: vec![0; BATCH * SLOT], heads: [head; BATCH], received: 0 }
    }

    /// Receives what waits, at most [`BATCH`] datagrams, in the place of what was received before. With fewer than that
    /// nothing more waited.
    ///
    /// # Errors
    /// Nothing waits, or an ICMP error that came for a connected socket; after the latter there may be more.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.received = 0;
        // SAFETY: mmsghdr and iovec are plain data for which all zeroes is a value.
        let (mut messages, mut slots): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { std::mem::zeroed() };
        let places = self.buffer.chunks_exact_mut(SLOT).zip(&mut self.heads);
        for ((message, slot), (bytes, head)) in messages.iter_mut().zip(&mut slots).zip(places) {
            *slot = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let message = &mut message.msg_hdr;
            message.msg_name = (&raw mut head.name).cast();
            message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_iov = slot;
            message.msg_iovlen = 1;
            message.msg_control = head.control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&head.control) as _;
        }
        // SAFETY: each of the BATCH messages points to a name, a slot and control room of `self` or of this frame, all with
        // their true sizes, which outlive the call and are used by nobody else during it.
        let received = cvt(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                0,
                std::ptr::null_mut(),
            )
        })?;
        self.received = usize::try_from(received).unwrap_or_default().min(BATCH);
        for (message, head) in messages.iter().zip(&mut self.heads).take(self.received) {
            head.named = message.msg_hdr.msg_namelen > 0;
            head.control_len = message.msg_hdr.msg_controllen as _;
            head.len = usize::try_from(message.msg_len).unwrap_or(SLOT).min(SLOT);
        }
        Ok(self.received)
    }

    /// What was received, in its order.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival<'_>> + Clone {
        let slots = self.buffer.chunks_exact(SLOT).zip(&self.heads).take(self.received);
        slots.map(|(slot, head)| Arrival {
            from: head.named.then(|| decode(&head.name)).flatten(),
            to: head.original_destination(),
            bytes: slot.get(..head.len).unwrap_or_default(),
        })
    }
}

impl Head {
    fn original_destination(&self) -> Option<SocketAddr> {
        if self.control_len == 0 {
            return None;
        }
        // SAFETY: msghdr is plain data for which all zeroes is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = self.control.as_ptr().cast_mut().cast();
        message.msg_controllen = self.control_len.min(size_of_val(&self.control)) as _;
        // SAFETY: the message points to control room that the kernel has filled up to this length, and that lives on.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: the header is not null, and so lies within the control room, which is aligned for it.
            let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
            let (family, size) = match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => (libc::AF_INET, size_of::<libc::sockaddr_in>()),
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    (libc::AF_INET6, size_of::<libc::sockaddr_in6>())
                }
                _ => (libc::AF_UNSPEC, 0),
            };
            if size > 0 {
                // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
                let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
                // SAFETY: a message of this kind holds an address of this size, and the storage is large enough for it.
                unsafe {
                    let data = libc::CMSG_DATA(header).cast_const();
                    std::ptr::copy_nonoverlapping(data, (&raw mut storage).cast(), size);
                }
                // The same as in the message, but that qemu-user leaves it there in the order of the machine it runs on.
                storage.ss_family = family as libc::sa_family_t;
                return decode(&storage);
            }
            // SAFETY: as for the first one.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        None
    }
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Bytes of those that went out.
    pub bytes: u64,
    /// The last error; whoever it concerned was left out.
    pub error: Option<io::Error>,
}

/// Sends datagrams to `to`, or to whom the socket is connected, each with `header` before it, which is not counted. What finds
/// no room is lost, as on any link: nobody waits.
pub fn send<'a>(
    socket: &impl AsRawFd,
    to: Option<SocketAddr>,
    header: &[u8],
    datagrams: impl IntoIterator<Item = &'a [u8]>,
) -> Sent {
    let name = to.map(RawAddr::new);
    let mut sent = Sent::default();
    let mut datagrams = datagrams.into_iter().peekable();
    while datagrams.peek().is_some() {
        let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
        let mut count = 0;
        for (place, datagram) in batch.iter_mut().zip(datagrams.by_ref().take(BATCH)) {
            *place = datagram;
            count += 1;
        }
        let mut rest = batch.get(..count).unwrap_or_default();
        // An ICMP error that came for an earlier datagram is reported once, and keeps this one back.
        let mut retried = false;
        while let Some((_, others)) = rest.split_first() {
            match send_batch(socket, name.as_ref(), header, rest) {
                Ok(n @ 1..) => {
                    let (gone, left) = rest.split_at(n.min(rest.len()));
                    sent.bytes += gone.iter().map(|datagram| datagram.len() as u64).sum::<u64>();
                    (rest, retried) = (left, false);
                }
                Ok(0) => return sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sent.error = Some(error);
                    return sent;
                }
                Err(error) => {
                    sent.error = Some(error);
                    if retried {
                        rest = others;
                    }
                    retried = !retried;
                }
            }
        }
    }
    sent
}

/// As many of at most [`BATCH`] datagrams as go out at once.
fn send_batch(
    socket: &impl AsRawFd,
    to: Option<&RawAddr>,
    header: &[u8],
    datagrams: &[&[u8]],
) -> io::Result<usize> {
    // SAFETY: mmsghdr and iovec are plain data for which all zeroes is a value.
    let (mut messages, mut slots): ([libc::mmsghdr; BATCH], [[libc::iovec; 2]; BATCH]) =
        unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    for ((message, slot), datagram) in messages.iter_mut().zip(&mut slots).zip(datagrams) {
        *slot = [header, datagram]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        let message = &mut message.msg_hdr;
        if let Some(to) = to {
            message.msg_name = (&raw const to.storage).cast_mut().cast();
            message.msg_namelen = to.len;
        }
        message.msg_iov = slot.as_mut_ptr();
        message.msg_iovlen = 2;
        count += 1;
    }
    // SAFETY: `count` of the messages point to a header, a datagram and perhaps a name, with their true sizes, which outlive the call;
    // the kernel only reads them.
    let sent = cvt(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) })?;
    Ok(usize::try_from(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;
    use std::time::Duration;

    fn local() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// Listeners on loopback's addresses, of each family that this machine has.
    fn listeners(count: usize) -> impl Iterator<Item = Vec<UdpSocket>> {
        ["127.0.0.1:0", "[::1]:0"].into_iter().filter_map(move |addr| {
            if addr.starts_with('[') && UdpSocket::bind(addr).is_err() {
                return None;
            }
            let listeners = udp_listeners(addr.parse().unwrap(), false, count, false);
            testing::unless_emulator_lacks("IP_RECVORIGDSTADDR", listeners)
        })
    }

    #[test]
    fn a_batch_brings_every_datagram_whole_with_who_sent_it_and_where_it_was_going() {
        for listeners in listeners(1) {
            let listener = &listeners[0];
            let to = listener.local_addr().unwrap();
            let client = UdpSocket::bind((to.ip(), 0)).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.receive(listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.arrivals().count(), 0);
            let large = vec![7; 60_000];
            let datagrams: [&[u8]; 4] = [b"one", b"", &large, b"four"];
            for datagram in datagrams {
                client.send_to(datagram, to).unwrap();
            }
            let from = client.local_addr().unwrap();
            assert_eq!(batch.receive(listener).unwrap(), 4);
            for (arrival, bytes) in batch.arrivals().zip(datagrams) {
                assert_eq!(arrival, Arrival { from: Some(from), to: Some(to), bytes });
            }
        }
    }

    #[test]
    fn more_than_a_batch_comes_in_order() {
        let (server, client) = (local(), local());
        server.set_nonblocking(true).unwrap();
        let datagrams: Vec<Vec<u8>> = (0..BATCH as u8 + 3).map(|n| vec![n; 3]).collect();
        let sent = send(&client, server.local_addr().ok(), &[], datagrams.iter().map(Vec::as_slice));
        assert_eq!(sent.bytes, 3 * datagrams.len() as u64);
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        while let Ok(n) = batch.receive(&server) {
            assert!(n <= BATCH);
            seen.extend(batch.arrivals().map(|arrival| arrival.bytes.to_vec()));
        }
        assert_eq!(seen, datagrams);
    }

    /// The kernel tells of the port on which nobody listens when the next datagram is sent, and does not send that one.
    #[test]
    fn an_error_for_an_earlier_datagram_does_not_cost_the_next() {
        let server = local();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        client.connect(addr).unwrap();
        drop(server);
        let lost: [&[u8]; 1] = [b"lost"];
        assert_eq!(send(&client, None, &[], lost).bytes, 4);
        let server = UdpSocket::bind(addr).unwrap();
        let datagrams: [&[u8]; 2] = [b"a", b"b"];
        let sent = send(&client, None, &[], datagrams);
        assert_eq!(sent.error.map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 8];
        for datagram in datagrams {
            let len = server.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], datagram);
        }
    }

    #[test]
    fn a_port_that_is_listened_on_cannot_be_shared() {
        for first in listeners(2) {
            let addr = first[0].local_addr().unwrap();
            assert_eq!(first[1].local_addr().unwrap(), addr);
            let second = udp_listeners(addr, false, 2, false).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
            assert_eq!(udp_listeners(addr, false, 2, true).unwrap().len(), 2);
        }
    }
}
