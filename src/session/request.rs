//! The HTTP proxy's requests, one after the other on a connection.

use super::decision::facts_of;
use super::machine::Session;
use super::owed::Owed;
use super::probing::Certificates;
use super::state::State;
use super::surroundings::decide;
use super::{CloseReason, Closing, Env, Exchange, Machine, Step, Wire};
use crate::accept::{self, Wish};
use crate::decide::facts::{Facts, Known, L5, L7};
use crate::decide::request::normalise_path;
use crate::decide::{Action, Decision, Verdict, name};
use crate::wire::http1::{self, Framing, HeadEnd, Host, Reject, Request, Target};

impl Session {
    /// The first bytes of a further request are here: the time for a head and the rules of this moment count, and nothing
    /// of the last request.
    pub(super) fn begin_request(&mut self, env: &Env<'_>) {
        self.adopt(env.plan);
        self.waiting_since = env.now;
        (self.share, self.refused) = (None, None);
        if let Some(facts) = self.outside_facts() {
            // What was true when the connection began is true no longer.
            self.facts = Facts { time: Known::Unknown, ..facts };
            return;
        }
        self.facts = facts_of(self.client);
        self.identity = None;
        self.resolved = None;
        self.certificates = Certificates::default();
        self.wish = Wish::Lost;
    }

    pub(super) fn look_for_request(&mut self, env: &mut Env<'_>) -> Step {
        let is_no_text = self.prelude.first().copied().is_some_and(accept::http::is_no_text);
        if is_no_text && self.intercepting.is_none() {
            return self.say(http1::reply(400, SPEAKS_HTTP, true), CloseReason::WrongProtocol);
        }
        let Some(end) = self.head_end.find(&self.prelude) else {
            if self.prelude.len() > http1::MAX_HEAD {
                return self.reject(Reject { status: 431, reason: "the request head is larger than 32 KiB" });
            }
            return Step::Read { until: self.in_time() };
        };
        let head = self.prelude.get(..end).unwrap_or_default();
        if head.len() > http1::MAX_HEAD {
            return self.reject(Reject { status: 431, reason: "the request head is larger than 32 KiB" });
        }
        match http1::parse_request_and_host(head) {
            Ok((request, host)) if self.intercepting.is_some() => self.consider_inside(request, host, env),
            Ok((request, host)) => self.authenticate(request, host, env),
            Err(reject) => self.reject(reject),
        }
    }

    /// The client may ask for something: what does `request`, the head at the front of the prelude, want?
    pub(super) fn consider(&mut self, request: Request, host: Result<(), Reject>, env: &mut Env<'_>) -> Step {
        let wish = match accept::http::wish(&request) {
            Ok(wish) => wish,
            Err(reject) => return self.reject(reject),
        };
        if matches!(request.target, Target::Authority { .. }) {
            if let Err(reject) = host {
                return self.reject(reject);
            }
            self.prelude.drain(..request.len.min(self.prelude.len()));
            self.owed = Owed::Established;
        } else {
            if let Target::Absolute { host, .. } = &request.target {
                self.note_request(Some(host), &request.path);
            }
            // A request's protocol and name need no peek: the proxy itself resolves what it says.
            self.facts.l5 = Known::Is(L5::Http);
            self.facts.name = match &wish {
                Wish::Name { host, .. } => name::normalise(host.as_bytes()).map_or(Known::Absent, Known::Is),
                Wish::Address(_) | Wish::Lost => Known::Absent,
            };
            (self.facts.ech, self.facts.esni, self.facts.cert) =
                (Known::Absent, Known::Absent, Known::Absent);
            self.owed = Owed::Response(Box::new(request));
            if let Err(reject) = host {
                return self.reject_host(reject, wish, env);
            }
        }
        self.wants(wish, env)
    }

    /// A request whose Host field is missing, doubled or invalid goes nowhere. Where the rules would have sent it to https
    /// without knowing more, that is a refusal of theirs.
    fn reject_host(&mut self, reject: Reject, wish: Wish, env: &mut Env<'_>) -> Step {
        self.note_wish(wish);
        match decide(&self.plan, &mut self.facts, env) {
            Decision::Verdict(verdict) if verdict.action == Action::Redirect => {
                self.announce(Verdict { action: Action::Deny, ..verdict }, env);
                self.close(CloseReason::Denied)
            }
            _ => {
                let reply = self.http_reply(reject.status, reject.reason, true);
                self.say(reply, CloseReason::BadRequest)
            }
        }
    }

    /// Whether the connection is still usable when `request`, the head at the front of the prelude, gets an answer of our
    /// own: its end is known, and no next request is in hand, as a pipeline of denied ones would nest as deep as it is
    /// long.
    pub(super) fn outlives(&self, request: &Request) -> bool {
        request.keep_alive
            && matches!(request.body, Framing::None | Framing::Length(0))
            && self.prelude.len() <= request.len
    }

