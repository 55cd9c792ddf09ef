//! Admission: how many at once, how many from one source, and what the newest sees beyond.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::client::{Http, expect_bytes, proxy_v2};
use common::daemon::{self, Daemon};
use common::origin::Origin;
use common::{free_port, have, skip, wait_for};

fn start(limits: &str) -> (Daemon, SocketAddr) {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\ndebug: true\noutput: {{allowLocal: true}}\nlimits: {limits}\n\
         rules:\n  - {{action: accept}}\n"
    );
    (Daemon::start(&config, &[port]), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A session from a source address of the header's, which must get in.
fn from(source: &str, proxy: SocketAddr, origin: &Origin) -> TcpStream {
    try_from(source, proxy, origin).unwrap()
}

/// The same where a refusal is expected: the reset may already be there when `connect` returns.
fn try_from(source: &str, proxy: SocketAddr, origin: &Origin) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(common::PATIENCE))?;
    let _ = stream.write_all(&proxy_v2(1, format!("{source}:1").parse().unwrap(), origin.addr, &[]));
    let _ = stream.write_all(b"x");
    Ok(stream)
}

/// Whether such a session gets an answer.
fn is_served(source: &str, proxy: SocketAddr, origin: &Origin) -> bool {
    let mut byte = [0];
    try_from(source, proxy, origin).is_ok_and(|mut stream| matches!(stream.read(&mut byte), Ok(1)))
}

fn works(stream: &mut TcpStream) {
    expect_bytes(stream, b"x");
}

#[test]
fn beyond_connections_the_newest_is_refused_and_the_old_ones_go_on() {
    let (daemon, proxy) = start("{connections: 5, perSource: 5}");
    let origin = Origin::echo("127.0.0.1:0");
    let mut sessions: Vec<TcpStream> =
        (0..5).map(|i| from(&format!("192.0.2.{i}"), proxy, &origin)).collect();
    sessions.iter_mut().for_each(works);
    for _ in 0..20 {
        assert!(!is_served("192.0.2.99", proxy, &origin));
    }
    assert_eq!(origin.accepted(), 5);
    for stream in &mut sessions {
        stream.write_all(b"still").unwrap();
        expect_bytes(stream, b"still");
    }
    // Said once a second at most.
    let said = wait_for("a line about the limit", || {
        Some(daemon.count_log(&["| WARN", "too many connections"])).filter(|n| *n > 0)
    });
    assert!(said <= 10, "{said} lines for 20 refusals:\n{}", daemon.log());
    // A place that becomes free is given away again.
    sessions.pop();
    wait_for("a free place", || is_served("192.0.2.99", proxy, &origin).then_some(()));
}

#[test]
fn per_source_counts_the_proxy_headers_source() {
    let (_daemon, proxy) = start("{connections: 100, perSource: 3}");
    let origin = Origin::echo("127.0.0.1:0");
    let mut greedy: Vec<TcpStream> = (0..3).map(|_| from("192.0.2.1", proxy, &origin)).collect();
    greedy.iter_mut().for_each(works);
    assert!(!is_served("192.0.2.1", proxy, &origin));
    assert_eq!(origin.accepted(), 3);
    // Somebody else is not touched.
    let mut other: Vec<TcpStream> = (0..3).map(|_| from("192.0.2.2", proxy, &origin)).collect();
    other.iter_mut().for_each(works);
}

#[test]
fn more_than_the_descriptors_allow_is_lowered_with_a_warning() {
    let (daemon, proxy) = start("{connections: 100000000}");
    daemon.wait_log(&["| WARN", "connections"]);
    let origin = Origin::echo("127.0.0.1:0");
    works(&mut from("192.0.2.1", proxy, &origin));
}

