//! Sets of very many names in about eight bytes each: a keyed hash of each domain, sorted.
//!
//! The names themselves are not kept, so a set can tell neither which entry covers a name nor on which line it stands;
//! `--why` reads the file again for that. A name that is in no entry is found by mistake with a probability of one in
//! 2^62 for each entry and label: for a million entries and ten labels, once in 4·10^11 lookups. The key is random and
//! never leaves the process, so nobody can search for such a name.

use std::collections::TryReserveError;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::name::{Coverage, NamePattern};

/// What an entry says of its domain, in the low bits of its word, below the fingerprint.
const ITSELF: u64 = 0b01;
const BELOW: u64 = 0b10;
/// Neither bit: the domain and all below it are taken out of the set.
const EXCEPTED: u64 = 0b00;
const COVERAGE: u64 = 0b11;

/// A bucket of the index is one or two cache lines: 8 to 16 words on average.
const WORDS_PER_BUCKET: usize = 8;

/// A set of patterns and of exceptions from them.
#[derive(Default)]
pub struct FingerprintSet {
    key: RandomState,
    /// Fingerprint and coverage, sorted, each fingerprint once.
    words: Vec<u64>,
    /// For each value of the top bits of a word: where the first word stands that is not below it. Empty while the set
    /// is filled.
    index: Vec<u32>,
    /// How many bits a word is shifted to give its place in `index`; with fewer than two buckets there is no index.
    shift: u32,
    exceptions: bool,
}

impl FingerprintSet {
    /// Makes room for exactly this many more entries.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn reserve(&mut self, entries: usize) -> Result<(), TryReserveError> {
        self.words.try_reserve_exact(entries)
    }

    /// Adds a pattern; nothing is found before [`FingerprintSet::finish`].
    pub fn push(&mut self, pattern: &NamePattern) {
        let coverage = match pattern.coverage() {
            Coverage::Exact => ITSELF,
            Coverage::Below => BELOW,
            Coverage::Tree => ITSELF | BELOW,
        };
        self.words.push(self.fingerprint(pattern.domain()) | coverage);
    }

    /// Takes a domain and all below it out of the set, whatever else is added, before or after.
    pub fn except(&mut self, pattern: &NamePattern) {
        self.exceptions = true;
        self.words.push(self.fingerprint(pattern.domain()) | EXCEPTED);
    }

    /// Sorts what was pushed and makes one entry of what is said of the same domain.
    pub fn finish(&mut self) {
        self.words.sort_unstable();
        self.words.dedup_by(|next, kept| {
            let same = (*next ^ *kept) & !COVERAGE == 0;
            // An exception sorts first and stays one.
            if same && *kept & COVERAGE != EXCEPTED {
                *kept |= *next;
            }
            same
        });
        self.words.shrink_to_fit();
        self.build_index();
    }

    fn build_index(&mut self) {
        let bits = (self.words.len() / WORDS_PER_BUCKET).checked_ilog2().unwrap_or(0);
        self.index = Vec::new();
        if bits == 0 {
            return;
        }
        self.shift = u64::BITS - bits;
        let buckets = 1usize << bits;
        self.index.reserve_exact(buckets + 1);
        let mut place = 0;
        for bucket in 0..buckets {
            let below = |word: &u64| usize::try_from(*word >> self.shift).is_ok_and(|at| at < bucket);
            place += self.words.iter().skip(place).take_while(|word| below(word)).count();
            self.index.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        self.index.push(u32::try_from(self.words.len()).unwrap_or(u32::MAX));
    }

    /// How many different domains there are, exceptions among them.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no domain.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a pattern covers `name`, which is normalised, and no exception does.
    pub fn contains(&self, name: &str) -> bool {
        if self.words.is_empty() {
            return false;
        }
        // From the last label on, so that each suffix is hashed only where it is longer than the one before.
        let mut hasher = self.key.build_hasher();
        let mut covered = false;
        let mut rest = Some(name);
        while let Some(text) = rest {
            let (parents, label) = match text.rsplit_once('.') {
                Some((parents, label)) => (Some(parents), label),
                None => (None, text),
            };
            add_label(&mut hasher, label);
            let wanted = if parents.is_some() { BELOW } else { ITSELF };
            match self.coverage(finish(&hasher)) {
                Some(EXCEPTED) => return false,
                Some(coverage) if coverage & wanted != 0 => {
                    if !self.exceptions {
                        return true;
                    }
                    covered = true;
                }
                _ => {}
            }
            rest = parents;
        }
        covered
    }

    /// What stands in the set for exactly this domain.
    fn coverage(&self, fingerprint: u64) -> Option<u64> {
        let bucket = match usize::try_from(fingerprint.checked_shr(self.shift)?) {
            Ok(at) if !self.index.is_empty() => {
                let from = usize::try_from(*self.index.get(at)?).ok()?;
                let to = usize::try_from(*self.index.get(at.checked_add(1)?)?).ok()?;
                self.words.get(from..to)?
            }
            _ => &self.words,
        };
        let at = bucket.partition_point(|word| *word < fingerprint);
        let word = *bucket.get(at)?;
        (word & !COVERAGE == fingerprint).then_some(word & COVERAGE)
    }

    fn fingerprint(&self, domain: &str) -> u64 {
        let mut hasher = self.key.build_hasher();
        domain.rsplit('.').for_each(|label| add_label(&mut hasher, label));
        finish(&hasher)
    }
}

/// No label holds a dot, so no two domains are the same bytes.
fn add_label(hasher: &mut impl Hasher, label: &str) {
    hasher.write(label.as_bytes());
    hasher.write(b".");
}

