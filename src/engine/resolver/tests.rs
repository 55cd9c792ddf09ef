use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::connect::resolve::MAX_LOOKUPS_PER_SOURCE;
use crate::wire::dns::testing::{Reply, TRUNCATED};
use crate::wire::dns::{TYPE_A, TYPE_AAAA, parse_query};

/// For what must happen, however slow the machine.
const SOON: Duration = Duration::from_secs(20);
/// For servers that answer: too long to be mistaken for an answer.
const PATIENT: Duration = Duration::from_secs(15);
/// For servers that don't.
const IMPATIENT: Duration = Duration::from_millis(500);

const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;

/// What a server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    qtype: u16,
    tcp: bool,
    from: SocketAddr,
    id: u16,
}

/// A nameserver on loopback, over UDP and TCP. Its threads end with the process.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` gets a query and whether it came over TCP, and says what to send.
    fn start(answer: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Another test may hold the port over TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let server = Server { addr: udp.local_addr().unwrap(), asked: Arc::default() };
        let answer = Arc::new(answer);
        let note = {
            let asked = server.asked.clone();
            move |query: &[u8], tcp, from| {
                let query = parse_query(query).unwrap();
                asked.lock().unwrap().push(Asked { qtype: query.qtype, tcp, from, id: query.id });
            }
        };
        let (answer_udp, note_udp) = (answer.clone(), note.clone());
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                note_udp(&buffer[..length], false, from);
                for message in answer_udp(&buffer[..length], false) {
                    udp.send_to(&message, from).unwrap();
                }
            }
        });
        thread::spawn(move || {
            use std::io::{Read, Write};
            while let Ok((mut stream, from)) = tcp.accept() {
                let mut prefix = [0; 2];
                stream.read_exact(&mut prefix).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(prefix))];
                stream.read_exact(&mut query).unwrap();
                note(&query, true, from);
                for message in answer(&query, true) {
                    stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
                    // In two parts: a message need not come whole.
                    let (head, tail) = message.split_at(message.len() / 2);
                    stream.write_all(head).unwrap();
                    thread::sleep(Duration::from_millis(10));
                    stream.write_all(tail).unwrap();
                }
            }
        });
        server
    }

    /// Answers everything the same.
    fn with(reply: Reply) -> Self {
        Server::start(move |query, _| vec![reply.to(query)])
    }

    fn silent() -> Self {
        Server::start(|_, _| Vec::new())
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// An address that nobody listens on.
fn closed_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A session of one client.
fn asker(worker: usize, token: usize) -> Asker {
    Asker { worker, token, source: [192, 168, 1, 20].into() }
}

/// A running resolver and its answers.
struct Client {
    handle: ResolverHandle,
    answers: Receiver<Answer>,
}

impl Client {
    fn new(nameservers: &[SocketAddr], timeout: Duration) -> Self {
        Client::with_hosts(nameservers, timeout, Path::new("/nonexistent/hosts"))
    }

    fn with_hosts(nameservers: &[SocketAddr], timeout: Duration, hosts: &Path) -> Self {
        let config =
            ResolverConfig { nameservers: nameservers.to_vec(), timeout, outgoing: Outgoing::default() };
        let (deliver, answers) = mpsc::channel();
        let handle = start_with_hosts(config, Box::new(move |answer| drop(deliver.send(answer))), hosts);
        Client { handle: handle.unwrap(), answers }
    }

    #[track_caller]
    fn answer(&self) -> Answer {
        self.answers.recv_timeout(SOON).expect("an answer")
    }

    /// One lookup as text.
    #[track_caller]
    fn resolve(&self, name: &str) -> String {
        let asker = asker(3, 77);
        self.handle.lookup(name, asker).unwrap();
        let answer = self.answer();
        assert_eq!(answer.asker, asker);
        match answer.result {
            Ok(addrs) => addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error:?}"),
        }
    }
}

fn good() -> Reply {
    Reply::addrs(&["192.0.2.1", "2001:db8::1"], 60)
}

const GOOD: &str = "2001:db8::1 192.0.2.1";

#[test]
fn servers_are_asked_in_order() {
    #[track_caller]
    fn check(first: Reply, expected: &str, second_is_asked: bool) {
        let (first, second) = (Server::with(first), Server::with(good()));
        let client = Client::new(&[first.addr, second.addr], PATIENT);
        assert_eq!(client.resolve("example.com"), expected);
        assert!(!first.asked().is_empty());
        assert_eq!(!second.asked().is_empty(), second_is_asked);
    }
    check(Reply::addrs(&["192.0.2.9"], 60), "192.0.2.9", false);
    check(Reply::flags(NXDOMAIN), "NotFound", false);
    check(Reply::flags(0), "NotFound", false);
    check(Reply::flags(SERVFAIL), GOOD, true);
    check(Reply::flags(5), GOOD, true);
}

