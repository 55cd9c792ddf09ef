//! One client connection in its worker: carries out the session's steps on real sockets.
//!
//! A connection is in one stage at a time. What a stage does by itself is in a module of its own; here is what leads from
//! one to the next, and how it ends.

mod associating;
mod dialling;
mod exchanging;
mod lingering;
mod probing;
mod resolving;
mod securing;
mod server;
mod stage;
mod talking;
mod ties;
mod tunnelling;
mod verifying;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Token};

use self::dialling::{Dialling, Race, Standing};
pub(super) use self::dialling::{ROLES, is_own};
use self::resolving::Resolving;
pub(super) use self::resolving::{Begun, begin as resolve};
use self::server::Server;
pub(super) use self::stage::Fate;
use self::stage::Stage;
use self::tunnelling::{Before, Tunnelling};
use super::reporter::Life;
use super::tools::Tools;
use crate::accept::Wish;
use crate::config::Listener;
use crate::connect::resolve::ResolveError;
use crate::relay::stream::Stream;
use crate::relay::{End, Ready};
use crate::session::{CloseReason, Closing, Machine, Step, Wire};

/// Reads from one client before others get their turn.
const READS_PER_TURN: usize = 16;

/// One client connection.
#[derive(Debug)]
pub(super) struct Connection<M: Machine> {
    client: End,
    server: Option<Server>,
    /// The race that the server won, or that is on.
    race: Race,
    stage: Stage<M>,
    listener: Arc<Listener>,
    /// It stands in the worker's queue already.
    pub queued: bool,
    /// The address that it is counted under.
    source: Option<IpAddr>,
    life: Life<M>,
}

impl<M: Machine> Connection<M> {
    /// A connection that was just accepted and admitted.
    pub fn new(
        stream: TcpStream,
        client: SocketAddr,
        source: Option<IpAddr>,
        listener: &Arc<Listener>,
        now: Instant,
    ) -> Self {
        Connection {
            // A fresh socket has room, and mostly something to read: what a client says first comes with its handshake.
            client: End {
                stream: Stream::new(stream),
                ready: Ready { readable: true, writable: true, ..Ready::NOT },
            },
            server: None,
            race: Race::default(),
            stage: Stage::Over,
            listener: Arc::clone(listener),
            queued: false,
            source,
            life: Life::new(client, listener.mode, now),
        }
    }

    /// What the live table shows.
    pub fn life(&self) -> &Life<M> {
        &self.life
    }

    /// The address that it is counted under.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Begins the session.
    ///
    /// `ours`: this program itself has dialled it.
    pub fn start(&mut self, mut session: Box<M>, wish: Wish, ours: bool, tools: &mut Tools<'_, M>) -> Fate {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let (socket, token) = (self.client.stream.socket_mut(), Token(tools.key * ROLES));
        if tools.registry.register(socket, token, interest).is_err() {
            return self.finish(CloseReason::OutOfResources, Wire::Reset, tools);
        }
        let step =
            tools.ask(|env| if ours { session.comes_back(wish, env) } else { session.start(wish, env) });
        self.carry_out(session, step, tools)
    }

    /// The poll reported something of the socket with this role.
    pub fn event(&mut self, role: usize, event: &mio::event::Event, tools: &mut Tools<'_, M>) -> Fate {
        let ready = Ready::from(event);
        if role == 0 {
            self.client.ready.merge(ready);
            let gone = event.is_error() || (event.is_read_closed() && event.is_write_closed());
            if gone && self.stage.is_waiting() {
                return self.finish(CloseReason::ClientGone, Wire::Quiet, tools);
            }
            if gone && matches!(self.stage, Stage::Exchanging(..)) {
                // While its server takes its time nothing is read of the client or written to it.
                return self.cut(CloseReason::ClientReset, tools);
            }
            return self.go_on(tools);
        }
        // None: late news of a socket that is closed.
        let Some(attempt) = self.race.attempt(role) else { return Fate::Stays };
        if let Stage::Dialling(session, dialling) = &mut self.stage {
            let (writable, failed) = (event.is_writable(), event.is_error() || event.is_write_closed());
            let won = dialling.reported(attempt, writable, failed, &mut **session, tools.now);
            if let Some((addr, (stream, trace))) = won {
                self.server = Some(Server::new(addr, stream, trace, ready));
                return self.connected(tools);
            }
        } else if let Stage::Talking(session) = &self.stage
            && ready.read_closed
            && (session.is_idle() || !session.is_bound())
        {
            // Kept for the client's next request, but it takes none any more.
            let is_bound = session.is_bound();
            self.server = None;
            if is_bound {
                return self.finish(CloseReason::Finished, Wire::Quiet, tools);
            }
        } else if let Some(server) = &mut self.server {
            server.end.ready.merge(ready);
        }
        self.go_on(tools)
    }

