//! The compiled configuration: what run time sees. Immutable, shared as an `Arc`, swapped at reload.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::devices::Devices;
use crate::auth::Users;
#[cfg(feature = "intercept")]
use crate::connect::trust::Trust;
use crate::decide::L4;
use crate::decide::addr_set::AddrSet;
use crate::decide::rules::Ruleset;
use crate::identify::Parsers;
#[cfg(feature = "intercept")]
use crate::intercept::{Minter, Pinned};
use crate::quota::Keeper;
use crate::relay::stream::Role;
#[cfg(feature = "intercept")]
use crate::relay::tls::intercepted::Ends;

/// Everything that a start or a reload uses.
#[derive(Debug)]
pub struct Plan {
    /// What does not depend on what is done with a connection.
    pub service: Service,
    /// The rules, compiled.
    pub rules: Ruleset,
    /// Parser switches.
    pub parsers: Parsers,
    /// The limits of rules, by their places.
    pub keepers: HashMap<u16, Arc<Keeper>>,
    /// Where the running program can be asked.
    pub live: Option<PathBuf>,
    /// What is known of devices.
    pub devices: Arc<Devices>,
    /// What a window of the rules has let in ends with it.
    pub end_at_close: bool,
    /// Who judges servers' certificates, if a rule asks for that.
    #[cfg(feature = "tls")]
    pub trust: Option<Arc<crate::connect::trust::Trust>>,
    /// Encrypted ClientHello is taken out of what DNS answers.
    pub strip_ech: bool,
    /// What intercepted connections need; nothing where no rule intercepts.
    #[cfg(feature = "intercept")]
    pub interception: Option<Arc<Interception>>,
}

/// What intercepted connections need. A reload that changes none of it goes on with this one, and with what it has learnt.
#[cfg(feature = "intercept")]
#[derive(Debug)]
pub struct Interception {
    /// Signs certificates for the names that clients want.
    pub minter: Minter,
    /// TLS towards clients and servers.
    pub ends: Ends,
    /// Who judges servers' certificates.
    pub trust: Arc<Trust>,
    /// A hash of the files and settings that it is made of, but for the roots.
    pub made_of: [u8; 32],
    /// Who did not accept our certificates; nothing where they get no other chance.
    pub pinned: Option<Pinned>,
}

#[cfg(feature = "intercept")]
impl Interception {
    /// Whether `other` was made of the same.
    pub fn is_same(&self, other: &Interception) -> bool {
        self.made_of == other.made_of && self.trust.is_same(&other.trust)
    }
}

impl AsRef<Service> for Plan {
    fn as_ref(&self) -> &Service {
        &self.service
    }
}

impl AsMut<Service> for Plan {
    fn as_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

/// What every program on the engine needs of its configuration.
#[derive(Debug)]
pub struct Service {
    /// One entry per address, port and transport protocol, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// How connections are made.
    pub output: Output,
    /// Asked in order; empty means the system resolver.
    pub nameservers: Vec<SocketAddr>,
    /// As configured, before the descriptors of this process are counted.
    pub limits: Limits,
    /// Where the metrics are served; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
    /// Worker threads; `None` is one per core.
    pub workers: Option<usize>,
    /// User to become after binding.
    pub user: Option<String>,
    /// Group to become after binding; the user's own where only a user is given.
    pub group: Option<String>,
}

/// How clients of a listener say where they want to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Redirected by the firewall.
    Transparent,
    /// HTTP proxy.
    Http,
    /// HTTP proxy inside TLS.
    Https,
    /// PROXY protocol header first.
    ProxyProtocol,
    /// SOCKS 5 proxy.
    Socks5,
}

impl Mode {
    /// Whether clients know that they talk to a proxy, and tell it where to.
    pub fn is_explicit(self) -> bool {
        matches!(self, Mode::Http | Mode::Https | Mode::Socks5)
    }

    /// As written in the configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Transparent => "transparent",
            Mode::Http => "http",
            Mode::Https => "https",
            Mode::ProxyProtocol => "proxyproto",
            Mode::Socks5 => "socks5",
        }
    }
}

/// Where to dial (`listen[].target`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// See the configuration reference: names for those who asked for names, addresses for those who asked for them.
    Auto,
    /// What was asked for.
    Original,
    /// The resolved trusted name whenever there is one.
    Name,
}

/// One listening address of one transport protocol.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Way in.
    pub mode: Mode,
    /// Where it listens.
    pub addr: SocketAddr,
    /// For connections, or for datagrams: with both it is two listeners.
    pub l4: L4,
    /// IP_TRANSPARENT.
    pub tproxy: bool,
    /// Where to dial.
    pub target: Target,
    /// Whether a client of mode `socks5` may send datagrams.
    pub associate: bool,
    /// Who may send a PROXY header.
    pub trusted: AddrSet,
    /// How TLS is put on, where clients speak it.
    pub tls: Option<Role>,
    /// Who may come in; nothing where nobody is asked who it is.
    pub users: Option<Arc<Users>>,
    /// The key that gives the address; nothing where it is the default.
    pub given: Option<Box<str>>,
}

impl Listener {
    /// As logs and errors show where it listens: `127.0.0.1:4128`, `127.0.0.1:4128/udp`.
    pub fn place(&self) -> String {
        match self.l4 {
            L4::Tcp => self.addr.to_string(),
            L4::Udp => format!("{}/udp", self.addr),
        }
    }
}

/// Deadlines, see the configuration reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Timeouts {
    pub connect: Duration,
    pub process: Duration,
    pub probe: Duration,
    pub dns_lookup: Duration,
    pub idle: Duration,
    pub half_closed: Duration,
    pub udp_idle: Duration,
    pub drain: Duration,
}

/// How connections are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Further rounds over all addresses after the first.
    pub retries: u32,
    /// SO_MARK.
    pub fwmark: Option<u32>,
    /// SO_BINDTODEVICE.
    pub interface: Option<String>,
    /// Lifts loopback, link-local and this machine's addresses from the built-in rule.
    pub allow_local: bool,
}

/// Admission; `None` means derived from the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Connections at once from one source address.
    pub per_source: Option<u32>,
}

/// Logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Debug lines, too.
    pub debug: bool,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// To syslog instead of standard output.
    pub syslog: bool,
}
