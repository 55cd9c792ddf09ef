//! Packets, frames, the stream and the refusal in tables; the RFCs' own packets. Real clients' datagrams are tested with
//! the identification.

use super::*;
use crate::wire::tls::tests::fixture;
use crate::wire::tls::{ClientHello, Progress};

#[cfg(feature = "quic")]
pub(crate) mod client;
#[cfg(feature = "quic")]
mod opening;

/// A long header, up to behind the connection ids.
fn header(first: u8, version: u32, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let vec8 = |cid: &[u8]| [&[u8::try_from(cid.len()).unwrap()], cid].concat();
    [vec![first], version.to_be_bytes().to_vec(), vec8(dcid), vec8(scid)].concat()
}

const V1: u32 = 1;
const V2: u32 = 0x6b33_43cf;

#[test]
fn versions_by_number() {
    let check = |first: u8, version: u32, expected: Option<Version>, foreign: bool| {
        let datagram = [&header(first, version, b"12345678", b"")[..], &[0; 40]].concat();
        assert_eq!(Version::of(&datagram), expected, "{first:x} {version:x}");
        assert_eq!(is_foreign_version(&datagram), foreign, "{first:x} {version:x}");
    };
    check(0xc0, V1, Some(Version::V1), false);
    check(0xff, V2, Some(Version::V2), false);
    check(0x80, V1, Some(Version::V1), false); // the fixed bit is no condition
    check(0x40, V1, None, false);
    check(0xc0, 0, None, false);
    check(0xc0, 2, None, false);
    check(0xc0, 0x0a1a_2a3a, None, false);
    check(0xc0, 0xff00_001d, None, true);
    check(0xc0, 0xff00_0000, None, false);
    check(0xc0, 0xff00_0023, None, false);
    check(0xc0, 0xface_b002, None, false);
    check(0xc3, u32::from_be_bytes(*b"Q046"), None, true);
    check(0xc3, u32::from_be_bytes(*b"T051"), None, true);
    check(0xc3, u32::from_be_bytes(*b"Q0x6"), None, false);
    check(0x43, u32::from_be_bytes(*b"Q046"), None, false);

    assert!(is_foreign_version(b"\x0d12345678Q043\x01"));
    assert!(is_foreign_version(b"\x0912345678Q039\x01"));
    assert!(!is_foreign_version(b"\x0812345678Q043\x01")); // no version
    assert!(!is_foreign_version(b"\x0b12345678Q043\x01")); // a reset
    assert!(!is_foreign_version(b"\x0912345678Q04"));
    assert_eq!(Version::of(b"\xc0\0\0\0"), None);
    assert_eq!(Version::of(b"\xc0\0\0\0\x01"), Some(Version::V1));
}

#[test]
fn short_headers() {
    let check = |datagram: &[u8], expected| assert_eq!(is_short_header(datagram), expected, "{datagram:x?}");
    check(b"\x40", true);
    check(b"\x7f", true);
    check(b"\xc0", false);
    check(b"\x00", false);
    check(b"", false);
}

#[test]
fn types_of_both_versions() {
    let check = |first: u8, version: u32, expected: Kind| {
        let packet = [&header(first, version, b"1", b"2")[..], &[0, 0]].concat();
        assert_eq!(packets(&packet).next().unwrap().kind, expected, "{first:x} {version:x}");
    };
    for (index, kind) in [Kind::Initial, Kind::ZeroRtt, Kind::Handshake, Kind::Retry].into_iter().enumerate()
    {
        let bits = u8::try_from(index).unwrap();
        check(0xc0 | bits << 4, V1, kind);
        check(0xcf | bits << 4, V1, kind);
        check(0xc0 | ((bits + 1) % 4) << 4, V2, kind);
    }
}

/// A packet with a length: token if it is an Initial of version 1, then so many bytes.
fn packet(first: u8, dcid: &[u8], token: Option<&[u8]>, numbered: usize) -> Vec<u8> {
    let length = |n: usize| vec![0x40, u8::try_from(n).unwrap()];
    let token = token.map(|token| [&length(token.len())[..], token].concat()).unwrap_or_default();
    [header(first, V1, dcid, b"s"), token, length(numbered), vec![9; numbered]].concat()
}

