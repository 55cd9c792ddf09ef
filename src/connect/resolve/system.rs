//! The system's resolver: getaddrinfo in a few threads, for where no nameservers are configured.
//!
//! The call blocks for as long as the system's settings allow and cannot be stopped, so it never happens on a thread
//! that has anything else to do, and no source of questions gets more than its share of the threads.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{MAX_LOOKUPS, ResolveError};
use crate::sys::{names, threads};

/// Calls at once.
pub const MAX_THREADS: usize = 32;
/// Of these, for one source; its further names wait, others pass them by.
pub const MAX_THREADS_PER_SOURCE: usize = MAX_THREADS / 4;
/// Names that wait for a thread; beyond it a lookup fails at once. [`super::Resolver`] asks for no more at a time.
pub const MAX_QUEUED: usize = MAX_LOOKUPS;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(30);
/// glibc's getaddrinfo keeps answers of up to 64 KiB and a few name buffers on the stack; musl less.
const STACK_SIZE: usize = 256 * 1024;

/// What getaddrinfo says of a name.
pub type Found = Result<Vec<IpAddr>, ResolveError>;

/// The threads, started one by one as names have to wait. Dropping it ends them after their present call.
pub struct SystemResolver {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    call: Box<dyn Fn(&str) -> Found + Send + Sync>,
    done: Box<dyn Fn(Arc<str>, Found) + Send + Sync>,
    /// [`IDLE`].
    patience: Duration,
}

/// A name and who wants to know.
struct Question {
    name: Arc<str>,
    source: IpAddr,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Question>,
    /// The source of each call under way; at most [`MAX_THREADS`].
    calls: Vec<IpAddr>,
    /// Started and not ended.
    threads: usize,
    closed: bool,
}

impl SystemResolver {
    /// No thread yet; `done` will be called from one for every name that was taken.
    pub fn new(done: impl Fn(Arc<str>, Found) + Send + Sync + 'static) -> Self {
        Self::with_call(IDLE, getaddrinfo, done)
    }

