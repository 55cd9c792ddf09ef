//! Names and their patterns: one form, and sets that say what their members say. The first line is a name, the others
//! are patterns.
#![no_main]

use calamary::decide::fingerprint::FingerprintSet;
use calamary::decide::name::{MAX_NAME, NamePattern, NameSet, normalise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&byte| byte == b'\n');
    let name = lines.next().and_then(normalise);
    if let Some(name) = &name {
        assert!(
            (1..=8 * MAX_NAME).contains(&name.len()) && name.is_ascii() && !name.ends_with('.'),
            "{name:?}"
        );
        assert!(!name.bytes().any(|byte| byte.is_ascii_control() || byte.is_ascii_uppercase()), "{name:?}");
        // `%` stands for a byte that is no text, and is escaped itself where it was sent; a name that fits as sent may be
        // longer in this form.
        if !name.contains('%') && name.len() < MAX_NAME {
            assert_eq!(normalise(name.as_bytes()).as_ref(), Some(name), "the one form of itself");
            assert_eq!(normalise(format!("{}.", name.to_ascii_uppercase()).as_bytes()).as_ref(), Some(name));
        }
    }

    let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let patterns: Vec<NamePattern> = texts.filter_map(|text| NamePattern::parse(text).ok()).collect();
    for pattern in &patterns {
        let written = pattern.to_string();
        if !written.contains('%') && written.len() < MAX_NAME {
            assert_eq!(NamePattern::parse(&written).as_ref(), Ok(pattern), "{written}");
        }
        if let Some(name) = &name {
            assert_eq!(pattern.matches(name), naive(&written, name), "{written} {name}");
        }
    }
    let Some(name) = name else { return };
    let set = NameSet::new(patterns.iter().cloned().zip(0..));
    assert!(set.len() <= patterns.len());
    let matching = patterns.iter().position(|pattern| pattern.matches(&name));
    assert_eq!(set.contains(&name), matching.is_some());
    if let Some(line) = set.find(&name) {
        assert!(patterns[line as usize].matches(&name), "line {line} does not cover {name}");
    }

    // The same as fingerprints, and with every third one taken out.
    let mut compact = FingerprintSet::default();
    patterns.iter().for_each(|pattern| compact.push(pattern));
    compact.finish();
    assert_eq!(compact.contains(&name), matching.is_some());
    let mut compact = FingerprintSet::default();
    let (mut covered, mut out) = (false, false);
    for (place, pattern) in patterns.iter().enumerate() {
        if place % 3 == 2 {
            compact.except(pattern);
            // Not parsed again: a domain with `%` in it is not the one form of itself.
            out |= naive(&format!(".{}", pattern.domain()), &name);
        } else {
            compact.push(pattern);
            covered |= pattern.matches(&name);
        }
    }
    compact.finish();
    assert_eq!(compact.contains(&name), covered && !out);
});

/// The same told naively, label by label from the end.
fn naive(pattern: &str, name: &str) -> bool {
    let (domain, itself, below) = match (pattern.strip_prefix("*."), pattern.strip_prefix('.')) {
        (Some(domain), _) => (domain, false, true),
        (None, Some(domain)) => (domain, true, true),
        (None, None) => (pattern, true, false),
    };
    let labels: Vec<&str> = name.split('.').collect();
    let domain: Vec<&str> = domain.split('.').collect();
    labels.ends_with(&domain) && if labels.len() == domain.len() { itself } else { below }
}
