//! What the rest of the daemon has of a worker: a handle to tell it things, and what all workers share.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Token, Waker};

use super::admission::Admission;
use super::dialled::Dialled;
use super::gather::Gather;
use super::listening::Socket;
use super::resolver::ResolverHandle;
use super::verifier::{Verified, Verifier};
use crate::config::Listener;
use crate::connect::resolve::Answer;
use crate::decide::rules::Locals;
use crate::metrics::Metrics;
use crate::session::{Memory, Surroundings};

/// The waker's poll token, above every session's and listener's.
pub(super) const WAKER: Token = Token(usize::MAX);

/// What all workers share.
pub struct Shared {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits.
    pub admission: Admission,
    /// Names to addresses, for those who ask.
    pub resolver: Option<ResolverHandle>,
    /// Passwords.
    pub verifier: Verifier,
    /// What sessions look up where a rule asks for it.
    pub surroundings: Arc<dyn Surroundings>,
    /// Servers' certificates.
    #[cfg(feature = "tls")]
    pub prober: super::prober::Prober,
    /// Our own connections to servers.
    pub dialled: Dialled,
    /// Our own datagrams to servers.
    pub sent: Dialled,
    /// What was seen of clients.
    pub memory: Memory,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command<P> {
    /// A new plan, with all of its listeners: those without a socket run already.
    Plan(Arc<P>, Vec<(Listener, Option<Socket>)>),
    /// What the rules must know of this machine has changed.
    Locals(Arc<Locals>),
    /// The resolver's answer to this worker.
    Answer(Answer),
    /// The verifier's answer to this worker.
    Verified(Verified),
    /// The prober's answer to this worker.
    #[cfg(feature = "tls")]
    Probed(crate::connect::probe::Answer),
    /// Accept nothing more; end when all sessions have, or at this time.
    Drain(Instant),
    /// Log the live connections.
    Report,
    /// Say what the live connections are.
    Connections(Arc<Gather>),
}

/// What a worker has been told and not heard yet. Nobody ever waits here, the waker says when to look: a channel would be
/// 5 KB more of a MIPS binary.
///
/// Its bound is that of those who tell it something. An answer is here only for a question, of which a connection has one
/// under way at a time (`MAX_REQUESTS` of the resolver, `MAX_QUEUED` of the verifier), and the main thread says one thing
/// for each signal or change of an address, in its own time. What is here is heard before the next poll.
#[derive(Debug)]
pub(super) struct Inbox<P>(Mutex<VecDeque<Command<P>>>);

impl<P> Inbox<P> {
    fn put(&self, command: Command<P>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
    }

    pub(super) fn take(&self) -> Option<Command<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Handle<P> {
    inbox: Arc<Inbox<P>>,
    waker: Arc<Waker>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl<P> Handle<P> {
    /// Tells the worker; one that has ended hears nothing.
    pub fn tell(&self, command: Command<P>) {
        self.inbox.put(command);
        // A worker that cannot be woken reads its commands at its next event.
        let _ = self.waker.wake();
    }

    /// A second way to tell it.
    pub fn another(&self) -> Handle<P> {
        Handle { inbox: Arc::clone(&self.inbox), waker: Arc::clone(&self.waker), thread: None }
    }

    /// Waits until the worker has ended.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker that is not running yet: its handle can be given to others first.
#[derive(Debug)]
pub struct Prepared<P> {
    pub(super) poll: Poll,
    pub(super) inbox: Arc<Inbox<P>>,
}

/// Makes what a worker is told things by.
///
/// # Errors
/// No poll or waker is to be had.
pub fn prepare<P>() -> io::Result<(Handle<P>, Prepared<P>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let inbox = Arc::new(Inbox(Mutex::default()));
    Ok((Handle { inbox: Arc::clone(&inbox), waker, thread: None }, Prepared { poll, inbox }))
}