    /// Does what can be done now.
    pub fn go_on(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        match &mut self.stage {
            Stage::Talking(_) if M::READS => self.listen(tools),
            Stage::Securing(_) => self.shake_hands(tools),
            Stage::SecuringServer(_) if M::INTERCEPTS => self.shake_hands_with_server(tools),
            Stage::Verifying(..) | Stage::Resolving(..) | Stage::Probing(..) => Fate::Stays,
            Stage::Dialling(..) => self.dial(tools),
            Stage::Associated(_) if M::ASSOCIATES => self.attend(tools),
            Stage::Tunnelling(_) => self.tunnel(tools),
            Stage::Exchanging(..) if M::EXCHANGES => self.exchange(tools),
            Stage::Lingering(_) => self.linger(tools),
            Stage::Talking(_)
            | Stage::SecuringServer(_)
            | Stage::Associated(_)
            | Stage::Exchanging(..)
            | Stage::Over => Fate::Over,
        }
    }

    /// The deadline has passed.
    pub fn expired(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        match &mut self.stage {
            Stage::Talking(session) | Stage::Securing(session) if M::READS => {
                let step = tools.ask(|env| session.deadline(env));
                self.go_to(step, tools)
            }
            Stage::SecuringServer(_) => self.server_insecure(&io::ErrorKind::TimedOut.into(), tools),
            Stage::Verifying(_) if M::VERIFIES => self.verifying_expired(tools),
            Stage::Resolving(_) => self.take_answer(Err(ResolveError::Failed), tools),
            Stage::Probing(_) if M::PROBES => self.probing_over(tools),
            Stage::Dialling(..) => self.dial(tools),
            Stage::Associated(_) if M::ASSOCIATES => self.associated_expired(tools),
            Stage::Tunnelling(tunnelling) => {
                if let Some(reason) = tunnelling.review(tools) {
                    return self.cut(reason, tools);
                }
                if tunnelling.goes_on(tools.now) {
                    return self.tunnel(tools);
                }
                let server = self.server.as_ref().map(|server| &server.end);
                let ends = std::iter::once(&self.client).chain(server);
                if let Some(reason) = tunnelling.expired(ends, tools.now) {
                    return self.finish(reason, Wire::Quiet, tools);
                }
                let due = tunnelling.due();
                self.set_deadline(due, tools);
                Fate::Stays
            }
            Stage::Exchanging(exchanging) if M::EXCHANGES => {
                if let Some(reason) = exchanging.review(tools) {
                    return self.cut(reason, tools);
                }
                if exchanging.goes_on(tools.now) {
                    return self.exchange(tools);
                }
                if exchanging.is_silent(tools.now) {
                    return self.fail_exchange(CloseReason::Idle, tools);
                }
                let due = exchanging.due();
                self.set_deadline(due, tools);
                Fate::Stays
            }
            Stage::Talking(_)
            | Stage::Securing(_)
            | Stage::Verifying(_)
            | Stage::Probing(_)
            | Stage::Associated(_)
            | Stage::Exchanging(_)
            | Stage::Lingering(_)
            | Stage::Over => self.over(tools),
        }
    }

    /// The resolver answered for `name`. An answer for somebody else who had this place before has another name, or the
    /// same, and is then as good.
    pub fn answered(
        &mut self,
        name: &str,
        result: Result<Vec<IpAddr>, ResolveError>,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        match &self.stage {
            Stage::Resolving(resolving) if &*resolving.name == name => self.take_answer(result, tools),
            _ => Fate::Stays,
        }
    }

    /// The daemon stops: what is between two requests or without datagrams ends now, the rest may
    /// finish.
    pub fn wind_up(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        match &self.stage {
            Stage::Talking(session) if session.is_idle() => {
                self.finish(CloseReason::Shutdown, Wire::Quiet, tools)
            }
            Stage::Associated(associated) if M::ASSOCIATES && associated.is_idle(tools) => {
                self.finish(CloseReason::Shutdown, Wire::Quiet, tools)
            }
            _ => Fate::Stays,
        }
    }

