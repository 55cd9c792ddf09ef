//! The stage in which the session waits for the client's bytes.

use std::io;

use super::securing;
use crate::engine::reporter::Life;
use crate::engine::tools::Tools;
use crate::relay::End;
use crate::session::{Machine, Step};

/// One read from the client, and what the session says to it; nothing if there is nothing to read.
pub(super) fn read<M: Machine>(
    session: &mut M,
    client: &mut End,
    life: &Life<M>,
    tools: &mut Tools<'_, M>,
) -> Option<Step> {
    // Taken out for the call, as the session may need the other tools.
    let mut scratch = std::mem::take(&mut tools.loan.scratch);
    let step = read_into(&mut scratch, session, client, life, tools);
    tools.loan.scratch = scratch;
    step
}

fn read_into<M: Machine>(
    scratch: &mut [u8],
    session: &mut M,
    client: &mut End,
    life: &Life<M>,
    tools: &Tools<'_, M>,
) -> Option<Step> {
    match client.stream.read(scratch) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            client.ready.readable = false;
            None
        }
        Err(error) => Some(session.close(securing::why_client_broke(&error, life))),
        // Read again, it says the same: whoever relays learns it, too.
        Ok(0) => Some(tools.ask(|env| session.end_of_stream(env))),
        Ok(n) => {
            client.was_read(n, scratch.len());
            let bytes = scratch.get(..n).unwrap_or_default();
            Some(tools.ask(|env| session.bytes(bytes, env)))
        }
    }
}