#[test]
fn coalesced_packets() {
    let initial = packet(0xc0, b"dcid", Some(b"token"), 50);
    let zero_rtt = packet(0xd0, b"dcid", None, 30);
    let handshake = packet(0xe0, b"dcid", None, 0);
    let retry = [&header(0xf0, V1, b"", b"server")[..], b"tokenandtag"].concat();
    let check = |what: &str, parts: &[&[u8]], expected: &[Kind]| {
        let datagram = parts.concat();
        let kinds: Vec<_> = packets(&datagram).map(|packet| packet.kind).collect();
        assert_eq!(kinds, expected, "{what}");
    };
    check("one", &[&initial], &[Kind::Initial]);
    check("three", &[&initial, &zero_rtt, &handshake], &[Kind::Initial, Kind::ZeroRtt, Kind::Handshake]);
    check("a short header behind", &[&initial, b"\x40rest"], &[Kind::Initial]);
    check("zeros behind", &[&initial, &[0; 100]], &[Kind::Initial]);
    check("another version behind", &[&initial, &header(0xc0, 7, b"", b"")], &[Kind::Initial]);
    check("a retry takes the rest", &[&retry, &initial], &[Kind::Retry]);
    check("a retry behind", &[&zero_rtt, &retry], &[Kind::ZeroRtt, Kind::Retry]);
    check("nothing", &[], &[]);
    check("a longest id", &[&packet(0xd0, &[1; 20], None, 3)], &[Kind::ZeroRtt]);
    check("a longer id", &[&packet(0xd0, &[1; 21], None, 3)], &[]);
    check("more than the bound", &[&zero_rtt.repeat(MAX_PACKETS + 2)], &[Kind::ZeroRtt; MAX_PACKETS]);
    for len in 0..initial.len() {
        check("cut off", &[&initial[..len]], &[]);
    }
    let numbered: Vec<_> = packets(&initial).map(|p| (p.number_at, p.bytes.len())).collect();
    assert_eq!(numbered, [(initial.len() - 50, initial.len())]);
}

#[test]
fn frames_between() {
    let check = |what: &str, payload: &[u8], expected: Option<&[(u64, &[u8])]>| {
        let frames = crypto_frames(payload);
        let frames = frames.map(|frames| frames.iter().map(|f| (f.offset, f.data)).collect::<Vec<_>>());
        assert_eq!(frames.as_deref(), expected, "{what}");
    };
    let hello: (u64, &[u8]) = (0, b"hello");
    check("nothing", b"", Some(&[]));
    check("padding and pings", b"\0\0\x01\0", Some(&[]));
    check("one", b"\x06\x00\x05hello", Some(&[hello]));
    check("two, the later first", b"\x06\x45\x00\x01x\0\x06\x00\x05hello\0\0", Some(&[(0x500, b"x"), hello]));
    check("an empty one", b"\x06\x07\x00", Some(&[(7, b"")]));
    check("behind an ACK", b"\x02\x05\x00\x00\x05\x06\x00\x05hello", Some(&[hello]));
    check(
        "behind an ACK of three ranges",
        b"\x02\x09\x00\x02\x00\x01\x00\x00\x02\x06\x00\x05hello",
        Some(&[hello]),
    );
    check("behind ECN counts", b"\x03\x05\x00\x00\x05\x01\x02\x40\x03\x06\x00\x05hello", Some(&[hello]));
    check("behind a close", b"\x1c\x01\x06\x03bye\x06\x00\x05hello", Some(&[hello]));
    check("the close of an application", b"\x1d\x01\x03bye", None);
    check("a stream", b"\x08\x00x", None);
    check("an unknown type", b"\x40\x21", None);
    check("CRYPTO that is cut off", b"\x06\x00\x05hell", None);
    check("an ACK that promises too much", b"\x02\x05\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00", None);
    check("a close that is cut off", b"\x1c\x01\x06\x09bye", None);
    check("half a type", b"\x40", None);
}

fn stream(pieces: &[(usize, &[u8])]) -> Result<CryptoStream, Conflict> {
    let mut stream = CryptoStream::new();
    for (offset, data) in pieces {
        stream.insert(u64::try_from(*offset).unwrap(), data)?;
    }
    Ok(stream)
}

fn whole(body: &fixture::HelloBody) -> Progress {
    Progress::Complete(ClientHello::parse(&body.body(), crate::wire::tls::Carrier::Quic).unwrap())
}

#[test]
fn pieces_of_a_hello() {
    let hello = fixture::ordinary();
    let message = hello.message();
    let len = message.len();
    let check = |what: &str, pieces: &[(usize, &[u8])], expected: Option<&Progress>| {
        let progress = stream(pieces).ok().map(|stream| stream.hello());
        assert_eq!(progress.as_ref(), expected, "{what}");
    };
    let (more, done) = (Progress::NeedMore, whole(&hello));
    check("nothing", &[], Some(&more));
    check("at once", &[(0, &message)], Some(&done));
    check("twice", &[(0, &message), (0, &message)], Some(&done));
    check("backwards", &[(50, &message[50..]), (0, &message[..50])], Some(&done));
    check("overlapping", &[(20, &message[20..]), (0, &message[..40])], Some(&done));
    check("one inside the other", &[(20, &message[20..30]), (0, &message)], Some(&done));
    check("a gap", &[(0, &message[..30]), (31, &message[31..])], Some(&more));
    check("without the front", &[(1, &message[1..])], Some(&more));
    check("one byte less", &[(0, &message[..len - 1])], Some(&more));
    check("an empty piece", &[(len, b""), (0, &message)], Some(&done));
    check("more behind", &[(0, &[&message[..], b"more"].concat())], Some(&done));
    let mut other = message.clone();
    other[60] ^= 1;
    check("two hellos", &[(0, &message), (0, &other)], None);
    check("one byte that differs", &[(60, &other[60..61]), (0, &message)], None);
    check("another message", &[(0, &[2, 0, 0, 1, 0])], Some(&Progress::Malformed));
    check("a broken hello", &[(0, &fixture::handshake(b"hello"))], Some(&Progress::Malformed));
}

