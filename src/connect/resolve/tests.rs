use super::*;
use crate::wire::dns::testing::{Reply, TRUNCATED};
use crate::wire::dns::{TYPE_A, TYPE_AAAA, parse_query};

const TIMEOUT: Duration = Duration::from_millis(2000);
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 53))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A resolver, its clock, and what it wants.
struct Net {
    resolver: Resolver,
    now: Instant,
    open: Vec<Open>,
    /// Queries sent so far, also those answered.
    sent: usize,
    /// Queries sent once more.
    resent: usize,
    answers: Vec<Answer>,
    system: Vec<Arc<str>>,
    askers: usize,
}

/// A query under way.
#[derive(Clone)]
struct Open {
    exchange: ExchangeId,
    server: SocketAddr,
    transport: Transport,
    message: Vec<u8>,
}

impl Net {
    fn new(servers: u8) -> Self {
        let settings = Settings { nameservers: (1..=servers).map(server).collect(), timeout: TIMEOUT };
        let mut id = 0u16;
        let random = move || {
            id += 1;
            id
        };
        Net {
            resolver: Resolver::new(settings, Box::new(random)),
            now: Instant::now(),
            open: Vec::new(),
            sent: 0,
            resent: 0,
            answers: Vec::new(),
            system: Vec::new(),
            askers: 0,
        }
    }

    fn pump(&mut self) {
        while let Some(action) = self.resolver.next_action() {
            match action {
                Action::Open { exchange, server, transport, message } => {
                    self.sent += 1;
                    self.open.push(Open { exchange, server, transport, message });
                }
                Action::Resend { exchange, message } => {
                    let open = self.open.iter().find(|o| o.exchange == exchange).expect("open");
                    assert_eq!((open.transport, &open.message), (Transport::Udp, &message));
                    self.resent += 1;
                }
                Action::Close { exchange } => {
                    let at = self.open.iter().position(|o| o.exchange == exchange).expect("open");
                    self.open.remove(at);
                }
                Action::AskSystem { name, .. } => self.system.push(name),
                Action::Answer(answer) => self.answers.push(answer),
            }
        }
    }

    fn ask(&mut self, name: &str) {
        // Each from a client of its own.
        let source = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(self.askers).unwrap());
        self.ask_from(source.into(), name);
    }

    fn ask_from(&mut self, source: IpAddr, name: &str) {
        self.askers += 1;
        self.resolver.lookup(name, Asker { worker: 0, token: self.askers, source }, self.now);
        self.pump();
    }

    /// The query of that type under way.
    #[track_caller]
    fn query(&self, qtype: u16) -> Open {
        let found = self.open.iter().find(|o| parse_query(&o.message).unwrap().qtype == qtype);
        found.expect("a query of this type").clone()
    }

    #[track_caller]
    fn reply(&mut self, qtype: u16, reply: &Reply) {
        let open = self.query(qtype);
        self.resolver.received(open.exchange, &reply.to(&open.message), self.now);
        self.pump();
    }

    /// Answers what is under way for a name.
    fn reply_to(&mut self, name: &str, reply: &Reply) {
        let is_for = |open: &&Open| &*parse_query(&open.message).unwrap().name == name;
        let open: Vec<Open> = self.open.iter().filter(is_for).cloned().collect();
        assert!(!open.is_empty());
        for open in open {
            self.resolver.received(open.exchange, &reply.to(&open.message), self.now);
            self.pump();
        }
    }

    #[track_caller]
    fn reply_both(&mut self, reply: &Reply) {
        self.reply(TYPE_AAAA, reply);
        self.reply(TYPE_A, reply);
    }

    /// Lets time pass, waking the resolver when it wants to be woken.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.resolver.next_timeout().filter(|at| *at <= end) {
            assert!(at > self.now, "due in the past");
            self.now = at;
            self.resolver.expire(self.now);
            self.pump();
        }
        self.now = end;
    }

    /// The one answer since the last call: addresses, or why not, and for how long.
    #[track_caller]
    fn answer(&mut self) -> (String, Duration) {
        assert_eq!(self.answers.len(), 1, "{:?}", self.answers);
        let answer = self.answers.remove(0);
        let text = match answer.result {
            Ok(addrs) => addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error:?}"),
        };
        (text, answer.valid_until - self.now)
    }

    #[track_caller]
    fn expect(&mut self, text: &str, secs: u64) {
        assert_eq!(self.answer(), (text.to_owned(), Duration::from_secs(secs)));
    }
}

