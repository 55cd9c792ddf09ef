//! `listen`: where clients come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::decode::{Keys, Section, boolean, choice, items, list, number, scalar};
use super::plan::{Listener, Mode, Target};
use super::problem::Report;
use super::rules::parse_net;
use super::tree::{Node, Value};
use crate::auth::Users;
use crate::decide::L4;
use crate::decide::addr_set::AddrSet;

/// How the listeners of a program are written.
pub(super) struct Ways {
    /// What a listener may have.
    pub(super) keys: Keys,
    /// The modes, those to come as `None`.
    pub(super) modes: &'static [(&'static str, Option<Mode>)],
    /// Who may send a PROXY header: reads the key `trusted` of a mode.
    pub(super) trusted: fn(Option<&Node>, &str, &mut Report) -> AddrSet,
}

/// The users of a listener: its key `users`, and the name of its mode.
pub(super) type UsersOf<'a> = dyn FnMut(Option<&Node>, &str, &mut Report) -> Option<Arc<Users>> + 'a;

/// Those of the proxy.
pub(super) const WAYS: Ways = Ways {
    keys: Keys::new(&["mode", "ip4", "ip6", "port", "tcp", "udp", "tproxy", "target", "trusted", "users"]),
    modes: MODES,
    trusted,
};

/// Who may send a PROXY header where nothing is said: this machine and private networks (RFC 1918, RFC 4193).
const TRUSTED_BY_DEFAULT: &[&str] =
    &["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/// The modes, those to come as `None`.
const MODES: &[(&str, Option<Mode>)] = &[
    ("transparent", Some(Mode::Transparent)),
    ("http", Some(Mode::Http)),
    ("https", Some(Mode::Https)),
    ("proxyproto", Some(Mode::ProxyProtocol)),
    ("socks5", Some(Mode::Socks5)),
];

const TARGETS: &[(&str, Target)] =
    &[("auto", Target::Auto), ("original", Target::Original), ("name", Target::Name)];

/// What `listen` says, of which there must be something.
pub(super) fn required(
    root: &Node,
    section: &Section<'_>,
    ways: &Ways,
    users: &mut UsersOf<'_>,
    report: &mut Report,
) -> Vec<Listener> {
    let Some(node) = section.get("listen") else {
        // A `service` that is no map is reported already.
        if section.get("service").is_none_or(|service| matches!(service.value, Value::Null | Value::Map(_))) {
            report.missing(root, "listen", "is missing: without a listener there is nothing to do");
        }
        return Vec::new();
    };
    if matches!(&node.value, Value::Null) || matches!(&node.value, Value::Seq(items) if items.is_empty()) {
        report.error(node, "there is no listener: without one there is nothing to do");
    }
    listeners(node, ways, users, report)
}

/// One entry per address and port, in the order of the file.
fn listeners(node: &Node, ways: &Ways, users: &mut UsersOf<'_>, report: &mut Report) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (place, entry) in list(node, "a list of listeners: `- mode: …`", report).iter().enumerate() {
        match &entry.value {
            Value::Map(_) => listener(entry, place, ways, users, &mut listeners, report),
            _ => report.expected(entry, "a listener: a map with `mode` and `port`"),
        }
    }
    listeners
}

fn listener(
    entry: &Node,
    place: usize,
    ways: &Ways,
    users: &mut UsersOf<'_>,
    listeners: &mut Vec<Listener>,
    report: &mut Report,
) {
    let section = Section::read(entry, &ways.keys, report);
    let flag = |key: &str, default: bool, report: &mut Report| match section.get(key) {
        Some(node) => boolean(node, report).unwrap_or(default),
        None => default,
    };

    let (mode_name, mode) = match section.get("mode") {
        None => ("transparent", Some(Mode::Transparent)),
        Some(node) => mode(node, ways.modes, report),
    };
    let tproxy = flag("tproxy", false, report);
    if let (true, Some(node)) = (tproxy && !["", "transparent"].contains(&mode_name), section.get("tproxy")) {
        report.error(node, format!("`tproxy` is for mode `transparent`, this one is `{mode_name}`"));
    }
    let tcp = flag("tcp", true, report);
    let udp = flag("udp", false, report);
    if let (true, Some(node), Some(refusal)) = (udp, section.get("udp"), udp_refusal(mode_name, tproxy)) {
        report.error(node, refusal);
    } else if let (true, false, "socks5") = (udp, tcp, mode_name) {
        report.error(
            section.get("tcp").unwrap_or(entry),
            "`udp` in mode `socks5` needs `tcp`, too: datagrams are asked for over a connection",
        );
    } else if !tcp && !udp {
        report.error(
            section.get("tcp").unwrap_or(entry),
            "nothing listens here: neither `tcp` nor `udp` is true",
        );
    }
    let target = match section.get("target") {
        Some(node) => choice(node, "a target", TARGETS, report).unwrap_or(Target::Auto),
        None => Target::Auto,
    };
    let trusted = (ways.trusted)(section.get("trusted"), mode_name, report);
    let users = users(section.get("users"), mode_name, report);
    let port = match section.get("port") {
        Some(node) => number(node, "a port", super::PORTS, report),
        None => {
            report.missing(entry, "port", "is missing: a number 1-65535");
            None
        }
    };
    let addrs = addresses(entry, &section, report);

    let (Some(mode), Some(port)) = (mode, port.and_then(|port| u16::try_from(port).ok())) else { return };
    // SOCKS listens for connections alone: each client that asks is told a port of its own for its datagrams.
    let associate = mode == Mode::Socks5 && udp;
    let transports =
        [(L4::Tcp, tcp), (L4::Udp, udp && !associate)].into_iter().filter_map(|(l4, on)| on.then_some(l4));
    for ((ip, node), l4) in addrs.into_iter().flat_map(|addr| transports.clone().map(move |l4| (addr, l4))) {
        let addr = SocketAddr::new(ip, port);
        let is_taken = |other: &&Listener| other.l4 == l4 && super::share_port(other.addr, addr);
        if let Some(other) = listeners.iter().find(is_taken) {
            let problem = if other.addr == addr {
                format!("two listeners on {addr}: each needs an address and port of its own")
            } else {
                format!(
                    "{addr} and the listener on {} cannot both be bound: all addresses include this one",
                    other.addr
                )
            };
            report.error(node, problem);
            continue;
        }
        let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
        // The default has no key of its own and stands for the entry.
        let given = (!std::ptr::eq(node, entry)).then(|| format!("listen[{place}].{family}").into());
        let advice = match mode {
            Mode::Http => Some("mode `https` hides them from the network"),
            Mode::Socks5 => Some("SOCKS 5 knows no way to hide them from the network"),
            Mode::Transparent | Mode::ProxyProtocol | Mode::Https => None,
        };
        if let (Some(advice), Some(_), false) = (advice, &users, ip.is_loopback()) {
            report.warn(node, format!("users of {addr} send their passwords in clear: {advice}"));
        }
        let (trusted, users) = (trusted.clone(), users.clone());
        listeners.push(Listener {
            mode,
            addr,
            l4,
            tproxy,
            target,
            associate,
            trusted,
            tls: None,
            users,
            given,
        });
    }
}

