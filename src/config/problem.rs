//! What is wrong with a configuration, and where. Every problem of a file is collected, up to a limit, before anybody
//! is told: a second start to find the second typing error is one too many.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::tree::{Node, Place, Value};

/// Problems of one kind that are kept; the others are only counted.
pub(super) const MAX_PROBLEMS: usize = 100;
/// Characters of a value that a message shows.
const MAX_SHOWN_CHARS: usize = 64;
/// Longer words are not compared for a spelling that may have been meant.
const MAX_NEAREST_CHARS: usize = 40;

/// Words that are compared.
const MAX_NEAREST_WORDS: usize = 1000;

/// One thing that is wrong, or doubtful where it is a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// From 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// From 1, in characters; 0 where the file as a whole is meant.
    pub column: u32,
    /// The keys that lead there, as in `rules[3].match.port`; empty for the file as a whole.
    pub path: String,
    /// What was found and what is accepted.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line != 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        // A message names what stands in the file, which may be a path with control characters; a terminal gets none.
        f.write_str(" ")?;
        self.message.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

/// Everything that is wrong, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    /// A single problem with the file as a whole.
    pub(super) fn whole_file(file: &Path, message: String) -> Self {
        Problems::one(Problem { file: file.to_owned(), line: 0, column: 0, path: String::new(), message })
    }

    /// A single problem.
    pub(super) fn one(problem: Problem) -> Self {
        Problems { list: vec![problem], omitted: 0 }
    }

    /// The problems that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// The kept problems themselves.
    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.list
    }

    /// How many more there were.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index != 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.omitted != 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects what the decoders find.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Findings,
    warnings: Findings,
}

#[derive(Debug, Default)]
struct Findings {
    list: Vec<Finding>,
    omitted: usize,
}

#[derive(Debug)]
struct Finding {
    id: u32,
    place: Place,
    missing_key: &'static str,
    message: String,
}

impl Findings {
    fn push(&mut self, finding: Finding) {
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(finding);
        } else {
            self.omitted = self.omitted.saturating_add(1);
        }
    }

    fn resolve(mut self, root: &Node, file: &Path) -> Problems {
        self.list.sort_by_key(|finding| finding.place);
        let list = self.list.into_iter().map(|finding| {
            let mut path = root.path_to(finding.id);
            if !finding.missing_key.is_empty() {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(finding.missing_key);
            }
            let Place { line, column } = finding.place;
            Problem { file: file.to_owned(), line, column, path, message: finding.message }
        });
        Problems { list: list.collect(), omitted: self.omitted }
    }
}

impl Report {
    /// Something is wrong with this key or value.
    pub(super) fn error(&mut self, node: &Node, message: impl Into<String>) {
        self.errors.push(finding(node, "", message.into()));
    }

    /// `key` should stand in this map and does not.
    pub(super) fn missing(&mut self, map: &Node, key: &'static str, message: impl Into<String>) {
        self.errors.push(finding(map, key, message.into()));
    }

    /// Something is allowed but hardly meant.
    pub(super) fn warn(&mut self, node: &Node, message: impl Into<String>) {
        self.warnings.push(finding(node, "", message.into()));
    }

    /// The value is not `accepted`, which begins with what it is called: `a port: a number 0-65535`.
    pub(super) fn expected(&mut self, node: &Node, accepted: &str) {
        let message = match &node.value {
            Value::Null => format!("has no value, not {accepted}"),
            Value::Text(text) if text.is_empty() => format!("an empty text is not {accepted}"),
            Value::Text(text) => format!("`{}` is not {accepted}", shown(text)),
            Value::Seq(_) => format!("a list is not {accepted}"),
            Value::Map(_) => format!("a map is not {accepted}"),
            Value::Tag(tag) => {
                format!("`!{0}` without quotes is a YAML tag: write '!{0}'", shown(tag))
            }
        };
        self.error(node, message);
    }

    /// The value is none of `words`.
    pub(super) fn expected_word(&mut self, node: &Node, what: &str, words: &[&str]) {
        let mut accepted = format!("{what}: {}", listed(words));
        if let Value::Text(text) = &node.value {
            accepted.push_str(&self.did_you_mean(text, words.iter().copied()));
        }
        self.expected(node, &accepted);
    }

    /// The hint at the nearest of `words`, while somebody will still see it.
    pub(super) fn did_you_mean<W: AsRef<str>>(&self, found: &str, words: impl Iterator<Item = W>) -> String {
        if self.errors.list.len() < MAX_PROBLEMS { did_you_mean(found, words) } else { String::new() }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.list.is_empty()
    }

    /// All errors and all warnings, with their places.
    pub(super) fn resolve(self, root: &Node, file: &Path) -> (Problems, Problems) {
        (self.errors.resolve(root, file), self.warnings.resolve(root, file))
    }
}

fn finding(node: &Node, missing_key: &'static str, message: String) -> Finding {
    Finding { id: node.id, place: node.place, missing_key, message }
}

/// A value as a message shows it: on one line, and not all of a long one.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX_SHOWN_CHARS)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

/// `` `a`, `b`, `c` ``.
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// ``, did you mean `port`?`` where one of `words` is near enough to `found`, else nothing.
fn did_you_mean<W: AsRef<str>>(found: &str, words: impl Iterator<Item = W>) -> String {
    let letters = |word: &str| -> Vec<char> { word.chars().map(|c| c.to_ascii_lowercase()).collect() };
    let found = letters(found);
    if found.len() > MAX_NEAREST_CHARS {
        return String::new();
    }
    let nearest = words
        .take(MAX_NEAREST_WORDS)
        .map(|word| (distance(&found, &letters(word.as_ref())), word))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, word))
            if distance <= (found.len() / 3).max(1) && distance < word.as_ref().chars().count() =>
        {
            format!(", did you mean `{}`?", word.as_ref())
        }
        _ => String::new(),
    }
}

/// Letters to insert, remove, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&above, j) + usize::from(ca != cb);
            let mut best = replaced.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&cb) && b.get(j - 1) == Some(&ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_spelling() {
        let check = |found: &str, expected: &str| {
            let words = ["port", "sport", "protoL5", "dns", "encrypted"];
            assert_eq!(did_you_mean(found, words.into_iter()), expected, "{found}");
        };
        check("prot", ", did you mean `port`?");
        check("PORT", ", did you mean `port`?");
        check("protol5", ", did you mean `protoL5`?");
        check("encrpyted", ", did you mean `encrypted`?");
        check("dsn", ", did you mean `dns`?");
        check("source", "");
        check("x", "");
        check("", "");
        check(&"x".repeat(1000), "");
    }

    #[test]
    fn values_are_shown_on_one_line_and_cut() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"ä".repeat(100)), format!("{}…", "ä".repeat(64)));
    }
}
