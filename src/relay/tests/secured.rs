//! TLS on the client's end: what plain sockets do, it does, and nothing stays behind in a buffer of TLS.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion};

use super::tunnels::{is_idle, run, settle, tunnel};
use super::*;
use crate::relay::stream::{Role, is_tls_failure};
use crate::relay::tls;
use crate::relay::tunnel::{Progress, Tunnel};
use crate::relay::{Broken, Side};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const ROOT: &[u8] = include_bytes!("../../../tests/vectors/certificates/ca.pem");
const CHAIN: &[u8] = include_bytes!("../../../tests/vectors/certificates/server.pem");
const KEY: &[u8] = include_bytes!("../../../tests/vectors/certificates/server.key");

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn role() -> Role {
    let chain = CertificateDer::pem_slice_iter(CHAIN).collect::<Result<_, _>>().unwrap();
    tls::server(chain, PrivateKeyDer::from_pem_slice(KEY).unwrap()).unwrap()
}

/// A client behind a socket that does not block, so that one thread can write and read as it comes.
struct Peer {
    socket: TcpStream,
    tls: ClientConnection,
    /// Bytes of ciphertext that are sent at a time.
    pace: usize,
}

impl Peer {
    fn new(socket: TcpStream, version: &'static SupportedProtocolVersion, pace: usize) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ROOT).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut tls =
            ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        tls.set_buffer_limit(None);
        socket.set_nonblocking(true).unwrap();
        Peer { socket, tls, pace }
    }

