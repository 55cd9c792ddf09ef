//! The thread that checks passwords, which takes too long for a worker: up to seconds on a small router's CPU.
//!
//! One for the whole process, started by the first check. A worker first asks whether a credential is remembered
//! ([`Verifier::knows`]); only what is not is hashed here, one at a time, and each source waits for its turn
//! ([`Verifier::turn`]). Names and passwords are never logged here.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::auth::memory::{KEY_BYTES, Key, Mac, Memory};
use crate::auth::throttle::Throttle;
use crate::auth::{Credentials, Users, Verification};
use crate::sys::random;

/// Credentials on their way to the thread; beyond it nobody is let in for now.
const MAX_QUEUED: usize = 256;
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
    known: Arc<Known>,
    deliver: Arc<dyn Fn(Verified) + Send + Sync>,
    jobs: Mutex<Option<SyncSender<Job>>>,
    tickets: AtomicU32,
}

#[derive(Default)]
struct Known {
    /// Made when it is needed: most configurations have no users.
    key: OnceLock<Key>,
    right: Mutex<Option<Memory>>,
    throttle: Mutex<Throttle>,
}

struct Job {
    asker: Asker,
    source: IpAddr,
    users: Arc<Users>,
    credentials: Credentials,
}

impl Verifier {
    /// `deliver` is called on the thread, once for every check that was taken, and must not block.
    pub fn new(deliver: impl Fn(Verified) + Send + Sync + 'static) -> Self {
        Verifier {
            known: Arc::default(),
            deliver: Arc::new(deliver),
            jobs: Mutex::new(None),
            tickets: AtomicU32::new(0),
        }
    }

    /// Whether these credentials were right a while ago, and still are.
    pub fn knows(&self, users: &Users, credentials: &Credentials, now: Instant) -> bool {
        self.known.mac(users, credentials).is_some_and(|mac| self.known.is_right(&mac, now))
    }

    /// When `source` may have these credentials checked, or nothing if it has tried too often.
    pub fn turn(
        &self,
        source: IpAddr,
        users: &Users,
        credentials: &Credentials,
        now: Instant,
    ) -> Option<Instant> {
        let mac = self.known.mac(users, credentials)?;
        lock(&self.known.throttle).turn(source, &mac, now)
    }

    /// Has the credentials checked; the answer is delivered with the ticket that is returned. Nothing, and no answer later,
    /// if too much is waiting.
    pub fn check(
        &self,
        worker: usize,
        token: usize,
        source: IpAddr,
        users: Arc<Users>,
        credentials: Credentials,
    ) -> Option<u32> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let asker = Asker { worker, token, ticket };
        let job = Job { asker, source, users, credentials };
        let mut jobs = lock(&self.jobs);
        if jobs.is_none() {
            match self.start() {
                Ok(sender) => *jobs = Some(sender),
                Err(error) => log::error!("cannot check passwords, no thread is to be had: {error}"),
            }
        }
        jobs.as_ref()?.try_send(job).is_ok().then_some(ticket)
    }

    /// Whether it is time to log another failure of `source`.
    pub fn may_log(&self, source: IpAddr, now: Instant) -> bool {
        lock(&self.known.throttle).may_log(source, now)
    }

    fn start(&self) -> io::Result<SyncSender<Job>> {
        let (jobs, inbox) = mpsc::sync_channel(MAX_QUEUED);
        let (known, deliver) = (Arc::clone(&self.known), Arc::clone(&self.deliver));
        thread::Builder::new()
            .name("verifier".into())
            .stack_size(STACK_SIZE)
            .spawn(move || run(&inbox, &known, &*deliver))?;
        Ok(jobs)
    }
}

