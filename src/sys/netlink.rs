//! Asking the kernel for this machine's addresses and neighbours: one dump of rtnetlink(7) each.
//!
//! Not getifaddrs: it dumps the links, too, with all their attributes, which is most of the work and none of the answer;
//! and on a big-endian CPU that qemu-user emulates, qemu leaves the last attribute of a link as it was, in which musl's
//! loop then never ends.
//!
//! The answer is read with checked cursors. It comes from the kernel, whose numbers are of this machine's byte order.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::error::described;
use super::socket::cvt;

/// A socket of the routing family that gets the notices of these groups (RTMGRP_…), in the network namespace of the
/// calling thread.
pub(super) fn open(groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = cvt(unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    })?;
    // SAFETY: a descriptor that was just made and that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_nl is plain data for which all zeroes is a value.
    let mut addr: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    addr.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    addr.nl_groups = groups;
    // SAFETY: the pointer and the length describe a local that outlives the call.
    cvt(unsafe {
        let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len)
    })?;
    Ok(socket)
}

/// The kernel puts at most this much into one datagram of a dump, whatever the buffer (NLMSG_GOODSIZE and the like).
const MAX_DATAGRAM: usize = 32 * 1024;
/// Datagrams of a dump: many more than the addresses or neighbours of any machine need.
const MAX_DATAGRAMS: usize = 10_000;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, interface.
const ADDRESS: usize = 8;
/// `struct ndmsg`: family, padding, interface, state, flags, type.
const NEIGHBOUR: usize = 12;
/// `struct rtattr`: length, type.
const ATTRIBUTE: usize = 4;

/// Every address of every interface, in the kernel's order. An answer that breaks off is an error.
pub(super) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    dump(&request::<{ HEADER + ADDRESS }>(libc::RTM_GETADDR), libc::RTM_NEWADDR, |body| {
        found.extend(address(body))
    })?;
    Ok(found)
}

/// Every neighbour that has a hardware address of 48 bits and was not found to be gone.
pub(super) fn neighbours() -> io::Result<Vec<(IpAddr, [u8; 6])>> {
    let mut found = Vec::new();
    let request = request::<{ HEADER + NEIGHBOUR }>(libc::RTM_GETNEIGH);
    dump(&request, libc::RTM_NEWNEIGH, |body| found.extend(neighbour(body)))?;
    Ok(found)
}

/// Sends a request for a dump and hands over the bodies of its messages of this kind.
fn dump(request: &[u8], kind: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = open(0)?;
    // SAFETY: the pointer and the length describe a local that outlives the call.
    cvt(unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) as libc::c_int })?;
    let mut datagram = vec![0; MAX_DATAGRAM];
    for _ in 0..MAX_DATAGRAMS {
        // Not waiting: what the kernel has to say is there when `send` returns.
        // SAFETY: the pointer and the length describe a buffer that outlives the call.
        let len = cvt(unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recv(socket.as_raw_fd(), datagram.as_mut_ptr().cast(), datagram.len(), flags) as libc::c_int
        })?;
        let len = usize::try_from(len).unwrap_or_default();
        if read(datagram.get(..len).unwrap_or_default(), kind, &mut each)? == Dump::Over {
            return Ok(());
        }
    }
    Err(broken())
}

