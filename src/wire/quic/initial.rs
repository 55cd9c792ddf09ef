//! Opening a client's Initial packets (RFC 9001 §5). Their keys come from a connection id that is sent in clear, so
//! whoever sees the first packet can read it.

use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic;

use super::{Kind, Packet, Version};

/// From the start of the packet number to the sample of the ciphertext, as if the number were of the longest form (RFC
/// 9001 §5.4.2).
const SAMPLE_OFFSET: usize = 4;
/// Bytes of the sample (RFC 9001 §5.4.3).
const SAMPLE_LEN: usize = 16;
/// In the first byte: the length of the packet number, less one (RFC 9000 §17.2).
const MASK_NUMBER_LEN: u8 = 0x03;

/// Keys that open the Initial packets of one client's connection.
///
/// They come from the Destination Connection ID of its first Initial and stay the same when the client learns the
/// server's; after a Retry the client begins again, with keys from the id that the server chose for it (RFC 9001 §5.2).
pub struct InitialKeys {
    version: Version,
    dcid: Box<[u8]>,
    keys: quic::DirectionalKeys,
}

impl std::fmt::Debug for InitialKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitialKeys").field("version", &self.version).field("dcid", &self.dcid).finish()
    }
}

impl InitialKeys {
    /// From the connection id of a client's first Initial.
    pub fn new(version: Version, dcid: &[u8]) -> Option<InitialKeys> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        let rustls_version = match version {
            Version::V1 => quic::Version::V1,
            Version::V2 => quic::Version::V2,
        };
        // As the server has them: what opens the client's packets is remote.
        let keys = suite.keys(dcid, Side::Server, rustls_version).remote;
        Some(InitialKeys { version, dcid: dcid.into(), keys })
    }

    /// Whether these are the keys that the packet's own connection id makes.
    pub fn are_of(&self, packet: &Packet<'_>) -> bool {
        self.version == packet.version && *self.dcid == *packet.dcid
    }

    /// The payload: frames. `None` for what is no Initial, or not sealed with these keys.
    pub fn open(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        if packet.kind != Kind::Initial || packet.version != self.version {
            return None;
        }
        let mut bytes = packet.bytes.to_vec();
        let (header, sealed) = bytes.split_at_mut_checked(packet.number_at)?;
        let sample: [u8; SAMPLE_LEN] = *sealed.get(SAMPLE_OFFSET..)?.first_chunk()?;
        let first = header.first_mut()?;
        let longest_number = sealed.get_mut(..SAMPLE_OFFSET)?;
        self.keys.header.decrypt_in_place(&sample, first, longest_number).ok()?;
        let number_len = usize::from(*first & MASK_NUMBER_LEN) + 1;
        // Until something is acknowledged, numbers are sent whole (RFC 9000 §17.1).
        let number = longest_number.iter().take(number_len).fold(0, |n, &byte| n << 8 | u64::from(byte));
        let (header, sealed) = bytes.split_at_mut_checked(packet.number_at.checked_add(number_len)?)?;
        self.keys.packet.decrypt_in_place(number, header, sealed).ok().map(<[u8]>::to_vec)
    }
}
