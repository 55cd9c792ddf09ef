//! The stage in which a name is looked up: in the worker's memory at once, or by the resolver's thread.

use std::net::IpAddr;
use std::time::Instant;

use crate::connect::resolve::{Asker, ResolveError};
use crate::engine::tools::Tools;
use crate::session::Machine;

/// A lookup that the resolver has not answered yet.
#[derive(Debug)]
pub(super) struct Resolving<M> {
    pub session: Box<M>,
    pub name: Box<str>,
}

/// How a lookup begins.
pub(in crate::engine) enum Begun {
    /// It is answered already.
    Answered(Result<Vec<IpAddr>, ResolveError>),
    /// The resolver will answer before this time.
    Asked { due: Option<Instant> },
}

/// Looks `name` up.
pub(in crate::engine) fn begin<M: Machine>(name: &str, session: &M, tools: &mut Tools<'_, M>) -> Begun {
    tools.shared.metrics.dns_lookup();
    if let Some(entry) = tools.answers.get(name, tools.now) {
        return Begun::Answered(entry.result.map(|addrs| addrs.to_vec()));
    }
    let asker = Asker { worker: tools.worker, token: tools.key, source: session.client().ip() };
    let asked = tools.shared.resolver.as_ref().ok_or(ResolveError::Failed);
    if let Err(error) = asked.and_then(|resolver| resolver.lookup(name, asker)) {
        return Begun::Answered(Err(error));
    }
    // The resolver keeps its own time; this is for the case that its thread does not answer at all.
    let servers = u32::try_from(session.service().nameservers.len()).unwrap_or(u32::MAX);
    let longest =
        session.service().timeouts.dns_lookup.saturating_mul(servers.saturating_add(2).saturating_mul(2));
    Begun::Asked { due: tools.now.checked_add(longest) }
}
