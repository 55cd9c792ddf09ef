//! The redirector's file: the keys of the proxy that mean something to it, and its servers.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::decode::{Keys, Section, choice, items, scalar};
use super::listen::{self, Ways};
use super::plan::{Mode, Service};
use super::problem::{Problems, Report};
use super::tree::{Node, Value};
use super::{LoadOptions, Loaded, read, service, share_port};
use crate::connect::dial::MAX_ADDRESSES;
use crate::decide::addr_set::AddrSet;
use crate::session::redirect::{Select, Server, Servers};

/// What may stand in the file.
const KEYS: Keys = Keys::new(&[
    "listen",
    "proxies",
    "select",
    "proxyProtocol",
    "onFailure",
    "timeout",
    "output",
    "limits",
    "log",
    "debug",
    "workers",
    "user",
    "group",
]);

/// How its listeners are written.
const WAYS: Ways = Ways {
    keys: Keys::new(&["mode", "ip4", "ip6", "port", "tcp", "udp", "tproxy"]),
    modes: &[("transparent", Some(Mode::Transparent))],
    // Its clients send no header.
    trusted: |_, _, _| AddrSet::default(),
};

/// Longest host name in characters (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// Everything that a start or a reload of the redirector uses.
#[derive(Debug)]
pub struct RedirectPlan {
    /// What does not depend on what is done with a connection.
    pub service: Service,
    /// Where connections go, and how the servers are.
    pub servers: Servers,
    /// How they learn whose connection it is.
    pub header: HeaderVersion,
    /// What happens when none of them answers.
    pub on_failure: OnFailure,
}

impl AsRef<Service> for RedirectPlan {
    fn as_ref(&self) -> &Service {
        &self.service
    }
}

impl AsMut<Service> for RedirectPlan {
    fn as_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}

/// `proxyProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `onFailure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The client gets a reset.
    Close,
    /// The original destination is dialled: nobody filters then.
    Direct,
}

/// Reads and checks a redirector's configuration.
///
/// # Errors
/// Every problem of the file, or that it cannot be read.
pub fn load_file(path: &Path, options: LoadOptions) -> Result<Loaded<RedirectPlan>, Problems> {
    let mut loaded = load(&read(path)?, path, options)?;
    loaded.files.insert(0, path.to_owned());
    Ok(loaded)
}

/// Checks the text of a redirector's configuration; `file` is shown in problems.
///
/// # Errors
/// Every problem of the text.
pub fn load(text: &str, file: &Path, options: LoadOptions) -> Result<Loaded<RedirectPlan>, Problems> {
    super::load_with(text, file, options, decode)
}

fn decode(root: &Node, _file: &Path, report: &mut Report) -> Option<Loaded<RedirectPlan>> {
    match root.value {
        Value::Map(_) => {}
        Value::Null => {
            report.error(root, "the file is empty: at least one listener and one of `proxies` are needed");
            return None;
        }
        _ => {
            report.expected(root, "a configuration: a map with the keys `listen` and `proxies`");
            return None;
        }
    }
    let section = Section::read(root, &KEYS, report);
    let mut service = service::base(&section, &["retries", "fwmark", "interface"], report);
    // What may be reached is for the servers to say.
    service.output.allow_local = true;
    service.listeners = listen::required(root, &section, &WAYS, &mut |_, _, _| None, report);
    let select = match section.get("select") {
        Some(node) => {
            let words = [("first", Select::First), ("spread", Select::Spread)];
            choice(node, "a way to select a server", &words, report).unwrap_or(Select::First)
        }
        None => Select::First,
    };
    let header = section.get("proxyProtocol").and_then(|node| {
        let words = [("v1", HeaderVersion::V1), ("v2", HeaderVersion::V2)];
        choice(node, "a version of the PROXY protocol", &words, report)
    });
    let on_failure = section.get("onFailure").and_then(|node| {
        let words = [("close", OnFailure::Close), ("direct", OnFailure::Direct)];
        choice(node, "what to do when no server answers", &words, report)
    });
    let servers = Servers::new(proxies(root, &section, &service, report), select);
    let plan = RedirectPlan {
        service,
        servers,
        header: header.unwrap_or(HeaderVersion::V2),
        on_failure: on_failure.unwrap_or(OnFailure::Close),
    };
    let summary = summary(&plan);
    Some(Loaded { plan, warnings: Vec::new(), summary, files: Vec::new() })
}

