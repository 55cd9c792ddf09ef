//! What all sessions together remember of clients, over all workers: which QUIC connections were let in, and which public
//! names of Encrypted ClientHello they were told.
//!
//! What one client does or asks for changes nothing for another. A client whose address or port changes goes on in the middle of its connection (RFC 9000 §9), with packets that tell
//! nothing. It is let in by what is remembered of the beginning. Times are arguments; everything is bounded, and what is
//! forgotten for want of room is what was heard of longest ago.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::decide::name;
use crate::wire::dns::ech::Published;
use crate::wire::tls::ClientHello;

/// Clients' connections that are remembered, at most twice as many.
const MAX_CONNECTIONS: usize = 1024;

/// How long after a start a connection may be one that was let in before it.
const GRACE: Duration = Duration::from_secs(60);

/// Clients of which public names are remembered, at most twice as many.
const MAX_CLIENTS: usize = 1024;

/// Public names of one client; beyond, the oldest are forgotten.
const MAX_NAMES: usize = 32;

/// How long a public name holds at most, and at least: a client that was told with a shorter TTL connects a moment later.
const MAX_NAME_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MIN_NAME_TTL: Duration = Duration::from_secs(60);

/// A client, and where it has a QUIC connection.
type Pair = (IpAddr, SocketAddr);

/// What is remembered.
#[derive(Debug)]
pub struct Memory {
    started: Instant,
    connections: Mutex<Generations<Pair, Connection>>,
    public_names: Mutex<Generations<IpAddr, Vec<PublicName>>>,
}

/// A public name that a client was told, as [`name::normalise`] leaves it, and how long it holds.
type PublicName = (Box<str>, Instant);

/// How a QUIC connection began that was let in.
#[derive(Debug, Clone)]
struct Connection {
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
        let flows = connections.remove(&(client, dest)).map_or(0, |known| known.flows);
        let hello = hello.cloned().map(Box::new);
        let connection = Connection { hello, flows: flows.saturating_add(1), until: now };
        connections.insert((client, dest), connection, MAX_CONNECTIONS);
    }

    /// A flow with such a connection has ended; it is remembered for `lifetime`.
    pub(super) fn left(&self, client: IpAddr, dest: SocketAddr, now: Instant, lifetime: Duration) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut connection) = connections.remove(&(client, dest)) {
            connection.flows = connection.flows.saturating_sub(1);
            connection.until = now + lifetime;
            connections.insert((client, dest), connection, MAX_CONNECTIONS);
        }
    }

    /// How the connection began that `client` has, or just had, to `dest`. Outside `None` for none; inside it for one that
    /// told nothing, or that may have begun before this program did.
    pub(super) fn connection(
        &self,
        client: IpAddr,
        dest: SocketAddr,
        now: Instant,
    ) -> Option<Option<Box<ClientHello>>> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let known = connections.get(&(client, dest)).filter(|known| known.flows > 0 || now < known.until);
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
        let mut names = clients.remove(&client).unwrap_or_default();
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
        clients.insert(client, names, MAX_CLIENTS);
    }

    /// Whether `client` was told that `name`, as [`name::normalise`] leaves it, is a public name.
    pub(super) fn is_public_name(&self, client: IpAddr, name: &str, now: Instant) -> bool {
        let mut clients = self.public_names.lock().unwrap_or_else(PoisonError::into_inner);
        let names = clients.get(&client).map(Vec::as_slice).unwrap_or_default();
        names.iter().any(|(known, until)| **known == *name && now < *until)
    }
}

/// A map that forgets: when the young ones are too many they become the old ones, and the old ones are dropped.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Generations { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq, V> Generations<K, V> {
    fn get(&mut self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (young, old) = (self.young.remove(key), self.old.remove(key));
        young.or(old)
    }

    fn insert(&mut self, key: K, value: V, most: usize) {
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
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
        assert!((MAX_CONNECTIONS..=2 * MAX_CONNECTIONS).contains(&known), "{known}");
        assert!(memory.connection(CLIENT, dest(u16::MAX - 1), now).is_some());
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
