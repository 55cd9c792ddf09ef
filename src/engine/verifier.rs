//! The thread that checks passwords, which takes too long for a worker: up to seconds on a small router's CPU.
//!
//! One for the whole process, started by the first check. A worker first asks whether a credential is remembered
//! ([`Verifier::knows`]); only what is not is hashed here, one at a time, and each source waits for its turn
//! ([`Verifier::turn`]). Of those that wait the ones that have failed least go first ([`Queue`]), so that many who guess do
//! not hold up one who comes in: that one waits for the check under way and for others that have not failed either. Names
//! and passwords are never logged here.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::memory::{KEY_BYTES, Key, Mac, Memory};
use crate::auth::queue::Queue;
use crate::auth::throttle::{Throttle, Turn};
use crate::auth::{Credentials, Users, Verification};
use crate::sys::{random, threads};

/// Different credentials on their way to the thread.
const MAX_QUEUED: usize = 256;
/// Connections that wait for one of them, as those of a browser do that begin at once.
const MAX_ASKERS: usize = 256;
/// Credentials that are remembered.
const REMEMBERED: usize = 4096;
/// How long a right one is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// Wrong ones that are remembered, so that one that comes on many connections at once is hashed once.
const REMEMBERED_WRONG: usize = 64;
/// How long a wrong one is remembered.
const REMEMBERED_WRONG_FOR: Duration = Duration::from_secs(2);
/// How long the thread may leave a worker without an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Hashing happens on it.
const STACK_SIZE: usize = 128 * 1024;

/// The thread's answer to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Verified {
    /// Who asked.
    pub asker: Asker,
    /// What became of it.
    pub verification: Verification,
    /// The time at which it was known already, and no hash was made.
    pub remembered: bool,
}

/// A connection that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The worker.
    pub worker: usize,
    /// The connection's place there.
    pub token: usize,
    /// Which check: the place may be another connection's by then.
    pub ticket: u32,
}

/// The way to the thread, and what all workers know of credentials.
pub struct Verifier {
    desk: Arc<Desk>,
    tickets: AtomicU32,
}

/// What the workers and the thread share.
struct Desk {
    known: Known,
    deliver: Box<dyn Fn(Verified) + Send + Sync>,
    waiting: Mutex<Waiting>,
    /// There is something to do, or nobody left to ask.
    changed: Condvar,
}

struct Waiting {
    jobs: Queue<Job>,
    thread: Thread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    NotStarted,
    Runs,
    /// Nobody is left who could ask.
    Ends,
}

#[derive(Default)]
struct Known {
    /// Made when it is needed: most configurations have no users.
    key: OnceLock<Key>,
    right: Mutex<Option<Memory>>,
    throttle: Mutex<Throttle>,
}

/// One credential, and everybody who waits for the word on it.
struct Job {
    mac: Mac,
    askers: Vec<(Asker, IpAddr)>,
    users: Arc<Users>,
    credentials: Credentials,
    /// Nobody waits any longer.
    until: Instant,
}

impl Verifier {
    /// `deliver` is called once for every check that was taken, on the thread or by a check that takes its place, and must
    /// not block.
    pub fn new(deliver: impl Fn(Verified) + Send + Sync + 'static) -> Self {
        let waiting = Waiting { jobs: Queue::new(MAX_QUEUED), thread: Thread::NotStarted };
        Verifier {
            desk: Arc::new(Desk {
                known: Known::default(),
                deliver: Box::new(deliver),
                waiting: Mutex::new(waiting),
                changed: Condvar::new(),
            }),
            tickets: AtomicU32::new(0),
        }
    }

    /// Whether these credentials were right a while ago, and still are.
    pub fn knows(&self, users: &Users, credentials: &Credentials, now: Instant) -> bool {
        let known = &self.desk.known;
        known.mac(users, credentials).is_some_and(|mac| known.is_right(&mac, now))
    }

    /// When `source` may have these credentials checked, or nothing if it has tried too often.
    pub fn turn(
        &self,
        source: IpAddr,
        users: &Users,
        credentials: &Credentials,
        now: Instant,
    ) -> Option<Turn> {
        let mac = self.desk.known.mac(users, credentials)?;
        lock(&self.desk.known.throttle).turn(source, &mac, now)
    }

