//! What the outside learns of sessions: log lines, counters and the live table.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use log::Level;

use super::gather::Row;
use super::seldom::Seldom;
use crate::config::Mode;
use crate::logging::{self, Dest, Field, Value};
use crate::metrics::Metrics;
use crate::session::{CloseReason, Machine, Record, Report};

/// Logs and counts verdicts.
pub(super) struct Reporter<'a> {
    pub metrics: &'a Metrics,
}

impl<M: Machine> Report<M> for Reporter<'_> {
    fn verdict(&mut self, session: &M, verdict: M::Verdict) {
        M::Record::count(session, verdict, self.metrics);
        if !logging::enabled(Level::Info) {
            return;
        }
        logging::flow(
            Level::Info,
            "session",
            Some(session.client().ip()),
            shown(session.destination()),
            M::Record::word(verdict),
            &M::Record::fields(session, verdict),
        );
    }
}

/// What is kept of a session for the live table and its closing line.
#[derive(Debug)]
pub(super) struct Life<M: Machine> {
    pub client: SocketAddr,
    pub mode: Mode,
    pub record: M::Record,
    started: Instant,
    sent: u64,
    received: u64,
}

impl<M: Machine> Life<M> {
    /// A connection that was just accepted.
    pub fn new(client: SocketAddr, mode: Mode, started: Instant) -> Self {
        Life { client, mode, record: M::Record::default(), started, sent: 0, received: 0 }
    }

    /// The session has come to a verdict, or to an end without one.
    pub fn open(&mut self, session: &M) {
        self.client = session.client();
        self.record.take_in(session);
    }

    /// Bytes went towards the server and the client: what was delivered `before` a turn, and what was after it.
    pub fn moved(&mut self, before: (u64, u64), after: (u64, u64), metrics: &Metrics) {
        let (sent, received) = (after.0 - before.0, after.1 - before.1);
        metrics.bytes(sent, received);
        self.sent += sent;
        self.received += received;
    }

    /// The closing line, and for everybody one where no connection came about and no verdict shows it.
    /// `refusals`: the lines about refused PROXY headers, which come from who is not trusted.
    pub fn close(&self, reason: CloseReason, refusals: &Seldom, now: Instant) {
        let misconfigured = reason.is_misconfiguration();
        let stands_for = match reason {
            CloseReason::BadProxyHeader | CloseReason::UntrustedSender => refusals.line(now),
            _ => Some(1),
        };
        if (misconfigured || reason.is_unconnected())
            && let Some(count) = stands_for
            && logging::enabled(Level::Info)
        {
            let mut fields = vec![("reason", reason.as_str().into()), ("sport", self.client.port().into())];
            if misconfigured {
                fields.push(("mode", self.mode.as_str().into()));
            }
            if count > 1 {
                fields.push(("count", count.into()));
            }
            fields.extend(self.record.name());
            self.log(Level::Info, "Failed", &fields);
        }
        // Somebody at home will ask why the film stopped.
        let level = if reason == CloseReason::WindowClosed { Level::Info } else { Level::Debug };
        if logging::enabled(level) {
            let mut fields = vec![("reason", reason.as_str().into())];
            self.describe(&mut fields, now);
            self.log(level, "Closed", &fields);
        }
    }

    /// TLS with one side failed: a line for everybody, as only this error tells a missing root from a wrong port.
    pub fn tls_failed(&self, reason: CloseReason, error: &dyn fmt::Display) {
        let reason = reason.as_str().into();
        let sport = self.client.port().into();
        let mut fields = vec![("reason", reason), ("sport", sport)];
        fields.extend(self.record.name());
        fields.push(("error", Value::Shown(error)));
        self.log(Level::Info, "Failed", &fields);
    }

    /// What the live table shows to those who ask.
    pub fn row(&self, now: Instant) -> Row {
        let shown = |field: Field<'_>| match field.1 {
            Value::Shown(value) => value.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Number(number) => number.to_string(),
            Value::List(_) => String::new(),
        };
        let name = self.record.name().and_then(|(_, value)| match value {
            Value::Bytes(bytes) => Some(bytes.into()),
            _ => None,
        });
        let rule = self.record.decision().map(shown);
        Row {
            client: self.client,
            mode: self.mode,
            dest: self.record.destination(),
            name,
            verdict: self.record.verdict().zip(rule),
            bytes: (self.sent, self.received),
            age: now.saturating_duration_since(self.started),
        }
    }

    /// A line of the live table.
    pub fn log_live(&self, now: Instant) {
        let mut fields = vec![("mode", self.mode.as_str().into())];
        fields.extend(self.record.decision());
        self.describe(&mut fields, now);
        self.log(Level::Info, "Live", &fields);
    }

    fn describe<'a>(&'a self, fields: &mut Vec<Field<'a>>, now: Instant) {
        fields.push(("sport", self.client.port().into()));
        fields.extend(self.record.user());
        fields.extend(self.record.protocol());
        fields.extend(self.record.name());
        fields.push(("sent", self.sent.into()));
        fields.push(("received", self.received.into()));
        let lived = now.saturating_duration_since(self.started).as_millis();
        fields.push(("ms", u64::try_from(lived).unwrap_or(u64::MAX).into()));
    }

    fn log(&self, level: Level, event: &str, fields: &[Field<'_>]) {
        logging::flow(
            level,
            "session",
            Some(self.client.ip()),
            shown(self.record.destination()),
            event,
            fields,
        );
    }
}

fn shown(dest: Option<SocketAddr>) -> Dest<'static> {
    dest.map_or(Dest::Unknown, Dest::Addr)
}
