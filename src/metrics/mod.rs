//! Counters, and the thread that serves them.
//!
//! One [`Metrics`] is shared by all threads. The numbers are relaxed atomics, added to once per event or per turn of a
//! session, never per system call; whatever can be derived (hits of rules, memory) is derived at the scrape.
//!
//! No label carries anything that a client chose: every label is one of our own words or the number of a rule, so the
//! number of series is bounded by the configuration.

mod counter;
#[cfg(feature = "metrics")]
mod pages;
mod render;
mod rules;
#[cfg(feature = "metrics")]
mod server;
#[cfg(feature = "metrics")]
mod status;

use std::net::IpAddr;
use std::time::Instant;

pub use counter::{Counter, Gauge};
use rules::Rules;
#[cfg(feature = "metrics")]
pub use server::Server;
#[cfg(feature = "metrics")]
pub use status::{Json, Overview};

use crate::config::Mode;
use crate::connect::dial::DialError;
use crate::connect::probe::Finding;
use crate::decide::{Action, L4, L5, RuleId, Verdict};
use crate::session::CloseReason;
use crate::sys::time;
use crate::wire::tls::Version;

/// Everything that is counted. The methods take what the callers have; which number changes is decided here.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    /// Seconds since 1970.
    started_at: i64,
    bytes_sent: Counter,
    bytes_received: Counter,
    connections: Gauge,
    sessions: [Gauge; MODES.len()],
    opened: [Counter; 2],
    families: [Counter; 2],
    protocols: [Counter; PROTOCOLS.len()],
    tls_versions: [Counter; TLS_VERSIONS.len()],
    actions: [Counter; ACTIONS.len()],
    rules: Rules,
    closed: [Counter; CloseReason::ALL.len()],
    dial_errors: [Counter; DialError::ALL.len()],
    dns_lookups: Counter,
    dns_answers: Counter,
    dns_failures: Counter,
    refused: [Counter; Limit::ALL.len()],
    attempts: [Counter; Attempt::ALL.len()],
    probes: [Counter; PROBED.len()],
    #[cfg(feature = "metrics")]
    denied: status::Denied,
}

/// Which limit a connection was refused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections`.
    Connections,
    /// `limits.perSource`.
    PerSource,
}

impl Limit {
    /// Every limit, in the order of declaration.
    pub const ALL: [Limit; 2] = [Limit::Connections, Limit::PerSource];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::PerSource => "per_source",
        }
    }
}

/// What became of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Right, and checked before.
    Remembered,
    /// Right.
    Right,
    /// Wrong.
    Wrong,
    /// Not checked, as too much was waiting.
    Unavailable,
}

impl Attempt {
    /// Every one, in the order of declaration.
    pub const ALL: [Attempt; 4] = [Attempt::Remembered, Attempt::Right, Attempt::Wrong, Attempt::Unavailable];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Attempt::Remembered => "remembered",
            Attempt::Right => "right",
            Attempt::Wrong => "wrong",
            Attempt::Unavailable => "unavailable",
        }
    }
}

/// The labels of [`Metrics::sessions`], at [`mode_index`].
const MODES: [Mode; 5] = [Mode::Transparent, Mode::Http, Mode::Https, Mode::ProxyProtocol, Mode::Socks5];
/// At [`protocol_index`].
const PROTOCOLS: [&str; 6] = ["TLS", "HTTP", "QUIC", "DNS", "NTP", "none"];
/// At [`tls_version_index`].
const TLS_VERSIONS: [&str; 6] = ["1.0", "1.1", "1.2", "1.3", "other", "none"];
/// At [`action_index`].
const ACTIONS: [&str; 4] = ["accept", "deny", "redirect", "intercept"];
/// At [`probed_index`].
const PROBED: [&str; 3] = ["valid", "invalid", "unknown"];
/// IPv4 and IPv6, in this order.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

fn mode_index(mode: Mode) -> usize {
    match mode {
        Mode::Transparent => 0,
        Mode::Http => 1,
        Mode::Https => 2,
        Mode::ProxyProtocol => 3,
        Mode::Socks5 => 4,
    }
}

fn protocol_index(l5: L5) -> usize {
    match l5 {
        L5::Tls => 0,
        L5::Http => 1,
        L5::Quic => 2,
        L5::Dns => 3,
        L5::Ntp => 4,
        L5::None => 5,
    }
}

fn tls_version_index(version: Option<Version>) -> usize {
    match version {
        Some(Version(0x0301)) => 0,
        Some(Version(0x0302)) => 1,
        Some(Version(0x0303)) => 2,
        Some(Version(0x0304)) => 3,
        Some(_) => 4,
        None => 5,
    }
}

fn action_index(action: Action) -> usize {
    match action {
        Action::Accept => 0,
        Action::Deny => 1,
        Action::Redirect => 2,
        Action::Intercept => 3,
        // Counted by its rule alone.
        Action::Observe => usize::MAX,
    }
}

fn probed_index(finding: Finding) -> usize {
    match finding {
        Finding::Valid => 0,
        Finding::Invalid(_) => 1,
        Finding::Unknown(_) => 2,
    }
}

fn l4_index(l4: L4) -> usize {
    match l4 {
        L4::Tcp => 0,
        L4::Udp => 1,
    }
}