    /// Sends and receives once what can be; whether something was.
    fn step(&mut self, may_read: bool) -> io::Result<bool> {
        let mut moved = false;
        while self.tls.wants_write() {
            let mut slow = Slow(&mut self.socket, self.pace);
            match self.tls.write_tls(&mut slow) {
                Ok(_) => moved = true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        if may_read {
            match self.tls.read_tls(&mut self.socket) {
                Ok(_) => moved = true,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            let processed = self.tls.process_new_packets();
            processed.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        }
        Ok(moved)
    }

    /// Steps until `done`.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < STALLED, "stalled: {:?}", self.tls);
            if !self.step(true).unwrap() {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// What has arrived, and whether the stream has ended, and how.
    fn arrived(&mut self, all: &mut Vec<u8>) -> &'static str {
        let mut buffer = [0; 16 * KIB];
        loop {
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => return "end",
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return "open",
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return "cut",
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.until(|peer| !peer.tls.wants_write());
    }

    /// Everything until the end.
    fn rest(&mut self) -> (Vec<u8>, &'static str) {
        let (mut all, mut end) = (Vec::new(), "open");
        self.until(|peer| {
            end = peer.arrived(&mut all);
            end != "open"
        });
        (all, end)
    }
}

/// Sends so many bytes at a time, each time a segment of its own.
struct Slow<'a>(&'a mut TcpStream, usize);

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 < KIB {
            thread::sleep(Duration::from_micros(50));
        }
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A rig whose client's end speaks TLS, the client and the server.
fn secured(version: &'static SupportedProtocolVersion, pace: usize) -> (Rig, Peer, TcpStream) {
    let (mut rig, client, server) = Rig::new();
    rig.client.stream.secure(&role(), b"").unwrap();
    let mut peer = Peer::new(client, version, pace);
    let shaking = thread::spawn(move || {
        peer.until(|peer| !peer.tls.is_handshaking() && !peer.tls.wants_write());
        peer
    });
    loop {
        match rig.client.stream.handshake() {
            Ok(true) => break,
            Ok(false) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => assert!(rig.wait(STALLED), "stalled"),
            Err(e) => panic!("{e}"),
        }
    }
    rig.client.ready.readable = true;
    (rig, shaking.join().unwrap(), server)
}

#[test]
fn a_handshake_comes_in_pieces_of_any_size() {
    for version in VERSIONS {
        for pace in [1, 7, 4096] {
            let (mut rig, mut peer, mut server) = secured(version, pace);
            assert_eq!(peer.tls.protocol_version(), Some(version.version));
            let mut tunnel = tunnel();
            peer.say(b"question");
            settle(&mut tunnel, &mut rig);
            assert_eq!(arrived(&mut server), (b"question".to_vec(), "open"));
        }
    }
}

#[test]
fn bytes_that_were_read_before_count() {
    let (mut rig, client, _server) = Rig::new();
    let mut peer = Peer::new(client, &rustls::version::TLS13, usize::MAX);
    peer.step(false).unwrap();
    assert!(rig.wait(STALLED));
    // A peer may have sent more than its hello, but not all of it.
    let mut hello = [0; 100];
    let n = rig.client.stream.read(&mut hello).unwrap();
    rig.client.stream.secure(&role(), &hello[..n]).unwrap();
    let shaking =
        thread::spawn(move || peer.until(|peer| !peer.tls.is_handshaking() && !peer.tls.wants_write()));
    while !matches!(rig.client.stream.handshake(), Ok(true)) {
        assert!(rig.wait(STALLED), "stalled");
    }
    shaking.join().unwrap();
}

#[test]
fn every_byte_arrives_both_ways_and_each_end_is_passed_on() {
    let check = |version, up: usize, down: usize, pace: usize| {
        let (mut rig, mut peer, mut server) = secured(version, pace);
        let mut tunnel = Tunnel::new(b"prelude".to_vec());
        let (sent, answer) = (noise(up, 1), noise(down, 2));
        let mut reader = server.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let answering = answer.clone();
        thread::spawn(move || {
            server.write_all(&answering).unwrap();
            server.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let question = sent.clone();
        let client = thread::spawn(move || {
            peer.tls.writer().write_all(&question).unwrap();
            peer.tls.send_close_notify();
            peer.rest()
        });
        assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished), "{up} {down}");
        assert!(is_idle(&tunnel, &rig) && !rig.client.stream.holds(), "{tunnel:?}");
        drop(rig);
        assert!(reading.join().unwrap() == [b"prelude", &sent[..]].concat(), "{up} up");
        let (got, end) = client.join().unwrap();
        assert!(got == answer, "{down} down: {}", got.len());
        assert_eq!(end, "end", "no close_notify");
    };
    for version in VERSIONS {
        check(version, 0, 0, usize::MAX);
        check(version, 1, 1, usize::MAX);
        check(version, 100, 64 * KIB + 1, 1);
        check(version, 64 * KIB - 1, 200 * KIB, 1000);
        check(version, 6 * MIB, 5 * MIB, usize::MAX);
    }
}

/// Records that are read together are decrypted together: what the reader has no room for must come out by itself, as no
/// further event announces it.
#[test]
fn a_small_buffer_gets_everything_too() {
    for size in [1, 3, 100, 5000] {
        let (mut rig, mut peer, _server) = secured(&rustls::version::TLS13, usize::MAX);
        let sent = noise(if size < 10 { 3000 } else { 100 * KIB }, 4);
        let question = sent.clone();
        let sending = thread::spawn(move || {
            // Small records and large ones.
            for piece in question.chunks(700) {
                peer.tls.writer().write_all(piece).unwrap();
            }
            peer.say(b"");
            peer
        });
        let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
        while all.len() < sent.len() {
            match rig.client.stream.read(&mut buffer) {
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => assert!(rig.wait(STALLED), "{}", all.len()),
                Err(e) => panic!("{e}"),
            }
        }
        assert!(all == sent, "{size}");
        sending.join().unwrap();
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_server_and_misses_nothing() {
    let (mut rig, mut peer, mut server) = secured(&rustls::version::TLS13, usize::MAX);
    let mut tunnel = tunnel();
    let answer = noise(64 * MIB, 3);
    let mut sent = 0;
    loop {
        let n = send_until_full(&mut server, &answer[sent..]);
        sent += n;
        settle(&mut tunnel, &mut rig);
        if n == 0 {
            break;
        }
    }
    assert!(sent < answer.len(), "nothing stopped the server");
    assert!(rig.client.stream.holds());
    // Its end waits behind all that, and close_notify with it.
    drop(server);
    settle(&mut tunnel, &mut rig);
    assert!(!tunnel.is_half_closed());
    let reading = thread::spawn(move || {
        let rest = peer.rest();
        peer.tls.send_close_notify();
        peer.until(|peer| !peer.tls.wants_write());
        rest
    });
    assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished));
    let (got, end) = reading.join().unwrap();
    assert!(got == answer[..sent], "{} of {sent}", got.len());
    assert_eq!(end, "end");
}

#[test]
fn an_end_without_close_notify_is_an_end() {
    let (mut rig, mut peer, mut server) = secured(&rustls::version::TLS13, usize::MAX);
    let mut tunnel = tunnel();
    peer.say(b"question");
    peer.socket.shutdown(std::net::Shutdown::Write).unwrap();
    settle(&mut tunnel, &mut rig);
    assert!(tunnel.is_half_closed());
    assert_eq!(arrived(&mut server), (b"question".to_vec(), "end"));
    server.write_all(b"answer").unwrap();
    drop(server);
    assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished));
    drop(rig);
    assert_eq!(peer.rest(), (b"answer".to_vec(), "end"));
}

#[test]
fn a_record_that_is_not_intact_breaks_the_tunnel_and_the_client_is_told() {
    let (mut rig, mut peer, mut server) = secured(&rustls::version::TLS13, usize::MAX);
    let mut tunnel = tunnel();
    peer.say(b"whole");
    // application_data, 17 bytes that nobody encrypted.
    peer.socket.write_all(&[&[23, 3, 3, 0, 17][..], &[0x5a; 17]].concat()).unwrap();
    match run(&mut tunnel, &mut rig) {
        Progress::Broken(Broken { side: Side::Client, error }) => assert!(is_tls_failure(&error), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(arrived(&mut server).0, b"whole");
    rig.client.shutdown().unwrap();
    let error = loop {
        match peer.step(true) {
            Ok(_) => thread::sleep(Duration::from_millis(1)),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("BadRecordMac"), "{error}");
}

#[test]
fn a_change_of_keys_is_answered() {
    let (mut rig, mut peer, mut server) = secured(&rustls::version::TLS13, usize::MAX);
    let mut tunnel = tunnel();
    for round in 0..5_u8 {
        peer.tls.refresh_traffic_keys().unwrap();
        peer.say(&[round]);
        settle(&mut tunnel, &mut rig);
        assert_eq!(arrived(&mut server), (vec![round], "open"));
        server.write_all(&[round, round]).unwrap();
        settle(&mut tunnel, &mut rig);
        let mut got = Vec::new();
        peer.until(|peer| peer.arrived(&mut got) == "open" && got.len() == 2);
        assert_eq!(got, [round, round]);
    }
    assert_eq!(peer.tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let check = |bytes: &[u8]| {
        let (mut rig, mut client, _server) = Rig::new();
        rig.client.stream.secure(&role(), bytes).unwrap();
        let error = rig.client.stream.handshake().unwrap_err();
        assert!(is_tls_failure(&error), "{error}");
        rig.client.shutdown().unwrap();
        let (told, end) = arrived(&mut client);
        assert_eq!((told.first(), end), (Some(&21), "end"), "{told:?}");
    };
    check(&[0; 64]);
    check(&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]);
    check(&[22, 3, 1, 0, 4, 2, 0, 0, 0]);
    check(&[22, 3, 1, 0xff, 0xff, 1, 0, 0, 1, 0]);
}

/// A client that says nothing but the beginning of an endless hello holds so much of our memory and no more.
#[test]
fn a_hello_without_an_end_is_refused() {
    // As long as a handshake message may be, in whole records.
    let endless = |records: usize| {
        let mut bytes = [&[22, 3, 1, 4, 0, 1, 0, 0xff, 0xf0][..], &[0; KIB - 4]].concat();
        for _ in 1..records {
            bytes.extend([&[22, 3, 1, 4, 0][..], &[0; KIB]].concat());
        }
        bytes
    };
    let check = |first: usize, then: usize, accepted: bool| {
        let (mut rig, mut client, _server) = Rig::new();
        let secured = rig.client.stream.secure(&role(), &endless(first)).and_then(|()| {
            client.write_all(&endless(first + then)[endless(first).len()..]).unwrap();
            loop {
                match rig.client.stream.handshake() {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        if !rig.wait(Duration::from_millis(300)) {
                            return Ok(());
                        }
                    }
                    Err(e) => return Err(e),
                    Ok(done) => assert!(!done),
                }
            }
        });
        assert_eq!(secured.is_ok(), accepted, "{first} {then}");
        assert!(secured.map_or_else(|e| is_tls_failure(&e), |()| true));
    };
    check(1, 0, true);
    check(7, 8, true);
    check(16, 0, false);
    check(1, 15, false);
}
