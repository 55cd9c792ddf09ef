//! List files: one entry a line, each line recognised by itself, so that the lists people publish work as they are.
//!
//! - hosts: `0.0.0.0 ads.example.com [more names]`;
//! - plain domains: `ads.example.com`, which covers the names below it, too, and `*.example.com`, `.example.com`;
//! - adblock: `||ads.example.com^`, and the exception `@@||good.ads.example.com^`;
//! - addresses and networks: `192.0.2.1`, `2001:db8::/32`.
//!
//! `#` and `!` begin a comment, behind an entry, too; `[Adblock Plus 2.0]` is one. Adblock rules that only a browser can
//! follow are counted by kind, everything else (typing errors) is counted and named: a list that somebody else keeps must
//! not stop the proxy. A file that cannot be read, or is too large, does.
//!
//! A file is read twice, first to count: then the list is made in one piece of exactly its size, and beside it only one
//! line is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::progress::Progress;
use super::rules::{check_name, parse_net};
use crate::decide::list::ListBuilder;
use crate::decide::name::{Coverage, NamePattern};
use crate::decide::why::Wanted;
use crate::sys::error::described;

/// The largest list file.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// The most entries of a list file: 128 MiB of names.
const MAX_ENTRIES: usize = 1 << 24;
/// Longer lines are no entries; the longest name has 253 bytes, a line of hosts a few of them.
const MAX_LINE_BYTES: u64 = 4096;
/// Lines without an entry whose numbers are kept.
const MAX_BAD_LINES: usize = 5;
/// What is read from the file at a time.
const READ_BYTES: usize = 64 << 10;

/// Options of adblock rules that change nothing here: a rule for `all` kinds of requests, and one that is `important`
/// among others of its file.
const MEANINGLESS_OPTIONS: [&str; 2] = ["all", "important"];

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// An address or a network.
    Net(IpNet),
    /// A name, or a tree of names.
    Name(NamePattern),
    /// A tree of names that is taken out of the list.
    Except(NamePattern),
}

/// Lines that are neither entries nor comments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What is wrong.
    pub bad: BadLines,
    /// What is meant for browsers.
    pub skipped: Skipped,
}

/// Lines that nobody could understand.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    /// How many.
    pub count: u32,
    /// The numbers of the first of them, from 1.
    pub first: Vec<u32>,
}

/// Adblock rules about what a proxy does not see.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// With options: for some pages or kinds of content only, `||ads.example.com^$third-party`.
    pub options: u32,
    /// About parts of a page, `example.com##.ad`.
    pub cosmetic: u32,
    /// About paths, or patterns of names: `||example.com/ads/`, `/ad[0-9]/`.
    pub patterns: u32,
}

/// Why a line has no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Options,
    Cosmetic,
    Pattern,
    Sense,
}

/// How much a file holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) names: usize,
    pub(super) exceptions: usize,
    pub(super) v4: usize,
    pub(super) v6: usize,
}

impl Counts {
    fn add(&mut self, entry: &Entry) {
        // At most as many as there are bytes in a file.
        *match entry {
            Entry::Net(IpNet::V4(_)) => &mut self.v4,
            Entry::Net(IpNet::V6(_)) => &mut self.v6,
            Entry::Name(_) => &mut self.names,
            Entry::Except(_) => &mut self.exceptions,
        } += 1;
    }

    pub(super) fn nets(self) -> usize {
        self.v4 + self.v6
    }

    fn all(self) -> usize {
        self.nets() + self.names + self.exceptions
    }
}

/// Reads a file into a list.
///
/// # Errors
/// The file cannot be read, is no regular file, or too large for us or for this machine.
pub(super) fn load(
    path: &Path,
    list: &mut ListBuilder,
    progress: &mut Progress,
) -> io::Result<(Counts, Passed)> {
    let mut file = open(path)?;
    let mut expected = Counts::default();
    read(reader(&file), |entry, line| {
        expected.add(&entry);
        progress.at(line, format_args!("reading {}: line {line}", path.display()));
    })?;
    if expected.all() > MAX_ENTRIES {
        return Err(described(io::ErrorKind::Other, format!("more than {MAX_ENTRIES} entries")));
    }
    list.reserve(expected.names + expected.exceptions, expected.v4, expected.v6)
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;

    file.rewind()?;
    let mut counts = Counts::default();
    progress.restart();
    let passed = read(reader(&file), |entry, line| {
        counts.add(&entry);
        // What was written into the file since it was counted would take memory that was not asked for.
        if counts.all() > expected.all() {
            return;
        }
        match &entry {
            Entry::Net(net) => list.net(*net, line),
            Entry::Name(pattern) => list.name(pattern, line),
            Entry::Except(pattern) => list.except(pattern),
        };
        progress.at(line, format_args!("storing {}: entry {}", path.display(), counts.all()));
    })?;
    if counts != expected {
        return Err(described(io::ErrorKind::Other, "was written to while it was read"));
    }
    Ok((counts, passed))
}

/// The line of the entry that covers what is wanted: of names the closest one, of several the first. None if there is
/// none, or no file any more.
pub fn find_line(path: &Path, wanted: Wanted<'_>) -> Option<u32> {
    let mut found: Option<(usize, u32)> = None;
    let look = |entry: Entry, line| {
        let closeness = match (&entry, wanted) {
            (Entry::Net(net), Wanted::Addr(addr)) if net.contains(&addr.to_canonical()) => 0,
            (Entry::Name(pattern), Wanted::Name(name)) if pattern.matches(name) => pattern.domain().len(),
            _ => return,
        };
        if found.is_none_or(|(best, _)| closeness > best) {
            found = Some((closeness, line));
        }
    };
    read(reader(&open(path).ok()?), look).ok()?;
    found.map(|(_, line)| line)
}