fn finish(hasher: &impl Hasher) -> u64 {
    hasher.finish() & !COVERAGE
}

impl std::fmt::Debug for FingerprintSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FingerprintSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::decide::name::normalise;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    /// The lines of a list: patterns, and exceptions behind `@@`.
    fn set(lines: &[&str]) -> FingerprintSet {
        let mut set = FingerprintSet::default();
        for line in lines {
            match line.strip_prefix("@@") {
                Some(domain) => set.except(&pattern(domain)),
                None => set.push(&pattern(line)),
            }
        }
        set.finish();
        set
    }

    #[test]
    fn patterns_and_exceptions() {
        let check = |lines: &[&str], inside: &[&str], outside: &[&str]| {
            let set = set(lines);
            inside.iter().for_each(|name| assert!(set.contains(name), "{name} in {lines:?}"));
            outside.iter().for_each(|name| assert!(!set.contains(name), "{name} not in {lines:?}"));
        };
        check(&[], &[], &["example.com", "", "."]);
        check(&["example.com"], &["example.com"], &["www.example.com", "com", "xexample.com", "", ".", ".."]);
        check(&["*.example.com"], &["www.example.com", "a.b.example.com"], &["example.com", "com"]);
        check(
            &[".example.com"],
            &["example.com", "www.example.com", ".example.com"],
            &["com", "badexample.com"],
        );
        check(
            &["example.com", "*.example.com", "*.example.com"],
            &["example.com", "a.example.com"],
            &["com"],
        );
        check(&[".com"], &["example.com", "com"], &["example.org", "com.org"]);
        // The exception wins wherever it stands, and however much closer the entry is.
        let excepted = ["www.example.com", "a.www.example.com", "ads.www.example.com"];
        check(&[".example.com", "@@www.example.com"], &["example.com", "w.example.com"], &excepted);
        check(&["@@www.example.com", ".ads.www.example.com", ".example.com"], &["example.com"], &excepted);
        check(&["@@a.example", ".a.example", "a.example", "*.a.example"], &[], &["a.example", "x.a.example"]);
        check(&["@@a.example"], &[], &["a.example", "b.example"]);
    }

    #[test]
    fn the_same_domain_is_one_entry() {
        assert_eq!(set(&["a.example", "*.a.example", ".a.example", "@@a.example", "b.example"]).len(), 2);
        assert!(FingerprintSet::default().is_empty() && !set(&["@@a.example"]).is_empty());
    }

    /// What the index leaves out would not be found.
    #[test]
    fn sets_of_every_size_have_all_their_names() {
        for size in (0..200).chain([1023, 1024, 1025, 5000]) {
            let mut set = FingerprintSet::default();
            set.reserve(size).unwrap();
            let name = |i: usize| format!("host{i}.example");
            (0..size).for_each(|i| set.push(&pattern(&name(i))));
            set.finish();
            assert_eq!(set.len(), size);
            (0..size).for_each(|i| assert!(set.contains(&name(i)), "{i} of {size}"));
            (size..size + 100).for_each(|i| assert!(!set.contains(&name(i)), "{i} of {size}"));
        }
    }

    #[test]
    fn agrees_with_a_set_of_strings() {
        // xorshift (Marsaglia 2003)
        let mut state = 2_463_534_242u32;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % below
        };
        let name = |random: &mut dyn FnMut(usize) -> usize| {
            let labels: Vec<&str> =
                (0..=random(4)).map(|_| ["a", "b", "c", "ab", "xn--a"][random(5)]).collect();
            labels.join(".")
        };
        for _ in 0..500 {
            let mut set = FingerprintSet::default();
            let mut oracle: [HashSet<String>; 3] = Default::default();
            for i in 0..random(40) {
                let domain = name(&mut random);
                match i % 5 {
                    0 => set.push(&pattern(&domain)),
                    1 => set.push(&pattern(&format!("*.{domain}"))),
                    2 => set.except(&pattern(&domain)),
                    _ => set.push(&pattern(&format!(".{domain}"))),
                }
                if matches!(i % 5, 0 | 3 | 4) {
                    oracle[0].insert(domain.clone());
                }
                if matches!(i % 5, 1 | 3 | 4) {
                    oracle[1].insert(domain.clone());
                }
                if i % 5 == 2 {
                    oracle[2].insert(domain);
                }
            }
            set.finish();
            for _ in 0..100 {
                let name = name(&mut random);
                let suffixes: Vec<&str> = std::iter::once(name.as_str())
                    .chain(name.match_indices('.').map(|(dot, _)| &name[dot + 1..]))
                    .collect();
                let covered =
                    oracle[0].contains(&name) || suffixes[1..].iter().any(|s| oracle[1].contains(*s));
                let excepted = suffixes.iter().any(|s| oracle[2].contains(*s));
                assert_eq!(set.contains(&name), covered && !excepted, "{name} {oracle:?}");
            }
        }
    }

    /// As many labels as a name can have: each is looked at once, whatever the length.
    #[test]
    fn the_longest_names() {
        let longest = normalise("a.".repeat(127).as_bytes()).unwrap();
        assert_eq!(longest.len(), 253);
        let set = set(&[&longest, ".b.example"]);
        assert!(set.contains(&longest) && !set.contains(&longest[2..]));
        let long = format!("{}b.example", "x.".repeat(120));
        assert!(set.contains(&long) && !set.contains(&format!("{long}x")));
        let one_label = normalise(&[b'a'; 253]).unwrap();
        assert!(!set.contains(&one_label));
    }
}
