//! QUIC: the ClientHello out of Initial packets, however its bytes are scattered, agrees with a naive reassembler.
#![no_main]

use std::collections::BTreeMap;

use calamary::identify::datagram::{
    DatagramIdentifier, DatagramOutcome, MAX_BYTES, MAX_DATAGRAMS, Shortfall, begins_connection,
};
use calamary::identify::{Identity, Parsers};
use calamary::wire::quic::MAX_CRYPTO;
use calamary::wire::tls::{Carrier, ClientHello};
use calamary_fuzz::{Random, pieces};
use libfuzzer_sys::fuzz_target;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic;

fuzz_target!(|data: &[u8]| {
    let random = &mut Random::of(data);
    let stream = handshake(data, random);
    let mut identifier = DatagramIdentifier::new(Parsers::default(), 443);
    let mut naive = Naive::default();
    let mut client = Client { v2: random.one_in(2), cid: b"12345678".to_vec(), keys_of: b"12345678".to_vec() };
    let mut answer = DatagramOutcome::NeedMore { begun: false };
    for (number, frames) in scattered(&stream, random).chunks(1 + random.within(0..=20)).enumerate() {
        if number == 1 && random.one_in(4) {
            client.cid = b"fromRetry".to_vec();
            client.keys_of = client.cid.clone();
        } else if number > 0 && random.one_in(4) {
            // The server's own choice: other id, same keys.
            client.cid = b"server".to_vec();
        }
        let datagram = client.datagram(number, frames, random);
        assert_eq!(begins_connection(&datagram), client.cid == client.keys_of);
        let outcome = identifier.look(&datagram);
        if !matches!(answer, DatagramOutcome::NeedMore { .. }) {
            assert_eq!(outcome, answer, "an answer changed");
            continue;
        }
        naive.take(frames, datagram.len());
        assert_eq!(outcome, naive.outcome());
        answer = outcome;
    }
});

/// The bytes of a handshake: a hello out of a TLS record as it is, anything else behind a header that may be right.
fn handshake(data: &[u8], random: &mut Random) -> Vec<u8> {
    let message = match data {
        [0x16, 3, _, _, _, message @ ..] => message.to_vec(),
        body => {
            let length = u32::try_from(body.len() + usize::from(random.one_in(8))).unwrap().to_be_bytes();
            [&[1], &length[1..], body].concat()
        }
    };
    message.into_iter().take(0x3fff).collect()
}

#[derive(Debug)]
struct Frame {
    offset: usize,
    data: Vec<u8>,
    /// Sent behind it.
    between: &'static [u8],
}

/// The stream in frames in another order, some longer than they need be, a few of them wrong.
fn scattered(stream: &[u8], random: &mut Random) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = 0;
    for piece in pieces(stream, random) {
        let from = at - random.within(0..=8).min(at);
        at += piece.len();
        let mut data = stream[from..(at + random.within(0..=8)).min(stream.len())].to_vec();
        if random.one_in(400) {
            data[0] ^= 1;
        }
        let offset = if random.one_in(400) { 0x3ffe } else { from };
        let between: &[u8] = [&b""[..], b"\0", b"\x01\0\0", b"\x02\x05\0\x01\0\0\x01"][random.within(0..=3)];
        frames.push(Frame { offset, data, between });
    }
    if !random.one_in(3) {
        for i in (1..frames.len()).rev() {
            frames.swap(i, random.within(0..=i));
        }
    }
    frames
}

/// Byte by byte, in a map.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<usize, u8>,
    contradicted: bool,
    beyond: bool,
    datagrams: usize,
    total: usize,
}

impl Naive {
    fn take(&mut self, frames: &[Frame], len: usize) {
        self.datagrams += 1;
        self.total += len;
        for frame in frames {
            if frame.offset + frame.data.len() > MAX_CRYPTO {
                self.beyond = true;
                continue;
            }
            for (at, &byte) in (frame.offset..).zip(&frame.data) {
                self.contradicted |= *self.bytes.entry(at).or_insert(byte) != byte;
            }
        }
    }

