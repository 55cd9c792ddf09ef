//! Names: the one form in which they are compared, and sets of them.

/// The form in which names are compared: lower case, A-labels, no trailing dot. `None` for what is no trusted name: an IP
/// literal, an empty one, one over 253 bytes or one with control bytes.
pub fn normalise(name: &[u8]) -> Option<Box<str>> {
    let _ = name;
    None
}

/// What of a domain a pattern covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coverage {
    /// `example.com`: the domain itself.
    Exact,
    /// `*.example.com`: the names below it.
    Below,
    /// `.example.com`: both.
    Tree,
}

/// A value of the field `dns`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    domain: Box<str>,
    coverage: Coverage,
}

impl NamePattern {
    /// Parses `example.com`, `*.example.com` or `.example.com`; a trailing dot and case don't matter, non-ASCII becomes
    /// A-labels.
    ///
    /// # Errors
    /// What is wrong, for the configuration to print beside the value.
    pub fn parse(text: &str) -> Result<NamePattern, &'static str> {
        let (coverage, domain) = match (text.strip_prefix("*."), text.strip_prefix('.')) {
            (Some(rest), _) => (Coverage::Below, rest),
            (None, Some(rest)) => (Coverage::Tree, rest),
            (None, None) => (Coverage::Exact, text),
        };
        NamePattern::new(domain, coverage)
    }

    /// This much of `domain`, which is normalised: a list's `example.com` with [`Coverage::Tree`].
    ///
    /// # Errors
    /// As [`NamePattern::parse`].
    pub fn new(domain: &str, coverage: Coverage) -> Result<NamePattern, &'static str> {
        Ok(NamePattern { domain: domain.to_ascii_lowercase().into(), coverage })
    }
}
