//! One client connection in its worker: carries out the session's steps on real sockets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::dialling::{Dialling, Standing};
use super::reporter::{Life, Reporter};
use super::timers::Timers;
use super::worker::Shared;
use crate::accept::Wish;
use crate::config::{Mode, Plan};
use crate::connect::resolve::cache::AnswerCache;
use crate::connect::resolve::{Asker, ResolveError};
use crate::decide::rules::Locals;
use crate::identify::tcp::Identifier;
use crate::identify::{Outcome, Parsers};
use crate::metrics::Limit;
use crate::relay::exchange::{self, Asked, Exchange};
use crate::relay::tunnel::{self, Tunnel};
use crate::relay::{End, Loan, Ready, Side};
use crate::session::{CloseReason, Closing, Env, Session, Step, Wire};
use crate::sys::socket::{self, Outgoing};

/// Poll tokens of one connection: 0 is the client, the others are attempts to reach the server.
pub(super) const ROLES: usize = 32;

/// How long a client that was told something may take to hear it before the connection is closed over its head.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a lingering client that are read and thrown away before it is cut off.
const LINGER_BYTES: u32 = 256 * 1024;

/// A tunnel that lives this long gets keepalive probes; short ones are spared the system calls.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// First keepalive probe after this much silence, and the time between probes, in seconds.
const KEEPALIVE_IDLE_SECS: u16 = 300;
const KEEPALIVE_INTERVAL_SECS: u16 = 30;

/// Reads from one client before others get their turn.
const READS_PER_TURN: usize = 16;

/// What a worker lends to the connection that it is busy with.
pub(super) struct Tools<'a> {
    pub now: Instant,
    pub worker: usize,
    pub registry: &'a Registry,
    pub timers: &'a mut Timers,
    pub loan: &'a mut Loan,
    pub plan: &'a Arc<Plan>,
    pub outgoing: &'a Outgoing,
    pub locals: &'a Locals,
    pub answers: &'a mut AnswerCache,
    pub shared: &'a Shared,
    /// The daemon stops: nothing new is begun.
    pub draining: bool,
}

/// Whether a connection goes on after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Until the next event.
    Stays,
    /// It has more to do, but others come first.
    Yields,
    /// It is over.
    Over,
}

/// One client connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: End,
    server: Option<End>,
    stage: Stage,
    deadline: Option<Instant>,
    /// It stands in the worker's queue already.
    pub queued: bool,
    /// The address that it is counted under.
    source: Option<IpAddr>,
    life: Life,
}

// A connection spends its life as a tunnel, so that variant is not boxed: idle tunnels are what memory is spent on.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Stage {
    /// The session waits for bytes.
    Talking(Box<Session>),
    Resolving(Box<Session>, Box<str>),
    Dialling(Box<Session>, Box<Dialling>),
    Tunnelling(Tunnelling),
    Exchanging(Box<Session>, Box<Exchange>),
    /// The client has been told; its own bytes no longer matter.
    Lingering {
        discarded: u32,
    },
    Over,
}

#[derive(Debug)]
struct Tunnelling {
    tunnel: Tunnel,
    /// When something was moved last.
    last: Instant,
    idle: Duration,
    half_closed: Duration,
    /// Nobody has looked at the client's bytes: look in passing, with these parsers.
    unseen: Option<Parsers>,
    keepalive: bool,
}

impl Connection {
    /// A connection that was just accepted and admitted.
    pub fn new(
        stream: TcpStream,
        client: SocketAddr,
        source: Option<IpAddr>,
        mode: Mode,
        now: Instant,
    ) -> Self {
        Connection {
            // A fresh socket has room.
            client: End { stream, ready: Ready { writable: true, ..Ready::NOT } },
            server: None,
            stage: Stage::Over,
            deadline: None,
            queued: false,
            source,
            life: Life::new(client, mode, now),
        }
    }

    /// What the live table shows.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// The deadline that the timers know.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The address that it is counted under.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Begins the session.
    pub fn start(
        &mut self,
        key: usize,
        mut session: Box<Session>,
        wish: Wish,
        tools: &mut Tools<'_>,
    ) -> Fate {
        let interest = Interest::READABLE | Interest::WRITABLE;
        if tools.registry.register(&mut self.client.stream, Token(key * ROLES), interest).is_err() {
            return self.finish(key, CloseReason::OutOfResources, Wire::Reset, tools);
        }
        let step = with_env(tools, |env| session.start(wish, env));
        self.carry_out(key, session, step, tools)
    }

