//! The sockets from which clients are answered: each has the address where their datagrams were going.
//!
//! One serves all flows that go to the same place, as it says with each datagram whom that is for. There are as many as the
//! worker has flows at most (so that `limits.connections` accounts for their descriptors), or [`KEPT`], and never more than
//! [`MAX_REPLIES`]; the one that was not used for longest makes room.

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
        self.trim(flows.clamp(KEPT, MAX_REPLIES));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn there_are_no_more_than_there_are_flows_and_those_in_use_stay() {
        let mut replies = Replies::default();
        let addr = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 0..40 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap().into();
            replies.sockets.insert(addr(port), Reply { socket, used: port.into() });
        }
        let check = |replies: &mut Replies, flows, first_left| {
            replies.shrink(flows);
            let mut left: Vec<u16> = replies.sockets.keys().map(SocketAddr::port).collect();
            left.sort_unstable();
            assert_eq!(left, (first_left..40).collect::<Vec<_>>(), "{flows} flows");
        };
        check(&mut replies, 40, 0);
        check(&mut replies, 39, 1);
        check(&mut replies, 20, 20);
        check(&mut replies, 0, 40 - KEPT as u16);
    }
}
