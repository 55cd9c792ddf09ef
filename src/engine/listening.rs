//! Listening sockets: bound for all workers at once, and compared at reload.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::fchown;

use crate::config::Listener;
use crate::sys::privileges::Identity;
use crate::sys::socket;

/// A listener and its sockets, one for each worker; none where the running ones are kept.
#[derive(Debug)]
pub struct Binding {
    /// What it is for.
    pub listener: Listener,
    /// One per worker.
    pub sockets: Vec<TcpListener>,
}

impl Binding {
    /// Makes the sockets those of the user that this process will become: the kernel lets only sockets of one user share a
    /// port (socket(7), SO_REUSEPORT), and a reload may have to bind beside these.
    pub fn give_to(&self, user: Identity) {
        for socket in &self.sockets {
            // Not allowed to anybody but root; then such a reload is refused with a reason.
            let _ = fchown(socket, Some(user.uid), Some(user.gid));
        }
    }
}

/// What makes a listening socket the same one after a reload.
pub(super) fn key(listener: &Listener) -> (SocketAddr, bool) {
    (listener.addr, listener.tproxy)
}

/// Binds `listener` for `workers` workers.
///
/// # Errors
/// The address and why it cannot be listened on.
pub fn bind(listener: &Listener, workers: usize) -> Result<Binding, String> {
    bind_beside(listener, workers, false)
}

/// The same, perhaps beside sockets of this program that will be closed as soon as these are there.
fn bind_beside(listener: &Listener, workers: usize, ours: bool) -> Result<Binding, String> {
    let sockets = socket::tcp_listeners(listener.addr, listener.tproxy, workers, ours).map_err(|error| {
        format!("cannot listen on {}: {}", listener.addr, explain(listener, &error, ours))
    })?;
    Ok(Binding { listener: listener.clone(), sockets })
}

/// Binds what is new in `wanted` and marks what `running` has already.
///
/// # Errors
/// As [`bind`]; what was bound by then is closed again.
pub fn diff(wanted: &[Listener], running: &[Listener], workers: usize) -> Result<Vec<Binding>, String> {
    wanted
        .iter()
        .map(|listener| {
            if running.iter().any(|old| key(old) == key(listener)) {
                Ok(Binding { listener: listener.clone(), sockets: Vec::new() })
            } else {
                bind_beside(listener, workers, running.iter().any(|old| overlap(old.addr, listener.addr)))
            }
        })
        .collect()
}

/// Whether only one of them can be listened on, unless both agree to share.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && same_ip
}

fn explain(listener: &Listener, error: &io::Error, ours: bool) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse if ours => {
            "this program's own listener on that port cannot be replaced while it runs (restart it), or another program \
             listens there, too"
                .to_owned()
        }
        io::ErrorKind::AddrInUse => "another program listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied if listener.tproxy => {
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
        Listener { mode: Mode::Http, addr, tproxy: false, target: Target::Auto, trusted }
    }

    /// From loopback to all addresses and back is what people change.
    #[test]
    fn a_reload_may_change_the_address_on_a_port_of_our_own() {
        let count = |next: Result<Vec<Binding>, String>| next.map(|bindings| bindings[0].sockets.len());
        let running = bind(&listener("127.0.0.1", 0), 2).unwrap();
        let port = running.sockets[0].local_addr().unwrap().port();
        let (narrow, wide) = ([listener("127.0.0.1", port)], [listener("0.0.0.0", port)]);
        let wider = diff(&wide, &narrow, 2);
        assert_eq!(count(wider), Ok(2));
        drop(running);
        let running = bind(&wide[0], 2).unwrap();
        assert_eq!(count(diff(&narrow, &wide, 2)), Ok(2));
        assert_eq!(count(diff(&wide, &wide, 2)), Ok(0));
        drop(running);
        // What somebody else has is as taken as at the start.
        let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = [listener("127.0.0.1", theirs.local_addr().unwrap().port())];
        assert!(diff(&taken, &narrow, 2).is_err());
    }
}
