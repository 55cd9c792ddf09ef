//! A bounded map that forgets what was not used for long.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Two generations approximate least recently used without lists or scans: once the young one holds half of the
/// capacity it becomes the old one, and what was old and not asked for since is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Nothing yet, and never more than `capacity` entries (at least two).
    pub(super) fn new(capacity: usize) -> Self {
        Recent { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(2) }
    }

    /// What is kept under `key`, if it still counts.
    pub(super) fn get<Q>(&mut self, key: &Q, counts: impl Fn(&V) -> bool) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(value) = self.young.get(key) {
            return counts(value).then(|| value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        if !counts(&value) {
            return None;
        }
        self.put(key, value.clone());
        Some(value)
    }

    /// Keeps `value` instead of what was there before.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.put(key, value);
    }

    /// Entries, those included that no longer count.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}
