//! Listening sockets: bound for all workers at once, and compared at reload.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use crate::config::Listener;
use crate::decide::L4;
use crate::sys::{datagram, socket};

/// A listener and its sockets, one for each worker; none where the running ones are kept.
#[derive(Debug)]
pub struct Binding {
    /// What it is for.
    pub listener: Listener,
    /// One per worker.
    pub sockets: Vec<Socket>,
}

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// For connections.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(UdpSocket),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }
}

impl Socket {
    /// Where it listens.
    ///
    /// # Errors
    /// None that anybody has seen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }
}

/// What makes a listening socket the same one after a reload.
pub(super) fn key(listener: &Listener) -> (SocketAddr, bool, L4) {
    (listener.addr, listener.tproxy, listener.l4)
}

/// Binds `listener` for `workers` workers.
///
/// # Errors
/// The address and why it cannot be listened on.
pub fn bind(listener: &Listener, workers: usize) -> Result<Binding, String> {
    bind_beside(listener, workers, false).map_err(|error| refusal(listener, &error, false))
}

/// Binds one socket that blocks and is no listener's. `running` is what this program listens on and may close soon.
///
/// # Errors
/// Why the address cannot be listened on.
pub fn bind_one(addr: SocketAddr, running: &[SocketAddr]) -> Result<TcpListener, String> {
    let ours = running.iter().any(|&old| overlap(old, addr));
    let bound = socket::tcp_listeners(addr, false, 1, ours).and_then(|mut sockets| {
        let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    });
    bound.map_err(|error| explain(false, &error, ours))
}

/// Binds what is new in `wanted` and marks what `running` has already. `other` is what this program listens on beside its
/// listeners. A default address that this machine does not have is taken out of `wanted`, as long as another one is left.
///
/// # Errors
/// As [`bind`]; what was bound by then is closed again.
pub fn diff(
    wanted: &mut Vec<Listener>,
    running: &[Listener],
    other: Option<SocketAddr>,
    workers: usize,
) -> Result<Vec<Binding>, String> {
    let mut bindings = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for listener in wanted.iter() {
        if running.iter().any(|old| key(old) == key(listener)) {
            bindings.push(Binding { listener: listener.clone(), sockets: Vec::new() });
            continue;
        }
        let other = other.filter(|_| listener.l4 == L4::Tcp);
        let mut ours = running.iter().filter(|old| old.l4 == listener.l4).map(|old| old.addr).chain(other);
        let ours = ours.any(|old| overlap(old, listener.addr));
        match bind_beside(listener, workers, ours) {
            Ok(binding) => bindings.push(binding),
            Err(error) if listener.given.is_none() && socket::is_no_address(&error) => {
                missing.push(refusal(listener, &error, ours));
            }
            Err(error) => return Err(refusal(listener, &error, ours)),
        }
    }
    if bindings.is_empty()
        && let Some(error) = missing.pop()
    {
        return Err(error);
    }
    for refusal in missing {
        log::warn!("{refusal}: left out");
    }
    wanted.retain(|listener| bindings.iter().any(|binding| key(&binding.listener) == key(listener)));
    Ok(bindings)
}

/// Perhaps beside sockets of this program that will be closed as soon as these are there.
fn bind_beside(listener: &Listener, workers: usize, ours: bool) -> io::Result<Binding> {
    let Listener { addr, tproxy, .. } = *listener;
    let sockets = match listener.l4 {
        L4::Tcp => socket::tcp_listeners(addr, tproxy, workers, ours)?.into_iter().map(Socket::Tcp).collect(),
        L4::Udp => {
            datagram::udp_listeners(addr, tproxy, workers, ours)?.into_iter().map(Socket::Udp).collect()
        }
    };
    Ok(Binding { listener: listener.clone(), sockets })
}

fn refusal(listener: &Listener, error: &io::Error, ours: bool) -> String {
    format!("cannot listen on {}: {}", listener.place(), explain(listener.tproxy, error, ours))
}

/// Whether only one of them can be listened on, unless both agree to share.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && same_ip
}

fn explain(tproxy: bool, error: &io::Error, ours: bool) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse if ours => {
            "this program's own listener on that port cannot be replaced while it runs (restart it), or another program \
             listens there, too"
                .to_owned()
        }
        io::ErrorKind::AddrInUse => "another program listens there".to_owned(),
        _ if socket::is_no_address(error) => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied if tproxy => {
            "not permitted (tproxy needs CAP_NET_ADMIN or CAP_NET_RAW, ports below 1024 CAP_NET_BIND_SERVICE)"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Target};
    use crate::decide::addr_set::AddrSet;

    fn listener(ip: &str, port: u16) -> Listener {
        let addr = SocketAddr::new(ip.parse().unwrap(), port);
        let trusted = AddrSet::new([]);
        Listener {
            mode: Mode::Http,
            addr,
            l4: L4::Tcp,
            tproxy: false,
            target: Target::Auto,
            associate: false,
            trusted,
            tls: None,
            users: None,
            given: None,
        }
    }

    /// From loopback to all addresses and back is what people change.
    #[test]
    fn a_reload_may_change_the_address_on_a_port_of_our_own() {
        let count = |next: Result<Vec<Binding>, String>| next.map(|bindings| bindings[0].sockets.len());
        let running = bind(&listener("127.0.0.1", 0), 2).unwrap();
        let port = running.sockets[0].local_addr().unwrap().port();
        let (narrow, wide) = ([listener("127.0.0.1", port)], [listener("0.0.0.0", port)]);
        let diff = |wanted: &[Listener], running: &[Listener]| diff(&mut wanted.to_vec(), running, None, 2);
        let wider = diff(&wide, &narrow);
        assert_eq!(count(wider), Ok(2));
        drop(running);
        let running = bind(&wide[0], 2).unwrap();
        assert_eq!(count(diff(&narrow, &wide)), Ok(2));
        assert_eq!(count(diff(&wide, &wide)), Ok(0));
        drop(running);
        // What somebody else has is as taken as at the start.
        let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = [listener("127.0.0.1", theirs.local_addr().unwrap().port())];
        assert!(diff(&taken, &narrow).is_err());
    }
}
