//! TLS over a non-blocking socket that is polled edge-triggered.
//!
//! rustls knows the protocol; here is what goes through the socket and when. What may be held is bounded: towards the peer
//! `MAX_UNSENT` of plain bytes at a time, nothing more is taken before all of their ciphertext is sent; from the peer
//! `MAX_HANDSHAKE` until the handshake is over, then one incomplete record, and the records of one small read that were
//! decrypted and not yet asked for.
//!
//! Early data is never accepted, and a certificate never asked for.

#[cfg(feature = "intercept")]
pub mod intercepted;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConnection, Connection, InvalidMessage, ServerConfig, ServerConnection};

use super::stream::Role;
use crate::sys::time::TlsClock;

/// Plain bytes whose ciphertext may wait for the peer.
const MAX_UNSENT: usize = 64 * 1024;

/// What of a reader's buffer takes ciphertext: one part in so many. The rest has room for what comes out of it.
const CIPHERTEXT_PART: usize = 4;

/// Reads in one turn of a handshake: a peer that sends more of it waits for its turn.
const READS_PER_TURN: usize = 16;

/// Bytes of a client's half of a handshake: what BoringSSL allows for one message. A hello with post-quantum keys, a ticket
/// and ECH has some four thousand; rustls alone would hold 64 KiB for everybody who begins one and never ends it.
const MAX_HANDSHAKE: usize = 16 * 1024;

/// Bytes of a server's half: what rustls takes of one message. Some chains of certificates are long.
const MAX_SERVER_HANDSHAKE: usize = 64 * 1024;

/// Bytes of one read of a handshake.
const HANDSHAKE_READ: usize = 4 * 1024;

/// Sessions that clients may take up again, of all workers together. TLS 1.3 takes two for each connection.
const MAX_SESSIONS: usize = 512;

/// How far our own direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Open.
    Open,
    /// close_notify is on its way, FIN follows.
    Closing,
    /// FIN is sent.
    Closed,
}

/// One TLS connection; the socket is the caller's.
#[derive(Debug)]
pub(super) struct Tls {
    connection: Connection,
    sending: Sending,
    /// Bytes of the handshake that came so far.
    received: usize,
    /// The first of them, which nobody has looked at yet.
    first: Vec<u8>,
    /// The TLS that this one goes through: that of an `https` listener, around an intercepted connection.
    around: Option<Box<Tls>>,
}

/// What TLS goes through.
struct Carrier<'a> {
    around: Option<&'a mut Tls>,
    socket: &'a mut TcpStream,
}

impl Read for Carrier<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.around {
            Some(tls) => tls.read(self.socket, buffer),
            None => self.socket.read(buffer),
        }
    }
}

impl Write for Carrier<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.around {
            Some(tls) => tls.write(self.socket, bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.around {
            Some(tls) => tls.flush(self.socket),
            None => Ok(()),
        }
    }
}

impl Carrier<'_> {
    fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.around {
            Some(tls) => tls.shutdown(self.socket),
            None => self.socket.shutdown(Shutdown::Write),
        }
    }
}

