//! Servers to connect to: each a listener and a thread per connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{PATIENCE, process};

/// A server in the namespace of the thread that made it. Dropping it stops listening.
pub struct Origin {
    pub addr: SocketAddr,
    listener: Arc<TcpListener>,
    accepted: Arc<AtomicUsize>,
}

impl Origin {
    /// Calls `handler` in a thread of its own for every connection.
    pub fn serve(addr: impl ToSocketAddrs, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Origin {
        let listener = Arc::new(TcpListener::bind(addr).unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let origin = Origin {
            addr: listener.local_addr().unwrap(),
            listener: Arc::clone(&listener),
            accepted: Arc::clone(&accepted),
        };
        let handler = Arc::new(handler);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let handler = Arc::clone(&handler);
                thread::Builder::new().stack_size(256 * 1024).spawn(move || handler(stream)).unwrap();
            }
        });
        origin
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Sends back what it gets, and closes when the client has.
    pub fn echo(addr: impl ToSocketAddrs) -> Origin {
        Self::serve(addr, |mut stream| {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
        })
    }

    /// Speaks first, as SSH does, then echoes.
    pub fn banner(addr: impl ToSocketAddrs, banner: &'static str) -> Origin {
        Self::serve(addr, move |mut stream| {
            let _ = stream.write_all(banner.as_bytes());
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..n]);
            }
        })
    }

    /// Accepts and holds connections without a word.
    pub fn silent(addr: impl ToSocketAddrs) -> Origin {
        Self::serve(addr, |mut stream| {
            let mut buffer = [0; 1024];
            while let Ok(1..) = stream.read(&mut buffer) {}
        })
    }

    /// Reads to the client's end, then answers with the number of bytes read.
    pub fn counts_then_answers(addr: impl ToSocketAddrs) -> Origin {
        Self::serve(addr, |mut stream| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(format!("{} bytes\n", all.len()).as_bytes());
            }
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        process::stop_listening(&self.listener);
    }
}

/// A request as an HTTP server got it.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    /// Names in lower case, values as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Head as it came over the wire.
    pub raw_head: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n == name).count()
    }

    /// Reads one request; `None` at the end of the stream.
    pub fn read(reader: &mut impl BufRead) -> Option<Request> {
        let raw_head = read_head(reader)?;
        let mut lines = raw_head.lines();
        let line = lines.next()?.to_string();
        let headers = parse_headers(lines);
        let mut request = Request { line, headers, body: Vec::new(), raw_head };
        request.body = read_body(reader, &request.headers)?;
        Some(request)
    }
}

/// Everything up to and with the empty line.
pub fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

pub fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_string()))
        .collect()
}

/// A body framed by Content-Length or chunks; empty without either.
pub fn read_body(reader: &mut impl BufRead, headers: &[(String, String)]) -> Option<Vec<u8>> {
    let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut body = Vec::new();
    if find("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim().split(';').next()?, 16).ok()?;
            let mut chunk = vec![0; size + 2];
            if size == 0 {
                // Trailers, then an empty line.
                loop {
                    let mut trailer = String::new();
                    if reader.read_line(&mut trailer).ok()? <= 2 {
                        return Some(body);
                    }
                }
            }
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
        }
    }
    if let Some(length) = find("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some(body)
}

/// An HTTP/1.1 server that keeps connections alive and remembers every request.
///
/// Paths: `/close` ends the connection with the answer, `/chunked` answers in chunks, `/until-close` without a length,
/// `/bytes/N` sends N bytes, `/hang` reads and never answers, `/garbage` answers with no HTTP. Every other path is
/// answered with the request line, the Host and the body's length.
pub struct HttpOrigin {
    pub origin: Origin,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl HttpOrigin {
    pub fn start(addr: impl ToSocketAddrs) -> HttpOrigin {
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = Arc::clone(&requests);
        let origin = Origin::serve(addr, move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            http_session(&mut reader, &mut { stream }, &log);
        });
        HttpOrigin { origin, requests }
    }

    pub fn addr(&self) -> SocketAddr {
        self.origin.addr
    }

    pub fn port(&self) -> u16 {
        self.origin.addr.port()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn accepted(&self) -> usize {
        self.origin.accepted()
    }
}

/// Serves requests of one connection, plain or decrypted.
pub fn http_session(reader: &mut impl BufRead, writer: &mut impl Write, log: &Mutex<Vec<Request>>) {
    while let Some(request) = Request::read(reader) {
        log.lock().unwrap().push(request.clone());
        let mut words = request.line.split(' ');
        let method = words.next().unwrap_or_default().to_string();
        let path = words.next().unwrap_or_default().to_string();
        let head_only = method == "HEAD";
        let text = format!(
            "{} host={} body={}\n",
            request.line,
            request.header("host").unwrap_or("none"),
            request.body.len()
        );
        let close = path.ends_with("/close") || path.ends_with("/until-close");
        let answer: Vec<u8> = if path.ends_with("/chunked") {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n3\r\nend\r\n0\r\n\r\n",
                text.len()
            )
            .into_bytes()
        } else if path.ends_with("/until-close") {
            format!("HTTP/1.1 200 OK\r\n\r\n{text}").into_bytes()
        } else if path.ends_with("/garbage") {
            b"this is not HTTP\r\n\r\n".to_vec()
        } else if path.ends_with("/hang") {
            continue;
        } else {
            let body = match path.rsplit_once("/bytes/") {
                Some((_, n)) => super::pattern(n.parse().unwrap_or(0), 7),
                None => text.into_bytes(),
            };
            let connection = if close { "Connection: close\r\n" } else { "" };
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{connection}\r\n", body.len()).into_bytes();
            if !head_only {
                answer.extend_from_slice(&body);
            }
            answer
        };
        if writer.write_all(&answer).and_then(|()| writer.flush()).is_err() || close {
            break;
        }
    }
}

/// Reads what comes until the peer closes, at most for [`PATIENCE`] without a byte.
pub fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}

/// Half-closes: no more from this side.
pub fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}
