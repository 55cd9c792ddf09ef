//! The stage in which a connection stands for the datagrams that its client sends and hears beside it.
//!
//! What the client says on it has no meaning and is thrown away; that it ends is what counts.

use std::io;
use std::time::{Duration, Instant};

use super::{Connection, Fate, READS_PER_TURN, Stage};
use crate::engine::tools::Tools;
use crate::session::{Associating, CloseReason, Machine, Wire};
use crate::sys::socket;

/// First keepalive probe after this much silence, and the time between probes, in seconds: a client that is gone for good
/// leaves a socket behind.
const KEEPALIVE_IDLE_SECS: u16 = 60;
const KEEPALIVE_INTERVAL_SECS: u16 = 30;

/// An association, as its connection knows it.
#[derive(Debug)]
pub(super) struct Associated {
    /// Its place among the associations.
    pub place: usize,
    /// How long no datagram may go either way.
    idle: Duration,
}

impl<M: Machine> Connection<M> {
    /// Opens a way for the client's datagrams.
    pub(super) fn associate(
        &mut self,
        mut session: Box<M>,
        wanted: Associating,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        self.life.open(&session);
        let client = session.client().ip();
        let opened = self.client.stream.socket().local_addr().and_then(|local| {
            let Tools { key, registry, now, .. } = *tools;
            tools.associations.begin(wanted, key, &self.listener, (client, local), registry, now)
        });
        let (place, relay) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if tools.shared.admission.refusals.line(tools.now).is_some() {
                    log::warn!("cannot open a port for datagrams: {error}");
                }
                let step = session.close(CloseReason::OutOfResources);
                return self.carry_out(session, step, tools);
            }
        };
        let idle = session.service().timeouts.idle;
        self.stage = Stage::Associated(Associated { place, idle });
        if !self.client.say(&session.associated(relay)) {
            return self.finish(CloseReason::ClientGone, Wire::Reset, tools);
        }
        // Without them a dead client is found by the idle time.
        let _ = socket::keepalive(self.client.stream.socket(), KEEPALIVE_IDLE_SECS, KEEPALIVE_INTERVAL_SECS);
        self.set_deadline(tools.now.checked_add(idle), tools);
        self.attend(tools)
    }

    /// Looks whether the client is still there.
    pub(super) fn attend(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        for _ in 0..READS_PER_TURN {
            if !self.client.ready.readable {
                return Fate::Stays;
            }
            match self.client.stream.read(&mut tools.loan.scratch) {
                Ok(0) => return self.finish(CloseReason::Finished, Wire::Quiet, tools),
                Ok(n) => self.client.was_read(n, tools.loan.scratch.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.client.ready.readable = false,
                Err(_) => return self.finish(CloseReason::ClientReset, Wire::Quiet, tools),
            }
        }
        Fate::Yields
    }

    /// Looks whether there were datagrams in the last time.
    pub(super) fn associated_expired(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Stage::Associated(associated) = &self.stage else { return Fate::Stays };
        let due = associated.due(tools);
        if due.is_some_and(|due| due <= tools.now) {
            return self.finish(CloseReason::Idle, Wire::Quiet, tools);
        }
        self.set_deadline(due, tools);
        Fate::Stays
    }
}

impl Associated {
    fn due<M: Machine>(&self, tools: &Tools<'_, M>) -> Option<Instant> {
        let last = tools.associations.get(self.place).map_or(tools.now, |association| association.last);
        last.checked_add(self.idle)
    }

    /// Whether no flow is left of it.
    pub fn is_idle<M: Machine>(&self, tools: &Tools<'_, M>) -> bool {
        tools.associations.get(self.place).is_none_or(|association| association.is_idle())
    }
}
