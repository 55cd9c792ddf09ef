//! The resolver, driven by whatever can happen: bounded, no exchange left open, every asker answered exactly once.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calamary::connect::resolve::hosts::Hosts;
use calamary::connect::resolve::{
    Action, Asker, ExchangeId, MAX_LOOKUPS, MAX_WAITERS, ResolveError, Resolver, Settings, Transport,
};
use calamary::wire::dns::{TYPE_A, TYPE_AAAA, parse_query};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const MAX_EVENTS: usize = 64;
/// Deadlines that may pass until nothing is under way: two questions at eight servers, over two transports, each sent
/// once more, for every lookup.
const MAX_DEADLINES: usize = 2 * 8 * 2 * 2 * (MAX_LOOKUPS + 1);
const NAMES: [&str; 9] = [
    "example.com",
    "EXAMPLE.com.",
    "www.example.com",
    "nas.lan",
    "localhost",
    "192.0.2.9",
    "not a name",
    "",
    "a.b.c.d.example",
];

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let Ok(settings) = settings(u) else { return };
    let mut net = Net::new(settings);
    for _ in 0..MAX_EVENTS {
        // Input that ends is silence from here on.
        if u.is_empty() || net.event(u).is_err() {
            break;
        }
        net.pump();
    }
    net.come_to_an_end();
});

/// A resolver and what it has under way.
struct Net {
    resolver: Resolver,
    now: Instant,
    /// By the exchange's number.
    open: BTreeMap<usize, Open>,
    system: Vec<Arc<str>>,
    /// The names asked for, by the asker's token; none once it is answered.
    asked: Vec<Option<String>>,
}

struct Open {
    exchange: ExchangeId,
    transport: Transport,
    message: Vec<u8>,
}

