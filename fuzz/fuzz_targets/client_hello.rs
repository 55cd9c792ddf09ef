//! TLS ClientHello: whole or cut, in whatever records, it says the same.
#![no_main]

use calamary::identify::tcp::MAX_HELLO;
use calamary::wire::tls::{Carrier, ClientHello, HelloReader, Progress};
use calamary_fuzz::{Random, pieces, prefixes};
use libfuzzer_sys::fuzz_target;

/// Prefixes that are read afresh.
const MAX_PREFIXES: usize = 64;

fuzz_target!(|data: &[u8]| {
    let random = &mut Random::of(data);
    let whole = read(data);
    cut(data, &whole, random);
    afresh(data, &whole, random);
    if let Progress::Complete(hello) = &whole {
        let message = message(data);
        assert_eq!(ClientHello::parse(&message[4..], Carrier::Tcp).as_ref(), Some(hello));
        assert_eq!(read(&in_records(&message, random)), whole, "in other records");
        over_quic(&message[4..], hello);
    }
    // Without the records around it, which make random bytes a hello only rarely.
    if let Some(hello) = ClientHello::parse(data, Carrier::Tcp) {
        over_quic(data, &hello);
        let Ok(length) = u32::try_from(data.len()) else { return };
        let message = [&[1], &length.to_be_bytes()[1..], data].concat();
        assert_eq!(read(&in_records(&message, random)), Progress::Complete(hello));
    }
});

fn read(stream: &[u8]) -> Progress {
    HelloReader::new(MAX_HELLO).read(stream)
}

/// One reader that sees the stream grow: NeedMore, then one answer that stays.
fn cut(data: &[u8], whole: &Progress, random: &mut Random) {
    let mut reader = HelloReader::new(MAX_HELLO);
    let (mut seen, mut answer) = (0, Progress::NeedMore);
    for piece in pieces(data, random) {
        seen += piece.len();
        let progress = reader.read(&data[..seen]);
        assert!(answer == Progress::NeedMore || progress == answer, "an answer changed after {seen} bytes");
        answer = progress;
    }
    assert!(data.is_empty() || answer == *whole, "in pieces {answer:?}, at once {whole:?}");
}

fn afresh(data: &[u8], whole: &Progress, random: &mut Random) {
    for len in prefixes(data.len(), MAX_PREFIXES, random) {
        let progress = read(&data[..len]);
        assert!(progress == Progress::NeedMore || progress == *whole, "{len} bytes say {progress:?}");
    }
}

/// The handshake message at the front of a stream of records that holds one.
fn message(stream: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (stream, Vec::new());
    while let [22, 3, _, high, low, behind @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        out.extend_from_slice(&behind[..len]);
        rest = &behind[len..];
    }
    let len = u32::from_be_bytes([0, out[1], out[2], out[3]]) as usize + 4;
    out.truncate(len);
    out
}

fn in_records(message: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let mut empty = 0;
    for piece in pieces(message, random).iter().flat_map(|piece| piece.chunks(usize::from(u16::MAX))) {
        if empty < 5 && random.one_in(8) {
            empty += 1;
            out.extend([22, 3, 3, 0, 0]);
        }
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        out.extend([22, 3, random.within(0..=4) as u8, length[0], length[1]]);
        out.extend_from_slice(piece);
    }
    out
}

fn over_quic(body: &[u8], tcp: &ClientHello) {
    let quic = ClientHello::parse(body, Carrier::Quic).unwrap();
    assert_eq!(quic.ja4.strip_prefix('q'), tcp.ja4.strip_prefix('t'));
    assert_eq!(ClientHello { ja4: tcp.ja4.clone(), ..quic }, *tcp);
    let parts: Vec<usize> = tcp.ja4.split('_').map(|part| part.chars().count()).collect();
    // An ALPN value may hold an underscore of its own.
    assert!(parts == [10, 12, 12] || parts.len() > 3, "{}", tcp.ja4);
}
