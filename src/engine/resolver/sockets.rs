//! Sockets to nameservers: one for every query, so that each has a port that nobody can guess.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};

use crate::connect::resolve::{ExchangeId, Transport};
use crate::sys::socket::{Outgoing, tcp_connect, udp_connect};

/// Bytes read at once: more than the 1232 that our queries allow a datagram to have.
const BUFFER_LEN: usize = 4096;
/// Datagrams read for one query. More than a few are forged, and every one is a guess (RFC 5452 §9.1).
const MAX_DATAGRAMS: u8 = 32;
/// Bytes before a message over TCP (RFC 1035 §4.2.2).
const PREFIX_LEN: usize = 2;

/// All sockets open.
pub(super) struct Sockets {
    open: HashMap<Token, (ExchangeId, Socket)>,
    buffer: Box<[u8]>,
}

enum Socket {
    Udp {
        socket: UdpSocket,
        datagrams_left: u8,
    },
    Tcp {
        stream: TcpStream,
        /// The query with its prefix, as far as it is not sent yet.
        unsent: Vec<u8>,
        /// The answer with its prefix, as far as it is here; at most 64 KiB and one buffer.
        received: Vec<u8>,
    },
}

/// What a socket has to say.
pub(super) enum Next {
    /// Nothing before its next event.
    Nothing,
    /// A message, without TCP's prefix.
    Message(ExchangeId, Vec<u8>),
    /// No answer will come.
    Failed(ExchangeId),
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets { open: HashMap::new(), buffer: vec![0; BUFFER_LEN].into() }
    }
}

impl Sockets {
    /// Sends a query.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        exchange: ExchangeId,
        server: SocketAddr,
        transport: Transport,
        message: &[u8],
        outgoing: &Outgoing,
    ) -> io::Result<()> {
        let token = Token(exchange.number());
        let socket = match transport {
            Transport::Udp => {
                let mut socket = UdpSocket::from_std(udp_connect(server, outgoing)?);
                registry.register(&mut socket, token, Interest::READABLE)?;
                socket.send(message)?;
                Socket::Udp { socket, datagrams_left: MAX_DATAGRAMS }
            }
            Transport::Tcp => {
                let mut stream = TcpStream::from_std(tcp_connect(server, outgoing, true)?);
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
                let unsent = [&length.to_be_bytes(), message].concat();
                Socket::Tcp { stream, unsent, received: Vec::new() }
            }
        };
        self.open.insert(token, (exchange, socket));
        Ok(())
    }

    /// Sends the datagram of an open exchange once more.
    pub(super) fn resend(&mut self, exchange: ExchangeId, message: &[u8]) -> io::Result<()> {
        match self.open.get(&Token(exchange.number())) {
            Some((_, Socket::Udp { socket, .. })) => socket.send(message).map(drop),
            // TCP does so by itself.
            Some((_, Socket::Tcp { .. })) | None => Ok(()),
        }
    }

    pub(super) fn close(&mut self, exchange: ExchangeId) {
        self.open.remove(&Token(exchange.number()));
    }

    /// To be called after an event until it has [nothing](Next::Nothing) more. A socket that failed is gone.
    pub(super) fn next(&mut self, token: Token) -> Next {
        let Some((exchange, socket)) = self.open.get_mut(&token) else { return Next::Nothing };
        let exchange = *exchange;
        match socket.receive(&mut self.buffer) {
            Ok(message) => Next::Message(exchange, message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Nothing,
            Err(_) => {
                self.close(exchange);
                Next::Failed(exchange)
            }
        }
    }
}

impl Socket {
    /// The next whole message. [`io::ErrorKind::WouldBlock`] means that there is none yet, other errors that none will
    /// come.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
        match self {
            Socket::Udp { socket, datagrams_left } => {
                *datagrams_left = datagrams_left.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
                let length = socket.recv(buffer)?;
                Ok(buffer.get(..length).unwrap_or_default().to_vec())
            }
            Socket::Tcp { stream, unsent, received } => {
                while !unsent.is_empty() {
                    let sent = stream.write(unsent)?;
                    unsent.drain(..sent.min(unsent.len()));
                }
                loop {
                    if let Some(message) = whole_message(received) {
                        return Ok(message);
                    }
                    let length = stream.read(buffer)?;
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    received.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
            }
        }
    }
}

/// Takes the message at the front, once it is whole.
fn whole_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (prefix, rest) = received.split_first_chunk::<PREFIX_LEN>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes(*prefix)))?.to_vec();
    // One query, one answer: what is behind it is of no use.
    received.clear();
    Some(message)
}
