//! Conversations of flows: datagrams, answers and time on the left, what the flow does on the right.

use std::net::SocketAddr;

use super::*;
use crate::decide::week::WeekTime;
use crate::identify::datagram::MAX_DATAGRAMS;
use crate::metrics::Metrics;
use crate::session::budget::MAX_LARGE_PRELUDES;
use crate::session::flow::{Act, Answer, Flow};
use crate::session::record::Kept;
use crate::session::surroundings::Surroundings;
use crate::wire::quic::tests::client::{Client, crypto};
use crate::wire::quic::{MAX_CRYPTO, MAX_PACKETS, Version};

const DEST: &str = "198.51.100.1:443";
const LISTENER: &str = "mode: transparent, tproxy: true, udp: true, tcp: false";

/// One client's flows, one after the other, to the same destination.
struct Flows {
    start: Instant,
    now: Instant,
    plan: Arc<Plan>,
    client: SocketAddr,
    dest: SocketAddr,
    memory: Memory,
    preludes: Arc<Budget>,
    verdicts: Verdicts,
    wall: Wall,
    flow: Option<Flow<Session>>,
    connected: bool,
}

impl Flows {
    fn new(rules: &[&str]) -> Self {
        Self::with(&config(LISTENER, rules))
    }

    fn with(config: &str) -> Self {
        let now = Instant::now();
        Flows {
            start: now,
            now,
            plan: load(config),
            client: CLIENT.parse().unwrap(),
            dest: DEST.parse().unwrap(),
            // Long ago: nothing is forgiven any more.
            memory: Memory::new(now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)),
            preludes: Arc::default(),
            verdicts: Verdicts::default(),
            wall: Wall(WeekTime::new(1, 12, 0)),
            flow: None,
            connected: false,
        }
    }

    /// Lets the flow, or a new one, do something; what it does, in words.
    fn tell(
        &mut self,
        f: impl FnOnce(&mut Option<Flow<Session>>, &mut Kept, &Metrics, &mut Env<'_>) -> Act,
    ) -> String {
        let locals = Locals::default();
        let (mut kept, metrics) = (Kept::default(), Metrics::new());
        let Flows { plan, memory, preludes, verdicts, flow, wall, .. } = self;
        let surroundings = &*wall;
        let env = &mut Env {
            now: self.now,
            plan,
            locals: &locals,
            preludes,
            memory,
            surroundings,
            report: verdicts,
        };
        let mut act = f(flow, &mut kept, &metrics, env);
        let mut words = Vec::new();
        // As the engine does: a socket can always be had.
        while let Act::Connect(addrs) = act {
            words.push(if self.connected { "connected" } else { "connect" }.to_owned());
            self.connected = true;
            let Some(flow) = flow else { panic!("no flow") };
            act = flow.connected(addrs[0], LOCAL.parse().unwrap(), &mut kept, &metrics, env);
        }
        let over = match act {
            Act::Wait => {
                words.push("wait".to_owned());
                false
            }
            Act::Pass => {
                words.push("pass".to_owned());
                false
            }
            Act::Send(held) => {
                words.push(format!("send {}", held.len()));
                false
            }
            Act::Resolve(name) => {
                words.push(format!("resolve {name}"));
                false
            }
            Act::End(reason) => {
                words.push(format!("end {}", reason.as_str()));
                true
            }
            Act::Refuse(reason, said) => {
                let said = if said.is_some() { "aloud" } else { "silently" };
                words.push(format!("refuse {} {said}", reason.as_str()));
                true
            }
            Act::Connect(_) => unreachable!("done above"),
        };
        if over && let Some(mut flow) = flow.take() {
            flow.over(env);
            self.connected = false;
        }
        let mut all = std::mem::take(&mut self.verdicts.0);
        all.append(&mut words);
        all.join(", ")
    }

    /// The client sends this.
    fn sends(&mut self, datagram: &[u8]) -> String {
        let listener = Arc::new(self.plan.service.listeners[0].clone());
        let (client, dest) = (self.client, self.dest);
        self.tell(|flow, kept, metrics, env| match flow {
            Some(flow) => flow.datagram(datagram, kept, metrics, env),
            None => {
                let (begun, act) =
                    Flow::begin(&listener, client, None, Wish::Address(dest), false, datagram, env);
                *flow = Some(begun);
                act
            }
        })
    }

    /// The server answers this.
    fn answers(&mut self, datagram: &[u8]) -> Answer {
        let mut instead = Answer::Lost;
        self.tell(|flow, _, _, env| {
            instead = flow.as_mut().unwrap().answer(datagram, env);
            Act::Wait
        });
        instead
    }

    /// Nothing happens until something is due: after how many milliseconds, and what.
    fn silence(&mut self) -> String {
        let due = self.flow.as_ref().unwrap().due().unwrap();
        let ms = due.duration_since(self.now).as_millis();
        self.now = due;
        let done = self.tell(|flow, _, _, env| flow.as_mut().unwrap().expired(env));
        format!("after {ms}: {done}")
    }

    /// The resolver has found this.
    fn resolves(&mut self, addr: &str) -> String {
        let addr = addr.parse().unwrap();
        self.tell(|flow, _, _, env| flow.as_mut().unwrap().resolved(Ok(vec![addr]), env))
    }

    fn pause(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }
}

