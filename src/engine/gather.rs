//! The live connections of all workers, for one who asks.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::handle::{Command, Handle};
use crate::config::Mode;

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
    /// Rows that are kept; the others are only counted.
    most: usize,
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
    /// Asks all of `workers` for their connections, of which so many are kept.
    pub fn ask<P>(workers: &[Handle<P>], most: usize) -> Arc<Self> {
        let found = Found { rows: Vec::new(), omitted: 0, waiting: workers.len() };
        let gather = Arc::new(Gather { most, found: Mutex::new(found), more: Condvar::new() });
        for worker in workers {
            worker.tell(Command::Connections(Arc::clone(&gather)));
        }
        gather
    }

    /// A worker has these, each of which `row` describes.
    pub(super) fn add<T>(&self, lives: impl Iterator<Item = T>, row: impl Fn(T) -> Row) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for life in lives {
            if found.rows.len() < self.most {
                found.rows.push(row(life));
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