    /// The daemon stops and has waited long enough.
    pub fn shut_down(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        if matches!(self.stage, Stage::Lingering(_)) {
            // It has ended already, and was counted.
            return self.over(tools);
        }
        self.finish(CloseReason::Shutdown, Wire::Quiet, tools)
    }

    /// Carries out a step of the session that waits.
    fn go_to(&mut self, step: Step, tools: &mut Tools<'_, M>) -> Fate {
        match self.stage.take_session() {
            Some(session) => self.carry_out(session, step, tools),
            None => Fate::Stays,
        }
    }

    /// Carries out steps until one has to wait.
    fn carry_out(&mut self, mut session: Box<M>, step: Step, tools: &mut Tools<'_, M>) -> Fate {
        if !self.admit_source(&session, tools) {
            return self.finish(CloseReason::Limit, Wire::Reset, tools);
        }
        let reply = session.take_reply();
        // What is answered while the client may go on (a denied request) is to be seen in the closing line, too.
        if matches!(step, Step::Close(_)) || !reply.is_empty() {
            self.life.open(&session);
        }
        let step = match step {
            // It goes out before the last words.
            Step::Close(Closing { reason, wire: Wire::Say(words) }) => {
                let words = [reply, words].concat();
                return self.finish(reason, Wire::Say(words), tools);
            }
            step => step,
        };
        if !reply.is_empty() && !self.client.say(&reply) {
            return self.finish(CloseReason::ClientGone, Wire::Reset, tools);
        }
        match step {
            Step::Read { until } if M::READS => {
                self.set_deadline(Some(until), tools);
                self.stage = Stage::Talking(session);
                if self.client.ready.readable { Fate::Yields } else { Fate::Stays }
            }
            Step::SecureServer(securing) if M::INTERCEPTS => self.secure_server(session, &securing, tools),
            Step::SecureServer(_) => self.finish(CloseReason::ServerTlsFailed, Wire::Reset, tools),
            Step::Secure(securing) => self.secure(session, &securing, tools),
            Step::Verify(credentials) if M::VERIFIES => self.verify(session, credentials, tools),
            Step::Resolve(name) if M::RESOLVES => self.resolve(session, name, tools),
            Step::Resolve(_) => self.finish(CloseReason::ResolveFailed, Wire::Reset, tools),
            Step::Probe(targets) if M::PROBES => self.probe(session, targets, tools),
            Step::Dial(addrs) => self.start_dialling(session, addrs, tools),
            Step::Exchange(wanted) if M::EXCHANGES => self.ask_server(session, wanted, tools),
            Step::Associate(wanted) if M::ASSOCIATES => self.associate(session, wanted, tools),
            Step::Read { .. } | Step::Verify(_) | Step::Probe(_) | Step::Exchange(_) | Step::Associate(_) => {
                self.finish(CloseReason::BadRequest, Wire::Reset, tools)
            }
            Step::Close(Closing { reason, wire }) => self.finish(reason, wire, tools),
            Step::Tunnel { to_server } => {
                self.open_tunnel(session, Before { to_server, ..Before::default() }, tools)
            }
        }
    }

    /// Behind a PROXY header the source is known late.
    fn admit_source(&mut self, session: &M, tools: &mut Tools<'_, M>) -> bool {
        if self.source.is_some() || !session.is_source_known() {
            return true;
        }
        let source = session.client().ip();
        self.life.client = session.client();
        if !tools.admit(source) {
            return false;
        }
        self.source = Some(source);
        true
    }

    /// Reads what the client has to say for itself.
    fn listen(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        for _ in 0..READS_PER_TURN {
            if !self.client.ready.readable {
                return Fate::Stays;
            }
            let Stage::Talking(session) = &mut self.stage else { return Fate::Stays };
            let Some(step) = talking::read(&mut **session, &mut self.client, &self.life, tools) else {
                return Fate::Stays;
            };
            let fate = self.go_to(step, tools);
            if !matches!(self.stage, Stage::Talking(_)) {
                return fate;
            }
        }
        Fate::Yields
    }

