//! What a start would find wrong beyond the text of the configuration, without binding anything.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;

use super::identity;
use crate::config::{Loaded, Service};
use crate::sys::{addresses, privileges};

/// Everything that is wrong, with its file and key. It also works beside a running daemon.
pub fn check<P: AsRef<Service>>(loaded: &Loaded<P>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, what: &dyn Display| problems.push(shown(loaded, key, what));
    let (service, own) = (loaded.plan.as_ref(), addresses::local_addresses().unwrap_or_default());
    for listener in service.listeners.iter().filter(|listener| !listener.tproxy) {
        // A default address is left out where the machine lacks it.
        if let Some(key) = &listener.given
            && lacks(&own, listener.addr.ip())
        {
            wrong(key, &format_args!("this machine has no address {}", listener.addr.ip()));
        }
    }
    if let Some(addr) = service.metrics.filter(|addr| lacks(&own, addr.ip())) {
        wrong("metrics", &format_args!("this machine has no address {}", addr.ip()));
    }
    if let Some(name) = service.output.interface.as_deref().filter(|name| !addresses::has_interface(name)) {
        wrong("output.interface", &format_args!("this machine has no interface `{name}`"));
    }
    problems.append(&mut check_user(loaded));
    problems
}

/// What is wrong with the user to become. A start asks only for this: an address that is not there yet, as at boot, is no
/// fault of the configuration, and binding it says so.
pub fn check_user<P: AsRef<Service>>(loaded: &Loaded<P>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |key: &str, what: &dyn Display| problems.push(shown(loaded, key, what));
    match identity(loaded.plan.as_ref()) {
        Err(error) => wrong("", &error),
        Ok(None) => {}
        Ok(Some(user)) => {
            // What cannot be looked at is not known to be unreadable.
            let is_unreadable =
                |file: &&PathBuf| privileges::readable_by(file, user).is_ok_and(|readable| !readable);
            for file in loaded.files.iter().filter(is_unreadable) {
                wrong("user", &format_args!("{} could not be read again at a reload", file.display()));
            }
        }
    }
    problems
}

/// Whether `ip` is none of `own`. An IPv4 loopback address need not be on an interface to be this machine's.
fn lacks(own: &[IpAddr], ip: IpAddr) -> bool {
    let implied = ip.is_unspecified() || (ip.is_ipv4() && ip.is_loopback());
    !own.is_empty() && !implied && own.binary_search(&ip.to_canonical()).is_err()
}

fn shown<P>(loaded: &Loaded<P>, key: &str, what: &dyn Display) -> String {
    let file = loaded.files.first().map(|file| format!("{}: ", file.display())).unwrap_or_default();
    let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
    format!("{file}{key}{what}")
}