    fn outcome(&self) -> DatagramOutcome {
        let no_hello = DatagramOutcome::Incomplete(Shortfall::NoHello);
        let front: Vec<u8> = (0..).map_while(|at| self.bytes.get(&at).copied()).collect();
        if self.contradicted || front.first().is_some_and(|&kind| kind != 1) {
            return no_hello;
        }
        if let [_, a, b, c, rest @ ..] = &front[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if let Some(body) = rest.get(..length) {
                return ClientHello::parse(body, Carrier::Quic).map_or(no_hello, |hello| {
                    DatagramOutcome::Identified(Identity::Quic { hello: Some(Box::new(hello)) })
                });
            }
            if length + 4 > MAX_CRYPTO {
                return no_hello;
            }
        }
        match self.beyond {
            true => no_hello,
            false if self.datagrams >= MAX_DATAGRAMS || self.total >= MAX_BYTES => {
                DatagramOutcome::Incomplete(Shortfall::TooMuch)
            }
            false => DatagramOutcome::NeedMore { begun: true },
        }
    }
}

struct Client {
    v2: bool,
    cid: Vec<u8>,
    keys_of: Vec<u8>,
}

impl Client {
    /// One or two Initials with these frames, perhaps with 0-RTT before them or a short header behind.
    fn datagram(&self, number: usize, frames: &[Frame], random: &mut Random) -> Vec<u8> {
        let mut datagram = Vec::new();
        if random.one_in(8) {
            datagram.extend(self.header(if self.v2 { 0xe0 } else { 0xd0 }));
            datagram.extend([20; 21]);
        }
        let (one, two) = frames.split_at(random.within(0..=frames.len()));
        datagram.extend(self.initial(2 * number, one, random));
        if !two.is_empty() {
            datagram.extend(self.initial(2 * number + 1, two, random));
        }
        if random.one_in(8) {
            datagram.extend(b"\x41short");
        }
        datagram
    }

    fn initial(&self, number: usize, frames: &[Frame], random: &mut Random) -> Vec<u8> {
        let mut sealed: Vec<u8> = Vec::new();
        for frame in frames {
            sealed.push(6);
            sealed.extend(varint(frame.offset));
            sealed.extend(varint(frame.data.len()));
            sealed.extend(&frame.data);
            sealed.extend(frame.between);
        }
        sealed.resize(sealed.len() + 4, 0);
        let number_len = random.within(1..=4);
        let mut packet = self.header(if self.v2 { 0xd0 } else { 0xc0 } | (number_len as u8 - 1));
        let token = vec![7; random.within(0..=70)];
        packet.extend(varint(token.len()));
        packet.extend(token);
        packet.extend(varint(number_len + sealed.len() + 16));
        let number_at = packet.len();
        packet.extend(&(number as u32).to_be_bytes()[4 - number_len..]);
        let (suite, version) = match self.v2 {
            true => (TLS13_AES_128_GCM_SHA256, quic::Version::V2),
            false => (TLS13_AES_128_GCM_SHA256, quic::Version::V1),
        };
        let keys = suite.tls13().unwrap().quic_suite().unwrap().keys(&self.keys_of, Side::Client, version).local;
        let tag = keys.packet.encrypt_in_place(number as u64, &packet, &mut sealed).unwrap();
        packet.extend(sealed);
        packet.extend(tag.as_ref());
        let sample = packet[number_at + 4..number_at + 20].to_vec();
        let (header, rest) = packet.split_at_mut(number_at);
        keys.header.encrypt_in_place(&sample, &mut header[0], &mut rest[..number_len]).unwrap();
        packet
    }

    fn header(&self, first: u8) -> Vec<u8> {
        let version: u32 = if self.v2 { 0x6b33_43cf } else { 1 };
        [&[first][..], &version.to_be_bytes(), &[self.cid.len() as u8], &self.cid, &[0]].concat()
    }
}

fn varint(value: usize) -> Vec<u8> {
    match value {
        0..=0x3f => vec![value as u8],
        _ => u32::try_from(value | 0x8000_0000).unwrap().to_be_bytes().to_vec(),
    }
}
