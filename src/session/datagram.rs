//! A session that goes over datagrams: what is different from one over a stream.
//!
//! Where the first one was going is known, so there is nothing to ask the client for: the rules are asked at once,
//! and where they want to see the first bytes, these are looked at datagram by datagram.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::flow::Watch;
use super::{Env, Machine, Session, Step};
use crate::accept::Wish;
use crate::config::{Listener, Mode, Plan};
use crate::decide::facts::{Known, L4};
use crate::identify::Identity;
use crate::identify::datagram::{DatagramIdentifier, DatagramOutcome};
use crate::wire::dns::ech::{published_ech, strip_ech};
use crate::wire::quic::version_negotiation;

/// Why a packet from inside a connection is refused.
const UNKNOWN_CONNECTION: &str = "a QUIC connection of which nothing is known";

impl Session {
    /// A session that goes over datagrams.
    pub(super) fn new_over_datagrams(
        plan: Arc<Plan>,
        listener: &Listener,
        client: SocketAddr,
        now: Instant,
    ) -> Self {
        let mut session = <Session as Machine>::new(plan, listener, client, now);
        session.facts.l4 = Known::Is(L4::Udp);
        if listener.mode == Mode::ProxyProtocol {
            // Whoever speaks for it is our neighbour, not the client itself.
            session.facts.mac = Known::Absent;
        }
        session
    }

    /// Whether the first bytes come as datagrams.
    pub(super) fn is_over_datagrams(&self) -> bool {
        self.facts.l4 == Known::Is(L4::Udp)
    }

    /// Looks at the next datagram of the client.
    pub(super) fn look_at_datagram(&mut self, datagram: &[u8], env: &mut Env<'_>) -> Step {
        let (parsers, port) = (self.plan.parsers, self.port());
        let identifier =
            self.datagrams.get_or_insert_with(|| Box::new(DatagramIdentifier::new(parsers, port)));
        match identifier.look(datagram) {
            DatagramOutcome::NeedMore { .. } => Step::Read { until: self.whole_by() },
            DatagramOutcome::Identified(identity) => {
                self.learn(identity, env);
                self.advance(env)
            }
            DatagramOutcome::Incomplete(shortfall) => self.incomplete(shortfall.as_str(), env),
            DatagramOutcome::MidConnection => {
                let known = self
                    .asked_address()
                    .and_then(|dest| env.memory.connection(self.client.ip(), dest, env.now));
                match known {
                    Some(hello) => {
                        self.learn(Identity::Quic { hello }, env);
                        self.advance(env)
                    }
                    None => self.incomplete(UNKNOWN_CONNECTION, env),
                }
            }
        }
    }

    /// What of the flow is to be looked at once it is let in.
    pub(super) fn watch_flow(&mut self, env: &Env<'_>) -> Watch {
        let quic = self.plan.parsers.quic;
        match (&self.identity, self.datagrams.take()) {
            (Some(Identity::Quic { hello }), identifier) => {
                if let Some(dest) = self.asked_address() {
                    env.memory.let_in(self.client.ip(), dest, hello.as_deref(), env.now);
                }
                Watch::Quic(identifier)
            }
            (Some(Identity::Dns { .. }), _) => Watch::Dns { quic },
            (Some(_), _) if quic => Watch::Other,
            (Some(_), _) => Watch::Nothing,
            (None, _) => Watch::Unseen(Box::new(DatagramIdentifier::new(self.plan.parsers, self.port()))),
        }
    }

    /// What refuses the flow that begins with this datagram, if its client would understand anything.
    pub(super) fn flow_refusal(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        if self.plan.parsers.quic { version_negotiation(datagram) } else { None }
    }

    /// What a client is to be told instead of its nameserver's answer, if not that.
    pub(super) fn other_dns_answer(
        plan: &Plan,
        client: IpAddr,
        answer: &[u8],
        env: &Env<'_>,
    ) -> Option<Vec<u8>> {
        env.memory.published(client, &published_ech(answer), env.now);
        if plan.strip_ech { strip_ech(answer) } else { None }
    }

    /// Where the client's datagrams go, which is where it would go on with a connection; nothing where it asked for a name.
    fn asked_address(&self) -> Option<SocketAddr> {
        match self.wish {
            Wish::Address(addr) => Some(addr),
            Wish::Name { .. } | Wish::Lost => None,
        }
    }

    fn port(&self) -> u16 {
        self.facts.port.is().copied().unwrap_or_default()
    }
}
