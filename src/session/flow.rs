//! One flow of datagrams: from one client's address and port to one destination's.
//!
//! A flow has no connection that stands for it. It begins with a datagram, which is held, with what follows, until its
//! session has come to a verdict; then the datagrams go on in their order, and whatever comes later as it comes, until
//! nothing has come for a while. Like the session the flow does no I/O: it is told what came and what time it is, and
//! answers with the one [`Act`] that its engine is to carry out.
//!
//! A client can begin a QUIC connection in a flow that was let in for another one, or for something else, which a server of
//! QUIC ignores. That is decided by itself, before the server hears of it.

mod act;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::act::{Act, Answer};
use super::budget::Charge;
use super::held::{self, Held};
use super::{CloseReason, Env, Machine, Record, Step};
use crate::accept::Wish;
use crate::config::Listener;
use crate::connect::dial::DialError;
use crate::connect::resolve::ResolveError;
use crate::identify::Identity;
use crate::identify::datagram::{DatagramIdentifier, DatagramOutcome};
use crate::metrics::Metrics;
use crate::quota::{Share, Way};

/// A flow of DNS ends this long after its last datagram.
const DNS_IDLE: Duration = Duration::from_secs(10);

/// It ends this long after the last of its queries was answered: a client may have another one, or ask twice.
const DNS_ANSWERED: Duration = Duration::from_secs(1);

/// How long the packets with which a QUIC connection began may come again: longer, and no handshake is alive.
const RETRANSMITTED: Duration = Duration::from_secs(10);

/// What of a flow is looked at after it was let in.
#[derive(Debug)]
pub enum Watch {
    /// Nothing.
    Nothing,
    /// No rule needed to know what it is: the first datagrams tell in passing.
    Unseen(Box<DatagramIdentifier>),
    /// Queries and their answers, and the beginnings of QUIC connections if anybody reads `quic`.
    Dns {
        /// As said.
        quic: bool,
    },
    /// The beginnings of QUIC connections in a flow of something else.
    Other,
    /// The beginnings of further connections. What the first one began with may come again.
    Quic(Option<Box<DatagramIdentifier>>),
}

/// One flow.
#[derive(Debug)]
pub struct Flow<M: Machine> {
    listener: Arc<Listener>,
    client: SocketAddr,
    /// Who that is, where it was asked.
    user: Option<Arc<str>>,
    /// Where the client's datagrams go.
    wish: Wish,
    deciding: Option<Deciding<M>>,
    open: Option<Open<M>>,
    /// What is to stand before each datagram to the server.
    greeting: Vec<u8>,
    /// It ends after so much silence, at the latest.
    idle_at_most: Duration,
    due: Option<Instant>,
}

/// What waits for a verdict.
#[derive(Debug)]
struct Deciding<M> {
    session: Box<M>,
    /// The session wants to see more datagrams. Otherwise it waits for addresses.
    reads: bool,
    /// Until then.
    until: Option<Instant>,
    held: Held,
}

/// What was let in.
#[derive(Debug)]
struct Open<M: Machine> {
    /// It was decided by this.
    plan: Arc<M::Plan>,
    /// Its part of the limits of the rule that let it in.
    share: Option<Share>,
    /// What hangs on the time, and when to look at that again.
    reviewed: Option<(Box<M>, Option<Instant>)>,
    idle: Duration,
    /// A QUIC connection that begins in it is decided by itself.
    quic: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain,
    Unseen(Box<DatagramIdentifier>),
    Dns { unanswered: u32 },
    Quic { first: Option<First>, since: Instant },
}

/// What a connection began with.
#[derive(Debug)]
struct First {
    identifier: Box<DatagramIdentifier>,
    /// The memory that this takes.
    _charge: Option<Charge>,
}

impl<M: Machine> Flow<M> {
    /// Begins a flow with its first datagram. `ours`: this program itself has sent it.
    pub fn begin(
        listener: &Arc<Listener>,
        client: SocketAddr,
        user: Option<Arc<str>>,
        wish: Wish,
        ours: bool,
        datagram: &[u8],
        env: &mut Env<'_, M>,
    ) -> (Self, Act) {
        let listener = Arc::clone(listener);
        let (deciding, open, idle_at_most, due) = (None, None, Duration::MAX, None);
        let greeting = Vec::new();
        let mut flow = Flow { listener, client, user, wish, deciding, open, greeting, idle_at_most, due };
        let act = flow.decide(ours, datagram, env);
        (flow, act)
    }

