//! Answers by name, kept for their time and within a bound.
//!
//! Used twice: by the resolver, and by every worker as a first look, so that hot names need no hop to another thread.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::ResolveError;
use crate::connect::recent::Recent;
use crate::wire::dns::MAX_NAME_TEXT;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Addresses, IPv6 first; or why there are none.
    pub result: Result<Arc<[IpAddr]>, ResolveError>,
    /// It may be used before this time, not from then on.
    pub valid_until: Instant,
}

/// A bounded map from names to answers. A last dot and case don't matter.
#[derive(Debug)]
pub struct AnswerCache(Recent<Box<str>, Entry>);

impl AnswerCache {
    /// An empty cache for at most `capacity` names (at least two).
    pub fn new(capacity: usize) -> Self {
        AnswerCache(Recent::new(capacity))
    }

    /// What is known of `name` at `now`.
    pub fn get(&mut self, name: &str, now: Instant) -> Option<Entry> {
        self.0.get(&*canonical(name), |entry| now < entry.valid_until)
    }

    /// Keeps an answer instead of what was known before. Nothing is kept under what is too long for a name: its size
    /// would be the client's choice.
    pub fn insert(&mut self, name: &str, entry: Entry) {
        let name = canonical(name);
        if name.len() <= MAX_NAME_TEXT {
            self.0.insert(name.into(), entry);
        }
    }

    /// Names held, expired ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The one spelling of a name: lower case, without a last dot.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(valid_until: Instant) -> Entry {
        Entry { result: Err(ResolveError::NotFound), valid_until }
    }

    #[test]
    fn an_entry_ends_at_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut cache = AnswerCache::new(10);
        cache.insert("Example.COM.", entry(later));
        assert_eq!(cache.get("example.com", now), Some(entry(later)));
        assert_eq!(cache.get("EXAMPLE.com.", now), Some(entry(later)));
        assert_eq!(cache.get("example.org", now), None);
        assert_eq!(cache.get("example.com", later), None);
    }

    #[test]
    fn an_overlong_name_is_not_kept() {
        let now = Instant::now();
        let mut cache = AnswerCache::new(10);
        for length in [MAX_NAME_TEXT, MAX_NAME_TEXT + 1] {
            cache.insert(&"a".repeat(length), entry(now));
            assert_eq!(cache.len(), 1);
        }
    }

    #[test]
    fn the_newest_answer_counts() {
        let now = Instant::now();
        let [old, new] = [1, 2].map(|s| entry(now + Duration::from_secs(s)));
        let mut cache = AnswerCache::new(2);
        cache.insert("a", old);
        cache.insert("b", new.clone()); // `a` is old now
        cache.insert("a", new.clone());
        assert_eq!(cache.get("a", now), Some(new));
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut cache = AnswerCache::new(8);
        for n in 0..1000 {
            cache.insert(&format!("host{n}"), entry(later));
            assert!(cache.len() <= 8, "{}", cache.len());
            assert!(cache.get("host0", now).is_some(), "after {n}");
        }
        assert!(cache.get("host1", now).is_none());
        assert!(cache.get("host999", now).is_some());
    }
}
