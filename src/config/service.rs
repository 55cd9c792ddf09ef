//! The settings around listeners and rules: deadlines, output, limits, metrics, log, …

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::decode::{Keys, Section, boolean, choice, items, number, parse_bool, parse_port, scalar, text};
use super::plan::{Limits, Log, Output, Service, Timeouts};
use super::problem::Report;
use super::tree::Node;
use crate::identify::Parsers;

/// Keys that stand under `service` or at the top level.
pub(super) const SETTINGS: &[&str] = &[
    "listen",
    "certs",
    "dnsNameservers",
    "debug",
    "timeout",
    "output",
    "limits",
    "metrics",
    "parse",
    "dns",
    "log",
    "workers",
    "user",
    "group",
    "interceptFallback",
    "endAtClose",
    "live",
];

/// Nameservers that are asked for one name at most.
const MAX_NAMESERVERS: usize = 8;
/// Worker threads.
const MAX_WORKERS: u64 = 256;
/// Rounds after the first.
const MAX_RETRIES: u64 = 100;
/// Longest interface name (IFNAMSIZ without the final zero).
const MAX_INTERFACE_BYTES: usize = 15;
/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;
/// Where the running program is asked when nothing else is said.
pub const LIVE_SOCKET: &str = "/run/calamary.sock";
/// Where metrics are served when nothing else is said.
const METRICS_PORT: u16 = 9512;

/// Everything but listeners and rules.
pub(super) struct Settings {
    /// Without its listeners.
    pub(super) service: Service,
    pub(super) parsers: Parsers,
    pub(super) end_at_close: bool,
    pub(super) live: Option<PathBuf>,
    /// `dns.stripEch`.
    pub(super) strip_ech: bool,
}

/// Decodes what stands in the joined sections of `service` and the top level.
pub(super) fn settings(section: &Section<'_>, report: &mut Report) -> Settings {
    let end_at_close = section.get("endAtClose").and_then(|node| boolean(node, report)).unwrap_or(false);
    let dns = subsection(section, "dns", &["stripEch"], report);
    let strip_ech = dns.get("stripEch").and_then(|node| boolean(node, report)).unwrap_or(false);

    let mut service = base(section, &["retries", "fwmark", "interface", "allowLocal"], report);
    service.nameservers = nameservers(section.get("dnsNameservers"), report);
    service.metrics = metrics(section, report);
    let live = live(section.get("live"), report);
    Settings { service, parsers: parsers(section, report), end_at_close, live, strip_ech }
}

/// Where the running program can be asked.
pub(super) fn live(node: Option<&Node>, report: &mut Report) -> Option<PathBuf> {
    let node = node?;
    match scalar(node).map(|text| (parse_bool(text), text)) {
        Some((Some(false), _)) => None,
        _ if !cfg!(feature = "household") => {
            report.error(node, "the live socket is not part of this build");
            None
        }
        Some((Some(true), _)) => Some(PathBuf::from(LIVE_SOCKET)),
        Some((None, path)) if path.starts_with('/') => Some(PathBuf::from(path)),
        _ => {
            report.expected(node, "`true`, `false`, or where the socket is to be: `/run/calamary.sock`");
            None
        }
    }
}

/// What every program has; `output` are the keys that it knows there.
pub(super) fn base(
    section: &Section<'_>,
    output_keys: &'static [&'static str],
    report: &mut Report,
) -> Service {
    let workers =
        section.get("workers").and_then(|node| number(node, "a number of workers", 1..=MAX_WORKERS, report));
    Service {
        listeners: Vec::new(),
        timeouts: timeouts(section, report),
        output: output(section, output_keys, report),
        nameservers: Vec::new(),
        limits: limits(section, report),
        metrics: None,
        log: log(section, report),
        workers: workers.and_then(|workers| usize::try_from(workers).ok()),
        user: section
            .get("user")
            .and_then(|node| text(node, "a user's name or number", report))
            .map(str::to_owned),
        group: section
            .get("group")
            .and_then(|node| text(node, "a group's name or number", report))
            .map(str::to_owned),
    }
}

fn subsection<'t>(
    section: &Section<'t>,
    name: &str,
    known: &'static [&'static str],
    report: &mut Report,
) -> Section<'t> {
    match section.get(name) {
        Some(node) => Section::read(node, &Keys::new(known), report),
        None => Section::empty(),
    }
}

