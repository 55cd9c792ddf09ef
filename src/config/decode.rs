//! From nodes to typed values: maps with known keys, scalars, lists. What is wrong goes to the report and the value is
//! `None`; the caller goes on with the next one.

use super::problem::{Report, listed, shown};
use super::tree::{Node, Value};

/// The keys that a map may have, and other spellings of them.
pub(super) struct Keys {
    /// Keys of this map alone.
    pub(super) own: &'static [&'static str],
    /// Keys that another map may have, too.
    pub(super) shared: &'static [&'static str],
    /// What else may be written, and the key that is meant.
    pub(super) aliases: &'static [(&'static str, &'static str)],
}

impl Keys {
    /// Keys without other spellings.
    pub(super) const fn new(own: &'static [&'static str]) -> Self {
        Keys { own, shared: &[], aliases: &[] }
    }

    fn lookup(&self, text: &str) -> Option<&'static str> {
        let alias = self.aliases.iter().find(|(alias, _)| *alias == text).map(|(_, known)| *known);
        alias.or_else(|| self.all().find(|known| *known == text))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'static str> {
        self.own.iter().chain(self.shared).copied()
    }

    fn listed(&self) -> String {
        listed(&self.all().collect::<Vec<_>>())
    }
}

/// A map whose keys are known and stand there once.
pub(super) struct Section<'t> {
    entries: Vec<Entry<'t>>,
}

#[derive(Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) name: &'static str,
    pub(super) key: &'t Node,
    pub(super) value: &'t Node,
}

impl<'t> Section<'t> {
    /// Without any key.
    pub(super) fn empty() -> Self {
        Section { entries: Vec::new() }
    }

    /// Checks the keys of a map. A key without a value is an empty map: everything in it may be commented out.
    pub(super) fn read(node: &'t Node, keys: &Keys, report: &mut Report) -> Self {
        let mut section = Section::empty();
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (key, value) in entries {
                    if let Some(name) = known_key(key, keys, report) {
                        section.insert(Entry { name, key, value }, report);
                    }
                }
            }
            _ => report.expected(node, &format!("a map with the keys {}", keys.listed())),
        }
        section
    }

    /// Adds the keys that stand in another place; each may stand in one of them only.
    pub(super) fn join(&mut self, other: Section<'t>, report: &mut Report) {
        for entry in other.entries {
            self.insert(entry, report);
        }
    }

    /// The value of a key, if it stands there.
    pub(super) fn get(&self, name: &str) -> Option<&'t Node> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    /// In the order of the file.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'t>> {
        self.entries.iter().copied()
    }

    fn insert(&mut self, entry: Entry<'t>, report: &mut Report) {
        match self.entries.iter().find(|other| other.name == entry.name) {
            Some(first) => {
                let (found, line) = (entry.key.key_text(), first.key.place.line);
                let message = if found == first.key.key_text() {
                    format!("`{found}` is also in line {line}: one of them is too many")
                } else {
                    format!(
                        "`{found}` means `{}`, which is also in line {line}: one of them is too many",
                        entry.name
                    )
                };
                report.error(entry.key, message);
            }
            None => self.entries.push(entry),
        }
    }
}

fn known_key(key: &Node, keys: &Keys, report: &mut Report) -> Option<&'static str> {
    let Value::Text(text) = &key.value else {
        report.expected(key, &format!("a key: {}", keys.listed()));
        return None;
    };
    let known = keys.lookup(text);
    if known.is_none() {
        let hint = match &**text {
            "<<" => "; YAML merge keys are not supported".to_owned(),
            text => report.did_you_mean(text, keys.all()),
        };
        report.error(key, format!("`{}` is no key here, accepted are {}{hint}", shown(text), keys.listed()));
    }
    known
}

/// The text of a scalar that is not null.
pub(super) fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Words for true and false, in any case.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "1" => Some(true),
        "false" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node, report: &mut Report) -> Option<bool> {
    let value = scalar(node).and_then(parse_bool);
    if value.is_none() {
        report.expected(node, "a truth value: `true`/`yes` or `false`/`no`");
    }
    value
}

/// A whole number of a range; `what` names it and its unit.
pub(super) fn number(
    node: &Node,
    what: &str,
    range: std::ops::RangeInclusive<u64>,
    report: &mut Report,
) -> Option<u64> {
    let value = scalar(node).and_then(parse_number).filter(|value| range.contains(value));
    if value.is_none() {
        report.expected(node, &format!("{what}: a number {}-{}", range.start(), range.end()));
    }
    value
}

/// Decimal digits, or hexadecimal ones after `0x`. A zero in front would mean octal to others.
fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if is_decimal(text) => text.parse().ok(),
        None => None,
    }
}

fn is_decimal(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'))
}

/// A port number.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    if is_decimal(text) { text.parse().ok() } else { None }
}

/// Text that is not empty; `what` names it.
pub(super) fn text<'t>(node: &'t Node, what: &str, report: &mut Report) -> Option<&'t str> {
    let value = scalar(node).filter(|text| !text.trim().is_empty());
    if value.is_none() {
        report.expected(node, what);
    }
    value
}

/// One of some words, in any case.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let value = scalar(node).and_then(|text| words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)));
    if value.is_none() {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        report.expected_word(node, what, &words);
    }
    value.map(|(_, value)| *value)
}

/// The items of a list; a single value is a list of one.
pub(super) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::Seq(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// The items of what must be a list; a key without a value is an empty one.
pub(super) fn list<'t>(node: &'t Node, what: &str, report: &mut Report) -> &'t [Node] {
    match &node.value {
        Value::Seq(items) => items,
        Value::Null => &[],
        _ => {
            report.expected(node, what);
            &[]
        }
    }
}
