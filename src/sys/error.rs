//! Errors of the system with a text of our own.

use std::error::Error;
use std::fmt;
use std::io;

/// An error that says `text`; the kind is for those who look for one.
///
/// `io::Error::new` with a `String` would do the same: but nobody can leave out how it prints a text for programmers, which
/// is 4 KB of a MIPS binary, with tables of Unicode in it.
pub fn described(kind: io::ErrorKind, text: impl Into<String>) -> io::Error {
    io::Error::new(kind, Described(text.into()))
}

#[derive(Debug)]
struct Described(String);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Described {}
