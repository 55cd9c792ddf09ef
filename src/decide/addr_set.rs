//! Sets of addresses and prefixes: sorted disjoint ranges, looked up by binary search.

use std::cmp::Reverse;
use std::collections::TryReserveError;
use std::net::IpAddr;

use ipnet::IpNet;

/// A set of prefixes of both families. A v4-mapped address counts as IPv4, and so does a prefix of v4-mapped addresses; a
/// shorter IPv6 prefix, `::/0` for instance, covers no IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddrSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl AddrSet {
    /// The set of these prefixes.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut set = AddrSet::default();
        nets.into_iter().for_each(|net| set.push(net));
        set.finish();
        set
    }

    /// Makes room for exactly this many more prefixes of each family.
    ///
    /// # Errors
    /// There is not so much memory.
    pub(super) fn reserve(&mut self, v4: usize, v6: usize) -> Result<(), TryReserveError> {
        self.v4.try_reserve_exact(v4)?;
        self.v6.try_reserve_exact(v6)
    }

    /// Adds a prefix; nothing is found before `finish`.
    pub(super) fn push(&mut self, net: IpNet) {
        match canonical(net) {
            IpNet::V4(net) => self.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
            IpNet::V6(net) => self.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
        }
    }

    /// Sorts what was pushed.
    pub(super) fn finish(&mut self) {
        merge(&mut self.v4, |last| last.checked_add(1));
        merge(&mut self.v6, |last| last.checked_add(1));
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The set of these prefixes, and beside it the line of each place that [`AddrSet::find`] can tell.
    pub(super) fn with_lines(nets: impl IntoIterator<Item = (IpNet, u32)>) -> (Self, Vec<u32>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, line) in nets {
            match canonical(net) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), line)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), line)),
            }
        }
        let mut lines = Vec::new();
        let set = AddrSet { v4: disjoint(v4, &mut lines), v6: disjoint(v6, &mut lines) };
        lines.shrink_to_fit();
        (set, lines)
    }

    /// Whether a prefix of the set covers `addr`.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.find(addr).is_some()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The place of the range that covers `addr`: those of IPv4 come first.
    pub(super) fn find(&self, addr: IpAddr) -> Option<usize> {
        match addr.to_canonical() {
            IpAddr::V4(addr) => place(&self.v4, addr.to_bits()),
            IpAddr::V6(addr) => Some(self.v4.len() + place(&self.v6, addr.to_bits())?),
        }
    }

    /// The disjoint ranges of IPv4, first and last, sorted.
    pub(super) fn ranges_v4(&self) -> impl Iterator<Item = (u128, u128)> {
        self.v4.iter().map(|(first, last)| (u128::from(*first), u128::from(*last)))
    }

    /// The disjoint ranges of IPv6, first and last, sorted.
    pub(super) fn ranges_v6(&self) -> impl Iterator<Item = (u128, u128)> {
        self.v6.iter().copied()
    }
}

/// A prefix of v4-mapped addresses as the IPv4 prefix that it stands for.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(addr, len)| ipnet::Ipv4Net::new(addr, len).ok()).map_or(net, IpNet::V4)
}

/// Sorts, in place; what overlaps or touches becomes one range.
fn merge<N: Ord + Copy>(ranges: &mut Vec<(N, N)>, next: impl Fn(N) -> Option<N>) {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, end)| {
        let joins = next(*end).is_none_or(|next| *first <= next);
        if joins {
            *end = (*end).max(*last);
        }
        joins
    });
    ranges.shrink_to_fit();
}

/// Sorts; of prefixes inside each other the outermost stays, so that one binary search finds it. Appends the lines.
fn disjoint<N: Ord + Copy>(mut nets: Vec<(N, N, u32)>, lines: &mut Vec<u32>) -> Vec<(N, N)> {
    nets.sort_unstable_by_key(|(first, last, line)| (*first, Reverse(*last), *line));
    let mut ranges: Vec<(N, N)> = Vec::with_capacity(nets.len());
    for (first, last, line) in nets {
        // Two prefixes are nested or disjoint, never anything between.
        if ranges.last().is_some_and(|(_, end)| *end >= last) {
            continue;
        }
        ranges.push((first, last));
        lines.push(line);
    }
    ranges.shrink_to_fit();
    ranges
}

