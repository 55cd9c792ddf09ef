//! Two directions and their ends: what goes in comes out, in order, whole, and the way it ended is passed on.
//!
//! The clients come with a PROXY header over loopback, so that no privileges are needed; `transparent.rs` shows the same
//! relay behind a firewall rule.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::client::{
    End, connect, connect_via_proxy_header, expect_bytes, is_open, read_end, write_bytewise,
};
use common::daemon::Daemon;
use common::origin::{Origin, finish, read_all};
use common::{Checksum, PATIENCE, free_port, pattern, process, wait_for};

/// A daemon that takes PROXY headers from loopback and lets everything through.
fn relay(settings: &str) -> (Daemon, SocketAddr) {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\noutput: {{allowLocal: true, retries: 0}}\n{settings}\n\
         rules:\n  - {{action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    (daemon, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A session that must not notice what happens to others.
struct Witness(TcpStream, #[allow(dead_code)] Origin);

impl Witness {
    fn start(proxy: SocketAddr) -> Witness {
        let origin = Origin::echo("127.0.0.1:0");
        let mut witness = Witness(connect_via_proxy_header(proxy, origin.addr), origin);
        witness.check();
        witness
    }

    fn check(&mut self) {
        self.0.write_all(b"still there?").unwrap();
        expect_bytes(&mut self.0, b"still there?");
    }
}

#[test]
fn bytes_come_back_over_ipv4_and_ipv6() {
    let (_daemon, proxy) = relay("");
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let origin = Origin::echo(addr);
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        stream.write_all(b"hello").unwrap();
        expect_bytes(&mut stream, b"hello");
        finish(&stream);
        assert_eq!(read_end(&mut stream), End::Closed(vec![]));
    }
}

#[test]
fn a_client_that_shuts_down_its_side_still_gets_the_whole_answer() {
    let (_daemon, proxy) = relay("");
    let answer = pattern(3 << 20, 1);
    let sent = answer.clone();
    let origin = Origin::serve("127.0.0.1:0", move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"question");
        // The answer starts well after the client's FIN has passed.
        thread::sleep(Duration::from_millis(300));
        let _ = stream.write_all(&sent);
    });
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"question").unwrap();
    finish(&stream);
    assert!(read_all(&mut stream).unwrap() == answer);
}

/// `nc -N` to a server that speaks first, where the rules look at first bytes.
#[test]
fn a_client_that_says_nothing_and_shuts_down_its_side_hears_the_server() {
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\noutput: {{allowLocal: true, retries: 0}}\n\
         rules:\n  - {{protoL5: [none, tls], action: accept}}\n"
    );
    let _daemon = Daemon::start(&config, &[port]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 hello\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "the end of the client's side");
    });
    let mut stream = connect_via_proxy_header(SocketAddr::from(([127, 0, 0, 1], port)), addr);
    finish(&stream);
    expect_bytes(&mut stream, b"220 hello\r\n");
    server.join().unwrap();
}

#[test]
fn a_server_that_shuts_down_its_side_still_gets_everything_from_the_client() {
    let (_daemon, proxy) = relay("");
    let (tell, told) = std::sync::mpsc::channel();
    let origin = Origin::serve("127.0.0.1:0", move |mut stream| {
        stream.write_all(b"bye").unwrap();
        finish(&stream);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        tell.send(Checksum::of(&all)).unwrap();
    });
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    assert_eq!(read_end(&mut stream), End::Closed(b"bye".to_vec()));
    let data = pattern(3 << 20, 2);
    stream.write_all(&data).unwrap();
    drop(stream);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Checksum::of(&data));
}

#[test]
fn a_half_closed_session_with_a_silent_other_side_ends_after_half_closed() {
    let (daemon, proxy) = relay("debug: true\ntimeout: {halfClosed: 400}");
    let origin = Origin::serve("127.0.0.1:0", |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        // Never answers, never closes.
        thread::sleep(PATIENCE * 2);
    });
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"x").unwrap();
    finish(&stream);
    let _ = read_end(&mut stream);
    daemon.wait_log(&["Closed | reason=half_closed"]);
}

#[test]
fn a_silent_session_ends_after_idle_and_one_that_speaks_does_not() {
    let (daemon, proxy) = relay("debug: true\ntimeout: {idle: 1500}");
    let origin = Origin::echo("127.0.0.1:0");
    let mut silent = connect_via_proxy_header(proxy, origin.addr);
    silent.write_all(b"x").unwrap();
    expect_bytes(&mut silent, b"x");
    let mut speaking = connect_via_proxy_header(proxy, origin.addr);
    for _ in 0..12 {
        speaking.write_all(b"y").unwrap();
        expect_bytes(&mut speaking, b"y");
        thread::sleep(Duration::from_millis(250));
    }
    let _ = read_end(&mut silent);
    daemon.wait_log(&["Closed | reason=idle"]);
}

