//! Leaf certificates: one for each name, signed when it is first asked for, and kept.
//!
//! All have the same key, made when the process starts: a key of its own for each name would protect nobody, as all of them
//! would lie in the same memory. Signing takes long on a small router: the cache is locked only to find a name's place, and
//! whoever comes for the same new name meanwhile waits for that one signature, which is shorter than one of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};

use super::authority::{Authority, DAY, Leaf, new_key};
use crate::sys::time;
use crate::wire::x509::write::{Extension, Kind, MAX_COMMON_NAME, extension, name};

/// Leaves that are kept, of all names together: about 1.5 KB each.
pub const MAX_LEAVES: usize = 512;

/// How long before it was signed a leaf counts: clocks of clients go wrong.
const BACKDATED: i64 = 2 * DAY;

/// How long a leaf counts from when it was signed. With the time before, less than the 398 days that clients accept.
const LIFETIME: i64 = 365 * DAY;

/// How long a leaf is handed out. Long before it ends, as the clock may be set.
const KEPT: i64 = 30 * DAY;

/// Signs leaves and keeps them.
pub struct Minter {
    authority: Authority,
    /// Of all leaves.
    key: Arc<dyn SigningKey>,
    public_key: Vec<u8>,
    leaves: Mutex<Leaves>,
}

impl Minter {
    /// Without any leaf yet.
    ///
    /// # Errors
    /// There are no random numbers for the leaves' key.
    pub fn new(authority: Authority) -> Result<Self, rustls::Error> {
        let key = any_ecdsa_type(&PrivateKeyDer::Pkcs8(new_key()?))?;
        let public_key = key.public_key().ok_or(rustls::Error::FailedToGetRandomBytes)?.as_ref().to_vec();
        Ok(Minter { authority, key, public_key, leaves: Mutex::default() })
    }

    /// The certificate for `name`, with its key.
    ///
    /// # Errors
    /// There are no random numbers for its serial number.
    pub fn leaf(&self, name: &ServerName<'static>) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let now = time::now().secs;
        let place = lock(&self.leaves).place(name, now);
        let mut leaf = lock(&place);
        if let Some(leaf) = &*leaf {
            return Ok(Arc::clone(leaf));
        }
        let made = Arc::new(self.mint(name, now)?);
        *leaf = Some(Arc::clone(&made));
        Ok(made)
    }

    fn mint(&self, owner: &ServerName<'static>, now: i64) -> Result<CertifiedKey, rustls::Error> {
        let text = owner.to_str();
        // A subject is for people; a name too long for it stands in the extension alone.
        let subject = if text.len() <= MAX_COMMON_NAME { name(&text) } else { Vec::new() };
        let extensions = [
            alternative_name(owner, subject.is_empty()),
            extension::no_authority(),
            extension::key_usage(&[Kind::SignHandshakes]),
            extension::for_servers(),
        ];
        let leaf = Leaf {
            subject: &subject,
            validity: (now.saturating_sub(BACKDATED), now.saturating_add(LIFETIME)),
            public_key: &self.public_key,
            extensions: &extensions,
        };
        let mut chain = vec![self.authority.sign(&leaf)?];
        chain.extend(self.authority.path.iter().cloned());
        Ok(CertifiedKey::new(chain, Arc::clone(&self.key)))
    }
}

