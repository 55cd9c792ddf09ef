use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject as _;

use super::*;

/// 2027-01-01: all of the vectors count.
const NOW: u64 = 1_798_761_600;
/// 2080-01-01: the vectors under the root have expired, the root and the intermediate have not.
const LATER: u64 = 3_471_292_800;

fn pem(name: &str) -> CertificateDer<'static> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/certificates/chain/");
    CertificateDer::from_pem_file(format!("{folder}{name}.pem")).unwrap()
}

fn trust(roots: &[&str]) -> Trust {
    let (roots, unusable) = Roots::new(roots.iter().map(|name| pem(name)));
    assert_eq!(unusable, 0);
    Trust::new(roots)
}

#[track_caller]
fn judge(trust: &Trust, chain: &[&str], name: &str, now: u64) -> Result<(), Distrust> {
    let chain: Vec<_> = chain.iter().map(|name| pem(name)).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    trust.judge(&chain[0], &chain[1..], &name, UnixTime::since_unix_epoch(Duration::from_secs(now)))
}

#[test]
fn reasons() {
    let check = |roots: &[&str], chain: &[&str], name: &str, now: u64, want: Result<(), Distrust>| {
        assert_eq!(judge(&trust(roots), chain, name, now), want, "{roots:?} {chain:?} {name} {now}");
    };
    let whole = &["leaf", "intermediate"];
    check(&["root"], whole, "example.com", NOW, Ok(()));
    check(&["root"], whole, "www.example.com", NOW, Ok(()));
    check(&["root"], &["leaf", "intermediate", "root"], "example.com", NOW, Ok(()));
    check(&["root"], &["leaf", "root", "intermediate"], "example.com", NOW, Ok(()));
    check(&["root"], whole, "example.org", NOW, Err(Distrust::WrongName));
    check(&["root"], whole, "a.b.example.com", NOW, Err(Distrust::WrongName));
    check(&["root"], whole, "example.com", LATER, Err(Distrust::Expired));
    check(&["root"], whole, "example.com", 1_768_000_000, Err(Distrust::NotYetValid));
    check(&["root"], whole, "example.com", 0, Err(Distrust::WrongClock));
    check(&["self-signed"], whole, "example.com", NOW, Err(Distrust::Untrusted));
    check(&[], whole, "example.com", NOW, Err(Distrust::Untrusted));
    check(&["root"], &["leaf"], "example.com", NOW, Err(Distrust::Untrusted));
    check(&["root"], &["client", "intermediate"], "example.com", NOW, Err(Distrust::Unsuitable));
    check(&["root"], &["intermediate"], "example.com", NOW, Err(Distrust::Unsuitable));
    check(&["root"], &["self-signed"], "nas.home.arpa", NOW, Err(Distrust::SelfSigned));
    // A device at home whose own certificate is among the roots.
    check(&["self-signed"], &["self-signed"], "nas.home.arpa", NOW, Ok(()));
    check(&["self-signed"], &["self-signed"], "example.com", NOW, Err(Distrust::WrongName));
    check(&["self-signed"], &["self-signed"], "nas.home.arpa", LATER, Err(Distrust::Expired));
}

#[test]
fn what_is_no_certificate_is_no_panic() {
    let name = ServerName::try_from("example.com").unwrap();
    let whole = pem("leaf");
    for length in 0..whole.len() {
        let cut = CertificateDer::from(whole.get(..length).unwrap());
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        assert_eq!(trust(&["root"]).judge(&cut, &[], &name, now), Err(Distrust::Malformed), "{length}");
    }
}

/// The signature of the intermediate is the last thing in it.
#[test]
fn a_forged_chain_is_not_trusted() {
    let mut forged = pem("leaf").to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let name = ServerName::try_from("example.com").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let judged = trust(&["root"]).judge(&forged.into(), &[pem("intermediate")], &name, now);
    assert_eq!(judged, Err(Distrust::BadSignature));
}

#[test]
fn an_intermediate_that_was_seen_helps_a_server_that_forgets_it() {
    let trust = trust(&["root"]);
    assert_eq!(judge(&trust, &["leaf"], "example.com", NOW), Err(Distrust::Untrusted));
    assert_eq!(judge(&trust, &["leaf", "intermediate"], "example.com", NOW), Ok(()));
    assert_eq!(judge(&trust, &["leaf"], "example.com", NOW), Ok(()));
    // It helps, it is not trusted for itself.
    assert_eq!(judge(&trust, &["leaf"], "example.org", NOW), Err(Distrust::WrongName));
    assert_eq!(judge(&trust, &["client"], "example.com", NOW), Err(Distrust::Unsuitable));
}

/// Whoever has a certificate of an authority could else keep its other customers from being found: a certificate is asked
/// for by its owner's name, and everybody can write any name into one.
#[test]
fn what_only_claims_to_be_an_intermediate_is_not_kept() {
    for chain in
        [&["leaf", "forged-intermediate", "intermediate"], &["leaf", "intermediate", "forged-intermediate"]]
    {
        let trust = trust(&["root"]);
        assert_eq!(judge(&trust, chain, "example.com", NOW), Ok(()), "{chain:?}");
        assert_eq!(judge(&trust, &["leaf", "intermediate"], "example.com", NOW), Ok(()), "{chain:?}");
        assert_eq!(judge(&trust, chain, "example.com", NOW), Ok(()), "{chain:?}");
        assert_eq!(judge(&trust, &["leaf"], "example.com", NOW), Ok(()), "{chain:?}");
    }
}

#[test]
fn only_what_leads_to_a_root_is_kept_and_each_once() {
    let mut seen = Intermediates::default();
    let (leaf, intermediate) = (pem("leaf"), pem("intermediate"));
    for _ in 0..3 {
        seen.keep(&leaf, &[pem("root"), pem("self-signed"), intermediate.clone()], |_| true);
    }
    assert_eq!(seen.find(&leaf, &[]), std::slice::from_ref(&intermediate));
    assert_eq!(seen.len(), 1);
    assert!(seen.find(&leaf, std::slice::from_ref(&intermediate)).is_empty());
    assert!(seen.find(&pem("self-signed"), &[]).is_empty());
    let mut seen = Intermediates::default();
    seen.keep(&leaf, &[intermediate], |_| false);
    assert_eq!(seen.len(), 0);
}

#[test]
fn the_words_of_rustls_become_ours() {
    let check = |error: CertificateError, want| {
        assert_eq!(Distrust::of(&Error::InvalidCertificate(error)), Some(want));
    };
    check(CertificateError::Expired, Distrust::Expired);
    check(CertificateError::BadSignature, Distrust::BadSignature);
    check(CertificateError::UnknownIssuer, Distrust::Untrusted);
    check(CertificateError::InvalidPurpose, Distrust::Unsuitable);
    assert_eq!(Distrust::of(&Distrust::SelfSigned.into()), Some(Distrust::SelfSigned));
    assert_eq!(Distrust::of(&Error::DecryptError), None);
}

#[cfg(feature = "embedded-roots")]
#[test]
fn the_roots_of_the_program_are_many() {
    let roots = Roots::embedded();
    assert!(roots.len() > 100, "{}", roots.len());
    assert!(!roots.is_empty() && !roots.contain(&pem("root")));
}
