//! Datagrams: servers that answer them, clients that see who answers, and the beginnings of real QUIC connections.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// How long a test waits for a datagram that should not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// A server that remembers what it was sent, and by whom.
pub struct UdpServer {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

type Seen = Vec<(SocketAddr, Vec<u8>)>;

impl UdpServer {
    /// Answers each datagram with what `answer` makes of it, in the namespace of the thread that starts it.
    pub fn start(
        addr: impl ToSocketAddrs,
        answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> UdpServer {
        Self::serve(UdpSocket::bind(addr).unwrap(), answer)
    }

    fn serve(socket: UdpSocket, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> UdpServer {
        let addr = socket.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            // The thread ends with the test program.
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let datagram = &buffer[..len];
                log.lock().unwrap().push((from, datagram.to_vec()));
                for words in answer(datagram) {
                    let _ = socket.send_to(&words, from);
                }
            }
        });
        UdpServer { addr, seen }
    }

    /// Sends everything back, its own address in front.
    pub fn echo(addr: impl ToSocketAddrs) -> UdpServer {
        let socket = UdpSocket::bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        Self::serve(socket, move |datagram| vec![[format!("{addr} ").as_bytes(), datagram].concat()])
    }

    /// Says nothing.
    pub fn sink(addr: impl ToSocketAddrs) -> UdpServer {
        Self::start(addr, |_| Vec::new())
    }

    /// Everything that came so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// What came so far, without its senders.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        self.seen().into_iter().map(|(_, datagram)| datagram).collect()
    }
}

/// A client's socket, not connected, so that it hears whoever answers.
pub struct UdpClient(pub UdpSocket);

impl UdpClient {
    /// A socket on `ip` with a port of the system's choice.
    pub fn new(ip: &str) -> UdpClient {
        UdpClient(UdpSocket::bind((ip, 0)).unwrap())
    }

    pub fn send(&self, to: &str, datagram: &[u8]) {
        self.0.send_to(datagram, to).unwrap();
    }

    /// The next datagram and who it says sent it; nothing if none comes within `limit`.
    pub fn hear_within(&self, limit: Duration) -> Option<(String, Vec<u8>)> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = vec![0; 65536];
        let (len, from) = self.0.recv_from(&mut buffer).ok()?;
        Some((from.to_string(), buffer[..len].to_vec()))
    }

    /// The next datagram, which must come from `from`.
    pub fn hear(&self, from: &str) -> Vec<u8> {
        let (who, datagram) = self.hear_within(PATIENCE).unwrap_or_else(|| panic!("no answer from {from}"));
        assert_eq!(who, from);
        datagram
    }

    /// Nothing comes.
    #[track_caller]
    pub fn hears_nothing(&self) {
        assert_eq!(self.hear_within(SILENCE), None);
    }

    /// Sends, and expects the answer of [`UdpServer::echo`], from the same address.
    pub fn echoed(&self, server: &str, datagram: &[u8]) {
        self.send(server, datagram);
        let expected = [format!("{server} ").as_bytes(), datagram].concat();
        assert_eq!(String::from_utf8_lossy(&self.hear(server)), String::from_utf8_lossy(&expected));
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// The first datagrams of a real client, from the vectors.
pub fn quic_flow(name: &str) -> Vec<Vec<u8>> {
    let path = format!("{}/tests/vectors/quic/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(from_hex).collect()
}

/// Bytes as the vectors hold them.
pub fn from_hex(line: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    line.trim().as_bytes().chunks_exact(2).map(byte).collect()
}

/// Whether this is a Version Negotiation packet to the client that sent `initial`, offering nothing that exists.
pub fn is_refusal_of(answer: &[u8], initial: &[u8]) -> bool {
    let dcid_len = usize::from(initial[5]);
    let scid_len = usize::from(initial[6 + dcid_len]);
    let (dcid, scid) = (&initial[6..6 + dcid_len], &initial[7 + dcid_len..7 + dcid_len + scid_len]);
    let lengths = [[scid_len as u8].as_slice(), scid, &[dcid_len as u8], dcid].concat();
    let (head, rest) = answer.split_at(5);
    let reserved = |version: &[u8]| version.iter().all(|byte| byte & 0x0f == 0x0a);
    head[0] & 0x80 != 0
        && head[1..] == [0; 4]
        && rest.strip_prefix(&*lengths).is_some_and(|versions| versions.len() == 4 && reserved(versions))
        && answer.len() <= initial.len()
}

/// The time that something took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