#[test]
fn fifty_megabytes_pass_both_ways_at_once_past_slow_readers() {
    const SIZE: usize = 50 << 20;
    let (daemon, proxy) = relay("");
    let down = Arc::new(pattern(SIZE, 11));
    let up = pattern(SIZE, 12);
    let (tell, told) = std::sync::mpsc::channel();
    let from_server = Arc::clone(&down);
    let origin = Origin::serve("127.0.0.1:0", move |stream| {
        let mut writer = stream.try_clone().unwrap();
        let data = Arc::clone(&from_server);
        let writing = thread::spawn(move || {
            writer.write_all(&data).unwrap();
            finish(&writer);
        });
        tell.send(read_slowly(stream)).unwrap();
        writing.join().unwrap();
    });
    let stream = connect_via_proxy_header(proxy, origin.addr);
    process::small_receive_buffer(&stream, 32 * 1024);
    let mut writer = stream.try_clone().unwrap();
    writer.set_write_timeout(None).unwrap();
    let up_sum = Checksum::of(&up);
    let writing = thread::spawn(move || {
        writer.write_all(&up).unwrap();
        finish(&writer);
    });
    let got = read_slowly(stream);
    writing.join().unwrap();
    assert_eq!(got, Checksum::of(&down));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), up_sum);
    assert!(
        daemon.memory_kib() < 64 * 1024,
        "{} KiB resident: the slow side did not stop the fast one",
        daemon.memory_kib()
    );
}