fn proxies(root: &Node, section: &Section<'_>, service: &Service, report: &mut Report) -> Vec<Server> {
    let Some(node) = section.get("proxies") else {
        report.missing(root, "proxies", "is missing: without a server there is nowhere to send connections");
        return Vec::new();
    };
    if matches!(node.value, Value::Null) || items(node).is_empty() {
        report.error(node, "there is no server: without one there is nowhere to send connections");
        return Vec::new();
    }
    if let Some(item) = items(node).get(MAX_ADDRESSES) {
        report.error(item, format!("more than {MAX_ADDRESSES} servers"));
        return Vec::new();
    }
    let mut servers: Vec<Server> = Vec::new();
    for item in items(node) {
        let Some((name, address)) = scalar(item).and_then(parse_proxy) else {
            report.expected(item, "a server: `192.0.2.1:4129`, `[2001:db8::1]:4129` or `proxy.example:4129`");
            continue;
        };
        let own = address
            .and_then(|addr| service.listeners.iter().find(|listener| share_port(listener.addr, addr)));
        if let Some(listener) = own {
            report.error(item, format!("this is the redirector's own listener on {}", listener.addr));
        } else if servers.iter().any(|server| server.name() == name) {
            report.error(item, format!("`{name}` stands here twice"));
        } else {
            servers.push(Server::new(&name, address));
        }
    }
    servers
}

/// The name under which a server is shown, and its address unless that must be looked up.
fn parse_proxy(text: &str) -> Option<(String, Option<SocketAddr>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let usable = address.port() != 0 && !address.ip().is_unspecified();
        return usable.then(|| (address.to_string(), Some(address)));
    }
    let (host, port) = split_name(text)?;
    Some((format!("{host}:{port}"), None))
}

/// The host and the port of `host:port`, where the host is a name.
pub fn split_name(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = super::decode::parse_port(port).filter(|port| *port != 0)?;
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // What ends in a number is an address with an error in it.
    let last = host.rsplit('.').next()?;
    let is_name =
        host.len() <= MAX_HOST && host.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit());
    is_name.then(|| (host.to_ascii_lowercase(), port))
}

