//! The stage in which one HTTP request is answered.

use std::time::{Duration, Instant};

use super::{reviewing, securing};
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::relay::exchange::{Asked, Exchange, Progress};
use crate::relay::{End, Loan, Side};
use crate::session::{self, CloseReason, Machine, Step};

/// An exchange, its time, and the session that goes on behind it.
#[derive(Debug)]
pub(super) struct Exchanging<M> {
    session: Box<M>,
    exchange: Exchange,
    idle: Duration,
    /// When it has been silent for too long.
    due: Option<Instant>,
    /// When to look at the session again, if at all.
    review_at: Option<Instant>,
}

/// How a turn ended.
pub(super) enum Turn {
    /// Nothing can be moved now.
    Wait,
    /// There is more to do, but others come first.
    Again,
    /// The response is delivered.
    Finished {
        /// The client may send its next request.
        client_reusable: bool,
        /// The server may be asked again.
        server_reusable: bool,
    },
    /// The server goes on in another protocol; this is for the client first.
    Switched(Vec<u8>),
    /// The client broke; the server must learn it.
    ClientBroke(CloseReason),
    /// No whole response comes.
    Failed(CloseReason),
}

impl<M: Machine> Exchanging<M> {
    /// Begins an exchange.
    ///
    /// # Errors
    /// The session, if what came behind the head is not framed as the head says.
    pub fn new(session: Box<M>, wanted: session::Exchange, tools: &Tools<'_, M>) -> Result<Self, Box<M>> {
        let session::Exchange { method, keep_alive, minor, upgrades, .. } = wanted;
        let asked = Asked { method, keep_alive, minor, upgrades };
        match Exchange::new(wanted.head, asked, wanted.body, &wanted.after_head) {
            Ok(exchange) => {
                let idle = session.service().timeouts.idle;
                let review_at = reviewing::first(&*session, tools);
                Ok(Exchanging { session, exchange, idle, due: tools.now.checked_add(idle), review_at })
            }
            Err(_) => Err(session),
        }
    }

    /// When to look at it.
    pub fn due(&self) -> Option<Instant> {
        [self.due, self.review_at].into_iter().flatten().min()
    }

    /// Whether it has been silent for too long.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Why the session must end, if it is time to look at it and it must.
    pub fn review(&mut self, tools: &Tools<'_, M>) -> Option<CloseReason> {
        if self.review_at.is_none_or(|at| tools.now < at) {
            return None;
        }
        match reviewing::look(&mut *self.session, tools) {
            Ok(next) => {
                self.review_at = next;
                None
            }
            Err(reason) => Some(reason),
        }
    }

    /// Moves what can be moved, both ways.
    pub fn turn(
        &mut self,
        client: &mut End,
        server: &mut End,
        life: &mut Life<M>,
        tools: &mut Tools<'_, M>,
    ) -> Turn {
        let before = self.exchange.delivered();
        let progress = self.exchange.pump(client, server, tools.loan);
        life.moved(before, self.exchange.delivered(), &tools.shared.metrics);
        match progress {
            Progress::Wait { moved } => {
                if moved {
                    self.due = tools.now.checked_add(self.idle);
                }
                Turn::Wait
            }
            Progress::Again => Turn::Again,
            Progress::Finished { client_reusable, server_reusable } => {
                Turn::Finished { client_reusable, server_reusable }
            }
            Progress::Switched(to_client) => Turn::Switched(to_client),
            Progress::BadResponse => Turn::Failed(CloseReason::BadResponse),
            Progress::BadRequest => Turn::Failed(CloseReason::BadRequest),
            Progress::Broken(Side::Client, error) => {
                Turn::ClientBroke(securing::why_client_broke(&error, life))
            }
            Progress::Broken(Side::Server, _) => Turn::Failed(CloseReason::ServerReset),
        }
    }

    /// Gives back what was borrowed.
    pub fn close(&mut self, loan: &mut Loan) {
        self.exchange.close(loan);
    }

    /// Whether its server cannot be replaced by another connection.
    pub fn is_bound(&self) -> bool {
        self.session.is_bound()
    }

    /// Behind a change of protocol: the session, and what its server gets next.
    pub fn into_tunnel(mut self, loan: &mut Loan) -> (Box<M>, Vec<u8>) {
        self.exchange.close(loan);
        (self.session, self.exchange.into_surplus())
    }

    /// Behind a whole response: the session, and what it does about the next request.
    pub fn next_request(mut self, tools: &mut Tools<'_, M>) -> (Box<M>, Step) {
        self.exchange.close(tools.loan);
        let (mut session, surplus) = (self.session, self.exchange.into_surplus());
        let step = tools.ask(|env| session.next_request(surplus, env));
        (session, step)
    }

    /// No whole response comes: the session, and what it does about that. `reused`: the server has answered this client
    /// before.
    pub fn fail(mut self, reason: CloseReason, reused: bool, loan: &mut Loan) -> (Box<M>, Step) {
        self.exchange.close(loan);
        let unheard = reused && self.exchange.delivered().1 == 0;
        let step = match reason {
            CloseReason::ServerReset if unheard => self.session.kept_server_left(),
            _ => self.session.exchange_failed(reason, self.exchange.is_answered()),
        };
        (self.session, step)
    }
}
