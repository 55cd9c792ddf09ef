//! The session: what it knows, and what it does when something happens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::authentication::Login;
use super::budget::{Charge, FREE};
use super::decision::facts_of;
use super::flow::Watch;
use super::interception::Intercepting;
use super::owed::Owed;
use super::probing::Certificates;
use super::record::Kept;
use super::state::State;
use super::{CloseReason, Closing, Env, Machine, Step, Wire};
use crate::accept::Wish;
use crate::accept::proxy_protocol::{Introduction, introduction};
use crate::auth::{Users, Verification};
use crate::config::{Listener, Mode, Plan, Target, Timeouts};
use crate::connect::dial::DialError;
use crate::connect::probe::Finding;
use crate::connect::resolve::ResolveError;
use crate::decide::Verdict;
use crate::decide::facts::{Facts, Known};
use crate::identify::datagram::DatagramIdentifier;
use crate::identify::tcp::Identifier;
use crate::identify::{Identity, Parsers};
use crate::quota::{Refused, Share};
use crate::relay::stream::Role;
use crate::wire::http1::{self, HeadEnd};
use crate::wire::{Parse, proxy_protocol};

// Why first bytes are incomplete, for those who sent HTTP.
pub(super) const TOO_LATE: &str = "the request was not complete in time";
const NO_MEMORY: &str = "there is no memory for so large a request head now";

/// One client connection until it is relayed, and again between the requests of an HTTP proxy connection.
pub struct Session {
    pub(super) plan: Arc<Plan>,
    pub(super) mode: Mode,
    pub(super) target: Target,
    trusted: bool,
    /// How TLS is put on the client's end; taken when it is.
    pub(super) tls: Option<Role>,
    pub(super) login: Login,
    pub(super) state: State,
    /// The client as accepted, or as a PROXY header says.
    pub(super) client: SocketAddr,
    pub(super) wish: Wish,
    pub(super) owed: Owed,
    pub(super) facts: Facts,
    pub(super) identity: Option<Identity>,
    pub(super) identifier: Identifier,
    /// The same for datagrams.
    pub(super) datagrams: Option<Box<DatagramIdentifier>>,
    pub(super) head_end: HeadEnd,
    /// Bytes of the client that nobody has consumed.
    pub(super) prelude: Vec<u8>,
    /// What a large prelude takes of the budget.
    charge: Option<Charge>,
    /// To be sent to the client before the next step is taken.
    pub(super) reply: Vec<u8>,
    /// What incomplete first bytes lack.
    pub(super) shortfall: &'static str,
    /// No more bytes will come from the client.
    pub(super) client_done: bool,
    /// Since when the client is given time for what it has to send now.
    pub(super) waiting_since: Instant,
    /// How long the client may say nothing between two requests.
    pub(super) idle_until: Instant,
    /// The addresses of the name to be dialled, once it is resolved, without those that a rule denies.
    pub(super) resolved: Option<(Box<str>, Vec<IpAddr>)>,
    /// What the certificates of the addresses to be dialled are worth, where a rule asked.
    pub(super) certificates: Certificates,
    /// The verdict on the connection, or on the request at hand.
    pub(super) verdict: Option<Verdict>,
    /// Set when the connection is to be decrypted.
    pub(super) intercepting: Option<Box<Intercepting>>,
    /// What it takes of the limits of its rule; taken when its bytes are relayed.
    pub(super) share: Option<Share>,
    /// The limit of a rule that it would have gone beyond.
    pub(super) refused: Option<Refused>,
}

impl Machine for Session {
    type Plan = Plan;
    type Verdict = Verdict;
    type Record = Kept;

    const EXCHANGES: bool = true;
    const VERIFIES: bool = true;
    const RESOLVES: bool = true;
    const INTERCEPTS: bool = cfg!(feature = "intercept");
    const TIES: bool = true;
    const DATAGRAMS: bool = cfg!(feature = "udp");
    const PROBES: bool = cfg!(feature = "tls");
    const ASSOCIATES: bool = cfg!(feature = "udp");

