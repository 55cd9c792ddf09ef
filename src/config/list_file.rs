//! List files: one entry a line, each line recognised by itself, so that the lists people publish work as they are.
//!
//! - hosts: `0.0.0.0 ads.example.com [more names]`;
//! - plain domains: `ads.example.com`, which covers the names below it, too, and `*.example.com`, `.example.com`;
//! - adblock: `||ads.example.com^`;
//! - addresses and networks: `192.0.2.1`, `2001:db8::/32`.
//!
//! `#` and `!` begin a comment, behind an entry, too; `[Adblock Plus 2.0]` is one. What else stands there (exceptions, adblock rules with
//! options or paths, typing errors) is counted and passed over: a list that somebody else keeps must not stop the
//! proxy. A file that cannot be read, or is too large, does.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::rules::{parse_name, parse_net};
use crate::decide::name::NamePattern;

/// The largest list file.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Longer lines are no entries; the longest name has 253 bytes, a line of hosts a few of them.
const MAX_LINE_BYTES: u64 = 4096;
/// Lines without an entry whose numbers are kept.
const MAX_BAD_LINES: usize = 5;

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// An address or a network.
    Net(IpNet),
    /// A name, or a tree of names.
    Name(NamePattern),
}

/// Lines that are no entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    /// How many.
    pub count: u32,
    /// The numbers of the first of them, from 1.
    pub first: Vec<u32>,
}

/// Reads a file and hands over each entry with its line, from 1.
///
/// # Errors
/// The file cannot be read, is no regular file, or too large.
pub(super) fn read_file(path: &Path, add: impl FnMut(Entry, u32)) -> io::Result<BadLines> {
    // Asked before it is opened: opening a named pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    // What grows while it is read is cut at the same limit.
    read(BufReader::new(File::open(path)?.take(MAX_FILE_BYTES)), add)
}

/// Reads a list from `input` and hands over each entry with its line, from 1.
///
/// # Errors
/// The input cannot be read.
pub fn read(mut input: impl BufRead, mut add: impl FnMut(Entry, u32)) -> io::Result<BadLines> {
    let mut bad = BadLines::default();
    let mut line = Vec::new();
    let mut number = 0u32;
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(bad);
        }
        number = number.saturating_add(1);
        let whole =
            line.last() == Some(&b'\n') || u64::try_from(line.len()).is_ok_and(|len| len < MAX_LINE_BYTES);
        if !whole {
            skip_line(&mut input)?;
        }
        let text =
            if number == 1 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) } else { &line };
        let fine = is_nothing(text) || (whole && parse_line(text, |entry| add(entry, number)));
        if !fine {
            bad.count = bad.count.saturating_add(1);
            if bad.first.len() < MAX_BAD_LINES {
                bad.first.push(number);
            }
        }
    }
}

/// Reads on to the end of a line that is too long.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let (used, done) = match end {
            Some(position) => (position + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// An empty line or a comment, in whatever encoding.
fn is_nothing(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), None | Some(b'#' | b'!' | b'['))
}

/// Hands over the entries of one line. False if something else stands there.
fn parse_line(line: &[u8], mut add: impl FnMut(Entry)) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    // A comment may stand behind an entry.
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', '!']));
    let (Some(first), second) = (words.next(), words.next()) else { return false };
    match second {
        None => parse_word(first).map(&mut add).is_some(),
        Some(name) if first.parse::<IpAddr>().is_ok() => {
            let mut fine = true;
            for name in std::iter::once(name).chain(words).filter(|name| !is_host_itself(name)) {
                match covering(name) {
                    Some(pattern) => add(Entry::Name(pattern)),
                    None => fine = false,
                }
            }
            fine
        }
        Some(_) => false,
    }
}

/// A line of one word.
fn parse_word(word: &str) -> Option<Entry> {
    if let Some(net) = parse_net(word) {
        return Some(Entry::Net(net));
    }
    if let Some(rest) = word.strip_prefix("||") {
        let name = rest.strip_suffix('^')?;
        return parse_net(name).map(Entry::Net).or_else(|| covering(name).map(Entry::Name));
    }
    covering(word).map(Entry::Name)
}

/// A domain of a list covers itself and the names below it; `*.example.com` only those.
fn covering(name: &str) -> Option<NamePattern> {
    if name.starts_with('.') || name.starts_with("*.") {
        parse_name(name).ok()
    } else {
        parse_name(&format!(".{name}")).ok()
    }
}