/// A clock on the wall that shows what it is set to, for as long as a minute.
struct Wall(WeekTime);

impl Surroundings for Wall {
    fn week_time(&self) -> (WeekTime, Duration) {
        (self.0, Duration::from_secs(60))
    }
}

/// A client's first datagram, with a hello for this name.
fn initial(name: &str, dcid: &[u8; 8]) -> Vec<u8> {
    client(dcid).datagram(0, &crypto(0, &quic_hello(name)))
}

fn client(dcid: &[u8; 8]) -> Client {
    Client { dcid: dcid.to_vec(), keys_of: dcid.to_vec(), ..Client::new(Version::V1) }
}

fn quic_hello(name: &str) -> Vec<u8> {
    fixture::HelloBody::new(vec![fixture::server_name(name), fixture::supported_versions(&[0x0304])])
        .message()
}

const SHORT: &[u8] = b"\x40 from inside a connection";
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x41\0\x01";

#[test]
fn what_needs_no_first_bytes_goes_on_at_once() {
    let mut flows = Flows::new(&["port: 443, action: accept"]);
    assert_eq!(flows.sends(b"anything"), "Accept 0, connect, send 1");
    assert_eq!(flows.sends(b"more"), "pass");
    flows.pause(119);
    assert_eq!(flows.answers(b"yes"), Answer::Same);
    assert_eq!(flows.silence(), "after 120000: end idle");
    let mut flows = Flows::new(&["port: 53, action: accept"]);
    assert_eq!(flows.sends(b"anything"), "Denied default, refuse denied silently");
    assert_eq!(flows.sends(&initial("a.example", b"12345678")), "Denied default, refuse denied aloud");
}

#[test]
fn a_hello_in_two_datagrams_is_waited_for_twice_the_time_of_first_bytes() {
    let hello = quic_hello("www.example.com");
    let (front, back) = hello.split_at(20);
    let quic = client(b"12345678");
    let (first, second) = (quic.datagram(0, &crypto(0, front)), quic.datagram(1, &crypto(20, back)));
    let mut flows = Flows::new(&["dns: www.example.com, action: accept"]);
    assert_eq!(flows.sends(&first), "wait");
    flows.pause(1);
    assert_eq!(flows.sends(SHORT), "wait");
    assert_eq!(flows.sends(&second), "Accept 0, connect, send 3");
    let mut flows = Flows::new(&["dns: www.example.com, action: accept"]);
    assert_eq!(flows.sends(&first), "wait");
    assert_eq!(flows.silence(), "after 2000: Denied incomplete, refuse incomplete aloud");
    // Bounded, however many come.
    for n in 1..MAX_DATAGRAMS {
        assert_eq!(flows.sends(&quic.datagram(n as u16, &crypto(0, front))), "wait");
    }
    assert_eq!(flows.sends(SHORT), "Denied incomplete, refuse incomplete aloud");
}

