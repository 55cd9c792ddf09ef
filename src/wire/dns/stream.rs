//! The answers of a nameserver over TCP (RFC 1035 §4.2.2, RFC 7766): read, and stripped of Encrypted ClientHello, as they
//! pass by.
//!
//! Each message has its length in front. Only whole messages can be read, so where they may be changed they go on whole;
//! otherwise every byte goes on at once. A stream that turns out to be none of answers is let alone from there on, and so is
//! a zone transfer, which is data for another server.

use super::ech::{MAX_PUBLISHED, Published, published_ech, strip_ech};
use super::{FLAG_RESPONSE, HEADER_LEN, QTYPE_AXFR, QTYPE_IXFR, read_question};
use crate::wire::cursor::Cursor;

/// Bytes of the length in front of a message.
const PREFIX_LEN: usize = 2;

/// A nameserver's side of a connection.
#[derive(Debug, Default)]
pub struct AnswerStream {
    strip: bool,
    /// The beginning of a message, with its length: never more than one message.
    held: Vec<u8>,
    /// Nothing of the stream is looked at any more.
    let_alone: bool,
    published: Vec<Published>,
}

impl AnswerStream {
    /// A stream from its beginning. `strip`: without Encrypted ClientHello, see [`strip_ech`].
    pub fn new(strip: bool) -> Self {
        AnswerStream { strip, ..AnswerStream::default() }
    }

    /// Takes in what the nameserver sends next; gives what is to go on. What is cut does not depend on how the stream is
    /// cut into pieces.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = if self.strip { Vec::with_capacity(bytes.len()) } else { bytes.to_vec() };
        let mut rest = bytes;
        while !self.let_alone && !rest.is_empty() {
            // As much as the message still lacks, or its length does.
            let lacks = self.whole().unwrap_or(PREFIX_LEN).saturating_sub(self.held.len());
            let (piece, others) = rest.split_at(lacks.min(rest.len()));
            self.held.extend_from_slice(piece);
            rest = others;
            if self.is_no_answer() {
                self.let_alone = true;
            } else if self.whole() == Some(self.held.len()) {
                self.message(&mut out);
            }
        }
        if self.let_alone && self.strip {
            out.append(&mut self.held);
            out.extend_from_slice(rest);
        }
        out
    }

    /// The nameserver sends nothing more: what there is of a last message goes on as it is.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if self.strip { held } else { Vec::new() }
    }

    /// What the messages so far have published, since this was asked last; at most [`MAX_PUBLISHED`].
    pub fn take_published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.published)
    }

    /// Bytes of the message that has begun, its length among them, as soon as that is known.
    fn whole(&self) -> Option<usize> {
        let length = self.held.first_chunk::<PREFIX_LEN>()?;
        Some(PREFIX_LEN.saturating_add(u16::from_be_bytes(*length).into()))
    }

    /// Whether that which has begun is certainly no answer.
    fn is_no_answer(&self) -> bool {
        let too_short = self.whole().is_some_and(|whole| whole < PREFIX_LEN + HEADER_LEN);
        let is_response = |high: &u8| high & (FLAG_RESPONSE >> 8) as u8 != 0;
        too_short || self.held.get(PREFIX_LEN + 2).is_some_and(|flags| !is_response(flags))
    }

    /// A message is whole.
    fn message(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let message = held.get(PREFIX_LEN..).unwrap_or_default();
        if is_transfer(message) {
            self.let_alone = true;
        } else {
            self.published.extend(published_ech(message));
            self.published.truncate(MAX_PUBLISHED);
        }
        if !self.strip {
            return;
        }
        let stripped = if self.let_alone { None } else { strip_ech(message) };
        match stripped.and_then(|message| Some((u16::try_from(message.len()).ok()?, message))) {
            Some((length, message)) => {
                out.extend(length.to_be_bytes());
                out.extend(message);
            }
            None => out.extend(held),
        }
    }
}

/// Whether a whole message belongs to a zone transfer, of which only the first must say so (RFC 5936 §2.2).
fn is_transfer(message: &[u8]) -> bool {
    let mut cursor = Cursor::new(message);
    let question = super::Header::read(&mut cursor).filter(|header| header.questions > 0);
    let question = question.and_then(|_| read_question(message, &mut cursor));
    matches!(question, Some((_, QTYPE_IXFR | QTYPE_AXFR, _)))
}

#[cfg(test)]
mod tests;
