//! Configurations of both programs: whatever is wrong is said with its place, what is accepted can be started and decides.
#![no_main]

use std::path::Path;

use calamary::config::{LoadOptions, Loaded, Problem, Problems, load, redirector};
use calamary::decide::Facts;
use calamary::decide::rules::Locals;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // List files would make the outcome depend on the machine.
    if text.contains("file") {
        return;
    }
    // YAML has more ends of lines than LF (YAML 1.1 §4.1.4), and its reader sees the end of a file that has none at its
    // end in the line behind.
    let breaks = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    let lines = u32::try_from(breaks + 2).unwrap();
    let (path, options) = (Path::new("fuzz.yml"), LoadOptions::default());
    if let Some(plan) = checked(load(text, path, options), lines) {
        assert!(!plan.service.listeners.is_empty());
        plan.rules.decide(&Facts::default(), &Locals::default());
    }
    if let Some(plan) = checked(redirector::load(text, path, options), lines) {
        assert!(!plan.service.listeners.is_empty());
        assert!(plan.servers.iter().len() != 0);
    }
});

/// What was accepted, once everything that is said about it is in order.
fn checked<P>(result: Result<Loaded<P>, Problems>, lines: u32) -> Option<P> {
    match result {
        Ok(loaded) => {
            assert!(!loaded.summary.is_empty());
            loaded.warnings.iter().for_each(|warning| check(warning, lines));
            Some(loaded.plan)
        }
        Err(problems) => {
            assert!(problems.iter().len() != 0, "refused without a reason");
            problems.iter().for_each(|problem| check(problem, lines));
            assert!(!problems.to_string().is_empty());
            None
        }
    }
}

fn check(problem: &Problem, lines: u32) {
    assert!((1..=lines).contains(&problem.line) && problem.column != 0, "{problem}");
    assert!(!problem.message.is_empty());
    assert!(!problem.to_string().contains(|c: char| c.is_control()), "{:?}", problem.to_string());
}
