//! A proxy on loopback for clients that ask by name: its nameserver is the test's, and all names are of this machine.

use std::net::SocketAddr;

use super::daemon::Daemon;
use super::dns::NameServer;
use super::free_port;

pub struct Proxy {
    pub daemon: Daemon,
    pub port: u16,
    pub names: NameServer,
}

pub const NAMES: &[(&str, &[&str])] = &[
    ("www.example.com", &["127.0.0.1"]),
    ("other.example.com", &["127.0.0.1"]),
    ("two.example.com", &["127.0.0.2"]),
    ("six.example.com", &["::1"]),
    ("both.example.com", &["127.0.0.1", "::1"]),
    ("x.blocked.example", &["127.0.0.1"]),
    ("empty.example.com", &[]),
];

impl Proxy {
    /// A listener of this mode on both families, with further settings and the rules.
    pub fn start(mode: &str, settings_and_rules: &str) -> Proxy {
        let names = NameServer::with("127.0.0.1:0", NAMES);
        let port = free_port();
        let config = format!(
            "listen:\n  - {{mode: {mode}, port: {port}}}\ndebug: true\noutput: {{allowLocal: true, retries: 0}}\n\
             dnsNameservers: ['{}']\n{settings_and_rules}",
            names.addr
        );
        Proxy { daemon: Daemon::start(&config, &[port]), port, names }
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}
