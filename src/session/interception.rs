//! TLS that is decrypted: the server's end first, then the client's, and what is decided inside.
//!
//! ```text
//! verdict ──► dial ──► TLS with the server ──► TLS with the client ──► requests, each decided ──► exchange
//!                      its certificate holds    with a leaf for that     or: no HTTP/1 ──► tunnel
//! ```
//!
//! The client's ClientHello waits in the prelude until the server's certificate has been found good, so that one that is not
//! is never hidden: the client then gets an alert. Both ends speak what the server has chosen of what the client offered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::machine::Session;
use super::owed::Owed;
use super::state::State;
use super::surroundings::decide;
use super::{CloseReason, Env, Machine as _, Securing, Step};
use crate::config::plan::Interception;
use crate::decide::facts::{Facts, Known, L7};
use crate::decide::{Action, Cert, Decision, RuleId, Verdict};
use crate::identify::tcp::Identifier;
use crate::identify::{Identity, Parsers};
use crate::wire::http1::{Authority, HeadEnd, Reject, Request, Target};

/// Protocols of a client's offer that are passed on; browsers send two or three.
const MAX_ALPN: usize = 16;

const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// How a connection in HTTP/2 begins (RFC 9113 §3.4), up to where it is certain that it is no request of HTTP/1.
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2";

/// Of what is decrypted without a word on what it is, only requests are looked for.
const INSIDE: Parsers = Parsers { tls: false, http: true, quic: false, dns: false, ntp: false };

/// A connection that is, or is going to be, decrypted.
#[derive(Debug)]
pub(super) struct Intercepting {
    by: Arc<Interception>,
    /// What is known of the connection, as the rules saw it outside.
    facts: Facts,
    /// Whose certificate the server must have, and the client gets.
    name: Option<ServerName<'static>>,
    /// What the server chose.
    alpn: Option<Box<[u8]>>,
}

impl Session {
    /// The rules say that the connection, which is TLS, is to be decrypted.
    pub(super) fn intercept(&mut self, verdict: Verdict, addrs: Vec<IpAddr>, env: &mut Env<'_>) -> Step {
        let Some(by) = self.plan.interception.clone() else {
            debug_assert!(false, "a rule intercepts, and nobody can");
            return self.deny_always(env);
        };
        let refused_before = by.pinned.as_ref().is_some_and(|pinned| {
            self.wanted_name().is_some_and(|name| pinned.has(self.client.ip(), &name, env.now))
        });
        if refused_before {
            return self.accept(Verdict { action: Action::Accept, ..verdict }, addrs, env);
        }
        self.intercepting =
            Some(Box::new(Intercepting { by, facts: self.facts.clone(), name: None, alpn: None }));
        self.accept(verdict, addrs, env)
    }

    /// The trusted name, else the address: what our certificate is made out to, and remembered under if it is refused.
    fn wanted_name(&self) -> Option<Box<str>> {
        match (&self.facts.name, &self.facts.dest) {
            (Known::Is(name), _) => Some(name.clone()),
            (_, Known::Is(ip)) => Some(ip.to_string().into()),
            _ => None,
        }
    }

    /// The connection to `server` stands: now TLS with it, under the client's name and with the client's protocols.
    pub(super) fn secure_server(&mut self, server: SocketAddr, env: &Env<'_>) -> Step {
        self.facts.dest = Known::Is(server.ip().to_canonical());
        if self.facts.cert.is_unknown() {
            // Behind the handshake it is the one, without a name the other; without the handshake nobody asks.
            let is_named = self.facts.name.is().is_some();
            self.facts.cert = Known::Is(if is_named { Cert::Valid } else { Cert::Unknown });
        }
        let name = match &self.facts.name {
            Known::Is(name) => ServerName::try_from(String::from(&**name)).ok(),
            Known::Unknown | Known::Absent => Some(ServerName::from(server.ip().to_canonical())),
        };
        let alpn = self.offer(env);
        self.go(State::SecuringServer);
        let (Some(name), Some(intercepting)) = (name, &mut self.intercepting) else {
            return self.close(CloseReason::ServerTlsFailed);
        };
        intercepting.facts = self.facts.clone();
        let role = intercepting.by.ends.towards_server(name.clone(), alpn);
        intercepting.name = Some(name);
        let until = env.now + self.timeouts().connect;
        Step::SecureServer(Securing { role, received: Vec::new(), until })
    }