    fn new(plan: Arc<Plan>, listener: &Listener, client: SocketAddr, now: Instant) -> Self {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        Session {
            mode: listener.mode,
            target: listener.target,
            trusted: listener.trusted.contains(client.ip()),
            tls: listener.tls.clone(),
            login: Login::new(listener),
            state: State::New,
            client,
            wish: Wish::Lost,
            owed: Owed::Nothing,
            facts: facts_of(client),
            identity: None,
            identifier: Identifier::new(plan.parsers),
            datagrams: None,
            head_end: HeadEnd::new(),
            prelude: Vec::new(),
            charge: None,
            reply: Vec::new(),
            shortfall: TOO_LATE,
            client_done: false,
            waiting_since: now,
            idle_until: now,
            resolved: None,
            certificates: Certificates::default(),
            verdict: None,
            intercepting: None,
            share: None,
            refused: None,
            plan,
        }
    }

    fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    fn client(&self) -> SocketAddr {
        self.client
    }

    fn is_source_known(&self) -> bool {
        self.mode != Mode::ProxyProtocol || !matches!(self.state, State::New | State::ProxyHeader)
    }

    fn is_idle(&self) -> bool {
        self.state == State::RequestHead && self.prelude.is_empty() && self.was_answered()
    }

    fn destination(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(*self.facts.dest.is()?, *self.facts.port.is()?))
    }

    fn has_greeting(&self) -> bool {
        !self.prelude.is_empty()
    }

    fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reply)
    }

    fn unseen(&self) -> Option<Parsers> {
        self.identity.is_none().then_some(self.plan.parsers)
    }

    fn strips_ech(&self) -> bool {
        self.plan.strip_ech
    }

    fn start(&mut self, wish: Wish, env: &mut Env<'_>) -> Step {
        match self.mode {
            // Each flow brings its destination, however that was learned.
            _ if self.is_over_datagrams() => self.wants(wish, env),
            Mode::Transparent => self.wants(wish, env),
            Mode::ProxyProtocol if !self.trusted => self.close(CloseReason::UntrustedSender),
            Mode::ProxyProtocol => self.read(State::ProxyHeader, env.now),
            Mode::Http => self.read(State::RequestHead, env.now),
            Mode::Socks5 => self.read(State::SocksGreeting, env.now),
            Mode::Https => self.read(State::Hello, env.now),
        }
    }

    fn secured(&mut self, env: &mut Env<'_>) -> Step {
        if self.intercepting.is_some() {
            return self.go_inside(env);
        }
        // What comes now is an HTTP proxy's first request, with a time of its own.
        self.read(State::RequestHead, env.now)
    }

    fn server_secured(&mut self, alpn: Option<&[u8]>, env: &mut Env<'_>) -> Step {
        self.secure_client(alpn, env)
    }

    fn certificate_refused(&mut self, reason: CloseReason, env: &mut Env<'_>) -> Step {
        self.remember_refusal(env);
        self.close(reason)
    }

    fn is_bound(&self) -> bool {
        self.intercepting.is_some()
    }

    fn comes_back(&mut self, wish: Wish, env: &mut Env<'_>) -> Step {
        if let Wish::Address(addr) = wish {
            self.facts.port = Known::Is(addr.port());
            self.facts.dest = Known::Is(addr.ip().to_canonical());
        }
        self.wish = wish;
        self.deny_always(env)
    }

    fn leads_here(&mut self, env: &mut Env<'_>) -> Step {
        self.deny_always(env)
    }

    fn bytes(&mut self, bytes: &[u8], env: &mut Env<'_>) -> Step {
        debug_assert!(self.is_reading(), "bytes in {:?}", self.state);
        let was_idle = self.is_idle();
        self.prelude.extend_from_slice(bytes);
        if self.state == State::RequestHead
            && self.was_answered()
            && http1::without_leading_lines(&self.prelude).is_empty()
        {
            self.prelude.clear();
            self.head_end = HeadEnd::new();
            return Step::Read { until: self.idle_until };
        }
        if was_idle {
            self.begin_request(env);
        }
        match self.look(env) {
            step @ Step::Read { .. } if self.afford_prelude(env) => step,
            Step::Read { .. } if self.state == State::FirstBytes => self.incomplete(NO_MEMORY, env),
            Step::Read { .. } => self.close(CloseReason::OutOfResources),
            step => step,
        }
    }

    fn over_datagrams(plan: Arc<Plan>, listener: &Listener, client: SocketAddr, now: Instant) -> Self {
        Session::new_over_datagrams(plan, listener, client, now)
    }

    fn associated(&mut self, relay: SocketAddr) -> Vec<u8> {
        self.grant_association(relay)
    }

    fn known_as(&mut self, user: &str) {
        self.facts.user = Known::Is(user.into());
    }

    fn datagram(&mut self, datagram: &[u8], env: &mut Env<'_>) -> Step {
        self.look_at_datagram(datagram, env)
    }

    fn kept(&self) -> usize {
        self.datagrams.as_ref().map_or(0, |identifier| identifier.kept())
    }

    fn watch(&mut self, env: &Env<'_>) -> Watch {
        self.watch_flow(env)
    }

    fn refusal(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.flow_refusal(datagram)
    }

    fn dns_answer(plan: &Plan, client: IpAddr, answer: &[u8], env: &Env<'_>) -> Option<Vec<u8>> {
        Session::other_dns_answer(plan, client, answer, env)
    }

    fn end_of_stream(&mut self, env: &mut Env<'_>) -> Step {
        self.client_done = true;
        // From one who has said nothing the end says as much as silence: a server may be the one to speak.
        if self.prelude.is_empty() && self.state != State::FirstBytes {
            let served = self.is_idle();
            return self.close(if served { CloseReason::Finished } else { CloseReason::ClientGone });
        }
        match self.state {
            State::FirstBytes => self.out_of_bytes(env),
            State::ProxyHeader => self.close(CloseReason::BadProxyHeader),
            _ => self.close(CloseReason::ClientGone),
        }
    }

    fn deadline(&mut self, env: &mut Env<'_>) -> Step {
        match self.state {
            State::FirstBytes => self.out_of_bytes(env),
            _ if self.is_idle() => self.close(CloseReason::Idle),
            _ => self.close(CloseReason::ProcessTimeout),
        }
    }

    fn users(&self) -> Option<&Arc<Users>> {
        self.login.users()
    }

    fn verified(&mut self, verification: Verification, env: &mut Env<'_>) -> Step {
        self.authenticated(verification, env)
    }

    fn resolved(&mut self, result: Result<Vec<IpAddr>, ResolveError>, env: &mut Env<'_>) -> Step {
        debug_assert_eq!(self.state, State::Resolving);
        match (result, self.dial_name()) {
            (Ok(addrs), Some(name)) if !addrs.is_empty() => {
                self.resolved = Some((name, addrs));
                self.advance(env)
            }
            (Ok(_) | Err(ResolveError::NotFound), _) => self.close(CloseReason::NameNotFound),
            (Err(ResolveError::Failed), _) => self.close(CloseReason::ResolveFailed),
        }
    }

    fn probed(&mut self, findings: Vec<Finding>, env: &mut Env<'_>) -> Step {
        debug_assert_eq!(self.state, State::Probing);
        self.certificates.found(findings);
        self.advance(env)
    }

    fn connected(&mut self, server: SocketAddr, local: SocketAddr, env: &mut Env<'_>) -> Step {
        if self.intercepting.is_some() {
            return self.secure_server(server, env);
        }
        self.go(State::Open);
        match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Response(request) => {
                let step = self.exchange(&request);
                // Until it is answered: a refusal still depends on what was asked.
                self.owed = Owed::Response(request);
                step
            }
            owed => {
                self.reply.extend(owed.granted(Some(local)));
                Step::Tunnel { to_server: self.take_prelude() }
            }
        }
    }

    fn dial_failed(&mut self, error: DialError, _env: &mut Env<'_>) -> Step {
        self.close(error.into())
    }

    fn take_share(&mut self) -> Option<Share> {
        self.share.take()
    }

    fn is_reviewed(&self) -> bool {
        self.hangs_on_time()
    }

    fn review(&mut self, env: &mut Env<'_>) -> Option<CloseReason> {
        self.has_outlived_its_window(env).then_some(CloseReason::WindowClosed)
    }

    fn next_request(&mut self, mut leftover: Vec<u8>, env: &mut Env<'_>) -> Step {
        leftover.drain(..leftover.len() - http1::without_leading_lines(&leftover).len());
        self.owed = Owed::Nothing;
        self.head_end = HeadEnd::new();
        self.charge = None;
        self.go(State::RequestHead);
        if leftover.is_empty() {
            // Until the next one's first byte, what is known stays that of the last one.
            self.adopt(env.plan);
            self.prelude = Vec::new();
            self.idle_until = env.now + self.timeouts().idle;
            return Step::Read { until: self.idle_until };
        }
        self.prelude = leftover;
        self.begin_request(env);
        self.look(env)
    }

    fn close(&mut self, reason: CloseReason) -> Step {
        let wire = self.last_words(reason);
        if self.state != State::Closed {
            self.go(State::Closed);
        }
        Step::Close(Closing { reason, wire })
    }

    fn exchange_failed(&mut self, reason: CloseReason, answered: bool) -> Step {
        match super::request::status_of(reason) {
            Some((status, text)) if !answered => {
                let reply = self.http_reply(status, text, true);
                self.say(reply, reason)
            }
            _ => {
                self.go(State::Closed);
                Step::Close(Closing { reason, wire: Wire::Reset })
            }
        }
    }

    fn kept_server_left(&mut self) -> Step {
        // It may never have seen the request, so the client, which knows whether that may be sent twice, is told nothing
        // and repeats it (RFC 9112 §9.3.1).
        self.go(State::Closed);
        Step::Close(Closing { reason: CloseReason::ServerReset, wire: Wire::Quiet })
    }
}

