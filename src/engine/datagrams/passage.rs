//! One flow on real sockets: carries out what the flow says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Token};

use super::{Key, Replies, Via, WayBack};
use crate::accept::Wish;
use crate::config::Listener;
use crate::connect::dial::DialError;
use crate::connect::resolve::ResolveError;
use crate::engine::connection::{Begun, Fate, is_own, resolve};
use crate::engine::dialled::Trace;
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::session::flow::{Act, Answer, Flow};
use crate::session::{CloseReason, Machine};
use crate::sys::datagram::{self, Batch};
use crate::sys::socket;

/// Batches from one server before others get their turn.
const BATCHES_PER_TURN: usize = 4;

/// The same in datagrams, of which joined ones make a batch larger.
const DATAGRAMS_PER_TURN: usize = BATCHES_PER_TURN * datagram::BATCH;

/// While the daemon stops, a flow that was silent for so long is over.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// What a flow needs beside the tools of every session.
pub(in crate::engine) struct Gear<'a> {
    pub replies: &'a mut Replies,
    /// How many flows there are.
    pub flows: usize,
}

/// One flow in its worker.
#[derive(Debug)]
pub(in crate::engine) struct Passage<M: Machine> {
    flow: Option<Flow<M>>,
    key: Key,
    back: WayBack,
    /// The address that it is counted under.
    source: IpAddr,
    server: Option<Server>,
    /// The name whose addresses it waits for.
    asked: Option<Box<str>>,
    /// It stands in the worker's queue already.
    pub queued: bool,
    /// It was refused, and whether its client was told.
    refused: Option<bool>,
    /// Why the server could not be reached, as long as it has not answered.
    unreached: Option<DialError>,
    life: Life<M>,
}

/// The way to a server.
#[derive(Debug)]
struct Server {
    addr: SocketAddr,
    socket: UdpSocket,
    /// What stands before each datagram there, and before each answer.
    greeting: Vec<u8>,
    /// Whether the server has said something.
    heard: bool,
    trace: Trace,
}

impl<M: Machine> Passage<M> {
    /// A flow that was just admitted.
    pub fn new(key: Key, back: WayBack, listener: &Listener, now: Instant) -> Self {
        let client = key.client;
        Passage {
            flow: None,
            key,
            back,
            source: client.ip(),
            server: None,
            asked: None,
            queued: false,
            refused: None,
            unreached: None,
            life: Life::new(client, listener.mode, now),
        }
    }

    /// What the live table shows.
    pub fn life(&self) -> &Life<M> {
        &self.life
    }

    /// Whom it comes from, where it goes, and how it has come here.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The address that it is counted under.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Whether it was refused, and if so, whether its client was told.
    pub fn refused(&self) -> Option<bool> {
        self.refused
    }

