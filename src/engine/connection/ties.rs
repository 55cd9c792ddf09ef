//! What binds relayed bytes to the rule that let them in: its time, which is looked at again, and its limits.

use std::time::Instant;

use crate::engine::tools::Tools;
use crate::quota::{Share, Way};
use crate::session::{CloseReason, Machine};

/// When a session that hangs on the time is looked at again, for the first time; nothing for one that does not.
pub(super) fn first_review<M: Machine>(session: &M, tools: &Tools<'_, M>) -> Option<Instant> {
    if M::TIES && session.is_reviewed() { tools.env(|env| env.next_review()) } else { None }
}

/// Looks at a session where it is time for that: why it must end, if it must.
pub(super) fn review<M: Machine>(
    session: &mut M,
    at: &mut Option<Instant>,
    tools: &Tools<'_, M>,
) -> Option<CloseReason> {
    if at.is_none_or(|at| tools.now < at) {
        return None;
    }
    tools.env(|env| {
        *at = env.next_review();
        session.review(env)
    })
}

/// Keeps two directions to the rate of their share: each reads a turn's worth, and pauses until that is paid for.
#[derive(Debug)]
pub(super) struct Pacing {
    share: Share,
    /// When each direction may read again, up and down.
    not_before: [Instant; 2],
    /// The directions that stopped because they have read what they may.
    paused: [bool; 2],
}

const WAYS: [Way; 2] = [Way::Up, Way::Down];

impl Pacing {
    /// From now on.
    pub fn new(share: Share, now: Instant) -> Self {
        // Behind those of this source who are moving bytes already.
        let not_before = WAYS.map(|way| share.spend(way, 0, now));
        Pacing { share, not_before, paused: [false; 2] }
    }

    /// How much each direction may read now; nothing if there is no rate.
    pub fn allowance(&self, now: Instant) -> Option<[u64; 2]> {
        let turn = self.share.turn_bytes()?;
        Some(self.not_before.map(|at| if now >= at { turn } else { 0 }))
    }

    /// Takes in what is left of what they were given.
    pub fn spent(&mut self, given: [u64; 2], left: [u64; 2], now: Instant) {
        let directions = self.not_before.iter_mut().zip(&mut self.paused);
        for ((way, (given, left)), (not_before, paused)) in
            WAYS.into_iter().zip(given.into_iter().zip(left)).zip(directions)
        {
            let read = given.saturating_sub(left);
            if read > 0 {
                *not_before = self.share.spend(way, read, now);
            }
            *paused = left == 0;
        }
    }

    /// When a direction that is paused goes on.
    pub fn due(&self) -> Option<Instant> {
        let paused = self.not_before.iter().zip(self.paused).filter(|(_, paused)| *paused);
        paused.map(|(at, _)| *at).min()
    }
}