/// What a hosts file says of the machine itself: no entries of a list.
fn is_host_itself(name: &str) -> bool {
    let own = ["localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"];
    own.contains(&name) || name.starts_with("ip6-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &[u8]) -> (Vec<(String, u32)>, BadLines) {
        let mut entries = Vec::new();
        let bad = read(text, |entry, line| {
            let shown = match entry {
                Entry::Net(net) => net.to_string(),
                Entry::Name(pattern) => {
                    let known = ["ads.example.com", "*.ads.example.com", ".ads.example.com", ".b.example"];
                    let same = |text: &&&str| NamePattern::parse(text).as_ref() == Ok(&pattern);
                    known.iter().find(same).map_or_else(|| format!("{pattern:?}"), |text| (*text).to_owned())
                }
            };
            entries.push((shown, line));
        });
        (entries, bad.unwrap())
    }

    #[test]
    fn each_line_is_recognised_by_itself() {
        let check = |line: &str, expected: &[&str]| {
            let (entries, bad) = entries(line.as_bytes());
            assert_eq!(bad, BadLines::default(), "{line}");
            assert_eq!(
                entries.iter().map(|(entry, _)| entry.as_str()).collect::<Vec<_>>(),
                expected,
                "{line}"
            );
        };
        check("0.0.0.0 ads.example.com", &[".ads.example.com"]);
        check("127.0.0.1\tADS.example.com b.example # both\r\n", &[".ads.example.com", ".b.example"]);
        check("::1 localhost ip6-localhost", &[]);
        check("ads.example.com ! a note", &[".ads.example.com"]);
        check("0.0.0.0 b.example !a note", &[".b.example"]);
        check("0.0.0.0 0.0.0.0", &[]);
        check("ads.example.com", &[".ads.example.com"]);
        check("ads.example.com.", &[".ads.example.com"]);
        check(".ads.example.com", &[".ads.example.com"]);
        check("*.ads.example.com", &["*.ads.example.com"]);
        check("||ads.example.com^", &[".ads.example.com"]);
        check("||192.0.2.1^", &["192.0.2.1/32"]);
        check("192.0.2.1", &["192.0.2.1/32"]);
        check("2001:db8::/32 # documentation", &["2001:db8::/32"]);
        check("\u{feff}# comment", &[]);
        check("! comment", &[]);
        check("[Adblock Plus 2.0]", &[]);
        check("   \t\r\n", &[]);
        check("", &[]);
    }

    #[test]
    fn bad_lines_are_counted_and_passed_over() {
        let check = |line: &str| {
            let (entries, bad) = entries(format!("b.example\n{line}\n192.0.2.1").as_bytes());
            assert_eq!(bad, BadLines { count: 1, first: vec![2] }, "{line}");
            assert_eq!(entries, [(".b.example".to_owned(), 1), ("192.0.2.1/32".to_owned(), 3)], "{line}");
        };
        check("@@||ads.example.com^");
        check("||ads.example.com^$third-party");
        check("||ads.example.com/path^");
        check("two words");
        check("443");
        check("10.0.0.0/33");
        check("1.2.3.4.5");
        check("ads.example.com:443");
        check("https://ads.example.com/");
        check("ads.example.com,b.example");
        check(&"a".repeat(100_000));
        check(&"a".repeat(4095));
        check(&"a".repeat(4096));
        check(&"a".repeat(4097));
    }

    #[test]
    fn only_the_first_bad_lines_are_named() {
        let (_, bad) = entries("? ?\n".repeat(1000).as_bytes());
        assert_eq!(bad, BadLines { count: 1000, first: vec![1, 2, 3, 4, 5] });
        let (_, bad) = entries(b"\xff\xfe\n\0\n");
        assert_eq!(bad.count, 2);
    }

    /// The rest of a line that is too long is no line of its own.
    #[test]
    fn long_lines_are_passed_over_as_a_whole() {
        // The end of the line would be an entry if it were read by itself.
        let check = |len: usize, fine: bool| {
            let (begin, end) = ("a.example", " 192.0.2.9\n");
            let padding = " ".repeat(len - begin.len() - " #".len() - end.len());
            let text = format!("{begin} #{padding}{end}192.0.2.1");
            let (entries, bad) = entries(text.as_bytes());
            let lines: Vec<u32> = entries.iter().map(|(_, line)| *line).collect();
            let (expected, bad_lines) = if fine { (vec![1, 2], 0) } else { (vec![2], 1) };
            assert_eq!((lines, bad.count), (expected, bad_lines), "{len}");
        };
        check(100, true);
        check(4096, true);
        check(4097, false);
        check(4096 + " 192.0.2.9".len(), false);
        check(60_000, false);
    }

    #[test]
    fn any_bytes_are_lines() {
        let pieces: &[&[u8]] = &[
            b"0.0.0.0 ",
            b"a.example",
            b"||",
            b"^",
            b"\n",
            b"\r\n",
            b"#",
            b" ",
            b"*.",
            b".",
            b"/",
            b"\0",
            b"\xff",
            b"xn--",
            b"::",
            b"\xc3\xa4",
        ];
        let mut state = 2_463_534_242u32;
        let mut text = Vec::new();
        for _ in 0..100_000 {
            // xorshift (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            text.extend_from_slice(pieces[state as usize % pieces.len()]);
        }
        let lines = text.split(|&byte| byte == b'\n').count() as u32;
        let mut last = 0;
        let bad = read(text.as_slice(), |_, line| {
            assert!(line >= last && line <= lines);
            last = line;
        })
        .unwrap();
        assert!(last > 0 && bad.count > 0 && bad.count <= lines);
    }
}
