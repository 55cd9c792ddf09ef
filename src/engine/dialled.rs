//! Our own connections, to be recognised where a firewall sends them back to us.
//!
//! Each worker has a set of its own, so that dialling never waits for another worker. Only a connection from one of this
//! machine's own addresses, which is rare, makes a worker look into the sets of all.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The local and the remote address of a socket. There is one per connection being made or relayed.
type Pair = (SocketAddr, SocketAddr);
type Pairs = Arc<Mutex<HashSet<Pair>>>;

/// What every worker has dialled, and the thread that probes certificates.
#[derive(Debug, Clone)]
pub struct Dialled {
    /// Of the workers, then of that thread.
    workers: Vec<Pairs>,
}

impl Dialled {
    /// Nothing yet, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Dialled { workers: (0..=workers).map(|_| Pairs::default()).collect() }
    }

    /// Who probes certificates, where workers have their number.
    #[cfg(feature = "tls")]
    pub(super) fn prober(&self) -> usize {
        self.workers.len().saturating_sub(1)
    }

    /// Dials `remote` for `worker` and remembers the socket as long as the trace lives.
    ///
    /// The connection may arrive at another worker before `dial` has returned: the set is locked until its addresses are
    /// in it, so that [`Dialled::is_ours`] waits.
    ///
    /// # Errors
    /// Those of `dial`, and a socket without an address.
    pub(super) fn dial(
        &self,
        worker: usize,
        remote: SocketAddr,
        dial: impl FnOnce() -> io::Result<TcpStream>,
    ) -> io::Result<(TcpStream, Trace)> {
        let pairs = self.workers.get(worker).ok_or(io::ErrorKind::InvalidInput)?;
        let mut locked = pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = dial()?;
        let pair = (plain(stream.local_addr()?), plain(remote));
        locked.insert(pair);
        Ok((stream, Trace { pairs: Arc::clone(pairs), pair }))
    }

    /// Remembers a socket of `worker` that was connected already, and that has sent nothing yet.
    ///
    /// # Errors
    /// There is no such worker.
    pub(super) fn note(&self, worker: usize, local: SocketAddr, remote: SocketAddr) -> io::Result<Trace> {
        let pairs = self.workers.get(worker).ok_or(io::ErrorKind::InvalidInput)?;
        let pair = (plain(local), plain(remote));
        pairs.lock().unwrap_or_else(PoisonError::into_inner).insert(pair);
        Ok(Trace { pairs: Arc::clone(pairs), pair })
    }

    /// Whether a connection from `client` that was going to `dest` is one of ours.
    pub(super) fn is_ours(&self, client: SocketAddr, dest: SocketAddr) -> bool {
        let pair = (plain(client), plain(dest));
        self.workers.iter().any(|pairs| pairs.lock().unwrap_or_else(PoisonError::into_inner).contains(&pair))
    }
}

/// A socket that is remembered until this goes away, which must be with the socket.
#[derive(Debug)]
pub(super) struct Trace {
    pairs: Pairs,
    pair: Pair,
}

impl Trace {
    /// The address that the socket got.
    pub fn local(&self) -> SocketAddr {
        self.pair.0
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pair);
    }
}

/// Without scope and flow, which the two ends of a connection see differently.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_socket_is_known_to_all_workers_as_long_as_it_is_open() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = server.local_addr().unwrap();
        let dialled = Dialled::new(2);
        let (stream, trace) = dialled.dial(1, remote, || TcpStream::connect(remote)).unwrap();
        let local = stream.local_addr().unwrap();
        assert_eq!(trace.local(), local);
        assert!(dialled.is_ours(local, remote));
        assert!(!dialled.is_ours(remote, local));
        drop(trace);
        assert!(!dialled.is_ours(local, remote));
        assert!(dialled.dial(1, remote, || Err(io::ErrorKind::ConnectionRefused.into())).is_err());
    }

    /// A firewall may bring the connection back to another worker while `connect` still runs.
    #[test]
    fn who_looks_waits_for_who_dials() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = server.local_addr().unwrap();
        let dialled = Dialled::new(2);
        let found = std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let looking = scope.spawn(|| {
                let local = told.into_iter().next().unwrap();
                dialled.is_ours(local, remote)
            });
            let _ours = dialled.dial(0, remote, move || {
                let stream = TcpStream::connect(remote)?;
                tell.send(stream.local_addr()?).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(100));
                Ok(stream)
            });
            looking.join().unwrap()
        });
        assert!(found);
    }
}
