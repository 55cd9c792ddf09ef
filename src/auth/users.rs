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
    others: Vec<CryptHash>,
    /// Places among the hashes, the first one's being 0.
    by_name: HashMap<Box<str>, usize>,
    /// Chooses among them; its key is this process' own.
    stand_ins: RandomState,
}

impl Users {
    /// The table of these users; nothing if there are none. Of two with one name the latter counts.
    pub fn new(users: impl IntoIterator<Item = (Box<str>, CryptHash)>) -> Option<Self> {
        let users: HashMap<Box<str>, CryptHash> = users.into_iter().collect();
        let mut by_name = HashMap::with_capacity(users.len());
        let mut hashes = users.into_iter().enumerate().map(|(place, (name, hash))| {
            by_name.insert(name, place);
            hash
        });
        let first = hashes.next()?;
        let others = hashes.collect();
        Some(Users { first, others, by_name, stand_ins: RandomState::new() })
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
        let known = self.by_name.get(name).copied();
        let place = known.unwrap_or_else(|| self.stand_in(name));
        let other = place.checked_sub(1).and_then(|place| self.others.get(place));
        (other.unwrap_or(&self.first), known.is_some())
    }

    /// The place of somebody for `name`, who is nobody.
    fn stand_in(&self, name: &str) -> usize {
        let count = u64::try_from(self.others.len()).unwrap_or(u64::MAX).saturating_add(1);
        usize::try_from(self.stand_ins.hash_one(name) % count).unwrap_or_default()
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
        let stand_ins = (0..100).map(|i| users.hash_for(&format!("nobody {i}")).0.as_str());
        assert_eq!(stand_ins.collect::<std::collections::HashSet<_>>().len(), 2, "everybody stands in");
        for nobody in ["", "bob", "Alice", "mallory", "alice\0"] {
            let (stand_in, known) = users.hash_for(nobody);
            assert!(!known, "{nobody}");
            assert_eq!(users.hash_for(nobody).0, stand_in, "the same each time");
        }
        assert!(Users::new([]).is_none());
    }
}
