//! `host[:port]` (RFC 3986 §3.2), narrowed to what can only be read in one way.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name in bytes, without a trailing dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// Longest label in bytes (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A host as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name in lower case: letters, digits, `-`, `_` in labels of 1 to 63 bytes; a trailing dot is kept.
    Name(Box<str>),
    /// A literal address; a v4-mapped one is left as it is.
    Ip(IpAddr),
}

/// As it stands in an authority: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A host, and the port if one was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads an authority without userinfo. An empty port (`host:`) is refused, too.
    ///
    /// # Errors
    /// What is wrong with it, for the reply.
    pub fn parse(text: &str) -> Result<Authority, &'static str> {
        if text.contains('@') {
            return Err("user information in the authority");
        }
        if let Some(rest) = text.strip_prefix('[') {
            // A zone id (RFC 6874) is no part of an address, so it is refused here, too.
            let (literal, rest) =
                rest.split_once(']').ok_or("an IPv6 address without its closing bracket")?;
            let ip: Ipv6Addr = literal.parse().map_err(|_| "an invalid IPv6 address")?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if rest.is_empty() => None,
                None => return Err("an invalid authority"),
            };
            return Ok(Authority { host: Host::Ip(ip.into()), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        Ok(Authority { host: parse_host(host)?, port })
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err("an invalid port"),
    }
}

fn parse_host(text: &str) -> Result<Host, &'static str> {
    if text.is_empty() {
        return Err("an empty host");
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if labels.len() > MAX_NAME || !labels.split('.').all(is_label) {
        return Err("an invalid host name");
    }
    if labels.rsplit('.').next().is_some_and(is_number) {
        return Err("an invalid IPv4 address");
    }
    Ok(Host::Name(text.to_ascii_lowercase().into()))
}

/// Whether some resolvers take a name that ends in this label for an address: `127.1`, `0x7f000001`, `010.0.0.1`.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_can_be_read_in_one_way_only() {
        let long = format!("{}.example", ["a".repeat(61).as_str(); 4].join("."));
        assert_eq!(long.len(), 255);
        let check = |text: &str, want: Option<(&str, Option<u16>)>| {
            let got = Authority::parse(text).ok().map(|a| (a.host.to_string(), a.port));
            assert_eq!(got, want.map(|(host, port)| (host.to_string(), port)), "{text:?}");
        };
        check("example.com", Some(("example.com", None)));
        check("EXAMPLE.com:8080", Some(("example.com", Some(8080))));
        check("a_b.example.com.:1", Some(("a_b.example.com.", Some(1))));
        check("xn--bcher-kva.example:65535", Some(("xn--bcher-kva.example", Some(65535))));
        check("localhost", Some(("localhost", None)));
        check("192.0.2.1:80", Some(("192.0.2.1", Some(80))));
        check("[2001:DB8::1]", Some(("[2001:db8::1]", None)));
        check("[2001:db8::1]:443", Some(("[2001:db8::1]", Some(443))));
        check("[::ffff:192.0.2.1]:443", Some(("[::ffff:192.0.2.1]", Some(443))));
        check("0x.example", Some(("0x.example", None)));
        check(&long[2..], Some((&long[2..], None)));
        for bad in [
            "",
            ":",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:8 0",
            "a:080000",
            "a:80:80",
            "a:http",
            "u@a",
            "u:p@a:80",
            "@a",
            "a@",
            "a b",
            "a,b",
            "a/b",
            "a\\b",
            "a%2eb",
            "a\u{e4}",
            "a..b",
            ".a",
            ".",
            "..",
            "*.a",
            "a*",
            "[",
            "[]",
            "[::1",
            "::1",
            "::1]",
            "[::1]80",
            "[::1]:",
            "[::1]:0",
            "[fe80::1%25eth0]",
            "[fe80::1%eth0]",
            "[127.0.0.1]",
            "[v1.a]",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "010.0.0.1",
            "127.0.0.1.",
            "1.2.3.4.5",
            "a.1",
            "1.2.3.256",
            "0x",
            &long,
            &long[1..],
            "\0",
            "a\n",
        ] {
            check(bad, None);
        }
        check(&format!("{}.a", "a".repeat(64)), None);
    }
}
