//! What the router builds have instead of parts of libc (`cross/lean.c`) does what those parts do.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

mod common;

#[test]
fn the_lean_functions_do_what_the_systems_do() {
    let dir = common::TempDir::new();
    let program = dir.write("compare", "");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined,address", "-pthread"]);
    compiler.arg("tests/lean/compare.c").arg("-o").arg(&program).current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = compiler.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ran = Command::new(&program).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
}
