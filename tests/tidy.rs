//! The rules of the house that a machine can check: layering, unsafe, module docs, file length, nothing left behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};

/// A source file below `src`.
struct Source {
    /// Path below `src`, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// The folder or file directly below `src`: `wire`, `cli`, …
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// Lines that are code outside tests, comments cut off, numbered from 1. Tests stand last in a file.
    fn code(&self) -> Vec<(usize, String)> {
        if self.is_test() {
            return Vec::new();
        }
        let lines = self.text.lines().enumerate();
        let before_tests = lines.take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"));
        before_tests
            .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default().to_string()))
            .collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts") {
                walk(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &|p| p.extension().is_some_and(|e| e == "rs"), &mut paths);
    assert!(!paths.is_empty());
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_string(),
    };
    paths.into_iter().map(read).collect()
}

/// Every text file that belongs to the project.
fn project_files() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    walk(&root(), &|_| true, &mut paths);
    let names = |p: &PathBuf| p.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
    let kept = paths.iter().filter(|p| {
        let name = names(p);
        name != "Cargo.lock"
            && name != ".git"
            && !name.starts_with("tests/vectors/")
            && name != "tests/tidy.rs"
    });
    kept.filter_map(|p| Some((names(p), std::fs::read_to_string(p).ok()?))).collect()
}

fn fail_if_any(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}\n  {}", problems.join("\n  "));
}

/// All lines of code whose file satisfies `file` and that `wrong` objects to.
fn find(file: impl Fn(&Source) -> bool, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|s| file(s)) {
        for (number, line) in source.code() {
            if wrong(&line) {
                problems.push(format!("src/{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    problems
}

/// The modules of ours that a line names: `crate::wire::tls` is `wire`; `use crate::{wire, sys}` both.
fn names_of_ours(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        // `$crate::` of a macro is ours, too; `othercrate::` is not.
        if line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        let word = |s: &str| {
            s.trim().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_string()
        };
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group.split(',').map(word).filter(|w| !w.is_empty())),
            None => names.push(word(rest)),
        }
    }
    names
}

/// Those at the bottom, and the modules that each may name.
const FOUNDATIONS: &[(&str, &[&str])] = &[
    ("wire", &["wire"]),
    ("sys", &["sys"]),
    ("auth", &["auth"]),
    ("quota", &["quota"]),
    ("devices", &["decide"]),
    ("decide", &["decide"]),
    ("identify", &["identify", "wire"]),
];

/// The data path. No stage names another one, nor what stands above them all.
const STAGES: &[&str] = &["accept", "identify", "decide", "connect", "relay"];
const ABOVE_THE_STAGES: &[&str] = &["session", "engine", "daemon", "cli"];

#[test]
fn the_foundations_know_nothing_above_them() {
    for (module, allowed) in FOUNDATIONS {
        let wrong = |line: &str| names_of_ours(line).iter().any(|name| !allowed.contains(&name.as_str()));
        let problems = find(|s| s.module() == *module, wrong);
        fail_if_any(&format!("src/{module} may name only {allowed:?}:"), &problems);
    }
}

#[test]
fn the_stages_never_name_each_other() {
    for stage in STAGES {
        let wrong = |line: &str| {
            let forbidden = |n: &String| n != stage && STAGES.iter().chain(ABOVE_THE_STAGES).any(|s| s == n);
            names_of_ours(line).iter().any(forbidden)
        };
        let problems = find(|s| s.module() == *stage, wrong);
        fail_if_any("only session knows the order of the stages:", &problems);
    }
}

#[test]
fn groups_of_imports_over_several_lines_do_not_hide_from_the_layers() {
    // The scanner reads line by line, so a group must not begin with the module's name on the next line.
    let problems = find(|_| true, |line| line.trim_end().ends_with("crate::{"));
    fail_if_any("import one module per `use crate::…`:", &problems);
}

#[test]
fn the_pure_layers_see_no_socket_no_clock_no_log_and_no_libc() {
    let pure = ["wire", "auth", "identify", "decide"];
    let impure = [
        "mio",
        "libc::",
        "log::",
        "Instant::now",
        "SystemTime",
        "std::io::",
        "TcpStream",
        "UdpSocket",
        "std::fs",
        "std::thread",
        "println!",
        "eprintln!",
        "std::env",
    ];
    let is_word = |line: &str, word: &str| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':'))
    };
    let problems = find(|s| pure.contains(&s.module()), |line| impure.iter().any(|w| is_word(line, w)));
    fail_if_any("wire, identify and decide are given bytes, time and randomness:", &problems);
}