    /// Has the credentials checked whose `turn` has come; the answer is delivered with the ticket that is returned. Nothing,
    /// and no answer later, if too much is waiting.
    pub fn check(
        &self,
        (worker, token): (usize, usize),
        source: IpAddr,
        failures: u32,
        users: Arc<Users>,
        credentials: Credentials,
        now: Instant,
    ) -> Option<u32> {
        let mac = self.desk.known.mac(&users, &credentials)?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let asker = (Asker { worker, token, ticket }, source);
        let mut waiting = lock(&self.desk.waiting);
        if let Some(job) = waiting.jobs.join(failures, |job| job.mac == mac) {
            let room = job.askers.len() < MAX_ASKERS;
            if room {
                job.askers.push(asker);
                job.until = now + PATIENCE;
            }
            return room.then_some(ticket);
        }
        if waiting.thread == Thread::NotStarted {
            if let Err(error) = start(&self.desk) {
                log::error!("cannot check passwords, no thread is to be had: {error}");
                return None;
            }
            waiting.thread = Thread::Runs;
        }
        let job = Job { mac, askers: vec![asker], users, credentials, until: now + PATIENCE };
        let dropped = waiting.jobs.push(failures, job);
        drop(waiting);
        self.desk.changed.notify_one();
        if let Some(job) = dropped {
            let itself = job.askers.contains(&asker);
            self.desk.known.settle(&job, false);
            if itself {
                return None;
            }
            self.desk.answer(&job, Verification::Unavailable, true);
        }
        Some(ticket)
    }

    /// Whether it is time to log another failure of `source`.
    pub fn may_log(&self, source: IpAddr, now: Instant) -> bool {
        lock(&self.desk.known.throttle).may_log(source, now)
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        lock(&self.desk.waiting).thread = Thread::Ends;
        self.desk.changed.notify_one();
    }
}

fn start(desk: &Arc<Desk>) -> io::Result<()> {
    let desk = Arc::clone(desk);
    let run = move || desk.work_off();
    threads::spawn("verifier", STACK_SIZE, run).map(drop)
}

impl Desk {
    /// The thread: one after the other, until nobody is left who could ask.
    fn work_off(&self) {
        let mut wrong = Memory::new(REMEMBERED_WRONG, REMEMBERED_WRONG_FOR);
        while let Some(job) = self.next() {
            if Instant::now() >= job.until {
                // Those who asked have been told that it cannot be checked.
                self.known.settle(&job, false);
                continue;
            }
            let (right, remembered) = self.known.judge(&job, &mut wrong);
            self.known.settle(&job, right);
            let verification = if right { Verification::Right } else { Verification::Wrong };
            self.answer(&job, verification, remembered);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.thread == Thread::Ends {
                return None;
            }
            if let Some(job) = waiting.jobs.pop() {
                return Some(job);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A hash is paid once, whoever waits for it.
    fn answer(&self, job: &Job, verification: Verification, remembered: bool) {
        for (place, (asker, _)) in job.askers.iter().enumerate() {
            (self.deliver)(Verified { asker: *asker, verification, remembered: remembered || place > 0 });
        }
    }
}

impl Known {
    /// Nothing if this machine has no random numbers for a key.
    fn mac(&self, users: &Users, credentials: &Credentials) -> Option<Mac> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let key = random::bytes::<KEY_BYTES>()
                    .map_err(|error| log::error!("cannot check passwords, no random numbers: {error}"))
                    .ok()?;
                self.key.get_or_init(|| Key::new(key))
            }
        };
        Some(key.mac(users, credentials))
    }

    /// The tries of all who asked are over.
    fn settle(&self, job: &Job, right: bool) {
        let mut throttle = lock(&self.throttle);
        for (_, source) in &job.askers {
            throttle.settled(*source, &job.mac, right);
        }
    }

    /// Whether these are right, and whether that was known already.
    fn judge(&self, job: &Job, wrong: &mut Memory) -> (bool, bool) {
        let Job { mac, users, credentials, .. } = job;
        let (mac, now) = (*mac, Instant::now());
        // It may have become known since it was sent here.
        if self.is_right(&mac, now) {
            return (true, true);
        }
        if wrong.contains(&mac, now) {
            return (false, true);
        }
        let (hash, is_user) = users.hash_for(credentials.name());
        let right = hash.verify(credentials.password()) && is_user;
        let now = Instant::now();
        if right {
            self.remember(mac, now);
        } else {
            wrong.insert(mac, now);
        }
        (right, false)
    }

    fn is_right(&self, mac: &Mac, now: Instant) -> bool {
        lock(&self.right).as_ref().is_some_and(|memory| memory.contains(mac, now))
    }

    fn remember(&self, mac: Mac, now: Instant) {
        lock(&self.right).get_or_insert_with(|| Memory::new(REMEMBERED, REMEMBERED_FOR)).insert(mac, now);
    }
}

/// What a panicking thread left behind is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
