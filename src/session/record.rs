//! What the log says of a session: the facts as they are known, in the order of the reference.

use std::net::SocketAddr;

use super::Session;
use crate::accept::Wish;
use crate::decide::Verdict;
use crate::decide::facts::{Ech, Known};
use crate::identify::Identity;
use crate::logging::{Dest, Field, Value};

impl Session {
    /// Where the connection goes, as far as it is known.
    pub fn destination(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(*self.facts().dest.is()?, *self.facts().port.is()?))
    }

    /// The destination as the log shows it.
    pub fn shown_destination(&self) -> Dest<'static> {
        self.destination().map_or(Dest::Unknown, Dest::Addr)
    }

    /// The name as sent: SNI, or what the client asked for.
    pub fn name_as_sent(&self) -> Option<&[u8]> {
        match (self.identity(), self.wish()) {
            (Some(Identity::Tls(hello)), _) if hello.sni.is_some() => hello.sni.as_deref(),
            (_, Wish::Name { host, .. }) => Some(host.as_bytes()),
            _ => None,
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
        let mut fields = Vec::with_capacity(10);
        fields.push(("rule", verdict.rule.into()));
        fields.push(("sport", self.client().port().into()));
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
            Some(Identity::Tls(hello)) => {
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
            }
            Some(Identity::Dns { query: Some(query) }) => fields.push(("query", (&**query).into())),
            _ => {}
        }
        fields
    }
}
