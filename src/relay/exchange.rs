//! One HTTP/1 request and its response: two directions under HTTP's framing.
//!
//! Request body and response move at the same time (a server may answer before it has the whole body, and says `100
//! Continue` before it gets any). Bytes that the client sent beyond its request are kept for the next one; bytes that the
//! server sends beyond its response are never delivered.

use std::io;

use super::direction::{Direction, Failed, Turn};
use super::{End, Loan, Side};
use crate::wire::http1::{self, Framing, HeadEnd};

/// Interim responses to one request: a server that reports progress sends one now and then, one that sends more keeps its
/// client busy for nothing.
const MAX_INTERIM: u8 = 100;

/// What must be known of a request in order to relay its answer.
#[derive(Debug)]
pub struct Asked {
    /// It tells how the response is framed.
    pub method: Box<str>,
    /// The client does not mean to close after this request.
    pub keep_alive: bool,
    /// Of HTTP/1.`minor`: clients of 1.0 must not get an interim response (RFC 9110 §15.2).
    pub minor: u8,
    /// It asks for another protocol, to which the server may change.
    pub upgrades: bool,
}

/// How a turn of an exchange ended.
#[derive(Debug)]
pub enum Progress {
    /// Nothing can be moved now; `moved` tells whether something was.
    Wait {
        /// Bytes went somewhere in this turn.
        moved: bool,
    },
    /// There is more to do, but others come first.
    Again,
    /// The response is delivered.
    Finished {
        /// The client may send its next request.
        client_reusable: bool,
        /// The server may be asked again.
        server_reusable: bool,
    },
    /// The server goes on in another protocol. What it has said so far, its answer first, is for the client.
    Switched(Vec<u8>),
    /// The server's bytes are no HTTP.
    BadResponse,
    /// The client's body is not framed as it said.
    BadRequest,
    /// One side broke.
    Broken(Side, io::Error),
}

/// One request under way.
#[derive(Debug)]
pub struct Exchange {
    asked: Asked,
    request: Direction,
    /// The server no longer takes the request; it may have answered already.
    request_refused: bool,
    answer: Answer,
    /// The response, or an interim one.
    response: Direction,
    /// What the client sent beyond its request.
    surplus: Vec<u8>,
    /// Bytes delivered to the client by responses before the one in `response`.
    delivered_before: u64,
    /// Interim responses so far.
    interim: u8,
}

/// How far the server's answer has come.
#[derive(Debug)]
enum Answer {
    /// Reading a head.
    Head { buffer: Vec<u8>, end: HeadEnd },
    /// The final response is being delivered.
    Final { server_reusable: bool },
}

impl Exchange {
    /// `head` is what the server gets, `after_head` what followed the head in the client's stream.
    ///
    /// # Errors
    /// [`Failed::Malformed`] if `after_head` breaks the framing.
    pub fn new(mut head: Vec<u8>, asked: Asked, body: Framing, after_head: &[u8]) -> Result<Self, Failed> {
        let mut request = Direction::new(body);
        let (ours, next) = after_head.split_at(request.admit(after_head)?);
        head.extend_from_slice(ours);
        request.prepend(head);
        Ok(Exchange {
            asked,
            request,
            request_refused: false,
            answer: Answer::Head { buffer: Vec::new(), end: HeadEnd::new() },
            response: Direction::new(Framing::None),
            surplus: next.to_vec(),
            delivered_before: 0,
            interim: 0,
        })
    }

