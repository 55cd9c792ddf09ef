//! Two directions at once.

use std::net::Shutdown;
use std::thread;

use super::*;
use crate::relay::tunnel::{Progress, Tunnel};
use crate::relay::{Side, pipes};
use crate::sys::socket::reset_on_close;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What one turn may move at most: both budgets, and the last piece that exceeded each.
const MOST_PER_TURN: u64 = 2 * (MIB as u64 + pipes::CAPACITY as u64);

pub(super) fn tunnel() -> Tunnel {
    Tunnel::new(Vec::new())
}

/// One turn.
fn pump(tunnel: &mut Tunnel, rig: &mut Rig) -> Progress {
    let before = tunnel.delivered();
    let progress = tunnel.pump(&mut rig.client, &mut rig.server, &mut rig.loan, &mut |_| None);
    let after = tunnel.delivered();
    assert!(after.0 + after.1 - before.0 - before.1 <= MOST_PER_TURN, "a turn without bound");
    for direction in tunnel.directions() {
        assert!(direction.held() <= Loan::SCRATCH.max(pipes::CAPACITY as usize), "{}", direction.held());
    }
    progress
}

/// Turns until the tunnel ends.
pub(super) fn run(tunnel: &mut Tunnel, rig: &mut Rig) -> Progress {
    loop {
        match pump(tunnel, rig) {
            Progress::Wait { .. } => assert!(rig.wait(STALLED), "stalled: {tunnel:?}"),
            Progress::Again => {
                rig.wait(Duration::ZERO);
            }
            end => return end,
        }
    }
}

/// Turns until nothing happens any more.
pub(super) fn settle(tunnel: &mut Tunnel, rig: &mut Rig) {
    loop {
        match pump(tunnel, rig) {
            Progress::Wait { .. } if !rig.wait(SETTLED) => return,
            Progress::Wait { .. } | Progress::Again => {}
            end => panic!("{end:?}"),
        }
    }
}

pub(super) fn is_idle(tunnel: &Tunnel, rig: &Rig) -> bool {
    tunnel.directions().iter().all(|direction| direction.is_empty_handed()) && rig.loan.pipes.lent() == 0
}

#[test]
fn every_byte_arrives_both_ways_and_each_end_is_passed_on() {
    let check = |up: usize, down: usize, prelude: &[u8]| {
        let (mut rig, client, server) = Rig::new();
        let mut tunnel = Tunnel::new(prelude.to_vec());
        let (sent, answer) = (noise(up, 1), noise(down, 2));
        let peer = |mut peer: TcpStream, out: Vec<u8>| {
            let mut reader = peer.try_clone().unwrap();
            let reading = thread::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                all
            });
            thread::spawn(move || {
                peer.write_all(&out).unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
                reading.join().unwrap()
            })
        };
        let (asks, answers) = (peer(client, sent.clone()), peer(server, answer.clone()));
        assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished), "{up} {down}");
        let expected = (prelude.len() + up, down);
        assert_eq!(tunnel.delivered(), (expected.0 as u64, expected.1 as u64));
        assert!(is_idle(&tunnel, &rig), "{tunnel:?}");
        drop(rig);
        assert!(answers.join().unwrap() == [prelude, &sent].concat(), "{up} up");
        assert!(asks.join().unwrap() == answer, "{down} down");
    };
    check(0, 0, b"");
    check(0, 0, b"hello");
    check(1, 0, b"");
    check(64 * KIB - 1, 64 * KIB + 1, b"abc");
    check(200 * KIB, 1, b"");
    check(24 * MIB, 16 * MIB, b"abc");
}

#[test]
fn one_direction_may_end_long_before_the_other() {
    let (mut rig, mut client, mut server) = Rig::new();
    let mut tunnel = tunnel();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    settle(&mut tunnel, &mut rig);
    assert!(tunnel.is_half_closed() && is_idle(&tunnel, &rig));
    assert_eq!(arrived(&mut server), (b"question".to_vec(), "end"));
    for _ in 0..3 {
        server.write_all(b"answer").unwrap();
        settle(&mut tunnel, &mut rig);
        assert_eq!(arrived(&mut client), (b"answer".to_vec(), "open"));
    }
    drop(server);
    assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished));
    // The last end is passed on by closing the sockets, which is what follows.
    drop(rig);
    assert_eq!(arrived(&mut client).1, "end");

    // The other way round.
    let (mut rig, mut client, mut server) = Rig::new();
    let mut tunnel = self::tunnel();
    server.shutdown(Shutdown::Write).unwrap();
    settle(&mut tunnel, &mut rig);
    assert_eq!(arrived(&mut client).1, "end");
    client.write_all(b"still here").unwrap();
    settle(&mut tunnel, &mut rig);
    assert_eq!(arrived(&mut server).0, b"still here");
    drop(client);
    assert!(matches!(run(&mut tunnel, &mut rig), Progress::Finished));
}

