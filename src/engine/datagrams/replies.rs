//! The sockets from which clients are answered: each has the address where their datagrams were going.
//!
//! One serves all flows that go to the same place, as it says with each datagram whom that is for. There are as many as the
//! worker has flows at most, and never more than [`MAX_REPLIES`]; the one that was not used for longest makes room.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::sys::datagram::{self, Sent};
use crate::sys::socket;

/// Sockets of one worker.
const MAX_REPLIES: usize = 1024;

/// Sockets that are kept although there are fewer flows: who asks a nameserver once will ask it again.
const KEPT: usize = 8;

/// A worker's sockets, by their address.
#[derive(Debug, Default)]
pub(in crate::engine) struct Replies {
    sockets: HashMap<SocketAddr, Reply>,
    /// Counts the uses.
    uses: u64,
}

#[derive(Debug)]
struct Reply {
    socket: OwnedFd,
    /// [`Replies::uses`] when it was used last.
    used: u64,
}

impl Replies {
    /// Sends `datagrams` to `client` as if they came from `addr`, while there are `flows`.
    ///
    /// # Errors
    /// There is no such socket to be had.
    pub fn send<'a>(
        &mut self,
        addr: SocketAddr,
        client: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a [u8]>,
        flows: usize,
    ) -> io::Result<Sent> {
        self.uses += 1;
        if !self.sockets.contains_key(&addr) {
            self.trim(flows.clamp(KEPT, MAX_REPLIES) - 1);
            let socket = match datagram::answering_as(addr) {
                Err(error) if socket::is_out_of_resources(&error) => {
                    self.trim(self.sockets.len().saturating_sub(1));
                    datagram::answering_as(addr)?
                }
                socket => socket?,
            };
            self.sockets.insert(addr, Reply { socket, used: 0 });
        }
        let Some(reply) = self.sockets.get_mut(&addr) else { return Ok(Sent::default()) };
        reply.used = self.uses;
        Ok(datagram::send(&reply.socket, Some(client), &[], datagrams))
    }

    /// Closes those that there is no reason for any more, as there are only so many `flows`.
    pub fn shrink(&mut self, flows: usize) {
        let most = flows.clamp(KEPT, MAX_REPLIES);
        // Finding the oldest means looking at all: not for each flow that ends.
        if self.sockets.len() > most.saturating_mul(2) {
            self.trim(most);
        }
    }

    /// Keeps the `most` that were used last.
    fn trim(&mut self, most: usize) {
        if self.sockets.len() <= most {
            return;
        }
        // The earliest use after which no more than `most` were used: no two have the same.
        let (mut earliest, mut latest) = (0, self.uses);
        while earliest < latest {
            let middle = earliest + (latest - earliest) / 2;
            if self.sockets.values().filter(|reply| reply.used > middle).count() > most {
                earliest = middle + 1;
            } else {
                latest = middle;
            }
        }
        self.sockets.retain(|_, reply| reply.used > earliest);
    }
}
