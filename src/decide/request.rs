//! What rules ask of a request: its protocol, its host, its path.
//!
//! A path is compared as servers understand it, not as it was written: `/%61ds/`, `//ads/` and `/./ads/` are `/ads/`, or a
//! rule on it would stop nobody who does not want to be stopped. What follows a `?` is no part of it.

use super::L7;
use super::predicate::list_matches;
use super::rules::Term;

/// A value of the field `path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathValue {
    /// As [`normalise_path`] leaves it.
    path: Box<str>,
    /// What begins with it matches, too.
    is_prefix: bool,
}

impl PathValue {
    /// `/exact` or `/prefix*`; `None` for what does not begin with a slash, and for `/.*`, which no path has that is normalised,
    /// and which would be `/*` if it were.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let is_path =
            path.starts_with('/') && !path.contains(['*', '?', '#']) && path.bytes().all(|b| b > b' ');
        let is_half_a_segment = is_prefix && matches!(path.rsplit('/').next(), Some("." | ".."));
        (is_path && !is_half_a_segment).then(|| PathValue { path: normalise_path(path), is_prefix })
    }

    /// Whether it covers `path`, which is normalised.
    pub fn matches(&self, path: &str) -> bool {
        if self.is_prefix { path.starts_with(&*self.path) } else { *path == *self.path }
    }
}

impl std::fmt::Display for PathValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.path, if self.is_prefix { "*" } else { "" })
    }
}

/// A path for comparing (RFC 3986 §6.2.2): without query, case, dot segments and empty ones, and nothing percent-encoded that
/// need not be.
pub fn normalise_path(path: &str) -> Box<str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    without_dot_segments(&decoded(path).to_ascii_lowercase()).into()
}

/// What may stand there as it is stands there as it is; the rest stays encoded.
fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        out.push_str(before);
        let byte = encoded.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if byte.is_ascii_graphic() && !b"%?#".contains(&byte) => {
                out.push(char::from(byte));
                rest = encoded.get(3..).unwrap_or_default();
            }
            _ => {
                out.push('%');
                rest = encoded.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// RFC 3986 §5.2.4. A path that ends in a dot segment ends in a slash. Several slashes are one, before anything else, as for
/// nginx and Apache with their defaults.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if !path.starts_with('/') {
        // `*`, of OPTIONS.
        return path.to_owned();
    }
    let mut out: String = kept.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_open || out.is_empty() {
        out.push('/');
    }
    out
}

/// A condition on what a request is made in: those that match.
#[derive(Debug, Default)]
pub(super) struct L7Predicate {
    fields: Vec<Vec<Term<L7>>>,
}

impl L7Predicate {
    pub(super) fn add(&mut self, terms: &[Term<L7>]) {
        self.fields.push(terms.to_vec());
    }

    pub(super) fn matches(&self, l7: L7) -> bool {
        self.fields.iter().all(|terms| list_matches(terms, |value| *value == l7))
    }

    pub(super) fn is_empty(&self) -> bool {
        ![L7::Http, L7::H2, L7::None].into_iter().any(|l7| self.matches(l7))
    }
}

/// A condition on a path: every field must match.
#[derive(Debug, Default)]
pub(super) struct PathPredicate {
    fields: Vec<Vec<Term<PathValue>>>,
}

impl PathPredicate {
    pub(super) fn add(&mut self, terms: &[Term<PathValue>]) {
        self.fields.push(terms.to_vec());
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.fields.iter().all(|terms| list_matches(terms, |value| value.matches(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_compared_as_servers_understand_it() {
        let check = |written: &str, want: &str| {
            assert_eq!(&*normalise_path(written), want, "{written}");
            assert_eq!(&*normalise_path(want), want, "{written} again");
        };
        check("/", "/");
        check("/Ads/Banner.PNG?x=/y", "/ads/banner.png");
        check("/%61d%73/", "/ads/");
        check("/a%20b%2fc%25zz%", "/a%20b/c%25zz%");
        check("/a%2", "/a%2");
        check("/./ads/../ads/.", "/ads/");
        check("/../../ads", "/ads");
        check("/x/..", "/");
        check("/%2e%2e/ads", "/ads");
        check("//ads/1", "/ads/1");
        check("/a//b///", "/a/b/");
        check("/x//../%2F/ads", "/ads");
        check("//", "/");
        check("/\u{e4}%c3%a4", "/\u{e4}%c3%a4");
        check("*", "*");
        check("", "");
    }

    #[test]
    fn values() {
        let check = |value: &str, path: &str, want: bool| {
            assert_eq!(
                PathValue::parse(value).unwrap().matches(&normalise_path(path)),
                want,
                "{value} {path}"
            );
        };
        check("/ads", "/ads", true);
        check("/ads", "/ads/", false);
        check("/ads*", "/ADS/x?y", true);
        check("/ads/*", "/ads", false);
        check("/ads/*", "//ads//x", true);
        check("/*", "/", true);
        check("/*", "*", false);
        for refused in ["", "ads", "*", "/a*b", "/a?b", "/a b", "/a#", "/.*", "/a/..*"] {
            assert_eq!(PathValue::parse(refused), None, "{refused}");
        }
        assert_eq!(PathValue::parse("/A/*").unwrap().to_string(), "/a/*");
    }
}
