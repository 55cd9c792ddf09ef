//! One worker: a poll, its listeners, its sessions, and the one loop that drives them.

mod datagrams;
mod listeners;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Poll, Token};

use self::datagrams::{FIRST_ASSOCIATION, FIRST_FLOW};
use super::connection::{Connection, Fate, ROLES};
use super::datagrams::{Datagrams, Passage};
use super::handle::{Command, Handle, Inbox, Prepared, Shared, WAKER};
use super::listening::{Binding, Socket};
use super::reporter::Life;
use super::slab::Slab;
use super::timers::Timers;
use super::tools::Tools;
use crate::accept::{self, Wish};
use crate::config::{Listener, Mode, Service};
use crate::connect::resolve::Answer;
use crate::connect::resolve::cache::{AnswerCache, Entry};
use crate::decide::L4;
use crate::decide::rules::Locals;
use crate::logging;
use crate::metrics::Limit;
use crate::relay::Loan;
use crate::session::{Budget, Machine};
use crate::sys::socket::{self, Outgoing};
use crate::sys::threads;

/// Events that one call of the poll returns at most.
const EVENTS: usize = 1024;

/// Connections that one listener may bring in before others get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// How long the queue may be worked off before the poll is asked again: what bulk transfers add to others' latency.
const POLL_EVERY: Duration = Duration::from_millis(2);

/// How long a log line may wait for others.
const LOG_DELAY: Duration = Duration::from_millis(5);

/// How long a listener rests when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Names whose addresses a worker remembers, so that it need not ask the resolver's thread.
const REMEMBERED_NAMES: usize = 512;

/// The tokens of listeners, above every session's.
const FIRST_LISTENER: usize = usize::MAX - MAX_LISTENERS;
const MAX_LISTENERS: usize = 4096;

/// Starts a prepared worker; it learns its plan by [`Command::Plan`].
///
/// # Errors
/// No thread is to be had.
pub fn spawn<M: Machine>(
    index: usize,
    handle: &mut Handle<M::Plan>,
    prepared: Prepared<M::Plan>,
    shared: Arc<Shared>,
    plan: Arc<M::Plan>,
    locals: Arc<Locals>,
) -> io::Result<()> {
    let worker = Worker::<M> {
        index,
        poll: prepared.poll,
        inbox: prepared.inbox,
        outgoing: outgoing((*plan).as_ref()),
        plan,
        locals,
        listeners: Vec::new(),
        connections: Slab::new(),
        datagrams: Datagrams::new(),
        timers: Timers::new(),
        pauses: Timers::new(),
        queue: VecDeque::new(),
        loan: Loan::new(Arc::clone(&shared.admission.descriptors)),
        preludes: Arc::default(),
        answers: AnswerCache::new(REMEMBERED_NAMES),
        draining: None,
        log_due: None,
        shared,
    };
    let thread = threads::spawn(&format!("worker-{index}"), threads::STACK_SIZE, move || worker.run())?;
    handle.thread = Some(thread);
    Ok(())
}

struct Bound {
    listener: Arc<Listener>,
    socket: Listening,
    /// Out of descriptors: the timers wake it.
    paused: bool,
}

/// A listening socket in the poll.
enum Listening {
    Tcp(TcpListener),
    Udp(Arc<UdpSocket>),
}

struct Worker<M: Machine> {
    index: usize,
    poll: Poll,
    inbox: Arc<Inbox<M::Plan>>,
    plan: Arc<M::Plan>,
    outgoing: Outgoing,
    locals: Arc<Locals>,
    shared: Arc<Shared>,
    /// By place. A place may be used again while events of its last socket are under way: they find nobody waiting.
    listeners: Vec<Option<Bound>>,
    connections: Slab<Connection<M>>,
    datagrams: Datagrams<M>,
    timers: Timers,
    /// When listeners that rest go on, by place.
    pauses: Timers,
    /// Those who have more to do: sessions by key, listeners by token.
    queue: VecDeque<usize>,
    loan: Loan,
    preludes: Arc<Budget>,
    answers: AnswerCache,
    draining: Option<Instant>,
    /// When the lines that are kept must be written.
    log_due: Option<Instant>,
}

