//! One name at the nameservers: the questions for its IPv6 and its IPv4 addresses, side by side.
//!
//! Each question goes through the servers by itself. Absence is an answer and final; what a server cannot or will not
//! say (SERVFAIL, REFUSED, nonsense, silence, an ICMP error) is a reason to ask the next one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::Entry;
use super::outbox::{ExchangeId, Outbox, Transport};
use super::{
    ABSENT_TTL, FAILED_TTL, LookupId, MAX_ABSENT_TTL, MAX_NAMESERVERS, MAX_TTL, MIN_TTL, PARTIAL_TTL,
    RESOLUTION_DELAY, ResolveError, Settings, ipv6_first,
};
use crate::wire::dns::{self, AnswerError};

/// Which addresses a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V6,
    V4,
}

/// Both questions.
#[derive(Debug)]
pub(super) struct Pair {
    id: LookupId,
    name: Arc<str>,
    settings: Arc<Settings>,
    v6: Question,
    v4: Question,
    /// When the IPv4 addresses have waited long enough for the others.
    settle_at: Option<Instant>,
}

/// The state of one question.
#[derive(Debug)]
enum Question {
    Asking(Exchange),
    Found { addrs: Vec<IpAddr>, valid_until: Instant },
    Absent { cause: Absence, valid_until: Instant },
    Failed { valid_until: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The name does not exist.
    Name,
    /// It has no addresses of this family.
    Addresses,
}

/// A query under way.
#[derive(Debug)]
struct Exchange {
    id: ExchangeId,
    /// Place in the list of servers.
    server: usize,
    transport: Transport,
    query_id: u16,
    /// When the datagram is taken for lost and sent once more (RFC 1035 §4.2.1): at half of the server's time.
    resend_at: Option<Instant>,
    deadline: Instant,
}

/// What both questions together say.
#[derive(Debug)]
pub(super) enum Progress {
    /// Wait.
    Pending,
    /// Answer with the IPv4 addresses; the others are still awaited.
    Partial(Entry),
    /// That is all. A question still under way cannot change it.
    Done(Entry),
}

impl Pair {
    pub(super) fn begin(
        id: LookupId,
        name: Arc<str>,
        settings: Arc<Settings>,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Self {
        let nothing = || Question::Failed { valid_until: now };
        let mut pair = Pair { id, name, settings, v6: nothing(), v4: nothing(), settle_at: None };
        for family in [Family::V6, Family::V4] {
            let question = pair.ask(family, 0, Transport::Udp, now, outbox);
            *pair.question(family) = question;
        }
        pair
    }

    /// A message came in answer to a question.
    pub(super) fn received(&mut self, family: Family, message: &[u8], now: Instant, outbox: &mut Outbox) {
        let name = self.name.clone();
        let Question::Asking(exchange) = self.question(family) else { return };
        let (server, transport) = (exchange.server, exchange.transport);
        let answer = match dns::parse_answer(message, exchange.query_id, &name, family.qtype()) {
            Ok(answer) => answer,
            // A late or forged datagram; the answer may still come.
            Err(AnswerError::NotOurs) if transport == Transport::Udp => return,
            Err(_) => {
                outbox.count(|c| &mut c.errors);
                return self.next_server(family, now, outbox);
            }
        };
        let absent = |cause| {
            let ttl = answer.ttl_secs.map_or(ABSENT_TTL, secs).clamp(MIN_TTL, MAX_ABSENT_TTL);
            Question::Absent { cause, valid_until: now + ttl }
        };
        let question = match answer.rcode {
            dns::RCODE_OK | dns::RCODE_NAME_ERROR if answer.truncated => {
                if transport == Transport::Tcp {
                    outbox.count(|c| &mut c.errors);
                    return self.next_server(family, now, outbox);
                }
                self.ask(family, server, Transport::Tcp, now, outbox)
            }
            dns::RCODE_OK if answer.addrs.is_empty() => absent(Absence::Addresses),
            dns::RCODE_OK => {
                let ttl = answer.ttl_secs.map_or(MIN_TTL, secs).clamp(MIN_TTL, MAX_TTL);
                Question::Found { addrs: answer.addrs, valid_until: now + ttl }
            }
            dns::RCODE_NAME_ERROR => absent(Absence::Name),
            _ => {
                outbox.count(|c| &mut c.errors);
                return self.next_server(family, now, outbox);
            }
        };
        self.change(family, question, now, outbox);
    }

    /// Nothing good comes from the server that a question is at: asks the next one.
    pub(super) fn next_server(&mut self, family: Family, now: Instant, outbox: &mut Outbox) {
        let Question::Asking(exchange) = self.question(family) else { return };
        let server = exchange.server.saturating_add(1);
        let question = self.ask(family, server, Transport::Udp, now, outbox);
        self.change(family, question, now, outbox);
    }

    /// Acts on servers that were silent for too long.
    pub(super) fn expire(&mut self, now: Instant, outbox: &mut Outbox) {
        for family in [Family::V6, Family::V4] {
            let name = self.name.clone();
            let Question::Asking(exchange) = self.question(family) else { continue };
            if exchange.deadline <= now {
                outbox.count(|c| &mut c.timeouts);
                self.next_server(family, now, outbox);
            } else if exchange.resend_at.is_some_and(|at| at <= now) {
                exchange.resend_at = None;
                if let Some(message) = dns::encode_query(exchange.query_id, &name, family.qtype()) {
                    outbox.resend(exchange.id, message);
                }
            }
        }
    }

    /// When to call [`Pair::expire`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.v6.deadline().into_iter().chain(self.v4.deadline()).min()
    }

