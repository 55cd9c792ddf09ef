//! Random conversations: whatever happens, in whatever order it legally can, a session walks the edges of its table (it
//! asserts that itself), waits for nothing that is over, and ends when its client does.

use super::*;
use crate::connect::distrust::Distrust;
use crate::connect::probe::Doubt;

/// Listeners that ask.
const USERS: &str = "http, users: { alice: $5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5 }";
const SOCKS_USERS: &str =
    "socks5, users: { alice: $5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5 }";

/// Rules that ask for certificates, where the build can.
const CERTS: &[&str] = if cfg!(feature = "tls") {
    &["action: deny, cert: '!valid', dest: 198.51.100.0/24", "action: accept, cert: [valid, unknown]"]
} else {
    &["action: accept"]
};

/// Steps of one conversation; more than any can have without its client sending on.
const MOST: usize = 64;

/// A small generator (Marsaglia's xorshift), so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn configs() -> Vec<String> {
    let rules: [&[&str]; 7] = [
        CERTS,
        &["action: accept"],
        &["action: deny, dns: .blocked.example", "action: accept"],
        &["action: deny, dest: 203.0.113.0/24", "action: accept, protoL5: [tls, http]"],
        &["action: redirect, protoL5: http", "action: accept, encrypted: true"],
        &["action: accept, dest: 198.51.100.0/24", "action: redirect, dest: 203.0.113.0/24", "action: deny"],
        &[
            "action: accept, protoL5: none, dest: 198.51.100.0/24",
            "action: accept, dns: '*.example.com', port: 443",
        ],
    ];
    let modes = ["transparent", "http", "proxyproto", "socks5", USERS, SOCKS_USERS];
    let targets = ["auto", "original", "name"];
    let all = modes.iter().flat_map(|mode| targets.iter().map(move |target| (mode, target)));
    let all = all.flat_map(|(mode, target)| {
        rules.map(|rules| config(&format!("mode: {mode}, target: {target}"), rules))
    });
    all.chain(intercepting()).collect()
}

#[cfg(not(feature = "intercept"))]
fn intercepting() -> Vec<String> {
    Vec::new()
}

#[cfg(feature = "intercept")]
fn intercepting() -> Vec<String> {
    let rules =
        &["path: /x, action: deny", "protoL7: h2, host: .example.com, action: deny", "action: intercept"];
    let listeners = ["mode: transparent", "mode: http", "mode: socks5", "mode: proxyproto, target: name"];
    let all = listeners.map(|listener| super::interception::intercepting(listener, rules));
    // As often as the others together.
    std::iter::repeat_n(all, 20).flatten().collect()
}

fn messages() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 20] = [
        b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT 198.51.100.2:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://www.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a.blocked.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST http://203.0.113.7/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"GET http://www.example.com/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n",
        b"CONNECT 198.51.100.2:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6eA==\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\x05\x01\x00",
        b"\x05\x01\x00\x05\x01\x00\x03\x0fwww.example.com\x01\xbb",
        b"\x05\x01\x00\x03\x11a.blocked.example\x01\xbb",
        b"\x05\x01\x00\x01\xc6\x33\x64\x02\x01\xbb",
        b"\x05\x03\x00\x01\0\0\0\0\0\0",
        b"\x05\x02\x00\x02\x01\x05alice\x06secret",
        b"SSH-2.0-x\r\n",
        b"GET ",
        b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01",
        b"\r\n",
    ];
    let hellos = [hello("www.example.com"), hello("a.blocked.example"), nameless_hello()];
    texts.iter().map(|text| text.to_vec()).chain(hellos).collect()
}