    /// What of the client's offer the server gets to see. HTTP/2 is not read here, so it is not offered where the rules want
    /// to know what is asked for in it.
    fn offer(&self, env: &Env<'_>) -> Vec<Vec<u8>> {
        let offered = self.identity.as_ref().and_then(Identity::hello).map(|hello| &*hello.alpn);
        let offered = offered.unwrap_or_default();
        let mut passed_on: Vec<Vec<u8>> =
            // An empty one is nobody's (RFC 7301 §3.1), and rustls would send it as it is.
            offered.iter().filter(|protocol| !protocol.is_empty()).take(MAX_ALPN).map(|protocol| protocol.to_vec()).collect();
        if passed_on.iter().any(|protocol| protocol == HTTP_2) && self.may_carry(L7::H2, env).is_err() {
            passed_on.retain(|protocol| protocol != HTTP_2);
            if passed_on.is_empty() {
                passed_on.push(HTTP_1.to_vec());
            }
        }
        passed_on
    }

    /// Whether something that is no HTTP/1 may go through as it is: by which rule, either way.
    fn may_carry(&self, l7: L7, env: &Env<'_>) -> Result<Verdict, Verdict> {
        match decide(&self.plan, &mut self.facts_without_request(l7), env) {
            Decision::Verdict(verdict) if verdict.action.lets_through() => {
                Ok(Verdict { action: Action::Accept, ..verdict })
            }
            Decision::Verdict(verdict) => Err(Verdict { action: Action::Deny, ..verdict }),
            // It hangs on what nobody reads.
            Decision::Need(_) => Err(Verdict { action: Action::Deny, rule: RuleId::Default }),
        }
    }

    /// What is known of something that is no HTTP/1. A line that begins as a request's does may be one for a server that is
    /// less strict (`GET  /ads`), or go on as one after a while: what it asks for is as unknown as in HTTP/2.
    fn facts_without_request(&self, l7: L7) -> Facts {
        let hides_request = l7 == L7::H2 || begins_like_request(&self.prelude);
        let request = if hides_request { Known::Unknown } else { Known::Absent };
        Facts { l7: Known::Is(l7), host: request.clone(), path: request, ..self.facts.clone() }
    }

    /// TLS with the server stands, so its certificate is good: now TLS with the client.
    pub(super) fn secure_client(&mut self, alpn: Option<&[u8]>, env: &Env<'_>) -> Step {
        let Some(intercepting) = &mut self.intercepting else {
            return self.close(CloseReason::ServerTlsFailed);
        };
        intercepting.alpn = alpn.map(Box::from);
        let leaf = intercepting.name.as_ref().map(|name| intercepting.by.minter.leaf(name));
        let Some(Ok(leaf)) = leaf else { return self.close(CloseReason::OutOfResources) };
        let role = intercepting.by.ends.towards_client(leaf, alpn);
        self.go(State::Securing);
        self.waiting_since = env.now;
        Step::Secure(Securing { role, received: self.take_prelude(), until: self.in_time() })
    }

    /// The client did not accept our certificate.
    pub(super) fn remember_refusal(&mut self, env: &Env<'_>) {
        if let (Some(intercepting), Some(name)) = (&self.intercepting, self.wanted_name())
            && let Some(pinned) = &intercepting.by.pinned
        {
            pinned.remember(self.client.ip(), &name, env.now);
        }
    }

