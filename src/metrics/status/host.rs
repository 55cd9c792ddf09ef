//! Whether a request is meant for this machine.
//!
//! A page of somebody else, open in a browser of the house, can have its own name point to this machine (DNS rebinding) and
//! would then read what stands here as its own. But the browser sends that name along: only those are answered for that
//! nobody on the Internet can have.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Suffixes that are never delegated to anybody, under which routers name their network (RFC 8375, RFC 6762, and what is in use).
const LOCAL: [&[u8]; 4] = [b"lan", b"local", b"home.arpa", b"internal"];

/// For whom a request is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::metrics) enum Asked {
    /// This machine.
    Us,
    /// Another one.
    Another,
    /// It does not say so in one way.
    Unclear,
}

/// For whom the request with this head is meant, on a machine that calls itself `own`.
pub(in crate::metrics) fn asked_for(head: &[u8], own: &str) -> Asked {
    let mut hosts = head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let (name, value) = split_once(line, b':')?;
        name.eq_ignore_ascii_case(b"host").then(|| value.trim_ascii())
    });
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_ours(host, own.as_bytes()) => Asked::Us,
        (Some(_), None) => Asked::Another,
        // RFC 9112 §3.2. Every browser sends one.
        _ => Asked::Unclear,
    }
}

fn is_ours(host: &[u8], own: &[u8]) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(literal) = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
        return parse::<Ipv6Addr>(literal);
    }
    if parse::<Ipv4Addr>(name) || name.eq_ignore_ascii_case(b"localhost") {
        return true;
    }
    if own.is_empty() {
        return false;
    }
    let first = split_once(own, b'.').map_or(own, |(first, _)| first);
    let local = |name: &[u8]| {
        split_once(name, b'.').is_some_and(|(label, suffix)| {
            label.eq_ignore_ascii_case(first) && LOCAL.iter().any(|local| suffix.eq_ignore_ascii_case(local))
        })
    };
    name.eq_ignore_ascii_case(own) || name.eq_ignore_ascii_case(first) || local(name)
}

/// `host` without a `:port`; none if that is not a port.
fn without_port(host: &[u8]) -> Option<&[u8]> {
    let at = host.iter().rposition(|byte| *byte == b':');
    let closed = host.iter().rposition(|byte| *byte == b']');
    let Some(at) = at.filter(|at| closed.is_none_or(|closed| *at > closed)) else { return Some(host) };
    let (name, port) = host.split_at(at);
    port.iter().skip(1).all(u8::is_ascii_digit).then_some(name)
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place.saturating_add(1)..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_else_can_have() {
        for (host, ours) in [
            ("127.0.0.1:9512", true),
            ("192.168.1.1", true),
            ("[::1]:9512", true),
            ("[fd00::1]", true),
            ("localhost:9512", true),
            ("LocalHost", true),
            ("router:9512", true),
            ("Router.lan:9512", true),
            ("router.home.arpa", true),
            ("evil.example", false),
            ("evil.example:9512", false),
            ("router.evil.example", false),
            ("evil.lan", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80:9512", false),
            ("1", false),
            ("[::1", false),
            ("::1", false),
            ("[router]", false),
            ("router.lan.", false),
            ("router:x", false),
            ("", false),
            (".lan", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nAccept: */*\r\nhOST:  {host} \r\n\r\n");
            let want = if ours { Asked::Us } else { Asked::Another };
            assert_eq!(asked_for(head.as_bytes(), "router"), want, "{host}");
        }
    }

    #[test]
    fn the_whole_name_of_a_machine_and_one_without_a_name() {
        let ask =
            |host: &str, own| asked_for(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), own);
        assert_eq!(ask("gate.example.org", "gate.example.org"), Asked::Us);
        assert_eq!(ask("gate.lan", "gate.example.org"), Asked::Us);
        assert_eq!(ask("example.org", "gate.example.org"), Asked::Another);
        for host in ["", ".lan", "lan", ":80"] {
            assert_eq!(ask(host, ""), Asked::Another, "{host}");
        }
    }

    #[test]
    fn no_host_or_two_are_nobody() {
        for headers in ["", "Host: 127.0.0.1\r\nHost: evil.example\r\n", "X-Host: 127.0.0.1\r\n"] {
            let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
            assert_eq!(asked_for(head.as_bytes(), "router"), Asked::Unclear, "{headers}");
        }
    }
}