#[test]
fn after_a_silent_server_the_next_is_asked() {
    let (first, second) = (Server::silent(), Server::with(good()));
    let client = Client::new(&[first.addr, second.addr], IMPATIENT);
    assert_eq!(client.resolve("example.com"), GOOD);
    assert!(first.asked().len() >= 2 && second.asked().len() >= 2);
    let client = Client::new(&[first.addr], IMPATIENT);
    assert_eq!(client.resolve("example.com"), "Failed");
}

#[test]
fn a_lost_datagram_costs_half_of_the_servers_time() {
    let count = AtomicU32::new(0);
    let server = Server::start(move |query, _| {
        let lost = count.fetch_add(1, Ordering::Relaxed) < 2;
        if lost { Vec::new() } else { vec![good().to(query)] }
    });
    assert_eq!(Client::new(&[server.addr], Duration::from_secs(2)).resolve("example.com"), GOOD);
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[0], asked[2], "from the same port with the same id");
}

#[test]
fn a_closed_port_is_noticed_at_once() {
    let server = Server::with(good());
    let client = Client::new(&[closed_port(), server.addr], PATIENT);
    let before = Instant::now();
    assert_eq!(client.resolve("example.com"), GOOD);
    assert!(before.elapsed() < PATIENT);
    let client = Client::new(&[closed_port()], PATIENT);
    assert_eq!(client.resolve("example.com"), "Failed");
    assert_eq!(client.handle.counts().timeouts, 0);
}

#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    let server = Server::with(good());
    // Connecting a UDP socket to a broadcast address is refused without SO_BROADCAST.
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 53));
    let client = Client::new(&[broadcast, server.addr], PATIENT);
    assert_eq!(client.resolve("example.com"), GOOD);
}

#[test]
fn truncated_answers_are_fetched_over_tcp() {
    // More than one read's worth.
    let many: Vec<String> = (1..=200).map(|n| format!("192.0.2.{n}")).collect();
    let many = Reply::addrs(&many.iter().map(String::as_str).collect::<Vec<_>>(), 60);
    let server = Server::start(move |query, tcp| {
        vec![if tcp { many.to(query) } else { Reply::flags(TRUNCATED).to(query) }]
    });
    let client = Client::new(&[server.addr], PATIENT);
    assert!(client.resolve("example.com").starts_with("192.0.2.1 192.0.2.2 "));
    let over_tcp = |qtype| server.asked().iter().filter(|a| a.tcp && a.qtype == qtype).count();
    assert_eq!((over_tcp(TYPE_A), over_tcp(TYPE_AAAA)), (1, 1));
}

#[test]
fn forged_answers_are_ignored() {
    let server = Server::start(|query, _| {
        let forged = Reply::addrs(&["192.0.2.66", "2001:db8::66"], 60).to(query);
        let changed = |at: usize| {
            let mut message = forged.clone();
            message[at] ^= 1;
            message
        };
        // The id, the name; then bytes that are nothing.
        vec![changed(0), changed(14), vec![0xff; 5], good().to(query)]
    });
    let client = Client::new(&[server.addr], PATIENT);
    assert_eq!(client.resolve("example.com"), GOOD);
}

#[test]
fn a_flood_of_forgeries_ends_the_query() {
    let flood = Server::start(|query, _| {
        let mut message = good().to(query);
        message[0] ^= 1;
        vec![message; 2 * 32]
    });
    let server = Server::with(good());
    let client = Client::new(&[flood.addr, server.addr], PATIENT);
    let before = Instant::now();
    assert_eq!(client.resolve("example.com"), GOOD);
    assert!(before.elapsed() < PATIENT);
}

#[test]
fn aliases_are_followed() {
    let server = Server::with(Reply { alias: Some("cdn.example.net"), ..good() });
    assert_eq!(Client::new(&[server.addr], PATIENT).resolve("example.com"), GOOD);
}

#[test]
fn a_hundred_lookups_are_two_queries() {
    // The server answers when all lookups are on their way.
    let asked = Arc::new(AtomicU32::new(0));
    let gate = asked.clone();
    let server = Server::start(move |query, _| {
        while gate.load(Ordering::Relaxed) < 100 {
            thread::yield_now();
        }
        vec![good().to(query)]
    });
    let client = Client::new(&[server.addr], PATIENT);
    for token in 0..100 {
        client.handle.lookup("example.com", asker(0, token)).unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
    }
    let mut tokens: Vec<usize> = (0..100).map(|_| client.answer().asker.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>());
    let mut types: Vec<u16> = server.asked().iter().map(|a| a.qtype).collect();
    types.sort_unstable();
    assert_eq!(types, [TYPE_A, TYPE_AAAA]);
    assert_eq!(client.resolve("example.com"), GOOD);
    assert_eq!(server.asked().len(), 2, "the cache answers");
}