fn alternative_name(owner: &ServerName<'_>, critical: bool) -> Extension {
    match owner {
        ServerName::IpAddress(ip) => extension::address((*ip).into(), critical),
        // There are no other kinds of names.
        name => extension::dns_name(&name.to_str(), critical),
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a leaf is, or will be.
type Place = Arc<Mutex<Option<Arc<CertifiedKey>>>>;

/// The leaves of the last names, bounded.
#[derive(Debug, Default)]
struct Leaves {
    by_name: HashMap<ServerName<'static>, Kept>,
    /// Counts how often one was asked for.
    turn: u32,
}

#[derive(Debug)]
struct Kept {
    leaf: Place,
    signed: i64,
    /// The turn in which it was asked for last.
    used: u32,
}

impl Leaves {
    /// The place of a name's leaf, a new one if there is none or that is too old.
    fn place(&mut self, name: &ServerName<'static>, now: i64) -> Place {
        self.turn = self.turn.wrapping_add(1);
        if let Some(kept) = self.by_name.get_mut(name) {
            kept.used = self.turn;
            // A clock that was set back has signed for a time to come.
            if (kept.signed.saturating_sub(DAY)..=kept.signed.saturating_add(KEPT)).contains(&now) {
                return Arc::clone(&kept.leaf);
            }
        } else if self.by_name.len() >= MAX_LEAVES {
            // Looking at all of them costs less than the signature to come.
            let turn = self.turn;
            let oldest = self.by_name.iter().max_by_key(|(_, kept)| turn.wrapping_sub(kept.used));
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.by_name.remove(&oldest);
            }
        }
        let leaf = Place::default();
        let kept = Kept { leaf: Arc::clone(&leaf), signed: now, used: self.turn };
        self.by_name.insert(name.clone(), kept);
        leaf
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::UnixTime;

    use super::*;
    use crate::wire::x509;

    fn minter() -> (Minter, WebPkiServerVerifier) {
        let (der, key) = Authority::make("a test's authority", time::now().secs).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let authority = Authority::new(vec![der], &PrivateKeyDer::Pkcs8(key), time::now().secs).unwrap();
        (Minter::new(authority).unwrap(), Arc::into_inner(verifier).unwrap())
    }

    fn named(name: &str) -> ServerName<'static> {
        ServerName::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn a_leaf_is_good_for_its_name_and_for_no_other() {
        let (minter, verifier) = minter();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(time::now().secs as u64));
        let check = |of: &ServerName<'_>, used_for: &ServerName<'_>| {
            let leaf = minter.leaf(&of.to_owned()).unwrap();
            verifier.verify_server_cert(&leaf.cert[0], &leaf.cert[1..], used_for, &[], now).is_ok()
        };
        let long = format!("{}.example", ["a123456789".repeat(6), "b123456789".repeat(6)].join("."));
        let all = ["example.com", "www.example.com", "_x.example.com", &long, "192.0.2.1", "2001:db8::1"];
        for of in all {
            for used_for in all {
                assert_eq!(check(&named(of), &named(used_for)), of == used_for, "{of} used for {used_for}");
            }
        }
    }

    #[test]
    fn a_leaf_counts_for_less_than_398_days_and_no_longer_than_its_authority() {
        let (minter, _) = minter();
        let leaf = minter.leaf(&named("example.com")).unwrap();
        let read = x509::parse(&leaf.cert[0]).unwrap();
        let days = (read.not_after.unix_secs - read.not_before.unix_secs) / DAY;
        assert!((300..=398).contains(&days), "{days}");
        // It is two days older than its authority would allow.
        assert_eq!(read.not_before.unix_secs, minter.authority.validity.0);
    }

    #[test]
    fn names_that_are_asked_for_are_kept_and_the_others_make_room() {
        let (minter, _) = minter();
        let first = minter.leaf(&named("first.example")).unwrap();
        for i in 0..MAX_LEAVES + 10 {
            minter.leaf(&named(&format!("{i}.example"))).unwrap();
            assert!(Arc::ptr_eq(&minter.leaf(&named("FIRST.example")).unwrap(), &first), "{i}");
        }
        assert_eq!(minter.leaves.lock().unwrap().by_name.len(), MAX_LEAVES);
    }

    #[test]
    fn who_comes_for_the_same_new_name_gets_the_same_leaf() {
        let (minter, _) = minter();
        for round in 0..20 {
            let name = named(&format!("{round}.example"));
            let start = std::sync::Barrier::new(8);
            let leaves: Vec<_> = std::thread::scope(|scope| {
                let ask = || {
                    start.wait();
                    minter.leaf(&name).unwrap()
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert!(leaves.iter().all(|leaf| Arc::ptr_eq(leaf, &leaves[0])));
        }
    }

    #[test]
    fn a_leaf_is_not_handed_out_for_ever_and_not_before_its_time() {
        let check = |day: i64, same: bool| {
            let mut leaves = Leaves::default();
            let first = leaves.place(&named("example.com"), 1000 * DAY);
            let next = leaves.place(&named("example.com"), day * DAY);
            assert_eq!(Arc::ptr_eq(&first, &next), same, "{day}");
        };
        check(1000, true);
        check(1030, true);
        check(1031, false);
        check(999, true);
        check(998, false);
    }
}
