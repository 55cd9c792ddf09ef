//! Opening Initials: the packets of RFC 9001 and RFC 9369, appendix A, and damage.

use super::super::*;
use super::client::{Client, crypto};
use crate::wire::tls::Progress;
use crate::wire::tls::tests::fixture;

/// A datagram of `tests/vectors/quic`.
fn vector(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/quic/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let digits: Vec<u8> = text.trim().chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The payload with the keys of the packet's own id, or of another one.
fn open(datagram: &[u8], keys_of: Option<&[u8]>) -> Option<Vec<u8>> {
    let packet = packets(datagram).next()?;
    InitialKeys::new(packet.version, keys_of.unwrap_or(packet.dcid))?.open(&packet)
}

#[test]
fn packets_of_the_rfcs() {
    for rfc in ["rfc9001", "rfc9369"] {
        let payload = open(&vector(&format!("{rfc}-client")), None).unwrap();
        assert_eq!(payload.len(), 1162, "{rfc}");
        let frames = crypto_frames(&payload).unwrap();
        assert_eq!(frames.len(), 1, "{rfc}");
        let mut stream = CryptoStream::new();
        stream.insert(frames[0].offset, frames[0].data).unwrap();
        let Progress::Complete(hello) = stream.hello() else { panic!("{rfc}: {:?}", stream.hello()) };
        assert_eq!(hello.sni.as_deref(), Some(&b"example.com"[..]), "{rfc}");

        // The server's packet is sealed with the same secret's other half.
        let server = vector(&format!("{rfc}-server"));
        assert_eq!(packets(&server).next().unwrap().kind, Kind::Initial);
        assert_eq!(open(&server, None), None, "{rfc}");
        assert_eq!(open(&server, Some(b"\x83\x94\xc8\xf0\x3e\x51\x57\x08")), None, "{rfc}");

        let retry = vector(&format!("{rfc}-retry"));
        assert_eq!(packets(&retry).next().unwrap().kind, Kind::Retry, "{rfc}");
        assert_eq!(open(&retry, None), None, "{rfc}");
    }
}

#[test]
fn what_does_not_open() {
    let client = Client::new(Version::V1);
    let whole = client.datagram(3, &crypto(0, &fixture::ordinary().message()));
    assert!(open(&whole, None).is_some());
    assert!(open(&whole, Some(b"another")).is_none());
    // Damage anywhere, but where it makes another packet of it.
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        assert_eq!(open(&damaged, None), None, "{at}");
    }
    let mut as_v2 = whole.clone();
    as_v2[1..5].copy_from_slice(&0x6b33_43cf_u32.to_be_bytes());
    as_v2[0] ^= 0x10;
    assert_eq!(packets(&as_v2).next().unwrap().kind, Kind::Initial);
    assert_eq!(open(&as_v2, None), None);
    // Too short to have a sample.
    for len in 0..20 {
        let short = [&b"\xc0\0\0\0\x01\x01d\x01s\0"[..], &[len], &vec![7; usize::from(len)]].concat();
        assert_eq!(packets(&short).count(), 1);
        assert_eq!(open(&short, None), None, "{len}");
    }
}

#[test]
fn keys_stay_when_the_client_learns_the_servers_id() {
    for version in [Version::V1, Version::V2] {
        let first = Client::new(version);
        let later = Client { dcid: b"theserver".to_vec(), token: b"a token".to_vec(), ..first.clone() };
        let datagram = later.datagram(9, b"\x01");
        let payload = open(&datagram, Some(&first.keys_of)).unwrap();
        assert_eq!(payload[0], 1);
        assert_eq!(open(&datagram, None), None);
    }
}
