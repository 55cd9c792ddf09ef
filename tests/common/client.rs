//! Clients that say exactly which bytes go out when.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::PATIENCE;
use super::origin::{parse_headers, read_body, read_head};

/// Connects, with generous limits on every later read and write.
pub fn connect(addr: impl ToSocketAddrs) -> TcpStream {
    let addr = addr.to_socket_addrs().unwrap().next().unwrap();
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap_or_else(|e| panic!("{addr}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Writes one byte at a time, each a segment of its own.
pub fn write_bytewise(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Reads exactly this.
pub fn expect_bytes(stream: &mut impl Read, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream
        .read_exact(&mut got)
        .unwrap_or_else(|e| panic!("wanted {:?}: {e}", expected.escape_ascii().to_string()));
    assert_eq!(got, expected, "{}", got.escape_ascii());
}

/// How a connection ended, and what came before.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum End {
    Closed(Vec<u8>),
    Reset(Vec<u8>),
}

/// Reads until the connection ends, at most for [`PATIENCE`] without a byte.
pub fn read_end(stream: &mut TcpStream) -> End {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return End::Closed(all),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return End::Reset(all),
            Err(e) => panic!("neither closed nor reset after {:?}: {e}", all.escape_ascii().to_string()),
        }
    }
}

/// Whether the connection is still open and silent after a moment.
pub fn is_open(stream: &mut TcpStream, moment: Duration) -> bool {
    stream.set_read_timeout(Some(moment)).unwrap();
    let mut byte = [0];
    let result = stream.peek(&mut byte);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(result, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
}

/// PROXY protocol version 1.
pub fn proxy_v1(src: SocketAddr, dest: SocketAddr) -> Vec<u8> {
    let family = if src.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", src.ip(), dest.ip(), src.port(), dest.port()).into_bytes()
}

/// PROXY protocol version 2 with raw TLVs behind the addresses; command 1 is PROXY, 0 is LOCAL.
pub fn proxy_v2(command: u8, src: SocketAddr, dest: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let family = match (src, dest) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            body.extend_from_slice(&s.ip().octets());
            body.extend_from_slice(&d.ip().octets());
            0x11
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            body.extend_from_slice(&s.ip().octets());
            body.extend_from_slice(&d.ip().octets());
            0x21
        }
        _ => panic!("families differ"),
    };
    body.extend_from_slice(&src.port().to_be_bytes());
    body.extend_from_slice(&dest.port().to_be_bytes());
    body.extend_from_slice(tlvs);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.push(0x20 | command);
    header.push(family);
    header.extend_from_slice(&(body.len() as u16).to_be_bytes());
    header.extend_from_slice(&body);
    header
}

/// A client behind a PROXY header: says that `dest` is wanted by somebody on the same family's documentation network.
pub fn connect_via_proxy_header(listener: impl ToSocketAddrs, dest: SocketAddr) -> TcpStream {
    let src: SocketAddr = if dest.is_ipv4() {
        "192.0.2.7:51234".parse().unwrap()
    } else {
        "[2001:db8::7]:51234".parse().unwrap()
    };
    let mut stream = connect(listener);
    stream.write_all(&proxy_v2(1, src, dest, &[])).unwrap();
    stream
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub raw_head: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An HTTP connection, to a proxy or a server.
pub struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(addr: impl ToSocketAddrs) -> Http {
        // One byte: nothing behind an answer may be taken from the tunnel that follows it.
        Http { reader: BufReader::with_capacity(1, connect(addr)) }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Reads a head only.
    pub fn head(&mut self) -> Response {
        let raw_head = read_head(&mut self.reader).expect("no answer before the end");
        let mut lines = raw_head.lines();
        let status_line = lines.next().unwrap();
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {status_line:?}"));
        Response { status, headers: parse_headers(lines), body: Vec::new(), raw_head }
    }

    /// Reads an answer with a framed body.
    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        response.body = read_body(&mut self.reader, &response.headers).expect("body cut short");
        response
    }

    /// Sends and reads the framed answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// What still comes until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = self.reader.read_to_end(&mut all);
        all
    }

    /// Whether the peer has closed, without a further byte.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        !matches!(self.reader.read(&mut byte), Ok(1..))
    }

    /// Whether the peer closes within a moment.
    pub fn is_closed_now(&mut self) -> bool {
        self.reader.buffer().is_empty() && !is_open(self.stream(), Duration::from_millis(300))
    }

    /// Reads exactly as much as fits.
    pub fn read_exact(&mut self, buffer: &mut [u8]) {
        self.reader.read_exact(buffer).unwrap();
    }

    /// The bare connection, for what comes after CONNECT.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.reader.buffer().is_empty(), "bytes behind the answer were read already");
        self.reader.into_inner()
    }
}

/// One request on a connection of its own: whatever comes back until the end, parsed as one answer.
pub fn ask_once(proxy: impl ToSocketAddrs, request: impl AsRef<[u8]>) -> Response {
    Http::connect(proxy).ask(request)
}

/// A CONNECT that must be granted.
pub fn tunnel(proxy: impl ToSocketAddrs, target: &str) -> TcpStream {
    let mut http = Http::connect(proxy);
    http.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    let answer = http.head();
    assert_eq!(answer.status, 200, "{}", answer.raw_head);
    http.into_stream()
}
