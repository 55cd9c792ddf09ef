//! Relays between real sockets on loopback, driven by a real edge-triggered poll: a wake-up that is lost is a test that
//! stalls, and says so.

mod exchanges;
#[cfg(feature = "tls")]
mod secured;
mod tunnels;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::stream::Stream;
use super::{End, Loan, Ready};

/// Longer than anything takes that moves at all, on an emulated CPU of a busy machine, too.
const STALLED: Duration = Duration::from_secs(120);

/// Long enough for what was sent on loopback to have arrived.
const SETTLED: Duration = Duration::from_millis(100);

/// A relay's two sockets with the poll that watches them, and the peers behind them.
struct Rig {
    poll: Poll,
    events: Events,
    client: End,
    server: End,
    loan: Loan,
}

impl Rig {
    /// The rig, the client and the server.
    fn new() -> (Rig, TcpStream, TcpStream) {
        let poll = Poll::new().unwrap();
        let end = |token| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_nodelay(true).unwrap();
            peer.set_read_timeout(Some(STALLED)).unwrap();
            peer.set_write_timeout(Some(STALLED)).unwrap();
            let (ours, _) = listener.accept().unwrap();
            ours.set_nonblocking(true).unwrap();
            ours.set_nodelay(true).unwrap();
            let mut stream = mio::net::TcpStream::from_std(ours);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(token), interest).unwrap();
            (End { stream: Stream::new(stream), ready: Ready::NOT }, peer)
        };
        let ((client, asks), (server, answers)) = (end(0), end(1));
        let events = Events::with_capacity(16);
        (Rig { poll, events, client, server, loan: Loan::new(Default::default()) }, asks, answers)
    }

    /// Waits for events, as the worker does; false if none came in time.
    fn wait(&mut self, time: Duration) -> bool {
        self.poll.poll(&mut self.events, Some(time)).unwrap();
        for event in &self.events {
            let ready = Ready::from(event);
            match event.token() {
                Token(0) => self.client.ready.merge(ready),
                _ => self.server.ready.merge(ready),
            }
        }
        !self.events.is_empty()
    }
}

/// Sends what the kernel takes without anybody reading.
fn send_until_full(peer: &mut TcpStream, bytes: &[u8]) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = peer.write(&bytes[sent..]) {
        sent += n;
        if sent == bytes.len() {
            break;
        }
    }
    peer.set_nonblocking(false).unwrap();
    sent
}

/// Everything that has arrived at `peer`, and how its stream ended, if it did.
fn arrived(peer: &mut TcpStream) -> (Vec<u8>, &'static str) {
    peer.set_nonblocking(true).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        match peer.read(&mut buffer) {
            Ok(0) => break "end",
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break "open",
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break "reset",
            Err(e) => panic!("{e}"),
        }
    };
    peer.set_nonblocking(false).unwrap();
    (all, end)
}

/// Bytes that are not alike at any place of a buffer's size.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