/// A request of this kind for all families, as a dump.
fn request<const LEN: usize>(kind: u16) -> [u8; LEN] {
    let mut request = [0; LEN];
    let fields = (request.len() as u32).to_ne_bytes().into_iter();
    let fields = fields.chain(kind.to_ne_bytes());
    let fields = fields.chain(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    request
}

#[derive(Debug, PartialEq, Eq)]
enum Dump {
    GoesOn,
    Over,
}

/// Hands over what one datagram has of this kind.
fn read(mut datagram: &[u8], wanted: u16, each: &mut impl FnMut(&[u8])) -> io::Result<Dump> {
    while !datagram.is_empty() {
        let len = u32_at(datagram, 0).and_then(|len| usize::try_from(len).ok()).ok_or_else(broken)?;
        let message = datagram.get(..len).filter(|m| m.len() >= HEADER).ok_or_else(broken)?;
        let body = message.get(HEADER..).unwrap_or_default();
        match u16_at(message, 4).map(i32::from) {
            Some(libc::NLMSG_DONE) => return Ok(Dump::Over),
            // A negative errno(3).
            Some(libc::NLMSG_ERROR) => {
                let code = u32_at(body, 0).ok_or_else(broken)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            Some(kind) if kind == i32::from(wanted) => each(body),
            _ => {}
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Dump::GoesOn)
}

/// This machine's end of one address: IFA_LOCAL, and where there is none, as for most of IPv6, IFA_ADDRESS.
fn address(body: &[u8]) -> Option<IpAddr> {
    let family = i32::from(*body.first()?);
    let (mut local, mut other) = (None, None);
    for_attributes(body.get(ADDRESS..)?, |kind, value| match kind {
        libc::IFA_LOCAL => local = ip(family, value),
        libc::IFA_ADDRESS => other = ip(family, value),
        _ => {}
    })?;
    local.or(other)
}

/// A neighbour's address, and its hardware address.
fn neighbour(body: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let family = i32::from(*body.first()?);
    let state = u16_at(body, 8)?;
    // Not a device, but a group or a network as a whole; or nobody answered.
    if state & (libc::NUD_NOARP | libc::NUD_FAILED | libc::NUD_INCOMPLETE) != 0 {
        return None;
    }
    let (mut addr, mut mac) = (None, None);
    for_attributes(body.get(NEIGHBOUR..)?, |kind, value| match kind {
        libc::NDA_DST => addr = ip(family, value),
        libc::NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok(),
        _ => {}
    })?;
    Some((addr?, mac?))
}

/// Nothing, if one of them is longer than what is left.
fn for_attributes(mut attributes: &[u8], mut each: impl FnMut(u16, &[u8])) -> Option<()> {
    while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let len = usize::from(len);
        each(kind, attributes.get(ATTRIBUTE..len)?);
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        libc::AF_INET6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn broken() -> io::Error {
    described(io::ErrorKind::InvalidData, "the kernel's list is not one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(HEADER, 0);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
        attribute.extend(kind.to_ne_bytes());
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    fn new_address(family: i32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family as u8, 0, 0, 0, 0, 0, 0, 0];
        attributes.iter().for_each(|(kind, value)| body.extend(attribute(*kind, value)));
        message(libc::RTM_NEWADDR, &body)
    }

    fn done() -> Vec<u8> {
        message(libc::NLMSG_DONE as u16, &[0; 4])
    }

    fn check(datagram: &[u8], want: Option<(Dump, &[&str])>) {
        let mut found = Vec::new();
        let result = read(datagram, libc::RTM_NEWADDR, &mut |body: &[u8]| found.extend(address(body))).ok();
        let want = want.map(|(dump, addrs)| {
            (dump, addrs.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect::<Vec<_>>())
        });
        assert_eq!(result.map(|dump| (dump, found)), want, "{datagram:?}");
    }

    #[test]
    fn addresses_are_read_from_a_dump() {
        let label: (u16, &[u8]) = (libc::IFA_LABEL, b"lo\0");
        let four = new_address(libc::AF_INET, &[(libc::IFA_ADDRESS, &[127, 0, 0, 1]), label]);
        let tunnel = new_address(
            libc::AF_INET,
            &[label, (libc::IFA_ADDRESS, &[192, 0, 2, 2]), (libc::IFA_LOCAL, &[192, 0, 2, 1])],
        );
        let mut six = [0; 16];
        six[15] = 1;
        let six = new_address(libc::AF_INET6, &[(libc::IFA_ADDRESS, &six)]);
        check(&[], Some((Dump::GoesOn, &[])));
        check(
            &[four.clone(), tunnel, six].concat(),
            Some((Dump::GoesOn, &["127.0.0.1", "192.0.2.1", "::1"])),
        );
        check(&[four.clone(), done(), four.clone()].concat(), Some((Dump::Over, &["127.0.0.1"])));
        // Other families, other messages, addresses of another size: passed over.
        let odd = new_address(libc::AF_INET, &[(libc::IFA_ADDRESS, &[1, 2, 3])]);
        let other = new_address(99, &[(libc::IFA_ADDRESS, &[1, 2, 3, 4])]);
        check(&[message(16, &[1; 20]), odd, other, done()].concat(), Some((Dump::Over, &[])));
    }

    #[test]
    fn neighbours_are_read_from_a_dump() {
        let of = |state: u16, attributes: &[(u16, &[u8])]| {
            let mut body = vec![libc::AF_INET as u8, 0, 0, 0, 2, 0, 0, 0];
            body.extend(state.to_ne_bytes());
            body.extend([0, 0]);
            attributes.iter().for_each(|(kind, value)| body.extend(attribute(*kind, value)));
            neighbour(&body)
        };
        let addr: (u16, &[u8]) = (libc::NDA_DST, &[192, 0, 2, 7]);
        let mac: (u16, &[u8]) = (libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 1]);
        let want = Some((IpAddr::from([192, 0, 2, 7]), [2, 0, 0, 0, 0, 1]));
        assert_eq!(of(libc::NUD_REACHABLE, &[addr, mac]), want);
        assert_eq!(of(libc::NUD_STALE, &[(9, b"x"), mac, addr]), want);
        assert_eq!(of(libc::NUD_PERMANENT, &[addr, mac]), want);
        assert_eq!(of(libc::NUD_FAILED, &[addr, mac]), None);
        assert_eq!(of(libc::NUD_NOARP, &[addr, mac]), None);
        assert_eq!(of(libc::NUD_REACHABLE, &[addr]), None);
        assert_eq!(of(libc::NUD_REACHABLE, &[addr, (libc::NDA_LLADDR, &[1, 2, 3])]), None);
        assert_eq!(neighbour(&[]), None);
    }

    #[test]
    fn a_broken_dump_is_an_error_and_never_a_loop() {
        let four = new_address(libc::AF_INET, &[(libc::IFA_ADDRESS, &[127, 0, 0, 1])]);
        for len in 1..four.len() {
            check(&four[..len], None);
        }
        let mut no_length = four.clone();
        no_length[..4].fill(0);
        check(&no_length, None);
        // An attribute without a length ends its message, not the dump.
        let mut no_length = four;
        no_length[HEADER + ADDRESS..HEADER + ADDRESS + 2].fill(0);
        check(&[no_length, done()].concat(), Some((Dump::Over, &[])));
        check(&message(libc::NLMSG_ERROR as u16, &(-libc::EPERM).to_ne_bytes()), None);
    }
}