#[test]
fn the_pure_layers_use_rustls_for_the_keys_of_quic_only() {
    // A parser has no secrets, but the keys of Initial packets are none: they come from what is sent in clear.
    let pure = ["wire", "identify", "decide"];
    let opens = "wire/quic/initial.rs";
    let problems = find(
        |s| pure.contains(&s.module()) && s.path != opens && !s.is_test(),
        |line| line.contains("rustls::"),
    );
    fail_if_any("of the pure layers only src/wire/quic/initial.rs uses rustls:", &problems);
}

#[test]
fn decide_uses_std_and_ipnet_only() {
    let wrong = |line: &str| {
        let Some(rest) = line.trim_start().strip_prefix("use ") else { return false };
        let first = rest.split("::").next().unwrap_or_default();
        !["std", "core", "alloc", "ipnet", "crate", "super", "self"].contains(&first.trim_end_matches(';'))
            && !first.chars().next().is_some_and(char::is_uppercase)
    };
    // `use facts::{…}` of a submodule in mod.rs is fine.
    let submodules: Vec<String> = sources()
        .iter()
        .filter(|s| s.module() == "decide")
        .filter_map(|s| Some(s.path.strip_suffix(".rs")?.rsplit('/').next()?.to_string()))
        .collect();
    let problems = find(
        |s| s.module() == "decide",
        |line| wrong(line) && !submodules.iter().any(|m| line.contains(&format!("use {m}::"))),
    );
    fail_if_any("decide uses std and ipnet:", &problems);
}

#[test]
fn only_the_engine_polls() {
    let problems =
        find(|s| s.module() != "engine", |line| line.contains(".poll(") || line.contains("Poll::new"));
    fail_if_any("only src/engine polls:", &problems);
}

#[test]
fn only_the_configuration_knows_its_file_format() {
    let problems = find(|s| s.module() != "config", |line| line.contains("saphyr_parser"));
    fail_if_any("YAML stays in src/config:", &problems);
    let problems = find(|s| s.module() != "config", |line| line.contains("config::schema"));
    fail_if_any("config::schema is never seen outside config:", &problems);
}

#[test]
fn unsafe_and_libc_stay_in_sys_and_each_block_says_why_it_is_sound() {
    let is_unsafe = |line: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe")
            && !line.contains("unsafe_code")
    };
    fail_if_any("unsafe stays in src/sys:", &find(|s| s.module() != "sys", is_unsafe));
    let problems = find(|s| s.module() != "sys", |line| line.contains("libc::"));
    fail_if_any("libc stays in src/sys:", &problems);

    let mut problems = Vec::new();
    for source in sources().iter().filter(|s| s.module() == "sys") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !is_unsafe(code) || code.contains("unsafe fn") || code.contains("unsafe extern") {
                continue;
            }
            // The SAFETY line stands in the comment block above the statement, at most a few lines up.
            let above = &lines[i.saturating_sub(6)..i];
            if !above.iter().any(|l| l.contains("SAFETY:")) {
                problems.push(format!("src/{}:{}: {}", source.path, i + 1, line.trim()));
            }
        }
    }
    fail_if_any("every unsafe block has its SAFETY line:", &problems);
}

#[test]
fn every_file_opens_with_what_it_does() {
    let says_little = |s: &Source| {
        let first = s.text.lines().next().unwrap_or_default();
        !first.starts_with("//! ") || first.len() < 12 || first.starts_with("//! TO")
    };
    let problems: Vec<String> = sources()
        .iter()
        .filter(|s| !s.is_test() && says_little(s))
        .map(|s| format!("src/{}: {:?}", s.path, s.text.lines().next().unwrap_or_default()))
        .collect();
    fail_if_any("every file opens with //! and what it does:", &problems);
}