    /// When [`Passage::expired`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        self.flow.as_ref().and_then(Flow::due)
    }

    /// Begins with the first datagram. `ours`: this program itself has sent it.
    pub fn start(
        &mut self,
        listener: &Arc<Listener>,
        ours: bool,
        datagram: &[u8],
        tools: &mut Tools<'_, M>,
        gear: &mut Gear<'_>,
    ) -> Fate {
        let Key { client, wish, via } = self.key.clone();
        let user = match via {
            Via::Association(membership) if M::ASSOCIATES => {
                tools.associations.get(membership.place).and_then(|association| association.user.clone())
            }
            Via::Firewall | Via::Peer(_) | Via::Association(_) => None,
        };
        let (flow, act) = tools.env(|env| Flow::begin(listener, client, user, wish, ours, datagram, env));
        self.flow = Some(flow);
        self.carry_out(act, tools, gear)
    }

    /// The client sent more.
    pub fn datagrams(&mut self, datagrams: &[&[u8]], tools: &mut Tools<'_, M>, gear: &mut Gear<'_>) -> Fate {
        // What goes on at once, in the order in which it came.
        let mut passing = 0..0;
        for (i, datagram) in datagrams.iter().enumerate() {
            let Some(flow) = &mut self.flow else { return Fate::Over };
            let (record, metrics) = (&mut self.life.record, &tools.shared.metrics);
            match tools.env(|env| flow.datagram(datagram, record, metrics, env)) {
                Act::Pass => {
                    if passing.is_empty() {
                        passing.start = i;
                    }
                    passing.end = i + 1;
                    if i + 1 < datagrams.len() {
                        continue;
                    }
                    self.send(datagrams.get(passing.clone()).unwrap_or_default(), tools);
                }
                act => {
                    self.send(datagrams.get(passing.clone()).unwrap_or_default(), tools);
                    passing = 0..0;
                    if self.carry_out(act, tools, gear) == Fate::Over {
                        return Fate::Over;
                    }
                }
            }
        }
        Fate::Stays
    }

    /// Brings the client what its server has said.
    pub fn go_on(&mut self, batch: &mut Batch, tools: &mut Tools<'_, M>, gear: &mut Gear<'_>) -> Fate {
        let mut taken = 0;
        for _ in 0..BATCHES_PER_TURN {
            let (Some(server), Some(flow)) = (&mut self.server, &mut self.flow) else { return Fate::Stays };
            let received = match batch.receive(&server.socket) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Stays,
                Err(error) => {
                    // What an earlier datagram came to. The server may still answer to others.
                    self.unreached.get_or_insert(DialError::from(&error));
                    continue;
                }
            };
            server.heard = true;
            let greeting = server.greeting.as_slice();
            let answers = batch.arrivals().filter_map(|arrival| arrival.bytes.strip_prefix(greeting));
            let become_of: Vec<Answer> =
                answers.clone().map(|answer| tools.env(|env| flow.answer(answer, env))).collect();
            taken += batch.arrivals().count();
            let answers = answers.zip(&become_of).filter_map(|(answer, becomes)| match becomes {
                Answer::Same => Some(answer),
                Answer::Other(other) => Some(other.as_slice()),
                Answer::Lost => None,
            });
            let from = Some(server.addr);
            match self.back.send::<M>(&self.key, from, answers, tools.associations, gear, tools.now) {
                Ok(sent) => self.life.moved((0, 0), (0, sent), &tools.shared.metrics),
                Err(error) => cannot_answer(&self.key, &error, tools),
            }
            if received < datagram::BATCH {
                return Fate::Stays;
            }
            if taken >= DATAGRAMS_PER_TURN {
                break;
            }
        }
        Fate::Yields
    }

    /// The resolver answered for `name`.
    pub fn answered(
        &mut self,
        name: &str,
        result: Result<Vec<IpAddr>, ResolveError>,
        tools: &mut Tools<'_, M>,
        gear: &mut Gear<'_>,
    ) -> Fate {
        let (Some(flow), true) = (&mut self.flow, self.asked.as_deref() == Some(name)) else {
            return Fate::Stays;
        };
        self.asked = None;
        let act = tools.env(|env| flow.resolved(result, env));
        self.carry_out(act, tools, gear)
    }

    /// The deadline has passed.
    pub fn expired(&mut self, tools: &mut Tools<'_, M>, gear: &mut Gear<'_>) -> Fate {
        let Some(flow) = &mut self.flow else { return Fate::Over };
        let act = tools.env(|env| flow.expired(env));
        if act != Act::Wait {
            self.asked = None;
        }
        self.carry_out(act, tools, gear)
    }

    /// The daemon stops: what is silent ends soon.
    pub fn wind_up(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        if let Some(flow) = &mut self.flow {
            flow.wind_up(tools.now, DRAIN_IDLE);
        }
        Fate::Stays
    }

    /// What it came by is gone.
    pub fn close(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        self.end(CloseReason::Finished, tools)
    }

    /// The daemon stops and has waited long enough.
    pub fn shut_down(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        self.end(CloseReason::Shutdown, tools)
    }

    fn carry_out(&mut self, act: Act, tools: &mut Tools<'_, M>, gear: &mut Gear<'_>) -> Fate {
        let mut act = act;
        loop {
            let Some(flow) = &mut self.flow else { return Fate::Over };
            act = match act {
                // What passes is with the caller.
                Act::Wait | Act::Pass => return Fate::Stays,
                Act::Send(held) => {
                    if let Some(server) = &mut self.server {
                        server.greeting = flow.take_greeting();
                    }
                    let held: Vec<&[u8]> = held.iter().map(Vec::as_slice).collect();
                    self.send(&held, tools);
                    return Fate::Stays;
                }
                Act::Resolve(name) if M::RESOLVES => {
                    let Some(session) = flow.session() else { return Fate::Stays };
                    match resolve(&name, session, tools) {
                        Begun::Answered(result) => tools.env(|env| flow.resolved(result, env)),
                        Begun::Asked { due } => {
                            flow.wait_for_addresses(due);
                            self.asked = Some(name);
                            return Fate::Stays;
                        }
                    }
                }
                Act::Resolve(_) => Act::Wait,
                Act::Connect(addrs) => self.connect(&addrs, tools),
                Act::End(reason) => return self.end(reason, tools),
                Act::Refuse(reason, words) => {
                    self.refused = Some(words.is_some());
                    if let Some(words) = words {
                        let words = std::iter::once(&*words);
                        let now = tools.now;
                        if let Err(error) =
                            self.back.send::<M>(&self.key, None, words, tools.associations, gear, now)
                        {
                            cannot_answer(&self.key, &error, tools);
                        }
                    }
                    return self.end(reason, tools);
                }
            };
        }
    }

    /// Takes a socket to the first of these that the kernel knows a way to. A datagram says no earlier whether there is
    /// somebody.
    fn connect(&mut self, addrs: &[SocketAddr], tools: &mut Tools<'_, M>) -> Act {
        let Some(flow) = &mut self.flow else { return Act::Wait };
        let (record, metrics) = (&mut self.life.record, &tools.shared.metrics);
        if let Some(server) = self.server.as_ref().filter(|server| addrs.contains(&server.addr)) {
            let (server, local) = (server.addr, server.trace.local());
            return tools.env(|env| flow.connected(server, local, record, metrics, env));
        }
        let mut error = DialError::NetworkUnreachable;
        for &addr in addrs {
            match Server::connect(addr, tools) {
                Ok(server) if is_own(server.trace.local(), addr, tools.locals) => {
                    return tools.env(|env| flow.leads_here(env));
                }
                Ok(server) => {
                    let local = server.trace.local();
                    self.server = Some(server);
                    return tools.env(|env| flow.connected(addr, local, record, metrics, env));
                }
                Err(failure) if socket::is_out_of_resources(&failure) => {
                    return Act::End(CloseReason::OutOfResources);
                }
                Err(failure) => {
                    error = DialError::from(&failure);
                    metrics.dial_error(error);
                }
            }
        }
        tools.env(|env| flow.unconnected(error, env))
    }

    fn send(&mut self, datagrams: &[&[u8]], tools: &Tools<'_, M>) {
        let Some(server) = &self.server else { return };
        let sent = datagram::send(&server.socket, None, &server.greeting, datagrams.iter().copied());
        if let Some(error) = sent.error.filter(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.unreached.get_or_insert(DialError::from(&error));
        }
        self.life.moved((0, 0), (sent.bytes, 0), &tools.shared.metrics);
    }

    fn end(&mut self, reason: CloseReason, tools: &mut Tools<'_, M>) -> Fate {
        let Some(mut flow) = self.flow.take() else { return Fate::Over };
        tools.env(|env| flow.over(env));
        if let Some(session) = flow.session() {
            self.life.open(session);
        }
        let heard = self.server.take().is_some_and(|server| server.heard);
        let reason = match (reason, self.unreached) {
            (CloseReason::Idle, Some(error)) if !heard => {
                tools.shared.metrics.dial_error(error);
                error.into()
            }
            (reason, _) => reason,
        };
        self.life.close(reason, &tools.shared.admission.headers, tools.now);
        tools.shared.metrics.connection_closed(self.life.mode, reason);
        Fate::Over
    }
}

impl Server {
    fn connect<M: Machine>(addr: SocketAddr, tools: &Tools<'_, M>) -> io::Result<Server> {
        let socket = socket::udp_connect(addr, tools.outgoing)?;
        datagram::take_joined(&socket);
        let trace = tools.shared.sent.note(tools.worker, socket.local_addr()?, addr)?;
        let mut socket = UdpSocket::from_std(socket);
        tools.registry.register(&mut socket, Token(tools.key), Interest::READABLE)?;
        Ok(Server { addr, socket, greeting: Vec::new(), heard: false, trace })
    }
}

/// Another program has the address, or this one lacks the right to it.
fn cannot_answer<M: Machine>(key: &Key, error: &io::Error, tools: &Tools<'_, M>) {
    if tools.shared.admission.unanswerable.line(tools.now).is_some() {
        match &key.wish {
            Wish::Address(dest) => log::warn!("cannot answer as {dest}: {error}"),
            Wish::Name { .. } | Wish::Lost => log::warn!("cannot answer {}: {error}", key.client),
        }
    }
}
