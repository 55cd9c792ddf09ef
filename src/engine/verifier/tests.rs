//! The verifier with its thread: what is hashed, in which order, and what is too much.

use std::sync::mpsc;

use super::*;
use crate::auth::CryptHash;

const PATIENT: Duration = Duration::from_secs(60);
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

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

/// A verifier whose thread waits with its first answer until `go_on` is told to: what comes meanwhile is in the queue.
struct Held {
    verifier: Verifier,
    answers: mpsc::Receiver<Verified>,
    go_on: mpsc::Sender<()>,
    users: Arc<Users>,
}

impl Held {
    fn new() -> Held {
        let (sender, answers) = mpsc::channel();
        let (go_on, told) = mpsc::channel();
        let (sender, told) = (Mutex::new(sender), Mutex::new(told));
        let verifier = Verifier::new(move |verified: Verified| {
            let is_first = verified.asker.token == 0;
            sender.lock().unwrap().send(verified).unwrap();
            if is_first {
                told.lock().unwrap().recv_timeout(PATIENT).unwrap();
            }
        });
        let held = Held { verifier, answers, go_on, users: users(&[("alice", "secret")]) };
        held.check(0, 0, "the one that is being checked").unwrap();
        assert_eq!(held.answers.recv_timeout(PATIENT).unwrap().asker.token, 0);
        held
    }

    fn check(&self, token: usize, failures: u32, password: &str) -> Option<u32> {
        let (users, now) = (Arc::clone(&self.users), Instant::now());
        self.verifier.check((0, token), SOURCE, failures, users, credentials("alice", password), now)
    }

    /// Lets the thread go on: who is answered what, in this order.
    fn answered(&self, count: usize) -> Vec<(usize, Verification)> {
        self.go_on.send(()).unwrap();
        (0..count)
            .map(|_| self.answers.recv_timeout(PATIENT).unwrap())
            .map(|answer| (answer.asker.token, answer.verification))
            .collect()
    }
}

#[test]
fn the_right_one_is_hashed_once_and_a_changed_table_voids_it() {
    let (verifier, answers) = verifier();
    let table = users(&[("alice", "secret"), ("bob", "other")]);
    let ask = |table: &Arc<Users>, name: &str, password: &str| {
        let (table, now) = (Arc::clone(table), Instant::now());
        let ticket = verifier.check((1, 2), SOURCE, 0, table, credentials(name, password), now).unwrap();
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
    let (table, now) = (users(&[("alice", "secret")]), Instant::now());
    let turn =
        |password: &str| verifier.turn(SOURCE, &table, &credentials("alice", password), now).unwrap().at;
    let check = |password: &str| {
        let (credentials, now) = (credentials("alice", password), Instant::now());
        verifier.check((0, 0), SOURCE, 0, Arc::clone(&table), credentials, now).unwrap();
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

/// One queue for all, first come, first served, let many sources that guess hold up a new client for as long as all their
/// checks take.
#[test]
fn who_has_not_failed_waits_for_the_check_under_way_only() {
    let held = Held::new();
    for token in 1..=100 {
        held.check(token, 1, &format!("guess {token}")).unwrap();
    }
    held.check(1000, 0, "secret").unwrap();
    assert_eq!(held.answered(2), [(1000, Verification::Right), (1, Verification::Wrong)]);
}

#[test]
fn of_too_much_the_oldest_of_the_worst_is_not_checked() {
    let held = Held::new();
    for token in 1..=MAX_QUEUED {
        held.check(token, 1, &format!("guess {token}")).unwrap();
    }
    assert_eq!(held.check(2000, 2, "worse than all"), None);
    held.check(1000, 0, "secret").unwrap();
    let told = held.answers.recv_timeout(PATIENT).unwrap();
    assert_eq!((told.asker.token, told.verification), (1, Verification::Unavailable), "at once");
    assert_eq!(held.answered(2), [(1000, Verification::Right), (2, Verification::Wrong)]);
}

#[test]
fn one_credential_is_hashed_once_for_all_who_wait() {
    let held = Held::new();
    for token in 1..=MAX_ASKERS {
        held.check(token, 3, "secret").unwrap();
    }
    assert_eq!(held.check(2000, 3, "secret"), None, "that is no browser");
    held.check(3000, 2, "guess").unwrap();
    held.go_on.send(()).unwrap();
    let answers: Vec<_> = (0..=MAX_ASKERS).map(|_| held.answers.recv_timeout(PATIENT).unwrap()).collect();
    assert_eq!((answers[0].asker.token, answers[0].verification), (3000, Verification::Wrong));
    for (answer, token) in answers[1..].iter().zip(1..) {
        assert_eq!((answer.asker.token, answer.verification), (token, Verification::Right));
        assert_eq!(answer.remembered, token > 1, "{token}");
    }
}

/// A worker has told its client by then that it cannot be checked.
#[test]
fn nothing_is_hashed_for_nobody() {
    let held = Held::new();
    let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
    let given_up = credentials("alice", "given up");
    held.verifier.check((0, 1), SOURCE, 0, Arc::clone(&held.users), given_up, long_ago).unwrap();
    held.check(2, 1, "secret").unwrap();
    assert_eq!(held.answered(1), [(2, Verification::Right)]);
}

#[test]
fn the_thread_ends_with_the_verifier() {
    let Held { verifier, answers, go_on, .. } = Held::new();
    go_on.send(()).unwrap();
    drop(verifier);
    // The closure that sends belongs to the thread, too.
    assert!(matches!(answers.recv_timeout(PATIENT), Err(mpsc::RecvTimeoutError::Disconnected)));
}
