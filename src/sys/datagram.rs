//! Datagrams: listeners that hear where a datagram was going, sockets that answer in a foreign address's name, and many
//! datagrams by one system call.
//!
//! Where the kernel can (Linux 4.18 and 5.0), datagrams of one size go through it as one, joined (UDP_SEGMENT, UDP_GRO): what
//! leaves and what arrives here are the same datagrams as ever, only cheaper.
//!
//! A socket that is bound to a foreign address would be found by the kernel when the next datagram to that address comes:
//! TPROXY passes over it, but `socket transparent` of nftables does not, and a firewall with that rule would lead a client's
//! datagrams past the listener. So such a socket is connected, too, to where no datagram comes from: then it is found for
//! nobody, and still sends to whom it is told to.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::socket::{RawAddr, bind, connect, cvt, decode, set, set_flag, set_transparent, socket};

/// Messages that one system call moves at most. Each is a datagram, or several joined ones.
pub const BATCH: usize = 16;

/// Room for one message: what an IP packet can carry.
const SLOT: usize = 64 * 1024;

/// Room for control messages of one message: its destination takes 48 bytes at most, and the size of joined datagrams 24. In
/// words, for their alignment.
const CONTROL_WORDS: usize = 16;

/// Datagrams that are joined at most, as the kernel wants it (UDP_MAX_SEGMENTS).
const MAX_JOINED: usize = 64;

/// Bytes of joined datagrams at most: what an IPv4 packet can carry over UDP.
const MAX_JOINED_BYTES: usize = 65_507;

/// Room for the control message that says how large joined datagrams are. In words, for its alignment.
const SEGMENT_WORDS: usize = 3;

/// How long [`joins`] waits for its datagrams; they come within microseconds.
const TRIAL: Duration = Duration::from_millis(200);

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
        take_joined(&fd);
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

/// Lets the kernel hand over datagrams joined, where it can. From then on they can only be read by [`Batch::receive`].
pub fn take_joined(socket: &impl AsRawFd) {
    if joins() {
        // Linux 4.18 can send joined datagrams, but not receive them.
        let _ = set::<libc::c_int>(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, &1);
    }
}

/// Whether joined datagrams come out as what they were. That is tried, once: an older kernel ignores what it does not know and
/// sends one large datagram, and an emulator may hand numbers over in the wrong byte order.
fn joins() -> bool {
    static JOINS: OnceLock<bool> = OnceLock::new();
    // A program without datagrams never comes here, but its linker does not know.
    cfg!(feature = "udp") && *JOINS.get_or_init(|| try_joining().unwrap_or(false))
}

fn try_joining() -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    socket.set_read_timeout(Some(TRIAL))?;
    let _ = set::<libc::c_int>(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, &1);
    let datagrams: [&[u8]; 3] = [b"one", b"two", b"3"];
    send_batch(socket.as_raw_fd(), None, &[], &datagrams, true)?;
    let (mut batch, mut missing) = (Batch::new(), datagrams.as_slice());
    while !missing.is_empty() {
        batch.receive(&socket)?;
        for arrival in batch.arrivals() {
            match missing.split_first() {
                Some((next, others)) if *next == arrival.bytes => missing = others,
                _ => return Ok(false),
            }
        }
    }
    Ok(true)
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

    /// Receives what waits, at most [`BATCH`] messages, in the place of what was received before. With fewer than that
    /// nothing more waited. Each is a datagram, or several if the socket takes joined ones.
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
                libc::MSG_WAITFORONE as _,
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

    /// The datagrams that were received, in their order.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival<'_>> + Clone {
        let slots = self.buffer.chunks_exact(SLOT).zip(&self.heads).take(self.received);
        slots.flat_map(|(slot, head)| {
            let from = head.named.then(|| decode(&head.name)).flatten();
            let marks = head.marks();
            let bytes = slot.get(..head.len).unwrap_or_default();
            let size = marks.size.unwrap_or(SLOT);
            // An empty datagram is one, too.
            let empty = bytes.is_empty().then_some(bytes);
            empty.into_iter().chain(bytes.chunks(size)).map(move |bytes| Arrival {
                from,
                to: marks.to,
                bytes,
            })
        })
    }
}

/// What control messages say about a message.
#[derive(Clone, Copy, Default)]
struct Marks {
    /// Where it was going.
    to: Option<SocketAddr>,
    /// The size of the datagrams that are joined in it, of which the last one may be shorter; never 0.
    size: Option<usize>,
}

impl Head {
    fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        if self.control_len == 0 {
            return marks;
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
            // SAFETY: as above; what follows the header is looked at only as far as its kind says that it goes.
            let data = unsafe { libc::CMSG_DATA(header).cast_const() };
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                    // SAFETY: a message of this kind holds a sockaddr_in.
                    marks.to = unsafe { address(data, libc::AF_INET, size_of::<libc::sockaddr_in>()) };
                }
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    // SAFETY: a message of this kind holds a sockaddr_in6.
                    marks.to = unsafe { address(data, libc::AF_INET6, size_of::<libc::sockaddr_in6>()) };
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: a message of this kind holds an int.
                    let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                    marks.size = usize::try_from(size).ok().filter(|size| *size > 0);
                }
                _ => {}
            }
            // SAFETY: as for the first one.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        marks
    }
}

