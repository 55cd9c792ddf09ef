//! The datagrams of one UDP flow: an answer in time, which stays, and which a parser that is off cannot give.
#![no_main]

use calamary::identify::datagram::{
    DatagramIdentifier, DatagramOutcome, MAX_BYTES, MAX_DATAGRAMS, begins_connection,
};
use calamary::identify::{Identity, Parsers};
use calamary::wire::quic::{LongHeader, Version, packets, version_negotiation};
use calamary_fuzz::Random;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let random = &mut Random::of(data);
    let flow = datagrams(data);
    let port = [53, 123, 443, 4433][random.within(0..=3)];
    let whole = check(&flow, Parsers::default(), port);
    let some = Parsers {
        quic: random.one_in(2),
        dns: random.one_in(2),
        ntp: random.one_in(2),
        ..Parsers::default()
    };
    let is_off = match &whole {
        DatagramOutcome::Identified(Identity::Quic { .. }) | DatagramOutcome::Incomplete(_) => !some.quic,
        DatagramOutcome::NeedMore { begun } => *begun && !some.quic,
        DatagramOutcome::MidConnection => !some.quic,
        DatagramOutcome::Identified(Identity::Dns { .. }) => !some.dns,
        DatagramOutcome::Identified(Identity::Ntp) => !some.ntp,
        DatagramOutcome::Identified(_) => false,
    };
    let none = DatagramOutcome::Identified(Identity::None);
    match (is_off, check(&flow, some, port)) {
        (false, with_some) => assert_eq!(with_some, whole, "{some:?}"),
        (true, with_some) => {
            // A query is read before NTP and short headers: without its parser it may be one of those.
            let is_query = matches!(whole, DatagramOutcome::Identified(Identity::Dns { .. }));
            assert!(with_some == none || is_query, "{some:?} {with_some:?}");
        }
    }
    flow.iter().for_each(|datagram| alone(datagram));
});

/// Each behind its length, two bytes; the last may be cut off.
fn datagrams(data: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut flow) = (data, Vec::new());
    while let [high, low, behind @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (datagram, behind) = behind.split_at(len);
        flow.push(datagram.to_vec());
        rest = behind;
    }
    flow
}

fn check(flow: &[Vec<u8>], parsers: Parsers, port: u16) -> DatagramOutcome {
    let mut identifier = DatagramIdentifier::new(parsers, port);
    let mut last = DatagramOutcome::NeedMore { begun: false };
    let mut total = 0;
    for (count, datagram) in (1..).zip(flow) {
        total += datagram.len();
        let outcome = identifier.look(datagram);
        match &last {
            DatagramOutcome::NeedMore { begun } => {
                assert!(*begun || count == 1, "not begun, and no answer");
                assert_ne!(outcome, DatagramOutcome::NeedMore { begun: false });
            }
            answer => assert_eq!(outcome, *answer, "an answer changed"),
        }
        let bounded = count < MAX_DATAGRAMS && total < MAX_BYTES;
        assert!(bounded || !matches!(outcome, DatagramOutcome::NeedMore { .. }), "no answer after {count}");
        last = outcome;
    }
    last
}

fn alone(datagram: &[u8]) {
    let all: usize = packets(datagram).map(|packet| packet.bytes.len()).sum();
    assert!(all <= datagram.len());
    if begins_connection(datagram) {
        assert!(Version::of(datagram).is_some());
    }
    let Some(answer) = version_negotiation(datagram) else { return };
    assert!(answer.len() < datagram.len());
    let (asked, answered) = (LongHeader::parse(datagram).unwrap(), LongHeader::parse(&answer).unwrap());
    assert_eq!((answered.version, answered.dcid, answered.scid), (0, asked.scid, asked.dcid));
    assert_eq!(version_negotiation(&answer), None);
}
