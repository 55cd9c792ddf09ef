//! `vars`: what `$name` stands for. Values are understood where a rule uses them, so one variable may serve several
//! kinds of fields if all its values fit; a file is read when the first rule uses it, and once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{Keys, Section, items, list, scalar, text};
use super::list_file::{self, BadLines, Counts, Skipped};
use super::problem::{Report, shown};
use super::progress::Progress;
use super::rules::{parse_name, parse_net};
use super::tree::{Node, Value};
use crate::decide::list::{List, ListBuilder, Source};

const KEYS: Keys = Keys::new(&["name", "value", "file"]);

/// Bytes of a variable's name.
const MAX_NAME_BYTES: usize = 64;

/// Values that are copied out of variables into rules, all rules together.
const MAX_COPIED_VALUES: usize = 1 << 20;

/// All variables of a configuration.
pub(super) struct Variables<'t> {
    /// What relative paths start from.
    folder: &'t Path,
    /// Whether somebody watches how long files are read.
    progress: bool,
    all: Vec<Variable<'t>>,
    by_name: HashMap<&'t str, usize>,
    /// Values copied into rules so far.
    copied: usize,
}

struct Variable<'t> {
    name: &'t str,
    content: Content<'t>,
}

enum Content<'t> {
    Inline {
        values: &'t [Node],
        /// The lists that were asked for so far, or why there is none.
        addrs: Option<Result<Arc<List>, String>>,
        names: Option<Result<Arc<List>, String>>,
    },
    File {
        node: &'t Node,
        read: Option<FileList>,
    },
    /// Reported already.
    Wrong,
}

/// A list file after it was read.
enum FileList {
    Read {
        list: Arc<List>,
        content: FileContent,
    },
    /// Reported already.
    Unreadable,
}

/// What stands in a list file, for people.
#[derive(Clone, Copy)]
pub(super) struct FileContent {
    counts: Counts,
    skipped: Skipped,
}

impl FileContent {
    /// The line of a summary about the file with this path.
    pub(super) fn summary(&self, path: &str) -> String {
        let FileContent { counts, skipped } = self;
        let mut out = format!("{} names and {} addresses from {path}", counts.names, counts.nets());
        if counts.exceptions != 0 {
            out.push_str(&format!("; {} exceptions", counts.exceptions));
        }
        let mut before = "; for browsers only, passed over:";
        for (count, what) in [
            (skipped.options, "with options"),
            (skipped.cosmetic, "cosmetic"),
            (skipped.patterns, "patterns"),
        ] {
            if count != 0 {
                out.push_str(&format!("{before} {count} {what}"));
                before = ",";
            }
        }
        out
    }
}

/// What a field compares.
#[derive(Clone, Copy)]
pub(super) enum Want {
    Addrs,
    Names,
}

/// A variable that exists.
#[derive(Clone, Copy)]
pub(super) struct VarId(usize);

impl<'t> Variables<'t> {
    /// Reads `vars`; relative paths of files start from `folder`.
    pub(super) fn read(
        node: Option<&'t Node>,
        folder: &'t Path,
        progress: bool,
        report: &mut Report,
    ) -> Self {
        let mut variables =
            Variables { folder, progress, all: Vec::new(), by_name: HashMap::new(), copied: 0 };
        for entry in node.map_or(&[][..], |node| list(node, "a list of variables: `- name: …`", report)) {
            match &entry.value {
                Value::Map(_) => variables.insert(entry, report),
                _ => report.expected(entry, "a variable: a map with `name` and `value` or `file`"),
            }
        }
        variables
    }

