//! The proxy.

use std::process::ExitCode;

fn main() -> ExitCode {
    calamary::cli::main(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()))
}