fn open(path: &Path) -> io::Result<File> {
    // Asked before it is opened: opening a named pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(described(io::ErrorKind::Other, "not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(described(io::ErrorKind::Other, format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    File::open(path)
}

/// What grows while it is read is cut at the limit.
fn reader(file: &File) -> impl BufRead {
    BufReader::with_capacity(READ_BYTES, file.take(MAX_FILE_BYTES))
}

/// Reads a list from `input` and hands over each entry with its line, from 1.
///
/// # Errors
/// The input cannot be read.
pub fn read(mut input: impl BufRead, mut add: impl FnMut(Entry, u32)) -> io::Result<Passed> {
    let mut passed = Passed::default();
    let mut line = Vec::new();
    let mut number = 0u32;
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(passed);
        }
        number = number.saturating_add(1);
        let whole =
            line.last() == Some(&b'\n') || u64::try_from(line.len()).is_ok_and(|len| len < MAX_LINE_BYTES);
        if !whole {
            skip_line(&mut input)?;
        }
        let text =
            if number == 1 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) } else { &line };
        if is_nothing(text) {
            continue;
        }
        let parsed = if whole { parse_line(text, |entry| add(entry, number)) } else { Err(Without::Sense) };
        if let Err(without) = parsed {
            passed.count(without, number);
        }
    }
}

impl Passed {
    fn count(&mut self, without: Without, line: u32) {
        let count = match without {
            Without::Options => &mut self.skipped.options,
            Without::Cosmetic => &mut self.skipped.cosmetic,
            Without::Pattern => &mut self.skipped.patterns,
            Without::Sense => {
                if self.bad.first.len() < MAX_BAD_LINES {
                    self.bad.first.push(line);
                }
                &mut self.bad.count
            }
        };
        *count = count.saturating_add(1);
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

/// Hands over the entries of one line.
fn parse_line(line: &[u8], mut add: impl FnMut(Entry)) -> Result<(), Without> {
    let line = std::str::from_utf8(line).map_err(|_| Without::Sense)?;
    // A comment may stand behind an entry.
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', '!']));
    let first = words.next().ok_or(Without::Sense)?;
    if is_cosmetic(first) {
        return Err(Without::Cosmetic);
    }
    match words.next() {
        None => parse_word(first).map(add),
        Some(name) if first.parse::<IpAddr>().is_ok() => {
            let mut parsed = Ok(());
            for name in std::iter::once(name).chain(words).filter(|name| !is_host_itself(name)) {
                match covering(name) {
                    Some(pattern) => add(Entry::Name(pattern)),
                    None => parsed = Err(Without::Sense),
                }
            }
            parsed
        }
        Some(_) => Err(Without::Sense),
    }
}

/// A line of one word.
fn parse_word(word: &str) -> Result<Entry, Without> {
    if let Some(rule) = word.strip_prefix("@@") {
        // An exception for an address does not occur.
        return adblock_domain(rule)
            .and_then(|name| covering(name).ok_or(Without::Pattern))
            .map(Entry::Except);
    }
    if word.starts_with('|') {
        let name = adblock_domain(word)?;
        return entry(name).ok_or_else(|| kind_of(name));
    }
    entry(word).ok_or_else(|| kind_of(word))
}

fn entry(word: &str) -> Option<Entry> {
    let like_net = word.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b':' | b'/'));
    let net = if like_net { parse_net(word) } else { None };
    net.map(Entry::Net).or_else(|| covering(word).map(Entry::Name))
}

/// The `example.com` of `||example.com^`, if that is all it says.
fn adblock_domain(rule: &str) -> Result<&str, Without> {
    let (pattern, options) =
        rule.split_once('$').map_or((rule, None), |(pattern, options)| (pattern, Some(options)));
    if options.is_some_and(|options| !options.split(',').all(|option| MEANINGLESS_OPTIONS.contains(&option)))
    {
        return Err(Without::Options);
    }
    pattern.strip_prefix("||").and_then(|rest| rest.strip_suffix('^')).ok_or(Without::Pattern)
}

/// What a word is that is no entry: a pattern of adblock's, or nothing known.
fn kind_of(word: &str) -> Without {
    let of_adblock = word.contains(['^', '*', '|', '?', '=', '&', '~']) || word.contains("://");
    let path = word.split_once('/').is_some_and(|(before, _)| before.parse::<IpAddr>().is_err());
    match word.split_once('$') {
        Some((_, options)) if !options.is_empty() => Without::Options,
        _ if of_adblock || path => Without::Pattern,
        _ => Without::Sense,
    }
}

/// `example.com##.ad`, `#@#`, `#?#`, `#$#`, `#%#`; and `example.com$$script`, `$@$`. One that is for every site begins
/// with `#` and is a comment here.
fn is_cosmetic(word: &str) -> bool {
    // Nearly every line is a name, and searching for strings is slow.
    if !word.bytes().any(|byte| matches!(byte, b'#' | b'$')) {
        return false;
    }
    let (_, behind) = word.split_once('#').unwrap_or_default();
    let separator = behind.trim_start_matches(['@', '?', '$', '%']).starts_with('#');
    separator || word.contains("$$") || word.contains("$@$")
}

/// A domain of a list covers itself and the names below it; `*.example.com` only those.
fn covering(name: &str) -> Option<NamePattern> {
    check_name(name).ok()?;
    if name.starts_with('.') || name.starts_with("*.") {
        NamePattern::parse(name).ok()
    } else {
        NamePattern::new(name, Coverage::Tree).ok()
    }
}

/// What a hosts file says of the machine itself: no entries of a list.
fn is_host_itself(name: &str) -> bool {
    let own = ["localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"];
    own.contains(&name) || name.starts_with("ip6-")
}

#[cfg(test)]
mod tests;