fn run(inbox: &Receiver<Job>, known: &Known, deliver: &(dyn Fn(Verified) + Send + Sync)) {
    let mut wrong = Memory::new(REMEMBERED_WRONG, REMEMBERED_WRONG_FOR);
    while let Ok(Job { asker, source, users, credentials }) = inbox.recv() {
        let (verification, remembered) = match known.mac(&users, &credentials) {
            None => (Verification::Unavailable, true),
            Some(mac) => {
                let (right, remembered) = known.judge(&users, &credentials, mac, &mut wrong);
                lock(&known.throttle).settled(source, &mac, right);
                (if right { Verification::Right } else { Verification::Wrong }, remembered)
            }
        };
        deliver(Verified { asker, verification, remembered });
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

    /// Whether these are right, and whether that was known already.
    fn judge(&self, users: &Users, credentials: &Credentials, mac: Mac, wrong: &mut Memory) -> (bool, bool) {
        let now = Instant::now();
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
mod tests {
    use super::*;
    use crate::auth::CryptHash;

    const PATIENT: Duration = Duration::from_secs(60);

    fn users(users: &[(&str, &str)]) -> Arc<Users> {
        let hash = |password: &str| CryptHash::make(password.as_bytes(), [3; 12]).unwrap();
        Arc::new(Users::new(users.iter().map(|(name, password)| ((*name).into(), hash(password)))).unwrap())
    }

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials::new(name.as_bytes(), password.as_bytes()).unwrap()
    }

    fn verifier() -> (Verifier, mpsc::Receiver<Verified>) {
        let (sender, answers) = mpsc::channel();
        let sender = Mutex::new(sender);
        (Verifier::new(move |verified| sender.lock().unwrap().send(verified).unwrap()), answers)
    }

    #[test]
    fn the_right_one_is_hashed_once_and_a_changed_table_voids_it() {
        let (verifier, answers) = verifier();
        let source = IpAddr::from([192, 0, 2, 1]);
        let table = users(&[("alice", "secret"), ("bob", "other")]);
        let ask = |table: &Arc<Users>, name: &str, password: &str| {
            let ticket =
                verifier.check(1, 2, source, Arc::clone(table), credentials(name, password)).unwrap();
            let answer = answers.recv_timeout(PATIENT).unwrap();
            assert_eq!(answer.asker, Asker { worker: 1, token: 2, ticket });
            (answer.verification, answer.remembered)
        };
        assert!(!verifier.knows(&table, &credentials("alice", "secret"), Instant::now()));
        assert_eq!(ask(&table, "alice", "secret"), (Verification::Right, false));
        assert_eq!(ask(&table, "alice", "secret"), (Verification::Right, true));
        assert!(verifier.knows(&table, &credentials("alice", "secret"), Instant::now()));
        for (name, password) in [("alice", "other"), ("bob", "secret"), ("mallory", "secret"), ("", "")] {
            assert!(!verifier.knows(&table, &credentials(name, password), Instant::now()));
            assert_eq!(ask(&table, name, password), (Verification::Wrong, false), "{name} {password}");
        }
        // One who is nobody may be checked against the very hash that would fit.
        let alone = users(&[("alice", "secret")]);
        assert_eq!(ask(&alone, "nobody", "secret"), (Verification::Wrong, false));
        assert_eq!(ask(&alone, "nobody", "secret"), (Verification::Wrong, true), "at once again");
        assert!(!verifier.knows(&alone, &credentials("nobody", "secret"), Instant::now()));

        let hash = CryptHash::make(b"secret", [4; 12]).unwrap();
        let changed = Arc::new(Users::new([("alice".into(), hash)]).unwrap());
        assert!(!verifier.knows(&changed, &credentials("alice", "secret"), Instant::now()));
        assert_eq!(ask(&changed, "alice", "secret"), (Verification::Right, false));
    }

    #[test]
    fn one_wrong_password_again_and_again_is_slowed() {
        let (verifier, answers) = verifier();
        let (source, table, now) =
            (IpAddr::from([192, 0, 2, 1]), users(&[("alice", "secret")]), Instant::now());
        let turn =
            |password: &str| verifier.turn(source, &table, &credentials("alice", password), now).unwrap();
        let check = |password: &str| {
            let credentials = credentials("alice", password);
            verifier.check(0, 0, source, Arc::clone(&table), credentials).unwrap();
            answers.recv_timeout(PATIENT).unwrap().verification
        };
        let mut free = 0;
        while turn("wrong") == now {
            assert_eq!(check("wrong"), Verification::Wrong);
            free += 1;
            assert!(free < 100, "it is never slowed");
        }
        assert_eq!(free, 5);
        assert_eq!(check("secret"), Verification::Right);
        assert_eq!(turn("wrong"), now, "success clears it");
    }

    #[test]
    fn what_is_too_much_is_refused_at_once() {
        let (verifier, answers) = verifier();
        let table = users(&[("alice", "secret")]);
        let taken = (0..MAX_QUEUED + 20)
            .filter(|i| {
                let credentials = credentials("alice", &i.to_string());
                verifier.check(0, 0, IpAddr::from([192, 0, 2, 1]), Arc::clone(&table), credentials).is_some()
            })
            .count();
        assert!((MAX_QUEUED..MAX_QUEUED + 20).contains(&taken), "{taken}");
        for _ in 0..taken {
            assert_eq!(answers.recv_timeout(PATIENT).unwrap().verification, Verification::Wrong);
        }
    }
}
