//! The live connections of all workers, for one who asks.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Mode;

/// Rows that are kept; the others are only counted.
const MAX_ROWS: usize = 10_000;

/// One connection.
#[derive(Debug, Clone)]
pub struct Row {
    /// The client.
    pub client: SocketAddr,
    /// How it came in.
    pub mode: Mode,
    /// Where it goes, once that is known.
    pub dest: Option<SocketAddr>,
    /// The name as sent.
    pub name: Option<Box<[u8]>>,
    /// What was decided, and by which rule.
    pub verdict: Option<(&'static str, String)>,
    /// Payload to the server and to the client.
    pub bytes: (u64, u64),
    /// How long it has been there.
    pub age: Duration,
}

/// Waits for every worker's rows.
#[derive(Debug)]
pub struct Gather {
    found: Mutex<Found>,
    more: Condvar,
}

#[derive(Debug)]
struct Found {
    rows: Vec<Row>,
    omitted: usize,
    /// Workers that have not answered.
    waiting: usize,
}

impl Gather {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        let found = Found { rows: Vec::new(), omitted: 0, waiting: workers };
        Gather { found: Mutex::new(found), more: Condvar::new() }
    }

    /// A worker has these.
    pub(super) fn add(&self, rows: impl Iterator<Item = Row>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if found.rows.len() < MAX_ROWS {
                found.rows.push(row);
            } else {
                found.omitted = found.omitted.saturating_add(1);
            }
        }
        found.waiting = found.waiting.saturating_sub(1);
        self.more.notify_all();
    }

    /// Everybody's rows, or those that were told in time, the oldest first; and how many more there are.
    pub fn wait(&self, limit: Duration) -> (Vec<Row>, usize) {
        let until = Instant::now() + limit;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        while found.waiting > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            found = self.more.wait_timeout(found, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut rows = std::mem::take(&mut found.rows);
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        (rows, found.omitted)
    }
}
