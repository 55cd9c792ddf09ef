//! SOCKS associations: each is a socket to which one client sends its datagrams for anywhere, as long as a connection of that
//! client stands.
//!
//! Such a socket takes the place that the connection's server has otherwise, so there are no more descriptors than
//! `limits.connections` accounts for. It is at the address to which the client has connected, on a port of the kernel's
//! choice: one port for all would not tell two associations of one client apart.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::accept::Wish;
use crate::config::Listener;
use crate::engine::slab::Slab;
use crate::session::Associating;
use crate::sys::datagram;
use crate::wire::socks5;

/// The tokens of associations, above those of flows.
pub(in crate::engine) const FIRST_ASSOCIATION: usize = usize::MAX / 4 * 3;

/// Flows of one association; more destinations at once are not talked to.
const MAX_FLOWS: usize = 512;

/// Which association a flow belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Membership {
    pub place: usize,
    /// A place is used again, and what was refused is remembered for a while.
    number: u64,
}

/// One worker's associations.
#[derive(Debug)]
pub(in crate::engine) struct Associations {
    places: Slab<Association>,
    /// How many there ever were.
    begun: u64,
    /// Those whose connection has just ended.
    abandoned: Vec<usize>,
}

/// One association.
#[derive(Debug)]
pub(in crate::engine) struct Association {
    number: u64,
    /// The client's connection, by its key.
    pub connection: usize,
    pub listener: Arc<Listener>,
    pub socket: UdpSocket,
    /// Where the client sends its datagrams.
    pub relay: SocketAddr,
    pub client: Sender,
    pub user: Option<Arc<str>>,
    /// By place.
    flows: Vec<usize>,
    /// When a datagram went either way last.
    pub last: Instant,
    /// It stands in the worker's queue already.
    pub queued: bool,
}

/// Whose datagrams count.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Sender {
    ip: IpAddr,
    /// Nothing as long as the first datagram has not shown it.
    port: Option<u16>,
}

impl Sender {
    /// Whether a datagram from `addr` may be the client's.
    pub fn may_be(self, addr: SocketAddr) -> bool {
        addr.ip() == self.ip && addr.port() != 0 && self.port.is_none_or(|port| port == addr.port())
    }
}

impl Associations {
    /// None.
    pub fn new() -> Self {
        Associations { places: Slab::new(), begun: 0, abandoned: Vec::new() }
    }

    /// Begins the association of `client`, whose connection has this key and leads to `local`: its place, and where its
    /// datagrams are awaited.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn begin(
        &mut self,
        wanted: Associating,
        connection: usize,
        listener: &Arc<Listener>,
        (client, local): (IpAddr, SocketAddr),
        registry: &Registry,
        now: Instant,
    ) -> io::Result<(usize, SocketAddr)> {
        let mut relay = local;
        relay.set_port(0);
        let socket = UdpSocket::bind(relay)?;
        datagram::take_joined(&socket);
        relay.set_port(socket.local_addr()?.port());
        self.begun = self.begun.wrapping_add(1);
        let place = self.places.insert(Box::new(Association {
            number: self.begun,
            connection,
            listener: Arc::clone(listener),
            socket,
            relay,
            client: Sender { ip: client, port: wanted.port },
            user: wanted.user,
            flows: Vec::new(),
            last: now,
            queued: false,
        }));
        let token = Token(FIRST_ASSOCIATION + place);
        let watched = self.get_mut(place).map_or(Ok(()), |association| {
            registry.register(&mut association.socket, token, Interest::READABLE)
        });
        if let Err(error) = watched {
            self.remove(place);
            return Err(error);
        }
        Ok((place, relay))
    }

    /// The association at `place`.
    pub fn get(&self, place: usize) -> Option<&Association> {
        self.places.get(place)
    }

    /// The same.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Association> {
        self.places.get_mut(place)
    }

    /// The connection of the association at `place` has ended: the worker is to end its flows, too.
    pub fn abandon(&mut self, place: usize) {
        self.abandoned.push(place);
    }

    /// One that was abandoned.
    pub fn take_abandoned(&mut self) -> Option<usize> {
        self.abandoned.pop()
    }

    /// Closes its socket.
    pub fn remove(&mut self, place: usize) {
        if self.places.take(place).is_some() {
            self.places.free(place);
        }
    }

    /// Lets places that were freed in this turn be used again.
    pub fn recycle(&mut self) {
        self.places.recycle();
    }

    /// Brings the client of `membership` datagrams that came from `server`, or that are in the name of what it has asked for:
    /// how many bytes of them went out.
    pub fn answer<'a>(
        &mut self,
        membership: Membership,
        client: SocketAddr,
        from: Result<SocketAddr, &Wish>,
        datagrams: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) -> u64 {
        let Some(association) = self.get_mut(membership.place) else { return 0 };
        association.last = now;
        let header = match from {
            Ok(addr) | Err(&Wish::Address(addr)) => socks5::datagram_header(addr),
            Err(Wish::Name { host, port }) => socks5::datagram_header_of_name(host, *port),
            Err(Wish::Lost) => return 0,
        };
        datagram::send(&association.socket, Some(client), &header, datagrams).bytes
    }
}

impl Association {
    /// A datagram of the client came from `addr`: from now on they come from there.
    pub fn heard(&mut self, addr: SocketAddr, now: Instant) {
        self.client.port = Some(addr.port());
        self.last = now;
    }

    /// How its flows refer to it, if it is at `place`.
    pub fn membership(&self, place: usize) -> Membership {
        Membership { place, number: self.number }
    }

    /// Whether there is room for one more flow.
    pub fn has_room(&self) -> bool {
        self.flows.len() < MAX_FLOWS
    }

    /// Whether it has no flow.
    pub fn is_idle(&self) -> bool {
        self.flows.is_empty()
    }

    /// A flow of it has begun.
    pub fn joined(&mut self, flow: usize) {
        self.flows.push(flow);
    }

    /// A flow of it is over.
    pub fn left(&mut self, flow: usize) {
        self.flows.retain(|other| *other != flow);
    }

    /// All its flows, which are to end.
    pub fn take_flows(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.flows)
    }
}
