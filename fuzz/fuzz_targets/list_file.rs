//! List files: each line is recognised by itself, however the file is read. A BEL in the input is a long word, so that
//! small inputs have lines that are too long.
#![no_main]

use std::io::{BufRead, BufReader};

use calamary::config::list_file::{BadLines, Entry, read};
use calamary_fuzz::Random;
use libfuzzer_sys::fuzz_target;

const LONG_WORD: u8 = 0x07;
const LONG_WORD_LEN: usize = 2000;
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
    let (entries, bad) = all(data);
    let lines: Vec<&[u8]> = data.split_inclusive(|&byte| byte == b'\n').collect();
    let is_line = |line: &u32| (1..=lines.len()).contains(&(*line as usize));
    assert!(entries.iter().map(|(_, line)| line).all(is_line));
    assert!(entries.is_sorted_by_key(|(_, line)| *line));
    assert!(bad.first.iter().all(is_line) && bad.first.is_sorted() && bad.first.len() <= bad.count as usize);

    let capacity = Random::of(data).within(1..=64);
    assert_eq!(all(BufReader::with_capacity(capacity, data)), (entries, bad), "in reads of {capacity} bytes");

    let (mut entries, bad) = all(data);
    let mut count = 0;
    for (line, number) in lines.iter().zip(1..) {
        // It means something in the first line only.
        if number != 1 && line.starts_with(BYTE_ORDER_MARK) {
            count = bad.count;
            entries.clear();
            break;
        }
        let (own, bad) = all(*line);
        count += bad.count;
        assert!(bad.count <= 1);
        let rest = entries.split_off(own.len().min(entries.len()));
        assert!(entries.iter().all(|(_, at)| *at == number));
        assert!(
            own.iter().map(|(entry, _)| entry).eq(entries.iter().map(|(entry, _)| entry)),
            "line {number}"
        );
        entries = rest;
    }
    assert!(entries.is_empty());
    assert_eq!(count, bad.count);
}

fn all(input: impl BufRead) -> (Vec<(Entry, u32)>, BadLines) {
    let mut entries = Vec::new();
    let bad = read(input, |entry, line| entries.push((entry, line))).unwrap();
    (entries, bad)
}