    fn insert(&mut self, entry: &'t Node, report: &mut Report) {
        let section = Section::read(entry, &KEYS, report);
        let content = match (section.get("value"), section.get("file")) {
            (Some(value), None) => inline(value, report),
            (None, Some(node)) => match text(node, "the path of a list file", report) {
                Some(_) => Content::File { node, read: None },
                None => Content::Wrong,
            },
            (Some(_), Some(file)) => {
                report.error(file, "`value` and `file` in one variable: make it two variables");
                Content::Wrong
            }
            (None, None) => {
                report.missing(entry, "value", "is missing: a list of values, or `file: path`");
                Content::Wrong
            }
        };
        let Some(node) = section.get("name") else {
            report.missing(entry, "name", "is missing: what rules write after `$`");
            return;
        };
        let Some(name) = scalar(node).filter(|name| is_name(name)) else {
            report.expected(node, "a variable's name: letters, digits, `_`, `-` and `.`, without `$`");
            return;
        };
        if self.by_name.contains_key(name) {
            report.error(node, format!("a second variable with the name `{name}`"));
            return;
        }
        self.by_name.insert(name, self.all.len());
        self.all.push(Variable { name, content });
    }

    /// The variable that `item` of a rule names, without `$`.
    pub(super) fn find(&self, name: &str, item: &Node, report: &mut Report) -> Option<VarId> {
        if let Some(index) = self.by_name.get(name) {
            return Some(VarId(*index));
        }
        // As rules write them.
        let names = self.all.iter().map(|variable| format!("${}", variable.name));
        let hint = report.did_you_mean(&format!("${name}"), names);
        report.error(item, format!("there is no variable `${}`{hint}", shown(name)));
        None
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Name, path as written, and content of each file that was read.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str, FileContent)> {
        self.all.iter().filter_map(|variable| match &variable.content {
            Content::File { node, read: Some(FileList::Read { content, .. }) } => {
                Some((variable.name, scalar(node)?, *content))
            }
            _ => None,
        })
    }

    /// The values as they stand in the configuration, for fields whose values are few.
    pub(super) fn values(
        &mut self,
        VarId(id): VarId,
        item: &Node,
        what: &str,
        report: &mut Report,
    ) -> &'t [Node] {
        match self.all.get(id).map(|variable| (variable.name, &variable.content)) {
            // Copied into a rule, no values would be a field without a condition, which matches everything.
            Some((name, Content::Inline { values: [], .. })) => {
                report.error(item, format!("`${name}` is empty: there is nothing to compare with"));
                &[]
            }
            Some((_, Content::Inline { values, .. })) => {
                self.copied = self.copied.saturating_add(values.len());
                if self.copied > MAX_COPIED_VALUES {
                    report.error(
                        item,
                        format!("the rules use more than {MAX_COPIED_VALUES} ports and words of variables"),
                    );
                    return &[];
                }
                values
            }
            Some((name, Content::File { .. })) => {
                report.error(
                    item,
                    format!("`${name}` is a list file, which holds addresses and names, not {what}"),
                );
                &[]
            }
            Some((_, Content::Wrong)) | None => &[],
        }
    }

    /// The variable as a list of what a field compares; the same list for every use.
    pub(super) fn list(
        &mut self,
        VarId(id): VarId,
        want: Want,
        item: &Node,
        report: &mut Report,
    ) -> Option<Arc<List>> {
        let (folder, progress) = (self.folder, self.progress);
        let variable = self.all.get_mut(id)?;
        let name = variable.name;
        match &mut variable.content {
            Content::Inline { values, addrs, names } => {
                let (made, add) = match want {
                    Want::Addrs => (addrs, add_addr as AddValue),
                    Want::Names => (names, add_name as AddValue),
                };
                match made.get_or_insert_with(|| inline_list(name, values, add)) {
                    Ok(list) => Some(Arc::clone(list)),
                    Err(message) => {
                        report.error(item, message.clone());
                        None
                    }
                }
            }
            Content::File { node, read } => {
                match read.get_or_insert_with(|| read_file(name, node, folder, progress, report)) {
                    FileList::Read { list, content: FileContent { counts, .. } } => {
                        let (nets, names) = (counts.nets(), counts.names);
                        // A file may hold both; the other kind is passed over.
                        let (wanted, others, message) = match want {
                            Want::Addrs => (nets, names, "holds names, and no address"),
                            Want::Names => (names, nets, "holds addresses, and no name"),
                        };
                        if wanted == 0 && others != 0 {
                            report.error(item, format!("`${name}` {message}"));
                            return None;
                        }
                        Some(Arc::clone(list))
                    }
                    FileList::Unreadable => None,
                }
            }
            Content::Wrong => None,
        }
    }
}

