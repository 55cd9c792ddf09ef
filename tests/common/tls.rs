//! TLS for tests: ClientHellos built by hand, a certificate made with the openssl tool, a server made with rustls.

use std::cell::RefCell;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::origin::{Origin, Request, http_session};

/// The alert that a denied TLS client gets: fatal, unrecognized_name (RFC 6066 §3).
pub const ALERT_UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// What goes into a ClientHello.
#[derive(Clone, Default)]
pub struct Hello<'a> {
    pub name: Option<&'a str>,
    pub alpn: &'a [&'a str],
    /// Extensions as they are, behind the others: type and content.
    pub extra: &'a [(u16, &'a [u8])],
}

impl Hello<'_> {
    /// The handshake message, without a record around it.
    pub fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut add = |kind: u16, content: &[u8]| {
            extensions.extend_from_slice(&kind.to_be_bytes());
            extensions.extend_from_slice(&(content.len() as u16).to_be_bytes());
            extensions.extend_from_slice(content);
        };
        if let Some(name) = self.name {
            let mut entry = vec![0];
            entry.extend_from_slice(&(name.len() as u16).to_be_bytes());
            entry.extend_from_slice(name.as_bytes());
            let mut list = (entry.len() as u16).to_be_bytes().to_vec();
            list.extend_from_slice(&entry);
            add(0, &list);
        }
        if !self.alpn.is_empty() {
            let names: Vec<u8> =
                self.alpn.iter().flat_map(|p| std::iter::once(p.len() as u8).chain(p.bytes())).collect();
            let mut list = (names.len() as u16).to_be_bytes().to_vec();
            list.extend_from_slice(&names);
            add(16, &list);
        }
        add(10, &[0, 2, 0, 0x1d]); // supported_groups: x25519
        add(13, &[0, 2, 4, 3]); // signature_algorithms
        add(43, &[4, 3, 4, 3, 3]); // supported_versions: 1.3, 1.2
        for (kind, content) in self.extra {
            add(*kind, content);
        }

        let mut body = vec![3, 3];
        body.extend_from_slice(&[0x42; 32]); // random
        body.push(32);
        body.extend_from_slice(&[0x17; 32]); // session id
        body.extend_from_slice(&[0, 4, 0x13, 0x01, 0xc0, 0x2b]); // cipher suites
        body.extend_from_slice(&[1, 0]); // compression: none
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(&extensions);

        let mut message = vec![1];
        message.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend_from_slice(&body);
        message
    }

    /// In one record.
    pub fn record(&self) -> Vec<u8> {
        record(&self.message())
    }

    /// In records of at most `size` bytes each.
    pub fn records(&self, size: usize) -> Vec<u8> {
        self.message().chunks(size).flat_map(record).collect()
    }
}

fn record(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x16, 3, 1];
    out.extend_from_slice(&(content.len() as u16).to_be_bytes());
    out.extend_from_slice(content);
    out
}

/// A ClientHello with a name in one record.
pub fn hello(name: &str) -> Vec<u8> {
    Hello { name: Some(name), alpn: &["h2", "http/1.1"], ..Hello::default() }.record()
}

/// A self-signed certificate for example.com, blocked.example and all names directly below them.
pub struct Certificate {
    pub cert_pem: PathBuf,
    pub key_pem: PathBuf,
    pub cert_der: Vec<u8>,
    pub key_der: Vec<u8>,
}

/// The certificate of this test process, made at the first call.
pub fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("certificate-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str| dir.join(name);
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl")
                .args(args)
                .current_dir(&dir)
                .stdin(Stdio::null())
                .output()
                .expect("openssl");
            assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "30",
            "-subj",
            "/CN=calamary tests",
            "-addext",
            "subjectAltName=DNS:example.com,DNS:*.example.com,DNS:blocked.example,DNS:*.blocked.example",
        ]);
        openssl(&["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"]);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "key.der"]);
        Certificate {
            cert_pem: file("cert.pem"),
            key_pem: file("key.pem"),
            cert_der: std::fs::read(file("cert.der")).unwrap(),
            key_der: std::fs::read(file("key.der")).unwrap(),
        }
    })
}

/// The server side of TLS with that certificate.
pub fn server_config() -> Arc<ServerConfig> {
    let certificate = certificate();
    let chain = vec![CertificateDer::from(certificate.cert_der.clone())];
    let key = PrivateKeyDer::try_from(certificate.key_der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// An HTTPS server that remembers requests and the SNI of each.
pub struct HttpsOrigin {
    pub origin: Origin,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl HttpsOrigin {
    pub fn start(addr: impl ToSocketAddrs) -> HttpsOrigin {
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = Arc::clone(&requests);
        let config = server_config();
        let origin = Origin::serve(addr, move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let tls = Shared(Rc::new(RefCell::new(StreamOwned::new(session, stream))));
            http_session(&mut BufReader::new(tls.clone()), &mut tls.clone(), &log);
            let mut tls = tls.0.borrow_mut();
            tls.conn.send_close_notify();
            let _ = tls.flush();
        });
        HttpsOrigin { origin, requests }
    }

    pub fn addr(&self) -> SocketAddr {
        self.origin.addr
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn accepted(&self) -> usize {
        self.origin.accepted()
    }
}

/// One TLS stream, read and written through two handles of the same thread.
#[derive(Clone)]
struct Shared(Rc<RefCell<StreamOwned<ServerConnection, TcpStream>>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// A client of the certificates in `tests/vectors/certificates`.
pub struct TlsClient(StreamOwned<rustls::ClientConnection, Slowly>);

impl TlsClient {
    pub fn connect(addr: SocketAddr) -> TlsClient {
        Self::with(addr, false)
    }

    /// Every byte a segment of its own.
    pub fn slow(addr: SocketAddr) -> TlsClient {
        Self::with(addr, true)
    }

    /// What such a client says first.
    pub fn hello() -> Vec<u8> {
        let mut bytes = Vec::new();
        Self::session().write_tls(&mut bytes).unwrap();
        bytes
    }

    fn with(addr: SocketAddr, slow: bool) -> TlsClient {
        TlsClient(StreamOwned::new(Self::session(), Slowly { stream: super::client::connect(addr), slow }))
    }

    fn session() -> rustls::ClientConnection {
        use rustls::pki_types::pem::PemObject as _;
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/certificates/ca.pem");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from("proxy.example.com").unwrap();
        rustls::ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// What the server showed: its own certificate.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Ends this side, with close_notify or without, and goes on reading.
    pub fn finish(&mut self, notify: bool) {
        if notify {
            self.0.conn.send_close_notify();
        }
        self.0.flush().unwrap();
        super::origin::finish(&self.0.sock.stream);
    }
}

impl Read for TlsClient {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for TlsClient {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A stream that may send one byte at a time.
struct Slowly {
    stream: TcpStream,
    slow: bool,
}

impl Read for Slowly {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Slowly {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.slow {
            super::client::write_bytewise(&mut self.stream, buf);
            return Ok(buf.len());
        }
        self.stream.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