/// A server has one port for many names: a first connection to an allowed one must not open the way for others.
#[test]
fn another_connection_in_the_same_flow_is_decided_by_itself() {
    let rules = ["dns: '*.bad.example', action: deny", "protoL5: quic, action: accept"];
    let mut flows = Flows::new(&rules);
    let good = initial("www.example.com", b"12345678");
    assert_eq!(flows.sends(&good), "Accept 1, connect, send 1");
    assert_eq!(flows.sends(SHORT), "pass");
    // The same again: the server's answer was lost, or there was a Retry.
    assert_eq!(flows.sends(&good), "pass");
    let retried =
        client(b"12345678").after_retry(b"87654321").datagram(1, &crypto(0, &quic_hello("www.example.com")));
    assert_eq!(flows.sends(&retried), "pass");
    // Another hello under the same connection id is another connection.
    assert_eq!(flows.sends(&initial("a.bad.example", b"12345678")), "Denied 0, refuse denied aloud");

    assert_eq!(flows.sends(&good), "Accept 1, connect, send 1");
    assert_eq!(flows.sends(&initial("a.bad.example", b"abcdefgh")), "Denied 0, refuse denied aloud");

    assert_eq!(flows.sends(&good), "Accept 1, connect, send 1");
    assert_eq!(flows.sends(&initial("b.example", b"abcdefgh")), "Accept 1, connected, send 1");
    // Half of one waits, and what belongs to the first goes on.
    let hello = quic_hello("c.example");
    let third = client(b"ijklmnop");
    assert_eq!(flows.sends(&third.datagram(0, &crypto(0, &hello[..70]))), "wait");
    assert_eq!(flows.sends(SHORT), "pass");
    assert_eq!(flows.sends(&third.datagram(1, &crypto(70, &hello[70..]))), "Accept 1, connected, send 2");
    // By the rules that are in force then.
    flows.plan = load(&config(LISTENER, &["action: deny"]));
    assert_eq!(flows.sends(SHORT), "pass");
    assert_eq!(flows.sends(&initial("d.example", b"qrstuvwx")), "Denied 0, refuse denied aloud");
}

/// Servers pay no attention to what is not theirs: a query, or noise, must not open the way for a connection.
#[test]
fn a_connection_in_a_flow_of_something_else_is_decided_by_itself() {
    let ntp = [&[0x23][..], &[0; 47]].concat();
    let (good, bad) = (initial("www.example.com", b"12345678"), initial("a.bad.example", b"abcdefgh"));
    let rules = ["dns: '*.bad.example', action: deny", "protoL5: [dns, ntp, none, quic], action: accept"];
    for other in [QUERY, &ntp, b"\x01 noise"] {
        let mut flows = Flows::new(&rules);
        assert_eq!(flows.sends(other), "Accept 1, connect, send 1");
        assert_eq!(flows.sends(other), "pass");
        assert_eq!(flows.sends(SHORT), "pass");
        assert_eq!(flows.sends(&good), "Accept 1, connected, send 1");
        assert_eq!(flows.sends(&good), "pass");
        assert_eq!(flows.sends(&bad), "Denied 0, refuse denied aloud");
        // Where nobody reads QUIC, and where no rule wants to know, there is nothing to be decided.
        for config in [
            format!("{}parse: {{ quic: false }}\n", config(LISTENER, &rules)),
            config(LISTENER, &["action: accept"]),
        ] {
            let mut flows = Flows::with(&config);
            assert!(flows.sends(other).ends_with("connect, send 1"));
            assert_eq!(flows.sends(&bad), "pass");
        }
    }
}

