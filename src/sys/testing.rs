//! Tests that change the process they run in, each of which runs this test program again, for itself alone; and tests that
//! cannot be run everywhere.

use std::io::{self, Write};
use std::process::Command;

/// Set in the environment of such a process.
pub(crate) const MARK: &str = "CALAMARY_TEST_CHILD";

/// This test program, to be run again: under the emulator that CALAMARY_TEST_RUNNER names with its options, should one be
/// needed (cross/test.sh).
pub(crate) fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("CALAMARY_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    match words.next() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Whether an emulator stands between this program and the kernel.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("CALAMARY_TEST_RUNNER").is_some()
}

/// Of `many` generated cases, as many as are worth their time: under an emulator, which takes ten times as long for each, it
/// is the CPU that is tested, and not what the cases are made for.
pub(crate) fn rounds(many: usize) -> usize {
    if is_emulated() { many / 10 } else { many }
}

/// Runs the ignored test `name` in a process of its own with `env` set, and fails with its output if it fails.
pub(crate) fn in_child(name: &str, env: &[(&str, &str)]) {
    let output = this_program()
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "no test is called {name}\n{out}");
}

/// Whether this is such a process, and not somebody running all ignored tests.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether this process may do what root does; says so where it may not, for the test is then skipped.
pub(crate) fn is_root(test: &str) -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped(&format!("{test}: it needs root"));
    }
    root
}

/// What a call that sets an option brings, which must be a success; or nothing where that fails because the emulator that
/// this program runs under does not know the option `what`, which the test then does without.
pub(crate) fn unless_emulator_lacks<T>(what: &str, result: io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) && is_emulated() => {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            skipped(&format!("{test}: the emulator does not know {what}"));
            None
        }
        result => Some(result.unwrap()),
    }
}

/// Straight to the descriptor: the test runner swallows what tests that pass print.
fn skipped(what: &str) {
    let _ = io::stderr().write_all(format!("\nSKIPPED {what}\n").as_bytes());
}
