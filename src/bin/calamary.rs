//! The proxy.

use std::process::ExitCode;

use calamary::session::Session;

fn main() -> ExitCode {
    calamary::cli::main::<Session>(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()))
}
