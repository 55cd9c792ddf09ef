//! Certificates: what is read is inside of them, cutting them leaves none, and their times are ones that a calendar has.
#![no_main]

use calamary::wire::x509::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(certificate) = parse(bytes) else { return };
    let range = bytes.as_ptr_range();
    for name in [certificate.issuer, certificate.subject] {
        let within = name.as_ptr_range();
        assert!(range.start <= within.start && within.end <= range.end);
    }
    for time in [certificate.not_before, certificate.not_after] {
        assert!((1..=12).contains(&time.month) && (1..=31).contains(&time.day));
        // Years 0 to 9999, and a leap second.
        assert!((-62_167_219_200..=253_402_300_800).contains(&time.unix_secs), "{time:?}");
    }
    assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
    assert_eq!(parse(&[bytes, &[0]].concat()), None);
});