    /// The poll reported something of the socket with this role.
    pub fn event(
        &mut self,
        key: usize,
        role: usize,
        event: &mio::event::Event,
        tools: &mut Tools<'_>,
    ) -> Fate {
        let ready = Ready {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed() || event.is_error(),
        };
        if role == 0 {
            self.client.ready.merge(ready);
            let gone = event.is_error() || (event.is_read_closed() && event.is_write_closed());
            if gone && matches!(self.stage, Stage::Resolving(..) | Stage::Dialling(..)) {
                return self.finish(key, CloseReason::ClientGone, Wire::Quiet, tools);
            }
            if gone && matches!(self.stage, Stage::Exchanging(..)) {
                // While its server takes its time nothing is read of the client or written to it.
                self.reset_server();
                return self.finish(key, CloseReason::ClientReset, Wire::Reset, tools);
            }
            return self.go_on(key, tools);
        }
        if let Stage::Dialling(_, dialling) = &mut self.stage {
            let attempt = u8::try_from(role - 1).unwrap_or(u8::MAX);
            let failed = event.is_error() || event.is_write_closed();
            if let Some(stream) = dialling.reported(attempt, event.is_writable(), failed, tools.now) {
                self.server = Some(End { stream, ready: Ready { writable: true, ..ready } });
                return self.connected(key, tools);
            }
        } else if ready.read_closed && matches!(self.stage, Stage::Talking(_)) {
            // Kept for the client's next request, but it takes none any more.
            self.server = None;
        } else if let Some(server) = &mut self.server {
            server.ready.merge(ready);
        }
        self.go_on(key, tools)
    }

    /// Does what can be done now.
    pub fn go_on(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        match &mut self.stage {
            Stage::Talking(_) => self.listen(key, tools),
            Stage::Resolving(..) => Fate::Stays,
            Stage::Dialling(..) => self.dial(key, tools),
            Stage::Tunnelling(_) => self.tunnel(key, tools),
            Stage::Exchanging(..) => self.exchange(key, tools),
            Stage::Lingering { .. } => self.linger(key, tools),
            Stage::Over => Fate::Over,
        }
    }