#[test]
fn random_conversations_end_with_their_clients() {
    let (configs, messages) = (configs(), messages());
    let addrs = ["198.51.100.2", "203.0.113.7", "2001:db8::7", "127.0.0.1"];
    let verifications = [Verification::Right, Verification::Wrong, Verification::Unavailable];
    let errors = [DialError::Refused, DialError::TimedOut];
    let mut ends = std::collections::BTreeSet::new();
    for seed in 1..=6000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut simulation = Simulation::new(random.pick::<String>(&configs));
        let mut step = match random.below(2) {
            0 => simulation.tell(In::Start),
            _ => simulation.tell(In::To(random.pick::<&str>(&["198.51.100.2:443", "203.0.113.7:80"]))),
        };
        for turn in 0.. {
            simulation.session.take_reply();
            let gone = turn > MOST;
            step = match step {
                Step::Read { until } => {
                    assert!(simulation.session.is_reading(), "seed {seed}");
                    match random.below(8) {
                        _ if gone => simulation.tell(In::Eof),
                        0 => simulation.tell(In::Eof),
                        1 => {
                            simulation.now = simulation.now.max(until);
                            simulation.tell(In::Silence)
                        }
                        2 | 3 => {
                            let message = random.pick(&messages);
                            let cut = random.below(message.len()) + 1;
                            simulation.tell(In::Bytes(&message[..cut]))
                        }
                        _ => {
                            let message = random.pick(&messages);
                            simulation.tell(In::Bytes(message))
                        }
                    }
                }
                Step::Secure(_) => match random.below(4) {
                    _ if gone => simulation.tell(In::Closes(CloseReason::ClientGone)),
                    0 => simulation.tell(In::Closes(CloseReason::TlsFailed)),
                    _ => simulation.tell(In::Secured),
                },
                Step::SecureServer(_) => match random.below(4) {
                    _ if gone => simulation.tell(In::Closes(CloseReason::ClientGone)),
                    0 => simulation.tell(In::Closes(CloseReason::BadCertificate)),
                    _ => {
                        let spoken: [Option<&[u8]>; 4] = [None, Some(b"http/1.1"), Some(b"h2"), Some(b"x")];
                        simulation.tell(In::ServerSecured(*random.pick(&spoken)))
                    }
                },
                Step::Verify(_) => simulation.tell(In::Verified(*random.pick(&verifications))),
                Step::Resolve(_) => match random.below(4) {
                    0 => simulation.tell(In::NoAddrs(ResolveError::NotFound)),
                    1 => simulation.tell(In::NoAddrs(ResolveError::Failed)),
                    _ => {
                        let some: Vec<&str> = (0..random.below(4)).map(|_| *random.pick(&addrs)).collect();
                        simulation.tell(In::Addrs(&some))
                    }
                },
                Step::Probe(targets) => {
                    assert!(!targets.is_empty(), "seed {seed}");
                    ends.insert("probe");
                    let findings = [
                        Finding::Valid,
                        Finding::Invalid(Distrust::Expired),
                        Finding::Unknown(Doubt::TimedOut),
                    ];
                    let found: Vec<_> = targets.iter().map(|_| *random.pick(&findings)).collect();
                    simulation.tell(In::Probed(&found))
                }
                Step::Dial(addrs) => {
                    assert!(!addrs.is_empty(), "seed {seed}");
                    assert!(addrs.iter().all(|addr| !addr.ip().is_loopback()), "seed {seed}: {addrs:?}");
                    match random.below(4) {
                        0 => simulation.tell(In::Unconnected(*random.pick(&errors))),
                        _ => simulation.tell(In::Connected),
                    }
                }
                Step::Exchange(exchange) if exchange.keep_alive && random.below(4) > 0 => {
                    simulation.tell(In::Answered(&exchange.after_head))
                }
                Step::Exchange(_) => {
                    simulation.tell(In::Broke(CloseReason::ServerReset, random.below(2) == 0))
                }
                Step::Associate(_) => unreachable!("no listener allows it"),
                Step::Tunnel { .. } => {
                    ends.insert("tunnel");
                    break;
                }
                Step::Close(closing) => {
                    assert!(!simulation.session.is_reading(), "seed {seed}");
                    ends.insert(closing.reason.as_str());
                    break;
                }
            };
            assert!(turn < 4 * MOST, "seed {seed}: it goes on without its client");
        }
        let decided = simulation.session.verdict().is_some();
        assert!(decided || simulation.verdicts.0.is_empty(), "seed {seed}");
    }
    assert_eq!(ends.contains("probe"), cfg!(feature = "tls"));
    // It has been everywhere.
    for end in [
        "tunnel",
        "finished",
        "denied",
        "redirected",
        "incomplete",
        "health_check",
        "bad_proxy_header",
        "wrong_protocol",
    ] {
        assert!(ends.contains(end), "no conversation ended by {end}: {ends:?}");
    }
}
