//! The stage in which bytes go both ways: how long a tunnel may be silent, keepalive, and the look at bytes in passing.

use std::io;
use std::time::{Duration, Instant};

use super::securing;
use super::ties::{self, Pacing};
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::identify::Parsers;
use crate::metrics::Metrics;
use crate::relay::direction::Answers;
use crate::relay::tunnel::{Progress, Tunnel};
use crate::relay::{Broken, End, Loan, Side};
use crate::session::{CloseReason, Machine, Record};
use crate::sys::socket;
use crate::wire::dns::stream::AnswerStream;

/// A tunnel that lives this long gets keepalive probes; short ones are spared the system calls.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// First keepalive probe after this much silence, and the time between probes, in seconds.
const KEEPALIVE_IDLE_SECS: u16 = 300;
const KEEPALIVE_INTERVAL_SECS: u16 = 30;

/// Bytes of a client that are looked at in passing at most: those of the longest query, and of most hellos.
const GLIMPSE: usize = 2048;

/// A tunnel and its times.
#[derive(Debug)]
pub(super) struct Tunnelling<M> {
    tunnel: Tunnel,
    /// Boxed, as most tunnels have none.
    ties: Option<Box<Ties<M>>>,
    /// When something was moved last.
    last: Instant,
    /// When to look whether it has been silent for too long.
    due: Option<Instant>,
    idle: Duration,
    half_closed: Duration,
    /// Nobody has looked at the client's bytes: look in passing, with these parsers.
    unseen: Option<Unseen>,
    /// Whether answers of DNS are stripped.
    strip_ech: bool,
    keepalive: bool,
}

/// A client's first bytes, until enough of them have come.
#[derive(Debug)]
struct Unseen {
    parsers: Parsers,
    bytes: Vec<u8>,
}

/// What binds a tunnel to the rule that let it in.
#[derive(Debug)]
struct Ties<M> {
    /// The session, where it is looked at again, and when.
    reviewed: Option<(Box<M>, Option<Instant>)>,
    pacing: Option<Pacing>,
}

/// What there is before a tunnel stands.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Read from the client already.
    pub to_server: Vec<u8>,
    /// Read from the server already.
    pub to_client: Vec<u8>,
    /// What its bytes are held to already, if they are not the first ones.
    pub pacing: Option<Pacing>,
}

/// How a turn ended.
pub(super) enum Turn {
    /// Nothing can be moved now.
    Wait,
    /// There is more to do, but others come first.
    Again,
    /// Both directions are done.
    Finished,
    /// One side broke; both get a reset.
    Broken(CloseReason),
}

impl<M: Machine> Tunnelling<M> {
    /// A tunnel that first sends both sides what was read for them already.
    pub fn new(session: Box<M>, before: Before, life: &mut Life<M>, tools: &Tools<'_, M>) -> Self {
        let Before { to_server, to_client, pacing } = before;
        let timeouts = session.service().timeouts;
        let (strip_ech, metrics) = (session.strips_ech(), &tools.shared.metrics);
        let unseen = session.unseen().map(|parsers| Unseen { parsers, bytes: Vec::new() });
        let unseen = unseen.and_then(|unseen| unseen.look(&to_server, life, metrics));
        let mut tunnel = Tunnel::going_on(to_server, to_client);
        if M::READS && life.record.speaks_dns() {
            tunnel.read_answers(Box::new(AnswerStream::new(strip_ech)));
        }
        let idle = timeouts.idle;
        let ties = if M::TIES { Ties::of(session, pacing, tools) } else { None };
        Tunnelling {
            tunnel,
            ties,
            last: tools.now,
            due: tools.now.checked_add(idle.min(KEEPALIVE_AFTER)),
            idle,
            half_closed: timeouts.half_closed,
            unseen,
            strip_ech,
            keepalive: false,
        }
    }

    /// When [`expired`](Self::expired) wants to be called.
    pub fn due(&self) -> Option<Instant> {
        let Some(ties) = &self.ties else { return self.due };
        let review = ties.reviewed.as_ref().and_then(|reviewed| reviewed.1);
        let pacing = ties.pacing.as_ref().and_then(Pacing::due);
        [self.due, review, pacing].into_iter().flatten().min()
    }

    /// Why the session must end, if it is time to look at it and it must.
    pub fn review(&mut self, tools: &Tools<'_, M>) -> Option<CloseReason> {
        let (session, at) = self.ties.as_mut()?.reviewed.as_mut()?;
        ties::review(&mut **session, at, tools)
    }

