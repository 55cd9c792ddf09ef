//! Names: the one form in which they are compared, the patterns of rules and lists, and sets of them.
//!
//! Non-ASCII labels become A-labels by lower-casing and Punycode alone. Refused on purpose: the mapping tables of UTS 46,
//! which weigh more than the rest of this folder; clients send A-labels. What is neither ASCII nor text is compared, too:
//! a byte that no name should have must not be a way around the rules about the rest of the name.

use std::fmt::Write as _;

use super::punycode;

/// The longest name in bytes, without the trailing dot (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 253;

/// The longest input that can still become a name of that length: no character takes more than four bytes of UTF-8.
const MAX_INPUT: usize = 4 * (MAX_NAME + 1);

/// The form in which names are compared: lower case, A-labels, no trailing dot; a label that is not text (not UTF-8, or
/// with C1 controls) with each of its bytes beyond ASCII as `%xx`, and so that no two labels look alike, `%` as `%25`.
///
/// `None` for what is no trusted name: an IP literal (also `127.1` or `0x7f000001`, which resolvers take for one), an empty
/// one, one over 253 bytes or one with ASCII control bytes.
pub fn normalise(name: &[u8]) -> Option<Box<str>> {
    if name.len() > MAX_INPUT || name.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let ascii = std::str::from_utf8(name).ok().filter(|text| text.is_ascii() && !text.contains('%'));
    if let Some(ascii) = ascii {
        // Nearly every name: nothing in it has another form.
        out.push_str(ascii);
        out.make_ascii_lowercase();
    } else {
        for (i, label) in labels(name).enumerate() {
            if i > 0 {
                out.push('.');
            }
            push_label(label, &mut out);
        }
    }
    out.truncate(out.trim_end_matches('.').len());
    // As sent or as compared: of the two forms of a name one can be too long, which is no way around the rules.
    let fits = !out.is_empty() && (out.len() <= MAX_NAME || without_dots(name).len() <= MAX_NAME);
    (fits && !is_ip_literal(&out)).then(|| out.into_boxed_str())
}

/// Without the dots at the end.
fn without_dots(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'.').map_or(0, |last| last.saturating_add(1));
    name.get(..end).unwrap_or(name)
}

/// What separates labels: the ideographic and wide full stops, too (RFC 3490 §3.1).
const FULL_STOPS: [&str; 4] = [".", "\u{3002}", "\u{ff0e}", "\u{ff61}"];

/// The labels of a name that need not be text.
fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let text = rest?;
        let stop = (0..text.len()).find_map(|at| {
            let tail = text.get(at..)?;
            FULL_STOPS.iter().find(|stop| tail.starts_with(stop.as_bytes())).map(|stop| (at, stop.len()))
        });
        let (end, len) = stop.unwrap_or((text.len(), 0));
        rest = stop.and_then(|_| text.get(end.saturating_add(len)..));
        text.get(..end)
    })
}

/// Appends a label as it is compared.
fn push_label(label: &[u8], out: &mut String) {
    let start = out.len();
    if push_text(label, out).is_none() {
        out.truncate(start);
        for byte in label {
            match byte {
                b'%' | 0x80.. => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "%{byte:02x}");
                }
                _ => out.push(char::from(byte.to_ascii_lowercase())),
            }
        }
    }
}

/// Appends a label that is text, as an A-label if need be; `None` if it is none.
fn push_text(label: &[u8], out: &mut String) -> Option<()> {
    let text = std::str::from_utf8(label).ok().filter(|text| !text.chars().any(char::is_control))?;
    let lower: Vec<char> = text.replace('%', "%25").chars().flat_map(char::to_lowercase).collect();
    if lower.iter().all(char::is_ascii) {
        out.extend(lower);
        return Some(());
    }
    out.push_str("xn--");
    punycode::encode(&lower, out)
}

/// Whether this is an address: IPv6 with or without brackets and zone, or anything that ends in a number.
fn is_ip_literal(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())) {
        return true;
    }
    // A zone with a dot and no number behind it would be a name's end: `::1%x.blocked.example`.
    let without_zone =
        bare.split_once('%').filter(|(_, zone)| !zone.contains('.')).map_or(bare, |(ip, _)| ip);
    without_zone.parse::<std::net::Ipv6Addr>().is_ok()
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

impl Coverage {
    /// Whether it covers the domain itself (`below` is false) or a name below it.
    fn covers(self, below: bool) -> bool {
        match self {
            Coverage::Exact => !below,
            Coverage::Below => below,
            Coverage::Tree => true,
        }
    }
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

