//! One direction of a relay, written once and used twice.
//!
//! Bytes go from a source to a sink, as far as a [`Body`] lets them: all of them in a tunnel, one message body in an HTTP
//! exchange. What a slow sink leaves over is kept here, and the source is not read until it is gone. A direction that has
//! nothing to do holds no buffer and no pipe.

use std::{fmt, io};

use super::{End, Loan};
use crate::sys::splice::Pipe;
use crate::wire::dns::ech::Published;
use crate::wire::dns::stream::AnswerStream;
use crate::wire::http1::{Body, Framing};

/// Bytes moved by copying before a direction counts as bulk and is spliced.
const BULK_AFTER: u32 = 64 * 1024;

/// A turn of a bulk direction that moved less than this makes it an ordinary one again: three system calls to splice a
/// few bytes cost more than two to copy them.
const BULK_LEAST: u64 = 4 * 1024;

/// What one call of [`Direction::pump`] may move before others get their turn.
const BUDGET: u64 = 48 * 1024;

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Reading.
    Open,
    /// The source is at its end or the body complete; what is held is still to be delivered.
    Draining,
    /// Everything is delivered.
    Done,
}

/// What the sink has not taken yet.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes { buffer: Box<[u8]>, sent: usize },
    Piped { pipe: Pipe, bytes: usize },
}

/// What reads a nameserver's answers as they pass, and may change them. Programs that never do so do not link it.
pub trait Answers: fmt::Debug + Send {
    /// Takes in what was read; gives what goes on.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8>;

    /// Nothing more comes: gives what goes on at the end.
    fn end(&mut self) -> Vec<u8>;

    /// What was published since this was asked last.
    fn take_published(&mut self) -> Vec<Published>;
}

impl Answers for AnswerStream {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        AnswerStream::take(self, bytes)
    }

    fn end(&mut self) -> Vec<u8> {
        AnswerStream::end(self)
    }

    fn take_published(&mut self) -> Vec<Published> {
        AnswerStream::take_published(self)
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Source or sink must become ready first.
    Wait,
    /// The budget is used up; there is more to do.
    Again,
    /// Everything is delivered. Whether the sink is to be closed is the caller's business.
    Done,
}

/// Which socket failed, or that the source broke its framing.
#[derive(Debug)]
pub enum Failed {
    /// Reading.
    Source(io::Error),
    /// Writing.
    Sink(io::Error),
    /// The message does not follow its framing, or ended in the middle.
    Malformed,
}

/// One direction.
#[derive(Debug)]
pub struct Direction {
    flow: Flow,
    held: Held,
    body: Body,
    /// Bytes delivered to the sink.
    delivered: u64,
    /// Bytes copied since the last transfer through a pipe that was small, or for which there was no pipe.
    run: u32,
    /// Bytes that may still be read of the source.
    allowance: u64,
    /// What is read is a nameserver's answers, which may be changed.
    answers: Option<Box<dyn Answers>>,
}

impl Direction {
    /// A direction for one message body.
    pub fn new(framing: Framing) -> Self {
        let body = Body::new(framing);
        let flow = if body.is_done() { Flow::Draining } else { Flow::Open };
        Direction {
            flow,
            held: Held::Nothing,
            body,
            delivered: 0,
            run: 0,
            allowance: u64::MAX,
            answers: None,
        }
    }

    /// A direction that moves everything until the source's end.
    pub fn to_end() -> Self {
        Self::new(Framing::ToEof)
    }

