//! The servers that take a redirector's connections: which of them answer, and in which order a client tries them.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Counter;

/// The time between two lines about one server that comes and goes.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// As many lines as [`LINE_EVERY`] goes into this may come at once: an end and a return are told when they happen.
const LINES_AHEAD: Duration = Duration::from_secs(90);

/// Which server a client goes to (`select`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The first in the order of the configuration that answers.
    First,
    /// One by the client's address, so that each client keeps its server and the end of one server moves its clients only.
    Spread,
}

/// One server. It is checked by a thread of its own, and a connection that it does not take tells something, too. One that
/// it takes does not: the kernel takes it even if the process hangs.
#[derive(Debug)]
pub struct Server {
    name: Box<str>,
    health: Mutex<Health>,
    connections: Counter,
    failures: Counter,
}

#[derive(Debug)]
struct Health {
    /// What the name means, or meant when that could be found out last.
    address: Option<SocketAddr>,
    standing: Standing,
    /// What the log says that it is.
    logged: Standing,
    /// How often that has changed since.
    changes: u32,
    /// When the lines so far are paid for, one each [`LINE_EVERY`].
    lines_until: Option<Instant>,
}

/// Whether a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has tried yet.
    Unknown,
    /// The last attempt succeeded.
    Up,
    /// The last attempt failed.
    Down,
}

impl Standing {
    /// The log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Unknown => "not checked yet",
            Standing::Up => "up",
            Standing::Down => "down",
        }
    }
}

impl Server {
    /// The server that the configuration calls `name`; a name of the DNS gets its `address` from the first check.
    pub fn new(name: &str, address: Option<SocketAddr>) -> Self {
        Server {
            name: name.into(),
            health: Mutex::new(Health {
                address,
                standing: Standing::Unknown,
                logged: Standing::Unknown,
                changes: 0,
                lines_until: None,
            }),
            connections: Counter::default(),
            failures: Counter::default(),
        }
    }

    /// `host:port`, as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it answers.
    pub fn standing(&self) -> Standing {
        self.health().standing
    }

    /// Clients' connections that it took.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// Checks and clients' connections that it did not take.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// It answered a check under this address.
    pub fn answered(&self, address: SocketAddr, now: Instant) {
        let mut health = self.health();
        health.address = Some(address);
        let changes = health.becomes(Standing::Up, now);
        drop(health);
        if let Some(changes) = changes {
            log::info!("{} is up again{}", self.name, Changes(changes));
        }
    }

    /// It took a client's connection.
    pub fn took(&self) {
        self.connections.add(1);
    }

    /// It did not answer a check or take a client's connection, or its name means nothing.
    pub fn failed(&self, why: &str, now: Instant) {
        self.failures.add(1);
        let changes = self.health().becomes(Standing::Down, now);
        if let Some(changes) = changes {
            log::warn!("{} is down: {why}{}", self.name, Changes(changes));
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // A state that a panicking thread left behind is still a state.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Takes in how the server is. If there is a line to be written now: how often that has changed since the last one.
    fn becomes(&mut self, standing: Standing, now: Instant) -> Option<u32> {
        if self.standing != standing {
            self.standing = standing;
            self.changes = self.changes.saturating_add(1);
        }
        let first = self.logged == Standing::Unknown && standing == Standing::Up;
        let paid = self.lines_until.map_or(now, |until| until.max(now));
        if self.logged == standing || paid.saturating_duration_since(now) > LINES_AHEAD {
            return None;
        }
        self.logged = standing;
        let changes = std::mem::take(&mut self.changes);
        if first {
            return None;
        }
        self.lines_until = paid.checked_add(LINE_EVERY);
        Some(changes)
    }
}

/// What a line says of changes that had none.
struct Changes(u32);

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " ({} changes since the last line)", self.0) } else { Ok(()) }
    }
}

/// All servers of a configuration.
#[derive(Debug)]
pub struct Servers {
    list: Vec<Arc<Server>>,
    select: Select,
}

impl Servers {
    /// In the order of the configuration.
    pub fn new(list: Vec<Server>, select: Select) -> Self {
        Servers { list: list.into_iter().map(Arc::new).collect(), select }
    }