impl Session {
    /// Whether the session reads the client's bytes now.
    pub fn is_reading(&self) -> bool {
        self.state.is_reading()
    }

    /// Whether there is memory for waiting with the present prelude.
    fn afford_prelude(&mut self, env: &Env<'_>) -> bool {
        let len = self.prelude.len();
        len <= FREE || self.charge.get_or_insert_with(|| Charge::new(env.preludes)).grow_to(len)
    }

    /// Looks at the unconsumed bytes as the state demands.
    pub(super) fn look(&mut self, env: &mut Env<'_>) -> Step {
        match self.state {
            State::Hello => self.look_for_tls(),
            State::ProxyHeader => self.look_for_proxy_header(env),
            State::RequestHead => self.look_for_request(env),
            State::SocksGreeting => self.look_for_socks_greeting(env),
            State::SocksPassword => self.look_for_socks_password(),
            State::SocksRequest => self.look_for_socks_request(env),
            _ => self.identify(env),
        }
    }

    fn look_for_proxy_header(&mut self, env: &mut Env<'_>) -> Step {
        match proxy_protocol::parse(&self.prelude) {
            Parse::NeedMore => Step::Read { until: self.in_time() },
            Parse::Malformed => self.close(CloseReason::BadProxyHeader),
            Parse::Complete(header) => {
                self.prelude.drain(..header.len.min(self.prelude.len()));
                let is_itself = |src, dest| src == self.client && env.locals.listens_at(dest);
                match introduction(&header, self.trusted, is_itself) {
                    Introduction::Client { src, wish } => {
                        self.client = src;
                        // Whoever speaks for it is our neighbour, not the client itself.
                        self.facts = Facts { mac: Known::Absent, ..facts_of(src) };
                        self.wants(wish, env)
                    }
                    Introduction::HealthCheck => self.close(CloseReason::HealthCheck),
                    Introduction::Refused => self.close(CloseReason::BadProxyHeader),
                }
            }
        }
    }

