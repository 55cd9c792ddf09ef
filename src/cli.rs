//! The command line: options in, an exit status out.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopts::Options;

use crate::config::{self, LoadOptions, Loaded, Problems};
use crate::daemon;
use crate::decide::why;

/// Where the configuration is when nothing is said.
const DEFAULT_PATH: &str = "/etc/calamary/config.yml";

/// Exit statuses.
const CANNOT_RUN: u8 = 1;
const WRONG: u8 = 2;

/// Runs the program with `args`, the first of which is its name.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let options = options();
    let args: Vec<String> = args.into_iter().skip(1).collect();
    let given = match options.parse(&args) {
        Ok(given) => given,
        Err(error) => return wrong(&error.to_string()),
    };
    if let Some(stray) = given.free.first() {
        return wrong(&format!("`{stray}` is not an option"));
    }
    if given.opt_present("help") {
        say(&options.usage(
            "Usage: calamary [options]\n\nA forward proxy that filters by what a connection really is.",
        ));
        return ExitCode::SUCCESS;
    }
    if given.opt_present("version") {
        say(&format!("calamary {}\n", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    if given.opt_present("print-config") {
        say(config::DEFAULT_CONFIG);
        return ExitCode::SUCCESS;
    }
    let source = Source::of(given.opt_str("config"), Path::new(DEFAULT_PATH));
    let options =
        LoadOptions { debug: given.opt_present("debug"), progress: std::io::stderr().is_terminal() };
    let loaded = match source.load(options) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems),
    };
    if let Some(facts) = given.opt_str("why") {
        return explain(&loaded, &facts);
    }
    if given.opt_present("validate") {
        return validate(&loaded);
    }
    let problems = daemon::check_user(&loaded);
    if !problems.is_empty() {
        return refuse_all(&problems);
    }
    match daemon::run(source, options, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// Where the configuration comes from; a reload reads it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The one inside the program, as there is no file.
    Embedded,
}

impl Source {
    /// The named file, which must exist; else the default file, if there is one. Whatever else is wrong with that, such as
    /// a link to nowhere, its reader will say: it was not put there for nothing.
    fn of(named: Option<String>, default: &Path) -> Self {
        match (named, default.symlink_metadata()) {
            (Some(path), _) => Source::File(PathBuf::from(path)),
            (None, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Source::Embedded,
            (None, _) => Source::File(default.to_owned()),
        }
    }

    /// Reads and compiles it; `options` is what the command line adds.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, options: LoadOptions) -> Result<Loaded, Problems> {
        match self {
            Source::File(path) => config::load_file(path, options),
            Source::Embedded => config::load_default(options),
        }
    }
}

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("f", "config", &format!("configuration file (default {DEFAULT_PATH})"), "FILE");
    options.optflag("v", "validate", "check the configuration and everything it names, then exit");
    options.optflag("d", "debug", "log debug lines, too");
    options.optflag("V", "version", "print the version");
    options.optflag("h", "help", "print this");
    options.optopt("", "why", "explain what the rules say of 'src=… dest=… port=… dns=… protoL5=…'", "FACTS");
    options.optflag("", "print-config", "print the embedded default configuration");
    options
}

fn validate(loaded: &Loaded) -> ExitCode {
    let mut problems = daemon::check(loaded);
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}"));
    }
    if problems.is_empty() {
        say(&format!("Config validated successfully\n{}\n", loaded.summary.trim_end()));
        return ExitCode::SUCCESS;
    }
    problems.dedup();
    refuse_all(&problems)
}

fn refuse_all(problems: &[String]) -> ExitCode {
    for problem in problems {
        complain(problem);
    }
    ExitCode::from(WRONG)
}

fn explain(loaded: &Loaded, facts: &str) -> ExitCode {
    let facts = match why::parse_facts(facts) {
        Ok(facts) => facts,
        Err(error) => return wrong(&format!("--why: {error}")),
    };
    let locals = match daemon::locals(&loaded.plan) {
        Ok(locals) => locals,
        Err(error) => {
            complain(&format!("cannot read this machine's addresses: {error}"));
            return ExitCode::from(CANNOT_RUN);
        }
    };
    let explanation =
        why::explain_with_lines(&loaded.plan.rules, &facts, &locals, &config::list_file::find_line);
    say(&format!("{explanation}\n"));
    ExitCode::from(explanation.exit_code())
}

fn refuse(problems: &Problems) -> ExitCode {
    complain(problems.to_string().trim_end());
    ExitCode::from(WRONG)
}

fn wrong(error: &str) -> ExitCode {
    complain(&format!("{error}; try --help"));
    ExitCode::from(WRONG)
}

/// To standard output; a reader that has gone away needs no answer.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "calamary: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_file_that_is_not_there_is_replaced_by_the_embedded_one() {
        let dir = std::env::temp_dir().join(format!("calamary-source-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.yml");
        assert_eq!(Source::of(None, &path), Source::Embedded);
        assert_eq!(Source::of(Some("other".into()), &path), Source::File("other".into()));
        std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
        let dangling = Source::of(None, &path);
        assert_eq!(dangling, Source::File(path.clone()));
        assert!(dangling.load(LoadOptions::default()).is_err());
        // A folder in the way is a file.
        assert!(Source::of(None, Path::new("/dev/null/config.yml")).load(LoadOptions::default()).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
