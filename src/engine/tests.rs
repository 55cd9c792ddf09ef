//! One worker on loopback with real clients and servers: what only the engine can get wrong.

mod limits;
mod reviews;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{self, LoadOptions, Plan};
use crate::decide::rules::Locals;
use crate::metrics::Metrics;
use crate::session::{Memory, Nowhere, Session, Surroundings};
#[cfg(feature = "tls")]
use crate::sys::limits::Descriptors;
use crate::sys::socket::{Outgoing, reset_on_close};

/// Longer than anything takes that happens at all, shorter than any time limit that could hide that it did not.
const NEVER: Duration = Duration::from_secs(5);

/// A worker with one listener.
struct Running {
    worker: Handle<Plan>,
    addr: SocketAddr,
    metrics: Arc<Metrics>,
}

/// Starts a worker on `listener`, the inside of a YAML map, with the settings of the lines in `settings`.
fn start(listener: &str, settings: &str) -> Running {
    start_after(listener, settings, |_, _, _| {})
}

/// The same, after `first`: clients may connect to the address already, and what the worker is told it hears in one go.
fn start_after(
    listener: &str,
    settings: &str,
    first: impl FnOnce(&Handle<Plan>, SocketAddr, Arc<Plan>),
) -> Running {
    start_in(Arc::new(Nowhere), listener, settings, first)
}

/// The same, in these surroundings.
fn start_in(
    surroundings: Arc<dyn Surroundings>,
    listener: &str,
    settings: &str,
    first: impl FnOnce(&Handle<Plan>, SocketAddr, Arc<Plan>),
) -> Running {
    let text =
        format!("listen: [{{ {listener}, ip6: [], port: 1 }}]\noutput: {{ allowLocal: true }}\n{settings}\n");
    let loaded = config::load(&text, Path::new("test.yml"), LoadOptions::default());
    let mut plan = loaded.unwrap_or_else(|problems| panic!("{problems}")).plan;
    // One that is free: the system chooses.
    plan.service.listeners[0].addr.set_port(0);
    let plan = Arc::new(plan);
    let bindings = vec![bind(&plan.service.listeners[0], 1).unwrap()];
    let addr = bindings[0].sockets[0].local_addr().unwrap();
    let (mut worker, prepared) = prepare().unwrap();
    let answers = worker.another();
    let verified = worker.another();
    let resolver = resolver::start(
        resolver::ResolverConfig {
            nameservers: Vec::new(),
            timeout: plan.service.timeouts.dns_lookup,
            outgoing: Outgoing::default(),
        },
        Box::new(move |answer| answers.tell(Command::Answer(answer))),
    )
    .unwrap();
    let metrics = Arc::new(Metrics::new());
    let limits = Effective::of(plan.service.limits, 1024);
    let shared = Arc::new(Shared {
        metrics: Arc::clone(&metrics),
        admission: Admission::new(limits),
        resolver: Some(resolver),
        verifier: verifier::Verifier::new(move |answer| verified.tell(Command::Verified(answer))),
        surroundings,
        #[cfg(feature = "tls")]
        prober: prober(&metrics, &worker),
        dialled: Dialled::new(1),
        sent: Dialled::new(1),
        memory: Memory::new(Instant::now()),
    });
    let locals = Arc::new(Locals { addrs: Vec::new(), tcp_ports: vec![addr.port()], allow_local: true });
    let listeners = share_out(bindings, 1).remove(0);
    worker.tell(Command::Plan(Arc::clone(&plan), listeners));
    first(&worker, addr, Arc::clone(&plan));
    spawn::<Session>(0, &mut worker, prepared, shared, plan, locals).unwrap();
    Running { worker, addr, metrics }
}

/// No rule of these tests asks for a certificate.
#[cfg(feature = "tls")]
fn prober(metrics: &Arc<Metrics>, worker: &Handle<Plan>) -> prober::Prober {
    let asker = worker.another();
    let surroundings = prober::Surroundings {
        deliver: Box::new(move |answer| asker.tell(Command::Probed(answer))),
        metrics: Arc::clone(metrics),
        dialled: Dialled::new(1),
        descriptors: Arc::new(Descriptors::new(1)),
        clock: || 0,
    };
    prober::Prober::new(None, surroundings)
}

