//! `devices`: names for devices of the local network, by hardware addresses and addresses, and where leases are.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::decode::{items, scalar, text};
use super::problem::{Report, shown};
use super::tree::{Node, Value};
use crate::decide::device::{Mac, UNKNOWN, fold_device};
use crate::devices::Names;

/// Where OpenWrt's dnsmasq keeps its leases.
const LEASES: &str = "/tmp/dhcp.leases";
/// The key that is no device.
const LEASES_KEY: &str = "leases";
const MAX_DEVICES: usize = 10_000;
/// The longest name.
const MAX_BYTES: usize = 253;

/// What the configuration says of devices.
#[derive(Debug, PartialEq, Eq)]
pub struct Devices {
    /// Those with a name.
    pub names: Names,
    /// The leases file; `None` for none.
    pub leases: Option<PathBuf>,
    /// Every name, as rules compare them.
    pub called: HashSet<Box<str>>,
}

impl Devices {
    /// Reads the section; what is wrong is reported.
    pub(super) fn read(node: Option<&Node>, folder: &Path, report: &mut Report) -> Devices {
        let mut devices =
            Devices { names: Names::default(), leases: Some(PathBuf::from(LEASES)), called: HashSet::new() };
        let Some(node) = node else { return devices };
        let entries = match &node.value {
            Value::Map(entries) if cfg!(feature = "household") => entries,
            Value::Null => return devices,
            _ if !cfg!(feature = "household") => {
                report.error(node, "devices are not part of this build");
                return devices;
            }
            _ => {
                report.expected(node, "devices: a map of names and addresses, `tv: 'aa:bb:cc:dd:ee:ff'`");
                return devices;
            }
        };
        if let Some((key, _)) = entries.get(MAX_DEVICES) {
            report.error(key, format!("more than {MAX_DEVICES} devices"));
            return devices;
        }
        for (key, value) in entries {
            let Some(name) = scalar(key) else {
                report.expected(key, "a device's name");
                continue;
            };
            if name == LEASES_KEY {
                if let Some(path) = text(value, "the path of a leases file, or `none`", report) {
                    devices.leases = (path != "none").then(|| folder.join(path));
                }
            } else if let Err(why) = check_name(name) {
                report.error(key, format!("`{}` cannot be a device's name: {why}", shown(name)));
            } else if !devices.called.insert(fold_device(name)) {
                report.error(key, format!("a second device `{}`: case makes no difference", shown(name)));
            } else {
                devices.add(name, value, report);
            }
        }
        devices
    }

    fn add(&mut self, name: &str, node: &Node, report: &mut Report) {
        for item in items(node) {
            let given = scalar(item).map(str::trim).unwrap_or_default();
            if let Ok(mac) = given.parse::<Mac>() {
                self.names.name_mac(mac, name);
            } else if let Ok(addr) = given.parse::<IpAddr>() {
                self.names.name_addr(addr, name);
            } else {
                report.expected(item, "what a device is known by: `aa:bb:cc:dd:ee:ff` or an address");
            }
        }
    }
}

/// Names as a rule can write them.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_BYTES {
        Err("it has to have 1 to 253 bytes")
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) || name.starts_with(['!', '$']) {
        Err("it has blanks, control characters, or `!` or `$` in front")
    } else if name.eq_ignore_ascii_case(UNKNOWN) {
        Err("that is every device without a name")
    } else {
        Ok(())
    }
}