/// The address of this family and size at `data`.
///
/// # Safety
/// There is one, and it is not larger than a sockaddr_storage.
unsafe fn address(data: *const u8, family: libc::c_int, size: usize) -> Option<SocketAddr> {
    // SAFETY: sockaddr_storage is plain data for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: so says the caller.
    unsafe { std::ptr::copy_nonoverlapping(data, (&raw mut storage).cast(), size) };
    // The same as in the message, but that qemu-user leaves it there in the order of the machine it runs on.
    storage.ss_family = family as libc::sa_family_t;
    decode(&storage)
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
        let mut some: [&[u8]; MAX_JOINED] = [&[]; MAX_JOINED];
        let mut count = 0;
        for (place, datagram) in some.iter_mut().zip(datagrams.by_ref().take(MAX_JOINED)) {
            *place = datagram;
            count += 1;
        }
        let some = some.get(..count).unwrap_or_default();
        if !send_some(socket.as_raw_fd(), name.as_ref(), header, some, &mut sent) {
            break;
        }
    }
    sent
}

/// Sends at most [`MAX_JOINED`] datagrams; says whether there may be room for more.
fn send_some(
    socket: RawFd,
    to: Option<&RawAddr>,
    header: &[u8],
    datagrams: &[&[u8]],
    sent: &mut Sent,
) -> bool {
    /// A device cannot sum packets up, and so cannot take joined ones: not to be tried each time anew.
    static REFUSED: AtomicBool = AtomicBool::new(false);

    let mut rest = datagrams;
    let mut join = rest.len() > 1 && !REFUSED.load(Ordering::Relaxed) && joins();
    // An ICMP error that came for an earlier datagram is reported once, and keeps this one back.
    let mut retried = false;
    while let Some((_, others)) = rest.split_first() {
        match send_batch(socket, to, header, rest, join) {
            Ok(n @ 1..) => {
                let (gone, left) = rest.split_at(n.min(rest.len()));
                sent.bytes += gone.iter().map(|datagram| datagram.len() as u64).sum::<u64>();
                (rest, retried) = (left, false);
            }
            Ok(0) => return false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sent.error = Some(error);
                return false;
            }
            // They are too large for the path, or something on it cannot do this: then each goes by itself.
            Err(error) if join && is_of_joining(&error) => {
                join = false;
                if error.raw_os_error() == Some(libc::EIO) {
                    REFUSED.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                sent.error = Some(error);
                if retried {
                    rest = others;
                }
                // What fails again is to fail for one datagram only.
                (join, retried) = (false, !retried);
            }
        }
    }
    true
}

/// Whether datagrams might go out one by one where this was the answer to joined ones.
fn is_of_joining(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO))
}

/// As many of at most [`MAX_JOINED`] datagrams as go out at once, in at most [`BATCH`] messages: those of one size in one
/// message, if they may be joined.
fn send_batch(
    socket: RawFd,
    to: Option<&RawAddr>,
    header: &[u8],
    datagrams: &[&[u8]],
    join: bool,
) -> io::Result<usize> {
    // SAFETY: mmsghdr and iovec are plain data for which all zeroes is a value.
    let (mut messages, mut slots): ([libc::mmsghdr; BATCH], [[libc::iovec; 2]; MAX_JOINED]) =
        unsafe { std::mem::zeroed() };
    let mut controls = [[0_u64; SEGMENT_WORDS]; BATCH];
    let mut sizes = [0; BATCH];
    let (mut rest, mut free) = (datagrams, slots.as_mut_slice());
    let mut count: libc::c_uint = 0;
    for ((message, control), size) in messages.iter_mut().zip(&mut controls).zip(&mut sizes) {
        *size = if join { joinable(header, rest) } else { 1 }.min(rest.len()).min(free.len());
        if *size == 0 {
            break;
        }
        let (run, others) = rest.split_at(*size);
        let (taken, left) = std::mem::take(&mut free).split_at_mut(*size);
        for (slot, datagram) in taken.iter_mut().zip(run) {
            *slot = [header, datagram]
                .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        }
        let message = &mut message.msg_hdr;
        if let Some(to) = to {
            message.msg_name = (&raw const to.storage).cast_mut().cast();
            message.msg_namelen = to.len;
        }
        message.msg_iov = taken.as_mut_ptr().cast();
        message.msg_iovlen = (2 * taken.len()) as _;
        if let [first, _, ..] = run {
            say_size(message, control, header.len() + first.len());
        }
        (rest, free) = (others, left);
        count += 1;
    }
    // SAFETY: `count` of the messages point to headers, datagrams and perhaps a name and control room, with their true sizes, which
    // outlive the call; the kernel only reads them.
    let sent = cvt(unsafe { libc::sendmmsg(socket, messages.as_mut_ptr(), count, 0) })?;
    Ok(sizes.iter().take(usize::try_from(sent).unwrap_or_default()).sum())
}

