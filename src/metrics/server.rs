//! The endpoint's connections: one thread, a few at once, one request each, all of it within [`DEADLINE`].
//!
//! A client that is slow, silent or hostile costs a place among [`MAX_CLIENTS`] and no more than that: no thread, no memory
//! beyond [`MAX_HEAD`] and an answer, no panic. When the places are taken the oldest of them is given to who comes, so that
//! nobody who asks something at once is held up by those who do not. What is asked and answered is [`super::pages`]' business.
//!
//! `tiny_http` was the first choice and is not used: it starts a thread for every connection without a limit, reads
//! lines without one, and unwraps the peer's address, which is an error once the client has reset the connection; as
//! this program aborts on panic, anyone who reaches the port could end the proxy (reproduced within seconds on loopback).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pages;
use super::pages::Pages;
use super::{Metrics, Overview};
use crate::sys::readiness::{self, Wanted};
use crate::sys::{socket, threads};

/// From accepting a connection until it is answered and closed.
const DEADLINE: Duration = Duration::from_secs(2);
/// Connections at once.
const MAX_CLIENTS: usize = 16;
/// Connections that are accepted before those that are here get their turn.
const ACCEPTS_PER_TURN: usize = MAX_CLIENTS;
/// The longest request head.
const MAX_HEAD: usize = 4096;
/// The pause after an accept that failed for want of descriptors, or a wait that did for want of memory.
const PAUSE: Duration = Duration::from_millis(200);
/// The thread's stack; its deepest call is formatting.
const STACK: usize = 128 * 1024;

/// The thread that serves. Dropping it leaves the thread running: see [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Serves `metrics` on a socket that listens already: it may be bound before privileges are dropped, and the thread
    /// be started after it. `overview` is what the status page shows beside them.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        listener: TcpListener,
        metrics: Arc<Metrics>,
        overview: Box<dyn Overview>,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let desk = Desk {
            listener: listener.try_clone()?,
            stopping: Arc::clone(&stopping),
            clients: VecDeque::with_capacity(MAX_CLIENTS),
            rests_until: None,
        };
        desk.listener.set_nonblocking(true)?;
        let mut pages = Pages::new(metrics, overview, Instant::now());
        let thread = threads::spawn("metrics", STACK, move || desk.serve(&mut pages))?;
        Ok(Server { listener, stopping, thread })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Stops serving and frees the address; answers under way are finished, so it may take two seconds.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // Linux ends a wait for a listening socket when that is shut down. std has that call for streams only, but to the
        // system a socket is a socket.
        let _ = TcpStream::from(OwnedFd::from(self.listener)).shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

/// What is served.
pub(super) trait Site {
    /// The answer to a request with this head.
    fn answer(&mut self, head: &[u8]) -> Vec<u8>;

    /// Does what is to be done at `now`, and says when it wants to be called again, if ever.
    fn go_on(&mut self, now: Instant) -> Option<Instant>;
}

/// What the thread has.
struct Desk {
    listener: TcpListener,
    stopping: Arc<AtomicBool>,
    /// In the order of their arrival.
    clients: VecDeque<Client>,
    /// Out of descriptors: nobody is accepted until then.
    rests_until: Option<Instant>,
}

impl Desk {
    fn serve(mut self, site: &mut dyn Site) {
        loop {
            let due = site.go_on(Instant::now());
            let stopping = self.stopping.load(Ordering::Acquire);
            if stopping {
                self.clients.retain(Client::is_answered);
                if self.clients.is_empty() {
                    return;
                }
            }
            let Ok(mut ready) = self.wait(stopping, due) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let can_accept = ready.pop().unwrap_or(false);
            let now = Instant::now();
            let mut ready = ready.into_iter();
            self.clients.retain_mut(|client| {
                let turn = if ready.next().unwrap_or(false) { client.turn(site) } else { Ok(true) };
                // What the client does wrong is the client's business.
                turn.unwrap_or(false) && now < client.deadline
            });
            if can_accept && !stopping {
                self.accept(now);
            }
        }
    }