    /// This much of `domain`: a list's `example.com` is [`Coverage::Tree`].
    ///
    /// # Errors
    /// As [`NamePattern::parse`].
    pub fn new(domain: &str, coverage: Coverage) -> Result<NamePattern, &'static str> {
        if domain.contains('*') {
            return Err("a * stands only at the front, as in *.example.com");
        }
        if domain.chars().any(|c| c.is_control() || c.is_ascii_whitespace() || matches!(c, '/' | '@')) {
            return Err("not a domain name");
        }
        let normal = normalise(domain.as_bytes()).ok_or("not a domain name")?;
        if normal.split('.').any(str::is_empty) {
            return Err("a domain name with an empty label");
        }
        if normal.split('.').any(|label| label.len() > 63) {
            return Err("a domain name with a label over 63 bytes");
        }
        if normal.len() > MAX_NAME {
            return Err("a domain name over 253 bytes");
        }
        Ok(NamePattern { domain: normal, coverage })
    }

    /// The domain as names are compared.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What of the domain is covered.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// Whether it covers `name`, which is normalised.
    pub fn matches(&self, name: &str) -> bool {
        match name.strip_suffix(&*self.domain) {
            Some("") => self.coverage.covers(false),
            Some(rest) => rest.ends_with('.') && self.coverage.covers(true),
            None => false,
        }
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.coverage {
            Coverage::Exact => f.write_str(&self.domain),
            Coverage::Below => write!(f, "*.{}", self.domain),
            Coverage::Tree => write!(f, ".{}", self.domain),
        }
    }
}

/// A set of patterns, each with its line. One string holds all the domains, sorted entries point into it: a name is found
/// by one binary search for each of its labels.
#[derive(Default)]
pub struct NameSet {
    domains: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    line: u32,
    len: u8,
    coverage: Coverage,
}

impl Entry {
    fn domain(self, domains: &str) -> &str {
        domains.get(self.start..).and_then(|rest| rest.get(..usize::from(self.len))).unwrap_or_default()
    }
}

impl NameSet {
    /// The set of these patterns, each with its line.
    pub fn new(patterns: impl IntoIterator<Item = (NamePattern, u32)>) -> NameSet {
        let mut set = NameSet::default();
        for (pattern, line) in patterns {
            set.push(&pattern, line);
        }
        set.finish();
        set
    }

    /// Adds a pattern; nothing is found before `finish`.
    pub(super) fn push(&mut self, pattern: &NamePattern, line: u32) {
        let start = self.domains.len();
        self.domains.push_str(&pattern.domain);
        let len = u8::try_from(pattern.domain.len()).unwrap_or(u8::MAX);
        self.entries.push(Entry { start, line, len, coverage: pattern.coverage });
    }

    /// Sorts what was pushed; of equal patterns the first line stays.
    pub(super) fn finish(&mut self) {
        let domains = &self.domains;
        self.entries.sort_unstable_by_key(|e| (e.domain(domains), e.coverage, e.line));
        self.entries.dedup_by(|a, b| a.coverage == b.coverage && a.domain(domains) == b.domain(domains));
        self.entries.shrink_to_fit();
        self.domains.shrink_to_fit();
    }

    /// How many different patterns there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a pattern covers `name`, which is normalised.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The line of a pattern that covers `name`: the one with the longest domain.
    pub fn find(&self, name: &str) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let parents = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        self.line_of(name, false)
            .or_else(|| parents.into_iter().find_map(|parent| self.line_of(parent, true)))
    }

    /// The line of a pattern with exactly this domain that covers the domain itself or the names below it.
    fn line_of(&self, domain: &str, below: bool) -> Option<u32> {
        let at = self.entries.partition_point(|e| e.domain(&self.domains) < domain);
        let same = self.entries.iter().skip(at).take_while(|e| e.domain(&self.domains) == domain);
        same.filter(|e| e.coverage.covers(below)).map(|e| e.line).min()
    }
}

