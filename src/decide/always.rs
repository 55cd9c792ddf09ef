//! The `always` rule: destinations that a proxy must not reach, whatever the rules say.
//!
//! RFC 1918 and ULA are ordinary addresses. A v4-mapped address counts as IPv4; other embeddings (NAT64, 6to4) are routed
//! by somebody else and are left to the rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rules::Locals;
use super::{Facts, Known, Need};

/// What the `always` rule says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Always {
    /// The destination is an ordinary one.
    Pass,
    /// It is refused.
    Refuse(Refused),
    /// It hangs on this.
    Hangs(Need),
}

/// Why a destination is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Nowhere,
    Unspecified,
    Loopback,
    LinkLocal,
    Multicast,
    Broadcast,
    Discard,
    Own,
    OwnListener,
}

impl Refused {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refused::Nowhere => "there is no address to dial",
            Refused::Unspecified => "is the unspecified address or in 0.0.0.0/8",
            Refused::Loopback => "is a loopback address",
            Refused::LinkLocal => "is a link-local address",
            Refused::Multicast => "is a multicast address",
            Refused::Broadcast => "is the broadcast address",
            Refused::Discard => "is in the discard prefix 100::/64",
            Refused::Own => "is an address of this machine",
            Refused::OwnListener => "with this port is our own listener",
        }
    }
}

/// Looks at the destination.
pub(super) fn always(facts: &Facts, locals: &Locals) -> Always {
    let dest = match facts.dest {
        Known::Unknown => return Always::Hangs(Need::Dest),
        Known::Absent => return Always::Refuse(Refused::Nowhere),
        Known::Is(dest) => dest.to_canonical(),
    };
    if let Some(refused) = never_reachable(dest) {
        return Always::Refuse(refused);
    }
    let own = locals.has(dest);
    let Some(local) = local_scope(dest).or(own.then_some(Refused::Own)) else { return Always::Pass };
    if !locals.allow_local {
        return Always::Refuse(local);
    }
    // A listener on the wildcard is reached through loopback and through every address of this machine.
    if locals.tcp_ports.is_empty() || !own {
        return Always::Pass;
    }
    match facts.port {
        Known::Unknown => Always::Hangs(Need::FirstBytes),
        Known::Is(port) if locals.tcp_ports.contains(&port) => Always::Refuse(Refused::OwnListener),
        Known::Is(_) | Known::Absent => Always::Pass,
    }
}

/// What `allowLocal` does not lift.
fn never_reachable(dest: IpAddr) -> Option<Refused> {
    if dest.is_multicast() {
        return Some(Refused::Multicast);
    }
    match dest {
        IpAddr::V4(v4) if v4.octets().starts_with(&[0]) => Some(Refused::Unspecified),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Refused::Broadcast),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(Refused::Unspecified),
        // RFC 6666.
        IpAddr::V6(v6) if v6.octets().starts_with(&[1, 0, 0, 0, 0, 0, 0, 0]) => Some(Refused::Discard),
        _ => None,
    }
}

/// What `allowLocal` lifts, beside this machine's own addresses.
fn local_scope(dest: IpAddr) -> Option<Refused> {
    let link_local = match dest {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if dest.is_loopback() { Some(Refused::Loopback) } else { link_local.then_some(Refused::LinkLocal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let locals = |allow_local| {
            let mut addrs: Vec<IpAddr> = vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            addrs.sort();
            Locals { addrs, tcp_ports: vec![4128, 4130], allow_local }
        };
        let check = |dest: &str, port: u16, plain: Always, lifted: Always| {
            let facts =
                Facts { dest: Known::Is(dest.parse().unwrap()), port: Known::Is(port), ..Facts::default() };
            assert_eq!(always(&facts, &locals(false)), plain, "{dest} {port}");
            assert_eq!(always(&facts, &locals(true)), lifted, "{dest} {port}, allowLocal");
        };
        for ordinary in
            ["1.1.1.1", "192.168.1.1", "10.0.0.1", "100.64.0.1", "fd00::1", "2001:db8::2", "100:0:0:1::1"]
        {
            check(ordinary, 4128, Always::Pass, Always::Pass);
        }
        for (dest, why) in [
            ("0.0.0.0", Refused::Unspecified),
            ("0.1.2.3", Refused::Unspecified),
            ("::ffff:0.0.0.0", Refused::Unspecified),
            ("::", Refused::Unspecified),
            ("224.0.0.1", Refused::Multicast),
            ("239.255.255.255", Refused::Multicast),
            ("ff02::1", Refused::Multicast),
            ("255.255.255.255", Refused::Broadcast),
            ("100::1", Refused::Discard),
        ] {
            check(dest, 443, Always::Refuse(why), Always::Refuse(why));
        }
        for (dest, why) in [
            ("127.0.0.1", Refused::Loopback),
            ("127.255.0.1", Refused::Loopback),
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("203.0.113.1", Refused::Own),
            ("::ffff:203.0.113.1", Refused::Own),
            ("2001:db8::1", Refused::Own),
        ] {
            check(dest, 443, Always::Refuse(why), Always::Pass);
            check(dest, 4130, Always::Refuse(why), Always::Refuse(Refused::OwnListener));
        }
        for dest in ["169.254.1.1", "fe80::1"] {
            check(dest, 4130, Always::Refuse(Refused::LinkLocal), Always::Pass);
        }
        let nowhere = Facts { dest: Known::Absent, ..Facts::default() };
        assert_eq!(always(&nowhere, &locals(true)), Always::Refuse(Refused::Nowhere));
        assert_eq!(always(&Facts::default(), &locals(false)), Always::Hangs(Need::Dest));
        let portless = Facts { dest: Known::Is("::1".parse().unwrap()), ..Facts::default() };
        assert_eq!(always(&portless, &locals(true)), Always::Hangs(Need::FirstBytes));
    }
}
