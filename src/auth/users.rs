//! The users of a listener: names and the hashes of their passwords.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::CryptHash;

/// Users of one listener at most, so that a file cannot fill a router's memory.
pub const MAX_USERS: usize = 10_000;

/// Who may come in. There is always somebody: a table without users would let nobody in, or everybody.
#[derive(Debug)]
pub struct Users {
    first: CryptHash,
    by_name: HashMap<Box<str>, CryptHash>,
    /// The same hashes, for those who are nobody.
    hashes: Vec<CryptHash>,
    /// Chooses among them; its key is this process' own.
    stand_ins: RandomState,
}

impl Users {
    /// The table of these users; nothing if there are none. Of two with one name the latter counts.
    pub fn new(users: impl IntoIterator<Item = (Box<str>, CryptHash)>) -> Option<Self> {
        let by_name: HashMap<_, _> = users.into_iter().collect();
        let hashes: Vec<_> = by_name.values().cloned().collect();
        let first = hashes.first()?.clone();
        Some(Users { first, by_name, hashes, stand_ins: RandomState::new() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is nobody; never so.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// The hash to check a password of `name` against, and whether there is such a user. One who is nobody gets somebody's,
    /// always the same, so that the time tells nobody which names there are.
    pub fn hash_for(&self, name: &str) -> (&CryptHash, bool) {
        match self.by_name.get(name) {
            Some(hash) => (hash, true),
            None => {
                let at = usize::try_from(self.stand_ins.hash_one(name) % self.count()).unwrap_or_default();
                (self.hashes.get(at).unwrap_or(&self.first), false)
            }
        }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.hashes.len()).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_somebodys_hash() {
        let hash = |password: &str| CryptHash::make(password.as_bytes(), [1; 12]).unwrap();
        let users = Users::new([("alice".into(), hash("a")), ("Bob".into(), hash("b"))]).unwrap();
        assert_eq!(users.hash_for("alice"), (&hash("a"), true));
        assert_eq!(users.hash_for("Bob"), (&hash("b"), true));
        for nobody in ["", "bob", "Alice", "mallory", "alice\0"] {
            let (stand_in, known) = users.hash_for(nobody);
            assert!(!known, "{nobody}");
            assert_eq!(users.hash_for(nobody).0, stand_in, "the same each time");
        }
        assert!(Users::new([]).is_none());
    }
}