    /// When [`Flow::expired`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        let verdict = self.deciding.as_ref().and_then(|deciding| deciding.until);
        let review = self.open.as_ref().and_then(|open| open.reviewed.as_ref()?.1);
        [verdict, review, self.due].into_iter().flatten().min()
    }

    /// The resolver is asked, and will have answered by this time.
    pub fn wait_for_addresses(&mut self, until: Option<Instant>) {
        if let Some(deciding) = &mut self.deciding {
            deciding.until = until;
        }
    }

    /// The session, while it has no verdict.
    pub fn session(&self) -> Option<&M> {
        self.deciding.as_ref().map(|deciding| &*deciding.session)
    }

    /// What stands before each datagram to and from the server, as soon as that is known.
    pub fn take_greeting(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.greeting)
    }

    /// Whether its datagrams go both ways.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The client sent another datagram.
    pub fn datagram(
        &mut self,
        datagram: &[u8],
        record: &mut M::Record,
        metrics: &Metrics,
        env: &mut Env<'_, M>,
    ) -> Act {
        if let Some(open) = &mut self.open {
            self.due = env.now.checked_add(open.idle);
            let another = self.deciding.is_some();
            if !open.may_move(Way::Up, datagram.len(), env.now) {
                return Act::Wait;
            }
            if !M::READS || !open.begins_anew(datagram, another, record, metrics, env.now) {
                return Act::Pass;
            }
            if self.deciding.is_none() {
                return self.decide(false, datagram, env);
            }
        }
        match self.deciding.take() {
            Some(deciding) => self.hold(deciding, datagram, env),
            None => Act::Wait,
        }
    }

    /// The server sent something.
    pub fn answer(&mut self, datagram: &[u8], env: &Env<'_, M>) -> Answer {
        let Some(open) = &mut self.open else { return Answer::Lost };
        if !open.may_move(Way::Down, datagram.len(), env.now) {
            return Answer::Lost;
        }
        let (mut idle, mut other) = (open.idle, None);
        if let (true, Kind::Dns { unanswered }) = (M::READS, &mut open.kind) {
            *unanswered = unanswered.saturating_sub(1);
            if *unanswered == 0 {
                idle = idle.min(DNS_ANSWERED);
            }
            other = M::dns_answer(&open.plan, self.client.ip(), datagram, env);
        }
        self.due = env.now.checked_add(idle);
        other.map_or(Answer::Same, Answer::Other)
    }

    /// The resolver answered the last [`Act::Resolve`].
    pub fn resolved(&mut self, result: Result<Vec<IpAddr>, ResolveError>, env: &mut Env<'_, M>) -> Act {
        match self.deciding.take() {
            Some(mut deciding) => {
                let step = deciding.session.resolved(result, env);
                self.take(deciding, step)
            }
            None => Act::Wait,
        }
    }

    /// A socket to `server`, one of the last [`Act::Connect`], is there; `local` is our own end of it.
    pub fn connected(
        &mut self,
        server: SocketAddr,
        local: SocketAddr,
        record: &mut M::Record,
        metrics: &Metrics,
        env: &mut Env<'_, M>,
    ) -> Act {
        let Some(mut deciding) = self.deciding.take() else { return Act::Wait };
        match deciding.session.connected(server, local, env) {
            Step::Tunnel { .. } => {
                record.take_in(&deciding.session);
                self.over(env);
                self.greeting = deciding.session.take_greeting();
                let remembers = M::READS && deciding.held.affords(deciding.session.kept(), env);
                let watch = deciding.session.watch(env);
                let (mut held, charge) = deciding.held.into_parts();
                let mut open = Open::new(deciding.session, watch, charge, env);
                open.idle = open.idle.min(self.idle_at_most);
                // What began another connection while this one waited is lost, as on any link. It is looked at when it comes again.
                held.retain(|datagram| {
                    !M::READS || !open.begins_anew(datagram, false, record, metrics, env.now)
                });
                if let (true, false, Kind::Quic { first, .. }) = (M::READS, remembers, &mut open.kind) {
                    *first = None;
                }
                self.due = env.now.checked_add(open.idle);
                self.open = Some(open);
                Act::Send(held)
            }
            step => self.take(deciding, step),
        }
    }

    /// None of the last [`Act::Connect`] could be had.
    pub fn unconnected(&mut self, error: DialError, env: &mut Env<'_, M>) -> Act {
        match self.deciding.take() {
            Some(mut deciding) => {
                let step = deciding.session.dial_failed(error, env);
                self.take(deciding, step)
            }
            None => Act::Wait,
        }
    }

    /// The socket of the last [`Act::Connect`] leads to this machine itself.
    pub fn leads_here(&mut self, env: &mut Env<'_, M>) -> Act {
        match self.deciding.take() {
            Some(mut deciding) => {
                let step = deciding.session.leads_here(env);
                self.take(deciding, step)
            }
            None => Act::Wait,
        }
    }

    /// [`Flow::due`] has passed.
    pub fn expired(&mut self, env: &mut Env<'_, M>) -> Act {
        let is_late = |deciding: &mut Deciding<M>| deciding.until.is_none_or(|until| until <= env.now);
        if let Some(mut deciding) = self.deciding.take_if(is_late) {
            let step = if M::READS && deciding.reads {
                deciding.session.deadline(env)
            } else {
                deciding.session.resolved(Err(ResolveError::Failed), env)
            };
            return self.take(deciding, step);
        }
        if let Some((session, at)) = self.open.as_mut().and_then(|open| open.reviewed.as_mut())
            && at.is_some_and(|at| at <= env.now)
        {
            *at = env.next_review();
            if let Some(reason) = session.review(env) {
                return Act::End(reason);
            }
        }
        if self.due.is_some_and(|due| env.now < due) {
            return Act::Wait;
        }
        let done = matches!(&self.open, Some(Open { kind: Kind::Dns { unanswered: 0 }, .. }));
        Act::End(if done { CloseReason::Finished } else { CloseReason::Idle })
    }

    /// The program stops: what is silent for so long ends.
    pub fn wind_up(&mut self, now: Instant, idle: Duration) {
        self.idle_at_most = idle;
        if let Some(open) = &mut self.open {
            open.idle = open.idle.min(idle);
            self.due = self.due.min(now.checked_add(open.idle));
        }
    }

    /// The flow ends, for whatever reason.
    pub fn over(&mut self, env: &Env<'_, M>) {
        if let (true, Some(Open { kind: Kind::Quic { .. }, idle, .. }), Wish::Address(dest)) =
            (M::READS, &self.open, &self.wish)
        {
            env.memory.left(self.client.ip(), *dest, env.now, *idle);
        }
    }

    /// Asks the rules, beginning with this datagram.
    fn decide(&mut self, ours: bool, datagram: &[u8], env: &mut Env<'_, M>) -> Act {
        let mut session =
            Box::new(M::over_datagrams(Arc::clone(env.plan), &self.listener, self.client, env.now));
        if let Some(user) = &self.user {
            session.known_as(user);
        }
        let wish = self.wish.clone();
        let step = if ours { session.comes_back(wish, env) } else { session.start(wish, env) };
        let reads = M::READS && matches!(step, Step::Read { .. });
        let mut deciding = Deciding { session, reads, until: None, held: Held::default() };
        if reads {
            return self.hold(deciding, datagram, env);
        }
        // Of a flow that is refused this is what it began with.
        let _ = deciding.held.push(datagram, env);
        self.take(deciding, step)
    }

    /// Keeps a datagram, and lets the session see it if it wants to.
    fn hold(&mut self, mut deciding: Deciding<M>, datagram: &[u8], env: &mut Env<'_, M>) -> Act {
        let kept = M::READS && deciding.held.push(datagram, env);
        if !M::READS || !deciding.reads {
            // What finds no room is lost, as on any link.
            self.deciding = Some(deciding);
            return Act::Wait;
        }
        if kept {
            let step = deciding.session.datagram(datagram, env);
            if !matches!(step, Step::Read { .. }) || deciding.held.affords(deciding.session.kept(), env) {
                return self.take(deciding, step);
            }
        } else if deciding.held.datagrams.is_empty() {
            // For the refusal, which comes at once.
            deciding.held.datagrams.push(datagram.to_vec());
        }
        let step = deciding.session.deadline(env);
        self.take(deciding, step)
    }

    /// What a session's step means for its flow.
    fn take(&mut self, mut deciding: Deciding<M>, step: Step) -> Act {
        (deciding.reads, deciding.until) = (false, None);
        let act = match step {
            Step::Read { until } if M::READS => {
                (deciding.reads, deciding.until) = (true, Some(until));
                Act::Wait
            }
            Step::Resolve(name) if M::RESOLVES => Act::Resolve(name),
            Step::Dial(addrs) => Act::Connect(addrs),
            Step::Close(closing) => {
                let refused = matches!(
                    closing.reason,
                    CloseReason::Denied | CloseReason::Incomplete | CloseReason::Limit
                );
                let first = deciding.held.datagrams.first().filter(|_| refused);
                let words = first.and_then(|first| deciding.session.refusal(first));
                self.deciding = Some(deciding);
                return Act::Refuse(closing.reason, words);
            }
            // Nothing of that can be done with datagrams.
            Step::Read { .. }
            | Step::Resolve(_)
            | Step::Secure(_)
            | Step::SecureServer(_)
            | Step::Verify(_)
            | Step::Probe(_)
            | Step::Associate(_)
            | Step::Tunnel { .. }
            | Step::Exchange(_) => Act::End(CloseReason::BadRequest),
        };
        self.deciding = Some(deciding);
        act
    }
}

