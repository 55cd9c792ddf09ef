//! The stage in which one HTTP request is answered.

use std::time::{Duration, Instant};

use super::stage::Stage;
use super::ties::{self, Pacing};
use super::tunnelling::Before;
use super::{Connection, Fate, securing};
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::relay::exchange::{Asked, Exchange, Progress};
use crate::relay::{End, Loan, Side};
use crate::session::{self, CloseReason, Machine, Step, Wire};

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
    /// What holds it to a rate, or counts it.
    pacing: Option<Pacing>,
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

impl<M: Machine> Connection<M> {
    pub(super) fn ask_server(
        &mut self,
        session: Box<M>,
        wanted: session::Exchange,
        tools: &mut Tools<'_, M>,
    ) -> Fate {
        // With more in hand it waits for its turn: a pipeline that is answered at once would nest as deep as it is long.
        let pipelined = !wanted.after_head.is_empty();
        self.life.open(&session);
        match Exchanging::new(session, wanted, tools) {
            Ok(exchanging) => {
                self.set_deadline(exchanging.due(), tools);
                self.stage = Stage::Exchanging(Box::new(exchanging));
                if pipelined { Fate::Yields } else { self.exchange(tools) }
            }
            Err(mut session) => {
                let step = session.exchange_failed(CloseReason::BadRequest, false);
                self.carry_out(session, step, tools)
            }
        }
    }

    pub(super) fn exchange(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let (Stage::Exchanging(exchanging), Some(server)) = (&mut self.stage, &mut self.server) else {
            return Fate::Stays;
        };
        let turn = exchanging.turn(&mut self.client, &mut server.end, &mut self.life, tools);
        let (due, is_bound) = (exchanging.due(), exchanging.is_bound());
        self.set_deadline(due, tools);
        match turn {
            Turn::Wait => Fate::Stays,
            Turn::Again => Fate::Yields,
            Turn::Finished { client_reusable, server_reusable } => {
                let over = is_bound && !server_reusable;
                match &mut self.server {
                    Some(server) if server_reusable => server.reused = true,
                    server => *server = None,
                }
                if !client_reusable || over || tools.draining {
                    return self.finish(CloseReason::Finished, Wire::Say(Vec::new()), tools);
                }
                self.next_request(tools)
            }
            Turn::Switched(to_client) => {
                let Some(exchanging) = self.stage.take_exchange() else { return Fate::Stays };
                let (session, before) = exchanging.into_tunnel(to_client, tools.loan);
                self.open_tunnel(session, before, tools)
            }
            Turn::ClientBroke(reason) => self.cut(reason, tools),
            Turn::Failed(reason) => self.fail_exchange(reason, tools),
        }
    }

    fn next_request(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Some(exchanging) = self.stage.take_exchange() else { return Fate::Stays };
        let (session, step) = exchanging.next_request(tools);
        self.carry_out(session, step, tools)
    }

    pub(super) fn fail_exchange(&mut self, reason: CloseReason, tools: &mut Tools<'_, M>) -> Fate {
        let Some(exchanging) = self.stage.take_exchange() else { return Fate::Stays };
        let reused = self.server.take().is_some_and(|server| server.reused);
        let (session, step) = exchanging.fail(reason, reused, tools.loan);
        self.carry_out(session, step, tools)
    }
}

impl<M: Machine> Exchanging<M> {
    /// Begins an exchange.
    ///
    /// # Errors
    /// The session, if what came behind the head is not framed as the head says.
    pub fn new(mut session: Box<M>, wanted: session::Exchange, tools: &Tools<'_, M>) -> Result<Self, Box<M>> {
        let session::Exchange { method, keep_alive, minor, upgrades, .. } = wanted;
        let asked = Asked { method, keep_alive, minor, upgrades };
        match Exchange::new(wanted.head, asked, wanted.body, &wanted.after_head) {
            Ok(exchange) => {
                let idle = session.service().timeouts.idle;
                let review_at = ties::first_review(&*session, tools);
                let pacing = session.take_share().map(|share| Pacing::new(share, tools.now));
                let due = tools.now.checked_add(idle);
                Ok(Exchanging { session, exchange, idle, due, review_at, pacing })
            }
            Err(_) => Err(session),
        }
    }

    /// When to look at it.
    pub fn due(&self) -> Option<Instant> {
        let pacing = self.pacing.as_ref().and_then(Pacing::due);
        [self.due, self.review_at, pacing].into_iter().flatten().min()
    }

    /// Whether it has been silent for too long.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Why the session must end, if it is time to look at it and it must.
    pub fn review(&mut self, tools: &Tools<'_, M>) -> Option<CloseReason> {
        ties::review(&mut *self.session, &mut self.review_at, tools)
    }

    /// Whether a pause is over that was made for the sake of a rate.
    pub fn goes_on(&self, now: Instant) -> bool {
        self.pacing.as_ref().and_then(Pacing::due).is_some_and(|at| now >= at)
    }

    /// Moves what can be moved, both ways.
    pub fn turn(
        &mut self,
        client: &mut End,
        server: &mut End,
        life: &mut Life<M>,
        tools: &mut Tools<'_, M>,
    ) -> Turn {
        let given = self.pacing.as_ref().and_then(|pacing| pacing.allowance(tools.now));
        given.into_iter().for_each(|given| self.exchange.allow(given));
        let before = self.exchange.delivered();
        let progress = self.exchange.pump(client, server, tools.loan);
        if let (Some(given), Some(pacing)) = (given, &mut self.pacing) {
            pacing.spent(given, self.exchange.allowance(), tools.now);
        }
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

    /// Behind a change of protocol: the session, and what its tunnel begins with; `to_client` is the server's already.
    pub fn into_tunnel(mut self, to_client: Vec<u8>, loan: &mut Loan) -> (Box<M>, Before) {
        self.exchange.close(loan);
        let before = Before { to_server: self.exchange.into_surplus(), to_client, pacing: self.pacing };
        (self.session, before)
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
