//! What a worker lends to the connection that it is busy with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::Registry;

use super::datagrams::Associations;
use super::handle::Shared;
use super::reporter::Reporter;
use super::timers::Timers;
use crate::connect::resolve::cache::AnswerCache;
use crate::decide::rules::Locals;
use crate::metrics::Limit;
use crate::relay::Loan;
use crate::session::{Budget, Env, Machine, Step};
use crate::sys::socket::Outgoing;

/// A worker's own things, for one turn of one connection.
pub(super) struct Tools<'a, M: Machine> {
    pub now: Instant,
    pub worker: usize,
    /// The connection, for the poll, the timers and the resolver.
    pub key: usize,
    pub registry: &'a Registry,
    pub timers: &'a mut Timers,
    pub loan: &'a mut Loan,
    pub plan: &'a Arc<M::Plan>,
    pub outgoing: &'a Outgoing,
    pub locals: &'a Locals,
    pub preludes: &'a Arc<Budget>,
    pub answers: &'a mut AnswerCache,
    pub associations: &'a mut Associations,
    pub shared: &'a Shared,
    /// The daemon stops: nothing new is begun.
    pub draining: bool,
}

impl<M: Machine> Tools<'_, M> {
    /// Asks a session what to do, with what it must know for that.
    pub fn ask(&self, f: impl FnOnce(&mut Env<'_, M>) -> Step) -> Step {
        self.env(f)
    }

    /// Lends out what a session must know.
    pub fn env<T>(&self, f: impl FnOnce(&mut Env<'_, M>) -> T) -> T {
        let mut report = Reporter { metrics: &self.shared.metrics };
        let Tools { now, plan, locals, preludes, shared, .. } = *self;
        let surroundings = &*shared.surroundings;
        f(&mut Env { now, plan, locals, preludes, surroundings, memory: &shared.memory, report: &mut report })
    }

    /// Whether one more connection of `source` may be served; a refusal is counted and logged.
    pub fn admit(&self, source: IpAddr) -> bool {
        let admitted = self.shared.admission.enter_source(source);
        if !admitted {
            self.shared.metrics.connection_refused(Limit::PerSource);
            self.shared.admission.log_refusal(source, self.now);
        }
        admitted
    }
}
