//! How a connection ends, and the stage in which a client that was told something may still hear it: closing while its
//! bytes come in would reset the connection and could take the last words with it.

use std::io::{self, Read};
use std::time::Duration;

use super::{Connection, Fate, Stage};
use crate::engine::tools::Tools;
use crate::relay::End;
use crate::session::{CloseReason, Machine, Wire};
use crate::sys::socket;

/// How long a client may take to hear its last words before the connection is closed over its head.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a lingering client that are read and thrown away before it is cut off.
const LINGER_BYTES: u32 = 256 * 1024;

impl<M: Machine> Connection<M> {
    /// Ends the session; the client may still have to hear its last words.
    pub(super) fn finish(&mut self, reason: CloseReason, wire: Wire, tools: &mut Tools<'_, M>) -> Fate {
        self.stage.close(tools.loan);
        if let (true, Stage::Associated(associated)) = (M::ASSOCIATES, &self.stage) {
            tools.associations.abandon(associated.place);
        }
        self.server = None;
        self.life.close(reason, &tools.shared.admission.headers, tools.now);
        tools.shared.metrics.connection_closed(self.life.mode, reason);
        match in_view_of(reason, wire) {
            Wire::Say(words) => {
                self.stage = Stage::Lingering(Lingering::new(&mut self.client, &words));
                self.set_deadline(tools.now.checked_add(LINGER), tools);
                self.linger(tools)
            }
            Wire::Reset => {
                let _ = socket::reset_on_close(self.client.stream.socket());
                self.over(tools)
            }
            Wire::Quiet => {
                take_leave(&mut self.client);
                self.over(tools)
            }
        }
    }

    pub(super) fn linger(&mut self, tools: &mut Tools<'_, M>) -> Fate {
        let Stage::Lingering(lingering) = &mut self.stage else { return Fate::Stays };
        if lingering.turn(&mut self.client, &mut tools.loan.scratch) {
            return self.over(tools);
        }
        Fate::Stays
    }
}

/// What a client hears at the end: where TLS has failed, the alert that TLS has ready, which a reset would take away.
fn in_view_of(reason: CloseReason, wire: Wire) -> Wire {
    if reason == CloseReason::TlsFailed { Wire::Say(Vec::new()) } else { wire }
}

/// Before a quiet end: under TLS the end of a socket alone would look like an attack.
fn take_leave(client: &mut End) {
    if !client.stream.is_bare() {
        // One who does not take it at once goes without.
        let _ = client.shutdown();
    }
}

/// A client whose own bytes no longer matter.
#[derive(Debug)]
pub(super) struct Lingering {
    discarded: u32,
}

impl Lingering {
    /// Tells the client its last words, which may be none. What it does not take at once, of at most one small answer, it
    /// does not get.
    pub fn new(client: &mut End, words: &[u8]) -> Self {
        let _ = client.stream.write(words);
        let _ = client.shutdown();
        client.ready.readable = true;
        Lingering { discarded: 0 }
    }

    /// Throws away what has come; true once the connection can be closed.
    pub fn turn(&mut self, client: &mut End, scratch: &mut [u8]) -> bool {
        let told = !matches!(client.flush(), Ok(false));
        while self.discarded < LINGER_BYTES {
            // Under TLS it is ciphertext that is thrown away: no need to know what it says.
            match client.stream.socket_mut().read(scratch) {
                Ok(0) => return told,
                Ok(n) => self.discarded = self.discarded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => break,
            }
        }
        true
    }
}
