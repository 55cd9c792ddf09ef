//! Who is who on the local network: names that the configuration gives to devices, and those of a leases file.
//!
//! Pure: reading the file and the kernel's neighbours is for others. A device has one name: that of the configuration, by its
//! address or its hardware address, else the hostname of its lease.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::decide::device::{Mac, UNKNOWN, fold_device};

/// Leases that are kept; a file with more is cut off there.
const MAX_LEASES: usize = 16_384;
/// The longest hostname (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// Names by address and by hardware address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    by_mac: HashMap<Mac, Box<str>>,
    by_addr: HashMap<IpAddr, Box<str>>,
}

impl Names {
    /// The device with this hardware address has this name.
    pub fn name_mac(&mut self, mac: Mac, name: &str) {
        self.by_mac.insert(mac, fold_device(name));
    }

    /// The device with this address has this name.
    pub fn name_addr(&mut self, addr: IpAddr, name: &str) {
        self.by_addr.insert(addr.to_canonical(), fold_device(name));
    }

    /// What it is called, and by whom it is known.
    pub fn find(&self, addr: IpAddr, mac: Option<Mac>) -> Option<&str> {
        let by_mac = || mac.and_then(|mac| self.by_mac.get(&mac));
        self.by_addr.get(&addr).or_else(by_mac).map(|name| &**name)
    }

    /// Reads a dnsmasq leases file: `expiry mac address hostname client-id` a line; behind a line `duid …` they are those of
    /// DHCPv6, without hardware addresses. A hostname that the client did not tell is `*`. Other lines are passed over, and so
    /// is a last one that does not end: somebody is writing.
    pub fn of_leases(text: &str) -> Names {
        let mut names = Names::default();
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        for line in whole.take(MAX_LEASES) {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (Some(mac), Some(addr), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if !is_hostname(name) {
                continue;
            }
            if let Ok(addr) = addr.parse() {
                names.name_addr(addr, name);
            }
            // dnsmasq writes another link type than Ethernet's in front: `06-aa:bb:cc:dd:ee:ff`.
            if let Ok(mac) = mac.parse() {
                names.name_mac(mac, name);
            }
        }
        names
    }
}

/// What a client calls itself is not to be trusted: nobody becomes `unknown`, or longer than a name may be.
fn is_hostname(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= MAX_NAME && name.bytes().all(allowed) && !name.eq_ignore_ascii_case(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_name_devices() {
        let names = Names::of_leases(
            "1700000000 aa:bb:cc:dd:ee:01 192.168.1.20 Kids-Tablet 01:aa:bb:cc:dd:ee:01\n\
             1700000000 aa:bb:cc:dd:ee:02 192.168.1.21 * *\n\
             1700000000 aa:bb:cc:dd:ee:03 192.168.1.22 unknown *\n\
             1700000000 aa:bb:cc:dd:ee:04 192.168.1.23 <script> *\n\
             0 06-aa:bb:cc:dd:ee:05 192.168.1.24 odd *\n\
             \n\
             broken\n\
             duid 00:01:00:01:2b\n\
             1700000000 12345 2001:db8::20 Laptop 00:01\n",
        );
        let check = |addr: &str, mac: &str, want: Option<&str>| {
            assert_eq!(names.find(addr.parse().unwrap(), mac.parse().ok()), want, "{addr} {mac}");
        };
        check("192.168.1.20", "", Some("kids-tablet"));
        check("2001:db8::99", "aa:bb:cc:dd:ee:01", Some("kids-tablet"));
        check("192.168.1.21", "aa:bb:cc:dd:ee:02", None);
        check("192.168.1.22", "aa:bb:cc:dd:ee:03", None);
        check("192.168.1.23", "aa:bb:cc:dd:ee:04", None);
        check("192.168.1.24", "", Some("odd"));
        check("2001:db8::20", "", Some("laptop"));
        check("192.168.1.99", "aa:bb:cc:dd:ee:99", None);
    }

    /// dnsmasq writes the file in place and in pieces: a name that is cut off is another device's, or nobody's.
    #[test]
    fn a_line_that_is_not_written_to_its_end_does_not_count() {
        let whole = "0 aa:bb:cc:dd:ee:01 192.168.1.20 tv *\n0 aa:bb:cc:dd:ee:02 192.168.1.21 tv-kids *\n";
        let all = Names::of_leases(whole);
        for len in 0..whole.len() {
            let cut = Names::of_leases(&whole[..len]);
            for (addr, name) in &cut.by_addr {
                assert_eq!(all.by_addr.get(addr), Some(name), "{:?}", &whole[..len]);
            }
        }
    }

    #[test]
    fn an_address_says_more_than_a_hardware_address() {
        let mut names = Names::default();
        names.name_mac("aa:bb:cc:dd:ee:01".parse().unwrap(), "Router");
        names.name_addr("192.168.1.7".parse().unwrap(), "Camera");
        let mac = "aa:bb:cc:dd:ee:01".parse().ok();
        assert_eq!(names.find("192.168.1.7".parse().unwrap(), mac), Some("camera"));
        assert_eq!(names.find("192.168.1.8".parse().unwrap(), mac), Some("router"));
        assert_eq!(names.find("192.168.1.8".parse().unwrap(), None), None);
    }
}