/// Checks what holds for values of every kind.
fn inline<'t>(value: &'t Node, report: &mut Report) -> Content<'t> {
    if matches!(value.value, Value::Null) {
        report.expected(value, "a list of values");
        return Content::Wrong;
    }
    let values = items(value);
    if values.is_empty() {
        report.warn(value, "an empty variable: no traffic matches it");
    }
    let mut content = Content::Inline { values, addrs: None, names: None };
    for item in values {
        match scalar(item).map(str::trim) {
            Some(text) if text.starts_with('$') => {
                let message = format!("`{}` in a variable: variables cannot hold variables", shown(text));
                report.error(item, message);
            }
            Some(text) if text.starts_with('!') => {
                let message =
                    format!("`{}` in a variable: only the whole variable can be negated, '!$…'", shown(text));
                report.error(item, message);
            }
            Some(text) if !text.is_empty() => continue,
            _ => report.expected(item, "a value of a variable: an address, port, name or word"),
        }
        content = Content::Wrong;
    }
    content
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Adds a value and its line to a list, or says why it is none of the list's kind.
type AddValue = fn(&mut ListBuilder, &str, u32) -> Result<(), &'static str>;

fn add_addr(list: &mut ListBuilder, text: &str, line: u32) -> Result<(), &'static str> {
    list.net(parse_net(text).ok_or("which is not an address")?, line);
    Ok(())
}

fn add_name(list: &mut ListBuilder, text: &str, line: u32) -> Result<(), &'static str> {
    if text.eq_ignore_ascii_case("none") {
        return Err("which stands for traffic without a name: write it in the rule itself");
    }
    if parse_net(text).is_some() {
        return Err("which is an address, not a name");
    }
    list.name(&parse_name(text).map_err(|_| "which is not a name")?, line);
    Ok(())
}

/// Builds a list of one kind; the error names the first value that is of another.
fn inline_list(name: &str, values: &[Node], add: AddValue) -> Result<Arc<List>, String> {
    let mut list = ListBuilder::new(name.to_owned(), Source::Inline);
    for value in values {
        let Some(text) = scalar(value) else { continue };
        add(&mut list, text.trim(), value.place.line)
            .map_err(|why| format!("`${name}` holds `{}` (line {}), {why}", shown(text), value.place.line))?;
    }
    Ok(Arc::new(list.build()))
}

fn read_file(name: &str, node: &Node, folder: &Path, progress: bool, report: &mut Report) -> FileList {
    let path: PathBuf = folder.join(scalar(node).unwrap_or_default());
    let mut list = ListBuilder::new(name.to_owned(), Source::File(path.clone()));
    let (counts, passed) = match list_file::load(&path, &mut list, &mut Progress::new(progress)) {
        Ok(read) => read,
        Err(error) => {
            report.error(node, format!("`{}` cannot be read: {error}", path.display()));
            return FileList::Unreadable;
        }
    };
    if passed.bad.count != 0 {
        report.warn(node, format!("`{}`: {}", path.display(), describe(&passed.bad)));
    }
    if counts.nets() == 0 && counts.names == 0 {
        report.warn(
            node,
            format!(
                "`{}` holds no entry: it matches no traffic, and its negation every name or address",
                path.display()
            ),
        );
    }
    FileList::Read { list: Arc::new(list.build()), content: FileContent { counts, skipped: passed.skipped } }
}

/// How many lines are wrong, and which.
fn describe(bad: &BadLines) -> String {
    let first: Vec<String> = bad.first.iter().map(u32::to_string).collect();
    let (lines, are) = if bad.count == 1 { ("line", "is no entry") } else { ("lines", "are no entries") };
    let more = if usize::try_from(bad.count).is_ok_and(|count| count > first.len()) { ", …" } else { "" };
    format!("{} {lines} {are} and passed over: {lines} {}{more}", bad.count, first.join(", "))
}
