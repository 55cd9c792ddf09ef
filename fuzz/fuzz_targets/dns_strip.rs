//! Encrypted ClientHello cut out of DNS answers: nothing of it is left, and everything else reads as before.
#![no_main]

use calamary::wire::dns::ech::{MAX_PUBLISHED, published_ech, strip_ech};
use calamary::wire::dns::stream::AnswerStream;
use calamary::wire::dns::{is_host_name, parse_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    as_stream(data);
    let published = published_ech(data);
    assert!(published.len() <= MAX_PUBLISHED);
    assert!(published.iter().flat_map(|p| &p.public_names).all(|name| is_host_name(name)));
    let Some(stripped) = strip_ech(data) else {
        return;
    };
    assert!(stripped.len() < data.len());
    assert_eq!(strip_ech(&stripped), None, "twice");
    assert_eq!(published_ech(&stripped), []);
    assert_eq!(Reader::new(&stripped).message(), Reader::new(data).message());
    let id = u16::from_be_bytes([data[0], data[1]]);
    for name in ["example.com", "a.example"] {
        assert_eq!(parse_answer(&stripped, id, name, 1), parse_answer(data, id, name, 1));
    }
});

/// The input as a stream, and as one message of a stream.
fn as_stream(data: &[u8]) {
    let whole = in_pieces(data, data.len().max(1), true);
    for size in [1, 3, 100] {
        assert_eq!(in_pieces(data, size, true), whole, "in pieces of {size}");
        assert_eq!(in_pieces(data, size, false), data, "left alone, in pieces of {size}");
    }
    assert!(whole.len() <= data.len());
    let framed = |message: &[u8]| {
        let length = u16::try_from(message.len()).ok()?;
        Some([&length.to_be_bytes()[..], message].concat())
    };
    // A stream lets some messages alone that are changed as a datagram: those of zone transfers.
    if let Some(before) = framed(data)
        && let after = in_pieces(&before, 64, true)
        && after != before
    {
        assert_eq!(Some(after), strip_ech(data).and_then(|stripped| framed(&stripped)));
    }
}

/// What goes on of a stream that comes in pieces of `size` bytes.
fn in_pieces(data: &[u8], size: usize, strip: bool) -> Vec<u8> {
    let mut answers = AnswerStream::new(strip);
    let mut out = Vec::new();
    for piece in data.chunks(size) {
        out.extend(answers.take(piece));
        assert!(answers.take_published().len() <= MAX_PUBLISHED);
    }
    out.extend(answers.end());
    out
}

/// A naive reader of messages that follows every pointer. Only for those that the editor has taken for whole.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

/// Owner, type, class, TTL, and what is in it.
type Record = (Vec<u8>, u16, u16, u32, Vec<Vec<u8>>);

impl<'a> Reader<'a> {
    fn new(message: &'a [u8]) -> Self {
        Reader { message, at: 0 }
    }

    /// The header, the records with ECH left out, and what is behind them.
    fn message(&mut self) -> (Vec<u8>, Vec<Record>, Vec<u8>) {
        let header = self.bytes(12);
        let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let mut records = Vec::new();
        for _ in 0..count(4) {
            let owner = self.name();
            records.push((owner, self.u16(), self.u16(), 0, Vec::new()));
        }
        for _ in 0..count(6) + count(8) + count(10) {
            records.push(self.record());
        }
        let behind = self.message[self.at..].to_vec();
        (header, records, behind)
    }

    fn record(&mut self) -> Record {
        let owner = self.name();
        let (rtype, class) = (self.u16(), self.u16());
        let ttl = u32::from(self.u16()) << 16 | u32::from(self.u16());
        let end = usize::from(self.u16()) + self.at;
        let data = match (rtype, class) {
            (64 | 65, 1) => self.service(end),
            (2 | 5 | 12, _) => vec![self.name()],
            (6, _) => vec![self.name(), self.name(), self.message[self.at..end].to_vec()],
            (15, _) => vec![self.bytes(2), self.name()],
            (33, _) => vec![self.bytes(6), self.name()],
            (1 | 16 | 28 | 41, _) => vec![self.bytes(end - self.at)],
            // Others may hold names, too.
            _ => Vec::new(),
        };
        self.at = end;
        (owner, rtype, class, ttl, data)
    }

    fn service(&mut self, end: usize) -> Vec<Vec<u8>> {
        let mut data = vec![self.bytes(2), self.name()];
        let mut params = Vec::new();
        while self.at < end {
            let (key, len) = (self.u16(), self.u16());
            params.push((key, self.bytes(usize::from(len))));
        }
        // What calls ECH mandatory is cut only where there is ECH; afterwards both read alike.
        let had_ech = params.iter().any(|(key, _)| *key == 5);
        for (key, mut value) in params {
            if key == 0 && had_ech {
                let others = value.chunks(2).filter(|key| **key != [0, 5]);
                let rest: Vec<u8> = others.flatten().copied().collect();
                if rest.is_empty() && !value.is_empty() {
                    continue;
                }
                value = rest;
            }
            if key != 5 {
                data.push([&key.to_be_bytes()[..], &value].concat());
            }
        }
        data
    }

    fn name(&mut self) -> Vec<u8> {
        let (mut name, mut at, mut behind) = (Vec::new(), self.at, None);
        loop {
            let len = usize::from(self.message[at]);
            match len {
                0 => break,
                1..=63 => {
                    name.extend_from_slice(&self.message[at..=at + len]);
                    at += len + 1;
                }
                _ => {
                    behind.get_or_insert(at + 2);
                    at = (len & 0x3f) << 8 | usize::from(self.message[at + 1]);
                }
            }
        }
        self.at = behind.unwrap_or(at + 1);
        name
    }

    fn u16(&mut self) -> u16 {
        let bytes = self.bytes(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.message[self.at..self.at + len].to_vec();
        self.at += len;
        bytes
    }
}