    /// Moves what can be moved, both ways.
    pub fn pump(&mut self, client: &mut End, server: &mut End, loan: &mut Loan) -> Progress {
        let before = self.delivered();
        let up = match self.pump_request(client, server, loan) {
            Ok(turn) => turn,
            Err(Failed::Source(error)) => return Progress::Broken(Side::Client, error),
            Err(_) => return Progress::BadRequest,
        };
        loop {
            let mut beyond = Vec::new();
            let turn = match self.response.pump(server, client, loan, &mut beyond, &mut |_| {}) {
                Ok(turn) => turn,
                Err(Failed::Source(error)) => return Progress::Broken(Side::Server, error),
                Err(Failed::Sink(error)) => return Progress::Broken(Side::Client, error),
                Err(Failed::Malformed) => return Progress::BadResponse,
            };
            if !beyond.is_empty() {
                // A server that says more than it was asked for is out of step with us.
                self.answer = Answer::Final { server_reusable: false };
            }
            match (turn, &self.answer) {
                (Turn::Again, _) => return Progress::Again,
                (Turn::Wait, _) => break,
                (Turn::Done, Answer::Final { server_reusable }) => {
                    let request_sent = self.request.is_done();
                    return Progress::Finished {
                        client_reusable: self.asked.keep_alive
                            && request_sent
                            && !self.response.ends_with_source(),
                        server_reusable: *server_reusable && request_sent,
                    };
                }
                (Turn::Done, Answer::Head { .. }) => match self.read_head(server, loan) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(progress) => return progress,
                },
            }
        }
        if up == Turn::Again { Progress::Again } else { Progress::Wait { moved: self.delivered() != before } }
    }

    /// What the client sent beyond its request: the beginning of the next.
    pub fn into_surplus(self) -> Vec<u8> {
        self.surplus
    }

    /// Whether the client has seen a part of the answer. Behind a whole interim response it still waits for all of it.
    pub fn is_answered(&self) -> bool {
        let between = matches!(self.answer, Answer::Head { .. }) && self.response.is_done();
        !between && self.response.delivered() > 0
    }

    /// Lets both bodies grow by so many bytes more, the request's first; see [`Direction::allow`].
    pub fn allow(&mut self, [request, response]: [u64; 2]) {
        self.request.allow(request);
        self.response.allow(response);
    }

    /// How much of that is left.
    pub fn allowance(&self) -> [u64; 2] {
        [self.request.allowance(), self.response.allowance()]
    }

    /// Bytes delivered to the server and to the client.
    pub fn delivered(&self) -> (u64, u64) {
        (self.request.delivered(), self.delivered_before + self.response.delivered())
    }

    /// Gives back what was borrowed.
    pub fn close(&mut self, loan: &mut Loan) {
        self.request.close(loan);
        self.response.close(loan);
    }

    fn pump_request(&mut self, client: &mut End, server: &mut End, loan: &mut Loan) -> Result<Turn, Failed> {
        if self.request_refused || self.request.is_done() {
            return Ok(Turn::Done);
        }
        match self.request.pump(client, server, loan, &mut self.surplus, &mut |_| {}) {
            Err(Failed::Sink(_)) => {
                // It may have answered before it stopped listening: what it says, or its end, decides.
                self.request_refused = true;
                server.ready.readable = true;
                Ok(Turn::Done)
            }
            other => other,
        }
    }

    /// Begins another response, which may read no more than the one before.
    fn respond(&mut self, body: Framing) {
        let allowance = self.response.allowance();
        self.response = Direction::new(body);
        self.response.allow(allowance);
    }

    /// Reads one head; true once it is whole.
    fn read_head(&mut self, server: &mut End, loan: &mut Loan) -> Result<bool, Progress> {
        let Answer::Head { buffer, end } = &mut self.answer else { return Ok(true) };
        let mut found = end.find(buffer);
        while found.is_none() {
            if buffer.len() > http1::MAX_HEAD {
                return Err(Progress::BadResponse);
            }
            if !server.ready.readable {
                return Ok(false);
            }
            match server.stream.read(&mut loan.scratch) {
                Ok(0) if buffer.is_empty() => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(Progress::Broken(Side::Server, error));
                }
                Ok(0) => return Err(Progress::BadResponse),
                Ok(n) => buffer.extend_from_slice(loan.scratch.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    server.ready.readable = false;
                    return Ok(false);
                }
                Err(e) => return Err(Progress::Broken(Side::Server, e)),
            }
            found = end.find(buffer);
        }
        let all = std::mem::take(buffer);
        let (head, rest) = all.split_at(found.unwrap_or_default().min(all.len()));
        if self.asked.upgrades && self.request.is_done() && http1::switches_protocols(head) {
            return Err(Progress::Switched(all));
        }
        let response = http1::parse_response(head, &self.asked.method).map_err(|_| Progress::BadResponse)?;
        if self.asked.minor == 0 && response.body == Framing::Chunked {
            // Not allowed (RFC 9112 §6.1): the client would take the chunks for the body.
            return Err(Progress::BadResponse);
        }
        if response.interim && self.interim >= MAX_INTERIM {
            return Err(Progress::BadResponse);
        }
        let mut bytes = http1::forward_response(head, &response);
        self.delivered_before += self.response.delivered();
        if response.interim {
            self.interim += 1;
            self.respond(Framing::None);
            if self.asked.minor >= 1 {
                self.response.prepend(bytes);
            }
            self.answer = Answer::Head { buffer: rest.to_vec(), end: HeadEnd::new() };
            return Ok(true);
        }
        self.respond(response.body);
        let ours = self.response.admit(rest).map_err(|_| Progress::BadResponse)?;
        let (body, beyond) = rest.split_at(ours);
        bytes.extend_from_slice(body);
        self.response.prepend(bytes);
        self.answer = Answer::Final { server_reusable: response.keep_alive && beyond.is_empty() };
        Ok(true)
    }
}
