//! What is seen most, of more than can be kept: the space-saving algorithm (Metwally, Agrawal, El Abbadi, 2005).
//!
//! A newcomer takes the place of the rarest entry, and its count as what it may have missed. So whatever makes up more than
//! one in [`MAX_ENTRIES`] of all is found here, and an entry's own count is never less than what is shown of it: a client
//! that makes names up pushes others like it out, and nothing to the front.

/// Entries that are kept.
const MAX_ENTRIES: usize = 128;
/// Bytes that are kept of a key: a name of DNS has fewer (RFC 1035 §2.3.4).
pub(super) const MAX_KEY: usize = 255;

/// A key, and how often it was seen at least.
pub(super) type Seen = (Box<[u8]>, u32);

/// The keys that were seen most.
#[derive(Debug, Default)]
pub(super) struct Top {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    count: u32,
    /// How much of `count` may be another one's.
    inherited: u32,
}

impl Entry {
    fn sure(&self) -> u32 {
        self.count.saturating_sub(self.inherited)
    }
}

impl Top {
    /// Was seen once more.
    pub(super) fn add(&mut self, key: &[u8]) {
        let key = key.get(..MAX_KEY).unwrap_or(key);
        if let Some(entry) = self.entries.iter_mut().find(|entry| *entry.key == *key) {
            entry.count = entry.count.saturating_add(1);
        } else if self.entries.len() < MAX_ENTRIES {
            self.entries.push(Entry { key: key.into(), count: 1, inherited: 0 });
        } else if let Some(rarest) = self.entries.iter_mut().min_by_key(|entry| entry.count) {
            let inherited = rarest.count;
            *rarest = Entry { key: key.into(), count: inherited.saturating_add(1), inherited };
        }
    }

    /// All that is kept, the most frequent first.
    pub(super) fn best(&self) -> Vec<Seen> {
        let mut all: Vec<&Entry> = self.entries.iter().collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.sure()));
        all.into_iter().map(|entry| (entry.key.clone(), entry.sure())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(top: &Top, most: usize) -> Vec<(String, u32)> {
        let name = |(key, count): Seen| (String::from_utf8(key.into()).unwrap(), count);
        top.best().into_iter().take(most).map(name).collect()
    }

    #[test]
    fn the_most_frequent_come_first() {
        let mut top = Top::default();
        for key in ["b", "a", "b", "c", "b", "a"] {
            top.add(key.as_bytes());
        }
        let want = [("b", 3), ("a", 2), ("c", 1)].map(|(key, count)| (key.to_owned(), count));
        assert_eq!(names(&top, 9), want);
        assert_eq!(names(&top, 1), want[..1]);
    }

    /// Ten times as many names that were made up, between those that count.
    #[test]
    fn names_that_are_made_up_drive_out_no_frequent_one() {
        let mut top = Top::default();
        for round in 0..2000_u32 {
            top.add(if round % 2 == 0 { b"ads.example" } else { b"adult.example" });
            for other in 0..10 {
                top.add(format!("{round}-{other}.made-up.example").as_bytes());
            }
        }
        let found = names(&top, 3);
        let first: Vec<&str> = found.iter().take(2).map(|(name, _)| name.as_str()).collect();
        assert!(first.contains(&"ads.example") && first.contains(&"adult.example"), "{found:?}");
        assert!(found[0].1 <= 1000 && found[1].1 > 500 && found[2].1 < 5, "{found:?}");
        assert_eq!(top.entries.len(), MAX_ENTRIES);
    }

    #[test]
    fn keys_are_bounded() {
        let mut top = Top::default();
        top.add(&[b'x'; 1000]);
        top.add(&[b'x'; MAX_KEY]);
        assert_eq!(names(&top, 9), [("x".repeat(MAX_KEY), 2)]);
    }
}