    /// A denied request whose end is known leaves the connection usable; everything else ends with the refusal.
    pub(super) fn refuse(&mut self, env: &mut Env<'_>) -> Step {
        match &self.owed {
            Owed::Response(request) if self.outlives(request) => {
                let reply = self.http_reply(403, DENIED, false);
                self.reply.extend(reply);
                self.next_request(Vec::new(), env)
            }
            _ => self.close(CloseReason::Denied),
        }
    }

    /// Relays `request`, which the prelude begins with.
    pub(super) fn exchange(&mut self, request: &Request) -> Step {
        let buffered = self.take_prelude();
        let (head, after_head) = buffered.split_at(request.len.min(buffered.len()));
        // Only a connection that is nobody else's can change its protocol.
        let upgrades = self.intercepting.is_some() && http1::asks_for_upgrade(head, request);
        let forward = if upgrades { http1::forward_upgrade } else { http1::forward_request };
        Step::Exchange(Exchange {
            head: forward(head, request),
            upgrades,
            method: request.method.clone(),
            body: request.body,
            after_head: after_head.to_vec(),
            keep_alive: request.keep_alive,
            minor: request.minor,
        })
    }

    /// Takes in what an HTTP/1 request asks for.
    pub(super) fn note_request(&mut self, host: Option<&Host>, path: &str) {
        self.facts.l7 = Known::Is(L7::Http);
        self.facts.host = match host {
            Some(Host::Name(host)) => name::normalise(host.as_bytes()).map_or(Known::Absent, Known::Is),
            Some(Host::Ip(_)) | None => Known::Absent,
        };
        self.facts.path = Known::Is(normalise_path(path));
    }

    pub(super) fn reject(&mut self, reject: Reject) -> Step {
        self.say(http1::reply(reject.status, reject.reason, true), CloseReason::BadRequest)
    }

    /// An answer of our own to the request at hand: to HEAD without a body, which its client would take for the beginning
    /// of the next answer.
    pub(super) fn http_reply(&self, status: u16, text: &str, close: bool) -> Vec<u8> {
        let method = match &self.owed {
            Owed::Response(request) => &*request.method,
            Owed::Established | Owed::SocksReply | Owed::Nothing => "",
        };
        http1::reply_to(method, status, text, close)
    }

    /// Ends the session with these bytes.
    pub(super) fn say(&mut self, words: Vec<u8>, reason: CloseReason) -> Step {
        self.go(State::Closed);
        Step::Close(Closing { reason, wire: Wire::Say(words) })
    }
}

/// What a client is told that begins with a byte of no request: with TLS, or with SOCKS. Nothing that it could still send
/// makes a request of it.
const SPEAKS_HTTP: &str = "this port is an HTTP proxy, and that is no request";

/// What a denied HTTP client is told.
pub(super) const DENIED: &str = "denied by the proxy's rules";

/// The status and the text with which an HTTP client is told why, or nothing where it would not listen.
pub(super) fn status_of(reason: CloseReason) -> Option<(u16, &'static str)> {
    Some(match reason {
        CloseReason::Denied | CloseReason::Incomplete => (403, DENIED),
        CloseReason::Unauthenticated => (407, "the proxy wants to know who you are"),
        CloseReason::ProcessTimeout => (408, "the request was not complete in time"),
        CloseReason::BadRequest => (400, "the request cannot be understood"),
        CloseReason::BadResponse => (502, "the server's answer is not valid HTTP"),
        CloseReason::ServerReset => (502, "the server closed the connection before it answered"),
        CloseReason::NoDestination => (502, "there is no address to connect to"),
        CloseReason::NameNotFound => (502, "the name does not exist"),
        CloseReason::ResolveFailed => (504, "no nameserver answered"),
        CloseReason::ConnectRefused => (502, "the server refused the connection"),
        CloseReason::ConnectUnreachable => (502, "the server cannot be reached"),
        CloseReason::ConnectNetworkUnreachable => (502, "the server's network cannot be reached"),
        CloseReason::ConnectTimeout => (504, "the server did not answer in time"),
        CloseReason::ConnectFailed => (502, "the connection to the server failed"),
        CloseReason::Limit | CloseReason::OutOfResources => (503, "too many connections"),
        CloseReason::Finished
        | CloseReason::Redirected
        | CloseReason::ClientGone
        | CloseReason::ClientReset
        | CloseReason::Idle
        | CloseReason::HalfClosed
        | CloseReason::WrongProtocol
        | CloseReason::TlsFailed
        | CloseReason::BadCertificate
        | CloseReason::ServerTlsFailed
        | CloseReason::BadProxyHeader
        | CloseReason::UntrustedSender
        | CloseReason::HealthCheck
        | CloseReason::Shutdown
        | CloseReason::WindowClosed => return None,
    })
}

/// The method of the request that `bytes` begin with.
pub(super) fn method_of(bytes: &[u8]) -> &str {
    let line = bytes.trim_ascii_start();
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or_default();
    line.get(..end).and_then(|method| std::str::from_utf8(method).ok()).unwrap_or_default()
}

/// The head at the front of `bytes`.
pub(super) fn whole_head(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..HeadEnd::new().find(bytes)?)
}