#[test]
fn what_needs_no_question() {
    #[track_caller]
    fn check(name: &str, expected: &str) {
        let mut net = Net::new(1);
        net.resolver.set_hosts(Hosts::parse("192.0.2.77 nas.lan\n0.0.0.0 sub.localhost2"));
        net.ask(name);
        assert_eq!(net.answer().0, expected);
        assert_eq!(net.sent, 0);
        assert_eq!(net.resolver.counts().local, 1);
    }
    check("198.51.100.7", "198.51.100.7");
    check("2001:db8::7", "2001:db8::7");
    check("::ffff:192.0.2.7", "192.0.2.7");
    check("localhost", "::1 127.0.0.1");
    check("LocalHost.", "::1 127.0.0.1");
    check("a.localhost", "::1 127.0.0.1");
    check("NAS.lan", "192.0.2.77");
    check("", "NotFound");
    check("a..b", "NotFound");
    check("a b", "NotFound");
}

#[test]
fn both_families_are_asked_at_once_and_ipv6_comes_first() {
    let mut net = Net::new(1);
    net.ask("Example.com.");
    assert_eq!(net.sent, 2);
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1", "192.0.2.2"], 60));
    assert!(net.answers.is_empty());
    net.reply(TYPE_AAAA, &Reply::addrs(&["2001:db8::1"], 30));
    assert_eq!(&*net.answers[0].name, "example.com");
    net.expect("2001:db8::1 192.0.2.1 192.0.2.2", 30);
    assert!(net.open.is_empty());
    assert_eq!(net.resolver.next_timeout(), None);
}

#[test]
fn slow_ipv6_is_not_waited_for_but_comes_into_the_cache() {
    let mut net = Net::new(1);
    net.ask("example.com");
    net.pass(ms(10));
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1"], 60));
    net.pass(ms(49));
    assert!(net.answers.is_empty());
    net.pass(ms(1));
    net.expect("192.0.2.1", PARTIAL_TTL.as_secs());
    net.pass(ms(500));
    net.reply(TYPE_AAAA, &Reply::addrs(&["2001:db8::1"], 60));
    assert!(net.answers.is_empty());
    net.ask("example.com");
    assert_eq!(net.answer().0, "2001:db8::1 192.0.2.1");
    assert_eq!(net.sent, 2);
}

#[test]
fn ipv6_that_never_comes_stands_in_nobodys_way() {
    let mut net = Net::new(8);
    net.ask("example.com");
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1"], 60));
    net.pass(RESOLUTION_DELAY + PARTIAL_TTL);
    assert_eq!(net.answers.pop().unwrap().result, Ok(Arc::from(["192.0.2.1".parse().unwrap()])));
    // The first lookup is still at it for the cache; the next asker has a lookup of their own.
    assert_eq!(net.open.len(), 1);
    let sent = net.sent;
    net.ask("example.com");
    assert_eq!(net.sent, sent + 2);
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.2"], 60));
    net.pass(RESOLUTION_DELAY);
    net.expect("192.0.2.2", PARTIAL_TTL.as_secs());
    net.pass(TIMEOUT * 8);
    assert!(net.open.is_empty());
    assert_eq!(net.resolver.next_timeout(), None);
}

#[test]
fn slow_ipv4_is_waited_for() {
    let mut net = Net::new(1);
    net.ask("example.com");
    net.reply(TYPE_AAAA, &Reply::addrs(&["2001:db8::1"], 60));
    net.pass(ms(1000));
    assert!(net.answers.is_empty());
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "2001:db8::1 192.0.2.1");
}