/// Reads to the end with a pause now and then.
fn read_slowly(mut stream: TcpStream) -> Checksum {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sum = Checksum::new();
    let mut buffer = vec![0; 48 * 1024];
    let mut reads = 0;
    loop {
        let n = stream.read(&mut buffer).unwrap();
        if n == 0 {
            return sum;
        }
        sum.add(&buffer[..n]);
        reads += 1;
        if reads % 100 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_reader_that_stops_for_a_while_stops_the_sender_and_loses_nothing() {
    let (daemon, proxy) = relay("");
    let sent = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    let data = pattern(1 << 20, 5);
    let block = data.clone();
    let origin = Origin::serve("127.0.0.1:0", move |mut stream| {
        for _ in 0..64 {
            if stream.write_all(&block).is_err() {
                return;
            }
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let before = daemon.memory_kib();
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    // Until the sender has been stopped by full buffers for a second.
    let mut last = u32::MAX;
    wait_for("the sender to be stopped", || {
        thread::sleep(Duration::from_secs(1));
        let now = sent.load(Ordering::SeqCst);
        let stopped = now == last;
        last = now;
        stopped.then_some(())
    });
    assert!(last < 64, "64 MiB went into a tunnel that nobody reads");
    assert!(daemon.memory_kib() < before + 16 * 1024, "the daemon buffered what nobody reads");
    let mut sum = Checksum::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        sum.add(&buffer[..n]);
    }
    let mut expected = Checksum::new();
    (0..64).for_each(|_| expected.add(&data));
    assert_eq!(sum, expected);
}

#[test]
fn one_byte_slow_peers_around_the_switch_to_splice_lose_nothing() {
    const AROUND: usize = 64 * 1024;
    let (_daemon, proxy) = relay("");
    // Up to a little below the switch in one go, then byte by byte across it, then the rest; echoed all the way.
    for (fast, slow, rest) in
        [(AROUND - 200, 400, 0), (AROUND - 1, 2, 100_000), (AROUND, 300, 1), (AROUND + 1, 300, 70_000)]
    {
        let origin = Origin::echo("127.0.0.1:0");
        let data = pattern(fast + slow + rest, fast as u64);
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        process::small_receive_buffer(&stream, 4096);
        let mut writer = stream.try_clone().unwrap();
        let sending = data.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sending[..fast]).unwrap();
            write_bytewise(&mut writer, &sending[fast..fast + slow]);
            writer.write_all(&sending[fast + slow..]).unwrap();
            finish(&writer);
        });
        let mut got = Vec::new();
        let mut byte = [0];
        // Also read byte by byte around the switch.
        while got.len() < data.len() {
            if got.len().abs_diff(AROUND) < 300 {
                stream.read_exact(&mut byte).unwrap();
                got.push(byte[0]);
                thread::sleep(Duration::from_micros(200));
            } else {
                let mut buffer = vec![0; 997.min(data.len() - got.len())];
                let n = stream.read(&mut buffer).unwrap();
                assert_ne!(n, 0, "closed after {} of {} bytes", got.len(), data.len());
                got.extend_from_slice(&buffer[..n]);
            }
        }
        writing.join().unwrap();
        assert!(got == data, "bytes changed on the way");
        assert_eq!(read_end(&mut stream), End::Closed(vec![]));
    }
}

#[test]
fn many_tunnels_with_pieces_and_pauses_of_all_sizes_mix_nothing_up() {
    const TUNNELS: u64 = 40;
    let (daemon, proxy) = relay("");
    let origin = Origin::echo("127.0.0.1:0");
    let idle = daemon.descriptors();
    thread::scope(|scope| {
        for tunnel in 0..TUNNELS {
            let addr = origin.addr;
            scope.spawn(move || {
                let data = pattern(150_000 + tunnel as usize * 7919, tunnel + 1);
                let mut stream = connect_via_proxy_header(proxy, addr);
                let mut writer = stream.try_clone().unwrap();
                let sending = data.clone();
                let writing = thread::spawn(move || {
                    let mut rest = sending.as_slice();
                    // Sizes from one byte to 48 KiB, and a pause after every seventh piece.
                    for piece in 0.. {
                        let size = 1 + (sending[piece % 1000] as usize * (tunnel as usize + 1) * 5) % 48_000;
                        let (now, later) = rest.split_at(size.min(rest.len()));
                        writer.write_all(now).unwrap();
                        rest = later;
                        if rest.is_empty() {
                            break;
                        }
                        if piece % 7 == 6 {
                            thread::sleep(Duration::from_millis(u64::from(sending[piece % 1000]) / 20));
                        }
                    }
                    finish(&writer);
                });
                assert!(read_all(&mut stream).unwrap() == data, "tunnel {tunnel}");
                writing.join().unwrap();
            });
        }
    });
    // The pipes of the worker's pool may stay; sockets may not.
    daemon.wait_descriptors(idle + 70);
}

#[test]
fn a_tunnel_that_pauses_after_a_large_transfer_goes_on_afterwards() {
    let (_daemon, proxy) = relay("");
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    for round in 0..5 {
        let data = pattern(300_000, round);
        let mut writer = stream.try_clone().unwrap();
        let sending = data.clone();
        let writing = thread::spawn(move || writer.write_all(&sending).unwrap());
        expect_bytes(&mut stream, &data);
        writing.join().unwrap();
        thread::sleep(Duration::from_millis(400));
        stream.write_all(b"small").unwrap();
        expect_bytes(&mut stream, b"small");
    }
}

#[test]
fn idle_tunnels_hold_no_pipes_after_large_transfers() {
    const TUNNELS: usize = 60;
    let (daemon, proxy) = relay("workers: 1");
    let origin = Origin::echo("127.0.0.1:0");
    let idle = daemon.descriptors();
    let data = pattern(1 << 20, 21);
    let tunnels: Vec<TcpStream> = (0..TUNNELS)
        .map(|_| {
            let mut stream = connect_via_proxy_header(proxy, origin.addr);
            let mut writer = stream.try_clone().unwrap();
            let sending = data.clone();
            let writing = thread::spawn(move || writer.write_all(&sending).unwrap());
            expect_bytes(&mut stream, &data);
            writing.join().unwrap();
            stream
        })
        .collect();
    // Two sockets for each tunnel. With a pipe for each direction it would be four descriptors more.
    daemon.wait_descriptors(idle + TUNNELS * 2 + TUNNELS);
    drop(tunnels);
}

#[test]
fn a_reset_is_passed_on_as_a_reset_both_ways() {
    let (daemon, proxy) = relay("debug: true");

    // By the server, in the middle of a session and with bytes on their way.
    let origin = Origin::serve("127.0.0.1:0", |mut stream| {
        let mut start = [0; 5];
        stream.read_exact(&mut start).unwrap();
        stream.write_all(b"partial").unwrap();
        thread::sleep(Duration::from_millis(200));
        process::reset(stream);
    });
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    stream.write_all(b"start").unwrap();
    expect_bytes(&mut stream, b"partial");
    assert_eq!(read_end(&mut stream), End::Reset(vec![]));
    daemon.wait_log(&["Closed | reason=server_reset"]);

    // By the client.
    let (tell, told) = std::sync::mpsc::channel();
    let origin = Origin::serve("127.0.0.1:0", move |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        tell.send(read_end(&mut stream)).unwrap();
    });
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    expect_bytes(&mut stream, b"hello");
    process::reset(stream);
    assert_eq!(told.recv_timeout(PATIENCE * 2).unwrap(), End::Reset(vec![]));
    daemon.wait_log(&["Closed | reason=client_reset"]);
}

