//! A session, driven as an engine drives it, by any client, resolver and network: only legal edges (which it asserts
//! itself), a bounded prelude, nothing dialled that the rules don't accept, no byte lost or doubled.
#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use calamary::accept::Wish;
use calamary::auth::Verification;
use calamary::config::{LoadOptions, Mode, Plan, load};
use calamary::connect::dial::DialError;
use calamary::connect::distrust::Distrust;
use calamary::connect::probe::{Doubt, Finding};
use calamary::connect::resolve::ResolveError;
use calamary::decide::rules::Locals;
use calamary::decide::{Cert, Decision, Known, Verdict};
use calamary::identify::tcp::{Identifier, MAX_PRELUDE};
use calamary::identify::{Identity, Outcome, Parsers};
use calamary::session::{CloseReason, Env, Exchange, Machine, Memory, Nowhere, Report, Session, Step, Wire};
use calamary::wire::http1::{HeadEnd, parse_request};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = include_str!("session.yml");
/// Paths in it start from its folder.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz_targets/session.yml");
/// What may happen to one session.
const MAX_EVENTS: usize = 200;
/// The largest read.
const MAX_READ: usize = 64 * 1024;
const CLIENT: &str = "127.0.0.1:50000";
const ADDRS: [&str; 7] =
    ["192.0.2.1", "10.0.0.1", "198.51.100.1", "2001:db8::1", "127.0.0.1", "203.0.113.1", "::ffff:192.0.2.2"];
const PORTS: [u16; 6] = [22, 25, 80, 443, 4128, 8080];
/// What clients begin with; everything else is the fuzzer's own.
static PHRASES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let words: [&[u8]; 23] = [
        b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"GET http://www.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://denied.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://secure.example/x HTTP/1.1\r\nHost: secure.example\r\n\r\n",
        b"POST http://www.example.com:8080/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT 192.0.2.1:22 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT www.example.com:25 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://www.alice.example/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n",
        b"CONNECT 192.0.2.1:22 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 51234 443\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 4133\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\x05\x01\x00",
        b"\x05\x01\x00\x05\x01\x00\x03\x0fwww.example.com\x01\xbb",
        b"\x05\x02\x00\x02",
        b"\x05\x02\x00\x02\x01\x05alice\x06secret\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb",
        b"\x05\x02\x00\x02\x05\x01\x00\x03\x0fwww.example.com\x01\xbb",
        b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x16",
        b"\x05\x01\x00\x03\x0edenied.example\x00\x50",
        b"\x05\x03\x00\x01\0\0\0\0\0\0",
        b"\x01\x05alice\x06secret",
        b"\0\x1d\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01",
    ];
    let hellos = ["www.example.com", "a.ads.test", "secure.example", "cloudflare-ech.com"].map(client_hello);
    hellos.into_iter().chain(words.map(<[u8]>::to_vec)).collect()
});

/// A ClientHello with this SNI and the extension of ECH, in one record.
fn client_hello(sni: &str) -> Vec<u8> {
    const EMPTY_ECH: [u8; 4] = [0xfe, 0x0d, 0, 0];
    let n = u8::try_from(sni.len()).unwrap();
    let mut hello = vec![22, 3, 1, 0, n + 57, 1, 0, 0, n + 53, 3, 3];
    hello.extend([b'R'; 32]);
    // No session id, no ciphers, no compression methods; then extensions, of which this is server_name.
    hello.extend([0, 0, 0, 0, 0, n + 13, 0, 0, 0, n + 5, 0, n + 3, 0, 0, n]);
    hello.extend(sni.bytes().chain(EMPTY_ECH));
    let identity = Identifier::new(Parsers::default()).look(&hello);
    assert!(matches!(identity, Outcome::Identified(Identity::Tls(_))));
    hello
}

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let loaded = load(CONFIG, Path::new(FILE), LoadOptions::default());
    Arc::new(loaded.unwrap_or_else(|problems| panic!("{problems}")).plan)
});

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let Ok(mut run) = Run::begin(u) else { return };
    for _ in 0..MAX_EVENTS {
        match run.event(u) {
            Ok(Going::On) => {}
            Ok(Going::Over) => return,
            // Input that ends is a client that falls silent.
            Err(_) => break,
        }
    }
    run.fall_silent();
});