    fn resolve(&mut self, session: Box<M>, name: Box<str>, tools: &mut Tools<'_, M>) -> Fate {
        let begun = resolving::begin(&name, &*session, tools);
        self.stage = Stage::Resolving(Resolving { session, name });
        match begun {
            Begun::Answered(result) => self.take_answer(result, tools),
            Begun::Asked { due } => {
                self.set_deadline(due, tools);
                Fate::Stays
            }
        }
    }

    fn take_answer(&mut self, result: Result<Vec<IpAddr>, ResolveError>, tools: &mut Tools<'_, M>) -> Fate {
        let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
        tools.shared.metrics.dns_answered(!matches!(result, Err(ResolveError::Failed)));
        let step = tools.ask(|env| session.resolved(result, env));
        self.carry_out(session, step, tools)
    }

    fn start_dialling(&mut self, session: Box<M>, addrs: Vec<SocketAddr>, tools: &mut Tools<'_, M>) -> Fate {
        self.life.open(&session);
        if let Some(server) = self.server.as_mut().filter(|server| server.leads_to(&addrs)) {
            server.reused = true;
            self.stage = Stage::Talking(session);
            return self.connected(tools);
        }
        self.server = None;
        self.race = self.race.next();
        let rounds = session.service().output.retries.saturating_add(1);
        let dialling = Dialling::new(session.dialer(addrs, rounds), session.has_greeting());
        self.stage = Stage::Dialling(session, Box::new(dialling));
        self.dial(tools)
    }

    fn dial(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Stage::Dialling(session, dialling) = &mut self.stage else { return Fate::Stays };
        let key = tools.key;
        let race = self.race;
        let token = |attempt: u8| Token(key * ROLES + race.role(attempt));
        match dialling.go_on(&mut **session, tools, token) {
            Standing::Until(until) => {
                self.set_deadline(Some(until), tools);
                Fate::Stays
            }
            Standing::Failed(error) => {
                let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
                tools.shared.metrics.dial_error(error);
                let step = tools.ask(|env| session.dial_failed(error, env));
                self.carry_out(session, step, tools)
            }
            Standing::Own => {
                let Some(mut session) = self.stage.take_session() else { return Fate::Stays };
                let step = tools.ask(|env| session.leads_here(env));
                self.carry_out(session, step, tools)
            }
        }
    }

    fn connected(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let (Some(server), Some(mut session)) = (&self.server, self.stage.take_session()) else {
            return Fate::Stays;
        };
        let step = tools.ask(|env| session.connected(server.addr, server.local(), env));
        self.carry_out(session, step, tools)
    }

    fn open_tunnel(&mut self, mut session: Box<M>, before: Before, tools: &mut Tools<'_, M>) -> Fate {
        self.life.open(&session);
        let greeting = session.take_greeting();
        if let Some(server) = &mut self.server
            && !server.greet(&greeting)
        {
            return self.finish(CloseReason::ServerReset, Wire::Reset, tools);
        }
        let tunnelling = Tunnelling::new(session, before, &mut self.life, tools);
        self.stage = Stage::Tunnelling(tunnelling);
        self.tunnel(tools)
    }

    fn tunnel(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let (Stage::Tunnelling(tunnelling), Some(server)) = (&mut self.stage, &mut self.server) else {
            return Fate::Stays;
        };
        let turn = tunnelling.turn(&mut self.client, &mut server.end, &mut self.life, tools);
        let due = tunnelling.due();
        self.set_deadline(due, tools);
        match turn {
            tunnelling::Turn::Wait => Fate::Stays,
            tunnelling::Turn::Again => Fate::Yields,
            tunnelling::Turn::Finished => self.finish(CloseReason::Finished, Wire::Quiet, tools),
            tunnelling::Turn::Broken(reason) => self.cut(reason, tools),
        }
    }

    /// Ends it in the middle, with a reset both ways.
    fn cut(&mut self, reason: CloseReason, tools: &mut Tools<'_, M>) -> Fate {
        self.server.iter().for_each(Server::reset_on_close);
        self.finish(reason, Wire::Reset, tools)
    }

    fn over(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        self.set_deadline(None, tools);
        self.stage = Stage::Over;
        Fate::Over
    }

    fn set_deadline(&self, at: Option<Instant>, tools: &mut Tools<'_, M>) {
        tools.timers.set(tools.key, at);
    }
}
