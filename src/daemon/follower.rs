//! This machine's addresses, which the `always` rule must know, and their changes: routers get new ones while they run.
//!
//! Without a list that rule would let through what it is there to refuse, so a list that cannot be read never replaces one
//! that could.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Service;
use crate::decide::rules::Locals;
use crate::engine::{Command, Handle};
use crate::sys::addresses::{self, AddressWatch};
use crate::sys::threads;

/// The pause after a list that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// How the addresses are read.
type Read = fn() -> io::Result<Vec<IpAddr>>;

/// What the rules must know of this machine.
///
/// # Errors
/// Its addresses cannot be read.
pub fn locals(service: &Service) -> io::Result<Locals> {
    addresses::local_addresses().map(|addrs| locals_with(service, addrs))
}

fn locals_with(service: &Service, addrs: Vec<IpAddr>) -> Locals {
    let mut tcp_ports: Vec<u16> = service.listeners.iter().map(|listener| listener.addr.port()).collect();
    tcp_ports.extend(service.metrics.map(|addr| addr.port()));
    tcp_ports.sort_unstable();
    tcp_ports.dedup();
    Locals { addrs, tcp_ports, allow_local: service.output.allow_local }
}

/// The plan in force and the addresses as they could be read last.
struct Known<P> {
    plan: Arc<P>,
    addrs: Vec<IpAddr>,
    read: Read,
}

impl<P: AsRef<Service>> Known<P> {
    /// Reads the addresses again; if they cannot be read, the old ones stay.
    fn refresh(&mut self) -> io::Result<()> {
        self.addrs = (self.read)()?;
        Ok(())
    }

    fn tell(&self, workers: &[Handle<P>]) {
        let locals = Arc::new(locals_with((*self.plan).as_ref(), self.addrs.clone()));
        for worker in workers {
            worker.tell(Command::Locals(Arc::clone(&locals)));
        }
    }
}

/// Keeps the workers' idea of this machine's addresses true.
pub(super) struct Follower<P> {
    known: Arc<Mutex<Known<P>>>,
    workers: Arc<[Handle<P>]>,
}

/// Hears of changes from now on.
pub(super) struct Watch(io::Result<AddressWatch>);

impl Watch {
    /// To be begun before the addresses are read for the first time, or a change in between would be missed.
    pub fn begin() -> Self {
        Watch(AddressWatch::new())
    }
}

impl<P: AsRef<Service> + Send + Sync + 'static> Follower<P> {
    /// Follows from `locals` on, which `workers` know already.
    pub fn start(watch: Watch, plan: &Arc<P>, locals: &Locals, workers: Vec<Handle<P>>) -> Self {
        let (plan, addrs) = (Arc::clone(plan), locals.addrs.clone());
        let known = Arc::new(Mutex::new(Known { plan, addrs, read: addresses::local_addresses }));
        let follower = Follower { known, workers: workers.into() };
        let (known, workers) = (Arc::clone(&follower.known), Arc::clone(&follower.workers));
        let started = watch.0.and_then(|watch| {
            let follow = move || follow(watch, &known, &workers);
            threads::spawn("addresses", threads::STACK_SIZE, follow)
        });
        if let Err(error) = started {
            unheard(&error);
        }
        follower
    }

    /// From now on for this plan; the workers are told.
    pub fn follow(&self, plan: &Arc<P>) {
        let mut known = lock(&self.known);
        known.plan = Arc::clone(plan);
        if let Err(error) = known.refresh() {
            unreadable(&error);
        }
        known.tell(&self.workers);
    }
}

fn follow<P: AsRef<Service>>(mut watch: AddressWatch, known: &Mutex<Known<P>>, workers: &[Handle<P>]) {
    loop {
        if let Err(error) = watch.wait() {
            return unheard(&error);
        }
        let mut complained = false;
        loop {
            // Told under the lock: otherwise a reload could overtake, and be undone by what was read before it.
            let mut known = lock(known);
            match known.refresh() {
                Ok(()) => {
                    known.tell(workers);
                    break;
                }
                Err(error) if !complained => {
                    unreadable(&error);
                    complained = true;
                }
                Err(_) => {}
            }
            drop(known);
            std::thread::sleep(RETRY);
        }
    }
}

fn unreadable(error: &io::Error) {
    log::warn!("cannot read this machine's addresses, those that were read last stay: {error}");
}

fn unheard(error: &io::Error) {
    log::warn!("cannot follow changes of this machine's addresses, they are read at reload only: {error}");
}

fn lock<P>(known: &Mutex<Known<P>>) -> MutexGuard<'_, Known<P>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_default};

    #[test]
    fn addresses_that_cannot_be_read_leave_the_old_ones() {
        let plan = Arc::new(load_default(LoadOptions::default()).unwrap().plan);
        let old = vec![IpAddr::from([192, 0, 2, 1])];
        let mut known = Known { plan, addrs: old.clone(), read: || Err(io::ErrorKind::Other.into()) };
        assert!(known.refresh().is_err());
        assert_eq!(known.addrs, old);
        known.read = || Ok(vec![IpAddr::from([192, 0, 2, 2])]);
        known.refresh().unwrap();
        assert_eq!(known.addrs, [IpAddr::from([192, 0, 2, 2])]);
    }
}