    fn with_call(
        patience: Duration,
        call: impl Fn(&str) -> Found + Send + Sync + 'static,
        done: impl Fn(Arc<str>, Found) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            call: Box::new(call),
            done: Box::new(done),
            patience,
        };
        SystemResolver { shared: Arc::new(shared) }
    }

    /// Looks `name` up for `source`; false if that is not possible now: too many wait, or there is no thread.
    pub fn ask(&mut self, name: Arc<str>, source: IpAddr) -> bool {
        let mut queue = self.shared.lock();
        if queue.waiting.len() >= MAX_QUEUED {
            return false;
        }
        queue.waiting.push_back(Question { name, source });
        if queue.ready() > queue.idle() && queue.threads < MAX_THREADS {
            match self.shared.clone().start() {
                Ok(()) => queue.threads += 1,
                Err(_) if queue.threads == 0 => {
                    queue.waiting.pop_back();
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

impl Queue {
    /// Threads without a call, those included that have yet to look for one.
    fn idle(&self) -> usize {
        self.threads.saturating_sub(self.calls.len())
    }

    /// How many of those who wait could be called for at once, had they threads.
    fn ready(&self) -> usize {
        let mut calls = self.calls.clone();
        for question in &self.waiting {
            if calls.len() >= MAX_THREADS {
                break;
            }
            if has_share(&calls, question.source) {
                calls.push(question.source);
            }
        }
        calls.len().saturating_sub(self.calls.len())
    }

    /// The first whose source has not its share of the threads already.
    fn take(&mut self) -> Option<Question> {
        let at = self.waiting.iter().position(|question| has_share(&self.calls, question.source))?;
        let question = self.waiting.remove(at)?;
        self.calls.push(question.source);
        Some(question)
    }

    /// A call is over.
    fn give_back(&mut self, source: IpAddr) {
        if let Some(at) = self.calls.iter().position(|call| *call == source) {
            self.calls.swap_remove(at);
        }
    }
}

/// Whether `source` may have one more call beside these.
fn has_share(calls: &[IpAddr], source: IpAddr) -> bool {
    calls.iter().filter(|call| **call == source).count() < MAX_THREADS_PER_SOURCE
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is left half done where this lock is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: Arc<Self>) -> io::Result<()> {
        let run = move || {
            while let Some(Question { name, source }) = self.next() {
                let found = (self.call)(&name);
                self.lock().give_back(source);
                (self.done)(name, found);
            }
        };
        threads::spawn("getaddrinfo", STACK_SIZE, run).map(drop)
    }

    /// Waits for a name; `None` if the thread is to end.
    fn next(&self) -> Option<Question> {
        let mut queue = self.lock();
        let mut waited = false;
        loop {
            // After the wait, too: a name may have come just then.
            let question = if queue.closed { None } else { queue.take() };
            if question.is_some() {
                return question;
            }
            if queue.closed || waited {
                queue.threads = queue.threads.saturating_sub(1);
                return None;
            }
            let (guard, timeout) =
                self.wake.wait_timeout(queue, self.patience).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            waited = timeout.timed_out();
        }
    }
}

fn getaddrinfo(name: &str) -> Found {
    names::addresses(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ResolveError::NotFound,
        _ => ResolveError::Failed,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A resolver whose names with `hang` in front wait for the sender to be dropped.
    fn with_gate(patience: Duration) -> (SystemResolver, mpsc::Sender<()>, mpsc::Receiver<Arc<str>>) {
        let (done, results) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let (gate, done) = (Mutex::new(gate), Mutex::new(done));
        let call = move |name: &str| {
            if name.starts_with("hang") {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(Vec::new())
        };
        let done = move |name, _| drop(done.lock().unwrap().send(name));
        (SystemResolver::with_call(patience, call, done), release, results)
    }

    fn source(number: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()])
    }

    /// Waits for something that other threads do.
    #[track_caller]
    fn until(system: &SystemResolver, what: impl Fn(&Queue) -> bool) {
        let start = std::time::Instant::now();
        while !what(&system.shared.lock()) {
            assert!(start.elapsed() < SOON);
            std::thread::yield_now();
        }
    }

    /// Four names that hung took all threads.
    #[test]
    fn the_names_of_one_source_that_hang_stall_no_other() {
        let (mut system, release, results) = with_gate(IDLE);
        for n in 0..2 * MAX_THREADS {
            assert!(system.ask(format!("hang{n}").into(), source(1)));
        }
        until(&system, |queue| queue.calls.len() == MAX_THREADS_PER_SOURCE);
        assert!(system.ask("quick".into(), source(2)));
        assert_eq!(&*results.recv_timeout(SOON).unwrap(), "quick");
        assert!(system.shared.lock().threads <= MAX_THREADS_PER_SOURCE + 1);
        drop(release);
        for _ in 0..2 * MAX_THREADS {
            results.recv_timeout(SOON).unwrap();
        }
    }

    #[test]
    fn threads_and_queue_have_an_end() {
        let (mut system, release, results) = with_gate(IDLE);
        for n in 0..MAX_THREADS {
            assert!(system.ask(format!("hang{n}").into(), source(n)));
        }
        until(&system, |queue| queue.waiting.is_empty());
        for n in 0..MAX_QUEUED {
            assert!(system.ask(format!("waits{n}").into(), source(n % 250)), "{n}");
        }
        assert!(!system.ask("too many".into(), source(251)));
        assert_eq!(system.shared.lock().threads, MAX_THREADS);
        drop(release);
        for _ in 0..MAX_THREADS + MAX_QUEUED {
            results.recv_timeout(SOON).unwrap();
        }
    }

    #[test]
    fn threads_without_work_end_and_begin_again() {
        let (mut system, _release, results) = with_gate(Duration::from_millis(20));
        for n in 0..3 {
            assert!(system.ask("name".into(), source(n)));
            assert_eq!(&*results.recv_timeout(SOON).unwrap(), "name");
            until(&system, |queue| queue.threads == 0);
        }
        assert!(system.shared.lock().calls.is_empty());
    }

    #[test]
    fn the_threads_end_with_it() {
        let (mut system, _release, results) = with_gate(IDLE);
        assert!(system.ask("a".into(), source(1)));
        assert!(results.recv_timeout(SOON).is_ok());
        drop(system);
        assert_eq!(results.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn getaddrinfo_knows_this_machine() {
        assert!(getaddrinfo("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
