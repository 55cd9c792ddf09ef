//! Lists: what a variable of the configuration stands for, inline or from a file, shared by every rule that names it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::addr_set::AddrSet;
use super::name::{NamePattern, NameSet};

/// Where a list's entries stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the configuration itself.
    Inline,
    /// In this file.
    File(PathBuf),
}

/// The addresses and names of one variable, each with its line.
pub struct List {
    name: String,
    source: Source,
    addrs: AddrSet,
    addr_lines: Vec<u32>,
    names: NameSet,
}

/// Collects the entries of a [`List`].
#[derive(Debug)]
pub struct ListBuilder {
    name: String,
    source: Source,
    nets: Vec<(IpNet, u32)>,
    names: NameSet,
}

impl ListBuilder {
    /// An empty list: the variable's name without `$`.
    pub fn new(name: String, source: Source) -> Self {
        ListBuilder { name, source, nets: Vec::new(), names: NameSet::default() }
    }

    /// Adds an address or CIDR that stands in `line`, counted from 1.
    pub fn net(&mut self, net: IpNet, line: u32) -> &mut Self {
        self.nets.push((net, line));
        self
    }

    /// Adds a name that stands in `line`, counted from 1.
    pub fn name(&mut self, pattern: NamePattern, line: u32) -> &mut Self {
        self.names.push(&pattern, line);
        self
    }

    /// The list.
    pub fn build(mut self) -> List {
        self.names.finish();
        let (addrs, addr_lines) = AddrSet::with_lines(self.nets);
        List { name: self.name, source: self.source, addrs, addr_lines, names: self.names }
    }
}

impl List {
    /// The variable's name without `$`.
    pub fn variable(&self) -> &str {
        &self.name
    }

    /// Where the entries stand.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its addresses.
    pub(super) fn addrs(&self) -> &AddrSet {
        &self.addrs
    }

    /// Its names.
    pub(super) fn names(&self) -> &NameSet {
        &self.names
    }

    /// Whether an entry covers `addr`. A v4-mapped address counts as IPv4.
    pub fn contains_addr(&self, addr: IpAddr) -> bool {
        self.addrs.contains(addr)
    }

    /// Whether an entry covers `name`, which is as [`super::name::normalise`] leaves it.
    pub fn contains_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The line of an entry that covers `addr`.
    pub fn find_addr(&self, addr: IpAddr) -> Option<u32> {
        self.addr_lines.get(self.addrs.find(addr)?).copied()
    }

    /// The line of an entry that covers `name`.
    pub fn find_name(&self, name: &str) -> Option<u32> {
        self.names.find(name)
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List").field("name", &self.name).field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_their_lines() {
        let mut builder = ListBuilder::new("ads".into(), Source::File("lists/ads.txt".into()));
        builder.net("10.0.0.0/8".parse().unwrap(), 4).name(NamePattern::parse(".ads.example").unwrap(), 7);
        let list = builder.build();
        assert_eq!(list.find_addr("10.1.1.1".parse().unwrap()), Some(4));
        assert_eq!(list.find_addr("::ffff:10.1.1.1".parse().unwrap()), Some(4));
        assert_eq!(list.find_addr("11.1.1.1".parse().unwrap()), None);
        assert_eq!(list.find_name("www.ads.example"), Some(7));
        assert!(list.contains_name("ads.example") && !list.contains_name("badads.example"));
    }

    #[test]
    fn long_lists() {
        const ENTRIES: u32 = 100_000;
        let mut builder = ListBuilder::new("long".into(), Source::Inline);
        for i in 0..ENTRIES {
            let addr = std::net::Ipv4Addr::from_bits(0x0100_0000 + i * 512);
            builder.net(ipnet::Ipv4Net::new(addr, 24).unwrap().into(), i);
            builder.name(NamePattern::parse(&format!(".host{i}.example")).unwrap(), i);
        }
        let list = builder.build();
        for i in (0..ENTRIES).step_by(997) {
            let addr = std::net::Ipv4Addr::from_bits(0x0100_0000 + i * 512 + 255);
            assert_eq!(list.find_addr(addr.into()), Some(i));
            assert!(!list.contains_addr(std::net::Ipv4Addr::from_bits(addr.to_bits() + 1).into()));
            assert_eq!(list.find_name(&format!("www.host{i}.example")), Some(i));
            assert!(!list.contains_name(&format!("host{i}x.example")));
        }
    }
}
