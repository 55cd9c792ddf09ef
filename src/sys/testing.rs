//! Tests that change the process they run in: each runs this test program again, for itself alone.

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
        eprintln!("SKIPPED {test}: it needs root");
    }
    root
}
