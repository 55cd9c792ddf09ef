//! Follows a message's body, so that exactly its bytes are passed on and the next message is found.
//!
//! Chunked bodies (RFC 9112 §7.1) are read by the letter: CRLF ends every line, nothing stands before or behind a chunk
//! size but an extension, and no control byte is in one. Nothing is decoded, kept or changed.

use super::Framing;
use super::head::MAX_LENGTH;

/// Most bytes of one chunk's extensions (RFC 9112 §7.1.1 wants a limit).
pub const MAX_CHUNK_EXTENSION: u16 = 256;
/// Most bytes of a trailer section.
pub const MAX_TRAILERS: u16 = 8 * 1024;
/// Most digits of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;
/// Fields that a recipient could merge into the head, changing where the message ends or goes (RFC 9110 §6.5.1).
const NEVER_A_TRAILER: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// The body breaks its framing: the connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(
    /// What is wrong, for the log.
    pub &'static str,
);

/// Where in a body the next byte is.
#[derive(Debug, Clone)]
pub struct Body {
    state: State,
    /// Bytes of the trailer section so far.
    trailer_bytes: u16,
    trailer_name: FieldName,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Done,
    ToEof,
    /// Bytes left of a body with a length.
    Length(u64),
    /// In the chunk size.
    Size {
        digits: u8,
        size: u64,
    },
    /// Behind the `;` of a chunk extension.
    Extension {
        size: u64,
        len: u16,
    },
    /// Behind the CR of a chunk's first line.
    SizeLf {
        size: u64,
    },
    /// Bytes left of the chunk.
    Data(u64),
    /// Behind a chunk's data.
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the last line.
    LastLf,
    Broken(Malformed),
}

impl Body {
    /// At the first byte behind the head.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size { digits: 0, size: 0 },
            Framing::ToEof => State::ToEof,
        };
        Body { state, trailer_bytes: 0, trailer_name: FieldName::default() }
    }

    /// How many of `bytes`, which follow those taken before, belong to this body; 0 when it is done.
    ///
    /// # Errors
    /// Some of them break the framing; so does everything behind.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if let State::Broken(malformed) = self.state {
            return Err(malformed);
        }
        let mut rest = bytes;
        while !self.is_done() {
            let opaque = usize::try_from(self.opaque()).unwrap_or(usize::MAX).min(rest.len());
            if let (1.., Some(behind)) = (opaque, rest.get(opaque..)) {
                self.skip(opaque as u64);
                rest = behind;
            } else if let Some((&byte, behind)) = rest.split_first() {
                self.state =
                    self.after(byte).inspect_err(|&malformed| self.state = State::Broken(malformed))?;
                rest = behind;
            } else {
                break;
            }
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    /// Whether all of it was taken. Never true of a body that ends with the connection.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether it ends with the connection.
    pub fn is_to_eof(&self) -> bool {
        matches!(self.state, State::ToEof)
    }

    /// Bytes of payload that are next for certain, whatever they are: what may be moved without being looked at. The rest
    /// of a body with a length or of the chunk, `u64::MAX` for a body that ends with the connection.
    pub fn opaque(&self) -> u64 {
        match self.state {
            State::Length(n) | State::Data(n) => n,
            State::ToEof => u64::MAX,
            _ => 0,
        }
    }

    /// Says that `n` bytes, at most [`Body::opaque`], were moved.
    pub fn skip(&mut self, n: u64) {
        debug_assert!(n <= self.opaque(), "skipped past the payload");
        self.state = match self.state {
            State::Length(left) if left <= n => State::Done,
            State::Length(left) => State::Length(left.saturating_sub(n)),
            State::Data(left) if left <= n => State::DataCr,
            State::Data(left) => State::Data(left.saturating_sub(n)),
            other => other,
        };
    }

    /// The connection was closed here.
    ///
    /// # Errors
    /// The body is not whole (RFC 9112 §8).
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.state {
            State::Done | State::ToEof => Ok(()),
            State::Broken(malformed) => Err(malformed),
            _ => Err(Malformed("the body ends early")),
        }
    }

    /// The state behind a byte that is no payload.
    fn after(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size { digits, size }, byte) if byte.is_ascii_hexdigit() => grow(digits, size, byte),
            (State::Size { digits: 1.., size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { digits: 1.., size }, b';') => Ok(State::Extension { size, len: 0 }),
            (State::Size { .. }, _) => Err(Malformed("an invalid chunk size")),

            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { len: MAX_CHUNK_EXTENSION.., .. }, _) => {
                Err(Malformed("a long chunk extension"))
            }
            (State::Extension { size, len }, byte) if is_text(byte) => {
                Ok(State::Extension { size, len: len.saturating_add(1) })
            }
            (State::Extension { .. }, _) => Err(Malformed("a control byte in a chunk extension")),

            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeLf { size }, b'\n') => Ok(State::Data(size)),
            (State::SizeLf { .. }, _) => Err(Malformed("a bare CR behind a chunk size")),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::DataCr | State::DataLf, _) => Err(Malformed("a chunk longer than its size")),

            (State::Trailer, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => self.after_trailer(byte),
        }
    }

    /// The same within a line of the trailer section.
    fn after_trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        if self.trailer_bytes >= MAX_TRAILERS {
            return Err(Malformed("a long trailer section"));
        }
        self.trailer_bytes = self.trailer_bytes.saturating_add(1);
        match (self.state, byte) {
            (State::Trailer, byte) if is_token(byte) => {
                self.trailer_name = FieldName::default();
                self.trailer_name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if NEVER_A_TRAILER.iter().any(|name| self.trailer_name.is(name)) => {
                Err(Malformed("a trailer about framing"))
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, byte) if is_token(byte) => {
                self.trailer_name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            _ => Err(Malformed("an invalid trailer")),
        }
    }
}

/// One more digit of a chunk size.
fn grow(digits: u8, size: u64, byte: u8) -> Result<State, Malformed> {
    let digit = char::from(byte).to_digit(16).map(u64::from);
    let grown = size.checked_mul(16).zip(digit).and_then(|(size, digit)| size.checked_add(digit));
    match grown {
        Some(size) if size <= MAX_LENGTH && digits < MAX_SIZE_DIGITS => {
            Ok(State::Size { digits: digits.saturating_add(1), size })
        }
        _ => Err(Malformed("a chunk size beyond every use")),
    }
}

/// A byte of text: HTAB, blank, visible, or not ASCII (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The start of a trailer's name, as long as the longest that is looked for, and the whole name's length.
#[derive(Debug, Clone, Copy, Default)]
struct FieldName {
    start: [u8; 17],
    len: u16,
}

impl FieldName {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.start.get_mut(usize::from(self.len)) {
            *slot = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    fn is(&self, name: &str) -> bool {
        self.start
            .get(..usize::from(self.len))
            .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    }
}