/// Adds to the counter that stands at `index`; the tests below hold every index within its table.
fn add(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.add(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Nothing counted, no rules; the uptime begins.
    pub fn new() -> Self {
        Metrics {
            started: Instant::now(),
            started_at: time::now().secs,
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
            connections: Gauge::default(),
            sessions: Default::default(),
            opened: Default::default(),
            families: Default::default(),
            protocols: Default::default(),
            tls_versions: Default::default(),
            actions: Default::default(),
            rules: Rules::default(),
            closed: std::array::from_fn(|_| Counter::default()),
            dial_errors: Default::default(),
            dns_lookups: Counter::default(),
            dns_answers: Counter::default(),
            dns_failures: Counter::default(),
            refused: Default::default(),
            attempts: Default::default(),
            probes: Default::default(),
            #[cfg(feature = "metrics")]
            denied: Default::default(),
        }
    }

    /// A configuration with `count` rules is in force. Counters of rules whose index still exists go on.
    pub fn rules_loaded(&self, count: usize) {
        self.rules.resize(count);
    }

    /// A client's connection (or a UDP session) was taken in.
    pub fn connection_opened(&self, mode: Mode, l4: L4) {
        self.connections.increment();
        if let Some(gauge) = self.sessions.get(mode_index(mode)) {
            gauge.increment();
        }
        add(&self.opened, l4_index(l4));
    }

    /// What [`Metrics::connection_opened`] counted has ended.
    pub fn connection_closed(&self, mode: Mode, reason: CloseReason) {
        self.connections.decrement();
        if let Some(gauge) = self.sessions.get(mode_index(mode)) {
            gauge.decrement();
        }
        add(&self.closed, reason as usize);
    }

    /// A connection was refused before it was taken in.
    pub fn connection_refused(&self, limit: Limit) {
        add(&self.refused, limit as usize);
    }

    /// Credentials were checked, or could not be.
    pub fn authenticated(&self, attempt: Attempt) {
        add(&self.attempts, attempt as usize);
    }

    /// A server was asked for its certificate.
    pub fn probed(&self, finding: Finding) {
        add(&self.probes, probed_index(finding));
    }

    /// A connection or request was decided; `dest` is where it would go, if that is known. Once for each.
    pub fn verdict(&self, verdict: Verdict, dest: Option<IpAddr>) {
        add(&self.actions, action_index(verdict.action));
        self.rules.matched(verdict.rule);
        if let Some(dest) = dest {
            add(&self.families, usize::from(dest.to_canonical().is_ipv6()));
        }
    }

    /// A rule denied `device` what has this name, or what is at `dest`. For the status page alone, which shows the most frequent.
    #[cfg(feature = "metrics")]
    pub fn denied(&self, name: Option<&[u8]>, dest: Option<IpAddr>, device: &[u8]) {
        self.denied.add(name, dest, device);
    }

    /// An observing rule matches a connection or request, whatever the verdict on it.
    pub fn observed(&self, rule: RuleId) {
        self.rules.observed(rule);
    }

    /// The first bytes told what it is; `tls` is the highest version offered, where there is a ClientHello.
    pub fn identified(&self, l5: L5, tls: Option<Version>) {
        add(&self.protocols, protocol_index(l5));
        add(&self.tls_versions, tls_version_index(tls));
    }

    /// Payload that went towards the server, and that came from it; proxy headers are not payload.
    pub fn bytes(&self, sent: u64, received: u64) {
        // Most turns move bytes in one direction.
        if sent > 0 {
            self.bytes_sent.add(sent);
        }
        if received > 0 {
            self.bytes_received.add(received);
        }
    }

    /// One attempt to connect to one address failed.
    pub fn dial_error(&self, error: DialError) {
        add(&self.dial_errors, error as usize);
    }

    /// A name is being asked for, as neither the hosts file nor the cache had it.
    pub fn dns_lookup(&self) {
        self.dns_lookups.add(1);
    }

    /// A lookup ended: with an answer, be it that there are no addresses, or without one.
    pub fn dns_answered(&self, answered: bool) {
        if answered { &self.dns_answers } else { &self.dns_failures }.add(1);
    }

    /// Connections that are open now.
    pub fn current_connections(&self) -> u32 {
        self.connections.get()
    }

    /// Clients' connections so far.
    pub fn total_connections(&self) -> u64 {
        self.opened.iter().map(Counter::get).sum()
    }

    /// Payload so far: what [`Metrics::bytes`] was told.
    pub fn total_bytes(&self) -> (u64, u64) {
        (self.bytes_sent.get(), self.bytes_received.get())
    }

    /// How often `rule` gave the verdict.
    pub fn rule_matches(&self, rule: RuleId) -> u64 {
        self.rules.matches(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `as usize` and `get` rely on.
    #[test]
    fn every_index_is_its_place_in_the_table() {
        for (i, mode) in MODES.into_iter().enumerate() {
            assert_eq!(mode_index(mode), i);
        }
        for (i, error) in DialError::ALL.into_iter().enumerate() {
            assert_eq!(error as usize, i);
        }
        for (i, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, i);
        }
        for (l5, label) in [
            (L5::Tls, "TLS"),
            (L5::Http, "HTTP"),
            (L5::Quic, "QUIC"),
            (L5::Dns, "DNS"),
            (L5::Ntp, "NTP"),
            (L5::None, "none"),
        ] {
            assert_eq!(PROTOCOLS[protocol_index(l5)], label);
        }
        for (action, label) in [
            (Action::Accept, "accept"),
            (Action::Deny, "deny"),
            (Action::Redirect, "redirect"),
            (Action::Intercept, "intercept"),
        ] {
            assert_eq!(ACTIONS[action_index(action)], label);
        }
        for (code, label) in [
            (Some(0x0300), "other"),
            (Some(0x0301), "1.0"),
            (Some(0x0302), "1.1"),
            (Some(0x0303), "1.2"),
            (Some(0x0304), "1.3"),
            (Some(0xfafa), "other"),
            (None, "none"),
        ] {
            assert_eq!(TLS_VERSIONS[tls_version_index(code.map(Version))], label);
        }
    }
}
