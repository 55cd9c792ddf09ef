//! The identification: tables per protocol, and the prefix property for all of them.

mod datagram;
mod dns;
mod http;
mod prefix;
#[cfg(feature = "quic")]
mod quic;
mod tls;

use super::tcp::Identifier;
use super::{Identity, Outcome, Parsers};
use prefix::identify;

/// With all bytes at once.
fn at_once(bytes: &[u8]) -> Outcome {
    Identifier::new(Parsers::default()).look(bytes)
}

const NONE: Outcome = Outcome::Identified(Identity::None);
const BEGUN: Outcome = Outcome::NeedMore { begun: true };
const NOT_BEGUN: Outcome = Outcome::NeedMore { begun: false };

#[test]
fn silence_and_what_nobody_reads() {
    let check = |bytes: &[u8], expected: Outcome| assert_eq!(identify(bytes), expected, "{bytes:x?}");
    check(b"", NOT_BEGUN);
    check(b"SSH-2.0-OpenSSH_9.2\r\n", NONE);
    check(b"\x80\x2e\x01\x03\x01", NONE);
    check(b"\x09", NONE);
    // Clients that wait for an answer after these must not wait for us first: SOCKS 5, SOCKS 4, RDP, PostgreSQL, MQTT.
    check(b"\x05\x01\x00", NONE);
    check(b"\x04\x01\x01\xbb\xc0\x00\x02\x01\x00", NONE);
    check(b"\x03\x00\x00\x13\x0e\xe0\x00\x00", NONE);
    check(b"\x00\x00\x00\x08\x04\xd2\x16\x2f", NONE);
    check(b"\x10\x0c\x00\x04MQTT", NONE);
    check(b"*1\r\n$4\r\nPING\r\n", NONE);
    check(b"\x15\x03\x01\x00\x02\x02\x28", NONE);
    check(b"\xff\xfb\x01", NONE);
    check(&[0x13; 40], NONE);
    check(b"{\"id\":1}\n", NONE);
}

#[test]
fn a_parser_that_is_switched_off_makes_its_traffic_none_at_once() {
    let on = Parsers::default();
    let check = |bytes: &[u8], off: Parsers| {
        assert_eq!(Identifier::new(off).look(bytes), NONE, "{bytes:x?}");
        let alone = Parsers { tls: false, http: false, dns: false, ..on };
        assert_eq!(Identifier::new(alone).look(bytes), NONE, "{bytes:x?}");
        assert_ne!(at_once(bytes), NONE, "{bytes:x?}");
    };
    check(b"\x16", Parsers { tls: false, ..on });
    check(b"\x16\x03\x01", Parsers { tls: false, ..on });
    check(b"G", Parsers { http: false, ..on });
    check(b"\r\n", Parsers { http: false, ..on });
    check(b"\x00", Parsers { dns: false, ..on });
    check(b"\x00\x1d\x12", Parsers { dns: false, ..on });
}