const FINDINGS: [Finding; 3] =
    [Finding::Valid, Finding::Invalid(Distrust::WrongName), Finding::Unknown(Doubt::Refused)];

fn worth(finding: Finding) -> Cert {
    match finding {
        Finding::Valid => Cert::Valid,
        Finding::Invalid(_) => Cert::Invalid,
        Finding::Unknown(_) => Cert::Unknown,
    }
}

enum Going {
    On,
    Over,
}

/// Counts the verdicts.
#[derive(Default)]
struct Verdicts(usize);

impl Report for Verdicts {
    fn verdict(&mut self, session: &Session, verdict: Verdict) {
        assert_eq!(session.verdict(), Some(verdict));
        // What the log would say.
        let _ = (session.fields(verdict), session.destination());
        self.0 += 1;
    }
}

/// A session and the step that is to be taken.
struct Run {
    session: Session,
    locals: Locals,
    now: Instant,
    step: Step,
    /// Bytes read since the session began or was last free.
    fed: Vec<u8>,
    eof: bool,
    /// What was said of certificates.
    findings: Vec<(SocketAddr, Finding)>,
}

impl Run {
    fn begin(u: &mut Unstructured<'_>) -> Result<Self> {
        let listener = u.choose(&PLAN.service.listeners)?;
        let now = Instant::now();
        let mut run = Run {
            session: Session::new(Arc::clone(&PLAN), listener, CLIENT.parse().unwrap(), now),
            locals: Locals {
                addrs: vec!["203.0.113.1".parse().unwrap()],
                tcp_ports: PLAN.service.listeners.iter().map(|listener| listener.addr.port()).collect(),
                allow_local: u.arbitrary()?,
            },
            now,
            step: Step::Dial(Vec::new()),
            fed: Vec::new(),
            eof: false,
            findings: Vec::new(),
        };
        let wish = match listener.mode {
            Mode::Transparent if !u.ratio(1, 8)? => {
                let ip: IpAddr = u.choose(&ADDRS)?.parse().unwrap();
                Wish::Address(SocketAddr::new(ip.to_canonical(), *u.choose(&PORTS)?))
            }
            _ => Wish::Lost,
        };
        run.call(|session, env| session.start(wish, env));
        Ok(run)
    }

