//! A nameserver that answers as a test wants, over UDP and TCP, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What to answer to one question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The addresses of the asked family, with this TTL; none of that family is an empty answer.
    Addrs(Vec<IpAddr>, u32),
    NxDomain,
    ServFail,
    Refused,
    /// The truncation bit and no answer, so that the question comes again over TCP.
    Truncated,
    /// No answer at all.
    Silent,
}

impl Answer {
    pub fn addr(addr: &str) -> Answer {
        Answer::Addrs(vec![addr.parse().unwrap()], 60)
    }

    pub fn addrs(addrs: &[&str]) -> Answer {
        Answer::Addrs(addrs.iter().map(|a| a.parse().unwrap()).collect(), 60)
    }
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A question: the name in lower case, 1 for A and 28 for AAAA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub kind: u16,
    pub transport: Transport,
}

/// A nameserver in the namespace of the thread that made it.
pub struct NameServer {
    pub addr: SocketAddr,
    questions: Arc<Mutex<Vec<Question>>>,
}

impl NameServer {
    pub fn start(addr: &str, answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> NameServer {
        // A port that the system chose for UDP may be taken for TCP.
        let (udp, tcp) = super::wait_for("a port for both transports", || {
            let udp = UdpSocket::bind(addr).ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        });
        let addr = udp.local_addr().unwrap();
        let questions: Arc<Mutex<Vec<Question>>> = Arc::default();
        let answer = Arc::new(answer);

        let (log, reply) = (Arc::clone(&questions), Arc::clone(&answer));
        thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((n, from)) = udp.recv_from(&mut packet) {
                if let Some(response) = respond(&packet[..n], Transport::Udp, &log, reply.as_ref()) {
                    let _ = udp.send_to(&response, from);
                }
            }
        });
        let (log, reply) = (Arc::clone(&questions), answer);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
                        if stream.read_exact(&mut packet).is_err() {
                            return;
                        }
                        if let Some(response) = respond(&packet, Transport::Tcp, &log, reply.as_ref()) {
                            let _ = stream.write_all(&(response.len() as u16).to_be_bytes());
                            let _ = stream.write_all(&response);
                        }
                    }
                });
            }
        });
        NameServer { addr, questions }
    }

    /// A nameserver that knows these names, and no other.
    pub fn with(addr: &str, names: &'static [(&'static str, &'static [&'static str])]) -> NameServer {
        Self::start(addr, move |question| match names.iter().find(|(name, _)| *name == question.name) {
            Some((_, addrs)) => Answer::addrs(addrs),
            None => Answer::NxDomain,
        })
    }

    /// Every question so far.
    pub fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.questions().iter().filter(|q| q.name == name).count()
    }
}

fn respond(
    packet: &[u8],
    transport: Transport,
    log: &Mutex<Vec<Question>>,
    answer: &dyn Fn(&Question) -> Answer,
) -> Option<Vec<u8>> {
    let (question, end) = parse(packet, transport)?;
    log.lock().unwrap().push(question.clone());
    let answer = answer(&question);
    let (code, records, truncated) = match &answer {
        Answer::Silent => return None,
        Answer::Addrs(addrs, ttl) => (0, records(addrs, question.kind, *ttl), false),
        Answer::NxDomain => (3, vec![], false),
        Answer::ServFail => (2, vec![], false),
        Answer::Refused => (5, vec![], false),
        Answer::Truncated => (0, vec![], true),
    };
    let mut response = packet[..2].to_vec();
    response.push(0x81 | if truncated { 2 } else { 0 });
    response.push(0x80 | code);
    response.extend_from_slice(&[0, 1]);
    response.extend_from_slice(&(records.len() as u16).to_be_bytes());
    response.extend_from_slice(&[0, 0, 0, 0]);
    response.extend_from_slice(&packet[12..end]);
    response.extend(records.into_iter().flatten());
    Some(response)
}

/// The first question and where it ends.
fn parse(packet: &[u8], transport: Transport) -> Option<(Question, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((Question { name: labels.join("."), kind, transport }, at + 4))
}

fn records(addrs: &[IpAddr], kind: u16, ttl: u32) -> Vec<Vec<u8>> {
    let record = |data: &[u8]| {
        let mut record = vec![0xc0, 12];
        record.extend_from_slice(&kind.to_be_bytes());
        record.extend_from_slice(&[0, 1]);
        record.extend_from_slice(&ttl.to_be_bytes());
        record.extend_from_slice(&(data.len() as u16).to_be_bytes());
        record.extend_from_slice(data);
        record
    };
    addrs
        .iter()
        .filter_map(|addr| match addr {
            IpAddr::V4(a) if kind == 1 => Some(record(&a.octets())),
            IpAddr::V6(a) if kind == 28 => Some(record(&a.octets())),
            _ => None,
        })
        .collect()
}