/// How many of these datagrams can be one message: from the first on those of its size, and then a shorter one.
fn joinable(header: &[u8], datagrams: &[&[u8]]) -> usize {
    let Some(first) = datagrams.first() else { return 0 };
    let size = header.len() + first.len();
    let Some(most) = MAX_JOINED_BYTES.checked_div(size) else { return 1 };
    let most = most.clamp(1, MAX_JOINED);
    let equal = datagrams.iter().take(most).take_while(|datagram| datagram.len() == first.len()).count();
    let last = datagrams.get(equal).is_some_and(|last| {
        let len = header.len() + last.len();
        // Of an empty one nothing would be seen.
        equal < MAX_JOINED && 0 < len && len < size && equal * size + len <= MAX_JOINED_BYTES
    });
    equal + usize::from(last)
}

/// Says in `control` that `message` is joined datagrams of this size.
fn say_size(message: &mut libc::msghdr, control: &mut [u64; SEGMENT_WORDS], size: usize) {
    // It is MAX_JOINED_BYTES at most.
    let size = size as u16;
    let length = size_of_val(&size) as libc::c_uint;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: these only count.
    let (space, length) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    message.msg_controllen = space as _;
    // SAFETY: the control room is aligned for a header, and large enough for it and for the number: 24 bytes where words have
    // 64 bits, 16 elsewhere.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = length as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

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

    /// Sends these to a socket that takes joined datagrams and to one that does not; returns in how many messages they came
    /// to the former.
    fn check_joined(client: impl Fn() -> UdpSocket, header: &[u8], sizes: &[usize]) -> usize {
        let datagrams: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size]).collect();
        let wanted: Vec<Vec<u8>> = datagrams.iter().map(|datagram| [header, datagram].concat()).collect();
        let mut messages = 0;
        for takes_joined in [false, true] {
            let (server, client) = (local(), client());
            let room: libc::c_int = 1 << 23;
            let forced = set(server.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &room);
            if forced.is_err() {
                set(server.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &room).unwrap();
            }
            if takes_joined {
                take_joined(&server);
            }
            let to = server.local_addr().ok();
            let sent = send(&client, to, header, datagrams.iter().map(Vec::as_slice));
            assert!(sent.error.is_none(), "{sent:?}");
            assert_eq!(sent.bytes, sizes.iter().sum::<usize>() as u64);
            let mut batch = Batch::new();
            let mut seen = Vec::new();
            messages = 0;
            while seen.len() < wanted.len() {
                messages += batch.receive(&server).unwrap();
                let from = client.local_addr().ok();
                seen.extend(batch.arrivals().map(|arrival| {
                    assert_eq!(arrival.from, from);
                    arrival.bytes.to_vec()
                }));
            }
            let lengths = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(lengths(&seen), lengths(&wanted), "joined: {takes_joined}");
            assert!(seen == wanted, "joined: {takes_joined}");
        }
        messages
    }

    #[test]
    fn joined_datagrams_arrive_as_what_they_were() {
        let cases: [(&[usize], usize); 14] = [
            (&[1000; 20], 1),
            (&[1000, 1000, 999], 1),
            // What is larger than the one before, or not the last, begins anew.
            (&[999, 1000], 2),
            (&[1000, 999, 999, 1000, 1000], 3),
            (&[5, 4, 3, 2, 1], 3),
            (&[1, 1, 0, 1, 1], 3),
            (&[0, 0, 0], 3),
            (&[10, 0], 2),
            (&[100; MAX_JOINED], 1),
            (&[100; MAX_JOINED + 1], 2),
            (&[1200; 55], 2),
            (&[30_000, 30_000, 5_000], 1),
            (&[40_000, 40_000, 20_000], 2),
            (&[65_507, 1], 2),
        ];
        for (sizes, messages) in cases {
            let seen = check_joined(local, &[], sizes);
            if joins() {
                assert_eq!(seen, messages, "{sizes:?}");
            }
        }
        if cfg!(feature = "udp") {
            assert!(joins() || testing::is_emulated(), "no Linux since 5.0 is without");
        }
    }

    #[test]
    fn what_cannot_be_sent_joined_goes_one_by_one() {
        // The kernel wants to sum up what it takes apart.
        let without_sums = || {
            let client = local();
            set::<libc::c_int>(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, &1).unwrap();
            client
        };
        assert_eq!(check_joined(without_sums, &[], &[700; 5]), 5);
    }

    #[test]
    fn a_header_stands_before_each_joined_datagram() {
        for sizes in [&[1000; 20][..], &[1000, 1000, 0], &[0, 0, 0], &[1200; 60], &[0, 1, 1]] {
            check_joined(local, b"PROXY", sizes);
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
