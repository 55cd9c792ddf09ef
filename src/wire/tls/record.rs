//! The ClientHello in a stream of TLS records (RFC 8446 §5.1) that arrives in pieces.

use std::ops::ControlFlow::{self, Break, Continue};

use super::hello::{Carrier, ClientHello};

/// ContentType handshake.
const CONTENT_HANDSHAKE: u8 = 22;
/// The major version of every record; the minor one means nothing (RFC 8446 §5.1).
const RECORD_MAJOR: u8 = 3;
/// Type, version, length.
pub const RECORD_HEADER_LEN: usize = 5;

/// HandshakeType client_hello.
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
/// Type and three bytes of length.
const HANDSHAKE_HEADER_LEN: usize = 4;

/// Empty handshake records that are skipped in one hello. Servers take some, OpenSSL 32 in a row.
pub const MAX_EMPTY_RECORDS: usize = 32;

/// What the stream so far says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The hello is whole.
    Complete(ClientHello),
    /// Every byte so far fits, but the hello goes on.
    NeedMore,
    /// No continuation can make this a ClientHello.
    Malformed,
    /// A ClientHello that is longer than the limit, or in too many records.
    TooLarge,
}

/// Finds the ClientHello at the front of a stream, however it is cut into segments and records.
///
/// The work is linear in the stream: a hello in one record is never copied and is looked at once, when it is whole; one
/// that goes over several records is collected, each byte once.
#[derive(Debug)]
pub struct HelloReader {
    /// Largest handshake message, its header included.
    max_message: usize,
    /// Bytes of the stream that are done with: record headers, and fragments as far as they were collected.
    position: usize,
    /// Bytes of the record at `position` that are not done with.
    fragment_left: usize,
    empty_records: usize,
    /// The message as far as it was collected; empty while it may sit in one record.
    collected: Vec<u8>,
}

impl HelloReader {
    /// At the start of a stream, for messages of at most `max_message` bytes with their header.
    pub fn new(max_message: usize) -> Self {
        HelloReader { max_message, position: 0, fragment_left: 0, empty_records: 0, collected: Vec::new() }
    }

    /// Looks at the whole stream so far; it begins with what the call before was given.
    ///
    /// An answer other than [`Progress::NeedMore`] holds for every continuation.
    pub fn read(&mut self, stream: &[u8]) -> Progress {
        loop {
            if let Break(progress) = self.step(stream) {
                return progress;
            }
        }
    }

    /// Goes on by one record header or one piece of a fragment, or breaks with what there is to say.
    fn step(&mut self, stream: &[u8]) -> ControlFlow<Progress> {
        let rest = stream.get(self.position..).unwrap_or_default();
        match self.message_len(&self.collected)? {
            Some(len) if self.collected.len() >= len => Break(finish(&self.collected)),
            _ if self.fragment_left == 0 => self.enter_record(rest),
            wanted => {
                let (fragment, _) = rest.split_at_checked(self.fragment_left).unwrap_or((rest, &[]));
                if self.collected.is_empty() {
                    self.read_in_place(fragment)?;
                }
                // Until the length is known, its bytes are all that is wanted.
                self.collect(fragment, wanted.unwrap_or(HANDSHAKE_HEADER_LEN))
            }
        }
    }

    /// Takes the record header at the front of `rest`, judging its bytes one by one, as they come.
    fn enter_record(&mut self, rest: &[u8]) -> ControlFlow<Progress> {
        let fits = rest.first().is_none_or(|&kind| kind == CONTENT_HANDSHAKE)
            && rest.get(1).is_none_or(|&major| major == RECORD_MAJOR);
        if !fits {
            return Break(Progress::Malformed);
        }
        let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEADER_LEN>() else {
            return Break(Progress::NeedMore);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            if self.empty_records == MAX_EMPTY_RECORDS {
                return Break(Progress::TooLarge);
            }
            self.empty_records += 1;
        }
        self.fragment_left = length;
        self.position += RECORD_HEADER_LEN;
        Continue(())
    }

    /// Where the message begins: if this record holds, or will hold, all of it, it is read where it lies.
    fn read_in_place(&self, fragment: &[u8]) -> ControlFlow<Progress> {
        match self.message_len(fragment)? {
            Some(len) if len <= self.fragment_left => {
                Break(fragment.get(..len).map_or(Progress::NeedMore, finish))
            }
            None if self.fragment_left >= HANDSHAKE_HEADER_LEN => Break(Progress::NeedMore),
            _ => Continue(()),
        }
    }

    /// Moves bytes of the current record to the message, until that has `wanted` bytes.
    fn collect(&mut self, fragment: &[u8], wanted: usize) -> ControlFlow<Progress> {
        let count = fragment.len().min(wanted.saturating_sub(self.collected.len()));
        if count == 0 {
            return Break(Progress::NeedMore);
        }
        self.collected.extend(fragment.iter().take(count));
        self.position += count;
        self.fragment_left -= count;
        Continue(())
    }

    /// The length of the message that begins with `bytes`, its header included, once that is known.
    fn message_len(&self, bytes: &[u8]) -> ControlFlow<Progress, Option<usize>> {
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE_CLIENT_HELLO) {
            return Break(Progress::Malformed);
        }
        let Some(&[_, a, b, c]) = bytes.first_chunk::<HANDSHAKE_HEADER_LEN>() else { return Continue(None) };
        let body = u32::from_be_bytes([0, a, b, c]);
        match usize::try_from(body).ok().and_then(|body| body.checked_add(HANDSHAKE_HEADER_LEN)) {
            Some(len) if len <= self.max_message => Continue(Some(len)),
            _ => Break(Progress::TooLarge),
        }
    }
}

/// Reads a whole message.
fn finish(message: &[u8]) -> Progress {
    let body = message.get(HANDSHAKE_HEADER_LEN..).unwrap_or_default();
    ClientHello::parse(body, Carrier::Tcp).map_or(Progress::Malformed, Progress::Complete)
}