fn place<N: Ord + Copy>(ranges: &[(N, N)], addr: N) -> Option<usize> {
    let at = ranges.partition_point(|(_, last)| *last < addr);
    ranges.get(at).filter(|(first, _)| *first <= addr).map(|_| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nets: &[&str]) -> AddrSet {
        AddrSet::new(nets.iter().map(|net| net.parse::<IpNet>().unwrap()))
    }

    #[test]
    fn membership() {
        let set = set(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.168.1.7/32",
            "2001:db8::/32",
            "::ffff:172.16.0.0/108",
            "11.0.0.9/8",
        ]);
        let check = |addr: &str, want: bool| assert_eq!(set.contains(addr.parse().unwrap()), want, "{addr}");
        for inside in [
            "10.0.0.0",
            "10.1.2.3",
            "10.255.255.255",
            "11.0.0.0",
            "192.168.1.7",
            "::ffff:10.2.3.4",
            "172.31.0.1",
            "2001:db8:ffff::1",
        ] {
            check(inside, true);
        }
        for outside in [
            "9.255.255.255",
            "12.0.0.0",
            "192.168.1.6",
            "192.168.1.8",
            "172.32.0.0",
            "2001:db9::",
            "::",
            "0.0.0.0",
        ] {
            check(outside, false);
        }
    }

    #[test]
    fn whole_families() {
        assert!(set(&["0.0.0.0/0"]).contains("255.255.255.255".parse().unwrap()));
        assert!(!set(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
        assert!(set(&["::/0"]).contains("ffff::".parse().unwrap()));
        assert!(!set(&["::/0"]).contains("::ffff:1.2.3.4".parse().unwrap()));
        assert!(set(&[]).is_empty() && !set(&["::1/128"]).is_empty());
    }

    /// A list of every address of a network, one by one, is one range.
    #[test]
    fn what_touches_is_one_range() {
        let singles: Vec<IpNet> =
            (0..=255).rev().map(|i| format!("192.0.2.{i}/32").parse().unwrap()).collect();
        let singles = AddrSet::new(singles);
        assert_eq!(singles, set(&["192.0.2.0/24"]));
        assert_eq!(singles.len(), 1);
        assert_eq!(set(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "::/0"]).len(), 2);
        assert_eq!(set(&["192.0.2.0/32", "192.0.2.2/32"]).len(), 2);
    }

    #[test]
    fn lines_stand_beside_the_ranges() {
        let nets = [
            ("2001:db8::/32", 1),
            ("10.1.0.0/16", 2),
            ("10.0.0.0/8", 3),
            ("10.0.0.0/8", 4),
            ("9.0.0.0/8", 5),
        ];
        let (set, lines) = AddrSet::with_lines(nets.map(|(net, line)| (net.parse().unwrap(), line)));
        let check = |addr: &str, want: Option<u32>| {
            assert_eq!(set.find(addr.parse().unwrap()).map(|at| lines[at]), want, "{addr}");
        };
        check("10.1.0.1", Some(3));
        check("9.1.0.1", Some(5));
        check("2001:db8::1", Some(1));
        check("8.0.0.1", None);
    }

    #[test]
    fn agrees_with_the_prefixes_one_by_one() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for _ in 0..200 {
            // All within few bits, so that they nest and touch.
            let net = |random: &mut dyn FnMut() -> u32| {
                let addr = std::net::Ipv4Addr::from_bits(random() % 64);
                IpNet::new(addr.into(), u8::try_from(26 + random() % 7).unwrap()).unwrap()
            };
            let nets: Vec<IpNet> = (0..random() % 12).map(|_| net(&mut random)).collect();
            let set = AddrSet::new(nets.iter().copied());
            for addr in (0..66).map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits))) {
                assert_eq!(set.contains(addr), nets.iter().any(|net| net.contains(&addr)), "{nets:?} {addr}");
            }
        }
    }
}