/// What comes while an address is looked up was not looked at when it came.
#[test]
fn a_connection_that_begins_while_the_first_one_waits_does_not_go_with_it() {
    let rules = ["dns: '*.bad.example', action: deny", "protoL5: quic, action: accept"];
    let mut flows = Flows::with(&config(&format!("{LISTENER}, target: name"), &rules));
    let good = initial("www.example.com", b"12345678");
    assert_eq!(flows.sends(&good), "resolve www.example.com");
    assert_eq!(flows.sends(&initial("a.bad.example", b"abcdefgh")), "wait");
    assert_eq!(flows.sends(&good), "wait");
    assert_eq!(flows.sends(SHORT), "wait");
    assert_eq!(flows.resolves("203.0.113.7"), "Accept 1, connect, send 3");
    assert_eq!(flows.sends(&initial("a.bad.example", b"abcdefgh")), "Denied 0, refuse denied aloud");
}

/// More packets than are looked at could hide one behind them.
#[test]
fn a_connection_that_begins_behind_too_many_packets_is_none_that_is_let_in() {
    let rules = ["dns: '*.bad.example', action: deny", "protoL5: quic, action: accept"];
    let quic = client(b"12345678");
    let hidden = [quic.other(0xd0).repeat(MAX_PACKETS), initial("a.bad.example", b"12345678")].concat();
    let mut flows = Flows::new(&rules);
    assert_eq!(flows.sends(&initial("www.example.com", b"12345678")), "Accept 1, connect, send 1");
    assert_eq!(flows.sends(&hidden), "Denied incomplete, refuse incomplete aloud");
    assert_eq!(flows.sends(&hidden), "Denied incomplete, refuse incomplete aloud");
}

/// What is inside of QUIC nobody here can see: over TCP it can be seen.
#[cfg(feature = "intercept")]
#[test]
fn quic_is_refused_where_a_rule_would_decrypt() {
    let config = super::interception::intercepting(LISTENER, &["action: intercept"]);
    let mut flows = Flows::with(&config);
    let quic = initial("www.example.com", b"12345678");
    assert_eq!(flows.sends(&quic), "Denied 0, refuse denied aloud");
    assert_eq!(flows.sends(QUERY), "Accept 0, connect, send 1");
    assert_eq!(flows.sends(&quic), "Denied 0, refuse denied aloud");
}

/// After a while nobody retransmits: then the same packet is a new connection, and its hello is looked at again.
#[test]
fn a_late_repetition_is_decided_again() {
    let mut flows = Flows::new(&["protoL5: quic, action: accept"]);
    let good = initial("www.example.com", b"12345678");
    assert_eq!(flows.sends(&good), "Accept 0, connect, send 1");
    flows.pause(9);
    assert_eq!(flows.sends(&good), "pass");
    flows.pause(1);
    assert_eq!(flows.sends(&good), "Accept 0, connected, send 1");
}

#[test]
fn a_client_that_moves_goes_on_where_it_was_let_in() {
    let rules = ["dns: www.example.com, action: accept"];
    let mut flows = Flows::new(&rules);
    assert_eq!(flows.sends(SHORT), "Denied incomplete, refuse incomplete silently");
    assert_eq!(flows.sends(&initial("www.example.com", b"12345678")), "Accept 0, connect, send 1");
    // Another port of the same client, while the old flow still stands.
    let old = flows.flow.take();
    flows.connected = false;
    flows.client.set_port(1);
    assert_eq!(flows.sends(SHORT), "Accept 0, connect, send 1");
    assert_eq!(flows.silence(), "after 120000: end idle");
    flows.flow = old;
    assert_eq!(flows.silence(), "after 0: end idle");
    // Both are gone: remembered for as long as a flow is.
    flows.pause(119);
    assert_eq!(flows.sends(SHORT), "Accept 0, connect, send 1");
    assert_eq!(flows.silence(), "after 120000: end idle");
    flows.pause(120);
    assert_eq!(flows.sends(SHORT), "Denied incomplete, refuse incomplete silently");

    assert_eq!(flows.sends(&initial("www.example.com", b"12345678")), "Accept 0, connect, send 1");
    flows.flow = None;
    // Another client, another destination, other rules.
    flows.client.set_ip([192, 168, 1, 21].into());
    assert_eq!(flows.sends(SHORT), "Denied incomplete, refuse incomplete silently");
    flows.client = CLIENT.parse().unwrap();
    flows.dest.set_ip([198, 51, 100, 2].into());
    assert_eq!(flows.sends(SHORT), "Denied incomplete, refuse incomplete silently");
    flows.dest = DEST.parse().unwrap();
    flows.plan = load(&config(LISTENER, &["dns: other.example, action: accept"]));
    assert_eq!(flows.sends(SHORT), "Denied default, refuse denied silently");
}

