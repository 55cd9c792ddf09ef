//! QUIC over flows of datagrams: under which destination a connection is remembered that is let in.

use std::net::SocketAddr;

use super::*;
use crate::config::Listener;

/// The first datagrams of a browser that asks for www.example.com.
fn initials() -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let text = include_str!("../../../tests/vectors/quic/chromium.hex");
    text.lines().map(|line| line.trim().as_bytes().chunks_exact(2).map(byte).collect()).collect()
}

/// Lets a connection in that began with `wish`, and says which of `dests` it can go on with from another port.
fn remembered(listener: &str, wish: &Wish, dests: [&str; 2]) -> [bool; 2] {
    let mut simulation = Simulation::new(&config(listener, &["action: accept, dns: .example.com"]));
    let listener: Listener = simulation.plan.service.listeners[0].clone();
    simulation.memory = Memory::new(simulation.now - Duration::from_secs(3600));
    let Simulation { now, plan, locals, verdicts, preludes, home, memory, .. } = simulation;
    let client: SocketAddr = CLIENT.parse().unwrap();
    let mut session = Session::over_datagrams(Arc::clone(&plan), &listener, client, now);
    let (plan, preludes, mut report) = (&plan, &preludes, verdicts);
    let mut env = Env {
        now,
        plan,
        locals: &locals,
        preludes,
        surroundings: &home,
        memory: &memory,
        report: &mut report,
    };
    let env = &mut env;
    let mut step = session.start(wish.clone(), env);
    for datagram in initials() {
        assert!(matches!(step, Step::Read { .. }), "{step:?}");
        step = session.datagram(&datagram, env);
    }
    if let Step::Resolve(name) = &step {
        assert_eq!(&**name, "www.example.com");
        step = session.resolved(Ok(vec!["203.0.113.7".parse().unwrap()]), env);
    }
    let Step::Dial(addrs) = step else { panic!("{step:?}") };
    session.connected(addrs[0], LOCAL.parse().unwrap(), env);
    session.watch(env);
    dests.map(|dest| memory.connection(client.ip(), dest.parse().unwrap(), now).is_some())
}

#[test]
fn a_connection_is_remembered_under_the_address_that_was_asked_for() {
    let dests = ["198.51.100.2:443", "203.0.113.7:443"];
    let asked = Wish::Address(dests[0].parse().unwrap());
    assert_eq!(remembered("udp: true, tproxy: true", &asked, dests), [true, false]);
    assert_eq!(remembered("udp: true, tproxy: true, target: name", &asked, dests), [true, false]);
    // By a name nobody can go on, and nothing stays behind that nobody would ever forget.
    let name = Wish::Name { host: "www.example.com".into(), port: 443 };
    assert_eq!(remembered("mode: socks5, udp: true", &name, dests), [false, false]);
}
