//! The system's resolver: getaddrinfo in a few threads, for where no nameservers are configured.
//!
//! The call blocks for as long as the system's settings allow and cannot be stopped, so it never happens on a thread
//! that has anything else to do.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::ResolveError;

/// Calls at once.
pub const MAX_THREADS: usize = 4;
/// Names that wait for a thread; beyond it a lookup fails at once.
pub const MAX_QUEUED: usize = 64;
/// glibc's getaddrinfo keeps answers of up to 64 KiB and a few name buffers on the stack; musl less.
const STACK_SIZE: usize = 256 * 1024;

/// What getaddrinfo says of a name.
pub type Found = Result<Vec<IpAddr>, ResolveError>;

/// The threads, started one by one as names have to wait. Dropping it ends them after their present call.
pub struct SystemResolver {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    call: Box<dyn Fn(&str) -> Found + Send + Sync>,
    done: Box<dyn Fn(Arc<str>, Found) + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    names: VecDeque<Arc<str>>,
    idle: usize,
    closed: bool,
}

impl SystemResolver {
    /// No thread yet; `done` will be called from one for every name that was taken.
    pub fn new(done: impl Fn(Arc<str>, Found) + Send + Sync + 'static) -> Self {
        Self::with_call(getaddrinfo, done)
    }

    fn with_call(
        call: impl Fn(&str) -> Found + Send + Sync + 'static,
        done: impl Fn(Arc<str>, Found) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            call: Box::new(call),
            done: Box::new(done),
        };
        SystemResolver { shared: Arc::new(shared), threads: 0 }
    }

    /// Looks `name` up; false if that is not possible now: too many wait, or there is no thread.
    pub fn ask(&mut self, name: Arc<str>) -> bool {
        let mut queue = self.shared.lock();
        if queue.names.len() >= MAX_QUEUED {
            return false;
        }
        queue.names.push_back(name);
        if queue.names.len() > queue.idle && self.threads < MAX_THREADS {
            match self.shared.clone().start() {
                Ok(()) => self.threads += 1,
                Err(_) if self.threads == 0 => {
                    queue.names.pop_back();
                    return false;
                }
                // The others will come to it.
                Err(_) => {}
            }
        }
        drop(queue);
        self.shared.wake.notify_one();
        true
    }
}

impl Drop for SystemResolver {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is left half done where this lock is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: Arc<Self>) -> io::Result<()> {
        let run = move || {
            while let Some(name) = self.next() {
                let found = (self.call)(&name);
                (self.done)(name, found);
            }
        };
        thread::Builder::new().name("getaddrinfo".into()).stack_size(STACK_SIZE).spawn(run).map(drop)
    }

    /// Waits for a name; `None` at the end.
    fn next(&self) -> Option<Arc<str>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(name) = queue.names.pop_front() {
                return Some(name);
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

fn getaddrinfo(name: &str) -> Found {
    use dns_lookup::LookupErrorKind;
    match dns_lookup::lookup_host(name) {
        Ok(addrs) => Ok(addrs.collect()),
        Err(error) => match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => Err(ResolveError::NotFound),
            _ => Err(ResolveError::Failed),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_name_that_hangs_stalls_no_other_and_the_queue_has_an_end() {
        let (done, results) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let call = move |name: &str| {
            if name.starts_with("hang") {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(Vec::new())
        };
        let mut system = SystemResolver::with_call(call, move |name, _| done.send(name).unwrap());
        for n in 1..MAX_THREADS {
            assert!(system.ask(format!("hang{n}").into()));
        }
        assert!(system.ask("quick".into()));
        assert_eq!(&*results.recv_timeout(SOON).unwrap(), "quick");
        assert!(system.ask("hang".into()));
        // All threads are taken; wait until the last one has taken its name out of the queue.
        while !system.shared.lock().names.is_empty() {
            thread::yield_now();
        }
        for n in 0..MAX_QUEUED {
            assert!(system.ask(format!("waits{n}").into()), "{n}");
        }
        assert!(!system.ask("too many".into()));
        assert_eq!(system.threads, MAX_THREADS);
        drop(release);
        for _ in 0..MAX_THREADS + MAX_QUEUED {
            results.recv_timeout(SOON).unwrap();
        }
    }

    #[test]
    fn the_threads_end_with_it() {
        let (done, results) = mpsc::channel();
        let mut system =
            SystemResolver::with_call(|_| Ok(Vec::new()), move |name, _| done.send(name).unwrap());
        assert!(system.ask("a".into()));
        assert!(results.recv_timeout(SOON).is_ok());
        drop(system);
        assert_eq!(results.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn getaddrinfo_knows_this_machine() {
        assert!(getaddrinfo("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