    /// Whether a pause is over that was made for the sake of a rate.
    pub fn goes_on(&self, now: Instant) -> bool {
        self.pacing().and_then(Pacing::due).is_some_and(|at| now >= at)
    }

    fn pacing(&self) -> Option<&Pacing> {
        self.ties.as_ref()?.pacing.as_ref()
    }

    /// Moves what can be moved, both ways.
    pub fn turn(
        &mut self,
        client: &mut End,
        server: &mut End,
        life: &mut Life<M>,
        tools: &mut Tools<'_, M>,
    ) -> Turn {
        let given = self.pacing().and_then(|pacing| pacing.allowance(tools.now));
        given.into_iter().for_each(|given| self.tunnel.allow(given));
        let before = self.tunnel.delivered();
        let was_half_closed = self.tunnel.is_half_closed();
        let (unseen, strip_ech, metrics) = (&mut self.unseen, self.strip_ech, &tools.shared.metrics);
        let progress = self.tunnel.pump(client, server, tools.loan, &mut |bytes| {
            *unseen = unseen.take()?.look(bytes, life, metrics);
            (M::READS && life.record.speaks_dns())
                .then(|| Box::new(AnswerStream::new(strip_ech)) as Box<dyn Answers>)
        });
        if M::READS
            && let Some(answers) = self.tunnel.answers()
        {
            tools.shared.memory.published(life.client.ip(), &answers.take_published(), tools.now);
        }
        if let Some(given) = given
            && let Some(pacing) = self.ties.as_mut().and_then(|ties| ties.pacing.as_mut())
        {
            pacing.spent(given, self.tunnel.allowance(), tools.now);
        }
        let after = self.tunnel.delivered();
        let half_closes_now = !was_half_closed && self.tunnel.is_half_closed();
        if after != before || half_closes_now {
            self.last = tools.now;
        }
        if half_closes_now {
            // An earlier time than the timers may have, also where the other direction has more to do.
            self.due = tools.now.checked_add(self.half_closed);
        }
        life.moved(before, after, &tools.shared.metrics);
        match progress {
            Progress::Wait { .. } => Turn::Wait,
            Progress::Again => Turn::Again,
            Progress::Finished => Turn::Finished,
            Progress::Broken(broken) => Turn::Broken(reason_of(&broken, life)),
        }
    }

    /// Time has passed: why the tunnel must end, unless something was moved meanwhile.
    pub fn expired<'a>(
        &mut self,
        ends: impl IntoIterator<Item = &'a End>,
        now: Instant,
    ) -> Option<CloseReason> {
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        let (limit, reason) = if self.tunnel.is_half_closed() {
            (self.half_closed, CloseReason::HalfClosed)
        } else {
            (self.idle, CloseReason::Idle)
        };
        if now.saturating_duration_since(self.last) >= limit {
            return Some(reason);
        }
        if !self.keepalive {
            self.keepalive = true;
            for end in ends {
                // Without them a dead peer is found by the idle time.
                let _ = socket::keepalive(end.stream.socket(), KEEPALIVE_IDLE_SECS, KEEPALIVE_INTERVAL_SECS);
            }
        }
        self.due = self.last.checked_add(limit);
        None
    }

    /// Gives back what was borrowed.
    pub fn close(&mut self, loan: &mut Loan) {
        self.tunnel.close(loan);
    }
}

impl Unseen {
    /// Looks at what has come, with what follows; nothing is left of it if that was enough.
    fn look<M: Machine>(mut self, bytes: &[u8], life: &mut Life<M>, metrics: &Metrics) -> Option<Self> {
        let room = GLIMPSE.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
        let seen = !self.bytes.is_empty() && life.record.glimpse(self.parsers, &self.bytes, metrics);
        (!seen && self.bytes.len() < GLIMPSE).then_some(self)
    }
}

impl<M: Machine> Ties<M> {
    fn of(mut session: Box<M>, pacing: Option<Pacing>, tools: &Tools<'_, M>) -> Option<Box<Self>> {
        let pacing = pacing.or_else(|| session.take_share().map(|share| Pacing::new(share, tools.now)));
        let review = ties::first_review(&*session, tools);
        let reviewed = review.map(|at| (session, Some(at)));
        (pacing.is_some() || reviewed.is_some()).then(|| Box::new(Ties { reviewed, pacing }))
    }
}

fn reason_of<M: Machine>(broken: &Broken, life: &Life<M>) -> CloseReason {
    match (broken.side, broken.error.kind()) {
        (_, io::ErrorKind::TimedOut) => CloseReason::Idle,
        (Side::Client, _) => securing::why_client_broke(&broken.error, life),
        (Side::Server, _) => CloseReason::ServerReset,
    }
}