fn timeouts(section: &Section<'_>, report: &mut Report) -> Timeouts {
    const MINUTE: u64 = 60_000;
    const DAY: u64 = 24 * 60 * MINUTE;
    let keys = &["connect", "process", "probe", "dnsLookup", "idle", "halfClosed", "udpIdle", "drain"];
    let given = subsection(section, "timeout", keys, report);
    let mut ms = |key: &str, default: u64, max: u64| {
        let value =
            given.get(key).and_then(|node| number(node, "a timeout in milliseconds", 1..=max, report));
        Duration::from_millis(value.unwrap_or(default))
    };
    Timeouts {
        connect: ms("connect", 2000, 10 * MINUTE),
        process: ms("process", 1000, 10 * MINUTE),
        probe: ms("probe", 500, 10 * MINUTE),
        dns_lookup: ms("dnsLookup", 2000, 10 * MINUTE),
        // RFC 5382 §5: not less than two hours and four minutes.
        idle: ms("idle", 124 * MINUTE, 30 * DAY),
        half_closed: ms("halfClosed", MINUTE, DAY),
        udp_idle: ms("udpIdle", 2 * MINUTE, DAY),
        drain: ms("drain", 10_000, DAY),
    }
}

fn output(section: &Section<'_>, keys: &'static [&'static str], report: &mut Report) -> Output {
    let given = subsection(section, "output", keys, report);
    let retries =
        given.get("retries").and_then(|node| number(node, "a number of retries", 0..=MAX_RETRIES, report));
    let fwmark =
        given.get("fwmark").and_then(|node| number(node, "a firewall mark", 0..=u64::from(u32::MAX), report));
    let interface = given.get("interface").and_then(|node| {
        let name = scalar(node).filter(|name| is_interface_name(name));
        if name.is_none() {
            report.expected(node, "the name of an interface: 1-15 bytes without spaces and `/`");
        }
        name
    });
    Output {
        retries: retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        fwmark: fwmark.and_then(|n| u32::try_from(n).ok()),
        interface: interface.map(str::to_owned),
        allow_local: given.get("allowLocal").and_then(|node| boolean(node, report)).unwrap_or(false),
    }
}

/// As Linux has it in `dev_valid_name`.
fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn nameservers(node: Option<&Node>, report: &mut Report) -> Vec<SocketAddr> {
    let Some(node) = node else { return Vec::new() };
    if let Some(item) = items(node).get(MAX_NAMESERVERS) {
        report.error(item, format!("more than {MAX_NAMESERVERS} nameservers"));
        return Vec::new();
    }
    let mut servers = Vec::new();
    for item in items(node) {
        match scalar(item).and_then(parse_nameserver) {
            Some(server) => servers.push(server),
            None => report.expected(
                item,
                "a nameserver: `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1` or `[2001:db8::1]:53`",
            ),
        }
    }
    servers
}

fn parse_nameserver(text: &str) -> Option<SocketAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|server| server.port() != 0);
    text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(with_port)
}

fn limits(section: &Section<'_>, report: &mut Report) -> Limits {
    let given = subsection(section, "limits", &["connections", "perSource"], report);
    let mut count = |key: &str| {
        let value = given
            .get(key)
            .and_then(|node| number(node, "a number of connections", 1..=u64::from(u32::MAX), report));
        value.and_then(|value| u32::try_from(value).ok())
    };
    Limits { connections: count("connections"), per_source: count("perSource") }
}

fn metrics(section: &Section<'_>, report: &mut Report) -> Option<SocketAddr> {
    let given = subsection(section, "metrics", &["enabled", "port", "ip"], report);
    let enabled = given.get("enabled").and_then(|node| boolean(node, report)).unwrap_or(false);
    if let (true, false, Some(node)) = (enabled, cfg!(feature = "metrics"), given.get("enabled")) {
        report.error(node, "metrics are not part of this build");
    }
    let port = match given.get("port") {
        None => METRICS_PORT,
        Some(node) => {
            let port =
                scalar(node).and_then(parse_port).filter(|port| super::PORTS.contains(&u64::from(*port)));
            if port.is_none() {
                report.expected(node, "a port: a number 1-65535");
            }
            port.unwrap_or(METRICS_PORT)
        }
    };
    let ip = match given.get("ip") {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(node) => {
            let ip = scalar(node).and_then(|text| text.parse().ok());
            if ip.is_none() {
                report.expected(node, "an address: `127.0.0.1`, `::1`");
            }
            ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        }
    };
    enabled.then_some(SocketAddr::new(ip, port))
}

fn parsers(section: &Section<'_>, report: &mut Report) -> Parsers {
    let given = subsection(section, "parse", &["tls", "http", "quic", "dns", "ntp"], report);
    let mut on = |key: &str| given.get(key).and_then(|node| boolean(node, report)).unwrap_or(true);
    Parsers { tls: on("tls"), http: on("http"), quic: on("quic"), dns: on("dns"), ntp: on("ntp") }
}

fn log(section: &Section<'_>, report: &mut Report) -> Log {
    let given = subsection(section, "log", &["format", "target"], report);
    let mut second = |key: &str, what: &str, words: &[(&str, bool)]| {
        given.get(key).and_then(|node| choice(node, what, words, report)).unwrap_or(false)
    };
    Log {
        json: second("format", "a log format", &[("text", false), ("json", true)]),
        syslog: second("target", "a log target", &[("stdout", false), ("syslog", true)]),
        debug: section.get("debug").and_then(|node| boolean(node, report)).unwrap_or(false),
    }
}
