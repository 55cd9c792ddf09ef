//! A client's side, for tests: seals Initial packets.

use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic;

use crate::wire::quic::Version;

/// Who sends, and how.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) version: Version,
    pub(crate) dcid: Vec<u8>,
    /// Whose keys seal; the first DCID.
    pub(crate) keys_of: Vec<u8>,
    pub(crate) scid: Vec<u8>,
    pub(crate) token: Vec<u8>,
    /// Datagrams are filled up to this with PADDING.
    pub(crate) datagram_len: usize,
}

impl Client {
    pub(crate) fn new(version: Version) -> Self {
        let dcid = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08".to_vec();
        let keys_of = dcid.clone();
        Client { version, dcid, keys_of, scid: b"me".to_vec(), token: Vec::new(), datagram_len: 1200 }
    }

    /// The same after a Retry: another id, keys from it, a token.
    pub(crate) fn after_retry(&self, dcid: &[u8]) -> Self {
        let (dcid, keys_of) = (dcid.to_vec(), dcid.to_vec());
        Client { dcid, keys_of, token: b"token".to_vec(), ..self.clone() }
    }

    /// A datagram of one Initial with these frames.
    pub(crate) fn datagram(&self, number: u16, frames: &[u8]) -> Vec<u8> {
        let mut padded = frames.to_vec();
        loop {
            let datagram = self.initial(number, &padded);
            match self.datagram_len.saturating_sub(datagram.len()) {
                0 => return datagram,
                // Lengths take more bytes when they grow.
                missing => padded.resize(padded.len() + missing.saturating_sub(8).max(1), 0),
            }
        }
    }

    /// One Initial, not padded.
    pub(crate) fn initial(&self, number: u16, frames: &[u8]) -> Vec<u8> {
        // With a packet number of two bytes and room for the sample.
        let payload = [frames, &vec![0; 4_usize.saturating_sub(frames.len())]].concat();
        let first = match self.version {
            Version::V1 => 0xc1,
            Version::V2 => 0xd1,
        };
        let mut packet = self.header(first);
        packet.extend(varint(self.token.len()));
        packet.extend(&self.token);
        packet.extend(varint(2 + payload.len() + 16));
        let number_at = packet.len();
        packet.extend(number.to_be_bytes());
        let keys = keys(self.version, &self.keys_of);
        let mut sealed = payload;
        let tag = keys.packet.encrypt_in_place(u64::from(number), &packet, &mut sealed).unwrap();
        packet.extend(sealed);
        packet.extend(tag.as_ref());
        let sample = packet[number_at + 4..number_at + 20].to_vec();
        let (header, rest) = packet.split_at_mut(number_at);
        keys.header.encrypt_in_place(&sample, &mut header[0], &mut rest[..2]).unwrap();
        packet
    }

    /// A packet with a long header and a length, of bytes that nobody can open.
    pub(crate) fn other(&self, first: u8) -> Vec<u8> {
        [self.header(first), varint(40), vec![0x5a; 40]].concat()
    }

    fn header(&self, first: u8) -> Vec<u8> {
        let version: u32 = match self.version {
            Version::V1 => 1,
            Version::V2 => 0x6b33_43cf,
        };
        let vec8 = |cid: &[u8]| [&[u8::try_from(cid.len()).unwrap()], cid].concat();
        [vec![first], version.to_be_bytes().to_vec(), vec8(&self.dcid), vec8(&self.scid)].concat()
    }
}

fn keys(version: Version, dcid: &[u8]) -> quic::DirectionalKeys {
    let version = match version {
        Version::V1 => quic::Version::V1,
        Version::V2 => quic::Version::V2,
    };
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    suite.keys(dcid, Side::Client, version).local
}

pub(crate) fn varint(value: usize) -> Vec<u8> {
    match value {
        0..=0x3f => vec![u8::try_from(value).unwrap()],
        _ => (0x4000 | u16::try_from(value).unwrap()).to_be_bytes().to_vec(),
    }
}

pub(crate) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}
