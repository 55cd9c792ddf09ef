//! `host:port`: what is read is written and read again as the same, and every other reader of names agrees.
#![no_main]

use std::net::IpAddr;

use calamary::decide::name::normalise;
use calamary::wire::dns::is_host_name;
use calamary::wire::http1::{Authority, Host};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(authority) = Authority::parse(text) else { return };
    let written = match authority.port {
        Some(port) => format!("{}:{port}", authority.host),
        None => authority.host.to_string(),
    };
    assert_eq!(Authority::parse(&written).as_ref(), Ok(&authority), "{written}");
    assert_ne!(authority.port, Some(0));
    let Host::Name(name) = &authority.host else { return };
    // Neither an address for somebody else, nor another name.
    assert!(name.parse::<IpAddr>().is_err(), "{name}");
    let bare = name.strip_suffix('.').unwrap_or(name);
    assert_eq!(normalise(name.as_bytes()).as_deref(), Some(bare));
    assert!(is_host_name(name), "{name}");
});