#[test]
fn running_out_of_descriptors_ends_nothing_that_runs() {
    // A hard limit of 100 descriptors from outside.
    let port = free_port();
    let dir = common::TempDir::new();
    let config = dir.write(
        "config.yml",
        format!(
            "listen:\n  - {{mode: proxyproto, port: {port}}}\nworkers: 1\noutput: {{allowLocal: true}}\n\
             rules:\n  - {{action: accept}}\n"
        ),
    );
    let mut child = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n 100; exec {} -f {}", daemon::PROGRAM, config.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the daemon", || TcpStream::connect(proxy).ok());
    let origin = Origin::echo("127.0.0.1:0");
    let mut first = from("192.0.2.1", proxy, &origin);
    works(&mut first);
    let crowd: Vec<TcpStream> =
        (0..150).filter_map(|i| try_from(&format!("192.0.2.{i}"), proxy, &origin).ok()).collect();
    first.write_all(b"still").unwrap();
    expect_bytes(&mut first, b"still");
    drop(crowd);
    wait_for("service after the crowd", || is_served("192.0.2.200", proxy, &origin).then_some(()));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The machine's descriptors are gone, whoever has them: who waits at the listener is let in later, without anybody else
/// knocking. A denied request needs none but its client's.
#[test]
fn a_listener_rests_while_nothing_can_be_accepted_and_goes_on_by_itself() {
    if !have("prlimit") {
        return skip("needs prlimit");
    }
    let port = free_port();
    let daemon = Daemon::start(
        &format!(
            "listen:\n  - {{mode: http, port: {port}}}\ntimeout: {{process: 60000}}\nlimits: {{perSource: 100}}\n\
             rules:\n  - {{action: deny}}\n"
        ),
        &[port],
    );
    let limit_to = |descriptors: usize| {
        let (pid, limit) = (daemon.pid().to_string(), format!("--nofile={descriptors}:"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    let connect = || Http::connect(("127.0.0.1", port));
    let request = "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut running = connect();
    assert_eq!(running.ask(request).status, 403);
    limit_to(daemon.descriptors());
    // There may be gaps among its descriptors, which the first ones fill.
    let mut crowd = Vec::new();
    wait_for("a listener that rests", || {
        crowd.push(connect());
        daemon.find_log(&["| WARN | cannot accept connections for now: "])
    });
    let mut waiting = connect();
    assert_eq!(running.ask(request).status, 403);
    std::thread::sleep(Duration::from_millis(300));
    limit_to(1000);
    assert_eq!(waiting.ask(request).status, 403);
}

/// Pipes and further attempts to reach a server take descriptors beyond the two that a session is counted with.
#[test]
fn bulk_transfers_leave_descriptors_for_further_clients() {
    let port = free_port();
    let dir = common::TempDir::new();
    let config = dir.write(
        "config.yml",
        format!(
            "listen:\n  - {{mode: proxyproto, ip6: [], port: {port}}}\nworkers: 1\noutput: {{allowLocal: true}}\n\
             limits: {{perSource: 100}}\nrules:\n  - {{action: accept}}\n"
        ),
    );
    // (184 - 64) / 2 = 60 sessions; with their pipes, 50 of them would use 200 descriptors.
    let mut child = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n 184; exec {} -f {}", daemon::PROGRAM, config.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the daemon", || TcpStream::connect(proxy).ok());
    // Sends without end to who does not read: what is under way stays in pipes.
    let flood = Origin::serve("127.0.0.1:0", |mut stream| {
        let piece = [b'x'; 65536];
        while stream.write_all(&piece).is_ok() {}
    });
    let mut stuck: Vec<TcpStream> = (0..50).map(|i| from(&format!("192.0.2.{i}"), proxy, &flood)).collect();
    for stream in &mut stuck {
        let mut some = vec![0; 1 << 20];
        stream.read_exact(&mut some).unwrap();
    }
    let used = || std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(used() <= 170, "{}", used());
    let echo = Origin::echo("127.0.0.1:0");
    // Ten more are within the limit, and have their two descriptors.
    let mut more: Vec<TcpStream> =
        (0..10).map(|i| from(&format!("192.0.2.{}", 100 + i), proxy, &echo)).collect();
    more.iter_mut().for_each(works);
    child.kill().unwrap();
    child.wait().unwrap();
}