    /// One call as the engine makes it.
    fn call(&mut self, f: impl FnOnce(&mut Session, &mut Env<'_>) -> Step) {
        let mut verdicts = Verdicts::default();
        let mut env = Env {
            now: self.now,
            plan: &PLAN,
            locals: &self.locals,
            preludes: &Arc::default(),
            surroundings: &Nowhere,
            memory: &Memory::new(self.now),
            report: &mut verdicts,
        };
        self.step = f(&mut self.session, &mut env);
        assert!(verdicts.0 <= 1, "two verdicts in one call");
        let reply = self.session.take_reply();
        let begins: &[&[u8]] =
            if self.session.mode() == Mode::Socks5 && !self.session.is_bound() { &[b"\x05", b"\x01"] } else { &[b"HTTP/1.1 "] };
        let well = reply.is_empty() || begins.iter().any(|begin| reply.starts_with(begin));
        assert!(well, "{}", reply.escape_ascii());
    }

    fn event(&mut self, u: &mut Unstructured<'_>) -> Result<Going> {
        if let Step::Close(closing) = &self.step {
            assert!(!matches!(&closing.wire, Wire::Say(words) if words.is_empty()));
            return Ok(Going::Over);
        }
        if u.ratio(1, 64)? {
            let reason = *u.choose(&[CloseReason::ClientReset, CloseReason::Shutdown, CloseReason::Limit])?;
            self.call(|session, _| session.close(reason));
            assert!(matches!(self.step, Step::Close(_)));
            return Ok(Going::Over);
        }
        match std::mem::replace(&mut self.step, Step::Dial(Vec::new())) {
            Step::Read { until } => self.read(until, u)?,
            Step::Secure(securing) => {
                // TLS takes all of it, but for what was said to the proxy before, and what comes behind it are other bytes.
                assert!(self.fed.ends_with(&securing.received));
                assert!(self.session.is_bound() || securing.received.len() == self.fed.len());
                self.fed.clear();
                if u.ratio(1, 4)? {
                    self.call(|session, _| session.close(CloseReason::TlsFailed));
                } else {
                    self.call(|session, env| session.secured(env));
                }
            }
            Step::SecureServer(securing) => {
                assert!(securing.received.is_empty() && self.session.is_bound());
                let spoken: [Option<&[u8]>; 5] =
                    [None, Some(b"http/1.1"), Some(b"http/1.1"), Some(b"h2"), Some(b"x")];
                match u.int_in_range(0..=7)? {
                    0 => self.call(|session, _| session.close(CloseReason::BadCertificate)),
                    1 => self.call(|session, _| session.close(CloseReason::ServerTlsFailed)),
                    _ => {
                        let alpn = *u.choose(&spoken)?;
                        self.call(|session, env| session.server_secured(alpn, env));
                    }
                }
            }
            Step::Verify(credentials) => {
                assert!(self.session.users().is_some(), "{credentials:?} for nobody");
                let verifications = [Verification::Right, Verification::Wrong, Verification::Unavailable];
                let verification = *u.choose(&verifications)?;
                self.call(|session, env| session.verified(verification, env));
                if self.session.is_idle() {
                    self.fed.clear();
                }
            }
            Step::Resolve(name) => {
                assert!(!name.is_empty() && !name.ends_with('.'), "{name:?}");
                let result = match u.int_in_range(0..=7)? {
                    0 => Err(ResolveError::NotFound),
                    1 => Err(ResolveError::Failed),
                    2 => Ok(Vec::new()),
                    n => (3..=n)
                        .map(|_| Ok(u.choose(&ADDRS)?.parse().unwrap()))
                        .collect::<Result<_>>()
                        .map(Ok)?,
                };
                self.call(|session, env| session.resolved(result, env));
            }
            Step::Probe(targets) => {
                assert!(!targets.is_empty() && targets.len() <= 4);
                assert!(self.findings.is_empty(), "certificates are asked for again");
                for target in &targets {
                    self.findings.push((target.addr, *u.choose(&FINDINGS)?));
                }
                let findings = self.findings.iter().map(|(_, finding)| *finding).collect();
                self.call(|session, env| session.probed(findings, env));
            }
            Step::Dial(addrs) => {
                self.dialled(&addrs);
                if u.ratio(1, 4)? {
                    let error = *u.choose(&DialError::ALL)?;
                    self.call(|session, env| session.dial_failed(error, env));
                } else {
                    let local = u.choose(&["192.0.2.254:40000", "[2001:db8::254]:40000"])?.parse().unwrap();
                    self.call(|session, env| session.connected(addrs[0], local, env));
                }
            }
            Step::Associate(_) => {
                assert!(!self.session.associated("192.0.2.254:40000".parse().unwrap()).is_empty());
                return Ok(Going::Over);
            }
            Step::Tunnel { to_server } => {
                self.tunnelled(&to_server);
                return Ok(Going::Over);
            }
            Step::Exchange(exchange) => return self.exchange(exchange, u),
            Step::Close(_) => return Ok(Going::Over),
        }
        Ok(Going::On)
    }

    fn read(&mut self, until: Instant, u: &mut Unstructured<'_>) -> Result<()> {
        assert!(self.session.is_reading());
        match u.int_in_range(0..=15)? {
            0 => {
                self.now = self.now.max(until);
                self.deadline();
            }
            1 => {
                self.eof = true;
                self.call(|session, env| session.end_of_stream(env));
            }
            _ if self.eof => self.call(|session, env| session.end_of_stream(env)),
            2..=5 => {
                let phrase = u.choose(&PHRASES)?;
                self.feed(phrase);
            }
            6 => {
                let phrase = u.choose(&PHRASES)?;
                let (front, back) = phrase.split_at(u.int_in_range(0..=phrase.len())?);
                self.feed(if u.arbitrary()? { front } else { back });
            }
            7 => {
                let byte: u8 = u.arbitrary()?;
                self.feed(&vec![byte; u.int_in_range(1..=MAX_READ)?]);
            }
            8 => self.now += Duration::from_millis(u.int_in_range(0..=3000)?),
            _ => {
                let len = u.int_in_range(1..=40)?;
                let bytes = u.bytes(len.min(u.len()))?;
                self.feed(bytes);
            }
        }
        if matches!(self.step, Step::Dial(ref addrs) if addrs.is_empty()) {
            self.step = Step::Read { until };
        }
        Ok(())
    }

    fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.fed.extend_from_slice(bytes);
        self.call(|session, env| session.bytes(bytes, env));
        let reading = matches!(self.step, Step::Read { .. });
        assert!(!reading || self.fed.len() <= 2 * MAX_PRELUDE + 2 * MAX_READ, "the prelude has no bound");
        // A denied request was read and answered: what comes is the next one.
        if self.session.is_idle() {
            self.fed.clear();
        }
    }

