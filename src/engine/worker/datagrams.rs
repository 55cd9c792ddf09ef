//! A worker's part in datagrams: from listeners to flows, and from flows to where their fate leads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Listening, Worker};
use crate::config::Listener;
use crate::decide::L4;
use crate::engine::connection::Fate;
use crate::engine::datagrams::{Gear, Key, Passage};
use crate::engine::tools::Tools;
use crate::session::Machine;
use crate::sys::datagram::{BATCH, Batch};
use crate::wire::quic::version_negotiation;

/// The tokens of flows, above those of connections.
pub(super) const FIRST_FLOW: usize = usize::MAX / 2 + 1;

/// Batches from one listener before others get their turn.
const BATCHES_PER_TURN: usize = 8;

impl<M: Machine> Worker<M> {
    /// Takes in what waits at the listener at `place`; true if there may be more.
    pub(super) fn take_datagrams(&mut self, place: usize, now: Instant) -> bool {
        let mut batch = self.datagrams.batch.take().unwrap_or_default();
        let mut more = true;
        for _ in 0..BATCHES_PER_TURN {
            let Some(Some(bound)) = self.listeners.get(place) else { break };
            let Listening::Udp(socket) = &bound.socket else { break };
            match batch.receive(socket) {
                Ok(received) => {
                    let listener = Arc::clone(&bound.listener);
                    self.take_batch(&batch, &listener, now);
                    more = received == BATCH;
                }
                Err(error) => more = error.kind() == io::ErrorKind::Interrupted,
            }
            if !more {
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
                self.arrived((plain(from), plain(to)), &run, listener, now);
            }
        }
    }

    fn arrived(&mut self, key: Key, run: &[&[u8]], listener: &Arc<Listener>, now: Instant) {
        if let Some(&place) = self.datagrams.by_key.get(&key) {
            self.with_flow(place, now, |passage, tools, gear| passage.datagrams(run, tools, gear));
        } else if let Some(answered) = self.datagrams.refused.get(&key, now) {
            if answered {
                self.refuse_again(key, run);
            }
        } else if let Some((first, others)) = run.split_first()
            && let Some(place) = self.welcome_flow(key, first, listener, now)
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
        now: Instant,
    ) -> Option<usize> {
        let (client, dest) = key;
        // Nobody has such an address, and answering one would be talking to ourselves.
        if self.draining.is_some() || client.port() == 0 || dest.port() == 0 || dest == listener.addr {
            return None;
        }
        if let Err(limit) = self.admit(Some(client.ip())) {
            self.shared.metrics.connection_refused(limit);
            self.shared.admission.log_refusal(client.ip(), now);
            return None;
        }
        self.shared.metrics.connection_opened(listener.mode, L4::Udp);
        let ours = self.locals.has(client.ip()) && self.shared.sent.is_ours(client, dest);
        let place = self.datagrams.flows.insert(Box::new(Passage::new(key, listener, now)));
        self.datagrams.by_key.insert(key, place);
        self.with_flow(place, now, |passage, tools, gear| passage.start(listener, ours, first, tools, gear));
        self.datagrams.by_key.contains_key(&key).then_some(place)
    }

    /// What refused the first datagram may have been lost.
    fn refuse_again(&mut self, (client, dest): Key, run: &[&[u8]]) {
        let flows = self.datagrams.flows.len();
        for words in run.iter().filter_map(|datagram| version_negotiation(datagram)) {
            // It has been said already why that cannot be.
            let _ = self.datagrams.replies.send(dest, client, [&*words], flows);
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
            shared: &self.shared,
            draining: self.draining.is_some(),
        };
        match f(&mut passage, &mut tools, &mut Gear { replies: &mut datagrams.replies, flows }) {
            Fate::Over => {
                datagrams.timers.set(place, None);
                datagrams.by_key.remove(&passage.key());
                if let Some(answered) = passage.refused() {
                    datagrams.refused.insert(passage.key(), answered, now);
                }
                self.shared.admission.leave_source(passage.source());
                self.shared.admission.leave();
                datagrams.flows.free(place);
                datagrams.replies.shrink(datagrams.flows.len());
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
