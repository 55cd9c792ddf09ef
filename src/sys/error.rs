//! Errors of the system with a text of our own.

use std::error::Error;
use std::fmt;
use std::io;

/// An error that says `text`.
///
/// `io::Error::new` with a `String` would do the same: but nobody can leave out how it prints a text for programmers, which
/// is 4 KB of a MIPS binary, most of it tables of Unicode.
pub(super) fn described(kind: io::ErrorKind, text: String) -> io::Error {
    io::Error::new(kind, Described(text))
}

#[derive(Debug)]
struct Described(String);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Described {}