    fn deadline(&mut self) {
        self.call(|session, env| session.deadline(env));
        if let Step::Read { until } = self.step {
            assert!(until > self.now, "a deadline that is over at once");
        }
    }

    /// Nobody gets anywhere unasked.
    fn authenticated(&self) {
        assert_eq!(self.session.users().is_some(), self.session.facts().user.is().is_some());
    }

    fn dialled(&self, addrs: &[SocketAddr]) {
        self.authenticated();
        assert!(!addrs.is_empty(), "nothing to dial");
        assert!(self.session.verdict().is_some_and(|verdict| verdict.action.lets_through()));
        for addr in addrs {
            let mut facts = self.session.facts().clone();
            assert_eq!(facts.port, Known::Is(addr.port()));
            facts.dest = Known::Is(addr.ip().to_canonical());
            if !self.findings.is_empty() {
                let finding = self.findings.iter().find(|(probed, _)| probed == addr);
                facts.cert = finding.map_or(Known::Unknown, |(_, finding)| Known::Is(worth(*finding)));
            }
            let decision = PLAN.rules.decide(&facts, &self.locals);
            let accepted = matches!(decision, Decision::Verdict(verdict) if verdict.action.lets_through());
            assert!(accepted, "{addr} is dialled, the rules say {decision:?} to {facts:?}");
        }
    }

    /// What the server gets is the end of what the client sent: all of it, but for what was said to the proxy.
    fn tunnelled(&self, to_server: &[u8]) {
        assert!(self.fed.ends_with(to_server));
        if self.session.mode() == Mode::Transparent {
            assert_eq!(to_server.len(), self.fed.len());
        }
    }

    fn exchange(&mut self, exchange: Exchange, u: &mut Unstructured<'_>) -> Result<Going> {
        assert_eq!(HeadEnd::new().find(&exchange.head), Some(exchange.head.len()));
        assert!(self.fed.ends_with(&exchange.after_head));
        if let Ok(request) = parse_request(&exchange.head) {
            assert_eq!((&request.method, request.body), (&exchange.method, exchange.body));
        }
        if !exchange.keep_alive || u.ratio(1, 4)? {
            let reason =
                *u.choose(&[CloseReason::ServerReset, CloseReason::BadResponse, CloseReason::BadRequest])?;
            let answered = u.arbitrary()?;
            self.call(|session, _| session.exchange_failed(reason, answered));
            assert!(matches!(self.step, Step::Close(_)));
            return Ok(Going::Over);
        }
        let behind = u.int_in_range(0..=exchange.after_head.len())?;
        let leftover = exchange.after_head[behind..].to_vec();
        self.fed = leftover.clone();
        self.call(|session, env| session.next_request(leftover, env));
        Ok(Going::On)
    }

    /// Nobody does anything any more: it comes to an end, and soon.
    fn fall_silent(mut self) {
        for _ in 0..8 {
            match std::mem::replace(&mut self.step, Step::Dial(Vec::new())) {
                Step::Read { until } => {
                    self.now = self.now.max(until);
                    self.deadline();
                }
                Step::Secure(securing) => {
                    self.now = self.now.max(securing.until);
                    self.deadline();
                }
                Step::SecureServer(_) => self.call(|session, _| session.close(CloseReason::ServerTlsFailed)),
                Step::Verify(_) => {
                    self.call(|session, env| session.verified(Verification::Unavailable, env));
                }
                Step::Resolve(_) => {
                    self.call(|session, env| session.resolved(Err(ResolveError::Failed), env))
                }
                Step::Probe(_) => self.call(|session, env| session.probed(Vec::new(), env)),
                Step::Dial(addrs) => {
                    self.dialled(&addrs);
                    self.call(|session, env| session.dial_failed(DialError::TimedOut, env));
                }
                Step::Associate(_) | Step::Tunnel { .. } | Step::Exchange(_) | Step::Close(_) => return,
            }
        }
        panic!("a session that does not end: {:?}", self.step);
    }
}