#[test]
fn an_answer_is_kept_for_its_time() {
    let server = Server::with(Reply { ttl_secs: 1, ..good() });
    let client = Client::new(&[server.addr], PATIENT);
    client.handle.lookup("example.com", asker(0, 0)).unwrap();
    let valid_until = client.answer().valid_until;
    assert_eq!(client.resolve("example.com"), GOOD);
    assert_eq!(server.asked().len(), 2);
    thread::sleep(valid_until.saturating_duration_since(Instant::now()));
    assert_eq!(client.resolve("example.com"), GOOD);
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn every_query_has_its_own_port_and_id() {
    let server = Server::with(good());
    let client = Client::new(&[server.addr], PATIENT);
    for n in 0..10 {
        assert_eq!(client.resolve(&format!("host{n}.example")), GOOD);
    }
    let asked = server.asked();
    let distinct = |values: Vec<u16>| values.into_iter().collect::<std::collections::HashSet<_>>().len();
    // By chance some may be equal; a fixed or counted one is far below.
    assert!(distinct(asked.iter().map(|a| a.from.port()).collect()) > 10);
    assert!(distinct(asked.iter().map(|a| a.id).collect()) > 15);
    let steps = asked.windows(2).map(|w| w[1].id.wrapping_sub(w[0].id)).collect();
    assert!(distinct(steps) > 15);
}

#[test]
fn new_settings_and_no_nameservers() {
    let (first, second) = (Server::with(good()), Server::with(Reply::addrs(&["192.0.2.9"], 60)));
    let client = Client::new(&[first.addr], PATIENT);
    assert_eq!(client.resolve("a.example"), GOOD);
    let config = |nameservers: Vec<SocketAddr>| ResolverConfig {
        nameservers,
        timeout: PATIENT,
        outgoing: Outgoing::default(),
    };
    client.handle.reconfigure(config(vec![second.addr]));
    assert_eq!(client.resolve("b.example"), "192.0.2.9");
    assert_eq!(client.resolve("a.example"), "192.0.2.9", "what the other nameserver said stays");
    // This form of an address is none to us, but getaddrinfo knows it and asks nobody.
    client.handle.reconfigure(config(Vec::new()));
    assert_eq!(client.resolve("127.1"), "127.0.0.1");
    assert_eq!(client.handle.counts().system, 1);
}

#[test]
fn the_hosts_file_comes_before_the_nameservers() {
    let path = std::env::temp_dir().join(format!("calamary-resolver-hosts-{}", std::process::id()));
    std::fs::write(&path, "192.0.2.77 nas.lan nas # the box\n").unwrap();
    let server = Server::with(good());
    let client = Client::with_hosts(&[server.addr], PATIENT, &path);
    assert_eq!(client.resolve("NAS.lan"), "192.0.2.77");
    assert!(server.asked().is_empty());
    assert_eq!(client.resolve("box.lan"), GOOD);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_overlong_name_does_not_even_get_to_the_thread() {
    let client = Client::new(&[closed_port()], PATIENT);
    let asker = asker(0, 0);
    assert_eq!(client.handle.lookup(&"a".repeat(1000), asker), Err(ResolveError::NotFound));
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let client = Client::new(&[closed_port()], PATIENT);
    let Client { handle, answers } = client;
    drop(handle.clone());
    handle.lookup("192.0.2.1", asker(0, 0)).unwrap();
    assert!(answers.recv_timeout(SOON).is_ok());
    drop(handle);
    assert_eq!(answers.recv_timeout(SOON).err(), Some(mpsc::RecvTimeoutError::Disconnected));
}

/// Names whose server is silent were everybody's trouble.
#[test]
fn the_slow_names_of_one_client_do_not_stop_another() {
    let server = Server::start(|query, _| {
        let slow = parse_query(query).unwrap().name.starts_with("slow");
        if slow { Vec::new() } else { vec![good().to(query)] }
    });
    let client = Client::new(&[server.addr], PATIENT);
    let greedy = |token| Asker { source: [192, 168, 1, 66].into(), ..asker(0, token) };
    for n in 0..MAX_LOOKUPS_PER_SOURCE {
        client.handle.lookup(&format!("slow{n}.example"), greedy(n)).unwrap();
    }
    client.handle.lookup("quick.example", greedy(usize::MAX)).unwrap();
    let refused = client.answer();
    assert_eq!((refused.asker.token, refused.result), (usize::MAX, Err(ResolveError::Failed)));
    assert_eq!(client.resolve("example.com"), GOOD);
}
