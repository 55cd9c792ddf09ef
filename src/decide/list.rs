//! Lists: what a variable of the configuration stands for, inline or from a file, shared by every rule that names it.
//!
//! What stands in the configuration is kept with its lines. What a file holds can be a million names and is kept as small
//! as it can be, without them; who wants a line reads the file again.

use std::collections::TryReserveError;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::addr_set::AddrSet;
use super::fingerprint::FingerprintSet;
use super::name::{NamePattern, NameSet};

/// Where a list's entries stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the configuration itself.
    Inline,
    /// In this file.
    File(PathBuf),
}

/// The addresses and names of one variable.
pub struct List {
    name: String,
    source: Source,
    content: Content,
}

enum Content {
    Inline { addrs: AddrSet, addr_lines: Vec<u32>, names: NameSet },
    File { addrs: AddrSet, names: FingerprintSet },
}

/// Collects the entries of a [`List`].
#[derive(Debug)]
pub struct ListBuilder {
    name: String,
    source: Source,
    collected: Collected,
}

#[derive(Debug)]
enum Collected {
    Inline { nets: Vec<(IpNet, u32)>, names: NameSet },
    File { addrs: AddrSet, names: FingerprintSet },
}

impl ListBuilder {
    /// An empty list: the variable's name without `$`.
    pub fn new(name: String, source: Source) -> Self {
        let collected = match source {
            Source::Inline => Collected::Inline { nets: Vec::new(), names: NameSet::default() },
            Source::File(_) => {
                Collected::File { addrs: AddrSet::default(), names: FingerprintSet::default() }
            }
        };
        ListBuilder { name, source, collected }
    }

