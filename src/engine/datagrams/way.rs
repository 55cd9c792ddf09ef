//! The way in which a client is answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Instant;

use mio::net::UdpSocket;

use super::{Associations, Gear, Key, Via};
use crate::accept::Wish;
use crate::session::Machine;
use crate::sys::datagram;

/// How a flow's client is answered.
#[derive(Debug, Clone)]
pub(in crate::engine) enum WayBack {
    /// In the name of where it was going, or through its association.
    Direct,
    /// Through whoever speaks for it: each answer behind the header that came with the first datagram.
    Header {
        /// The listener's; gone when that is closed.
        socket: Weak<UdpSocket>,
        header: Box<[u8]>,
    },
}

impl WayBack {
    /// Sends what the client is to hear of `server`, or in the name of where it wanted to go: how many bytes of that went out.
    ///
    /// # Errors
    /// There is no socket to be had for that.
    pub fn send<'a, M: Machine>(
        &self,
        key: &Key,
        server: Option<SocketAddr>,
        answers: impl Iterator<Item = &'a [u8]>,
        associations: &mut Associations,
        gear: &mut Gear<'_>,
        now: Instant,
    ) -> io::Result<u64> {
        match (self, key.via, &key.wish) {
            (WayBack::Direct, Via::Association(membership), wish) if M::ASSOCIATES => {
                Ok(associations.answer(membership, key.client, server.ok_or(wish), answers, now))
            }
            (WayBack::Direct, Via::Firewall, &Wish::Address(dest)) => {
                gear.replies.send(dest, key.client, answers, gear.flows).map(|sent| sent.bytes)
            }
            (WayBack::Header { socket, header }, Via::Peer(peer), _) if M::READS => {
                let Some(socket) = socket.upgrade() else { return Ok(0) };
                Ok(datagram::send(&*socket, Some(peer), header, answers).bytes)
            }
            (WayBack::Direct | WayBack::Header { .. }, ..) => Ok(0),
        }
    }
}
