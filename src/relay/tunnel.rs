//! Two directions between a client and a server, until both are done.
//!
//! The end of one direction is passed on (half-close) and the other goes on; a reset is passed on as a reset.

use std::io;

use super::direction::{Answers, Direction, Failed, Turn};
use super::{Broken, End, Loan, Side};

/// How a turn of a tunnel ended.
#[derive(Debug)]
pub enum Progress {
    /// Nothing can be moved now; `moved` tells whether something was.
    Wait {
        /// Bytes went somewhere in this turn.
        moved: bool,
    },
    /// There is more to do, but others come first.
    Again,
    /// Both directions are done.
    Finished,
    /// One side broke; the other must learn it.
    Broken(Broken),
}

/// Is shown what the client sends, and says how the server's answers to that are to be read, if at all.
pub type Look<'a> = dyn FnMut(&[u8]) -> Option<Box<dyn Answers>> + 'a;

/// Both directions of one connection.
#[derive(Debug)]
pub struct Tunnel {
    /// Client to server.
    up: Direction,
    /// Server to client.
    down: Direction,
}

impl Tunnel {
    /// A tunnel that first sends the server what was read before it stood.
    pub fn new(to_server: Vec<u8>) -> Self {
        Self::going_on(to_server, Vec::new())
    }

    /// A tunnel that first sends both sides what was read before it stood.
    pub fn going_on(to_server: Vec<u8>, to_client: Vec<u8>) -> Self {
        let mut tunnel = Tunnel { up: Direction::to_end(), down: Direction::to_end() };
        tunnel.up.prepend(to_server);
        tunnel.down.prepend(to_client);
        tunnel
    }

    /// Reads what the server says as a nameserver's answers. Before it has said anything.
    pub fn read_answers(&mut self, answers: Box<dyn Answers>) {
        self.down.read_answers(answers);
    }

    /// The server's side, where that is read as a nameserver's answers.
    pub fn answers(&mut self) -> Option<&mut (dyn Answers + 'static)> {
        self.down.answers()
    }

    /// Moves what can be moved, both ways. `seen` is shown copied pieces from the client before the server gets them, and says
    /// if the server's side is to be [read](Self::read_answers).
    pub fn pump(
        &mut self,
        client: &mut End,
        server: &mut End,
        loan: &mut Loan,
        seen: &mut Look<'_>,
    ) -> Progress {
        let before = self.up.delivered() + self.down.delivered();
        let mut answers = None;
        let look = &mut |bytes: &[u8]| answers = answers.take().or_else(|| seen(bytes));
        let up = turn(&mut self.up, client, server, self.down.is_done(), loan, look);
        answers.into_iter().for_each(|answers| self.read_answers(answers));
        if matches!(up, Err(Failed::Sink(_))) {
            // A server that no longer listens may have said why (RFC 9112 §9.6): its last words go first.
            server.ready.readable = true;
        }
        let down = turn(&mut self.down, server, client, self.up.is_done(), loan, &mut |_| {});
        let up = match up {
            Ok(turn) => turn,
            Err(failed) => return broken(failed, Side::Client, Side::Server),
        };
        let down = match down {
            Ok(turn) => turn,
            Err(failed) => return broken(failed, Side::Server, Side::Client),
        };
        match (up, down) {
            (Turn::Done, Turn::Done) => Progress::Finished,
            (Turn::Again, _) | (_, Turn::Again) => Progress::Again,
            _ => Progress::Wait { moved: self.up.delivered() + self.down.delivered() != before },
        }
    }

    /// Lets both directions read so many bytes more, client to server first; see [`Direction::allow`].
    pub fn allow(&mut self, [up, down]: [u64; 2]) {
        self.up.allow(up);
        self.down.allow(down);
    }

    /// How much of that is left.
    pub fn allowance(&self) -> [u64; 2] {
        [self.up.allowance(), self.down.allowance()]
    }

    /// Bytes delivered to the server and to the client.
    pub fn delivered(&self) -> (u64, u64) {
        (self.up.delivered(), self.down.delivered())
    }

    /// Whether a direction is done: one of them, or both and the last end is still being told.
    pub fn is_half_closed(&self) -> bool {
        self.up.is_done() || self.down.is_done()
    }

    /// Both directions, client to server first.
    #[cfg(test)]
    pub(super) fn directions(&self) -> [&Direction; 2] {
        [&self.up, &self.down]
    }

    /// Gives back what was borrowed.
    pub fn close(&mut self, loan: &mut Loan) {
        self.up.close(loan);
        self.down.close(loan);
    }
}

/// One turn of one direction; at its end the sink learns that nothing more comes. If it was the `last` of the two, a bare
/// socket learns it by being closed, which is next: a system call less for every connection.
fn turn(
    direction: &mut Direction,
    source: &mut End,
    sink: &mut End,
    last: bool,
    loan: &mut Loan,
    seen: &mut dyn FnMut(&[u8]),
) -> Result<Turn, Failed> {
    let told = if direction.is_done() {
        sink.flush()
    } else {
        let turn = direction.pump(source, sink, loan, &mut Vec::new(), seen)?;
        if turn != Turn::Done || (last && sink.stream.is_bare()) {
            return Ok(turn);
        }
        sink.shutdown()
    };
    match told {
        Ok(true) => Ok(Turn::Done),
        Ok(false) => Ok(Turn::Wait),
        // The peer is gone altogether: its own direction says so, or has done.
        Err(e) if last || e.kind() == io::ErrorKind::NotConnected => Ok(Turn::Done),
        Err(e) => Err(Failed::Sink(e)),
    }
}

fn broken(failed: Failed, source: Side, sink: Side) -> Progress {
    let (side, error) = match failed {
        Failed::Source(error) => (source, error),
        Failed::Sink(error) => (sink, error),
        Failed::Malformed => (source, io::Error::from(io::ErrorKind::InvalidData)),
    };
    Progress::Broken(Broken { side, error })
}
