//! The hosts file (hosts(5)): names that need no nameserver.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::cache::canonical;
use super::ipv6_first;

/// Names taken from the file. Lists for blocking have some hundred thousand lines; they belong into rules.
const MAX_NAMES: usize = 100_000;
/// Addresses of one name.
const MAX_ADDRESSES: usize = 32;

/// A hosts file as a map.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: HashMap<Box<str>, Arc<[IpAddr]>>,
}

impl Hosts {
    /// Reads the file's text; lines that are none of `address name [alias…] [# comment]` are passed over.
    pub fn parse(text: &str) -> Self {
        let mut names: HashMap<Box<str>, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_ascii_whitespace();
            let Some(addr) = words.next().and_then(|w| w.parse::<IpAddr>().ok()) else { continue };
            for name in words.map(canonical) {
                if names.len() >= MAX_NAMES && !names.contains_key(&*name) {
                    continue;
                }
                let addrs = names.entry(name.into()).or_default();
                if addrs.len() < MAX_ADDRESSES && !addrs.contains(&addr) {
                    addrs.push(addr);
                }
            }
        }
        Hosts { names: names.into_iter().map(|(name, addrs)| (name, ipv6_first(addrs))).collect() }
    }

    /// The addresses of a name in its one spelling.
    pub(super) fn get(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        self.names.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        #[track_caller]
        fn check(text: &str, name: &str, expected: &[&str]) {
            let found = Hosts::parse(text).get(name).map(|a| a.to_vec()).unwrap_or_default();
            assert_eq!(found, expected.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect::<Vec<_>>());
        }
        check("192.0.2.1 nas", "nas", &["192.0.2.1"]);
        check("\t192.0.2.1\tnas.lan  NAS # the box", "nas", &["192.0.2.1"]);
        check("192.0.2.1 nas # box", "box", &[]);
        check("#192.0.2.1 nas", "nas", &[]);
        check("192.0.2.1 nas\n2001:db8::1 nas\n192.0.2.1 nas\n", "nas", &["2001:db8::1", "192.0.2.1"]);
        check("nonsense\n192.0.2.300 nas\nfe80::1%eth0 nas\n\r\n192.0.2.2 nas\r\n", "nas", &["192.0.2.2"]);
    }
}