    /// What the client wants is known: ask the rules.
    pub(super) fn wants(&mut self, wish: Wish, env: &mut Env<'_>) -> Step {
        self.note_wish(wish);
        self.advance(env)
    }

    /// Takes in what the client wants.
    pub(super) fn note_wish(&mut self, wish: Wish) {
        match &wish {
            Wish::Address(addr) => {
                self.facts.port = Known::Is(addr.port());
                if self.target != Target::Name {
                    self.facts.dest = Known::Is(addr.ip().to_canonical());
                }
            }
            Wish::Name { port, .. } => self.facts.port = Known::Is(*port),
            Wish::Lost => {}
        }
        self.wish = wish;
    }

    /// Waits for bytes in `state`, from now on.
    pub(super) fn read(&mut self, state: State, now: Instant) -> Step {
        self.go(state);
        self.waiting_since = now;
        Step::Read { until: self.in_time() }
    }

    pub(super) fn in_time(&self) -> Instant {
        self.waiting_since + self.timeouts().process
    }

    pub(super) fn whole_by(&self) -> Instant {
        self.waiting_since + self.timeouts().process * 2
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.plan.service.timeouts
    }

    pub(super) fn take_prelude(&mut self) -> Vec<u8> {
        self.charge = None;
        std::mem::take(&mut self.prelude)
    }

    pub(super) fn go(&mut self, to: State) {
        debug_assert!(self.state.may_become(to), "{:?} to {to:?}", self.state);
        self.state = to;
    }
}