#[test]
fn refused_unreachable_and_reset_servers_hurt_nobody_else() {
    let (mut daemon, proxy) = relay("debug: true\ntimeout: {connect: 700}");
    let mut witness = Witness::start(proxy);
    let refusing = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for _ in 0..20 {
        let _ = read_end(&mut connect_via_proxy_header(proxy, refusing));
    }
    daemon.wait_log(&["Closed | reason=connect_refused"]);
    witness.check();

    let resetting = Origin::serve("127.0.0.1:0", process::reset);
    for _ in 0..20 {
        let _ = read_end(&mut connect_via_proxy_header(proxy, resetting.addr));
    }
    witness.check();

    // 240.0.0.1 has no route, or nobody answers: either way an end.
    let _ = read_end(&mut connect_via_proxy_header(proxy, "240.0.0.1:9".parse().unwrap()));
    witness.check();
    assert!(daemon.is_running());
}

/// Not a test: the process that the next one kills, when started with its address in the environment.
#[test]
fn helper_origin_process() {
    let Ok(addr) = std::env::var("CALAMARY_TEST_ORIGIN") else { return };
    let _origin = Origin::echo(addr);
    thread::sleep(Duration::from_secs(120));
}

struct OriginProcess(Child);

impl OriginProcess {
    fn start(addr: SocketAddr) -> OriginProcess {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_origin_process"])
            .env("CALAMARY_TEST_ORIGIN", addr.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the origin's process", || TcpStream::connect(addr).ok());
        OriginProcess(child)
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_server_ends_its_own_sessions_and_no_other() {
    let (_daemon, proxy) = relay("");
    let mut witness = Witness::start(proxy);
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut doomed = OriginProcess::start(addr);
    let mut streams: Vec<TcpStream> = (0..10).map(|_| connect_via_proxy_header(proxy, addr)).collect();
    for stream in &mut streams {
        stream.write_all(b"ping").unwrap();
        expect_bytes(stream, b"ping");
    }
    // kill -9, with and without bytes under way.
    for stream in streams.iter_mut().take(5) {
        stream.write_all(&pattern(100_000, 1)).unwrap();
    }
    doomed.0.kill().unwrap();
    doomed.0.wait().unwrap();
    for stream in &mut streams {
        let _ = read_end(stream);
    }
    witness.check();
}

#[test]
fn nothing_is_lost_when_a_server_sends_and_closes_at_once() {
    let (_daemon, proxy) = relay("");
    for size in [1, 1000, 65_535, 65_536, 65_537, 200_000, 1 << 20] {
        let data = pattern(size, size as u64);
        let sent = data.clone();
        let origin = Origin::serve("127.0.0.1:0", move |mut stream| {
            let _ = stream.write_all(&sent);
        });
        let mut stream = connect_via_proxy_header(proxy, origin.addr);
        assert!(read_all(&mut stream).unwrap() == data, "{size} bytes");
    }
}

#[test]
fn a_server_that_does_not_read_keeps_only_its_own_client_waiting() {
    let (_daemon, proxy) = relay("");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let origin = Origin::serve("127.0.0.1:0", move |stream| {
        while !stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
        drop(stream);
    });
    let mut witness = Witness::start(proxy);
    let mut clients: Vec<TcpStream> = (0..8).map(|_| connect_via_proxy_header(proxy, origin.addr)).collect();
    for client in &mut clients {
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let block = pattern(1 << 20, 9);
        while client.write_all(&block).is_ok() {}
        assert!(is_open(client, Duration::from_millis(10)));
    }
    witness.check();
    stop.store(true, Ordering::SeqCst);
}

#[test]
fn an_open_connection_without_traffic_survives_a_moment_of_silence() {
    let (_daemon, proxy) = relay("");
    let origin = Origin::echo("127.0.0.1:0");
    let mut stream = connect_via_proxy_header(proxy, origin.addr);
    assert!(is_open(&mut stream, Duration::from_secs(3)));
    stream.write_all(b"x").unwrap();
    expect_bytes(&mut stream, b"x");
    let _ = connect(origin.addr);
}