impl<M: Machine> Open<M> {
    /// `charge`: what `watch` takes of the memory.
    fn new(mut session: Box<M>, watch: Watch, charge: Option<Charge>, env: &Env<'_, M>) -> Self {
        let (now, plan) = (env.now, Arc::clone(session.plan()));
        let share = session.take_share();
        let reviewed = session.is_reviewed().then(|| (session, env.next_review()));
        let udp_idle = (*plan).as_ref().timeouts.udp_idle;
        let quic = matches!(watch, Watch::Dns { quic: true } | Watch::Other | Watch::Quic(_));
        let kind = match watch {
            _ if !M::READS => Kind::Plain,
            Watch::Nothing | Watch::Other => Kind::Plain,
            Watch::Unseen(identifier) => Kind::Unseen(identifier),
            Watch::Dns { .. } => Kind::Dns { unanswered: 0 },
            Watch::Quic(first) => {
                let first = first.map(|identifier| First { identifier, _charge: charge });
                Kind::Quic { first, since: now }
            }
        };
        let idle = if matches!(kind, Kind::Dns { .. }) { udp_idle.min(DNS_IDLE) } else { udp_idle };
        Open { plan, share, reviewed, idle, quic, kind }
    }

    /// Whether so many bytes may go this way now. What goes beyond a rate is lost: those who send datagrams slow down then.
    fn may_move(&self, way: Way, bytes: usize, now: Instant) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        !M::TIES || self.share.as_ref().is_none_or(|share| share.spend_in_time(way, bytes, now))
    }

    /// Looks at a datagram of the client: whether the rules must be asked about it first. `another`: they are being asked
    /// about another connection, to which it may belong.
    fn begins_anew(
        &mut self,
        datagram: &[u8],
        another: bool,
        record: &mut M::Record,
        metrics: &Metrics,
        now: Instant,
    ) -> bool {
        let first = match &mut self.kind {
            Kind::Plain => None,
            Kind::Dns { unanswered } => {
                *unanswered = unanswered.saturating_add(1);
                None
            }
            Kind::Unseen(identifier) => {
                match identifier.look(datagram) {
                    DatagramOutcome::NeedMore { .. } if identifier.kept() <= held::FREE => {}
                    DatagramOutcome::Identified(identity) => {
                        record.saw(&identity, metrics);
                        self.kind = match identity {
                            Identity::Dns { .. } => {
                                self.idle = self.idle.min(DNS_IDLE);
                                Kind::Dns { unanswered: 1 }
                            }
                            _ => Kind::Plain,
                        };
                    }
                    // Not worth more.
                    _ => self.kind = Kind::Plain,
                }
                None
            }
            Kind::Quic { first, since } => {
                if now.saturating_duration_since(*since) >= RETRANSMITTED {
                    *first = None;
                }
                first.as_mut().map(|first| &mut *first.identifier)
            }
        };
        self.quic && begins_another(first, !another, datagram)
    }
}

/// Whether a QUIC connection begins with this datagram that is not the `first` one of its flow over again, with `retry` after
/// a Retry.
#[cfg(feature = "quic")]
fn begins_another(first: Option<&mut DatagramIdentifier>, retry: bool, datagram: &[u8]) -> bool {
    crate::identify::datagram::begins_connection(datagram)
        && !first.is_some_and(|first| first.repeats(datagram, retry))
}

/// Nobody has looked at the first one, either.
#[cfg(not(feature = "quic"))]
fn begins_another(_first: Option<&mut DatagramIdentifier>, _retry: bool, _datagram: &[u8]) -> bool {
    false
}
