//! The way in which a client is answered.

use std::io;
use std::sync::Weak;

use mio::net::UdpSocket;

use super::{Key, Replies};
use crate::sys::datagram::{self, Sent};

/// How a flow's client is answered.
#[derive(Debug, Clone)]
pub(in crate::engine) enum WayBack {
    /// In the name of where it was going.
    Direct,
    /// Through whoever speaks for it: each answer behind the header that came with the first datagram.
    Header {
        /// The listener's; gone when that is closed.
        socket: Weak<UdpSocket>,
        header: Box<[u8]>,
    },
}

impl WayBack {
    /// Sends what the client is to hear, while there are `flows`.
    ///
    /// # Errors
    /// There is no socket to be had for that.
    pub fn send<'a>(
        &self,
        key: Key,
        answers: impl Iterator<Item = &'a [u8]>,
        replies: &mut Replies,
        flows: usize,
    ) -> io::Result<Sent> {
        let WayBack::Header { socket, header } = self else {
            return replies.send(key.dest, key.client, answers, flows);
        };
        let Some(socket) = socket.upgrade() else { return Ok(Sent::default()) };
        let answers: Vec<Vec<u8>> = answers.map(|answer| [header, answer].concat()).collect();
        let mut sent = datagram::send(&*socket, key.via, answers.iter().map(Vec::as_slice));
        // Headers are no payload.
        let headers = u64::try_from(answers.len().saturating_mul(header.len())).unwrap_or(u64::MAX);
        sent.bytes = sent.bytes.saturating_sub(headers);
        Ok(sent)
    }
}