#[test]
fn no_file_has_more_than_500_lines_of_code() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines = source.code().len();
        if lines > 500 {
            problems.push(format!("src/{}: {lines} lines", source.path));
        }
    }
    fail_if_any("at most 500 lines before the tests:", &problems);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let empty = ["util.rs", "utils.rs", "helpers.rs", "common.rs", "types.rs", "misc.rs"];
    let problems: Vec<String> = sources()
        .iter()
        .filter(|s| empty.iter().any(|name| s.path == *name || s.path.ends_with(&format!("/{name}"))))
        .map(|s| format!("src/{}", s.path))
        .collect();
    fail_if_any("a file's name says what is in it:", &problems);
}

#[test]
fn log_macros_are_used_as_they_are() {
    let problems = find(
        |_| true,
        |line| {
            let line = line.trim_start();
            ["error", "warn", "info", "debug", "trace"]
                .iter()
                .any(|level| line.starts_with(&format!("macro_rules! {level}")))
        },
    );
    fail_if_any("log macros are not redefined:", &problems);
}

#[test]
fn nothing_unfinished_and_no_machine_of_ours_is_in_the_tree() {
    let unfinished = ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX", "dbg!("];
    let mut problems = Vec::new();
    for (name, text) in project_files() {
        for (number, line) in text.lines().enumerate() {
            let machine = ["/home/", "/root/", "/wor"].iter().any(|start| {
                line.match_indices(start).any(|(at, _)| {
                    let rest = &line[at + start.len()..];
                    let before = line[..at].chars().last();
                    // A path that begins here, not the end of a longer word or of a URL.
                    let begins =
                        before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '.' && c != '-' && c != '_');
                    begins && (*start != "/wor" || rest.starts_with("k/"))
                })
            });
            if machine || unfinished.iter().any(|mark| line.contains(mark)) {
                problems.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    fail_if_any("unfinished marks or machine paths:", &problems);
}

#[test]
fn every_test_program_says_what_it_is_about() {
    let mut paths = Vec::new();
    walk(&root().join("tests"), &|p| p.extension().is_some_and(|e| e == "rs"), &mut paths);
    let problems: Vec<String> = paths
        .iter()
        .filter(|p| !std::fs::read_to_string(p).unwrap().starts_with("//! "))
        .map(|p| p.display().to_string())
        .collect();
    fail_if_any("every file under tests opens with //!:", &problems);
}

#[test]
fn an_ignored_test_is_run_by_another_one() {
    let files = project_files();
    let mut problems = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".rs")) {
        for (number, line) in text.lines().enumerate() {
            let Some(reason) = line.trim_start().strip_prefix("#[ignore") else { continue };
            let runner = reason.rsplit_once(" by ").map(|(_, r)| r.trim_end_matches(['"', ']']));
            if !runner.is_some_and(|runner| text.contains(&format!("fn {runner}()"))) {
                problems.push(format!("{name}:{}", number + 1));
            }
        }
    }
    fail_if_any("a test that does not run proves nothing:", &problems);
}

#[test]
fn the_scanner_itself_sees_what_it_must() {
    assert_eq!(names_of_ours("use crate::wire::tls::ClientHello;"), ["wire"]);
    assert_eq!(names_of_ours("use crate::{wire, sys::socket};"), ["wire", "sys"]);
    assert_eq!(names_of_ours("fn f(a: crate::decide::Facts, b: crate::relay::X)"), ["decide", "relay"]);
    assert!(names_of_ours("use other_crate::wire;").is_empty());
    let source = Source {
        path: "wire/a.rs".into(),
        text: "//! A file.\ncode // note\n#[cfg(test)]\nmod tests {}\n".into(),
    };
    assert_eq!(source.code(), [(1, String::new()), (2, "code ".to_string())]);
    assert_eq!(source.module(), "wire");
}
