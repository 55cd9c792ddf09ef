//! Listening sockets: bound for all workers at once, and compared at reload.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Listener;
use crate::sys::socket;

/// A listener and its sockets, one for each worker; none where the running ones are kept.
#[derive(Debug)]
pub struct Binding {
    /// What it is for.
    pub listener: Listener,
    /// One per worker.
    pub sockets: Vec<TcpListener>,
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
    let sockets = socket::tcp_listeners(listener.addr, listener.tproxy, workers)
        .map_err(|error| format!("cannot listen on {}: {}", listener.addr, explain(listener, &error)))?;
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
                bind(listener, workers)
            }
        })
        .collect()
}

fn explain(listener: &Listener, error: &io::Error) -> String {
    match error.kind() {
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
