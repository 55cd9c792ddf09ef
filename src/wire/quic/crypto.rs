//! The handshake's bytes, put in order (RFC 9000 §7.5, §19.6): frames may come in any order, twice, and overlap.

use crate::wire::tls::{Carrier, ClientHello, Progress};

/// Most bytes of the handshake that are kept. A server need not take more than 4 KiB (RFC 9000 §7.5); hellos with
/// post-quantum keys have about 2 KiB.
pub const MAX_CRYPTO: usize = 16 * 1024;

/// HandshakeType client_hello (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
/// Type and three bytes of length.
const HANDSHAKE_HEADER_LEN: usize = 4;

/// A byte came again, and another one. The stream may not change (RFC 9000 §2.2), and which of the two the server will
/// take nobody here knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict;

/// The front of a client's handshake, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct CryptoStream {
    /// Up to the last byte that has come; `None` in the gaps.
    bytes: Vec<Option<u8>>,
    /// Bytes at the front without a gap.
    whole: usize,
    /// A byte at or beyond [`MAX_CRYPTO`] came, which is not kept.
    too_large: bool,
}

impl CryptoStream {
    /// Nothing has come.
    pub fn new() -> Self {
        CryptoStream::default()
    }

    /// Takes in what belongs at `offset`.
    pub fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), Conflict> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(data.len())?))
            .filter(|range| range.end <= MAX_CRYPTO);
        let Some(range) = range else {
            self.too_large = true;
            return Ok(());
        };
        if self.bytes.len() < range.end && !data.is_empty() {
            self.bytes.resize(range.end, None);
        }
        for (slot, &byte) in self.bytes.iter_mut().skip(range.start).zip(data) {
            if slot.replace(byte).is_some_and(|before| before != byte) {
                return Err(Conflict);
            }
        }
        self.whole += self.bytes.iter().skip(self.whole).take_while(|slot| slot.is_some()).count();
        Ok(())
    }

    /// Bytes of memory that it takes: those of all gaps, too.
    pub fn kept(&self) -> usize {
        self.bytes.capacity().saturating_mul(size_of::<Option<u8>>())
    }

    /// The ClientHello, once it is whole.
    ///
    /// Malformed is another message first, or a hello that cannot be read; [`Progress::TooLarge`] one that cannot be whole
    /// within [`MAX_CRYPTO`].
    pub fn hello(&self) -> Progress {
        let front = |count: usize| -> Option<Vec<u8>> { self.bytes.iter().copied().take(count).collect() };
        if front(1).is_some_and(|first| first.first().is_some_and(|&kind| kind != CLIENT_HELLO)) {
            return Progress::Malformed;
        }
        let header = front(HANDSHAKE_HEADER_LEN);
        let Some(&[_, a, b, c]) = header.as_ref().and_then(|header| header.first_chunk()) else {
            return if self.too_large { Progress::TooLarge } else { Progress::NeedMore };
        };
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        match length.checked_add(HANDSHAKE_HEADER_LEN) {
            Some(end) if end <= self.whole => front(end)
                .and_then(|message| ClientHello::parse(message.get(HANDSHAKE_HEADER_LEN..)?, Carrier::Quic))
                .map_or(Progress::Malformed, Progress::Complete),
            Some(end) if end <= MAX_CRYPTO && !self.too_large => Progress::NeedMore,
            _ => Progress::TooLarge,
        }
    }
}
