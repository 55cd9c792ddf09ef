//! What others learn of a session, and what the log says of it: the facts as they are known, in the order of the reference.

use std::net::SocketAddr;

use super::{Machine, Record, Session};
use crate::accept::Wish;
use crate::config::Mode;
#[cfg(feature = "metrics")]
use crate::decide::device::UNKNOWN;
use crate::decide::facts::{Ech, Facts, Known, L5};
use crate::decide::{Action, Verdict};
use crate::identify::tcp::Identifier;
use crate::identify::{Identity, Outcome, Parsers};
use crate::logging::{Field, Value};
use crate::metrics::Metrics;

impl Session {
    /// How the client came in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What is known.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the first bytes were, once somebody asked.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What the client asked for.
    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// The verdict on the connection, or on the request at hand.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// The name as sent: SNI, or what the client asked for.
    pub fn name_as_sent(&self) -> Option<&[u8]> {
        let sni = self.identity().and_then(Identity::hello).and_then(|hello| hello.sni.as_deref());
        match (sni, self.wish()) {
            (Some(sni), _) => Some(sni),
            (None, Wish::Name { host, .. }) => Some(host.as_bytes()),
            (None, _) => None,
        }
    }

    /// What the first bytes are; a request to the HTTP proxy needs no identification.
    pub fn protocol(&self) -> Option<&'static str> {
        match self.identity() {
            Some(identity) => Some(identity.as_str()),
            None => self.facts().l5.is().map(|_| "http"),
        }
    }

    /// `rule=3 sport=51234 user=alice proto=tls name=example.com tls=1.3 alpn=h2,http/1.1 ech=grease ja4=…`
    pub fn fields(&self, verdict: Verdict) -> Vec<Field<'_>> {
        let mut fields = Vec::with_capacity(12);
        fields.push(("rule", verdict.rule.into()));
        fields.push(("sport", self.client().port().into()));
        if let Some(refused) = self.refused {
            fields.push(("limit", refused.as_str().into()));
        }
        if let Known::Is(device) = &self.facts().device {
            fields.push(("device", Value::Bytes(device.as_bytes())));
        }
        if let Known::Is(user) = &self.facts().user {
            fields.push(("user", Value::Bytes(user.as_bytes())));
        }
        if let Some(proto) = self.protocol() {
            fields.push(("proto", proto.into()));
        }
        if let Some(name) = self.name_as_sent() {
            fields.push(("name", name.into()));
        }
        match self.identity() {
            Some(Identity::Tls(hello) | Identity::Quic { hello: Some(hello) }) => {
                fields.push(("tls", Value::Shown(&hello.version)));
                if !hello.alpn.is_empty() {
                    fields.push(("alpn", Value::List(&hello.alpn)));
                }
                match self.facts().ech {
                    Known::Is(Ech::Grease) => fields.push(("ech", "grease".into())),
                    Known::Is(Ech::Real) => fields.push(("ech", "real".into())),
                    Known::Is(Ech::None) | Known::Absent | Known::Unknown => {}
                }
                if hello.esni {
                    fields.push(("esni", "yes".into()));
                }
                fields.push(("ja4", (&*hello.ja4).into()));
                if let Some(finding) = self.certificates.shown {
                    fields.extend(self.facts().cert.is().map(|cert| ("cert", cert.as_str().into())));
                    fields.extend(finding.reason().map(|reason| ("cert_reason", reason.into())));
                }
            }
            Some(Identity::Dns { query: Some(query) }) => fields.push(("query", (&**query).into())),
            _ => {}
        }
        if self.is_bound()
            && let Known::Is(l7) = self.facts().l7
        {
            fields.push(("inside", l7.as_str().into()));
            if let Known::Is(host) = &self.facts().host {
                fields.push(("host", (&**host).into()));
            }
            if let Known::Is(path) = &self.facts().path {
                fields.push(("path", (&**path).into()));
            }
        }
        fields
    }
}

/// Bytes that are kept of a name: no true one has more, and a client may send 64 KiB.
const MAX_NAME: usize = 255;

/// What is kept of a session for the live table and its closing line.
#[derive(Debug, Default)]
pub struct Kept {
    dest: Option<SocketAddr>,
    user: Option<Box<str>>,
    name: Option<Box<[u8]>>,
    verdict: Option<Verdict>,
    protocol: Option<&'static str>,
}

