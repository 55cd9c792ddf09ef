//! This machine's own addresses, its neighbours, and word of their changes.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::netlink;
use super::socket::cvt;

/// Every address of every interface of this machine (of its network namespace): sorted, once each, v4-mapped ones as
/// IPv4, without scopes.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = netlink::addresses()?.into_iter().map(|a| a.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Every neighbour (of the network namespace of the calling thread) whose hardware address is known, and that: IPv4's ARP
/// and IPv6's neighbour discovery. In the kernel's order.
pub fn neighbours() -> io::Result<Vec<(IpAddr, [u8; 6])>> {
    netlink::neighbours()
}

/// Whether this machine has an interface with this name.
pub fn has_interface(name: &str) -> bool {
    // SAFETY: the name is terminated and outlives the call.
    CString::new(name).is_ok_and(|name| unsafe { libc::if_nametoindex(name.as_ptr()) } != 0)
}

/// Hears when an address of this machine comes or goes (rtnetlink(7)).
///
/// What it says is "look again": the messages themselves are not read, so none can be misread, and lost ones don't
/// matter. Addresses that changed before [`AddressWatch::new`] returned are not announced: look once after it.
#[derive(Debug)]
pub struct AddressWatch {
    socket: OwnedFd,
}

/// Of rtnetlink(7): a neighbour came, went, or changed its state.
const RTMGRP_NEIGH: u32 = 4;

/// A burst of changes (an interface that comes up, a new prefix) is over once nothing was heard for this long …
const QUIET: Duration = Duration::from_millis(200);
/// … or after this time: neighbours may never pause.
const MAX_BURST: Duration = Duration::from_secs(1);

impl AddressWatch {
    /// Begins to listen, in the network namespace of the calling thread.
    pub fn new() -> io::Result<Self> {
        let socket = netlink::open((libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32)?;
        Ok(AddressWatch { socket })
    }

    /// The same for neighbours.
    pub fn neighbours() -> io::Result<Self> {
        Ok(AddressWatch { socket: netlink::open(RTMGRP_NEIGH)? })
    }

    /// Blocks until something changed and the changes have paused, or gone on for a second.
    pub fn wait(&mut self) -> io::Result<()> {
        self.receive()?;
        let begun = Instant::now();
        while begun.elapsed() < MAX_BURST && self.readable_within(QUIET)? {
            self.receive()?;
        }
        Ok(())
    }

    /// Takes one message, whatever it says.
    fn receive(&self) -> io::Result<()> {
        // A message that does not fit is cut off, which is fine.
        let mut message = [0_u8; 64];
        loop {
            // SAFETY: the pointer and the length describe a local that outlives the call.
            let result =
                unsafe { libc::recv(self.socket.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) };
            if result >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // There were more messages than the socket could keep: something did change.
                Some(libc::ENOBUFS) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    fn readable_within(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout_ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the pointer and the count describe one local, which outlives the call.
        match cvt(unsafe { libc::poll(&raw mut poll, 1, timeout_ms) }) {
            Ok(ready) => Ok(ready > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;
    use std::process::Command;

    #[test]
    fn loopback_is_an_address_of_this_machine() {
        let addresses = local_addresses().unwrap();
        assert!(addresses.contains(&"127.0.0.1".parse().unwrap()), "{addresses:?}");
        assert!(has_interface("lo") && !has_interface("no-such") && !has_interface("lo\0"));
        assert!(addresses.is_sorted_by(|a, b| a < b), "{addresses:?}");
    }

    /// Runs `ip` in the calling thread's network namespace.
    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    #[test]
    fn changes_are_heard_once_a_burst() {
        if !testing::is_root("changes_are_heard_once_a_burst") {
            return;
        }
        // In a thread of its own, as the namespace is the thread's.
        std::thread::spawn(move || {
            // SAFETY: no pointers.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } == -1 {
                eprintln!("SKIPPED changes_are_heard_once_a_burst: no network namespaces here");
                return;
            }
            assert_eq!(local_addresses().unwrap(), Vec::<IpAddr>::new());
            let mut watch = AddressWatch::new().unwrap();
            assert!(!watch.readable_within(Duration::ZERO).unwrap());

            ip("link set lo up");
            ip("addr add 192.0.2.7/32 dev lo");
            ip("addr add 2001:db8::7/128 dev lo nodad");
            watch.wait().unwrap();
            assert!(!watch.readable_within(Duration::ZERO).unwrap(), "the burst was not drained");
            let want = ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"].map(|a| a.parse::<IpAddr>().unwrap());
            assert_eq!(local_addresses().unwrap(), want);

            ip("addr del 192.0.2.7/32 dev lo");
            watch.wait().unwrap();
            assert_eq!(local_addresses().unwrap().len(), 3);
        })
        .join()
        .unwrap();
    }
}
