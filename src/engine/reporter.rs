//! What the outside learns of sessions: log lines, counters and the live table.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use log::Level;

use crate::config::Mode;
use crate::decide::{Action, Known, L5, RuleId, Verdict};
use crate::identify::Identity;
use crate::logging::{self, Dest, Field, Value};
use crate::metrics::Metrics;
use crate::session::{CloseReason, Report, Session};

/// Logs and counts verdicts.
pub(super) struct Reporter<'a> {
    pub metrics: &'a Metrics,
}

impl Reporter<'_> {
    /// Counts what the first bytes are.
    pub fn identified(&self, identity: &Identity) {
        let (l5, version) = match identity {
            Identity::Tls(hello) => (L5::Tls, Some(hello.version)),
            Identity::Http { .. } => (L5::Http, None),
            Identity::Dns { .. } => (L5::Dns, None),
            Identity::None => (L5::None, None),
        };
        self.metrics.identified(l5, version);
    }
}

impl Report for Reporter<'_> {
    fn verdict(&mut self, session: &Session, verdict: Verdict) {
        self.metrics.verdict(verdict, session.facts().dest.is().copied());
        match (session.identity(), session.facts().l5) {
            (Some(identity), _) => self.identified(identity),
            (None, Known::Is(l5)) => self.metrics.identified(l5, None),
            (None, Known::Unknown | Known::Absent) => {}
        }
        if !logging::enabled(Level::Info) {
            return;
        }
        let word = match verdict.action {
            Action::Accept => "Accept",
            Action::Deny => "Denied",
            Action::Redirect => "Redirect",
        };
        logging::flow(
            Level::Info,
            "session",
            Some(session.client().ip()),
            session.shown_destination(),
            word,
            &session.fields(verdict),
        );
    }
}

/// What is kept of a session for the live table and its closing line.
#[derive(Debug)]
pub(super) struct Life {
    pub client: SocketAddr,
    pub mode: Mode,
    started: Instant,
    dest: Option<SocketAddr>,
    name: Option<Box<[u8]>>,
    rule: Option<RuleId>,
    protocol: Option<&'static str>,
    sent: u64,
    received: u64,
}

impl Life {
    /// A connection that was just accepted.
    pub fn new(client: SocketAddr, mode: Mode, started: Instant) -> Self {
        Life {
            client,
            mode,
            started,
            dest: None,
            name: None,
            rule: None,
            protocol: None,
            sent: 0,
            received: 0,
        }
    }

    /// The session has come to a verdict, or to an end without one.
    pub fn open(&mut self, session: &Session) {
        if self.rule.is_some() && session.facts().port.is_unknown() {
            // Between two requests: the last one says more.
            return;
        }
        self.client = session.client();
        self.dest = session.destination();
        self.name = session.name_as_sent().map(|name| name.into());
        self.rule = session.verdict().map(|verdict| verdict.rule);
        self.protocol = session.protocol();
    }

    /// The first bytes were seen in passing.
    pub fn identified(&mut self, identity: &Identity) {
        self.protocol = Some(identity.as_str());
        if let Identity::Tls(hello) = identity
            && hello.sni.is_some()
        {
            self.name = hello.sni.clone();
        }
    }

    /// Nobody has seen the first bytes.
    pub fn is_unidentified(&self) -> bool {
        self.protocol.is_none()
    }

    /// Bytes went towards the server and the client.
    pub fn moved(&mut self, sent: u64, received: u64) {
        self.sent += sent;
        self.received += received;
    }

    /// The closing line, and for everybody one where no connection came about, which a verdict would not show.
    pub fn close(&self, reason: CloseReason, now: Instant) {
        if (reason.is_unconnected() || reason == CloseReason::NotTls) && logging::enabled(Level::Info) {
            let mut fields = vec![("reason", reason.as_str().into()), ("sport", self.client.port().into())];
            if let Some(name) = &self.name {
                fields.push(("name", Value::Bytes(name)));
            }
            self.log(Level::Info, "Failed", &fields);
        }
        if logging::enabled(Level::Debug) {
            let mut fields = vec![("reason", reason.as_str().into())];
            self.describe(&mut fields, now);
            self.log(Level::Debug, "Closed", &fields);
        }
    }

    /// The client's TLS failed: a line for everybody, as only this error tells a missing root from a wrong port.
    pub fn tls_failed(&self, error: &dyn fmt::Display) {
        let reason = CloseReason::TlsFailed.as_str().into();
        let sport = self.client.port().into();
        self.log(
            Level::Info,
            "Failed",
            &[("reason", reason), ("sport", sport), ("error", Value::Shown(error))],
        );
    }

    /// A line of the live table.
    pub fn log_live(&self, now: Instant) {
        let mut fields = vec![("mode", self.mode.as_str().into())];
        if let Some(rule) = self.rule {
            fields.push(("rule", rule.into()));
        }
        self.describe(&mut fields, now);
        self.log(Level::Info, "Live", &fields);
    }

    fn describe<'a>(&'a self, fields: &mut Vec<Field<'a>>, now: Instant) {
        fields.push(("sport", self.client.port().into()));
        if let Some(protocol) = self.protocol {
            fields.push(("proto", protocol.into()));
        }
        if let Some(name) = &self.name {
            fields.push(("name", Value::Bytes(name)));
        }
        fields.push(("sent", self.sent.into()));
        fields.push(("received", self.received.into()));
        let lived = now.saturating_duration_since(self.started).as_millis();
        fields.push(("ms", u64::try_from(lived).unwrap_or(u64::MAX).into()));
    }

    fn log(&self, level: Level, event: &str, fields: &[Field<'_>]) {
        let dest = self.dest.map_or(Dest::Unknown, Dest::Addr);
        logging::flow(level, "session", Some(self.client.ip()), dest, event, fields);
    }
}