    /// TLS stands on both ends.
    pub(super) fn go_inside(&mut self, env: &mut Env<'_>) -> Step {
        // A CONNECT outside had another head.
        self.head_end = HeadEnd::new();
        let alpn = self.intercepting.as_ref().and_then(|intercepting| intercepting.alpn.as_deref());
        match alpn {
            Some(HTTP_1 | b"http/1.0" | b"http/0.9") => {
                self.go(State::RequestHead);
                // As a server's: browsers connect before they know what to ask for.
                self.idle_until = env.now + self.timeouts().idle;
                Step::Read { until: self.idle_until }
            }
            Some(HTTP_2) => self.carry(L7::H2, env),
            Some(_) => self.carry(L7::None, env),
            None => {
                self.identifier = Identifier::new(INSIDE);
                self.read(State::FirstBytes, env.now)
            }
        }
    }

    /// What the decrypted first bytes are.
    pub(super) fn identified_inside(&mut self, identity: &Identity, env: &mut Env<'_>) -> Step {
        if matches!(identity, Identity::Http { .. }) {
            self.go(State::RequestHead);
            self.begin_request(env);
            return self.look_for_request(env);
        }
        let l7 = if self.prelude.starts_with(HTTP_2_PREFACE) { L7::H2 } else { L7::None };
        self.carry(l7, env)
    }

    /// Bytes both ways, if the rules let what is no HTTP/1 through.
    fn carry(&mut self, l7: L7, env: &mut Env<'_>) -> Step {
        let verdict = self.may_carry(l7, env);
        self.facts = self.facts_without_request(l7);
        if self.state == State::Securing {
            self.go(State::FirstBytes);
        }
        match verdict {
            Ok(verdict) => {
                if let Some(beyond) = self.go_beyond_limits(verdict, env) {
                    return beyond;
                }
                self.announce(verdict, env);
            }
            Err(denied) => {
                self.announce(denied, env);
                return self.close(CloseReason::Denied);
            }
        }
        self.go(State::Open);
        Step::Tunnel { to_server: self.take_prelude() }
    }

    /// What is known of a request inside before it is read.
    pub(super) fn outside_facts(&self) -> Option<Facts> {
        self.intercepting.as_ref().map(|intercepting| intercepting.facts.clone())
    }

    /// Decides `request`, the head at the front of the prelude. `intercept` has been done, and lets it through.
    pub(super) fn consider_inside(
        &mut self,
        request: Request,
        host: Result<(), Reject>,
        env: &mut Env<'_>,
    ) -> Step {
        if let Err(reject) = host {
            return self.reject(reject);
        }
        let asked_for = match &request.target {
            Target::Authority { .. } => {
                return self
                    .reject(Reject { status: 400, reason: "CONNECT inside of a connection to a server" });
            }
            Target::Absolute { host, .. } => Some(host.clone()),
            Target::Origin | Target::Asterisk => {
                request.host_header.as_deref().and_then(|host| Some(Authority::parse(host).ok()?.host))
            }
        };
        self.note_request(asked_for.as_ref(), &request.path);
        let verdict = match decide(&self.plan, &mut self.facts, env) {
            Decision::Verdict(verdict) => verdict,
            // Everything is known.
            Decision::Need(_) => Verdict { action: Action::Deny, rule: RuleId::Default },
        };
        if !verdict.action.lets_through() {
            self.owed = Owed::Response(Box::new(request));
            self.announce(Verdict { action: Action::Deny, ..verdict }, env);
            return self.refuse(env);
        }
        let verdict = Verdict { action: Action::Accept, ..verdict };
        if let Some(beyond) = self.go_beyond_limits(verdict, env) {
            return beyond;
        }
        self.announce(verdict, env);
        self.go(State::Open);
        let step = self.exchange(&request);
        self.owed = Owed::Response(Box::new(request));
        step
    }
}

/// Whether these are the beginning of a line whose first word may be a method (RFC 9112 §3).
fn begins_like_request(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start();
    let word = line.iter().take_while(|byte| byte.is_ascii_alphabetic() || b"-_".contains(byte)).count();
    word > 0 && matches!(line.get(word), None | Some(b' ' | b'\t'))
}
