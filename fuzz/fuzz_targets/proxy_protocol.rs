//! PROXY protocol: one answer for every prefix, and nothing of a stranger is believed.
#![no_main]

use calamary::accept::proxy_protocol::{Introduction, introduction};
use calamary::wire::Parse;
use calamary::wire::proxy_protocol::{Endpoints, MAX_V2, parse};
use calamary_fuzz::{Random, prefixes};
use libfuzzer_sys::fuzz_target;

/// Prefixes that are parsed.
const MAX_PREFIXES: usize = 256;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for len in prefixes(data.len(), MAX_PREFIXES, &mut Random::of(data)) {
        let outcome = parse(&data[..len]);
        assert!(outcome == Parse::NeedMore || outcome == whole, "{len} bytes say {outcome:?}");
    }
    assert!(data.len() < MAX_V2 || whole != Parse::NeedMore);
    let Parse::Complete(header) = whole else { return };
    assert!(header.len <= data.len().min(MAX_V2));
    assert_eq!(parse(&data[..header.len]), Parse::Complete(header.clone()));
    assert_eq!(parse(&data[..header.len - 1]), Parse::NeedMore);

    assert_eq!(introduction(&header, false, |_, _| true), Introduction::Refused);
    let Endpoints::Tcp { src, dest } = header.endpoints else {
        assert!(!matches!(introduction(&header, true, |_, _| false), Introduction::Client { .. }));
        return;
    };
    // Whoever speaks for itself is no client.
    assert_eq!(introduction(&header, true, |_, _| true), Introduction::HealthCheck);
    assert!(matches!(introduction(&header, true, |_, _| false), Introduction::Client { .. }));
    assert_eq!(src.is_ipv4(), dest.is_ipv4());
    let family = if src.is_ipv4() { "TCP4" } else { "TCP6" };
    let line =
        format!("PROXY {family} {} {} {} {}\r\n", src.ip(), dest.ip(), src.port(), dest.port()).into_bytes();
    let Parse::Complete(again) = parse(&line) else { panic!("{}", line.escape_ascii()) };
    assert_eq!((again.len, again.endpoints), (line.len(), header.endpoints));
});
