//! What all sessions together remember of clients, over all workers: which QUIC connections were let in, and which public
//! names of Encrypted ClientHello they were told.
//!
//! A client whose address or port changes goes on in the middle of its connection (RFC 9000 §9), with packets that tell
//! nothing. It is let in by what is remembered of the beginning.
//!
//! What one client does or asks for changes nothing for another: each has so much room, and so many clients have. What is
//! forgotten for want of room is what was heard of longest ago. Times are arguments.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::decide::name;
use crate::wire::dns::ech::Published;
use crate::wire::tls::ClientHello;

/// Connections that are remembered, at most twice as many.
const MAX_CONNECTIONS: usize = 1024;

/// Connections of one client; beyond, the one that was let in longest ago is forgotten.
const MAX_OF_CLIENT: usize = 128;

/// Bytes of a name that is remembered: a longer one is trusted by nobody.
const MAX_NAME: usize = 255;

/// Protocols of a hello that are remembered; they are shown, and clients offer three at most.
const MAX_PROTOCOLS: usize = 8;

/// How long after a start a connection may be one that was let in before it.
const GRACE: Duration = Duration::from_secs(60);

/// Public names that are remembered, at most twice as many.
const MAX_PUBLIC_NAMES: usize = 4096;

/// Public names of one client; beyond, the oldest are forgotten.
const MAX_NAMES: usize = 32;

/// How long a public name holds at most, and at least: a client that was told with a shorter TTL connects a moment later.
const MAX_NAME_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MIN_NAME_TTL: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Debug)]
pub struct Memory {
    started: Instant,
    connections: Mutex<Generations<Connection>>,
    public_names: Mutex<Generations<PublicName>>,
}

/// A public name that a client was told, as [`name::normalise`] leaves it, and how long it holds.
type PublicName = (Box<str>, Instant);

/// How a QUIC connection began that was let in.
#[derive(Debug, Clone)]
struct Connection {
    dest: SocketAddr,
    hello: Option<Box<ClientHello>>,
    /// Flows that carry such a connection now.
    flows: u32,
    /// Remembered until then, without a flow.
    until: Instant,
}

impl Memory {
    /// Nothing yet; the program starts.
    pub fn new(now: Instant) -> Self {
        Memory { started: now, connections: Mutex::default(), public_names: Mutex::default() }
    }

    /// A QUIC connection of `client` to `dest` is let in, that began with `hello`.
    pub(super) fn let_in(&self, client: IpAddr, dest: SocketAddr, hello: Option<&ClientHello>, now: Instant) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_client = connections.take(client);
        let known = of_client.iter().position(|known| known.dest == dest).map(|at| of_client.remove(at));
        let flows = known.map_or(0, |known| known.flows).saturating_add(1);
        of_client.retain(|known| known.flows > 0 || now < known.until);
        if of_client.len() >= MAX_OF_CLIENT {
            of_client.remove(0);
        }
        of_client.push(Connection { dest, hello: hello.map(remembered), flows, until: now });
        connections.put(client, of_client, MAX_CONNECTIONS);
    }

    /// A flow with such a connection has ended; it is remembered for `lifetime`.
    pub(super) fn left(&self, client: IpAddr, dest: SocketAddr, now: Instant, lifetime: Duration) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_client = connections.take(client);
        if let Some(connection) = of_client.iter_mut().find(|known| known.dest == dest) {
            connection.flows = connection.flows.saturating_sub(1);
            connection.until = now + lifetime;
        }
        connections.put(client, of_client, MAX_CONNECTIONS);
    }

    /// How the connection began that `client` has, or just had, to `dest`. Outside `None` for none; inside it for one that
    /// told nothing, or that may have begun before this program did.
    pub(super) fn connection(
        &self,
        client: IpAddr,
        dest: SocketAddr,
        now: Instant,
    ) -> Option<Option<Box<ClientHello>>> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_client = connections.get(client).iter();
        let known = of_client.find(|known| known.dest == dest && (known.flows > 0 || now < known.until));
        match known {
            Some(known) => Some(known.hello.clone()),
            None => (now < self.started + GRACE).then_some(None),
        }
    }

    /// `client` was told of servers that take an encrypted ClientHello under these names.
    pub(crate) fn published(&self, client: IpAddr, records: &[Published], now: Instant) {
        if records.is_empty() {
            return;
        }
        let mut clients = self.public_names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = clients.take(client);
        for record in records {
            let ttl = Duration::from_secs(record.ttl_secs.into()).clamp(MIN_NAME_TTL, MAX_NAME_TTL);
            for public in record.public_names.iter().filter_map(|public| name::normalise(public.as_bytes())) {
                names.retain(|(known, until)| *known != public && now < *until);
                if names.len() >= MAX_NAMES {
                    names.remove(0);
                }
                names.push((public, now + ttl));
            }
        }
        clients.put(client, names, MAX_PUBLIC_NAMES);
    }

    /// Whether `client` was told that `name`, as [`name::normalise`] leaves it, is a public name.
    pub(super) fn is_public_name(&self, client: IpAddr, name: &str, now: Instant) -> bool {
        let clients = self.public_names.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(client).iter().any(|(known, until)| **known == *name && now < *until)
    }
}