impl std::fmt::Debug for NameSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NameSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form() {
        let check = |name: &str, want: Option<&str>| {
            assert_eq!(normalise(name.as_bytes()).as_deref(), want, "{name:?}");
        };
        check("Example.COM", Some("example.com"));
        check("example.com.", Some("example.com"));
        check("example.com..", Some("example.com"));
        check("_srv.example.com", Some("_srv.example.com"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        check("BÜCHER.Example", Some("xn--bcher-kva.example"));
        check("例え。テスト", Some("xn--r8jz45g.xn--zckzah"));
        // The Kelvin sign is no ASCII, its lower case is.
        check("\u{212a}.example", Some("k.example"));
        check("1.2.3.a", Some("1.2.3.a"));
        for none in [
            "",
            ".",
            "...",
            "1.2.3.4",
            "127.1",
            "2130706433",
            "0x7f.1",
            "a.0x7f",
            "::1",
            "[::1]",
            "fe80::1%eth0",
            "fe80::1%eth0.100",
        ] {
            check(none, None);
        }
        for none in ["a\0b", "a\nb.example", "a\u{7f}", "\x1f\u{85}.example"] {
            check(none, None);
        }
        check(&"a.".repeat(127), Some("a.".repeat(127).trim_end_matches('.')));
        check(&"ab.".repeat(85), None);
        check(&"ü".repeat(600), None);
    }

    /// A byte that made the whole name none let traffic through that was denied by the name's end.
    #[test]
    fn no_byte_but_a_control_makes_a_name_none() {
        let blocked = NamePattern::parse(".blocked.example").unwrap();
        let check = |label: &[u8], want: &str| {
            let name = normalise(&[label, b".Blocked.example"].concat()).unwrap();
            assert_eq!(*name, format!("{want}.blocked.example"), "{}", label.escape_ascii());
            assert!(blocked.matches(&name), "{name}");
        };
        check(b"W\xff", "w%ff");
        check(b"w%ff", "w%25ff");
        check(b"w%25ff", "w%2525ff");
        check("W\u{85}ü".as_bytes(), "w%c2%85%c3%bc");
        check(b"\xe3\x80\x82\xff", ".%ff");
        check(b"\xc3", "%c3");
        check(b" ", " ");
        check(b"::1%x", "::1%25x");
        // Otherwise this and xn--%ff-… as it is would be the same.
        let [escaped, raw] = ["%ffü".as_bytes(), b"xn--\xff-"].map(|name| normalise(name).unwrap());
        assert!(escaped.starts_with("xn--%25ff-") && raw.starts_with("xn--%ff-"), "{escaped} {raw}");
        // As long as a name may be, and longer as it is compared.
        check(&[0xff; 237], &"%ff".repeat(237));
        assert_eq!(normalise(&[&[0xff; 238][..], b".blocked.example"].concat()), None);
        for byte in (0x20..=0xff).filter(|byte| *byte != 0x7f) {
            assert!(blocked.matches(&normalise(&[&[byte], &b".blocked.example"[..]].concat()).unwrap()));
        }
    }

    #[test]
    fn patterns_match_at_label_boundaries() {
        let check = |pattern: &str, name: &str, want: bool| {
            let pattern = NamePattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(name), want, "{pattern} {name}");
            assert_eq!(NameSet::new([(pattern.clone(), 1)]).contains(name), want, "set of {pattern}, {name}");
        };
        for (pattern, itself, below) in
            [("Example.com", true, false), ("*.example.com.", false, true), (".example.com", true, true)]
        {
            check(pattern, "example.com", itself);
            check(pattern, "www.example.com", below);
            check(pattern, "a.b.example.com", below);
            check(pattern, "badexample.com", false);
            check(pattern, "com", false);
            check(pattern, "example.com.evil", false);
        }
        check(".com", "example.com", true);
        check("*.bücher.example", "www.xn--bcher-kva.example", true);
    }

    #[test]
    fn patterns_that_are_none() {
        for text in [
            "", ".", "*", "*.", "a.*.com", "*.*.com", "**.com", "..com", "a..b", "1.2.3.4", "a b",
            "http://a", "a@b",
        ] {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
        assert!(NamePattern::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_set_tells_the_line() {
        let lines = [
            ("example.com", 3),
            ("*.example.com", 5),
            ("example.com", 9),
            (".example.org", 7),
            ("www.example.org", 8),
        ];
        let set = NameSet::new(lines.map(|(text, line)| (NamePattern::parse(text).unwrap(), line)));
        assert_eq!(set.len(), 4);
        let check = |name: &str, want: Option<u32>| assert_eq!(set.find(name), want, "{name}");
        check("example.com", Some(3));
        check("www.example.com", Some(5));
        check("example.org", Some(7));
        check("www.example.org", Some(8));
        check("x.www.example.org", Some(7));
        check("org", None);
        check("", None);
        check("..", None);
    }
}