#[test]
fn one_family_is_enough() {
    #[track_caller]
    fn check(v6: &Reply, v4: &Reply, expected: &str) {
        let mut net = Net::new(1);
        net.ask("example.com");
        net.reply(TYPE_AAAA, v6);
        net.reply(TYPE_A, v4);
        assert_eq!(net.answer().0, expected);
    }
    let found = &Reply::addrs(&["192.0.2.1", "2001:db8::1"], 60);
    let [none, absent, failed] = &[0, NXDOMAIN, SERVFAIL].map(Reply::flags);
    check(failed, found, "192.0.2.1");
    check(none, found, "192.0.2.1");
    check(absent, found, "192.0.2.1");
    check(found, failed, "2001:db8::1");
    check(found, absent, "2001:db8::1");
    check(none, none, "NotFound");
    check(absent, none, "NotFound");
    check(failed, absent, "NotFound");
    check(failed, none, "Failed");
    check(none, failed, "Failed");
    check(failed, failed, "Failed");
}

#[test]
fn a_name_that_does_not_exist_is_final() {
    let mut net = Net::new(3);
    net.ask("example.com");
    net.reply(TYPE_A, &Reply::flags(NXDOMAIN));
    net.expect("NotFound", ABSENT_TTL.as_secs());
    assert!(net.open.is_empty());
    net.ask("example.com");
    net.expect("NotFound", ABSENT_TTL.as_secs());
    assert_eq!(net.sent, 2);
}

#[test]
fn what_a_server_cannot_say_the_next_is_asked_at_once() {
    #[track_caller]
    fn check(fail: impl Fn(&mut Net, Open)) {
        let mut net = Net::new(2);
        net.ask("example.com");
        for qtype in [TYPE_AAAA, TYPE_A] {
            let open = net.query(qtype);
            assert_eq!(open.server, server(1));
            fail(&mut net, open);
            net.pump();
            assert_eq!(net.query(qtype).server, server(2));
        }
        assert_eq!(net.resolver.counts().errors, 2);
        net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
        assert_eq!(net.answer().0, "192.0.2.1");
    }
    for rcode in [1, SERVFAIL, 4, REFUSED] {
        check(|net, open| {
            net.resolver.received(open.exchange, &Reply::flags(rcode).to(&open.message), net.now);
        });
    }
    check(|net, open| net.resolver.exchange_failed(open.exchange, net.now));
    check(|net, open| {
        let mut message = Reply::addrs(&["192.0.2.1", "2001:db8::1"], 60).to(&open.message);
        message.pop();
        net.resolver.received(open.exchange, &message, net.now);
    });
}

#[test]
fn a_silent_server_has_its_time_then_the_next() {
    let mut net = Net::new(2);
    net.ask("example.com");
    net.pass(TIMEOUT - ms(1));
    assert_eq!(net.query(TYPE_A).server, server(1));
    net.pass(ms(1));
    assert_eq!(net.query(TYPE_A).server, server(2));
    assert_eq!(net.open.len(), 2);
    net.pass(TIMEOUT);
    net.expect("Failed", FAILED_TTL.as_secs());
    assert!(net.open.is_empty());
    assert_eq!(net.resolver.counts().timeouts, 4);
    // Remembered, then tried anew.
    net.ask("example.com");
    net.expect("Failed", FAILED_TTL.as_secs());
    net.pass(FAILED_TTL);
    net.ask("example.com");
    assert_eq!(net.open.len(), 2);
}

#[test]
fn a_lost_datagram_is_sent_once_more() {
    let mut net = Net::new(1);
    net.ask("example.com");
    net.pass(TIMEOUT / 2 - ms(1));
    assert_eq!(net.resent, 0);
    net.pass(ms(1));
    assert_eq!(net.resent, 2);
    net.pass(ms(10));
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "192.0.2.1");
    assert_eq!((net.sent, net.resent), (2, 2));
}