impl<M: Machine> Worker<M> {
    fn run(mut self) {
        logging::keep_until_flush();
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_finished() {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Cannot happen with a descriptor that is ours; going round at full speed would help nobody.
                log::error!("cannot poll: {error}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
            let now = Instant::now();
            self.loan.handshakes = Loan::HANDSHAKES;
            for event in &events {
                match event.token() {
                    WAKER => self.hear(now),
                    Token(token) if token >= FIRST_LISTENER => self.accept(token, now),
                    Token(token) if M::ASSOCIATES && token >= FIRST_ASSOCIATION => {
                        self.take_associated(token - FIRST_ASSOCIATION, now);
                    }
                    Token(token) if M::DATAGRAMS && token >= FIRST_FLOW => {
                        self.go_on_with_flow(token - FIRST_FLOW, now);
                    }
                    Token(token) => {
                        let (key, role) = (token / ROLES, token % ROLES);
                        self.with(key, now, |connection, tools| connection.event(role, event, tools));
                    }
                }
            }
            self.work_off(now);
            while let Some(key) = self.timers.pop(now) {
                self.with(key, now, |connection, tools| connection.expired(tools));
            }
            while M::DATAGRAMS
                && let Some(place) = self.datagrams.timers.pop(now)
            {
                self.with_flow(place, now, |passage, tools, gear| passage.expired(tools, gear));
            }
            while let Some(place) = self.pauses.pop(now) {
                if let Some(Some(bound)) = self.listeners.get_mut(place) {
                    bound.paused = false;
                }
                self.accept(FIRST_LISTENER + place, now);
            }
            self.connections.recycle();
            self.datagrams.flows.recycle();
            self.datagrams.associations.recycle();
            self.flush_log(now);
        }
        for key in self.connections.keys() {
            self.with(key, Instant::now(), |connection, tools| connection.shut_down(tools));
        }
        if M::DATAGRAMS {
            for place in self.datagrams.flows.keys() {
                self.with_flow(place, Instant::now(), |passage, tools, _| passage.shut_down(tools));
            }
        }
        logging::flush();
    }

    /// Gives those who have more to do their turns, round after round, for a short while: a poll between two rounds of
    /// bulk transfers finds little new and costs more than the rounds themselves.
    fn work_off(&mut self, now: Instant) {
        let mut time = now;
        while !self.queue.is_empty() {
            self.loan.handshakes = Loan::HANDSHAKES;
            for _ in 0..self.queue.len() {
                let Some(token) = self.queue.pop_front() else { break };
                if token >= FIRST_LISTENER {
                    self.accept(token, time);
                } else if M::ASSOCIATES && token >= FIRST_ASSOCIATION {
                    self.take_associated(token - FIRST_ASSOCIATION, time);
                } else if M::DATAGRAMS && token >= FIRST_FLOW {
                    let place = token - FIRST_FLOW;
                    self.with_flow(place, time, |passage, _, _| {
                        passage.queued = false;
                        Fate::Stays
                    });
                    self.go_on_with_flow(place, time);
                } else {
                    self.with(token, time, |connection, tools| {
                        connection.queued = false;
                        connection.go_on(tools)
                    });
                }
            }
            time = Instant::now();
            if time.saturating_duration_since(now) >= POLL_EVERY {
                break;
            }
        }
    }

    /// Writes lines only after a moment: at once, each would stand between two steps of its session, and many connections
    /// in a short time share one write.
    fn flush_log(&mut self, now: Instant) {
        if !logging::has_kept() {
            self.log_due = None;
        } else if now >= *self.log_due.get_or_insert(now + LOG_DELAY) {
            self.log_due = None;
            logging::flush();
        }
    }

    /// Whether there is nothing left to drain, or no time.
    fn is_finished(&self) -> bool {
        let sessions = self.connections.len() + self.datagrams.flows.len();
        self.draining.is_some_and(|until| sessions == 0 || Instant::now() >= until)
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let flows = self.datagrams.timers.next();
        let next = [self.timers.next(), flows, self.pauses.next(), self.draining, self.log_due]
            .into_iter()
            .flatten()
            .min()?;
        // The kernel counts milliseconds and rounds down; a turn too early finds nothing to do and comes again.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// Lets a connection do something, and puts it where its fate belongs.
    fn with(
        &mut self,
        key: usize,
        now: Instant,
        f: impl FnOnce(&mut Connection<M>, &mut Tools<'_, M>) -> Fate,
    ) {
        let Some(mut connection) = self.connections.take(key) else { return };
        let mut tools = Tools {
            now,
            worker: self.index,
            key,
            registry: self.poll.registry(),
            timers: &mut self.timers,
            loan: &mut self.loan,
            plan: &self.plan,
            outgoing: &self.outgoing,
            locals: &self.locals,
            preludes: &self.preludes,
            answers: &mut self.answers,
            associations: &mut self.datagrams.associations,
            shared: &self.shared,
            draining: self.draining.is_some(),
        };
        match f(&mut connection, &mut tools) {
            Fate::Over => {
                self.timers.set(key, None);
                if let Some(source) = connection.source() {
                    self.shared.admission.leave_source(source);
                }
                self.shared.admission.leave();
                self.connections.free(key);
                self.end_abandoned(now);
            }
            fate => {
                if fate == Fate::Yields && !connection.queued {
                    connection.queued = true;
                    self.queue.push_back(key);
                }
                self.connections.put_back(key, connection);
            }
        }
    }

    fn accept(&mut self, token: usize, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Some(bound)) = self.listeners.get(token - FIRST_LISTENER) else { return };
            if bound.paused {
                return;
            }
            let socket = match &bound.socket {
                Listening::Tcp(socket) => socket,
                Listening::Udp(_) => {
                    if M::DATAGRAMS && self.take_datagrams(token - FIRST_LISTENER, now) {
                        break;
                    }
                    return;
                }
            };
            match socket.accept() {
                Ok((stream, client)) => {
                    let listener = Arc::clone(&bound.listener);
                    self.welcome(stream, client, &listener, now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if socket::is_out_of_resources(&e) => {
                    self.pause(token, now, &e);
                    return;
                }
                // The client was gone before it was accepted (accept(2), "Error handling").
                Err(_) => {}
            }
        }
        self.queue.push_back(token);
    }

    /// Out of descriptors: the connections that wait go on waiting, and others end meanwhile.
    fn pause(&mut self, token: usize, now: Instant, error: &io::Error) {
        if self.shared.admission.refusals.line(now).is_some() {
            log::warn!("cannot accept connections for now: {error}");
        }
        if let Some(Some(bound)) = self.listeners.get_mut(token - FIRST_LISTENER) {
            bound.paused = true;
            self.pauses.set(token - FIRST_LISTENER, now.checked_add(ACCEPT_PAUSE));
        }
    }

    fn welcome(
        &mut self,
        stream: mio::net::TcpStream,
        client: SocketAddr,
        listener: &Arc<Listener>,
        now: Instant,
    ) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        // Behind a PROXY header the client is known later.
        let source = (listener.mode != Mode::ProxyProtocol).then_some(client.ip());
        if let Err(limit) = self.admit(source) {
            self.shared.metrics.connection_refused(limit);
            self.shared.admission.log_refusal(client.ip(), now);
            let _ = socket::reset_on_close(&stream);
            return;
        }
        self.shared.metrics.connection_opened(listener.mode, L4::Tcp);
        let wish = match listener.mode {
            Mode::Transparent => self.original_destination(&stream, listener),
            Mode::Http | Mode::Https | Mode::ProxyProtocol | Mode::Socks5 => Wish::Lost,
        };
        let ours = matches!(&wish, Wish::Address(dest) if self.comes_back(client, *dest));
        let session = Box::new(M::new(Arc::clone(&self.plan), listener, client, now));
        let connection = Connection::new(stream, client, source, listener, now);
        let key = self.connections.insert(Box::new(connection));
        self.with(key, now, |connection, tools| connection.start(session, wish, ours, tools));
    }

    /// Whether a redirected connection is one that this program has dialled: a firewall rule for this machine's own
    /// connections that does not leave ours out.
    fn comes_back(&self, client: SocketAddr, dest: SocketAddr) -> bool {
        self.locals.has(client.ip()) && self.shared.dialled.is_ours(client, dest)
    }

    fn admit(&self, source: Option<IpAddr>) -> Result<(), Limit> {
        let admission = &self.shared.admission;
        if !admission.enter() {
            return Err(Limit::Connections);
        }
        if let Some(source) = source
            && !admission.enter_source(source)
        {
            admission.leave();
            return Err(Limit::PerSource);
        }
        Ok(())
    }

    fn original_destination(&self, stream: &mio::net::TcpStream, listener: &Listener) -> Wish {
        let local = listener.tproxy.then(|| stream.local_addr().ok()).flatten();
        let original =
            std::iter::once_with(|| socket::original_dst(stream, listener.addr.is_ipv4()).ok()).flatten();
        let candidates = local.into_iter().chain(original);
        // A TPROXY listener may have an address that no interface has.
        let is_own = |addr| addr == listener.addr || self.locals.takes_in(addr);
        accept::transparent::original_destination(candidates, is_own)
    }

    fn hear(&mut self, now: Instant) {
        while let Some(command) = self.inbox.take() {
            match command {
                Command::Plan(plan, listeners) => {
                    let (new, old): (&Service, &Service) = ((*plan).as_ref(), (*self.plan).as_ref());
                    self.outgoing = outgoing(new);
                    if M::RESOLVES && new.nameservers != old.nameservers {
                        self.answers = AnswerCache::new(REMEMBERED_NAMES);
                    }
                    self.plan = plan;
                    self.datagrams.refused.clear();
                    self.listen_on(listeners, now);
                }
                Command::Locals(locals) => self.locals = locals,
                Command::Answer(answer) if M::RESOLVES => self.answered(answer, now),
                Command::Verified(verified) if M::VERIFIES => {
                    let token = verified.asker.token;
                    self.with(token, now, |connection, tools| connection.verified(verified, tools));
                }
                // Nobody has asked.
                Command::Answer(_) | Command::Verified(_) => {}
                #[cfg(feature = "tls")]
                Command::Probed(answer) => {
                    self.with(answer.asker.token, now, |connection, tools| connection.probed(&answer, tools));
                }
                Command::Drain(until) => self.drain(until, now),
                Command::Report => self.report(now),
                Command::Connections(gather) if M::TIES => gather.add(self.lives(), |life| life.row(now)),
                Command::Connections(_) => {}
            }
        }
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        let Answer { asker, name, result, valid_until } = answer;
        let addrs = result.clone().map(|addrs| addrs.to_vec());
        self.answers.insert(&name, Entry { result, valid_until });
        if M::DATAGRAMS && asker.token >= FIRST_FLOW {
            return self.with_flow(asker.token - FIRST_FLOW, now, |passage, tools, gear| {
                passage.answered(&name, addrs, tools, gear)
            });
        }
        self.with(asker.token, now, |connection, tools| connection.answered(&name, addrs, tools));
    }

    fn drain(&mut self, until: Instant, now: Instant) {
        for place in 0..self.listeners.len() {
            // Flows that go on need theirs.
            if let Some(Some(Bound { socket: Listening::Tcp(_), .. })) = self.listeners.get(place) {
                self.close_listener(place, now);
            }
        }
        self.draining = Some(until);
        if M::DATAGRAMS {
            self.drain_flows(now);
        }
        for key in self.connections.keys() {
            self.with(key, now, |connection, tools| connection.wind_up(tools));
        }
    }

    fn report(&self, now: Instant) {
        self.lives().for_each(|life| life.log_live(now));
    }

    /// Every connection, then every flow.
    fn lives(&self) -> impl Iterator<Item = &Life<M>> {
        let connections = self.connections.keys().into_iter().filter_map(|key| self.connections.get(key));
        let flows =
            self.datagrams.flows.keys().into_iter().filter_map(|place| self.datagrams.flows.get(place));
        connections.map(|connection| connection.life()).chain(flows.map(Passage::life))
    }
}

/// Splits bindings for `workers` workers: each gets every listener, with a socket of its own or none.
pub fn share_out(mut bindings: Vec<Binding>, workers: usize) -> Vec<Vec<(Listener, Option<Socket>)>> {
    (0..workers)
        .map(|_| bindings.iter_mut().map(|b| (b.listener.clone(), b.sockets.pop())).collect())
        .collect()
}

fn outgoing(service: &Service) -> Outgoing {
    Outgoing { fwmark: service.output.fwmark, interface: service.output.interface.clone() }
}
