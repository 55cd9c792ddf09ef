//! Sets of addresses and prefixes.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of prefixes of both families. A v4-mapped address counts as IPv4.
#[derive(Debug, Clone, Default)]
pub struct AddrSet {
    nets: Vec<IpNet>,
}

impl AddrSet {
    /// The set of these prefixes.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        AddrSet { nets: nets.into_iter().collect() }
    }

    /// Whether a prefix of the set covers `addr`.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.nets.iter().any(|net| net.contains(&addr))
    }
}
