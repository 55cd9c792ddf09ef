//! Names: the one form in which they are compared, and sets of them.

/// The form in which names are compared: lower case, A-labels, no trailing dot. `None` for what is no trusted name: an IP
/// literal, an empty one, one over 253 bytes or one with control bytes.
pub fn normalise(name: &[u8]) -> Option<Box<str>> {
    let _ = name;
    None
}
