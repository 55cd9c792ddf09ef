//! JSON (RFC 8259) as it is written, in ASCII.

use std::io::Write as _;

use crate::logging::line;

/// A document in the making. Who writes it sees to it that what is opened is closed.
#[derive(Debug, Default)]
pub struct Json {
    out: Vec<u8>,
    /// Something stands before, in the same list or object.
    follows: bool,
}

impl Json {
    /// Begins an object, `{`, or a list, `[`.
    pub fn open(&mut self, bracket: char) {
        self.begin();
        self.out.extend(bracket.to_string().as_bytes());
        self.follows = false;
    }

    /// Ends it, `}` or `]`.
    pub fn close(&mut self, bracket: char) {
        self.out.extend(bracket.to_string().as_bytes());
        self.follows = true;
    }

    /// The key of the value that comes next: one of our own words.
    pub fn key(&mut self, key: &'static str) -> &mut Self {
        self.text(key);
        self.out.push(b':');
        self.follows = false;
        self
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        self.begin();
        // Writing into a Vec does not fail.
        let _ = write!(self.out, "{number}");
    }

    /// A string, escaped as the log escapes it.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes from anywhere, as a string that is escaped as the log escapes it: one can be searched for in the other.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.begin();
        self.out.push(b'"');
        line::append_json_value(&mut self.out, bytes);
        self.out.push(b'"');
    }

    /// The document.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn begin(&mut self) {
        if self.follows {
            self.out.push(b',');
        }
        self.follows = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_values_only() {
        let mut json = Json::default();
        json.open('{');
        json.key("a").open('[');
        json.number(1);
        json.text("b\" <");
        json.open('{');
        json.close('}');
        json.close(']');
        json.key("c").bytes(b"\xff");
        json.close('}');
        let text = String::from_utf8(json.into_bytes()).unwrap();
        assert_eq!(text, "{\"a\":[1,\"b\\\"%20<\",{}],\"c\":\"%ff\"}");
    }
}
