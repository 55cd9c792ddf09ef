//! What an engine asks of a session machine: the engine is written once, for every program that takes connections in and
//! relays them, and each program links only what its own machine needs.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::flow::Watch;
use super::{CloseReason, Env, Step};
use crate::accept::Wish;
use crate::auth::{Users, Verification};
use crate::config::{Listener, Service};
use crate::connect::dial::{DialError, Dialer};
use crate::connect::probe::Finding;
use crate::connect::resolve::ResolveError;
use crate::identify::{Identity, Parsers};
use crate::logging::Field;
use crate::metrics::Metrics;
use crate::quota::Share;

/// One client connection's state machine. It does no I/O: it is told what happened and answers with the [`Step`] to be
/// taken next.
pub trait Machine: Debug + Send + Sized + 'static {
    /// What it works by.
    type Plan: AsRef<Service> + Debug + Send + Sync;
    /// What is reported once for a connection, or for each request on it.
    type Verdict: Copy;
    /// What is kept of it for the log while bytes are relayed.
    type Record: Record<Self>;

    /// Whether it ever looks at what clients send, be it only at a PROXY header, and answers [`Step::Read`]. The code for that
    /// is left out of a program whose machine does not.
    const READS: bool = true;

    /// Whether it ever answers [`Step::Exchange`]; likewise.
    const EXCHANGES: bool;

    /// Whether it ever answers [`Step::Verify`]; likewise.
    const VERIFIES: bool;

    /// Whether it ever is reviewed or has a share, while its bytes are relayed; likewise.
    const TIES: bool = false;

    /// Whether it ever answers [`Step::Resolve`]. A program whose machine does not has no resolver.
    const RESOLVES: bool;

    /// Whether it ever answers [`Step::SecureServer`]; likewise.
    const INTERCEPTS: bool = false;
    /// Whether it takes flows of datagrams, too; likewise.
    const DATAGRAMS: bool;
    /// Whether it ever answers [`Step::Probe`]; likewise.
    const PROBES: bool;

    /// Whether it ever answers [`Step::Associate`]; likewise.
    const ASSOCIATES: bool = false;

    /// A connection that `listener` accepted from `client`.
    fn new(plan: Arc<Self::Plan>, listener: &Listener, client: SocketAddr, now: Instant) -> Self;

    /// A flow of datagrams that `client` began at `listener`.
    fn over_datagrams(plan: Arc<Self::Plan>, listener: &Listener, client: SocketAddr, now: Instant) -> Self {
        Self::new(plan, listener, client, now)
    }

    /// The client has said elsewhere who it is. Told before [`Machine::start`].
    fn known_as(&mut self, _user: &str) {}

    /// The plan that this session was begun under.
    fn plan(&self) -> &Arc<Self::Plan>;

    /// What of it concerns the engine.
    fn service(&self) -> &Service {
        self.plan().as_ref().as_ref()
    }

    /// The client: as accepted, or as a PROXY header says.
    fn client(&self) -> SocketAddr;

    /// Whether the client is known: behind a PROXY header not before that is read.
    fn is_source_known(&self) -> bool {
        true
    }

    /// Whether nothing is under way: the client was served, and may ask for something more, or not.
    fn is_idle(&self) -> bool {
        false
    }

    /// Where it goes, as far as it is known.
    fn destination(&self) -> Option<SocketAddr>;

    /// Whether there is something to send as soon as the connection to the server stands.
    fn has_greeting(&self) -> bool;

    /// What the client is to be sent before the step just returned is taken.
    fn take_reply(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What the server is to be sent before the client's bytes, and before each of its datagrams, as the server sends it before
    /// each answer. It is none of them and not counted.
    fn take_greeting(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The parsers with which to look at the relayed bytes in passing, if nobody has seen the first of them yet.
    fn unseen(&self) -> Option<Parsers> {
        None
    }

    /// Dials `addrs`, the addresses of a [`Step::Dial`], so many times over all of them.
    fn dialer(&self, addrs: Vec<SocketAddr>, rounds: u32) -> Dialer {
        Dialer::new(addrs, rounds, self.service().timeouts.connect)
    }

    /// Begins. `wish` is what a transparent client wants; other clients say so themselves.
    fn start(&mut self, wish: Wish, env: &mut Env<'_, Self>) -> Step;

    /// TLS of the last [`Step::Secure`] stands.
    fn secured(&mut self, _env: &mut Env<'_, Self>) -> Step {
        self.close(CloseReason::TlsFailed)
    }

    /// TLS of the last [`Step::SecureServer`] stands, and this is what the server chose to speak inside of it.
    fn server_secured(&mut self, _alpn: Option<&[u8]>, _env: &mut Env<'_, Self>) -> Step {
        self.close(CloseReason::ServerTlsFailed)
    }

    /// The client broke the handshake of the last [`Step::Secure`] off when it had seen our certificate.
    fn certificate_refused(&mut self, reason: CloseReason, _env: &mut Env<'_, Self>) -> Step {
        self.close(reason)
    }

    /// Whether the connection to the server cannot be replaced by another one.
    fn is_bound(&self) -> bool {
        false
    }

    /// Begins a connection that this program itself has dialled and that a firewall has sent back: it ends at once.
    fn comes_back(&mut self, wish: Wish, env: &mut Env<'_, Self>) -> Step;

    /// The client sent something.
    fn bytes(&mut self, bytes: &[u8], env: &mut Env<'_, Self>) -> Step;

    /// The client sent a datagram.
    fn datagram(&mut self, datagram: &[u8], env: &mut Env<'_, Self>) -> Step {
        self.bytes(datagram, env)
    }

    /// The way of the last [`Step::Associate`] is open, and `relay` is where datagrams are awaited: what the client is told.
    fn associated(&mut self, _relay: SocketAddr) -> Vec<u8> {
        Vec::new()
    }

    /// Bytes of memory that it takes for the datagrams that it was shown.
    fn kept(&self) -> usize {
        0
    }

    /// What of a flow is looked at from now on, as it was let in.
    fn watch(&mut self, _env: &Env<'_, Self>) -> Watch {
        Watch::Nothing
    }

    /// What its client is told if the flow that began with this datagram is refused.
    fn refusal(&self, _datagram: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Whether Encrypted ClientHello is cut out of the answers of DNS that this client gets over a stream.
    fn strips_ech(&self) -> bool {
        false
    }

    /// What `client` is to be told instead of `answer`, a message of DNS that it has asked for, if not that.
    fn dns_answer(
        _plan: &Self::Plan,
        _client: IpAddr,
        _answer: &[u8],
        _env: &Env<'_, Self>,
    ) -> Option<Vec<u8>> {
        None
    }

    /// The client will send nothing more.
    fn end_of_stream(&mut self, env: &mut Env<'_, Self>) -> Step;

    /// The time given with the last [`Step::Read`] has passed.
    fn deadline(&mut self, env: &mut Env<'_, Self>) -> Step;

    /// Who may come in where this client did; nothing where nobody is asked who it is.
    fn users(&self) -> Option<&Arc<Users>> {
        None
    }

    /// The last [`Step::Verify`] was carried out.
    fn verified(&mut self, _verification: Verification, _env: &mut Env<'_, Self>) -> Step {
        self.close(CloseReason::Unauthenticated)
    }

    /// The resolver answered the last [`Step::Resolve`].
    fn resolved(&mut self, result: Result<Vec<IpAddr>, ResolveError>, env: &mut Env<'_, Self>) -> Step;

    /// What the targets of the last [`Step::Probe`] came to, in their order.
    fn probed(&mut self, _findings: Vec<Finding>, _env: &mut Env<'_, Self>) -> Step {
        self.close(CloseReason::Denied)
    }

    /// The connection to `server`, one of the last [`Step::Dial`], stands; `local` is our own end of it.
    fn connected(&mut self, server: SocketAddr, local: SocketAddr, env: &mut Env<'_, Self>) -> Step;

    /// An attempt of the last [`Step::Dial`] failed; others may be under way or follow.
    fn unreached(&mut self, _server: SocketAddr, _error: DialError, _now: Instant) {}

    /// No connection of the last [`Step::Dial`] came about.
    fn dial_failed(&mut self, error: DialError, env: &mut Env<'_, Self>) -> Step;

    /// The addresses of the last [`Step::Dial`] turned out to be this machine's own.
    fn leads_here(&mut self, env: &mut Env<'_, Self>) -> Step;

    /// Ends the session for a reason that the engine found.
    fn close(&mut self, reason: CloseReason) -> Step;

    /// What its relayed bytes count towards; it is given back when it is dropped.
    fn take_share(&mut self) -> Option<Share> {
        None
    }

    /// Whether what was accepted is looked at again each minute while it is relayed, as it hangs on the time
    /// or on its server.
    fn is_reviewed(&self) -> bool {
        false
    }

    /// Looks at that: why the session must end, if it must.
    fn review(&mut self, _env: &mut Env<'_, Self>) -> Option<CloseReason> {
        None
    }

    /// The exchange is over and the client may send its next request, the beginning of which is `leftover`.
    fn next_request(&mut self, _leftover: Vec<u8>, _env: &mut Env<'_, Self>) -> Step {
        self.close(CloseReason::Finished)
    }

    /// The exchange broke. `answered`: the client has seen a part of the response, so only a reset tells it the truth.
    fn exchange_failed(&mut self, reason: CloseReason, _answered: bool) -> Step {
        self.close(reason)
    }

    /// The server, which had answered this client before, closed without a word.
    fn kept_server_left(&mut self) -> Step {
        self.close(CloseReason::ServerReset)
    }
}

/// What the outside learns of a session: the log's words, the counters, and what is kept of it for its closing line.
pub trait Record<M: Machine>: Debug + Default + Send {
    /// The log's word for a verdict.
    fn word(verdict: M::Verdict) -> &'static str;

    /// What the verdict line says of the session.
    fn fields(session: &M, verdict: M::Verdict) -> Vec<Field<'_>>;

    /// Counts the verdict on a session.
    fn count(session: &M, verdict: M::Verdict, metrics: &Metrics);

    /// Takes in what is known now.
    fn take_in(&mut self, session: &M);

    /// A look at the first relayed bytes in passing; true if that was enough.
    fn glimpse(&mut self, _parsers: Parsers, _bytes: &[u8], _metrics: &Metrics) -> bool {
        true
    }

    /// What a look at datagrams in passing has told.
    fn saw(&mut self, _identity: &Identity, _metrics: &Metrics) {}

    /// Where the session went when it was last taken in.
    fn destination(&self) -> Option<SocketAddr>;

    /// The log's word for what was decided, once it was.
    fn verdict(&self) -> Option<&'static str> {
        None
    }

    /// What decided so.
    fn decision(&self) -> Option<Field<'_>>;

    /// Who the client is, where it was asked.
    fn user(&self) -> Option<Field<'_>> {
        None
    }

    /// What is spoken there.
    fn protocol(&self) -> Option<Field<'_>> {
        None
    }

    /// Whether that is DNS.
    fn speaks_dns(&self) -> bool {
        false
    }

    /// The name as sent.
    fn name(&self) -> Option<Field<'_>> {
        None
    }
}
