//! Sessions that hang on the time: looked at again while their bytes are relayed, right behind every full minute.
//!
//! Windows begin and end at full minutes. The next look is never further away than that, and the clock is read anew at each,
//! so a clock that jumps is noticed within a minute, too.

use std::time::{Duration, Instant};

use crate::engine::tools::Tools;
use crate::session::{CloseReason, Machine};

/// So that the clock on the wall shows the next minute for certain.
const BEHIND: Duration = Duration::from_millis(5);

/// When to look at the session for the first time, if at all.
pub(super) fn first<M: Machine>(session: &M, tools: &Tools<'_, M>) -> Option<Instant> {
    if M::REVIEWS && session.is_reviewed() { next(tools) } else { None }
}

/// Looks at the session: why it must end, or when to look again.
pub(super) fn look<M: Machine>(
    session: &mut M,
    tools: &Tools<'_, M>,
) -> Result<Option<Instant>, CloseReason> {
    match tools.env(|env| session.review(env)) {
        Some(reason) => Err(reason),
        None => Ok(next(tools)),
    }
}

fn next<M: Machine>(tools: &Tools<'_, M>) -> Option<Instant> {
    tools.now.checked_add(tools.shared.surroundings.week_time().1 + BEHIND)
}