impl Tls {
    /// A connection that has not begun, with the bytes that were read for it already. They are looked at by the first turn
    /// of the handshake: what follows from them may be a signature, for which there is a time.
    pub fn new(role: &Role, first: &[u8]) -> io::Result<Self> {
        let mut connection = match role {
            Role::Server(config) => {
                Connection::Server(ServerConnection::new(Arc::clone(config)).map_err(failure)?)
            }
            Role::Client(config, name) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                Connection::Client(connection.map_err(failure)?)
            }
        };
        connection.set_buffer_limit(Some(MAX_UNSENT));
        Ok(Tls { connection, sending: Sending::Open, received: 0, first: first.to_vec(), around: None })
    }

    /// Goes through `around` from now on.
    pub fn inside(self, around: Option<Box<Tls>>) -> Self {
        Tls { around, ..self }
    }

    fn carrier<'a>(&'a mut self, socket: &'a mut TcpStream) -> Carrier<'a> {
        Carrier { around: self.around.as_deref_mut(), socket }
    }

    /// Takes in what was read: the handshake, and at its end perhaps a little more.
    fn take_in(&mut self, mut received: &[u8]) -> io::Result<()> {
        self.received = self.received.saturating_add(received.len());
        while !received.is_empty() && self.connection.read_tls(&mut received)? > 0 {
            self.connection.process_new_packets().map_err(failure)?;
        }
        let most = match self.connection {
            Connection::Server(_) => MAX_HANDSHAKE,
            Connection::Client(_) => MAX_SERVER_HANDSHAKE,
        };
        if self.connection.is_handshaking() && self.received > most {
            return Err(failure(InvalidMessage::HandshakePayloadTooLarge.into()));
        }
        Ok(())
    }

    /// See [`super::stream::Stream::handshake`].
    pub fn handshake(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        let first = std::mem::take(&mut self.first);
        self.take_in(&first)?;
        let mut buffer = [0; HANDSHAKE_READ];
        for _ in 0..READS_PER_TURN {
            self.flush(socket)?;
            if !self.connection.is_handshaking() {
                return Ok(true);
            }
            let n = self.carrier(socket).read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.take_in(buffer.get(..n).unwrap_or_default())?;
        }
        Ok(false)
    }

    /// What both sides agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Reads plain bytes. An end without close_notify is an end like another: many clients close so, and what they sent
    /// says by itself where it ends.
    pub fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            // An error that came behind bytes which have been read.
            self.connection.process_new_packets().map_err(failure)?;
            match self.receive(socket, buffer)? {
                0 => {}
                n => return Ok(n),
            }
        }
    }

    /// One read of the socket, and what plain bytes come out of it, which may be none.
    ///
    /// The end of `buffer` takes the ciphertext, the beginning the plain bytes. What finds no room there stays in rustls:
    /// less than one record, as an incomplete one is all that was there before and what comes out of ciphertext is smaller.
    /// So rustls never refuses to take ciphertext in, and none of it is ever left over.
    fn receive(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let ciphertext = (buffer.len() / CIPHERTEXT_PART).max(1);
        let (plain, cipher) = buffer.split_at_mut(buffer.len().saturating_sub(ciphertext));
        let n = self.carrier(socket).read(cipher)?;
        if n == 0 {
            // rustls, too, must know the end.
            self.connection.read_tls(&mut io::empty())?;
            return Ok(0);
        }
        let mut received = cipher.get(..n).unwrap_or_default();
        let mut filled = 0;
        // Behind close_notify nothing counts, and nothing is taken.
        while !received.is_empty() && self.connection.read_tls(&mut received)? > 0 {
            let processed = self.connection.process_new_packets().map_err(failure);
            let free = plain.get_mut(filled..).unwrap_or_default();
            filled += self.connection.reader().read(free).unwrap_or(0);
            match processed {
                Ok(_) => {}
                // What was intact comes first; rustls says the error again.
                Err(_) if filled > 0 => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
        // An answer to what was read, to a change of keys for example, goes out as soon as it can.
        unless_full(self.flush(socket))?;
        Ok(filled)
    }

    /// Takes plain bytes, as soon as nothing that was taken before is left.
    pub fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        let n = self.connection.writer().write(bytes)?;
        unless_full(self.flush(socket))?;
        Ok(n)
    }

    /// Whether something is still to be sent.
    pub fn holds(&self) -> bool {
        self.connection.wants_write()
            || self.sending == Sending::Closing
            || self.around.as_ref().is_some_and(|around| around.holds())
    }

    /// Sends what is to be sent.
    pub fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut carrier = Carrier { around: self.around.as_deref_mut(), socket };
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut carrier)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if self.sending == Sending::Closing {
            self.sending = Sending::Closed;
            carrier.shutdown()?;
        }
        carrier.flush()
    }

    /// close_notify, then FIN.
    pub fn shutdown(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        if self.sending == Sending::Open {
            self.sending = Sending::Closing;
            self.connection.send_close_notify();
        }
        self.flush(socket)
    }
}

/// The server's side: these certificates, the server's own first, with the key of that one.
///
/// # Errors
/// The key is of a kind that cannot be used, or is not that of the first certificate.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Role, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::DEFAULT_VERSIONS;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(TlsClock))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
    Ok(Role::Server(Arc::new(config)))
}

fn failure(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A full socket is no error: what does not go out now goes out with a later flush.
fn unless_full(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}