#[test]
fn what_was_not_asked_for_is_ignored() {
    let mut net = Net::new(1);
    net.ask("example.com");
    let open = net.query(TYPE_A);
    let good = Reply::addrs(&["192.0.2.66"], 60).to(&open.message);
    for at in [1, 14, 26] {
        // The id, the name, the type.
        let mut forged = good.clone();
        forged[at] ^= 1;
        net.resolver.received(open.exchange, &forged, net.now);
        net.pump();
        assert_eq!(net.open.len(), 2, "byte {at}");
    }
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "192.0.2.1");
    // Late: the exchange is closed.
    net.resolver.received(open.exchange, &good, net.now);
    net.resolver.exchange_failed(open.exchange, net.now);
    net.pump();
    assert!(net.answers.is_empty());
}

#[test]
fn what_did_not_fit_is_asked_over_tcp() {
    let mut net = Net::new(2);
    net.ask("example.com");
    net.reply(TYPE_AAAA, &Reply::flags(0));
    net.reply(TYPE_A, &Reply::flags(TRUNCATED));
    let open = net.query(TYPE_A);
    assert_eq!((open.server, open.transport), (server(1), Transport::Tcp));
    net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "192.0.2.1");
    // Cut off there, too: that server is of no use.
    net.ask("example.org");
    net.reply(TYPE_A, &Reply::flags(TRUNCATED));
    net.reply(TYPE_A, &Reply::flags(TRUNCATED));
    let open = net.query(TYPE_A);
    assert_eq!((open.server, open.transport), (server(2), Transport::Udp));
}

#[test]
fn equal_lookups_are_one() {
    let mut net = Net::new(1);
    for _ in 0..50 {
        net.ask("example.com");
        net.ask("EXAMPLE.com.");
    }
    assert_eq!(net.sent, 2);
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    let mut tokens: Vec<usize> = net.answers.iter().map(|a| a.asker.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (1..=100).collect::<Vec<_>>());
    assert_eq!(net.resolver.counts().joined, 99);
}

#[test]
fn times_to_live_have_bounds() {
    #[track_caller]
    fn check(ttl_secs: u32, kept_secs: u64) {
        let mut net = Net::new(1);
        net.ask("example.com");
        net.reply_both(&Reply::addrs(&["192.0.2.1"], ttl_secs));
        net.expect("192.0.2.1", kept_secs);
        net.pass(Duration::from_secs(kept_secs) - ms(1));
        net.ask("example.com");
        assert_eq!((net.answers.len(), net.sent), (1, 2));
        net.pass(ms(1));
        net.ask("example.com");
        assert_eq!((net.answers.len(), net.sent), (1, 4));
    }
    check(0, 1);
    check(300, 300);
    check(u32::MAX / 2, 3600);
}

#[test]
fn lookups_and_waiters_are_bounded() {
    let mut net = Net::new(1);
    for n in 0..MAX_LOOKUPS {
        net.ask(&format!("host{n}.example"));
    }
    for _ in 1..MAX_WAITERS {
        net.ask("host0.example");
    }
    assert!(net.answers.is_empty());
    for name in ["other.example", "host0.example"] {
        net.ask(name);
        net.expect("Failed", 0);
    }
    assert_eq!(net.resolver.counts().limited, 2);
    // Failure by a bound is not remembered.
    net.pass(TIMEOUT);
    net.answers.clear();
    net.ask("other.example");
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "192.0.2.1");
}

/// One client with as many names that nobody answers for as there were places was enough to stop all others.
#[test]
fn a_source_has_a_share_of_the_lookups() {
    let [greedy, other] = ["192.168.1.66", "192.168.1.20"].map(|addr| addr.parse::<IpAddr>().unwrap());
    let mut net = Net::new(1);
    for n in 0..MAX_LOOKUPS_PER_SOURCE {
        net.ask_from(greedy, &format!("host{n}.example"));
    }
    net.ask_from(greedy, "one.too.many.example");
    net.expect("Failed", 0);
    // What is under way already costs nothing more.
    net.ask_from(greedy, "host0.example");
    assert!(net.answers.is_empty());
    net.ask_from(other, "example.com");
    net.reply_to("example.com", &Reply::addrs(&["192.0.2.1", "2001:db8::1"], 60));
    assert_eq!(net.answer().0, "2001:db8::1 192.0.2.1");
    assert_eq!(net.resolver.counts().limited, 1);
    // The share comes back.
    net.pass(TIMEOUT);
    net.answers.clear();
    net.ask_from(greedy, "one.too.many.example");
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answer().0, "192.0.2.1");
}