    /// Makes room for exactly what a file holds: the list then never takes more than it needs.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn reserve(&mut self, names: usize, v4: usize, v6: usize) -> Result<(), TryReserveError> {
        match &mut self.collected {
            Collected::Inline { .. } => Ok(()),
            Collected::File { addrs, names: set } => {
                addrs.reserve(v4, v6)?;
                set.reserve(names)
            }
        }
    }

    /// Adds an address or CIDR that stands in `line`, counted from 1.
    pub fn net(&mut self, net: IpNet, line: u32) -> &mut Self {
        match &mut self.collected {
            Collected::Inline { nets, .. } => nets.push((net, line)),
            Collected::File { addrs, .. } => addrs.push(net),
        }
        self
    }

    /// Adds a name that stands in `line`, counted from 1.
    pub fn name(&mut self, pattern: &NamePattern, line: u32) -> &mut Self {
        match &mut self.collected {
            Collected::Inline { names, .. } => names.push(pattern, line),
            Collected::File { names, .. } => names.push(pattern),
        }
        self
    }

    /// Takes a domain and all below it out of a file's list, whatever else stands there.
    pub fn except(&mut self, pattern: &NamePattern) -> &mut Self {
        match &mut self.collected {
            // Nothing in the configuration can say so.
            Collected::Inline { .. } => {}
            Collected::File { names, .. } => names.except(pattern),
        }
        self
    }

    /// The list.
    pub fn build(self) -> List {
        let content = match self.collected {
            Collected::Inline { nets, mut names } => {
                names.finish();
                let (addrs, addr_lines) = AddrSet::with_lines(nets);
                Content::Inline { addrs, addr_lines, names }
            }
            Collected::File { mut addrs, mut names } => {
                addrs.finish();
                names.finish();
                Content::File { addrs, names }
            }
        };
        List { name: self.name, source: self.source, content }
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

    /// How many names it has, and how many ranges of addresses: what lies within or beside another one is one range.
    pub fn sizes(&self) -> (usize, usize) {
        let names = match &self.content {
            Content::Inline { names, .. } => names.len(),
            Content::File { names, .. } => names.len(),
        };
        (names, self.addrs().len())
    }

    /// Its addresses.
    pub(super) fn addrs(&self) -> &AddrSet {
        match &self.content {
            Content::Inline { addrs, .. } | Content::File { addrs, .. } => addrs,
        }
    }

    /// Whether it has a name.
    pub(super) fn has_names(&self) -> bool {
        match &self.content {
            Content::Inline { names, .. } => !names.is_empty(),
            Content::File { names, .. } => !names.is_empty(),
        }
    }

    /// Whether an entry covers `addr`. A v4-mapped address counts as IPv4.
    pub fn contains_addr(&self, addr: IpAddr) -> bool {
        self.addrs().contains(addr)
    }

    /// Whether an entry covers `name`, which is as [`super::name::normalise`] leaves it, and no exception does.
    pub fn contains_name(&self, name: &str) -> bool {
        match &self.content {
            Content::Inline { names, .. } => names.contains(name),
            Content::File { names, .. } => names.contains(name),
        }
    }

    /// The line of the configuration with an entry that covers `addr`.
    pub fn find_addr(&self, addr: IpAddr) -> Option<u32> {
        match &self.content {
            Content::Inline { addrs, addr_lines, .. } => addr_lines.get(addrs.find(addr)?).copied(),
            Content::File { .. } => None,
        }
    }

    /// The line of the configuration with an entry that covers `name`.
    pub fn find_name(&self, name: &str) -> Option<u32> {
        match &self.content {
            Content::Inline { names, .. } => names.find(name),
            Content::File { .. } => None,
        }
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
        let mut builder = ListBuilder::new("ads".into(), Source::Inline);
        builder.net("10.0.0.0/8".parse().unwrap(), 4).name(&NamePattern::parse(".ads.example").unwrap(), 7);
        let list = builder.build();
        assert_eq!(list.sizes(), (1, 1));
        assert_eq!(list.find_addr("10.1.1.1".parse().unwrap()), Some(4));
        assert_eq!(list.find_addr("::ffff:10.1.1.1".parse().unwrap()), Some(4));
        assert_eq!(list.find_addr("11.1.1.1".parse().unwrap()), None);
        assert_eq!(list.find_name("www.ads.example"), Some(7));
        assert!(list.contains_name("ads.example") && !list.contains_name("badads.example"));
    }

    #[test]
    fn a_file_has_no_lines_but_exceptions() {
        let mut builder = ListBuilder::new("ads".into(), Source::File("lists/ads.txt".into()));
        builder.reserve(2, 1, 0).unwrap();
        builder.net("10.0.0.0/8".parse().unwrap(), 4).name(&NamePattern::parse(".ads.example").unwrap(), 7);
        builder.except(&NamePattern::parse(".good.ads.example").unwrap());
        let list = builder.build();
        assert!(list.has_names());
        let mapped = "::ffff:10.1.1.1".parse().unwrap();
        assert_eq!((list.contains_addr(mapped), list.find_addr(mapped)), (true, None));
        assert!(!list.contains_addr("11.1.1.1".parse().unwrap()));
        assert!(list.contains_name("www.ads.example") && !list.contains_name("www.good.ads.example"));
        assert_eq!(list.find_name("www.ads.example"), None);
    }

    #[test]
    fn long_lists() {
        const ENTRIES: u32 = 100_000;
        let mut inline = ListBuilder::new("long".into(), Source::Inline);
        let mut file = ListBuilder::new("long".into(), Source::File("long.txt".into()));
        for i in 0..ENTRIES {
            let addr = std::net::Ipv4Addr::from_bits(0x0100_0000 + i * 512);
            let net = ipnet::Ipv4Net::new(addr, 24).unwrap().into();
            let name = NamePattern::parse(&format!(".host{i}.example")).unwrap();
            inline.net(net, i).name(&name, i);
            file.net(net, i).name(&name, i);
        }
        let (inline, file) = (inline.build(), file.build());
        for i in (0..ENTRIES).step_by(997) {
            let addr = std::net::Ipv4Addr::from_bits(0x0100_0000 + i * 512 + 255);
            assert_eq!(inline.find_addr(addr.into()), Some(i));
            assert_eq!(inline.find_name(&format!("www.host{i}.example")), Some(i));
            for list in [&inline, &file] {
                assert!(
                    list.contains_addr(addr.into()) && list.contains_name(&format!("www.host{i}.example"))
                );
                assert!(!list.contains_addr(std::net::Ipv4Addr::from_bits(addr.to_bits() + 1).into()));
                assert!(!list.contains_name(&format!("host{i}x.example")));
            }
        }
    }
}
