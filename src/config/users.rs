//! `users`: who may come in by a listener, in the configuration or in a file of `name:hash` lines.
//!
//! A file must be right to the last line: one that is half read would lock people out, or, emptied by a full disk, let
//! everybody in. For the same reason `users` without anybody is an error; `users: none` says it in so many words. No
//! message shows a hash, or what somebody wrote in place of one.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{scalar, text};
use super::problem::{Report, shown};
use super::secret_file::SecretFile;
use super::tree::{Node, Value};
use crate::auth::hash::ACCEPTED;
use crate::auth::users::MAX_USERS;
use crate::auth::{CryptHash, MAX_BYTES, Users};
use crate::sys::error::described;

/// The largest file: [`MAX_USERS`] long lines.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Bad lines of a file that are shown.
const MAX_BAD_LINES: usize = 5;

/// The modes that ask clients who they are.
pub(super) const MODES: [&str; 3] = ["http", "https", "socks5"];

/// The tables of a configuration.
pub(super) struct Tables<'t> {
    folder: &'t Path,
    /// `users` at the top level.
    common: Option<Arc<Users>>,
    common_used: bool,
    /// The files that were read, or could not be.
    files: HashMap<PathBuf, Option<Arc<Users>>>,
}

impl<'t> Tables<'t> {
    /// Reads `users` of the top level, which are those of every listener that can have some and says nothing itself;
    /// relative paths start from `folder`.
    pub(super) fn read(node: Option<&Node>, folder: &'t Path, report: &mut Report) -> Self {
        let mut tables = Tables { folder, common: None, common_used: false, files: HashMap::new() };
        tables.common = node.and_then(|node| tables.table(node, report));
        tables
    }

    /// The users of a listener with this mode, whose `users` are `node`.
    pub(super) fn of_listener(
        &mut self,
        node: Option<&Node>,
        mode: &str,
        report: &mut Report,
    ) -> Option<Arc<Users>> {
        let can_ask = MODES.contains(&mode);
        match node {
            None if can_ask => {
                self.common_used = true;
                self.common.clone()
            }
            None => None,
            Some(node) if can_ask => self.table(node, report),
            Some(node) => {
                // A mode that is none is reported already.
                if !mode.is_empty() {
                    let message = format!(
                        "`users` are for the modes `http`, `https` and `socks5`, this one is `{mode}`"
                    );
                    report.error(node, message);
                }
                None
            }
        }
    }

    /// Whether the top level names somebody, and no listener asks for them.
    pub(super) fn is_common_unused(&self) -> bool {
        self.common.is_some() && !self.common_used
    }

    /// The files, for a reload.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.files.keys().cloned()
    }

    fn table(&mut self, node: &Node, report: &mut Report) -> Option<Arc<Users>> {
        match &node.value {
            Value::Map(entries) => inline(node, entries, report),
            Value::Text(word) if &**word == "none" => None,
            Value::Text(_) => self.file(node, report),
            _ => {
                report.expected(node, "users: a map of names and hashes, the path of a file, or `none`");
                None
            }
        }
    }

    fn file(&mut self, node: &Node, report: &mut Report) -> Option<Arc<Users>> {
        let path = self.folder.join(text(node, "the path of a file with users", report)?);
        if let Some(read) = self.files.get(&path) {
            return read.clone();
        }
        let read = read_file(&path, node, report).map(Arc::new);
        self.files.insert(path, read.clone());
        read
    }
}

/// What was found so far, in one place.
#[derive(Default)]
struct Found {
    users: Vec<(Box<str>, CryptHash)>,
    /// Rules ignore case, so two names must not differ by it alone.
    folded: HashSet<String>,
}

impl Found {
    /// Takes in one user, or says what is wrong.
    fn add(&mut self, name: &str, hash: &str) -> Result<(), String> {
        check_name(name)?;
        let hash = CryptHash::parse(hash)
            .map_err(|why| format!("the hash of `{}` is {why}: accepted is {ACCEPTED}", shown(name)))?;
        if self.users.len() >= MAX_USERS {
            return Err(format!("more than {MAX_USERS} users"));
        }
        if !self.folded.insert(name.to_lowercase()) {
            return Err(format!("a second user with the name `{}`: case makes no difference", shown(name)));
        }
        self.users.push((name.into(), hash));
        Ok(())
    }
}

