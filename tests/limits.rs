//! Admission: how many at once, how many from one source, and what the newest sees beyond.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use common::client::{expect_bytes, proxy_v2};
use common::daemon::{self, Daemon};
use common::origin::Origin;
use common::{free_port, wait_for};

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