impl Net {
    fn new(settings: Settings) -> Self {
        let mut id = 0u16;
        let random = move || {
            id = id.wrapping_add(1);
            id
        };
        Net {
            resolver: Resolver::new(settings, Box::new(random)),
            now: Instant::now(),
            open: BTreeMap::new(),
            system: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn event(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=11)? {
            0..=2 => self.ask(u.choose(&NAMES)?),
            3 if u.ratio(1, 8)? => {
                let count = u.int_in_range(1..=2 * MAX_LOOKUPS)?;
                (0..count).for_each(|n| self.ask(&format!("host{n}.example")));
            }
            4 if u.ratio(1, 8)? => {
                let count = u.int_in_range(1..=MAX_WAITERS + 1)?;
                (0..count).for_each(|_| self.ask(NAMES[0]));
            }
            5..=7 if !self.open.is_empty() => {
                let open = self.any_open(u)?;
                let (exchange, message) = (open.exchange, reply(&open.message, u)?);
                self.resolver.received(exchange, &message, self.now);
            }
            8 if !self.open.is_empty() => {
                let exchange = self.any_open(u)?.exchange;
                self.resolver.exchange_failed(exchange, self.now);
            }
            9 if !self.system.is_empty() => {
                let name = self.system.swap_remove(u.choose_index(self.system.len())?);
                let result = match u.int_in_range(0..=3)? {
                    0 => None,
                    1 => Some(Err(ResolveError::NotFound)),
                    2 => Some(Err(ResolveError::Failed)),
                    _ => Some(Ok(vec![IpAddr::from([192, 0, 2, 1]); u.int_in_range(0..=2)?])),
                };
                self.resolver.system_answered(&name, result, self.now);
            }
            10 if u.ratio(1, 4)? => match u.arbitrary()? {
                true => self.resolver.configure(settings(u)?),
                false => self
                    .resolver
                    .set_hosts(Hosts::parse("192.0.2.5 nas.lan\n2001:db8::5 nas.lan www.example.com\n")),
            },
            _ => {
                self.now += Duration::from_millis(u.int_in_range(0..=5000)?);
                self.resolver.expire(self.now);
            }
        }
        Ok(())
    }

    fn ask(&mut self, name: &str) {
        let token = self.asked.len();
        self.asked.push(Some(name.trim_end_matches('.').to_ascii_lowercase()));
        // A few clients, so that some use up their share.
        let source = IpAddr::from([10, 0, 0, (token % 3) as u8]);
        self.resolver.lookup(name, Asker { worker: 3, token, source }, self.now);
        // The driver does what it is told after every call.
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(action) = self.resolver.next_action() {
            match action {
                Action::Open { exchange, transport, message, .. } => {
                    let open = Open { exchange, transport, message };
                    assert!(self.open.insert(exchange.number(), open).is_none(), "opened twice");
                }
                Action::Resend { exchange, message } => {
                    let open = self.open.get(&exchange.number()).expect("resent on a closed socket");
                    assert_eq!((open.transport, &open.message), (Transport::Udp, &message));
                }
                Action::Close { exchange } => {
                    self.open.remove(&exchange.number()).expect("closed twice");
                }
                Action::AskSystem { name, .. } => {
                    assert!(!self.system.contains(&name), "{name} is being asked for");
                    self.system.push(name);
                }
                Action::Answer(answer) => {
                    let asked = self.asked[answer.asker.token].take().expect("answered twice");
                    assert_eq!((answer.asker.worker, &*answer.name), (3, &*asked));
                    assert!(answer.result.is_err() || answer.result.is_ok_and(|addrs| !addrs.is_empty()));
                }
            }
        }
        assert!(self.open.len() <= 2 * MAX_LOOKUPS, "{} exchanges", self.open.len());
        assert!(self.system.len() <= MAX_LOOKUPS);
    }

    fn any_open(&self, u: &mut Unstructured<'_>) -> Result<&Open> {
        let place = u.choose_index(self.open.len())?;
        Ok(self.open.values().nth(place).expect("a place in it"))
    }

    /// Nothing happens any more, but time passes.
    fn come_to_an_end(&mut self) {
        self.resolver.expire(self.now);
        self.pump();
        for _ in 0..MAX_DEADLINES {
            let Some(at) = self.resolver.next_timeout() else {
                assert!(self.open.is_empty(), "{} exchanges are open without a deadline", self.open.len());
                let waiting = self.asked.iter().flatten().count();
                assert_eq!(waiting, 0, "nobody will answer them");
                return;
            };
            assert!(at > self.now, "due in the past");
            self.now = at;
            self.resolver.expire(at);
            self.pump();
        }
        panic!("deadlines without end");
    }
}

fn settings(u: &mut Unstructured<'_>) -> Result<Settings> {
    let server = |n: u8| SocketAddr::from(([192, 0, 2, n], 53));
    let count = *u.choose(&[0, 1, 2, 10])?;
    Ok(Settings {
        nameservers: (1..=count).map(server).collect(),
        timeout: Duration::from_millis(u.int_in_range(1..=5000)?),
    })
}

/// A server's answer to `query`: well-formed, or with a byte of it changed.
fn reply(query: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const CNAME: u16 = 5;
    const POINTER_TO_QUESTION: [u8; 2] = [0xc0, 12];
    let qtype = parse_query(query).expect("the resolver's own").qtype;
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0).expect("the root") + 1;
    let question = &query[12..name_end + 4];
    let flags: u16 = *u.choose(&[0x8180, 0x8180, 0x8180, 0x8380, 0x8182, 0x8183, 0x8185])?;
    let ttl: u32 = *u.choose(&[0, 1, 60, 86_400, u32::MAX])?;
    let mut records = Vec::new();
    let count = u.int_in_range(0..=3u16)?;
    for n in 0..count {
        let (rtype, data) = match (u.ratio(1, 8)?, qtype) {
            (true, _) => (CNAME, POINTER_TO_QUESTION.to_vec()),
            (false, TYPE_AAAA) => (TYPE_AAAA, vec![0x20; 16]),
            (false, _) => (TYPE_A, vec![192, 0, 2, n as u8]),
        };
        records.extend(POINTER_TO_QUESTION);
        records.extend([rtype, 1].iter().flat_map(|n: &u16| n.to_be_bytes()));
        records.extend(ttl.to_be_bytes());
        records.extend((data.len() as u16).to_be_bytes());
        records.extend(data);
    }
    let mut message = query[..2].to_vec();
    for field in [flags, 1, count, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    message.extend_from_slice(question);
    message.extend(records);
    if u.ratio(1, 4)? {
        let at = u.choose_index(message.len())?;
        message[at] ^= u.arbitrary::<u8>()?;
    }
    Ok(message)
}
