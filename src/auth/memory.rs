//! What was checked before: a credential that was right need not be hashed again for a while.
//!
//! Kept are only keyed sums of (the hash that stands in the configuration, name, password), so a table of them tells
//! nothing without the key, which is random and never leaves the process. A reload that changes a hash or removes a user
//! voids what was remembered with it, as no sum is the same any more.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{Credentials, Users};

/// Bytes of the key.
pub const KEY_BYTES: usize = 32;

/// A keyed sum of a credential and the hash it is checked against.
pub type Mac = [u8; 32];

/// The process' own key.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// `bytes` are random.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Key(bytes)
    }

    /// The sum over the hash that these credentials are checked against, whether it is their own, and themselves. SHA-256 behind a secret prefix: every part is told apart by its length, and the sums are shown to nobody
    /// who could extend one.
    pub fn mac(&self, users: &Users, credentials: &Credentials) -> Mac {
        let (hash, is_user) = users.hash_for(credentials.name());
        let mut sum = Sha256::new();
        sum.update(self.0);
        sum.update([u8::from(is_user)]);
        for part in [hash.as_str().as_bytes(), credentials.name().as_bytes(), credentials.password()] {
            sum.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            sum.update(part);
        }
        sum.finalize().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A bounded set of sums that forgets.
#[derive(Debug)]
pub struct Memory {
    /// Until when each is remembered.
    entries: HashMap<Mac, Instant>,
    capacity: usize,
    lasts: Duration,
}

impl Memory {
    /// Remembers up to `capacity` sums, each for so long.
    pub fn new(capacity: usize, lasts: Duration) -> Self {
        Memory { entries: HashMap::new(), capacity, lasts }
    }

    /// Whether it is remembered now.
    pub fn contains(&self, mac: &Mac, now: Instant) -> bool {
        self.entries.get(mac).is_some_and(|until| now < *until)
    }

    /// Remembers it from now on. In a full memory the one that would be forgotten first makes room.
    pub fn insert(&mut self, mac: Mac, now: Instant) {
        let Some(until) = now.checked_add(self.lasts) else { return };
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&mac) {
            self.entries.retain(|_, until| now < *until);
            if self.entries.len() >= self.capacity {
                // A walk through all, for which a hash was paid.
                let oldest = self.entries.iter().min_by_key(|(_, until)| **until).map(|(mac, _)| *mac);
                oldest.map(|mac| self.entries.remove(&mac));
            }
        }
        self.entries.insert(mac, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::CryptHash;

    #[test]
    fn a_sum_hangs_on_every_part() {
        let hash = |salt| CryptHash::make(b"secret", [salt; 12]).unwrap();
        let users = |name: &str, salt| Users::new([(name.into(), hash(salt))]).unwrap();
        let sum = |key, salt, name: &str, password: &str| {
            let credentials = Credentials::new(name.as_bytes(), password.as_bytes()).unwrap();
            Key::new([key; KEY_BYTES]).mac(&users(name, salt), &credentials)
        };
        let credentials = Credentials::new(b"ab", b"cd").unwrap();
        let removed = Key::new([1; KEY_BYTES]).mac(&users("somebody else", 1), &credentials);
        let all = [
            sum(1, 1, "ab", "cd"),
            sum(2, 1, "ab", "cd"),
            sum(1, 2, "ab", "cd"),
            sum(1, 1, "abc", "d"),
            sum(1, 1, "a", "bcd"),
            sum(1, 1, "ab", "ce"),
            sum(1, 1, "ab", ""),
            // No user any more, but checked against a hash that is the same.
            removed,
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(all[0], sum(1, 1, "ab", "cd"));
    }

    #[test]
    fn it_forgets_by_time_and_for_room() {
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut memory = Memory::new(2, Duration::from_secs(10));
        memory.insert([1; 32], at(0));
        assert!(memory.contains(&[1; 32], at(9)) && !memory.contains(&[1; 32], at(10)));
        assert!(!memory.contains(&[2; 32], at(0)));
        memory.insert([2; 32], at(5));
        memory.insert([3; 32], at(6));
        assert!(!memory.contains(&[1; 32], at(6)), "the oldest makes room");
        assert!(memory.contains(&[2; 32], at(6)) && memory.contains(&[3; 32], at(6)));
        memory.insert([2; 32], at(7));
        assert!(memory.contains(&[2; 32], at(16)), "remembered anew");
        for i in 0..100 {
            memory.insert([i; 32], at(8));
            assert!(memory.entries.len() <= 2);
        }
    }
}