    /// When to look at [`Pair::progress`] in any case.
    pub(super) fn settle_at(&self) -> Option<Instant> {
        self.settle_at
    }

    /// What is known at `now`.
    ///
    /// IPv4 addresses wait for the others for [`RESOLUTION_DELAY`]. IPv6 addresses wait for IPv4 to the end: an answer
    /// of IPv6 alone would leave those without it, many still, with nothing to fall back to.
    pub(super) fn progress(&self, now: Instant) -> Progress {
        use Question::{Absent, Asking, Failed, Found};
        let (result, valid_until) = match (&self.v6, &self.v4) {
            (Found { addrs: v6, valid_until: until6 }, Found { addrs: v4, valid_until: until4 }) => {
                (Ok(ipv6_first([v6.as_slice(), v4].concat())), *until6.min(until4))
            }
            (Asking(_), Found { addrs, valid_until }) => {
                let settled = self.settle_at.is_some_and(|at| at <= now);
                let valid_until = (*valid_until).min(now + PARTIAL_TTL);
                let entry = Entry { result: Ok(ipv6_first(addrs.clone())), valid_until };
                return if settled { Progress::Partial(entry) } else { Progress::Pending };
            }
            (Absent { .. } | Failed { .. }, Found { addrs, valid_until })
            | (Found { addrs, valid_until }, Absent { .. } | Failed { .. }) => {
                (Ok(ipv6_first(addrs.clone())), *valid_until)
            }
            // A name that does not exist has no addresses of any family (RFC 8020). The other way round some servers
            // say so of every name without IPv6 addresses (RFC 4074 §4.2).
            (Asking(_), Absent { cause: Absence::Name, valid_until }) => {
                (Err(ResolveError::NotFound), *valid_until)
            }
            (Absent { valid_until: until6, .. }, Absent { valid_until: until4, .. }) => {
                (Err(ResolveError::NotFound), *until6.min(until4))
            }
            (Failed { .. }, Absent { cause: Absence::Name, valid_until }) => {
                (Err(ResolveError::NotFound), *valid_until)
            }
            (Failed { valid_until }, Absent { .. } | Failed { .. })
            | (Absent { .. }, Failed { valid_until }) => (Err(ResolveError::Failed), *valid_until),
            (Asking(_), Absent { .. } | Failed { .. }) | (_, Asking(_)) => return Progress::Pending,
        };
        Progress::Done(Entry { result, valid_until })
    }

    /// Ends what is under way.
    pub(super) fn close(self, outbox: &mut Outbox) {
        for question in [self.v6, self.v4] {
            if let Question::Asking(exchange) = question {
                outbox.close(exchange.id);
            }
        }
    }

    fn question(&mut self, family: Family) -> &mut Question {
        match family {
            Family::V6 => &mut self.v6,
            Family::V4 => &mut self.v4,
        }
    }

    /// The question at that server; failed if there is none.
    fn ask(
        &self,
        family: Family,
        server: usize,
        transport: Transport,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Question {
        let failed = Question::Failed { valid_until: now + FAILED_TTL };
        let mut servers = self.settings.nameservers.iter().take(MAX_NAMESERVERS);
        let Some(&addr) = servers.nth(server) else { return failed };
        let query_id = outbox.query_id();
        let Some(message) = dns::encode_query(query_id, &self.name, family.qtype()) else { return failed };
        let id = outbox.open((self.id, family), addr, transport, message);
        let timeout = self.settings.timeout;
        let resend_at = (transport == Transport::Udp).then_some(now + timeout / 2);
        Question::Asking(Exchange { id, server, transport, query_id, resend_at, deadline: now + timeout })
    }

    /// The one place where a question changes.
    fn change(&mut self, family: Family, question: Question, now: Instant, outbox: &mut Outbox) {
        if let Question::Asking(exchange) = self.question(family) {
            outbox.close(exchange.id);
        }
        *self.question(family) = question;
        if self.settle_at.is_none()
            && matches!((&self.v6, &self.v4), (Question::Asking(_), Question::Found { .. }))
        {
            self.settle_at = Some(now + RESOLUTION_DELAY);
        }
    }
}

impl Question {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Question::Asking(exchange) => Some(exchange.resend_at.unwrap_or(exchange.deadline)),
            Question::Found { .. } | Question::Absent { .. } | Question::Failed { .. } => None,
        }
    }
}

impl Family {
    fn qtype(self) -> u16 {
        match self {
            Family::V6 => dns::TYPE_AAAA,
            Family::V4 => dns::TYPE_A,
        }
    }
}

fn secs(n: u32) -> Duration {
    Duration::from_secs(u64::from(n))
}