/// What of a hello is remembered: what rules ask for, and not more than any client that is honest sends.
fn remembered(hello: &ClientHello) -> Box<ClientHello> {
    let mut hello = hello.clone();
    hello.sni = hello.sni.filter(|sni| sni.len() <= MAX_NAME);
    hello.alpn.truncate(MAX_PROTOCOLS);
    Box::new(hello)
}

/// Values by client, which forgets: when the young ones are too many they become the old ones, and the old ones are dropped.
#[derive(Debug)]
struct Generations<V> {
    young: HashMap<IpAddr, Vec<V>>,
    /// How many values those are.
    count: usize,
    old: HashMap<IpAddr, Vec<V>>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Generations { young: HashMap::new(), count: 0, old: HashMap::new() }
    }
}

impl<V> Generations<V> {
    fn get(&self, client: IpAddr) -> &[V] {
        self.young.get(&client).or_else(|| self.old.get(&client)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Takes out all of `client`'s.
    fn take(&mut self, client: IpAddr) -> Vec<V> {
        match self.young.remove(&client) {
            Some(values) => {
                self.count -= values.len();
                values
            }
            None => self.old.remove(&client).unwrap_or_default(),
        }
    }

    /// Puts them in again, as young ones, of which there shall not be more than `most`.
    fn put(&mut self, client: IpAddr, values: Vec<V>, most: usize) {
        if values.is_empty() {
            return;
        }
        if self.count + values.len() > most {
            self.old = std::mem::take(&mut self.young);
            self.count = 0;
        }
        self.count += values.len();
        self.young.insert(client, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 20));

    fn dest(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 5], port))
    }

    #[test]
    fn a_connection_is_remembered_while_it_lives_and_a_while_after() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let memory = Memory::new(start);
        assert_eq!(memory.connection(CLIENT, dest(443), at(59)), Some(None), "it may be older than we are");
        assert_eq!(memory.connection(CLIENT, dest(443), at(60)), None);
        memory.let_in(CLIENT, dest(443), None, at(100));
        memory.let_in(CLIENT, dest(443), None, at(100));
        assert_eq!(memory.connection(CLIENT, dest(443), at(9999)), Some(None));
        assert_eq!(memory.connection(CLIENT, dest(8443), at(9999)), None);
        assert_eq!(memory.connection([10, 0, 0, 1].into(), dest(443), at(9999)), None);
        memory.left(CLIENT, dest(443), at(10_000), Duration::from_secs(120));
        assert_eq!(memory.connection(CLIENT, dest(443), at(19_999)), Some(None), "there is another one");
        memory.left(CLIENT, dest(443), at(20_000), Duration::from_secs(120));
        assert_eq!(memory.connection(CLIENT, dest(443), at(20_119)), Some(None));
        assert_eq!(memory.connection(CLIENT, dest(443), at(20_120)), None);
    }

    #[test]
    fn what_was_heard_of_longest_ago_is_forgotten() {
        let now = Instant::now();
        let memory = Memory::new(now - GRACE);
        let dests = || (0..u16::MAX).map(dest);
        for dest in dests() {
            memory.let_in(CLIENT, dest, None, now);
        }
        let known = dests().filter(|dest| memory.connection(CLIENT, *dest, now).is_some()).count();
        assert_eq!(known, MAX_OF_CLIENT);
        assert!(memory.connection(CLIENT, dest(u16::MAX - 1), now).is_some());
        // The same for clients.
        let clients = || (0..=u16::MAX).map(|n| IpAddr::from((u32::from(n)).to_be_bytes()));
        for client in clients() {
            memory.let_in(client, dest(443), None, now);
        }
        let known = clients().filter(|client| memory.connection(*client, dest(443), now).is_some()).count();
        assert!((MAX_CONNECTIONS..=2 * MAX_CONNECTIONS).contains(&known), "{known}");
    }

    #[test]
    fn a_client_with_many_connections_costs_no_other_client_one() {
        let now = Instant::now();
        let memory = Memory::new(now - GRACE);
        let other = IpAddr::from([192, 168, 1, 21]);
        memory.let_in(other, dest(443), None, now);
        for dest in (0..u16::MAX).map(dest) {
            memory.let_in(CLIENT, dest, None, now);
        }
        assert!(memory.connection(other, dest(443), now).is_some());
    }

    #[test]
    fn public_names_hold_for_their_time_and_for_whom_they_were_told() {
        let now = Instant::now();
        let memory = Memory::new(now);
        let told = |name: &str, ttl_secs| {
            let public_names = vec![Box::from(name)];
            [Published { owner: "www.example.com".into(), public_names, ttl_secs }]
        };
        let known = |name: &str, secs| memory.is_public_name(CLIENT, name, now + Duration::from_secs(secs));
        memory.published(CLIENT, &told("Public.Example.", 300), now);
        memory.published(CLIENT, &told("short.example", 1), now);
        memory.published(CLIENT, &told("long.example", u32::MAX), now);
        assert!(known("public.example", 299) && !known("public.example", 300));
        assert!(known("short.example", 59) && !known("short.example", 60));
        assert!(known("long.example", 86_399) && !known("long.example", 86_400));
        assert!(!known("www.example.com", 0));
        assert!(!memory.is_public_name([10, 0, 0, 1].into(), "public.example", now));
        // The oldest make room.
        for i in 0..MAX_NAMES {
            memory.published(CLIENT, &told(&format!("{i}.example"), 300), now);
        }
        assert!(!known("public.example", 0) && known("0.example", 0) && known("31.example", 0));
    }
}