    /// Goes on with what `old` knows of the same servers: a reload forgets nothing.
    pub fn inherit(&mut self, old: &Servers) {
        for server in &mut self.list {
            if let Some(known) = old.list.iter().find(|known| known.name == server.name) {
                *server = Arc::clone(known);
            }
        }
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Server>> {
        self.list.iter()
    }

    /// Whether none is left to hope for.
    pub fn all_down(&self) -> bool {
        self.list.iter().all(|server| server.standing() == Standing::Down)
    }

    /// Where to dial for `client`, best first. Those that are down come last: a server may be back before it is checked.
    pub fn candidates(&self, client: IpAddr) -> Vec<(SocketAddr, Arc<Server>)> {
        let mut servers: Vec<_> = self.list.iter().collect();
        if self.select == Select::Spread {
            servers.sort_by_key(|server| Reverse(weight(client, &server.name)));
        }
        let mut candidates: Vec<(Standing, SocketAddr, &Arc<Server>)> = Vec::with_capacity(servers.len());
        for server in servers {
            let health = server.health();
            if let Some(address) = health.address
                && candidates.iter().all(|(_, other, _)| *other != address)
            {
                candidates.push((health.standing, address, server));
            }
        }
        candidates.sort_by_key(|(standing, ..)| *standing == Standing::Down);
        candidates.into_iter().map(|(_, address, server)| (address, Arc::clone(server))).collect()
    }
}

/// How much `client` belongs to the server of this name, by rendezvous hashing: every client ranks all servers by itself,
/// the same on every machine, and one server less changes nothing about the order of the others.
fn weight(client: IpAddr, name: &str) -> u64 {
    // FNV-1a, and the finalizer of MurmurHash3, without which neighbouring addresses would have neighbouring weights.
    const PRIME: u64 = 0x0100_0000_01b3;
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let of_name = name.as_bytes().iter().fold(BASIS, fold);
    let mut hash = match client.to_canonical() {
        IpAddr::V4(ip) => ip.octets().iter().fold(of_name, fold),
        IpAddr::V6(ip) => ip.octets().iter().fold(of_name, fold),
    };
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(select: Select) -> Servers {
        let server = |port| Server::new(&format!("192.0.2.1:{port}"), Some(([192, 0, 2, 1], port).into()));
        Servers::new([1, 2, 3].map(server).into(), select)
    }

    fn fails(server: &Server) {
        server.failed("refused", Instant::now());
    }

    fn order(servers: &Servers, client: [u8; 4]) -> Vec<u16> {
        servers.candidates(client.into()).iter().map(|(address, _)| address.port()).collect()
    }

    #[test]
    fn the_first_that_is_not_down_comes_first() {
        let servers = servers(Select::First);
        let check = |expected: [u16; 3]| assert_eq!(order(&servers, [10, 0, 0, 1]), expected);
        check([1, 2, 3]);
        fails(&servers.list[0]);
        check([2, 3, 1]);
        fails(&servers.list[1]);
        check([3, 1, 2]);
        fails(&servers.list[2]);
        assert!(servers.all_down());
        check([1, 2, 3]);
        // The kernel takes connections for a process that hangs.
        servers.list[1].took();
        check([1, 2, 3]);
        servers.list[1].answered(([192, 0, 2, 1], 2).into(), Instant::now());
        check([2, 1, 3]);
        assert_eq!((servers.list[1].connections(), servers.list[1].failures()), (1, 1));
    }

    #[test]
    fn clients_are_spread_evenly_and_move_only_if_their_server_ends() {
        let servers = servers(Select::Spread);
        let clients: Vec<[u8; 4]> = (0..3000_u16).map(|n| [10, 0, (n >> 8) as u8, n as u8]).collect();
        let before: Vec<Vec<u16>> = clients.iter().map(|client| order(&servers, *client)).collect();
        for port in 1..=3 {
            let share = before.iter().filter(|order| order[0] == port).count();
            assert!((900..1100).contains(&share), "server {port} has {share} of 3000 clients");
        }
        fails(&servers.list[1]);
        for (client, before) in clients.iter().zip(before) {
            let (first, now) = (before[0], order(&servers, *client)[0]);
            assert_eq!(now, if first == 2 { before[1] } else { first }, "{client:?}");
        }
    }

    #[test]
    fn a_reload_forgets_nothing_about_servers_that_stay() {
        let old = servers(Select::First);
        fails(&old.list[0]);
        let mut new = servers(Select::Spread);
        new.list.remove(1);
        new.inherit(&old);
        let standings: Vec<_> = new.iter().map(|server| server.standing()).collect();
        assert_eq!(standings, [Standing::Down, Standing::Unknown]);
    }

    #[test]
    fn one_that_comes_and_goes_has_a_line_now_and_then_and_the_last_one_is_true() {
        let start = Instant::now();
        let servers = servers(Select::First);
        let mut health = servers.list[0].health();
        let mut at = |seconds: u64, standing| health.becomes(standing, start + Duration::from_secs(seconds));
        assert_eq!(at(0, Standing::Up), None, "a start is no return");
        // An end, a return, and another one are told when they happen.
        for (seconds, standing) in
            [(5, Standing::Down), (10, Standing::Up), (15, Standing::Down), (20, Standing::Up)]
        {
            assert_eq!(at(seconds, standing), Some(1), "{seconds}");
            assert_eq!(at(seconds + 1, standing), None, "no change");
        }
        let mut lines = Vec::new();
        for round in 0..60 {
            let standing = if round % 2 == 0 { Standing::Down } else { Standing::Up };
            lines.extend(at(25 + 5 * round, standing));
        }
        assert_eq!(lines.len(), 10, "one in 30 s: {lines:?}");
        assert!(lines.iter().all(|changes| *changes > 1), "{lines:?}");
        for check in 0..12 {
            at(325 + 5 * check, Standing::Down);
        }
        assert_eq!(health.logged, Standing::Down, "what it is in the end is told");
    }

    /// Two names of one server: it is dialled once.
    #[test]
    fn an_address_is_dialled_once_and_a_name_without_one_not_at_all() {
        let address = Some(([192, 0, 2, 1], 1).into());
        let list =
            vec![Server::new("a:1", address), Server::new("b:1", address), Server::new("unknown:1", None)];
        assert_eq!(order(&Servers::new(list, Select::First), [10, 0, 0, 1]), [1]);
    }
}