/// The name of the mode, empty where it is none, and the mode if it can be used.
fn mode(
    node: &Node,
    modes: &[(&'static str, Option<Mode>)],
    report: &mut Report,
) -> (&'static str, Option<Mode>) {
    let Some(text) = scalar(node) else {
        report.expected_word(node, "a mode", &mode_names(modes));
        return ("", None);
    };
    match modes.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        Some((name, Some(Mode::Https))) if cfg!(not(feature = "tls")) => {
            report.error(node, format!("mode `{name}` is not part of this build: it was made without TLS"));
            (name, None)
        }
        Some((name, Some(mode))) => (name, Some(*mode)),
        Some((name, None)) => {
            report.error(node, format!("mode `{name}` is not supported yet"));
            (name, None)
        }
        None => {
            report.expected_word(node, "a mode", &mode_names(modes));
            ("", None)
        }
    }
}

/// Those that can be used.
fn mode_names(modes: &[(&'static str, Option<Mode>)]) -> Vec<&'static str> {
    modes.iter().filter(|(_, mode)| mode.is_some()).map(|(name, _)| *name).collect()
}

/// Why `udp: true` cannot be had, if it cannot.
fn udp_refusal(mode: &str, tproxy: bool) -> Option<&'static str> {
    match mode {
        "transparent" if !tproxy => Some(
            "`udp` in mode `transparent` needs `tproxy: true`: a plain redirect loses a datagram's destination",
        ),
        "http" | "https" => {
            Some("`udp` is for the modes `transparent`, `socks5` and `proxyproto`: HTTP proxies carry TCP")
        }
        // A mode that is none is reported already.
        "" => None,
        _ if cfg!(not(feature = "udp")) => Some("`udp: true` is not part of this build"),
        _ => None,
    }
}

fn trusted(node: Option<&Node>, mode: &str, report: &mut Report) -> AddrSet {
    let Some(node) = node else {
        return AddrSet::new(TRUSTED_BY_DEFAULT.iter().filter_map(|net| parse_net(net)));
    };
    if !["", "proxyproto"].contains(&mode) {
        report.error(node, format!("`trusted` is for mode `proxyproto`, this one is `{mode}`"));
    }
    if items(node).is_empty() {
        report.error(
            node,
            "an empty list trusts nobody: leave `trusted` out for loopback and private networks",
        );
    }
    let mut nets: Vec<IpNet> = Vec::new();
    for item in items(node) {
        match scalar(item).and_then(parse_net) {
            Some(net) => nets.push(net),
            None => report.expected(item, "an address or network: `192.0.2.1`, `10.0.0.0/8`, `fd00::/8`"),
        }
    }
    AddrSet::new(nets)
}

fn addresses<'t>(entry: &'t Node, section: &Section<'t>, report: &mut Report) -> Vec<(IpAddr, &'t Node)> {
    let mut addrs = Vec::new();
    let mut wrong = false;
    match section.get("ip4") {
        None => addrs.push((IpAddr::V4(Ipv4Addr::LOCALHOST), entry)),
        Some(node) => {
            for item in items(node) {
                match scalar(item).and_then(|text| text.parse::<Ipv4Addr>().ok()) {
                    Some(ip) => addrs.push((IpAddr::V4(ip), item)),
                    None => {
                        wrong = true;
                        report.expected(item, "an IPv4 address: `127.0.0.1`, `0.0.0.0` for all of them");
                    }
                }
            }
        }
    }
    match section.get("ip6") {
        None => addrs.push((IpAddr::V6(Ipv6Addr::LOCALHOST), entry)),
        Some(node) => {
            for item in items(node) {
                let ip = scalar(item).and_then(|text| text.parse::<Ipv6Addr>().ok());
                match ip.filter(|ip| ip.to_ipv4_mapped().is_none()) {
                    Some(ip) => addrs.push((IpAddr::V6(ip), item)),
                    None => {
                        wrong = true;
                        report.expected(item, "an IPv6 address: `::1`, `::` for all of them");
                    }
                }
            }
        }
    }
    if addrs.is_empty() && !wrong {
        report.error(entry, "nothing listens here: both `ip4` and `ip6` are empty");
    }
    addrs
}