impl Record<Session> for Kept {
    fn word(verdict: Verdict) -> &'static str {
        match verdict.action {
            Action::Accept => "Accept",
            Action::Deny => "Denied",
            Action::Redirect => "Redirect",
            Action::Intercept => "Intercept",
            Action::Observe => "Observe",
        }
    }

    fn fields(session: &Session, verdict: Verdict) -> Vec<Field<'_>> {
        session.fields(verdict)
    }

    fn count(session: &Session, verdict: Verdict, metrics: &Metrics) {
        if verdict.action == Action::Observe {
            return metrics.observed(verdict.rule);
        }
        metrics.verdict(verdict, session.facts().dest.is().copied());
        #[cfg(feature = "metrics")]
        if verdict.action == Action::Deny {
            count_denied(session, metrics);
        }
        if session.is_bound() && session.facts().l7.is().is_some() {
            // The connection was counted when the rules said that it is to be decrypted.
            return;
        }
        match (session.identity(), session.facts().l5) {
            (Some(identity), _) => count_identity(identity, metrics),
            (None, Known::Is(l5)) => metrics.identified(l5, None),
            (None, Known::Unknown | Known::Absent) => {}
        }
    }

    fn take_in(&mut self, session: &Session) {
        if self.verdict.is_some() && session.facts().port.is_unknown() {
            // Between two requests: the last one says more.
            return;
        }
        self.dest = session.destination();
        self.user = session.facts().user.is().cloned();
        self.name = session.name_as_sent().map(kept_name);
        self.verdict = session.verdict();
        self.protocol = session.protocol();
    }

    fn glimpse(&mut self, parsers: Parsers, bytes: &[u8], metrics: &Metrics) -> bool {
        if let Outcome::Identified(identity) = Identifier::new(parsers).look(bytes) {
            self.saw(&identity, metrics);
        }
        self.protocol.is_some()
    }

    fn saw(&mut self, identity: &Identity, metrics: &Metrics) {
        count_identity(identity, metrics);
        self.protocol = Some(identity.as_str());
        if let Some(sni) = identity.hello().and_then(|hello| hello.sni.as_deref()) {
            self.name = Some(kept_name(sni));
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.dest
    }

    fn verdict(&self) -> Option<&'static str> {
        self.verdict.map(Self::word)
    }

    fn decision(&self) -> Option<Field<'_>> {
        self.verdict.map(|verdict| ("rule", verdict.rule.into()))
    }

    fn user(&self) -> Option<Field<'_>> {
        self.user.as_deref().map(|user| ("user", Value::Bytes(user.as_bytes())))
    }

    fn protocol(&self) -> Option<Field<'_>> {
        self.protocol.map(|protocol| ("proto", protocol.into()))
    }

    fn speaks_dns(&self) -> bool {
        self.protocol == Some(crate::identify::DNS)
    }

    fn name(&self) -> Option<Field<'_>> {
        self.name.as_deref().map(|name| ("name", Value::Bytes(name)))
    }
}

fn kept_name(name: &[u8]) -> Box<[u8]> {
    name.get(..MAX_NAME).unwrap_or(name).into()
}

/// What the status page shows: the name, or what a query asks for; and the device, or the address where nobody asked for that.
#[cfg(feature = "metrics")]
fn count_denied(session: &Session, metrics: &Metrics) {
    let query = match session.identity() {
        Some(Identity::Dns { query }) => query.as_deref().map(str::as_bytes),
        _ => None,
    };
    let device = match &session.facts().device {
        Known::Is(device) if **device != *UNKNOWN => device.to_string(),
        _ => session.client().ip().to_string(),
    };
    let dest = session.facts().dest.is().copied();
    metrics.denied(session.name_as_sent().or(query), dest, device.as_bytes());
}

fn count_identity(identity: &Identity, metrics: &Metrics) {
    let l5 = match identity {
        Identity::Tls(_) => L5::Tls,
        Identity::Http { .. } => L5::Http,
        Identity::Quic { .. } => L5::Quic,
        Identity::Dns { .. } => L5::Dns,
        Identity::Ntp => L5::Ntp,
        Identity::None => L5::None,
    };
    metrics.identified(l5, identity.hello().map(|hello| hello.version));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tls::tests::fixture::{HelloBody, server_name};
    use crate::wire::tls::{Carrier, ClientHello};

    /// It is kept as long as the connection lives, and a client may say anything.
    #[test]
    fn of_a_name_no_more_is_kept_than_a_name_can_have() {
        let body = HelloBody::new(vec![server_name(&"n".repeat(10_000))]).body();
        let hello = ClientHello::parse(&body, Carrier::Tcp).unwrap();
        let mut kept = Kept::default();
        kept.saw(&Identity::Tls(Box::new(hello)), &Metrics::new());
        assert_eq!(kept.name.map(|name| name.len()), Some(MAX_NAME));
    }
}
