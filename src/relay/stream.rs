//! A peer's stream: a socket, and TLS over it where the session said so.
//!
//! Whoever relays reads and writes plain bytes and asks three things only: whether a read may have left something behind,
//! whether what was written has left this process, and whether the bare socket may be spliced. Without TLS each of them is
//! a look at an empty option. The build without the feature `tls` has the same interface and no way to put TLS on.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

#[cfg(feature = "tls")]
use super::tls::Tls;

/// How TLS is put on a stream. Cheap to clone; without the feature `tls` there is none.
#[derive(Debug, Clone)]
pub enum Role {
    /// We are the server, with these certificates and versions.
    #[cfg(feature = "tls")]
    Server(std::sync::Arc<rustls::ServerConfig>),
    /// We are the client, and want the server with this name.
    #[cfg(feature = "tls")]
    Client(std::sync::Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>),
}

/// One peer's stream.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// Boxed: idle tunnels are what memory is spent on, and most have none.
    #[cfg(feature = "tls")]
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// The bare socket.
    pub fn new(socket: TcpStream) -> Self {
        Stream {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The socket: for its options, its addresses and its registration. Reading and writing it goes past TLS.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// As [`socket`](Self::socket), to be registered.
    pub fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Reads plain bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of the socket; [`io::ErrorKind::InvalidData`] for what is no TLS, see [`is_tls_failure`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.read(&mut self.socket, buffer);
        }
        self.socket.read(buffer)
    }

    /// Takes plain bytes, perhaps not all. Of what it took some may still have to be [flushed](Self::flush).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.write(&mut self.socket, bytes);
        }
        self.socket.write(bytes)
    }
}

#[cfg(feature = "tls")]
impl Stream {
    /// Puts TLS on, also inside of one that stands, beginning with bytes that were read already. Nothing is read or written yet,
    /// and they are not looked at.
    ///
    /// # Errors
    /// TLS cannot be had.
    pub fn secure(&mut self, role: &Role, received: &[u8]) -> io::Result<()> {
        let tls = Tls::new(role, received)?;
        self.tls = Some(Box::new(tls.inside(self.tls.take())));
        Ok(())
    }

    /// Goes on with the handshake: true once it is over and everything of it is sent, false if others come first.
    ///
    /// # Errors
    /// As [`read`](Self::read), and then the peer is still to be told, by [`shutdown`](Self::shutdown);
    /// [`io::ErrorKind::UnexpectedEof`] if the peer has left, [`io::ErrorKind::WouldBlock`] if it
    /// has to send more first, or to read.
    pub fn handshake(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => tls.handshake(&mut self.socket),
            None => Ok(true),
        }
    }

    /// What is spoken inside of TLS, as both sides agreed on by ALPN (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.alpn()
    }

    /// Whether a short read has emptied it, so that what comes later raises a new edge, and whether it may be spliced.
    pub fn is_bare(&self) -> bool {
        self.tls.is_none()
    }

    /// Whether something that was written is still here.
    pub fn holds(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds())
    }

    /// Sends what is still here.
    ///
    /// # Errors
    /// Those of the socket; [`io::ErrorKind::WouldBlock`] if something is left.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.flush(&mut self.socket),
            None => Ok(()),
        }
    }

    /// Tells the peer that no more comes: close_notify, where there is TLS, and then FIN.
    ///
    /// # Errors
    /// Those of the socket; [`io::ErrorKind::WouldBlock`] if something is left to be flushed first. FIN follows then.
    pub fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.shutdown(&mut self.socket),
            None => self.socket.shutdown(Shutdown::Write),
        }
    }
}

#[cfg(not(feature = "tls"))]
#[allow(missing_docs)]
impl Stream {
    pub fn secure(&mut self, role: &Role, _: &[u8]) -> io::Result<()> {
        match *role {}
    }

    pub fn handshake(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        None
    }

    pub fn is_bare(&self) -> bool {
        true
    }

    pub fn holds(&self) -> bool {
        false
    }

    pub fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    pub fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

/// Whether an error says that the peer did not like our certificate (RFC 8446 §6.2).
pub fn is_certificate_alert(error: &io::Error) -> bool {
    #[cfg(feature = "tls")]
    {
        use rustls::AlertDescription::{
            AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown,
            UnknownCA, UnsupportedCertificate,
        };
        matches!(
            rustls_error(error),
            Some(rustls::Error::AlertReceived(
                AccessDenied
                    | BadCertificate
                    | CertificateExpired
                    | CertificateRevoked
                    | CertificateUnknown
                    | UnknownCA
                    | UnsupportedCertificate
            ))
        )
    }
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        false
    }
}

/// What rustls says of it.
#[cfg(feature = "tls")]
pub fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether an error says that the peer's bytes are no TLS, not intact, or that it did not like ours.
pub fn is_tls_failure(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
