//! The thread on loopback: what only it can get wrong.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::connect::distrust::Distrust;
use crate::connect::trust::Roots;
use crate::sys::testing;

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_secs(20);

fn config(timeout_ms: u64, allow_local: bool) -> ProberConfig {
    ProberConfig {
        trust: Arc::new(Trust::new(Roots::new([]).0)),
        timeout: Duration::from_millis(timeout_ms),
        outgoing: Outgoing::default(),
        allow_local,
    }
}

fn prober(config: ProberConfig, descriptors: u32) -> (Prober, Receiver<Answer>, Arc<Metrics>) {
    prober_at(config, descriptors, || time::now().secs)
}

fn prober_at(
    config: ProberConfig,
    descriptors: u32,
    clock: fn() -> i64,
) -> (Prober, Receiver<Answer>, Arc<Metrics>) {
    let (sender, answers) = channel();
    let sender = Mutex::new(sender);
    let metrics = Arc::new(Metrics::new());
    let surroundings = Surroundings {
        deliver: Box::new(move |answer| {
            let _ = sender.lock().unwrap().send(answer);
        }),
        metrics: Arc::clone(&metrics),
        dialled: Dialled::new(1),
        descriptors: Arc::new(Descriptors::new(descriptors)),
        clock,
    };
    (Prober::new(Some(config), surroundings), answers, metrics)
}

fn ask(prober: &Prober, addr: SocketAddr, token: usize) {
    let asker = Asker { worker: 0, token, source: [192, 168, 1, 20].into() };
    prober.probe(Target::new("example.com", addr, &[]), asker).unwrap();
}

/// A server that reads the hello and then does this.
fn server(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            assert_eq!(stream.read(&mut [0; 4096]).map(|n| n > 100).ok(), Some(true));
            answer(stream);
        }
    });
    addr
}

#[track_caller]
fn check(prober: &(Prober, Receiver<Answer>, Arc<Metrics>), addr: SocketAddr, want: Finding) {
    ask(&prober.0, addr, 7);
    let answer = prober.1.recv_timeout(PATIENT).unwrap();
    assert_eq!((answer.asker.token, answer.target.addr, answer.finding), (7, addr, want));
}

/// What is known of a server whose port is closed. qemu-user before 8.1 hands a socket's error on in the numbers of the
/// machine that it runs on: under it a MIPS program cannot tell why the connection was not made.
fn refused() -> Finding {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stream = mio::net::TcpStream::connect(closed).unwrap();
    let error = loop {
        if let Some(error) = stream.take_error().unwrap() {
            break error;
        }
        thread::yield_now();
    };
    let mistaken = testing::is_emulated() && error.kind() != io::ErrorKind::ConnectionRefused;
    Finding::Unknown(if mistaken { Doubt::Unreachable } else { Doubt::Refused })
}

#[test]
fn what_is_no_handshake_is_unknown() {
    let prober = prober(config(20_000, true), 100);
    check(&prober, server(drop), Finding::Unknown(Doubt::Closed));
    let talks = |words: &'static [u8]| server(move |mut stream| drop(stream.write_all(words)));
    check(&prober, talks(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Finding::Unknown(Doubt::Handshake));
    // An alert: handshake_failure.
    check(&prober, talks(&[21, 3, 3, 0, 2, 2, 40]), Finding::Unknown(Doubt::Handshake));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(&prober, closed, refused());
    let text = prober.2.render();
    assert!(text.contains("calamary_cert_probes{result=\"unknown\"} 4"), "{text}");
}

#[test]
fn a_server_that_never_stops_talking_is_unknown() {
    let addr = server(|mut stream| {
        // Records of a handshake message that is longer than any.
        let record = [&[22, 3, 3, 64, 0, 11, 255, 255, 255][..], &[0; 16 * 1024 - 4]].concat();
        while stream.write_all(&record).is_ok() {}
    });
    check(&prober(config(20_000, true), 100), addr, Finding::Unknown(Doubt::Handshake));
}

#[test]
fn a_silent_server_takes_the_time_of_a_probe_and_holds_nobody_up() {
    let (silent, closed) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    );
    let prober = prober(config(700, true), 100);
    let start = Instant::now();
    ask(&prober.0, silent.local_addr().unwrap(), 1);
    ask(&prober.0, closed, 2);
    let answers = [prober.1.recv_timeout(PATIENT).unwrap(), prober.1.recv_timeout(PATIENT).unwrap()];
    assert_eq!(
        answers.map(|answer| (answer.asker.token, answer.finding)),
        [(2, refused()), (1, Finding::Unknown(Doubt::TimedOut)),]
    );
    assert!(start.elapsed() >= Duration::from_millis(700));
}

#[test]
fn without_descriptors_nobody_knows() {
    let prober = prober(config(20_000, true), 0);
    let addr = server(drop);
    check(&prober, addr, Finding::Unknown(Doubt::Busy));
}

#[test]
fn a_router_that_does_not_know_the_time_asks_nobody() {
    let prober = prober_at(config(20_000, true), 100, || 60);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    check(&prober, listener.local_addr().unwrap(), Finding::Unknown(Doubt::WrongClock));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    // As soon as it does, what was said no longer counts.
    let target = Target::new("example.com", listener.local_addr().unwrap(), &[]);
    assert_eq!(prober.0.known(&target, Instant::now()), None);
}

/// An address that only the kernel knows to be this machine's.
#[test]
fn this_machine_is_not_probed_unless_local_destinations_are_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    check(
        &prober(config(20_000, false), 100),
        listener.local_addr().unwrap(),
        Finding::Unknown(Doubt::Unreachable),
    );
}

#[test]
fn without_roots_there_are_no_probes() {
    let (prober, _, _) = prober(config(1000, true), 100);
    prober.reconfigure(None);
    let asker = Asker { worker: 0, token: 0, source: [192, 168, 1, 20].into() };
    let target = Target::new("example.com", "127.0.0.1:1".parse().unwrap(), &[]);
    assert_eq!(prober.probe(target, asker), Err(Doubt::Busy));
}

/// The vector's certificate under no root, then under its own.
#[test]
fn other_roots_judge_anew() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let file = |name: &str| format!("{}/tests/vectors/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    let chain = CertificateDer::pem_file_iter(file("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = Arc::new(tls.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
            let _ = rustls::StreamOwned::new(session, stream).read(&mut [0; 1]);
        }
    });
    let (prober, answers, metrics) = prober(config(20_000, true), 100);
    let asker = Asker { worker: 0, token: 0, source: [192, 168, 1, 20].into() };
    let target = Target::new("proxy.example.com", addr, &[]);
    let find = || {
        prober.probe(target.clone(), asker).unwrap();
        answers.recv_timeout(PATIENT).unwrap().finding
    };
    assert_eq!(find(), Finding::Invalid(Distrust::Untrusted));
    assert_eq!(prober.known(&target, Instant::now()), Some(Finding::Invalid(Distrust::Untrusted)));
    let root = CertificateDer::from_pem_file(file("ca.pem")).unwrap();
    let trust = Arc::new(Trust::new(Roots::new([root]).0));
    prober.reconfigure(Some(ProberConfig { trust, ..config(20_000, true) }));
    assert_eq!(find(), Finding::Valid);
    assert_eq!(find(), Finding::Valid);
    let text = metrics.render();
    assert!(text.contains("calamary_cert_probes{result=\"valid\"} 1"), "{text}");
    assert!(text.contains("calamary_cert_probes{result=\"invalid\"} 1"), "{text}");
}