    /// The deadline has passed.
    pub fn expired(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        // The timers have forgotten it.
        self.deadline = None;
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Talking(mut session) => {
                let step = with_env(tools, |env| session.deadline(env));
                self.carry_out(key, session, step, tools)
            }
            Stage::Resolving(session, _) => {
                let failed = Err(ResolveError::Failed);
                self.take_answer(key, session, failed, tools)
            }
            stage @ Stage::Dialling(..) => {
                self.stage = stage;
                self.dial(key, tools)
            }
            Stage::Tunnelling(tunnelling) => self.tunnel_expired(key, tunnelling, tools),
            Stage::Exchanging(session, exchange) => {
                self.stage = Stage::Exchanging(session, exchange);
                self.fail_exchange(key, CloseReason::Idle, tools)
            }
            Stage::Lingering { .. } | Stage::Over => self.over(key, tools),
        }
    }

    /// The resolver answered for `name`. An answer for somebody else who had this place before has another name, or the
    /// same, and is then as good.
    pub fn answered(
        &mut self,
        key: usize,
        name: &str,
        result: Result<Vec<IpAddr>, ResolveError>,
        tools: &mut Tools<'_>,
    ) -> Fate {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Resolving(session, wanted) if &*wanted == name => {
                self.take_answer(key, session, result, tools)
            }
            stage => {
                self.stage = stage;
                Fate::Stays
            }
        }
    }

    /// The daemon stops: what is between two requests ends now, the rest may finish.
    pub fn wind_up(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        match &self.stage {
            Stage::Talking(session) if session.is_idle() => {
                self.finish(key, CloseReason::Shutdown, Wire::Quiet, tools)
            }
            _ => Fate::Stays,
        }
    }

    /// The daemon stops and has waited long enough.
    pub fn shut_down(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        if matches!(self.stage, Stage::Lingering { .. }) {
            // It has ended already, and was counted.
            return self.over(key, tools);
        }
        self.finish(key, CloseReason::Shutdown, Wire::Quiet, tools)
    }

    /// Carries out steps until one has to wait.
    fn carry_out(
        &mut self,
        key: usize,
        mut session: Box<Session>,
        step: Step,
        tools: &mut Tools<'_>,
    ) -> Fate {
        if !self.admit_source(&session, tools) {
            return self.finish(key, CloseReason::Limit, Wire::Reset, tools);
        }
        let reply = session.take_reply();
        if matches!(step, Step::Close(_)) {
            self.life.open(&session);
        }
        let step = match step {
            // It goes out before the last words.
            Step::Close(Closing { reason, wire: Wire::Say(words) }) => {
                let words = [reply, words].concat();
                return self.finish(key, reason, Wire::Say(words), tools);
            }
            step => step,
        };
        if !reply.is_empty() && !matches!(self.client.stream.write(&reply), Ok(n) if n == reply.len()) {
            return self.finish(key, CloseReason::ClientGone, Wire::Reset, tools);
        }
        match step {
            Step::Read { until } => {
                self.set_deadline(key, Some(until), tools);
                self.stage = Stage::Talking(session);
                if self.client.ready.readable { Fate::Yields } else { Fate::Stays }
            }
            Step::Resolve(name) => self.resolve(key, session, name, tools),
            Step::Dial(addrs) => self.start_dialling(key, session, addrs, tools),
            Step::Exchange(wanted) => {
                // With more in hand it waits for its turn: a pipeline that is answered at once would nest as deep as it is long.
                let pipelined = !wanted.after_head.is_empty();
                let asked =
                    Asked { method: wanted.method, keep_alive: wanted.keep_alive, minor: wanted.minor };
                match Exchange::new(wanted.head, asked, wanted.body, &wanted.after_head) {
                    Ok(exchange) => {
                        self.life.open(&session);
                        self.stage = Stage::Exchanging(session, Box::new(exchange));
                        self.set_deadline(key, tools.now.checked_add(tools.plan.timeouts.idle), tools);
                        if pipelined { Fate::Yields } else { self.exchange(key, tools) }
                    }
                    Err(_) => {
                        let step = session.exchange_failed(CloseReason::BadRequest, false);
                        self.carry_out(key, session, step, tools)
                    }
                }
            }
            Step::Close(Closing { reason, wire }) => self.finish(key, reason, wire, tools),
            Step::Tunnel { to_server } => self.open_tunnel(key, &session, to_server, tools),
        }
    }

    /// Behind a PROXY header the source is known late.
    fn admit_source(&mut self, session: &Session, tools: &mut Tools<'_>) -> bool {
        if self.source.is_some() || !session.is_source_known() {
            return true;
        }
        let source = session.client().ip();
        self.life.client = session.client();
        if !tools.shared.admission.enter_source(source) {
            tools.shared.metrics.connection_refused(Limit::PerSource);
            if tools.shared.admission.may_log(tools.now) {
                log::warn!("too many connections: refused {source}");
            }
            return false;
        }
        self.source = Some(source);
        true
    }

    /// Reads what the client has to say for itself.
    fn listen(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        for _ in 0..READS_PER_TURN {
            if !self.client.ready.readable {
                return Fate::Stays;
            }
            // Taken out for the call, as the session may need the other tools.
            let mut scratch = std::mem::take(&mut tools.loan.scratch);
            let step = self.read_for_session(&mut scratch, tools);
            tools.loan.scratch = scratch;
            let Some(step) = step else { return Fate::Stays };
            let Stage::Talking(session) = std::mem::replace(&mut self.stage, Stage::Over) else {
                return Fate::Stays;
            };
            let fate = self.carry_out(key, session, step, tools);
            if !matches!(self.stage, Stage::Talking(_)) {
                return fate;
            }
        }
        Fate::Yields
    }

    /// One read, and what the session says to it.
    fn read_for_session(&mut self, scratch: &mut [u8], tools: &mut Tools<'_>) -> Option<Step> {
        let Stage::Talking(session) = &mut self.stage else { return None };
        match self.client.stream.read(scratch) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.client.ready.readable = false;
                None
            }
            Err(_) => Some(session.close(CloseReason::ClientReset)),
            // Read again, it says the same: whoever relays learns it, too.
            Ok(0) => Some(with_env(tools, |env| session.end_of_stream(env))),
            Ok(n) => {
                if n < scratch.len() && !self.client.ready.read_closed {
                    self.client.ready.readable = false;
                }
                let bytes = scratch.get(..n).unwrap_or_default();
                Some(with_env(tools, |env| session.bytes(bytes, env)))
            }
        }
    }

    fn resolve(&mut self, key: usize, session: Box<Session>, name: Box<str>, tools: &mut Tools<'_>) -> Fate {
        if let Some(entry) = tools.answers.get(&name, tools.now) {
            let result = entry.result.map(|addrs| addrs.to_vec());
            return self.take_answer(key, session, result, tools);
        }
        if let Err(error) = tools.shared.resolver.lookup(&name, Asker { worker: tools.worker, token: key }) {
            return self.take_answer(key, session, Err(error), tools);
        }
        // The resolver keeps its own time; this is for the case that its thread does not answer at all.
        let servers = u32::try_from(tools.plan.nameservers.len()).unwrap_or(u32::MAX);
        let longest =
            session.plan().timeouts.dns_lookup.saturating_mul(servers.saturating_add(2).saturating_mul(2));
        self.set_deadline(key, tools.now.checked_add(longest), tools);
        self.stage = Stage::Resolving(session, name);
        Fate::Stays
    }

    fn take_answer(
        &mut self,
        key: usize,
        mut session: Box<Session>,
        result: Result<Vec<IpAddr>, ResolveError>,
        tools: &mut Tools<'_>,
    ) -> Fate {
        let step = with_env(tools, |env| session.resolved(result, env));
        self.carry_out(key, session, step, tools)
    }

    fn start_dialling(
        &mut self,
        key: usize,
        mut session: Box<Session>,
        addrs: Vec<SocketAddr>,
        tools: &mut Tools<'_>,
    ) -> Fate {
        self.life.open(&session);
        if let Some(server) = self.server.take_if(|server| is_reusable(server, &addrs)) {
            self.server = Some(server);
            let step = session.connected();
            return self.carry_out(key, session, step, tools);
        }
        self.server = None;
        let plan = session.plan();
        let rounds = plan.output.retries.saturating_add(1);
        let dialling = Dialling::new(addrs, rounds, plan.timeouts.connect);
        self.stage = Stage::Dialling(session, Box::new(dialling));
        self.dial(key, tools)
    }

    fn dial(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        let Stage::Dialling(_, dialling) = &mut self.stage else { return Fate::Stays };
        let token = |attempt: u8| Token(key * ROLES + 1 + usize::from(attempt));
        match dialling.go_on(tools.now, tools.outgoing, tools.registry, token) {
            Standing::Until(until) => {
                self.set_deadline(key, Some(until), tools);
                Fate::Stays
            }
            Standing::Failed(error) => {
                let Stage::Dialling(mut session, _) = std::mem::replace(&mut self.stage, Stage::Over) else {
                    return Fate::Stays;
                };
                tools.shared.metrics.dial_error(error);
                let step = session.dial_failed(error);
                self.carry_out(key, session, step, tools)
            }
        }
    }

    fn connected(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        let Stage::Dialling(mut session, _) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Fate::Stays;
        };
        let step = session.connected();
        self.carry_out(key, session, step, tools)
    }

    fn open_tunnel(
        &mut self,
        key: usize,
        session: &Session,
        to_server: Vec<u8>,
        tools: &mut Tools<'_>,
    ) -> Fate {
        let timeouts = &session.plan().timeouts;
        self.life.open(session);
        let unseen = session.identity().is_none().then_some(session.plan().parsers);
        if let Some(parsers) = unseen {
            self.see_in_passing(parsers, &to_server, tools);
        }
        self.stage = Stage::Tunnelling(Tunnelling {
            tunnel: Tunnel::new(to_server),
            last: tools.now,
            idle: timeouts.idle,
            half_closed: timeouts.half_closed,
            unseen: unseen.filter(|_| self.life.is_unidentified()),
            keepalive: false,
        });
        self.set_deadline(key, tools.now.checked_add(timeouts.idle.min(KEEPALIVE_AFTER)), tools);
        self.tunnel(key, tools)
    }

    fn tunnel(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        let (Stage::Tunnelling(state), Some(server)) = (&mut self.stage, &mut self.server) else {
            return Fate::Stays;
        };
        let before = state.tunnel.delivered();
        let was_half_closed = state.tunnel.is_half_closed();
        let mut seen = None;
        let unseen = &mut state.unseen;
        let progress = state.tunnel.pump(&mut self.client, server, tools.loan, &mut |bytes| {
            if let Some(parsers) = unseen.take() {
                seen = Some((parsers, bytes.to_vec()));
            }
        });
        let after = state.tunnel.delivered();
        let half_closes_now = !was_half_closed && state.tunnel.is_half_closed();
        if after != before || half_closes_now {
            state.last = tools.now;
        }
        let half_closed = state.half_closed;
        tools.shared.metrics.bytes(after.0 - before.0, after.1 - before.1);
        self.life.moved(after.0 - before.0, after.1 - before.1);
        if let Some((parsers, bytes)) = seen {
            self.see_in_passing(parsers, &bytes, tools);
        }
        if half_closes_now {
            // An earlier deadline than the timers may have, also where the other direction has more to do.
            self.set_deadline(key, tools.now.checked_add(half_closed), tools);
        }
        match progress {
            tunnel::Progress::Wait { .. } => Fate::Stays,
            tunnel::Progress::Again => Fate::Yields,
            tunnel::Progress::Finished => self.finish(key, CloseReason::Finished, Wire::Quiet, tools),
            tunnel::Progress::Broken(broken) => {
                let reason = match (broken.side, broken.error.kind()) {
                    (_, io::ErrorKind::TimedOut) => CloseReason::Idle,
                    (Side::Client, _) => CloseReason::ClientReset,
                    (Side::Server, _) => CloseReason::ServerReset,
                };
                self.reset_server();
                self.finish(key, reason, Wire::Reset, tools)
            }
        }
    }

    fn tunnel_expired(&mut self, key: usize, mut state: Tunnelling, tools: &mut Tools<'_>) -> Fate {
        let (limit, reason) = if state.tunnel.is_half_closed() {
            (state.half_closed, CloseReason::HalfClosed)
        } else {
            (state.idle, CloseReason::Idle)
        };
        if tools.now.saturating_duration_since(state.last) >= limit {
            self.stage = Stage::Tunnelling(state);
            return self.finish(key, reason, Wire::Quiet, tools);
        }
        if !state.keepalive {
            state.keepalive = true;
            for end in std::iter::once(&self.client).chain(&self.server) {
                // Without them a dead peer is found by the idle time.
                let _ = socket::keepalive(&end.stream, KEEPALIVE_IDLE_SECS, KEEPALIVE_INTERVAL_SECS);
            }
        }
        let next = state.last.checked_add(limit);
        self.stage = Stage::Tunnelling(state);
        self.set_deadline(key, next, tools);
        Fate::Stays
    }

    /// What no rule wanted to know is read from the first bytes as they pass, for the metrics and the log.
    fn see_in_passing(&mut self, parsers: Parsers, bytes: &[u8], tools: &mut Tools<'_>) {
        if bytes.is_empty() {
            return;
        }
        if let Outcome::Identified(identity) = Identifier::new(parsers).look(bytes) {
            Reporter { metrics: &tools.shared.metrics }.identified(&identity);
            self.life.identified(&identity);
        }
    }

    fn exchange(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        let (Stage::Exchanging(_, exchange), Some(server)) = (&mut self.stage, &mut self.server) else {
            return Fate::Stays;
        };
        let before = exchange.delivered();
        let progress = exchange.pump(&mut self.client, server, tools.loan);
        let after = exchange.delivered();
        tools.shared.metrics.bytes(after.0 - before.0, after.1 - before.1);
        self.life.moved(after.0 - before.0, after.1 - before.1);
        match progress {
            exchange::Progress::Wait { moved } => {
                if moved {
                    let idle = tools.plan.timeouts.idle;
                    self.set_deadline(key, tools.now.checked_add(idle), tools);
                }
                Fate::Stays
            }
            exchange::Progress::Again => Fate::Yields,
            exchange::Progress::Finished { client_reusable, server_reusable } => {
                let Stage::Exchanging(mut session, mut exchange) =
                    std::mem::replace(&mut self.stage, Stage::Over)
                else {
                    return Fate::Stays;
                };
                exchange.close(tools.loan);
                if !server_reusable {
                    self.server = None;
                }
                if !client_reusable || tools.draining {
                    return self.finish(key, CloseReason::Finished, Wire::Say(Vec::new()), tools);
                }
                let step = with_env(tools, |env| session.next_request(exchange.into_surplus(), env));
                self.carry_out(key, session, step, tools)
            }
            exchange::Progress::BadResponse => self.fail_exchange(key, CloseReason::BadResponse, tools),
            exchange::Progress::BadRequest => self.fail_exchange(key, CloseReason::BadRequest, tools),
            exchange::Progress::Broken(Side::Client, _) => {
                self.reset_server();
                self.finish(key, CloseReason::ClientReset, Wire::Reset, tools)
            }
            exchange::Progress::Broken(Side::Server, _) => {
                self.fail_exchange(key, CloseReason::ServerReset, tools)
            }
        }
    }

    fn fail_exchange(&mut self, key: usize, reason: CloseReason, tools: &mut Tools<'_>) -> Fate {
        let Stage::Exchanging(mut session, mut exchange) = std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return Fate::Stays;
        };
        let answered = exchange.is_answered();
        exchange.close(tools.loan);
        self.server = None;
        let step = session.exchange_failed(reason, answered);
        self.carry_out(key, session, step, tools)
    }

    /// Ends the session; the client may still have to hear its last words.
    fn finish(&mut self, key: usize, reason: CloseReason, wire: Wire, tools: &mut Tools<'_>) -> Fate {
        match &mut self.stage {
            Stage::Tunnelling(state) => state.tunnel.close(tools.loan),
            Stage::Exchanging(_, exchange) => exchange.close(tools.loan),
            _ => {}
        }
        self.server = None;
        self.life.close(reason, tools.now);
        tools.shared.metrics.connection_closed(self.life.mode, reason);
        match wire {
            Wire::Say(words) => {
                // What the client does not take at once, at most one small answer, it does not get.
                let _ = self.client.stream.write(&words);
                let _ = self.client.stream.shutdown(Shutdown::Write);
                self.stage = Stage::Lingering { discarded: 0 };
                self.client.ready.readable = true;
                self.set_deadline(key, tools.now.checked_add(LINGER), tools);
                self.linger(key, tools)
            }
            Wire::Reset => {
                let _ = socket::reset_on_close(&self.client.stream);
                self.over(key, tools)
            }
            Wire::Quiet => self.over(key, tools),
        }
    }

    /// Closing while the client's bytes come in would reset the connection and could take the last words with it.
    fn linger(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        let Stage::Lingering { discarded } = &mut self.stage else { return Fate::Stays };
        while *discarded < LINGER_BYTES {
            match self.client.stream.read(&mut tools.loan.scratch) {
                Ok(0) => break,
                Ok(n) => *discarded = discarded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(_) => break,
            }
        }
        self.over(key, tools)
    }

    fn over(&mut self, key: usize, tools: &mut Tools<'_>) -> Fate {
        self.set_deadline(key, None, tools);
        self.stage = Stage::Over;
        Fate::Over
    }

    fn reset_server(&mut self) {
        if let Some(server) = &self.server {
            let _ = socket::reset_on_close(&server.stream);
        }
    }

    fn set_deadline(&mut self, key: usize, at: Option<Instant>, tools: &mut Tools<'_>) {
        tools.timers.change(key, self.deadline, at);
        self.deadline = at;
    }
}

fn with_env(tools: &mut Tools<'_>, f: impl FnOnce(&mut Env<'_>) -> Step) -> Step {
    let mut report = Reporter { metrics: &tools.shared.metrics };
    f(&mut Env { now: tools.now, plan: tools.plan, locals: tools.locals, report: &mut report })
}

/// Whether a kept connection leads to one of `addrs` and its server has neither closed it nor said anything unasked.
fn is_reusable(server: &End, addrs: &[SocketAddr]) -> bool {
    server.stream.peer_addr().is_ok_and(|peer| addrs.contains(&peer))
        && matches!(server.stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}