impl Running {
    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.addr).unwrap())
    }

    /// Waits until the metrics say this.
    fn counts(&self, line: &str) {
        let until = Instant::now() + NEVER;
        while !self.metrics.render().lines().any(|l| l == line) {
            assert!(Instant::now() < until, "no {line} in\n{}", self.metrics.render());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the worker now and says how many connections it still counts.
    fn stop(self) -> u32 {
        self.worker.tell(Command::Drain(Instant::now()));
        self.worker.join();
        self.metrics.current_connections()
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(NEVER)).unwrap();
    stream
}

/// Reads a message's head.
fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend(byte);
    }
    String::from_utf8(bytes).unwrap()
}

/// Whether the peer of `stream` has let go of the connection, by an end or by a reset.
fn is_let_go(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

const ACCEPT_ALL: &str = "rules: [{ action: accept }]";

#[test]
fn a_client_that_was_told_and_lingers_is_closed_once() {
    let running = start("mode: http", "rules: [{ action: deny }]");
    let mut client = running.connect();
    client.write_all(b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 403"));
    assert_eq!(running.stop(), 0);
}

/// More than one turn accepts. Where the listener is gone for good and where the daemon stops, a client whose connection
/// stands cannot know that nobody has looked at it yet.
#[test]
fn who_waits_at_a_listener_is_served_before_it_is_closed() {
    const WAITING: usize = 100;
    for stops in [false, true] {
        let mut clients = Vec::new();
        let settings = format!("limits: {{ perSource: {WAITING} }}\nrules: [{{ action: deny }}]");
        let running = start_after("mode: http", &settings, |worker, addr, plan| {
            for _ in 0..WAITING {
                let mut client = patient(TcpStream::connect(addr).unwrap());
                client.write_all(b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                clients.push(client);
            }
            worker.tell(if stops {
                Command::Drain(Instant::now() + NEVER)
            } else {
                Command::Plan(plan, Vec::new())
            });
        });
        for client in &mut clients {
            assert!(head(client).starts_with("HTTP/1.1 403"));
        }
        assert!(TcpStream::connect(running.addr).is_err());
        drop(clients);
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn a_stop_waits_for_a_first_request_and_for_no_further_one() {
    let running = start("mode: http", "rules: [{ action: deny }]");
    let request = b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut fresh, mut served) = (running.connect(), running.connect());
    served.write_all(request).unwrap();
    assert!(head(&mut served).starts_with("HTTP/1.1 403"));
    running.counts("calamary_current_connections 2");
    running.worker.tell(Command::Drain(Instant::now() + NEVER));
    served.read_to_end(&mut Vec::new()).unwrap();
    running.counts("calamary_current_connections 1");
    fresh.write_all(request).unwrap();
    assert!(head(&mut fresh).starts_with("HTTP/1.1 403"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_client_that_gives_up_does_not_leave_its_server_waiting() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = running.connect();
    let url = format!("http://{}/poll", origin.local_addr().unwrap());
    client.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    reset_on_close(&client).unwrap();
    drop(client);
    assert!(is_let_go(server));
    running.counts("calamary_closed{reason=\"client_reset\"} 1");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_client_that_only_ends_its_side_gets_its_answer() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = running.connect();
    let url = format!("http://{}/", origin.local_addr().unwrap());
    client.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    std::thread::sleep(Duration::from_millis(100));
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 204"));
    assert!(is_let_go(client) && is_let_go(server));
    running.counts("calamary_closed{reason=\"finished\"} 1");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_server_that_ends_a_kept_connection_is_let_go() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = running.connect();
    let url = format!("http://{}/", origin.local_addr().unwrap());
    client.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    head(&mut client);
    server.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_let_go(server), "a descriptor is kept for nothing");
    // The client may go on.
    client.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 204"));
    assert_eq!(running.stop(), 0);
}

/// It may have been on its way to closing: the client, who had an answer on this connection already, repeats its request.
#[test]
fn a_kept_server_that_closes_without_an_answer_closes_the_client_without_one() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: a\r\n\r\n", origin.local_addr().unwrap());
    let mut client = running.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    head(&mut client);
    client.write_all(request.as_bytes()).unwrap();
    head(&mut server);
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
    // On a fresh connection it is the server's fault.
    let mut client = running.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    drop(server);
    assert!(head(&mut client).starts_with("HTTP/1.1 502"));
    running.counts("calamary_closed{reason=\"server_reset\"} 2");
    assert_eq!(running.stop(), 0);
}

#[test]
fn lookups_are_counted_with_what_became_of_them() {
    let running = start("mode: http", ACCEPT_ALL);
    let mut client = running.connect();
    client.write_all(b"GET http://localhost:1/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    head(&mut client);
    running.counts("calamary_dns_lookups 1");
    running.counts("calamary_dns_answers 1");
    running.counts("calamary_dns_failures 0");
    assert_eq!(running.stop(), 0);
}

#[test]
fn one_source_too_many_behind_a_proxy_header_is_counted() {
    let running =
        start("mode: proxyproto", "rules: [{ action: accept, protoL5: tls }]\nlimits: { perSource: 1 }");
    let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n";
    let mut first = running.connect();
    first.write_all(header).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut second = running.connect();
    second.write_all(header).unwrap();
    assert!(is_let_go(second));
    running.counts("calamary_refused{limit=\"per_source\"} 1");
    drop(first);
    assert_eq!(running.stop(), 0);
}

/// A pipeline to a server that answers at once, as deep as one read takes: served one by one, not one inside the other.
#[test]
fn a_long_pipeline_is_served_in_order() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = origin.local_addr().unwrap();
    let requests = 500;
    let serving = std::thread::spawn(move || {
        let mut server = patient(origin.accept().unwrap().0);
        server.set_nodelay(true).unwrap();
        for at in 0..requests {
            let head = head(&mut server);
            assert!(head.starts_with(&format!("GET /{at} ")), "{head}");
            server.write_all(format!("HTTP/1.1 204 No Content\r\nX-At: {at}\r\n\r\n").as_bytes()).unwrap();
        }
    });
    let mut client = running.connect();
    let all: String =
        (0..requests).map(|at| format!("GET http://{addr}/{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.write_all(all.as_bytes()).unwrap();
    for at in 0..requests {
        let head = head(&mut client);
        assert!(head.contains(&format!("X-At: {at}\r\n")), "{head}");
    }
    serving.join().unwrap();
    assert_eq!(running.stop(), 0);
}

/// The client ends its side in the middle of a download at full speed, and then the server falls silent: whatever the
/// turn in which the end was passed on was busy with, `halfClosed` counts.
#[test]
fn a_half_close_in_a_busy_turn_starts_the_clock() {
    let running = start("mode: http", &format!("timeout: {{ halfClosed: 300 }}\n{ACCEPT_ALL}"));
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    for round in 0..3 {
        let mut client = running.connect();
        let connect = format!("CONNECT {} HTTP/1.1\r\nHost: a\r\n\r\n", origin.local_addr().unwrap());
        client.write_all(connect.as_bytes()).unwrap();
        let mut server = patient(origin.accept().unwrap().0);
        head(&mut client);
        let serving = std::thread::spawn(move || {
            let piece = vec![0; 256 * 1024];
            for _ in 0..128 {
                server.write_all(&piece).unwrap();
            }
            server
        });
        let mut buffer = vec![0; 1024 * 1024];
        let (mut got, all) = (0, 128 * 256 * 1024);
        while got < all {
            got += client.read(&mut buffer).unwrap();
            if got > all / 4 {
                let _ = client.shutdown(std::net::Shutdown::Write);
            }
        }
        let silent = serving.join().unwrap();
        assert!(is_let_go(client), "round {round}");
        drop(silent);
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_kept_connection_does_not_hold_up_the_end() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = running.connect();
    let url = format!("http://{}/", origin.local_addr().unwrap());
    client.write_all(format!("GET {url} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    head(&mut server);
    let begun = Instant::now();
    running.worker.tell(Command::Drain(begun + 2 * NEVER));
    std::thread::sleep(Duration::from_millis(100));
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert!(head(&mut client).starts_with("HTTP/1.1 204"), "what is under way may finish");
    assert!(is_let_go(client));
    running.worker.join();
    assert!(begun.elapsed() < NEVER, "there was nothing to wait for");
    assert_eq!(running.metrics.current_connections(), 0);
}

#[test]
fn the_answer_to_a_connect_is_not_what_the_server_sent() {
    let running = start("mode: http", ACCEPT_ALL);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = running.connect();
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: a\r\n\r\n", origin.local_addr().unwrap());
    client.write_all(connect.as_bytes()).unwrap();
    let mut server = patient(origin.accept().unwrap().0);
    assert!(head(&mut client).starts_with("HTTP/1.1 200"));
    server.write_all(b"SSH-2.0-x\r\n").unwrap();
    drop(server);
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    drop(client);
    running.counts("calamary_closed{reason=\"finished\"} 1");
    running.counts("calamary_bytes_rcv 11");
    assert_eq!(running.stop(), 0);
}