    /// Puts `bytes` before everything else, outside the body: a head, or a prelude read earlier. Only before the first turn.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        debug_assert!(matches!(self.held, Held::Nothing), "prepended twice");
        if !bytes.is_empty() {
            self.held = Held::Bytes { buffer: bytes.into_boxed_slice(), sent: 0 };
        }
    }

    /// Lets the body begin with bytes that were read together with the head: how many of `bytes` belong to it.
    pub fn admit(&mut self, bytes: &[u8]) -> Result<usize, Failed> {
        let n = self.body.take(bytes).map_err(|_| Failed::Malformed)?;
        if self.body.is_done() {
            self.flow = Flow::Draining;
        }
        Ok(n)
    }

    /// Lets it read so many bytes more and then stop, until it is told again. Without this it reads whatever comes.
    pub fn allow(&mut self, bytes: u64) {
        self.allowance = bytes;
    }

    /// Reads everything from now on as a nameserver's answers. Before anything is moved, and without a body's framing.
    pub fn read_answers(&mut self, answers: Box<dyn Answers>) {
        self.answers = Some(answers);
    }

    /// That which is read as a nameserver's answers.
    pub fn answers(&mut self) -> Option<&mut (dyn Answers + 'static)> {
        self.answers.as_deref_mut()
    }

    /// How much of that is left.
    pub fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Bytes delivered so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether everything is delivered.
    pub fn is_done(&self) -> bool {
        self.flow == Flow::Done
    }

    /// Whether only the source's end ends it.
    pub fn ends_with_source(&self) -> bool {
        self.body.is_to_eof()
    }

    /// Moves what can be moved. `seen` is shown every copied piece; `surplus` gets bytes read beyond the body's end.
    pub fn pump(
        &mut self,
        source: &mut End,
        sink: &mut End,
        loan: &mut Loan,
        surplus: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<Turn, Failed> {
        let mut moved = 0_u64;
        loop {
            if !self.flush(sink, loan)? {
                return Ok(Turn::Wait);
            }
            match self.flow {
                Flow::Done => return Ok(Turn::Done),
                Flow::Draining => {
                    self.flow = Flow::Done;
                    return Ok(Turn::Done);
                }
                Flow::Open if !source.ready.readable || self.allowance == 0 => return Ok(Turn::Wait),
                Flow::Open if moved >= BUDGET => return Ok(Turn::Again),
                Flow::Open => {}
            }
            // Nobody has seen what went through a pipe.
            let bulk = self.answers.is_none() && self.run >= BULK_AFTER && self.body.opaque() >= BULK_LEAST;
            let read = if bulk && source.stream.is_bare() && sink.stream.is_bare() {
                self.splice(source, sink, loan)?
            } else {
                self.copy(source, sink, loan, surplus, seen)?
            };
            moved += read;
            self.allowance = self.allowance.saturating_sub(read);
        }
    }

    /// Gives a borrowed pipe back, at the end of a session.
    pub fn close(&mut self, loan: &mut Loan) {
        if let Held::Piped { pipe, .. } = std::mem::replace(&mut self.held, Held::Nothing) {
            loan.pipes.discard(pipe);
        }
        self.flow = Flow::Done;
    }

    /// Delivers what is held, here and in the sink's stream; false if the sink is full.
    fn flush(&mut self, sink: &mut End, loan: &mut Loan) -> Result<bool, Failed> {
        loop {
            let n = match &mut self.held {
                Held::Nothing => return sink.flush().map_err(Failed::Sink),
                _ if !sink.ready.writable => return Ok(false),
                Held::Bytes { buffer, sent } => {
                    let Some(n) = would_block(sink.stream.write(buffer.get(*sent..).unwrap_or_default()))
                        .map_err(Failed::Sink)?
                    else {
                        sink.ready.writable = false;
                        return Ok(false);
                    };
                    *sent += n;
                    if *sent >= buffer.len() {
                        self.held = Held::Nothing;
                    }
                    n
                }
                Held::Piped { pipe, bytes } => {
                    let Some(n) =
                        would_block(pipe.drain(sink.stream.socket(), *bytes)).map_err(Failed::Sink)?
                    else {
                        sink.ready.writable = false;
                        return Ok(false);
                    };
                    *bytes = bytes.saturating_sub(n);
                    if *bytes == 0
                        && let Held::Piped { pipe, .. } = std::mem::replace(&mut self.held, Held::Nothing)
                    {
                        loan.pipes.give_back(pipe);
                    }
                    n
                }
            };
            self.delivered += n as u64;
        }
    }

    /// Reads once into the shared buffer and writes it on; what the sink does not take is kept.
    fn copy(
        &mut self,
        source: &mut End,
        sink: &mut End,
        loan: &mut Loan,
        surplus: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, Failed> {
        let most = usize::try_from(self.allowance).unwrap_or(usize::MAX).min(loan.scratch.len());
        let buffer = loan.scratch.get_mut(..most).unwrap_or_default();
        let Some(n) = would_block(source.stream.read(buffer)).map_err(Failed::Source)? else {
            source.ready.readable = false;
            return Ok(0);
        };
        if n == 0 {
            if let Some(last) =
                self.answers.as_mut().map(|answers| answers.end()).filter(|last| !last.is_empty())
            {
                self.held = Held::Bytes { buffer: last.into(), sent: 0 };
            }
            self.end_of_source()?;
            return Ok(0);
        }
        source.was_read(n, most);
        let bytes = loan.scratch.get(..n).unwrap_or_default();
        seen(bytes);
        let changed = self.answers.as_mut().map(|answers| answers.take(bytes));
        let bytes = changed.as_deref().unwrap_or(bytes);
        let (bytes, rest) = bytes.split_at(self.admit(bytes)?);
        surplus.extend_from_slice(rest);
        let sent = if sink.ready.writable && !bytes.is_empty() {
            would_block(sink.stream.write(bytes)).map_err(Failed::Sink)?.unwrap_or(0)
        } else {
            0
        };
        self.delivered += sent as u64;
        let rest = bytes.get(sent..).unwrap_or_default();
        if rest.is_empty() {
            self.run = self.run.saturating_add(bytes.len() as u32);
        } else {
            sink.ready.writable = false;
            self.held = Held::Bytes { buffer: rest.into(), sent: 0 };
        }
        Ok(n as u64)
    }

    /// Moves once through a pipe; what the sink does not take stays in it.
    fn splice(&mut self, source: &mut End, sink: &mut End, loan: &mut Loan) -> Result<u64, Failed> {
        let Some(pipe) = loan.pipes.borrow() else {
            self.run = 0;
            return Ok(0);
        };
        let max = usize::try_from(self.body.opaque().min(self.allowance))
            .unwrap_or(usize::MAX)
            .min(super::pipes::CAPACITY as usize);
        match would_block(pipe.fill(source.stream.socket(), max)) {
            Ok(Some(0)) => {
                loan.pipes.give_back(pipe);
                self.end_of_source()?;
                Ok(0)
            }
            Ok(Some(n)) => {
                self.body.skip(n as u64);
                if self.body.is_done() {
                    self.flow = Flow::Draining;
                }
                if (n as u64) < BULK_LEAST {
                    self.run = 0;
                }
                self.held = Held::Piped { pipe, bytes: n };
                self.flush(sink, loan)?;
                Ok(n as u64)
            }
            Ok(None) => {
                // The pipe was empty, so it is the source that has nothing.
                loan.pipes.give_back(pipe);
                source.ready.readable = false;
                Ok(0)
            }
            Err(error) => {
                loan.pipes.discard(pipe);
                Err(Failed::Source(error))
            }
        }
    }

    /// Bytes that wait for the sink.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::Bytes { buffer, sent } => buffer.len() - sent,
            Held::Piped { bytes, .. } => *bytes,
        }
    }

    /// Whether neither memory nor a pipe is held.
    #[cfg(test)]
    pub(super) fn is_empty_handed(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    fn end_of_source(&mut self) -> Result<(), Failed> {
        self.body.finish().map_err(|_| Failed::Malformed)?;
        self.flow = Flow::Draining;
        Ok(())
    }
}

/// `None` for "not now".
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}
