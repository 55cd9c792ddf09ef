//! Version Negotiation (RFC 9000 §17.2.1, RFC 8999 §6) as a refusal: a client that is offered nothing it speaks gives
//! up on QUIC at once, instead of after seconds of silence.

use super::{LongHeader, MAX_CID};

/// Smallest datagram that is answered: a client's first is padded to it (RFC 9000 §14.1), so that whoever forges a sender
/// sends more than comes back.
const MIN_REQUEST: usize = 1200;
/// Long header and fixed bit. In the answer, too, so that nobody takes it for another protocol on the same port (§17.2.1).
const FIRST_BITS: u8 = 0xc0;
/// Versions that exist to be unknown (RFC 9000 §15); the second stands in for the first if that is what was asked for,
/// because a client ignores an offer of what it speaks itself (§6.2).
const RESERVED: [u32; 2] = [0x1a2a_3a4a, 0x5a6a_7a8a];

/// The answer that refuses the connection which `datagram` would begin.
///
/// `None` if it may not be answered: smaller than 1200 bytes, first bits other than 11, itself a Version Negotiation (RFC
/// 9000 §6.1), or connection ids of more than 20 bytes, which no version that is in use has. The answer is always smaller
/// than the datagram. It is for the first datagram of a flow only: a client that has had any packet of its server
/// ignores it.
pub fn version_negotiation(datagram: &[u8]) -> Option<Vec<u8>> {
    let header = LongHeader::parse(datagram)?;
    let answerable = datagram.len() >= MIN_REQUEST
        && header.first & FIRST_BITS == FIRST_BITS
        && header.version != 0
        && header.dcid.len() <= MAX_CID
        && header.scid.len() <= MAX_CID;
    if !answerable {
        return None;
    }
    let offered = RESERVED.into_iter().find(|&version| version != header.version)?;
    let mut answer = vec![FIRST_BITS];
    answer.extend(0_u32.to_be_bytes());
    // The client's own id shows that the answer is to its packet.
    for cid in [header.scid, header.dcid] {
        answer.push(u8::try_from(cid.len()).ok()?);
        answer.extend_from_slice(cid);
    }
    answer.extend(offered.to_be_bytes());
    Some(answer)
}