#[test]
fn every_split_in_every_order() {
    let hello = fixture::ordinary();
    let message = hello.message();
    for size in 1..message.len() {
        let pieces: Vec<_> = message.chunks(size).enumerate().map(|(i, piece)| (i * size, piece)).collect();
        let backwards: Vec<_> = pieces.iter().rev().copied().collect();
        let (odd, even): (Vec<_>, Vec<_>) = pieces.iter().copied().partition(|(at, _)| at / size % 2 == 1);
        for order in [pieces, backwards, [odd, even].concat()] {
            let (last, before) = order.split_last().unwrap();
            let mut stream = stream(before).unwrap();
            assert_eq!(stream.hello(), Progress::NeedMore, "{size}");
            stream.insert(u64::try_from(last.0).unwrap(), last.1).unwrap();
            assert_eq!(stream.hello(), whole(&hello), "{size}");
        }
    }
}

#[test]
fn the_stream_is_bounded() {
    let largest = fixture::HelloBody::new(vec![(21, vec![0; MAX_CRYPTO - 4 - 49])]);
    let message = largest.message();
    assert_eq!(message.len(), MAX_CRYPTO);
    assert_eq!(stream(&[(0, &message)]).unwrap().hello(), whole(&largest));
    let check = |what: &str, pieces: &[(usize, &[u8])], expected: Progress| {
        assert_eq!(stream(pieces).unwrap().hello(), expected, "{what}");
    };
    let one_more = u32::try_from(MAX_CRYPTO - 3).unwrap().to_be_bytes();
    check("its length says so", &[(0, &[1, one_more[1], one_more[2], one_more[3]])], Progress::TooLarge);
    check("the last byte that is kept", &[(MAX_CRYPTO - 1, b"x")], Progress::NeedMore);
    check("one behind it", &[(MAX_CRYPTO, b"x")], Progress::TooLarge);
    check("across the end", &[(MAX_CRYPTO - 1, b"xy"), (0, &message[..100])], Progress::TooLarge);
    let mut far = CryptoStream::new();
    far.insert(u64::MAX, b"x").unwrap();
    assert_eq!(far.hello(), Progress::TooLarge);
}

/// The front of a client's first datagram, padded.
fn request(first: u8, version: u32, dcid: &[u8], scid: &[u8], len: usize) -> Vec<u8> {
    let mut datagram = header(first, version, dcid, scid);
    datagram.resize(len, 0);
    datagram
}

#[test]
fn a_refusal_names_nothing_that_anybody_speaks() {
    let answer = version_negotiation(&request(0xc3, V1, b"12345678", b"abc", 1200)).unwrap();
    assert_eq!(answer, b"\xc0\0\0\0\0\x03abc\x0812345678\x1a\x2a\x3a\x4a");
    // RFC 8999 §6: the ids are swapped, and a client takes it.
    let read = LongHeader::parse(&answer).unwrap();
    assert_eq!((read.version, read.dcid, read.scid), (0, &b"abc"[..], &b"12345678"[..]));
    // Not what the client itself has asked for.
    let answer = version_negotiation(&request(0xc3, 0x1a2a_3a4a, b"12345678", b"", 1200)).unwrap();
    assert_eq!(answer, b"\xc0\0\0\0\0\x00\x0812345678\x5a\x6a\x7a\x8a");
}

#[test]
fn what_is_refused_and_what_gets_no_answer() {
    let check = |what: &str, datagram: &[u8], expected: bool| {
        let answer = version_negotiation(datagram);
        assert_eq!(answer.is_some(), expected, "{what}");
        assert!(answer.is_none_or(|answer| answer.len() < datagram.len()));
    };
    check("version 2", &request(0xd0, V2, b"12345678", b"", 1200), true);
    check("a version that nobody knows", &request(0xff, 0xdead_beef, b"12345678", b"", 1200), true);
    check("the longest ids", &request(0xc0, V1, &[1; 20], &[2; 20], 1200), true);
    check("no ids", &request(0xc0, V1, b"", b"", 1200), true);
    check("a byte too small", &request(0xc0, V1, b"12345678", b"", 1199), false);
    check("an id too long", &request(0xc0, V1, &[1; 21], b"", 1200), false);
    check("a sender's id too long", &request(0xc0, V1, b"", &[1; 21], 1200), false);
    check("Version Negotiation", &request(0xc0, 0, b"12345678", b"", 1200), false);
    check("first bits 10", &request(0x80, V1, b"12345678", b"", 1200), false);
    check("a short header", &request(0x40, V1, b"12345678", b"", 1200), false);
    check("Q046", &[&b"\xc3Q046\x5012345678"[..], &[0; 1200]].concat(), false);
    check("nothing", b"", false);
}
