//! QUIC of version 1 and 2: the ClientHello out of a client's first datagrams.
//!
//! Packets that are not Initials (0-RTT, short headers) are passed over, as are those that do not open once one has
//! opened: that is what a server does with them (RFC 9000 §5.2.2, §12.2). What a server might read in another way than
//! it is read here is refused instead: packets for two connections in one datagram, or more packets than are looked at,
//! bytes of the handshake that come twice and differ.

use super::Identity;
use super::datagram::{DatagramOutcome, MAX_BYTES, MAX_DATAGRAMS, Shortfall};
use crate::wire::quic::{CryptoStream, InitialKeys, Kind, Packet, crypto_frames, packets};
use crate::wire::tls::Progress;

/// Sets of keys of one flow: from the first connection id, and from the one that a Retry brought.
const MAX_KEYS: usize = 2;

/// The datagrams of one flow, as far as they have come.
#[derive(Debug)]
pub(super) struct Flow {
    keys: Vec<InitialKeys>,
    /// One for all keys: after a Retry the client sends the same ClientHello again (RFC 9000 §17.2.5.3).
    crypto: CryptoStream,
    datagrams: usize,
    bytes: usize,
}

impl Flow {
    pub(super) fn new() -> Self {
        Flow { keys: Vec::new(), crypto: CryptoStream::new(), datagrams: 0, bytes: 0 }
    }

    /// Bytes of memory that the handshake's bytes take.
    pub(super) fn kept(&self) -> usize {
        self.crypto.kept()
    }

    /// Takes in the next datagram. An answer is the last one.
    pub(super) fn look(&mut self, datagram: &[u8]) -> DatagramOutcome {
        self.datagrams += 1;
        self.bytes = self.bytes.saturating_add(datagram.len());
        if let Err(shortfall) = self.take(datagram) {
            return DatagramOutcome::Incomplete(shortfall);
        }
        match self.crypto.hello() {
            Progress::Complete(hello) => {
                DatagramOutcome::Identified(Identity::Quic { hello: Some(Box::new(hello)) })
            }
            Progress::Malformed | Progress::TooLarge => DatagramOutcome::Incomplete(Shortfall::NoHello),
            Progress::NeedMore if self.datagrams >= MAX_DATAGRAMS || self.bytes >= MAX_BYTES => {
                DatagramOutcome::Incomplete(Shortfall::TooMuch)
            }
            Progress::NeedMore => DatagramOutcome::NeedMore { begun: true },
        }
    }

    /// Whether every Initial of the datagram is of this flow, and says nothing else than what was said. `retry`: it may have
    /// another connection id than those before.
    pub(super) fn repeats(&mut self, datagram: &[u8], retry: bool) -> bool {
        let (keys, crypto) = (self.keys.len(), self.crypto.clone());
        let mut packets = packets(datagram);
        let mut initials = packets.by_ref().filter(|packet| packet.kind == Kind::Initial);
        let repeats = initials.all(|packet| {
            let payload =
                if retry { self.open(&packet) } else { self.keys.iter().find_map(|keys| keys.open(&packet)) };
            payload.is_some_and(|payload| self.collect(&payload).is_ok())
        });
        let repeats = repeats && !packets.has_more();
        if !repeats {
            // Nothing of what is not this flow's is kept.
            self.keys.truncate(keys);
        }
        // What came behind the hello is compared within its datagram: kept, it would take memory that nobody has counted.
        self.crypto = crypto;
        repeats
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), Shortfall> {
        let first = packets(datagram).next();
        if first.is_none() && self.datagrams == 1 {
            return Err(Shortfall::Malformed);
        }
        let mut packets = packets(datagram);
        for packet in packets.by_ref() {
            if first.is_some_and(|first| first.dcid != packet.dcid) {
                // A server should ignore it, and a client must not send it (RFC 9000 §12.2).
                return Err(Shortfall::Malformed);
            }
            if packet.kind == Kind::Initial {
                match self.open(&packet) {
                    Some(payload) => self.collect(&payload)?,
                    None if self.keys.is_empty() => return Err(Shortfall::NotOpened),
                    None => {}
                }
            }
        }
        if packets.has_more() { Err(Shortfall::Malformed) } else { Ok(()) }
    }

    /// With the keys of the flow, else with those of the packet's own connection id, which then are the flow's, too.
    fn open(&mut self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        if let Some(payload) = self.keys.iter().find_map(|keys| keys.open(packet)) {
            return Some(payload);
        }
        if self.keys.len() >= MAX_KEYS || self.keys.iter().any(|keys| keys.are_of(packet)) {
            return None;
        }
        let keys = InitialKeys::new(packet.version, packet.dcid)?;
        let payload = keys.open(packet)?;
        self.keys.push(keys);
        Some(payload)
    }

    fn collect(&mut self, payload: &[u8]) -> Result<(), Shortfall> {
        for frame in crypto_frames(payload).ok_or(Shortfall::NoHello)? {
            self.crypto.insert(frame.offset, frame.data).map_err(|_conflict| Shortfall::NoHello)?;
        }
        Ok(())
    }
}

/// Whether a connection begins with this datagram: it holds an Initial that its own connection id opens. A client's later
/// Initials carry the id that the server chose, and do not open so; only after a Retry they do. What no client sends counts as
/// such a beginning: packets with several ids or versions, or more of them than are looked at.
///
/// A client can begin another connection in a flow that was let in for a first one: whoever relays the flow asks this of
/// every further datagram, and identifies anew where it holds. So the keys are made once for a datagram at most.
pub fn begins_connection(datagram: &[u8]) -> bool {
    let mut packets = packets(datagram);
    let all: Vec<Packet<'_>> = packets.by_ref().collect();
    let Some(first) = all.first() else { return false };
    if packets.has_more() || all.iter().any(|it| (it.version, it.dcid) != (first.version, first.dcid)) {
        return true;
    }
    let mut initials = all.iter().filter(|packet| packet.kind == Kind::Initial).peekable();
    initials.peek().is_some()
        && InitialKeys::new(first.version, first.dcid)
            .is_some_and(|keys| initials.any(|packet| keys.open(packet).is_some()))
}
