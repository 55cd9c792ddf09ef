//! Conversations with the session machine under a fake clock: what happens on the left, what the session does on the right.

mod authentication;
mod connect;
#[cfg(feature = "quic")]
mod flow;
#[cfg(feature = "tls")]
mod https;
#[cfg(feature = "intercept")]
mod interception;
#[cfg(feature = "tls")]
mod probing;
mod proxy_header;
#[cfg(feature = "quic")]
mod quic_flows;
mod requests;
mod socks;
mod surroundings;
mod transparent;
mod walk;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{
    Associating, Budget, Closing, Device, Env, Machine, Memory, Report, Session, Step, Surroundings, Wire,
};
use crate::accept::Wish;
use crate::auth::Verification;
use crate::config::{self, LoadOptions, Plan};
use crate::connect::dial::DialError;
use crate::connect::probe::Finding;
use crate::connect::resolve::ResolveError;
use crate::decide::rules::{Locals, Ruleset};
use crate::decide::week::WeekTime;
use crate::decide::{Action, Verdict};
use crate::session::CloseReason;
use crate::wire::tls::tests::fixture;

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
enum In<'a> {
    /// It begins, and the kernel says that it was going there.
    To(&'a str),
    /// It begins, and nobody knows where it was going, or the client will say so itself.
    Start,
    /// The client sends this.
    Bytes(&'a [u8]),
    /// The client sends this, byte by byte; what is expected is the session's answer to the last.
    Slowly(&'a [u8]),
    /// The client will send nothing more.
    Eof,
    /// Nothing happens until the deadline.
    Silence,
    /// The clock goes on by so many milliseconds and nothing is called.
    Pause(u64),
    /// TLS stands.
    Secured,
    /// TLS with the server stands, and it speaks this.
    ServerSecured(Option<&'a [u8]>),
    /// The client did not accept our certificate.
    #[cfg(feature = "intercept")]
    Refused(CloseReason),
    /// It does not, or the client's stream broke.
    Closes(CloseReason),
    /// The word on the credentials.
    Verified(Verification),
    /// The resolver's answer.
    Addrs(&'a [&'a str]),
    /// The resolver found nothing.
    NoAddrs(ResolveError),
    /// What the certificates are worth.
    Probed(&'a [Finding]),
    /// An attempt to connect stands.
    Connected,
    /// None does.
    Unconnected(DialError),
    /// The exchange ended well, and this was read behind the request.
    Answered(&'a [u8]),
    /// The exchange broke, after the client saw a part of it or before.
    Broke(CloseReason, bool),
    /// A new configuration is in force.
    Reload(&'a str),
    /// The clock on the wall shows this.
    Clock(&'a str),
    /// What was accepted is looked at again.
    Review,
}

/// Hears the verdicts.
#[derive(Default)]
struct Verdicts(Vec<String>);

impl Report for Verdicts {
    fn verdict(&mut self, session: &Session, verdict: Verdict) {
        if verdict.action != Action::Observe {
            assert_eq!(session.verdict(), Some(verdict), "the session does not know its own verdict");
        }
        let word = match verdict.action {
            Action::Accept => "Accept",
            Action::Deny => "Denied",
            Action::Redirect => "Redirect",
            Action::Intercept => "Intercept",
            Action::Observe => "Observe",
        };
        self.0.push(format!("{word} {}", verdict.rule));
    }
}

/// What is around: a clock on the wall, and one device.
struct Home {
    time: WeekTime,
    device: (IpAddr, Device),
    /// How often somebody asked for a device.
    asked: AtomicUsize,
    /// Exceptions in force.
    passes: Option<Arc<Ruleset>>,
}

impl Surroundings for Home {
    fn passes(&self, _: Instant) -> Option<Arc<Ruleset>> {
        self.passes.clone()
    }

    fn week_time(&self) -> (WeekTime, Duration) {
        (self.time, Duration::from_secs(60))
    }

    fn device(&self, client: IpAddr, neighbour: bool) -> Device {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if neighbour && client == self.device.0 { self.device.1.clone() } else { Device::default() }
    }
}

/// One session, the world around it, and its clock.
struct Simulation {
    start: Instant,
    now: Instant,
    plan: Arc<Plan>,
    locals: Locals,
    session: Session,
    verdicts: Verdicts,
    preludes: Arc<Budget>,
    home: Home,
    memory: Memory,
    /// The step that the session waits in.
    until: Option<Instant>,
}

/// Which of the addresses dialled it is does not matter to a session.
const SERVER: &str = "198.51.100.1:443";
const CLIENT: &str = "192.168.1.20:51234";
/// Our end of the connection to the server.
const LOCAL: &str = "192.0.2.254:40000";

impl Simulation {
    fn new(config: &str) -> Self {
        Self::from_client(config, CLIENT)
    }

    fn from_client(config: &str, client: &str) -> Self {
        Self::under(load(config), client, Instant::now())
    }

    /// Another connection to the same listener, under the same plan and at the same time.
    #[cfg(feature = "intercept")]
    fn again(&self, client: &str) -> Self {
        Self::under(Arc::clone(&self.plan), client, self.now)
    }

    fn under(plan: Arc<Plan>, client: &str, now: Instant) -> Self {
        let listener = plan.service.listeners[0].clone();
        let session = Session::new(Arc::clone(&plan), &listener, client.parse().unwrap(), now);
        let locals = Locals { addrs: Vec::new(), tcp_ports: vec![4130], allow_local: false };
        let (verdicts, preludes) = (Verdicts::default(), Arc::default());
        let mac = Some("02:00:00:00:00:01".parse().unwrap());
        let device = ("192.168.1.20".parse().unwrap(), Device { mac, name: "tablet".into() });
        let time = "mon-12:00".parse().unwrap();
        let home = Home { time, device, asked: AtomicUsize::new(0), passes: None };
        let memory = Memory::new(now);
        Simulation { start: now, now, plan, locals, session, verdicts, preludes, home, memory, until: None }
    }

    /// Lets `input` happen; what the session does, in words: verdicts, bytes for the client, the step.
    fn happen(&mut self, input: In<'_>) -> String {
        match input {
            In::Pause(ms) => {
                self.now += Duration::from_millis(ms);
                return String::new();
            }
            In::Clock(time) => {
                self.home.time = time.parse().unwrap();
                return String::new();
            }
            In::Review => return self.review(),
            In::Reload(config) => {
                self.plan = load(config);
                return String::new();
            }
            In::Slowly(bytes) => {
                let (last, before) = bytes.split_last().unwrap();
                for byte in before {
                    let said = self.happen(In::Bytes(&[*byte]));
                    assert!(said.starts_with("read"), "{said:?} before the last byte");
                }
                return self.happen(In::Bytes(&[*last]));
            }
            In::Silence => self.now = self.until.expect("a deadline"),
            _ => {}
        }
        let step = self.tell(input);
        self.until = match &step {
            Step::Read { until } => Some(*until),
            Step::Secure(securing) | Step::SecureServer(securing) => Some(securing.until),
            _ => None,
        };
        let reply = self.session.take_reply();
        let mut words: Vec<String> = std::mem::take(&mut self.verdicts.0);
        if !reply.is_empty() {
            words.push(first_line(&reply));
        }
        words.push(self.show(&step));
        words.join(", ")
    }

    fn tell(&mut self, input: In<'_>) -> Step {
        let Simulation { session, verdicts, plan, locals, preludes, home, memory, .. } = self;
        let surroundings = &*home;
        let env = &mut Env { now: self.now, plan, locals, preludes, surroundings, memory, report: verdicts };
        match input {
            In::To(addr) => session.start(Wish::Address(addr.parse().unwrap()), env),
            In::Start => session.start(Wish::Lost, env),
            In::Bytes(bytes) => session.bytes(bytes, env),
            In::Eof => session.end_of_stream(env),
            In::Secured => session.secured(env),
            In::ServerSecured(alpn) => session.server_secured(alpn, env),
            #[cfg(feature = "intercept")]
            In::Refused(reason) => session.certificate_refused(reason, env),
            In::Closes(reason) => session.close(reason),
            In::Silence => session.deadline(env),
            In::Verified(verification) => session.verified(verification, env),
            In::Addrs(addrs) => {
                session.resolved(Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect()), env)
            }
            In::NoAddrs(error) => session.resolved(Err(error), env),
            In::Probed(findings) => session.probed(findings.to_vec(), env),
            In::Connected => session.connected(SERVER.parse().unwrap(), LOCAL.parse().unwrap(), env),
            In::Unconnected(error) => session.dial_failed(error, env),
            In::Answered(leftover) => session.next_request(leftover.to_vec(), env),
            In::Broke(reason, answered) => session.exchange_failed(reason, answered),
            In::Pause(_) | In::Reload(_) | In::Slowly(_) | In::Clock(_) | In::Review => {
                unreachable!("done by the caller")
            }
        }
    }

    fn review(&mut self) -> String {
        let Simulation { session, verdicts, plan, locals, preludes, home, memory, .. } = self;
        if !session.is_reviewed() {
            return "not reviewed".to_owned();
        }
        let surroundings = &*home;
        let env = &mut Env { now: self.now, plan, locals, preludes, surroundings, memory, report: verdicts };
        session.review(env).map_or("goes on", CloseReason::as_str).to_owned()
    }

    fn show(&self, step: &Step) -> String {
        match step {
            Step::Read { until } => format!("read until {}", (*until - self.start).as_millis()),
            Step::SecureServer(securing) => {
                format!("secure server until {}", (securing.until - self.start).as_millis())
            }
            Step::Secure(securing) => {
                let until = (securing.until - self.start).as_millis();
                format!("secure {} until {until}", securing.received.len())
            }
            Step::Verify(credentials) => format!("verify {credentials:?}"),
            Step::Resolve(name) => format!("resolve {name}"),
            Step::Probe(targets) => {
                let addrs: Vec<String> = targets.iter().map(|target| target.addr.to_string()).collect();
                format!("probe {} at {}", targets[0].name, addrs.join(" "))
            }
            Step::Dial(addrs) => {
                format!("dial {}", addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            Step::Associate(Associating { user, port }) => format!("associate {user:?} {port:?}"),
            Step::Tunnel { to_server } => format!("tunnel {}", to_server.len()),
            Step::Exchange(exchange) => {
                let behind = exchange.after_head.len();
                let kept = if exchange.keep_alive { "" } else { ", then close" };
                format!("exchange {} +{behind}{kept}", first_line(&exchange.head))
            }
            Step::Close(Closing { reason, wire }) => {
                let wire = match wire {
                    Wire::Reset => "reset".to_owned(),
                    Wire::Quiet => "quiet".to_owned(),
                    Wire::Say(words) if *words == [21, 3, 3, 0, 2, 2, 112] => "alert".to_owned(),
                    Wire::Say(words) => first_line(words),
                };
                format!("close {}: {wire}", reason.as_str())
            }
        }
    }
}

/// Reads `config` as the daemon would.
fn load(config: &str) -> Arc<Plan> {
    match config::load(config, Path::new("test.yml"), LoadOptions::default()) {
        Ok(loaded) => Arc::new(loaded.plan),
        Err(problems) => panic!("{problems}\n{config}"),
    }
}

/// A configuration with one listener and these rules, each the inside of a YAML map.
fn config(listener: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("  - {{ {rule} }}\n")).collect();
    format!("service:\n  listen: [{{ {listener}, port: 4130 }}]\nrules:\n{rules}")
}

/// `HTTP/1.1 403 Forbidden` is `403`; a request line is itself; what is no text is in hexadecimal.
fn first_line(bytes: &[u8]) -> String {
    if bytes.iter().any(|byte| matches!(byte, 0..=9 | 0x80..)) {
        return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix("HTTP/1.1 ") {
        Some(status) => status.split(' ').next().unwrap_or_default().to_owned(),
        None => line.to_owned(),
    }
}

/// Holds a conversation and checks every line of it.
#[track_caller]
fn talk(config: &str, conversation: &[(In<'_>, &str)]) -> Simulation {
    let mut simulation = Simulation::new(config);
    go_on(&mut simulation, conversation);
    simulation
}

#[track_caller]
fn go_on(simulation: &mut Simulation, conversation: &[(In<'_>, &str)]) {
    for (line, (input, expected)) in conversation.iter().enumerate() {
        assert_eq!(simulation.happen(*input), *expected, "line {line}: {input:?}");
    }
}

/// A ClientHello for `name`, in one record.
fn hello(name: &str) -> Vec<u8> {
    let body = fixture::HelloBody::new(vec![fixture::server_name(name)]);
    fixture::record(&body.message())
}

/// A ClientHello without a name.
fn nameless_hello() -> Vec<u8> {
    fixture::record(&fixture::HelloBody::new(vec![fixture::supported_versions(&[0x0304])]).message())
}
