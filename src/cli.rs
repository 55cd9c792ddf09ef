//! The command line: options in, an exit status out.

mod hash_password;
pub(crate) mod live;
#[cfg(feature = "intercept")]
mod make_ca;

pub(crate) use self::hash_password::hash_password;
#[cfg(feature = "intercept")]
pub(crate) use self::make_ca::make_ca;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopts::Options;

use crate::config::{LoadOptions, Loaded};
use crate::daemon;
use crate::program::Program;
use crate::sys::memory;

/// Exit statuses.
const CANNOT_RUN: u8 = 1;
const WRONG: u8 = 2;

/// Runs the program with `args`, the first of which is its name.
pub fn main<P: Program>(args: impl IntoIterator<Item = String>) -> ExitCode {
    let options = options::<P>();
    let args: Vec<String> = args.into_iter().skip(1).collect();
    let given = match options.parse(&args) {
        Ok(given) => given,
        Err(error) => return wrong::<P>(&error.to_string()),
    };
    if let Some(stray) = given.free.get(P::words(&given)) {
        return wrong::<P>(&format!("`{stray}` is not an option"));
    }
    if given.opt_present("help") {
        say(&options.usage(&format!("Usage: {} [options]\n\n{}", P::NAME, P::ABOUT)));
        return ExitCode::SUCCESS;
    }
    if given.opt_present("version") {
        say(&format!("{} {}\n", P::NAME, env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    if let Some(status) = P::without_configuration(&given) {
        return status;
    }
    // Before anything large is read.
    memory::map_large_blocks();
    let source = Source::of(given.opt_str("config"), Path::new(P::DEFAULT_PATH));
    let options =
        LoadOptions { debug: given.opt_present("debug"), progress: std::io::stderr().is_terminal() };
    let loaded = match P::load(&source, options) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse::<P>(&[problems.to_string()]),
    };
    if let Some(status) = P::instead(&given, &loaded) {
        return status;
    }
    if given.opt_present("validate") {
        return validate::<P>(&loaded);
    }
    let problems = daemon::check_user(&loaded);
    if !problems.is_empty() {
        return refuse::<P>(&problems);
    }
    match daemon::run::<P>(source, options, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot_run::<P>(&error),
    }
}

/// Where the configuration comes from; a reload reads it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// What the program has for the case that there is no default file.
    Default,
}

impl Source {
    /// The named file, which must exist; else the default file, if there is one. Whatever else is wrong with that, such as
    /// a link to nowhere, its reader will say: it was not put there for nothing.
    pub(crate) fn of(named: Option<String>, default: &Path) -> Self {
        match (named, default.symlink_metadata()) {
            (Some(path), _) => Source::File(PathBuf::from(path)),
            (None, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Source::Default,
            (None, _) => Source::File(default.to_owned()),
        }
    }
}

fn options<P: Program>() -> Options {
    let mut options = Options::new();
    options.optopt("f", "config", &format!("configuration file (default {})", P::DEFAULT_PATH), "FILE");
    for (short, long, text) in [
        ("v", "validate", "check the configuration and everything it names, then exit"),
        ("d", "debug", "log debug lines, too"),
        ("V", "version", "print the version"),
        ("h", "help", "print this"),
    ] {
        options.optflag(short, long, text);
    }
    P::options(&mut options);
    options
}

fn validate<P: Program>(loaded: &Loaded<P::Plan>) -> ExitCode {
    let mut problems = daemon::check(loaded);
    for warning in &loaded.warnings {
        complain::<P>(&format!("warning: {warning}"));
    }
    if problems.is_empty() {
        say(&format!("Config validated successfully\n{}\n", loaded.summary.trim_end()));
        return ExitCode::SUCCESS;
    }
    problems.dedup();
    refuse::<P>(&problems)
}

/// Says what is wrong with what was given.
pub(crate) fn refuse<P: Program>(problems: &[String]) -> ExitCode {
    for problem in problems {
        complain::<P>(problem.trim_end());
    }
    ExitCode::from(WRONG)
}

/// Refuses the command line.
pub(crate) fn wrong<P: Program>(error: &str) -> ExitCode {
    complain::<P>(&format!("{error}; try --help"));
    ExitCode::from(WRONG)
}

/// Says why the program cannot run.
pub(crate) fn cannot_run<P: Program>(error: &str) -> ExitCode {
    complain::<P>(error);
    ExitCode::from(CANNOT_RUN)
}

/// To standard output; a reader that has gone away needs no answer.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain<P: Program>(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {text}", P::NAME);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    #[test]
    fn only_a_default_file_that_is_not_there_is_replaced_by_the_embedded_one() {
        let dir = std::env::temp_dir().join(format!("calamary-source-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.yml");
        assert_eq!(Source::of(None, &path), Source::Default);
        assert_eq!(Source::of(Some("other".into()), &path), Source::File("other".into()));
        std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
        let dangling = Source::of(None, &path);
        assert_eq!(dangling, Source::File(path.clone()));
        assert!(Session::load(&dangling, LoadOptions::default()).is_err());
        // A folder in the way is a file.
        let in_the_way = Source::of(None, Path::new("/dev/null/config.yml"));
        assert!(Session::load(&in_the_way, LoadOptions::default()).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