#[test]
fn after_a_start_a_connection_may_be_older_than_the_program() {
    let mut flows =
        Flows::new(&["dns: www.example.com, action: accept", "port: 443, protoL5: quic, action: accept"]);
    flows.memory = Memory::new(flows.start);
    flows.pause(59);
    assert_eq!(flows.sends(SHORT), "Accept 1, connect, send 1");
    flows.flow = None;
    let mut flows = Flows::new(&["dns: www.example.com, action: accept"]);
    flows.memory = Memory::new(flows.start);
    assert_eq!(flows.sends(SHORT), "Denied default, refuse denied silently");
}

#[test]
fn a_flow_of_dns_ends_when_all_is_answered() {
    let mut flows = Flows::new(&["port: 443, action: accept"]);
    assert_eq!(flows.sends(QUERY), "Accept 0, connect, send 1");
    assert_eq!(flows.sends(QUERY), "pass");
    flows.answers(b"one");
    assert_eq!(flows.silence(), "after 10000: end idle");
    let mut flows = Flows::new(&["protoL5: dns, action: accept"]);
    assert_eq!(flows.sends(QUERY), "Accept 0, connect, send 1");
    assert_eq!(flows.sends(QUERY), "pass");
    flows.answers(b"one");
    flows.answers(b"two");
    assert_eq!(flows.silence(), "after 1000: end finished");
}

/// An answer to a question for HTTPS records, that publishes ECH with this public name.
fn answer_with_ech(public_name: &str) -> (Vec<u8>, Vec<u8>) {
    let vec16 = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let contents = [
        &[7, 0, 0x20][..],
        &vec16(&[0x55; 32]),
        &vec16(&[0, 1, 0, 1]),
        &[0, u8::try_from(public_name.len()).unwrap()],
        public_name.as_bytes(),
        &vec16(b""),
    ]
    .concat();
    let ech = vec16(&[&[0xfe, 0x0d][..], &vec16(&contents)].concat());
    let answer = |params: &[u8]| {
        let data = [&[0, 1, 0][..], b"\0\x01\0\x03\x02h2", params].concat();
        [
            b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0",
            &QUERY[12..],
            b"\xc0\x0c\0\x41\0\x01\0\0\x01\x2c",
            &vec16(&data),
        ]
        .concat()
    };
    (answer(&[&[0, 5][..], &vec16(&ech)].concat()), answer(b""))
}

#[test]
fn ech_is_taken_out_of_answers_and_public_names_are_learnt() {
    let (with, without) = answer_with_ech("public.example");
    for strip in [false, true] {
        let rules = ["ech: real, action: deny", "action: accept"];
        let text = format!("{}dns: {{ stripEch: {strip} }}\n", config(LISTENER, &rules));
        let mut flows = Flows::with(&text);
        let ech = |name: &str| {
            let extensions = vec![fixture::server_name(name), (0xfe0d, vec![0])];
            client(b"12345678").datagram(0, &crypto(0, &fixture::HelloBody::new(extensions).message()))
        };
        assert_eq!(flows.sends(&ech("public.example")), "Accept 1, connect, send 1");
        flows.flow = None;
        assert_eq!(flows.sends(QUERY), "Accept 1, connected, send 1");
        assert_eq!(flows.answers(b"no answer"), Answer::Same);
        let stripped = if strip { Answer::Other(without.clone()) } else { Answer::Same };
        assert_eq!(flows.answers(&with), stripped);
        assert_eq!(flows.answers(&without), Answer::Same);
        flows.flow = None;
        assert_eq!(flows.sends(&ech("public.example")), "Denied 0, refuse denied aloud");
        assert_eq!(flows.sends(&ech("other.example")), "Accept 1, connect, send 1");
        flows.flow = None;
        flows.client.set_ip([192, 168, 1, 21].into());
        assert_eq!(flows.sends(&ech("public.example")), "Accept 1, connected, send 1");
    }
}

