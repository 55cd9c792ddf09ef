//! Many short sessions leave descriptors and memory where they were.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use common::client::proxy_v2;
use common::daemon::Daemon;
use common::free_port;
use common::origin::Origin;
use common::tls::hello;

/// One short session. Clients and servers share 28,000 ephemeral ports with their own TIME_WAITs, so a connect that
/// finds none is tried again.
fn session(proxy: SocketAddr, dest: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut stream = loop {
        match TcpStream::connect(proxy) {
            Ok(stream) => break stream,
            Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => {
                thread::sleep(std::time::Duration::from_millis(100));
            }
            Err(e) => panic!("{e}"),
        }
    };
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let header = proxy_v2(1, "192.0.2.7:51234".parse().unwrap(), dest, &[]);
    stream.write_all(&[&header, payload].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn twenty_thousand_short_connections_leave_descriptors_and_memory_where_they_were() {
    const SESSIONS: usize = 20_000;
    const CLIENTS: usize = 8;
    // Nothing is what is measured; seven bytes that each session leaves behind would be too much.
    const MAX_GROWN_KIB: u64 = 128;
    let port = free_port();
    let config = format!(
        "listen:\n  - {{mode: proxyproto, port: {port}}}\noutput: {{allowLocal: true}}\n\
         rules:\n  - {{dns: '*.blocked.example', action: deny}}\n  - {{action: accept}}\n"
    );
    let daemon = Daemon::start(&config, &[port]);
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    // Eight origins and listeners on eight loopback addresses would do the same; two spread the ports enough.
    let origins = [Origin::echo("127.0.0.1:0"), Origin::echo("127.0.0.2:0")];
    let allowed = hello("www.example.com");
    let denied = hello("x.blocked.example");

    let run = |count: usize| {
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (allowed, denied, origins) = (&allowed, &denied, &origins);
                scope.spawn(move || {
                    for i in 0..count / CLIENTS {
                        let dest = origins[client % 2].addr;
                        match i % 4 {
                            0 => {
                                assert_eq!(session(proxy, dest, denied), common::tls::ALERT_UNRECOGNIZED_NAME)
                            }
                            _ => assert_eq!(session(proxy, dest, allowed), *allowed),
                        }
                    }
                });
            }
        });
    };

    // What sessions need once, such as buffers, slabs and the allocator's arenas, is there after a first round.
    run(SESSIONS);
    daemon.wait_descriptors(200);
    let (descriptors, memory) = (daemon.descriptors(), daemon.memory_kib());
    run(SESSIONS);
    daemon.wait_descriptors(descriptors + 8);
    let grown = daemon.memory_kib().saturating_sub(memory);
    assert!(grown < MAX_GROWN_KIB, "{grown} KiB more after {SESSIONS} further sessions");
}
