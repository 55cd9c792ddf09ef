//! A worker's part in datagrams: from listeners to flows, and from flows to where their fate leads.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use mio::net::UdpSocket;

use super::{Listening, Worker};
use crate::accept::{self, Wish};
use crate::config::{Listener, Mode};
use crate::decide::L4;
use crate::engine::connection::Fate;
pub(super) use crate::engine::datagrams::FIRST_ASSOCIATION;
use crate::engine::datagrams::{Association, Gear, Key, Membership, Passage, Via, WayBack};
use crate::engine::tools::Tools;
use crate::metrics::Limit;
use crate::session::Machine;
use crate::sys::datagram::{BATCH, Batch};
use crate::wire::quic::version_negotiation;
use crate::wire::socks5;

/// The tokens of flows, above those of connections.
pub(super) const FIRST_FLOW: usize = usize::MAX / 2 + 1;

/// Batches from one listener before others get their turn.
const BATCHES_PER_TURN: usize = 8;

/// The same in datagrams, of which joined ones make a batch larger.
const DATAGRAMS_PER_TURN: usize = BATCHES_PER_TURN * BATCH;

impl<M: Machine> Worker<M> {
    /// Takes in what waits at the listener at `place`; true if there may be more.
    pub(super) fn take_datagrams(&mut self, place: usize, now: Instant) -> bool {
        let mut batch = self.datagrams.batch.take().unwrap_or_default();
        let (mut more, mut taken) = (true, 0);
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(bound)) = self.listeners.get(place) else { break };
            let Listening::Udp(socket) = &bound.socket else { break };
            match batch.receive(&**socket) {
                Ok(received) => {
                    let (listener, socket) = (Arc::clone(&bound.listener), Arc::downgrade(socket));
                    if M::READS && listener.mode == Mode::ProxyProtocol {
                        self.take_introduced(&batch, &listener, &socket, now);
                    } else {
                        self.take_batch(&batch, &listener, now);
                    }
                    more = received == BATCH;
                    taken += batch.arrivals().count();
                }
                Err(error) => more = error.kind() == io::ErrorKind::Interrupted,
            }
            if !more || taken >= DATAGRAMS_PER_TURN {
                break;
            }
        }
        self.datagrams.batch = Some(batch);
        more
    }

    /// Leads each run of datagrams of one flow there.
    fn take_batch(&mut self, batch: &Batch, listener: &Arc<Listener>, now: Instant) {
        let mut arrivals = batch.arrivals().peekable();
        let mut run: Vec<&[u8]> = Vec::with_capacity(BATCH);
        while let Some(first) = arrivals.next() {
            run.clear();
            run.push(first.bytes);
            while let Some(next) = arrivals.next_if(|next| (next.from, next.to) == (first.from, first.to)) {
                run.push(next.bytes);
            }
            if let (Some(from), Some(to)) = (first.from, first.to) {
                let key = Key { client: plain(from), wish: Wish::Address(plain(to)), via: Via::Firewall };
                self.arrived(key, &run, listener, &|| WayBack::Direct, now);
            }
        }
    }

    /// Takes in what waits at the association at `place`.
    pub(super) fn take_associated(&mut self, place: usize, now: Instant) {
        let mut batch = self.datagrams.batch.take().unwrap_or_default();
        let (mut more, mut taken) = (true, 0);
        for _ in 0..BATCHES_PER_TURN {
            let Some(association) = self.datagrams.associations.get_mut(place) else { break };
            association.queued = false;
            match batch.receive(&association.socket) {
                Ok(received) => {
                    self.take_associated_batch(&batch, place, now);
                    more = received == BATCH;
                    taken += batch.arrivals().count();
                }
                Err(error) => more = error.kind() == io::ErrorKind::Interrupted,
            }
            if !more || taken >= DATAGRAMS_PER_TURN {
                break;
            }
        }
        self.datagrams.batch = Some(batch);
        if let (true, Some(association)) = (more, self.datagrams.associations.get_mut(place)) {
            association.queued = true;
            self.queue.push_back(FIRST_ASSOCIATION + place);
        }
    }

    /// Leads each run of a SOCKS client's datagrams that go to the same place there. What somebody else has sent, and what
    /// cannot be understood, is nothing.
    fn take_associated_batch(&mut self, batch: &Batch, place: usize, now: Instant) {
        let mut arrivals = batch.arrivals().peekable();
        let mut run: Vec<&[u8]> = Vec::with_capacity(BATCH);
        while let Some(first) = arrivals.next() {
            let Some(association) = self.datagrams.associations.get_mut(place) else { return };
            let Some(client) = first.from.map(plain).filter(|from| association.client.may_be(*from)) else {
                continue;
            };
            let Some(datagram) = socks5::parse_datagram(first.bytes) else { continue };
            let Some(wish) = accept::socks5::datagram_wish(&datagram) else { continue };
            association.heard(client, now);
            run.clear();
            run.push(datagram.payload);
            while let Some(next) = arrivals.next_if(|next| {
                // The same header says the same.
                next.from == first.from && next.bytes.starts_with(datagram.header)
            }) {
                run.push(next.bytes.get(datagram.header.len()..).unwrap_or_default());
            }
            let listener = Arc::clone(&association.listener);
            let key = Key { client, wish, via: Via::Association(association.membership(place)) };
            self.arrived(key, &run, &listener, &|| WayBack::Direct, now);
        }
    }

    /// Leads each datagram to the flow that the header in front of it names.
    fn take_introduced(
        &mut self,
        batch: &Batch,
        listener: &Arc<Listener>,
        socket: &Weak<UdpSocket>,
        now: Instant,
    ) {
        for arrival in batch.arrivals() {
            let Some(peer) = arrival.from.map(plain) else { continue };
            if !listener.trusted.contains(peer.ip().to_canonical()) {
                if self.shared.admission.headers.line(now).is_some() {
                    log::warn!("datagrams with PROXY headers from {}, who is not trusted", peer.ip());
                }
                continue;
            }
            let Some((client, dest, len)) = accept::proxy_protocol::datagram(arrival.bytes) else { continue };
            let (header, datagram) = arrival.bytes.split_at(len.min(arrival.bytes.len()));
            let back = || WayBack::Header { socket: Weak::clone(socket), header: header.into() };
            let key = Key { client, wish: Wish::Address(dest), via: Via::Peer(peer) };
            self.arrived(key, &[datagram], listener, &back, now);
        }
    }

    /// `back`: how the client is answered.
    fn arrived(
        &mut self,
        key: Key,
        run: &[&[u8]],
        listener: &Arc<Listener>,
        back: &dyn Fn() -> WayBack,
        now: Instant,
    ) {
        if let Some(&place) = self.datagrams.by_key.get(&key) {
            self.with_flow(place, now, |passage, tools, gear| passage.datagrams(run, tools, gear));
        } else if M::READS
            && let Some(answered) = self.datagrams.refused.get(&key, now)
        {
            if answered {
                self.refuse_again(&key, run, &back(), now);
            }
        } else if let Some((first, others)) = run.split_first()
            && let Some(place) = self.welcome_flow(key, first, listener, back, now)
        {
            self.with_flow(place, now, |passage, tools, gear| passage.datagrams(others, tools, gear));
        }
    }

    /// Begins a flow, if there is room for one more; says where it is, if it goes on.
    fn welcome_flow(
        &mut self,
        key: Key,
        first: &[u8],
        listener: &Arc<Listener>,
        back: &dyn Fn() -> WayBack,
        now: Instant,
    ) -> Option<usize> {
        let client = key.client;
        let (dest, has_room) = match (key.via, &key.wish) {
            (Via::Firewall | Via::Peer(_), &Wish::Address(dest)) => (dest, true),
            (Via::Association(membership), _) if M::ASSOCIATES => {
                let association = self.datagrams.associations.get(membership.place)?;
                (association.relay, association.has_room())
            }
            _ => return None,
        };
        // Nobody has such an address, and answering one would be talking to ourselves.
        if self.draining.is_some() || client.port() == 0 || dest.port() == 0 || dest == listener.addr {
            return None;
        }
        let admitted = if has_room { self.admit(Some(client.ip())) } else { Err(Limit::PerSource) };
        if let Err(limit) = admitted {
            self.shared.metrics.connection_refused(limit);
            self.shared.admission.log_refusal(client.ip(), now);
            return None;
        }
        self.shared.metrics.connection_opened(listener.mode, L4::Udp);
        let ours = self.locals.has(client.ip()) && self.shared.sent.is_ours(client, dest);
        let place = self.datagrams.flows.insert(Box::new(Passage::new(key.clone(), back(), listener, now)));
        self.datagrams.by_key.insert(key.clone(), place);
        if let (true, Via::Association(membership)) = (M::ASSOCIATES, key.via)
            && let Some(association) = self.datagrams.associations.get_mut(membership.place)
        {
            association.joined(place);
        }
        self.with_flow(place, now, |passage, tools, gear| passage.start(listener, ours, first, tools, gear));
        self.datagrams.by_key.contains_key(&key).then_some(place)
    }

    /// What refused the first datagram may have been lost.
    fn refuse_again(&mut self, key: &Key, run: &[&[u8]], back: &WayBack, now: Instant) {
        let datagrams = &mut self.datagrams;
        let mut gear = Gear { flows: datagrams.flows.len(), replies: &mut datagrams.replies };
        for words in run.iter().filter_map(|datagram| version_negotiation(datagram)) {
            let words = std::iter::once(&*words);
            // It has been said already why that cannot be.
            let _ = back.send::<M>(key, None, words, &mut datagrams.associations, &mut gear, now);
        }
    }

    /// The connections of these associations have ended, and with them everything that hangs on them.
    pub(super) fn end_abandoned(&mut self, now: Instant) {
        while M::ASSOCIATES
            && let Some(place) = self.datagrams.associations.take_abandoned()
        {
            let flows =
                self.datagrams.associations.get_mut(place).map(Association::take_flows).unwrap_or_default();
            for flow in flows {
                self.with_flow(flow, now, |passage, tools, _| passage.close(tools));
            }
            self.datagrams.associations.remove(place);
        }
    }

    /// A flow of an association is over. While the daemon stops, the last one ends the association.
    fn left_association(&mut self, membership: Membership, flow: usize, now: Instant) {
        let Some(association) = self.datagrams.associations.get_mut(membership.place) else { return };
        association.left(flow);
        if self.draining.is_some() && association.is_idle() {
            let connection = association.connection;
            self.with(connection, now, |connection, tools| connection.wind_up(tools));
        }
    }

    /// Lets the flow at `place` bring its client what waits.
    pub(super) fn go_on_with_flow(&mut self, place: usize, now: Instant) {
        let mut batch = self.datagrams.batch.take().unwrap_or_default();
        self.with_flow(place, now, |passage, tools, gear| passage.go_on(&mut batch, tools, gear));
        self.datagrams.batch = Some(batch);
    }

    /// Lets a flow do something, and puts it where its fate belongs.
    pub(super) fn with_flow(
        &mut self,
        place: usize,
        now: Instant,
        f: impl FnOnce(&mut Passage<M>, &mut Tools<'_, M>, &mut Gear<'_>) -> Fate,
    ) {
        let datagrams = &mut self.datagrams;
        let flows = datagrams.flows.len();
        let Some(mut passage) = datagrams.flows.take(place) else { return };
        let mut tools = Tools {
            now,
            worker: self.index,
            key: FIRST_FLOW + place,
            registry: self.poll.registry(),
            timers: &mut self.timers,
            loan: &mut self.loan,
            plan: &self.plan,
            outgoing: &self.outgoing,
            locals: &self.locals,
            preludes: &datagrams.held,
            answers: &mut self.answers,
            associations: &mut datagrams.associations,
            shared: &self.shared,
            draining: self.draining.is_some(),
        };
        match f(&mut passage, &mut tools, &mut Gear { replies: &mut datagrams.replies, flows }) {
            Fate::Over => {
                datagrams.timers.set(place, None);
                datagrams.by_key.remove(passage.key());
                if let (true, Some(answered)) = (M::READS, passage.refused()) {
                    datagrams.refused.insert(passage.key().clone(), answered, now);
                }
                self.shared.admission.leave_source(passage.source());
                self.shared.admission.leave();
                datagrams.flows.free(place);
                datagrams.replies.shrink(datagrams.flows.len());
                if let (true, Via::Association(membership)) = (M::ASSOCIATES, passage.key().via) {
                    self.left_association(membership, place, now);
                }
            }
            fate => {
                if fate == Fate::Yields && !passage.queued {
                    passage.queued = true;
                    self.queue.push_back(FIRST_FLOW + place);
                }
                datagrams.timers.set(place, passage.due());
                datagrams.flows.put_back(place, passage);
            }
        }
    }

    /// The daemon stops: nothing new is begun, and what is silent ends soon.
    pub(super) fn drain_flows(&mut self, now: Instant) {
        for place in self.datagrams.flows.keys() {
            self.with_flow(place, now, |passage, tools, _| passage.wind_up(tools));
        }
    }
}

/// Without flow label, by which the same client would look like several, and without an IPv4 address in IPv6's clothes. The
/// scope of a link-local address stays: it cannot be answered without.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(mut v6) if v6.ip().to_ipv4_mapped().is_none() => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
        addr => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
    }
}
