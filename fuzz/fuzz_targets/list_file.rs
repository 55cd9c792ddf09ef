//! List files: each line is recognised by itself, however the file is read, and the compact list agrees with its entries
//! one by one. A BEL in the input is a long word, so that
//! small inputs have lines that are too long.
#![no_main]

use std::io::{BufRead, BufReader};

use calamary::config::list_file::{Entry, Passed, read};
use calamary::decide::list::{ListBuilder, Source};
use calamary::decide::name::NamePattern;
use calamary_fuzz::Random;
use libfuzzer_sys::fuzz_target;

const LONG_WORD: u8 = 0x07;
const LONG_WORD_LEN: usize = 2000;
/// Entries whose own names and addresses are looked up.
const MAX_LOOKED_UP: usize = 50;
/// Enough for a line that is longer than the reader takes.
const MAX_LONG_WORDS: usize = 8;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fuzz_target!(|data: &[u8]| {
    let mut words = data.split(|&byte| byte == LONG_WORD);
    let mut file = words.next().unwrap_or_default().to_vec();
    for word in words.take(MAX_LONG_WORDS) {
        file.resize(file.len() + LONG_WORD_LEN, b'a');
        file.extend_from_slice(word);
    }
    check(&file);
});

fn check(data: &[u8]) {
    let (entries, passed) = all(data);
    let bad = &passed.bad;
    let lines: Vec<&[u8]> = data.split_inclusive(|&byte| byte == b'\n').collect();
    let is_line = |line: &u32| (1..=lines.len()).contains(&(*line as usize));
    assert!(entries.iter().map(|(_, line)| line).all(is_line));
    assert!(entries.is_sorted_by_key(|(_, line)| *line));
    assert!(bad.first.iter().all(is_line) && bad.first.is_sorted() && bad.first.len() <= bad.count as usize);

    check_list(&entries);

    let capacity = Random::of(data).within(1..=64);
    assert_eq!(
        all(BufReader::with_capacity(capacity, data)),
        (entries, passed),
        "in reads of {capacity} bytes"
    );

    let (mut entries, passed) = all(data);
    let mut count = 0;
    for (line, number) in lines.iter().zip(1..) {
        // It means something in the first line only.
        if number != 1 && line.starts_with(BYTE_ORDER_MARK) {
            count = without_entry(&passed);
            entries.clear();
            break;
        }
        let (own, passed) = all(*line);
        let one = without_entry(&passed);
        count += one;
        assert!(one <= 1);
        let rest = entries.split_off(own.len().min(entries.len()));
        assert!(entries.iter().all(|(_, at)| *at == number));
        assert!(
            own.iter().map(|(entry, _)| entry).eq(entries.iter().map(|(entry, _)| entry)),
            "line {number}"
        );
        entries = rest;
    }
    assert!(entries.is_empty());
    assert_eq!(count, without_entry(&passed));
}

/// The list in memory says what its entries say one by one, of their own domains and addresses and of those beside.
fn check_list(entries: &[(Entry, u32)]) {
    let mut list = ListBuilder::new("list".into(), Source::File("list.txt".into()));
    let (mut names, mut exceptions, mut nets) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, line) in entries {
        match entry {
            Entry::Net(net) => {
                list.net(*net, *line);
                nets.push(*net);
            }
            Entry::Name(pattern) => {
                list.name(pattern, *line);
                names.push(pattern);
            }
            Entry::Except(pattern) => {
                list.except(pattern);
                exceptions.push(pattern);
            }
        }
    }
    let list = list.build();
    let any = |patterns: &[&NamePattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
    for domain in names.iter().chain(&exceptions).take(MAX_LOOKED_UP).map(|pattern| pattern.domain()) {
        let parent = domain.split_once('.').map_or("", |(_, parent)| parent);
        for name in [domain, parent, &format!("a.{domain}"), &format!("a{domain}")] {
            let want = any(&names, name) && !any(&exceptions, name);
            assert_eq!(list.contains_name(name), want, "{name}");
        }
    }
    for net in nets.iter().take(MAX_LOOKED_UP) {
        for addr in [net.addr(), net.network(), net.broadcast()] {
            let want = nets.iter().any(|net| net.contains(&addr.to_canonical()));
            assert_eq!(list.contains_addr(addr), want, "{addr}");
        }
    }
}

fn without_entry(passed: &Passed) -> u32 {
    let skipped = passed.skipped;
    passed.bad.count + skipped.options + skipped.cosmetic + skipped.patterns
}

fn all(input: impl BufRead) -> (Vec<(Entry, u32)>, Passed) {
    let mut entries = Vec::new();
    let passed = read(input, |entry, line| entries.push((entry, line))).unwrap();
    (entries, passed)
}
