//! A line on the terminal that says how far a long list has been read, and goes away again.

use std::fmt::Arguments;
use std::io::Write as _;

/// Lines of a list between two signs of life: shorter lists show none.
const EVERY_LINES: u32 = 1 << 16;
/// Back to the first column, and everything behind the cursor goes (ECMA-48 §8.3.41, EL).
const CLEAR_LINE: &str = "\r\x1b[K";

/// Shows how far a list has been read, if somebody looks.
pub(super) struct Progress {
    /// Standard error is a terminal.
    enabled: bool,
    next: u32,
    shown: bool,
}

impl Progress {
    pub(super) fn new(enabled: bool) -> Self {
        Progress { enabled, next: EVERY_LINES, shown: false }
    }

    /// Shows the text, if it is time again at this line.
    pub(super) fn at(&mut self, line: u32, text: Arguments<'_>) {
        if self.enabled && line >= self.next {
            self.next = line.saturating_add(EVERY_LINES);
            self.shown = true;
            // Nobody to see it is no reason to stop.
            let _ = write!(std::io::stderr(), "{CLEAR_LINE}{text}");
        }
    }

    /// Lines are counted from 1 again.
    pub(super) fn restart(&mut self) {
        self.next = EVERY_LINES;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "{CLEAR_LINE}");
        }
    }
}