/// Names as a client can send them (RFC 7617 §2) and a rule can write them.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_BYTES {
        "it is longer than 255 bytes"
    } else if name.contains(':') {
        "it has a colon"
    } else if name.chars().any(char::is_control) {
        "it has a control character"
    } else if name.eq_ignore_ascii_case("none") {
        "in rules that is who has no name"
    } else {
        return Ok(());
    };
    Err(format!("`{}` cannot be a user's name: {why}", shown(name)))
}

fn inline(node: &Node, entries: &[(Node, Node)], report: &mut Report) -> Option<Arc<Users>> {
    let mut found = Found::default();
    for (key, value) in entries {
        let Some(name) = scalar(key) else {
            report.expected(key, "a user's name");
            continue;
        };
        // Not shown: it may be a password.
        if let Err(why) = found.add(name, scalar(value).unwrap_or_default()) {
            report.error(key, why);
        }
    }
    if entries.is_empty() {
        report.error(node, "nobody is named: write `users: none` if everybody may come in");
    }
    Users::new(found.users).map(Arc::new)
}

fn read_file(path: &Path, node: &Node, report: &mut Report) -> Option<Users> {
    let text = match read_text(path, node, report) {
        Ok(text) => text,
        Err(error) => {
            report.error(node, format!("`{}` cannot be read: {error}", path.display()));
            return None;
        }
    };
    let UserFile { users, bad } = parse_file(&text);
    let place = path.display();
    for (number, why) in bad.iter().take(MAX_BAD_LINES) {
        report.error(node, format!("{place}:{number}: {why}"));
    }
    if let Some(more) = bad.len().checked_sub(MAX_BAD_LINES).filter(|more| *more > 0) {
        report.error(node, format!("{place}: and {more} more bad lines"));
    }
    if bad.is_empty() && users.is_empty() {
        report.error(node, format!("{place}: holds no user: write `users: none` if everybody may come in"));
    }
    Users::new(users)
}

fn read_text(path: &Path, node: &Node, report: &mut Report) -> io::Result<String> {
    let file = SecretFile::read(path, MAX_FILE_BYTES)?;
    file.warn_if_public(path, node, report);
    String::from_utf8(file.bytes).map_err(|_| described(io::ErrorKind::Other, "not UTF-8"))
}

/// What a file says.
#[derive(Debug)]
pub struct UserFile {
    /// Names and hashes, in the order of the file.
    pub users: Vec<(Box<str>, CryptHash)>,
    /// Each line that is no user: its number from 1, and why.
    pub bad: Vec<(usize, String)>,
}

/// Reads the text of a file. Comments are whole lines: a name may hold `#`.
pub fn parse_file(text: &str) -> UserFile {
    let mut found = Found::default();
    let mut bad = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let added = match line.split_once(':') {
            Some((name, hash)) => found.add(name, hash),
            None => Err("not `name:hash`".to_owned()),
        };
        if let Err(why) = added {
            bad.push((number, why));
        }
    }
    UserFile { users: found.users, bad }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";

    #[test]
    fn a_file_is_right_to_the_last_line() {
        let text = format!("\u{feff}# who\r\n\r\n  alice:{HASH}\r\nB#b:{HASH}\n\u{e4}nne m:{HASH}");
        let UserFile { users, bad } = parse_file(&text);
        let names: Vec<&str> = users.iter().map(|(name, _)| &**name).collect();
        assert_eq!((names, bad), (vec!["alice", "B#b", "\u{e4}nne m"], vec![]));

        let check = |line: &str, part: &str| {
            let bad = parse_file(&format!("alice:{HASH}\n{line}\n")).bad;
            let [(2, why)] = &bad[..] else { panic!("{line}: {bad:?}") };
            assert!(why.contains(part), "{line}: {why}");
            assert!(!why.contains("secret"), "{line}: {why}");
        };
        check("bob", "not `name:hash`");
        check("secret", "not `name:hash`");
        check("bob:secret", "the hash of `bob` is no hash: accepted is a crypt(3) hash");
        check("bob:", "no hash");
        check(&format!("bob:{HASH}:0:0"), "cut off");
        check(&format!(":{HASH}"), "it is empty");
        check(&format!("none:{HASH}"), "in rules");
        check(&format!("a\u{1}b:{HASH}"), "control character");
        check(&format!("{}:{HASH}", "x".repeat(256)), "longer than 255");
        check(&format!("ALICE:{HASH}"), "case makes no difference");
    }
}