#[test]
fn lookups_that_nobody_waits_for_make_room() {
    let mut net = Net::new(1);
    for n in 0..MAX_LOOKUPS {
        net.ask(&format!("host{n}.example"));
        if n == 0 {
            net.reply(TYPE_A, &Reply::addrs(&["192.0.2.1"], 60));
            net.pass(RESOLUTION_DELAY);
            assert_eq!(net.answer().0, "192.0.2.1");
        }
    }
    net.ask("other.example");
    assert!(net.answers.is_empty());
    assert_eq!(net.open.len(), 2 * MAX_LOOKUPS);
}

#[test]
fn new_settings_count_for_new_lookups() {
    let mut net = Net::new(1);
    net.ask("example.com");
    net.resolver.configure(Settings { nameservers: vec![server(9)], timeout: TIMEOUT });
    net.pass(ms(1));
    net.ask("example.com");
    assert_eq!(net.query(TYPE_A).server, server(1));
    net.reply_both(&Reply::addrs(&["192.0.2.1"], 60));
    assert_eq!(net.answers.len(), 2);
    net.ask("example.org");
    assert_eq!(net.query(TYPE_A).server, server(9));
}

#[test]
fn without_nameservers_the_system_is_asked() {
    let mut net = Net::new(0);
    net.ask("Example.com");
    net.ask("example.com");
    assert_eq!(net.system, ["example.com".into()]);
    let mapped = "::ffff:192.0.2.2".parse().unwrap();
    let addrs = vec!["192.0.2.1".parse().unwrap(), mapped, "2001:db8::1".parse().unwrap()];
    net.resolver.system_answered("example.com", Some(Ok(addrs)), net.now);
    net.pump();
    assert_eq!(net.answers.len(), 2);
    net.answers.pop();
    net.expect("2001:db8::1 192.0.2.1 192.0.2.2", SYSTEM_TTL.as_secs());
    net.ask("example.com");
    net.expect("2001:db8::1 192.0.2.1 192.0.2.2", SYSTEM_TTL.as_secs());
    assert_eq!(net.system.len(), 1);
}

#[test]
fn a_system_that_hangs_is_asked_once_and_waited_for_so_long() {
    let mut net = Net::new(0);
    net.ask("example.com");
    net.pass(TIMEOUT * 2 - ms(1));
    assert!(net.answers.is_empty());
    net.pass(ms(1));
    net.expect("Failed", FAILED_TTL.as_secs());
    net.pass(FAILED_TTL);
    net.ask("example.com");
    assert_eq!(net.system.len(), 1);
    net.pass(ms(100));
    net.resolver.system_answered("example.com", Some(Ok(vec!["192.0.2.1".parse().unwrap()])), net.now);
    net.pump();
    assert_eq!(net.answer().0, "192.0.2.1");
}

#[test]
fn the_systems_refusals() {
    #[track_caller]
    fn check(result: Option<Result<Vec<IpAddr>, ResolveError>>, expected: &str, secs: u64) {
        let mut net = Net::new(0);
        net.ask("example.com");
        net.resolver.system_answered("example.com", result, net.now);
        net.pump();
        net.expect(expected, secs);
    }
    check(Some(Ok(Vec::new())), "NotFound", 5);
    check(Some(Err(ResolveError::NotFound)), "NotFound", 5);
    check(Some(Err(ResolveError::Failed)), "Failed", 5);
    check(None, "Failed", 0);
}