fn summary(plan: &RedirectPlan) -> String {
    let mut out = super::summary_of_listeners(&plan.service);
    let names: Vec<&str> = plan.servers.iter().map(|server| server.name()).collect();
    // Writing to a string cannot fail.
    let _ = write!(out, "\nproxies: {} ({})", names.len(), names.join(", "));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Loaded<RedirectPlan>, String> {
        load(text, Path::new("r.yml"), LoadOptions::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let plan = check("listen: [{ port: 4128 }]\nproxies: ['192.0.2.1:4129']").unwrap().plan;
        assert_eq!((plan.header, plan.on_failure), (HeaderVersion::V2, OnFailure::Close));
        let listeners: Vec<_> = plan.service.listeners.iter().map(|l| l.addr.to_string()).collect();
        assert_eq!(listeners, ["127.0.0.1:4128", "[::1]:4128"]);
        assert!(plan.service.output.allow_local);
        let all = "listen: [{ mode: transparent, ip4: ['0.0.0.0'], ip6: [], port: 4128, tproxy: true, tcp: true }]\n\
                   proxies: ['[2001:db8::1]:4129', 'Proxy.example:4129', '192.0.2.1:4129']\n\
                   select: spread\nproxyProtocol: v1\nonFailure: direct\ntimeout: { connect: 500 }\n\
                   output: { fwmark: 7, interface: lan0, retries: 0 }\nlimits: { connections: 9 }\n\
                   log: { format: json }\ndebug: true\nworkers: 1\nuser: nobody\ngroup: nogroup";
        let loaded = check(all).unwrap();
        let plan = loaded.plan;
        assert_eq!((plan.header, plan.on_failure), (HeaderVersion::V1, OnFailure::Direct));
        let names: Vec<_> = plan.servers.iter().map(|server| server.name()).collect();
        assert_eq!(names, ["[2001:db8::1]:4129", "proxy.example:4129", "192.0.2.1:4129"]);
        assert!(plan.service.log.debug && plan.service.log.json);
        assert!(loaded.summary.contains("proxies: 3 ("), "{}", loaded.summary);
    }

    #[test]
    fn datagrams_need_tproxy_and_a_build_that_takes_them() {
        let listen = "listen: [{ port: 4128, tproxy: true, udp: true }]\nproxies: ['192.0.2.1:4129']";
        let listeners = check(listen).map(|loaded| loaded.plan.service.listeners.len());
        if cfg!(feature = "udp") {
            assert_eq!(listeners, Ok(4));
        } else {
            assert!(listeners.unwrap_err().contains("listen[0].udp: `udp: true` is not part of this build"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong = |text: &str, words: &[&str]| {
            let problems = check(text).map(|loaded| loaded.summary).unwrap_err();
            assert!(words.iter().all(|word| problems.contains(word)), "{text}\n{problems}");
        };
        let (listen, proxies) = ("listen: [{ port: 4128 }]\n", "proxies: ['192.0.2.1:4129']\n");
        wrong("", &["r.yml:1:1:", "the file is empty"]);
        wrong("- 1", &["`listen` and `proxies`"]);
        wrong(proxies, &["listen", "is missing"]);
        wrong(listen, &["proxies", "is missing"]);
        wrong(&format!("{listen}proxies: []"), &["r.yml:2:1: proxies:", "there is no server"]);
        wrong(&format!("listen: []\n{proxies}"), &["there is no listener"]);
        for server in [
            "192.0.2.1",
            "192.0.2.1:0",
            "0.0.0.0:4129",
            "2001:db8::1:x",
            "[2001:db8::1]",
            "proxy.example",
            "proxy.example:",
            "proxy.example:65536",
            "a b:1",
            "a..b:1",
            "192.0.2.256:1",
            "http://proxy.example:4129",
            ":4129",
        ] {
            wrong(&format!("{listen}proxies: ['{server}']"), &["r.yml:2:11: proxies[0]:", "a server: "]);
        }
        wrong(&format!("{listen}proxies: ['a:1', 'A:1']"), &["proxies[1]:", "twice"]);
        wrong(&format!("{listen}proxies: ['127.0.0.1:4128']"), &["proxies[0]:", "own listener"]);
        wrong(&format!("{listen}proxies: [a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1]"), &["more than 8 servers"]);
        wrong(&format!("{listen}{proxies}select: random"), &["select:", "`first`", "`spread`"]);
        wrong(&format!("{listen}{proxies}proxyProtocol: v3"), &["proxyProtocol:", "`v1`"]);
        wrong(&format!("{listen}{proxies}onFailure: open"), &["onFailure:", "`close`", "`direct`"]);
        wrong(&format!("{listen}{proxies}rules: []"), &["r.yml:3:1:", "`rules` is no key here"]);
        wrong(&format!("{listen}{proxies}onfailure: close"), &["`onFailure`"]);
        wrong(&format!("{listen}{proxies}output: {{ allowLocal: true }}"), &["`allowLocal` is no key here"]);
        wrong(
            &format!("listen: [{{ mode: http, port: 1 }}]\n{proxies}"),
            &["listen[0].mode:", "`transparent`"],
        );
        wrong(&format!("listen: [{{ port: 1, udp: true }}]\n{proxies}"), &["listen[0].udp:", "tproxy"]);
        wrong(&format!("listen: [{{ port: 1, target: name }}]\n{proxies}"), &["`target` is no key here"]);
    }
}