#[test]
fn a_rules_limits_and_its_time_bind_flows() {
    let mut flows = Flows::new(&["action: accept, limit: {connections: 1, rate: 80kbit}"]);
    assert_eq!(flows.sends(SHORT), "Accept 0, connect, send 1");
    // 10 kB/s, and 200 ms ahead of that.
    let passed = (0..10).filter(|_| flows.sends(&[0x40; 1000]) == "pass").count();
    assert_eq!(passed, 3);
    let answered = (0..10).filter(|_| flows.answers(&[0; 1000]) == Answer::Same).count();
    assert_eq!(answered, 3);
    flows.pause(1);
    assert_eq!(flows.sends(SHORT), "pass");
    let first = flows.flow.take();
    flows.connected = false;
    flows.client.set_port(1);
    assert_eq!(flows.sends(SHORT), "Denied 0, refuse limit silently");
    assert_eq!(flows.sends(&initial("a.example", b"12345678")), "Denied 0, refuse limit aloud");
    drop(first);
    assert_eq!(flows.sends(SHORT), "Accept 0, connect, send 1");

    let rules = ["time: '10:00-12:01', action: accept"];
    let mut flows = Flows::with(&format!("{}endAtClose: true\n", config(LISTENER, &rules)));
    assert_eq!(flows.sends(SHORT), "Accept 0, connect, send 1");
    assert_eq!(flows.silence(), "after 60005: wait");
    flows.wall = Wall(WeekTime::new(1, 12, 1));
    assert_eq!(flows.sends(SHORT), "pass");
    assert_eq!(flows.silence(), "after 60005: end window_closed");
}

/// The last byte of a large hello makes room for all of it, however little else has come.
#[test]
fn half_initials_take_no_more_memory_than_there_is() {
    let mut flows = Flows::new(&["protoL5: quic, action: accept"]);
    let ordinary = client(b"12345678").datagram(0, &crypto(0, &quic_hello("www.example.com")[..20]));
    let last = client(b"12345678").datagram(0, &crypto(MAX_CRYPTO - 1, b"x"));
    let mut waiting = Vec::new();
    let refused = (1..u16::MAX).find(|&port| {
        flows.client.set_port(port);
        let done = flows.sends(&last);
        if done == "wait" {
            waiting.push(flows.flow.take());
        }
        done != "wait"
    });
    assert!(refused.is_some_and(|port| usize::from(port) < MAX_LARGE_PRELUDES / MAX_CRYPTO));
    assert_eq!(flows.sends(&last), "Denied incomplete, refuse incomplete aloud");
    assert_eq!(flows.sends(&ordinary), "wait", "others have room all the same");
    flows.flow = None;
    // As soon as some are gone there is room again.
    waiting.truncate(10);
    assert_eq!(flows.sends(&last), "wait");
}

#[test]
fn a_flow_that_is_let_in_while_the_daemon_stops_ends_as_soon_as_others() {
    let hello = quic_hello("www.example.com");
    let quic = client(b"12345678");
    let mut flows = Flows::new(&["dns: www.example.com, action: accept"]);
    assert_eq!(flows.sends(&quic.datagram(0, &crypto(0, &hello[..20]))), "wait");
    let now = flows.now;
    flows.flow.as_mut().unwrap().wind_up(now, Duration::from_secs(1));
    let rest = quic.datagram(1, &crypto(20, &hello[20..]));
    assert_eq!(flows.sends(&rest), "Accept 0, connect, send 2");
    assert_eq!(flows.silence(), "after 1000: end idle");
}
