//! Certificates for the names that clients send: each is good for its own name and for no other, whatever bytes it is, and
//! one spelling of a name has one certificate.
#![no_main]

use std::sync::{Arc, LazyLock};

use calamary::decide::name;
use calamary::intercept::{Authority, Minter};
use calamary::sys::time;
use calamary::wire::x509;
use libfuzzer_sys::fuzz_target;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

/// The longest lifetime that clients accept.
const MAX_SECS: i64 = 398 * 86_400;

static BOTH: LazyLock<(Minter, Arc<WebPkiServerVerifier>)> = LazyLock::new(|| {
    let now = time::now().secs;
    let (der, key) = Authority::make("fuzzing", now).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let authority = Authority::new(vec![der], &PrivateKeyDer::Pkcs8(key), now).unwrap();
    (Minter::new(authority).unwrap(), verifier)
});

/// As the session takes the server name of a ClientHello.
fn wanted(sni: &[u8]) -> Option<ServerName<'static>> {
    ServerName::try_from(String::from(name::normalise(sni)?)).ok()
}

fn is_good_for(leaf: &CertifiedKey, name: &ServerName<'_>) -> bool {
    BOTH.1.verify_server_cert(&leaf.cert[0], &[], name, &[], UnixTime::now()).is_ok()
}

fuzz_target!(|bytes: &[u8]| {
    let mut names = bytes.splitn(2, |byte| *byte == 0);
    let (Some(one), Some(other)) = (names.next().and_then(wanted), names.next().and_then(wanted)) else { return };
    let (first, second) = (BOTH.0.leaf(&one).unwrap(), BOTH.0.leaf(&other).unwrap());
    assert_eq!(Arc::ptr_eq(&first, &second), one == other, "{one:?} {other:?}");
    assert!(Arc::ptr_eq(&first, &BOTH.0.leaf(&one).unwrap()));
    assert!(is_good_for(&first, &one), "{one:?}");
    assert_eq!(is_good_for(&first, &other), one == other, "{one:?} {other:?}");
    let read = x509::parse(&first.cert[0]).unwrap();
    assert!(read.not_after.unix_secs - read.not_before.unix_secs <= MAX_SECS);
});
