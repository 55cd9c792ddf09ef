//! A server's side of the codec, for tests of the resolver.

use std::net::IpAddr;

use super::*;

/// What a server says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    /// RCODE and [`TRUNCATED`].
    pub(crate) flags: u16,
    /// The name is an alias of this one.
    pub(crate) alias: Option<&'static str>,
    /// Those of the type asked for are sent.
    pub(crate) addrs: Vec<IpAddr>,
    /// Of every record.
    pub(crate) ttl_secs: u32,
}

/// See [`Reply::flags`].
pub(crate) const TRUNCATED: u16 = FLAG_TRUNCATED;

impl Reply {
    /// Addresses of both families.
    pub(crate) fn addrs(addrs: &[&str], ttl_secs: u32) -> Self {
        let addrs = addrs.iter().map(|a| a.parse().unwrap()).collect();
        Reply { addrs, ttl_secs, ..Reply::default() }
    }

    /// Nothing but flags.
    pub(crate) fn flags(flags: u16) -> Self {
        Reply { flags, ..Reply::default() }
    }

    /// The message in answer to `query`.
    pub(crate) fn to(&self, query: &[u8]) -> Vec<u8> {
        let asked = parse_query(query).unwrap();
        let name = Name::from_text(&asked.name).unwrap().0;
        let mut owner = name.clone();
        let mut count: u16 = 0;
        let mut records = Vec::new();
        let mut push = |owner: &[u8], rtype: u16, data: &[u8]| {
            count += 1;
            records.extend_from_slice(owner);
            records.extend([rtype, CLASS_IN].iter().flat_map(|n| n.to_be_bytes()));
            records.extend(self.ttl_secs.to_be_bytes());
            records.extend((data.len() as u16).to_be_bytes());
            records.extend_from_slice(data);
        };
        if let Some(alias) = self.alias {
            let target = Name::from_text(alias).unwrap().0;
            push(&owner, TYPE_CNAME, &target);
            owner = target;
        }
        for addr in &self.addrs {
            match addr {
                IpAddr::V4(a) if asked.qtype == TYPE_A => push(&owner, TYPE_A, &a.octets()),
                IpAddr::V6(a) if asked.qtype == TYPE_AAAA => push(&owner, TYPE_AAAA, &a.octets()),
                _ => {}
            }
        }
        let mut message = Vec::new();
        for field in [asked.id, FLAG_RESPONSE | FLAG_RECURSION | self.flags, 1, count, 0, 0] {
            message.extend(field.to_be_bytes());
        }
        message.extend(name);
        message.extend([asked.qtype, CLASS_IN].iter().flat_map(|n| n.to_be_bytes()));
        message.extend(records);
        message
    }
}
