//! The redirector.

use std::process::ExitCode;

use calamary::session::redirect::Redirection;

fn main() -> ExitCode {
    calamary::cli::main::<Redirection>(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()))
}
