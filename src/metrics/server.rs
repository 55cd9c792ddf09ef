//! The endpoint: `/metrics` for Prometheus, `/healthz` for whoever restarts things.
//!
//! One thread, one connection at a time, one request a connection, all of it within [`DEADLINE`]. A client that is slow,
//! silent or hostile delays the next one by that much and costs nothing else: no thread, no memory beyond [`MAX_HEAD`],
//! no panic. The connections that wait meanwhile are the kernel's, bounded by the backlog.
//!
//! `tiny_http` was the first choice and is not used: it starts a thread for every connection without a limit, reads
//! lines without one, and unwraps the peer's address, which is an error once the client has reset the connection; as
//! this program aborts on panic, anyone who reaches the port could end the proxy (reproduced within seconds on loopback).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Metrics;
use super::render::CONTENT_TYPE;
use crate::sys::threads;

/// From accepting a connection until it is answered and closed.
const DEADLINE: Duration = Duration::from_secs(2);
/// The longest request head.
const MAX_HEAD: usize = 4096;
/// The pause after an accept that failed for want of descriptors.
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

/// Binds `addr` and serves `metrics` there.
///
/// # Errors
/// The address cannot be bound, or the thread not be started.
pub fn serve(addr: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Server> {
    Server::start(TcpListener::bind(addr)?, metrics)
}

impl Server {
    /// Serves `metrics` on a socket that listens already: it may be bound before privileges are dropped, and the thread
    /// be started after it.
    pub fn start(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (accepting, stop) = (listener.try_clone()?, Arc::clone(&stopping));
        let thread = threads::spawn("metrics", STACK, move || accept(&accepting, &stop, &metrics))?;
        Ok(Server { listener, stopping, thread })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Stops serving and frees the address; a request under way is finished, so it may take two seconds.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // Linux ends a blocked accept when the listening socket is shut down. std has that call for streams only, but
        // to the system a socket is a socket.
        let _ = TcpStream::from(OwnedFd::from(self.listener)).shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, metrics: &Metrics) {
    while !stop.load(Ordering::Acquire) {
        match listener.accept() {
            // What the client does wrong is the client's business.
            Ok((stream, _)) => drop(answer(stream, metrics)),
            // The descriptors are used up, or a client was gone before it was accepted.
            Err(_) if !stop.load(Ordering::Acquire) => std::thread::sleep(PAUSE),
            Err(_) => {}
        }
    }
}

fn answer(stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut client = Client { stream, deadline: Instant::now() + DEADLINE };
    let mut head = [0; MAX_HEAD];
    let response = match client.read_head(&mut head)? {
        Some(head) => respond(head, metrics),
        None => Response::error("431 Request Header Fields Too Large", true),
    };
    client.write_all(&response.bytes())?;
    client.stream.shutdown(Shutdown::Write)
}

/// A connection with one deadline for everything.
struct Client {
    stream: TcpStream,
    deadline: Instant,
}

impl Client {
    /// Reads until the empty line. `None`: there is none within the buffer.
    fn read_head<'b>(&mut self, buffer: &'b mut [u8; MAX_HEAD]) -> io::Result<Option<&'b [u8]>> {
        let mut len = 0;
        while let Some(free) = buffer.get_mut(len..).filter(|free| !free.is_empty()) {
            self.stream.set_read_timeout(Some(self.left()?))?;
            let read = self.stream.read(free)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // The end may be spread over two reads.
            let from = len.saturating_sub(3);
            len += read;
            if buffer.get(from..len).is_some_and(|new| new.windows(4).any(|four| four == b"\r\n\r\n")) {
                return Ok(buffer.get(..len));
            }
        }
        Ok(None)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            let written = self.stream.write(bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
    /// HEAD gets no body, but the length that it would have.
    with_body: bool,
}

impl Response {
    fn ok(content_type: &'static str, body: String, with_body: bool) -> Self {
        Response { status: "200 OK", content_type, body, with_body }
    }

    fn error(status: &'static str, with_body: bool) -> Self {
        Response { status, content_type: "text/plain", body: format!("{status}\n"), with_body }
    }

    fn bytes(&self) -> Vec<u8> {
        let Response { status, content_type, body, .. } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
            body.len()
        );
        if self.with_body {
            text.push_str(body);
        }
        text.into_bytes()
    }
}

/// Looks at the request line only (RFC 9112 §3): no header changes the answer.
fn respond(head: &[u8], metrics: &Metrics) -> Response {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.0" | b"HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Response::error("400 Bad Request", true);
    };
    let with_body = match method {
        b"GET" => true,
        b"HEAD" => false,
        _ => return Response::error("405 Method Not Allowed", true),
    };
    match target.split(|byte| *byte == b'?').next() {
        Some(b"/metrics") => Response::ok(CONTENT_TYPE, metrics.render(), with_body),
        Some(b"/healthz") => Response::ok("text/plain", "ok\n".to_owned(), with_body),
        _ => Response::error("404 Not Found", with_body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (Server, SocketAddr) {
        let server = serve("127.0.0.1:0".parse().unwrap(), Arc::new(Metrics::new())).unwrap();
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
        check("GET / HTTP/1.1\r\n\r\n", "404 Not Found", "404 Not Found\n");
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

    #[test]
    fn a_silent_client_delays_others_by_the_deadline_at_most() {
        let (server, addr) = start();
        let silent = TcpStream::connect(addr).unwrap();
        let start = Instant::now();
        assert!(exchange(addr, &[b"GET /healthz HTTP/1.1\r\n\r\n"]).ends_with("ok\n"));
        assert!(start.elapsed() < DEADLINE + Duration::from_secs(2), "{:?}", start.elapsed());
        drop(silent);
        server.stop();
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
        let server = serve(addr, Arc::new(Metrics::new())).unwrap();
        assert!(exchange(addr, &[b"GET /healthz HTTP/1.1\r\n\r\n"]).ends_with("ok\n"));
        server.stop();
    }
}
