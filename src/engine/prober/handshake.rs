//! One handshake with a server, as its client would make it, to see its certificate.
//!
//! It ends with the handshake: nothing is sent behind it but the word that nothing more comes. Who we are is never told.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, Error, SignatureScheme};

use super::failed;
use crate::connect::distrust::Distrust;
use crate::connect::probe::{Doubt, Finding, Target};
use crate::connect::trust::Trust;
use crate::sys::time::{self, TlsClock};
use crate::wire::x509;

/// Bytes of a server's half of a handshake. Chains have some thousand.
const MAX_RECEIVED: usize = 128 * 1024;
/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;

/// Makes handshakes.
pub(super) struct Handshakes {
    config: ClientConfig,
}

impl Handshakes {
    /// Those in which `trust` judges.
    pub(super) fn new(trust: &Arc<Trust>) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(TlsClock))
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(trust) as _)
            .with_no_client_auth();
        // Each handshake is to show a certificate.
        config.resumption = Resumption::disabled();
        Ok(Handshakes { config })
    }

    /// Begins one, without a socket yet.
    pub(super) fn begin(&self, target: &Target) -> Result<Tls, Finding> {
        let name = ServerName::try_from(String::from(&*target.name));
        let name = name.map_err(|_| Finding::Unknown(Doubt::NoName))?;
        let mut config = self.config.clone();
        config.alpn_protocols = target.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let asked = Arc::new(Asked::default());
        config.client_auth_cert_resolver = Arc::clone(&asked) as _;
        let connection = ClientConnection::new(Arc::new(config), name);
        let connection = connection.map_err(|_| Finding::Unknown(Doubt::Handshake))?;
        Ok(Tls { connection, asked })
    }
}

/// Whether the server wants to know who the client is. It is not told.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// TLS that has not begun.
pub(super) struct Tls {
    connection: ClientConnection,
    asked: Arc<Asked>,
}

impl Tls {
    /// Over this socket, which may still be connecting.
    pub(super) fn over(self, socket: TcpStream) -> Handshake {
        Handshake { socket, tls: self, received: 0 }
    }
}

/// A handshake under way.
pub(super) struct Handshake {
    socket: TcpStream,
    tls: Tls,
    received: usize,
}

/// How a handshake stands.
pub(super) enum Progress {
    /// For the socket's next event.
    Waits,
    /// It is over; for how long a valid certificate still is.
    Ended(Finding, Option<Duration>),
}

impl Handshake {
    /// Does what can be done after an event. `broken`: the socket has an error.
    pub(super) fn go_on(&mut self, broken: bool) -> Progress {
        if broken {
            let error = match self.socket.take_error() {
                Ok(Some(error)) | Err(error) => error,
                Ok(None) => io::ErrorKind::ConnectionReset.into(),
            };
            return Progress::Ended(self.lost(&error), None);
        }
        match self.exchange() {
            Ok(()) => {
                self.tls.connection.send_close_notify();
                let _ = self.send();
                Progress::Ended(Finding::Valid, self.counts_for())
            }
            Err(Stop::Socket(error)) if is_patient(&error) => Progress::Waits,
            Err(Stop::Socket(error)) => Progress::Ended(self.lost(&error), None),
            Err(Stop::Tls(error)) => {
                // The server is told what it did wrong, if there is room.
                let _ = self.send();
                Progress::Ended(self.judged(&error), None)
            }
        }
    }

    /// Sends and receives until the handshake is over.
    fn exchange(&mut self) -> Result<(), Stop> {
        let mut buffer = [0; READ_BYTES];
        loop {
            self.send()?;
            if self.is_over() {
                return Ok(());
            }
            let n = self.socket.read(&mut buffer)?;
            if n == 0 {
                return Err(Stop::Socket(io::ErrorKind::UnexpectedEof.into()));
            }
            self.received = self.received.saturating_add(n);
            if self.received > MAX_RECEIVED {
                return Err(Stop::Tls(Error::General("too long a handshake".into())));
            }
            let mut bytes = buffer.get(..n).unwrap_or_default();
            while !bytes.is_empty() {
                if self.tls.connection.read_tls(&mut bytes)? == 0 {
                    return Err(Stop::Socket(io::ErrorKind::UnexpectedEof.into()));
                }
                self.tls.connection.process_new_packets().map_err(Stop::Tls)?;
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.connection.wants_write() {
            if self.tls.connection.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Whether there is nothing left to wait for. In TLS 1.3 a server says only after the client's last word whether it goes
    /// on without knowing who that is (RFC 8446 §4.4.2.4): by a ticket, or by an alert.
    fn is_over(&self) -> bool {
        let connection = &self.tls.connection;
        let is_1_3 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let is_undecided = is_1_3 && self.has_asked() && connection.tls13_tickets_received() == 0;
        !connection.is_handshaking() && !is_undecided
    }

    fn has_asked(&self) -> bool {
        self.tls.asked.0.load(Ordering::Relaxed)
    }

    /// What it means that the handshake failed.
    fn judged(&self, error: &Error) -> Finding {
        match Distrust::of(error) {
            Some(distrust) => distrust.into(),
            None if self.has_asked() => Finding::Unknown(Doubt::ClientCertificate),
            None => Finding::Unknown(Doubt::Handshake),
        }
    }

    /// What it means that the connection is gone.
    fn lost(&self, error: &io::Error) -> Finding {
        match error.kind() {
            _ if self.has_asked() => Finding::Unknown(Doubt::ClientCertificate),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Finding::Unknown(Doubt::Closed)
            }
            _ => failed(error),
        }
    }

    /// How long the server's own certificate still counts.
    fn counts_for(&self) -> Option<Duration> {
        let own = self.tls.connection.peer_certificates()?.first()?;
        let left = x509::parse(own)?.not_after.unix_secs.checked_sub(time::now().secs)?;
        Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
    }
}

/// Why a handshake does not go on.
enum Stop {
    Socket(io::Error),
    Tls(Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Socket(error)
    }
}

/// Whether an error says to come back later: for a socket that still connects, writing may say that it is not connected.
fn is_patient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