/// Single bytes, each sent when the one before has arrived, before, at and behind the switch to splicing, during it, and
/// when it is given up again.
#[test]
fn no_byte_waits_at_a_switch_between_copying_and_splicing() {
    let (mut rig, mut client, mut server) = Rig::new();
    let mut tunnel = tunnel();
    let worker = thread::spawn(move || {
        let end = run(&mut tunnel, &mut rig);
        assert!(matches!(end, Progress::Finished), "{end:?}");
        assert!(is_idle(&tunnel, &rig));
    });
    let go = |from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]| {
        let mut got = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(|| from.write_all(bytes).unwrap());
            to.read_exact(&mut got).unwrap();
        });
        assert!(got == bytes);
    };
    for (large, seed) in [(64 * KIB - 20, 1), (64 * KIB, 2), (MIB, 3), (8 * MIB, 4), (64 * KIB - 20, 5)] {
        go(&mut client, &mut server, &noise(large, seed));
        go(&mut server, &mut client, &noise(large, seed + 10));
        for byte in 0..60 {
            go(&mut client, &mut server, &[byte]);
            go(&mut server, &mut client, &[byte]);
        }
        for len in [4 * KIB - 1, 4 * KIB, 4 * KIB + 1] {
            go(&mut client, &mut server, &noise(len, seed));
            go(&mut server, &mut client, &noise(len, seed));
        }
    }
    drop((client, server));
    worker.join().unwrap();
}

#[test]
fn a_slow_side_stops_the_fast_one_and_nothing_is_lost() {
    for pool in [pipes::Pool::new(Default::default()), pipes::Pool::exhausted()] {
        let (mut rig, mut client, mut server) = Rig::new();
        let (before, mut tunnel) = (pool.lent(), tunnel());
        rig.loan.pipes = pool;
        let mut expected = Vec::new();
        // Nobody reads: the client can send what the kernel and one piece of ours hold, and then no more.
        loop {
            let more = noise(MIB, 3);
            let n = send_until_full(&mut client, &more);
            expected.extend_from_slice(&more[..n]);
            settle(&mut tunnel, &mut rig);
            if n == 0 {
                break;
            }
            assert!(expected.len() < 64 * MIB, "the client is not stopped");
        }
        assert!(tunnel.directions()[0].held() > 0, "{tunnel:?}");
        assert_eq!(rig.loan.pipes.lent(), before.max(1), "held in a pipe where there is one");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let (bytes, end) = arrived(&mut server);
            assert_eq!(end, "open");
            got.extend(bytes);
            match pump(&mut tunnel, &mut rig) {
                Progress::Wait { .. } if got.len() < expected.len() => {
                    // Not all of it may have come through the kernel yet.
                    rig.wait(Duration::from_millis(1));
                }
                Progress::Wait { .. } | Progress::Again => {}
                end => panic!("{end:?}"),
            }
        }
        assert!(got == expected);
        settle(&mut tunnel, &mut rig);
        assert!(tunnel.directions().iter().all(|direction| direction.is_empty_handed()), "{tunnel:?}");
        assert_eq!(rig.loan.pipes.lent(), before);
    }
}

#[test]
fn a_session_that_ends_gives_its_pipe_back() {
    let (mut rig, mut client, _server) = Rig::new();
    let mut tunnel = tunnel();
    while tunnel.directions()[0].held() == 0 {
        send_until_full(&mut client, &noise(MIB, 3));
        settle(&mut tunnel, &mut rig);
    }
    tunnel.close(&mut rig.loan);
    assert!(is_idle(&tunnel, &rig));
}

#[test]
fn a_reset_is_told_apart_from_an_end() {
    for resets in [Side::Client, Side::Server] {
        let (mut rig, client, server) = Rig::new();
        let mut tunnel = tunnel();
        settle(&mut tunnel, &mut rig);
        let (gone, stays) = if resets == Side::Client { (client, server) } else { (server, client) };
        reset_on_close(&gone).unwrap();
        drop(gone);
        match run(&mut tunnel, &mut rig) {
            Progress::Broken(broken) => assert_eq!(broken.side, resets),
            end => panic!("{end:?}"),
        }
        drop(stays);
    }
}

/// A server that refuses an upload answers and closes with the upload unread, which resets the connection: its answer is
/// still to be read, and is what the client needs to hear.
#[test]
fn the_last_words_of_a_server_that_stops_listening_are_delivered() {
    let (mut rig, mut client, mut server) = Rig::new();
    let mut tunnel = tunnel();
    client.write_all(b"part of an upload").unwrap();
    settle(&mut tunnel, &mut rig);
    server.write_all(b"too large").unwrap();
    drop(server);
    client.write_all(b"more of it").unwrap();
    // The poll has told of the client's bytes, and of the server's not yet.
    thread::sleep(SETTLED);
    rig.client.ready.readable = true;
    rig.server.ready = Ready { writable: true, ..Ready::NOT };
    let mut progress = pump(&mut tunnel, &mut rig);
    while let Progress::Wait { .. } | Progress::Again = progress {
        client.write_all(b"and more").unwrap();
        thread::sleep(Duration::from_millis(10));
        rig.client.ready.readable = true;
        progress = pump(&mut tunnel, &mut rig);
    }
    assert!(matches!(progress, Progress::Broken(ref broken) if broken.side == Side::Server), "{progress:?}");
    assert_eq!(arrived(&mut client).0, b"too large");
}