    /// Waits for the clients, the listener last, or until something is `due`.
    fn wait(&self, stopping: bool, due: Option<Instant>) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let rests = stopping || self.rests_until.is_some_and(|until| now < until);
        let mut fds: Vec<_> =
            self.clients.iter().map(|client| (client.stream.as_fd(), client.wanted())).collect();
        if !rests {
            fds.push((self.listener.as_fd(), Wanted::Readable));
        }
        let deadlines = self.clients.iter().map(|client| client.deadline);
        let until = deadlines.chain(self.rests_until.filter(|_| rests)).chain(due).min();
        let mut ready = readiness::wait(&fds, until)?;
        ready.resize(self.clients.len() + 1, false);
        Ok(ready)
    }

    fn accept(&mut self, now: Instant) {
        self.rests_until = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if self.clients.len() >= MAX_CLIENTS {
                        self.clients.pop_front();
                    }
                    let state = State::Reading(Vec::new());
                    self.clients.push_back(Client { stream, state, deadline: now + DEADLINE });
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if socket::is_out_of_resources(&e) => {
                    self.rests_until = Some(now + PAUSE);
                    return;
                }
                // A client was gone before it was accepted, or all is over.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// A connection, and by when all must be over.
struct Client {
    stream: TcpStream,
    state: State,
    deadline: Instant,
}

enum State {
    /// Of the request's head so far.
    Reading(Vec<u8>),
    /// The answer, and how much of it is sent.
    Writing(Vec<u8>, usize),
}

impl Client {
    fn is_answered(&self) -> bool {
        matches!(self.state, State::Writing(..))
    }

    fn wanted(&self) -> Wanted {
        if self.is_answered() { Wanted::Writable } else { Wanted::Readable }
    }

    /// Goes on as far as it can; false when it is over.
    fn turn(&mut self, site: &mut dyn Site) -> io::Result<bool> {
        match self.go_on(site) {
            Ok(()) => self.stream.shutdown(Shutdown::Write).map(|()| false),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn go_on(&mut self, site: &mut dyn Site) -> io::Result<()> {
        loop {
            match &mut self.state {
                State::Reading(head) => {
                    let mut buffer = [0; MAX_HEAD];
                    let free = MAX_HEAD.saturating_sub(head.len());
                    let n = self.stream.read(buffer.get_mut(..free).unwrap_or_default())?;
                    if n == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    // The end may be spread over two reads.
                    let from = head.len().saturating_sub(3);
                    head.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    let new = head.get(from..).unwrap_or_default();
                    if new.windows(4).any(|four| four == b"\r\n\r\n") {
                        self.state = State::Writing(site.answer(head), 0);
                    } else if head.len() >= MAX_HEAD {
                        self.state = State::Writing(pages::too_large(), 0);
                    }
                }
                State::Writing(answer, sent) => {
                    let left = answer.get(*sent..).unwrap_or_default();
                    if left.is_empty() {
                        return Ok(());
                    }
                    *sent = sent.saturating_add(self.stream.write(left)?);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(addr: impl std::net::ToSocketAddrs) -> Server {
        Server::start(TcpListener::bind(addr).unwrap(), Arc::new(Metrics::new()), Box::new(())).unwrap()
    }

    fn start() -> (Server, SocketAddr) {
        let server = serve("127.0.0.1:0");
        let addr = server.local_addr().unwrap();
        (server, addr)
    }

    fn exchange(addr: SocketAddr, pieces: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn requests_and_their_answers() {
        let (server, addr) = start();
        let check = |request: &str, status: &str, body: &str| {
            let response = exchange(addr, &[request.as_bytes()]);
            let (head, got) = response.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.lines().next().unwrap(), format!("HTTP/1.1 {status}"), "{request:?}");
            assert!(got.starts_with(body) && got.is_empty() == body.is_empty(), "{request:?}: {got}");
            assert!(head.ends_with("\r\nConnection: close"), "{head}");
        };
        check("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "# HELP calamary_bytes_rcv ");
        check("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200 OK", "# HELP calamary_bytes_rcv ");
        check("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", "");
        check("GET /healthz HTTP/1.1\r\n\r\n", "200 OK", "ok\n");
        check("GET /x HTTP/1.1\r\n\r\n", "404 Not Found", "404 Not Found\n");
        check("HEAD /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found", "");
        check("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "405");
        check("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request", "400");
        check("GET /metrics\r\n\r\n", "400 Bad Request", "400");
        check("GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request", "400");
        check("\r\n\r\n", "400 Bad Request", "400");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD - 20));
        check(&long, "404 Not Found", "404");
        // Exactly what is read: more would be answered by a reset when the connection is closed.
        check(&"x".repeat(MAX_HEAD), "431 Request Header Fields Too Large", "431");

        let response = exchange(addr, &[b"GET /healthz HT", b"TP/1.1\r\n\r", b"\n"]);
        assert_eq!(
            response,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
        );
        let response = exchange(addr, &[b"HEAD /healthz HTTP/1.1\r\n\r\n"]);
        assert!(response.contains("\r\nContent-Length: 3\r\n"), "{response}");
        let response = exchange(addr, &[b"PUT / HTTP/1.1\r\n\r\n"]);
        assert!(response.contains("\r\nAllow: GET, HEAD\r\n"), "{response}");
        server.stop();
    }

    /// Reads what comes until the end of the stream, or its reset.
    fn rest(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        String::from_utf8(all).unwrap()
    }

    /// Served one after the other, each silent client delayed all that came later by two seconds.
    #[test]
    fn silent_clients_delay_nobody_and_the_oldest_makes_room() {
        let (server, addr) = start();
        let mut silent: Vec<_> = (0..3 * MAX_CLIENTS).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let start = Instant::now();
        for _ in 0..5 {
            assert!(exchange(addr, &[b"GET /healthz HTTP/1.1\r\n\r\n"]).ends_with("ok\n"));
        }
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        // The last of them have their places still, but not for ever.
        let mut last = silent.pop().unwrap();
        last.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        assert!(rest(&mut last).ends_with("ok\n"));
        for stream in &mut silent {
            stream.set_read_timeout(Some(DEADLINE + Duration::from_secs(5))).unwrap();
            assert_eq!(rest(stream), "");
        }
        server.stop();
    }

    /// An answer that is not taken is given up, and does not stop others.
    #[test]
    fn one_who_does_not_read_delays_nobody() {
        let (listener, big) = (TcpListener::bind("127.0.0.1:0").unwrap(), 64 << 20);
        let addr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let desk =
            Desk { listener, stopping: Arc::clone(&stopping), clients: VecDeque::new(), rests_until: None };
        struct Xs(usize);
        impl Site for Xs {
            fn answer(&mut self, head: &[u8]) -> Vec<u8> {
                vec![b'x'; if head.starts_with(b"big") { self.0 } else { 3 }]
            }
            fn go_on(&mut self, _: Instant) -> Option<Instant> {
                None
            }
        }
        let thread = std::thread::spawn(move || desk.serve(&mut Xs(big)));
        let mut greedy = TcpStream::connect(addr).unwrap();
        greedy.write_all(b"big\r\n\r\n").unwrap();
        let start = Instant::now();
        assert_eq!(exchange(addr, &[b"small\r\n\r\n"]), "xxx");
        assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
        std::thread::sleep(DEADLINE + Duration::from_millis(500));
        let mut got = Vec::new();
        let _ = greedy.read_to_end(&mut got);
        assert!(!got.is_empty() && got.len() < big, "{}", got.len());
        stopping.store(true, Ordering::Release);
        // Wakes it.
        let _ = TcpStream::connect(addr);
        thread.join().unwrap();
    }

    /// The end of a `tiny_http` server: a request whose sender resets the connection at once.
    #[test]
    fn clients_that_reset_are_survived() {
        let (server, addr) = start();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(addr).unwrap();
            crate::sys::socket::reset_on_close(&stream).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        }
        assert!(exchange(addr, &[b"GET /healthz HTTP/1.1\r\n\r\n"]).ends_with("ok\n"));
        server.stop();
    }

    #[test]
    fn stopping_is_prompt_and_frees_the_address() {
        let (server, addr) = start();
        let start = Instant::now();
        server.stop();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(TcpStream::connect(addr).is_err());
        let server = serve(addr);
        assert!(exchange(addr, &[b"GET /healthz HTTP/1.1\r\n\r\n"]).ends_with("ok\n"));
        server.stop();
    }
}
