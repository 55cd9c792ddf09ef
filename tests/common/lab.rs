//! A client, a router and a server, each a network namespace, joined by veth pairs with IPv4 and IPv6.
//!
//! ```text
//! client 192.168.77.10  ──  192.168.77.1 router 203.0.113.1  ──  203.0.113.5 … .9 server
//!        fd00:77::10        fd00:77::1          2001:db8:113::1  2001:db8:113::5 … ::9
//! ```
//!
//! The daemon runs on the router, which forwards what no firewall rule takes away. The names are unique per test, and
//! dropping the lab removes it, also after a panic; what a killed run left behind is removed by the next one.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Once;

use super::{have, process, skip, unique};

pub const CLIENT4: &str = "192.168.77.10";
pub const CLIENT6: &str = "fd00:77::10";
pub const ROUTER4: &str = "192.168.77.1";
pub const ROUTER6: &str = "fd00:77::1";
/// The router's addresses on the servers' side.
pub const ROUTER_OUT4: &str = "203.0.113.1";
pub const ROUTER_OUT6: &str = "2001:db8:113::1";
pub const SERVER4: &str = "203.0.113.5";
pub const SERVER6: &str = "2001:db8:113::5";
/// Where a nameserver of the lab listens.
pub const DNS4: &str = "203.0.113.9";

/// One network namespace.
pub struct Ns {
    name: String,
}

/// The three namespaces.
pub struct Lab {
    pub client: Ns,
    pub router: Ns,
    pub server: Ns,
}

impl Ns {
    fn add(name: String) -> Ns {
        host(&["netns", "add", &name]);
        let ns = Ns { name };
        // No duplicate address detection: it would hold back IPv6 for seconds.
        ns.sysctl("net.ipv6.conf.all.accept_dad", "0");
        ns.sysctl("net.ipv6.conf.default.accept_dad", "0");
        ns.ip(&["link", "set", "lo", "up"]);
        ns
    }

    /// Runs a closure in a thread inside this namespace; sockets, threads and processes that it makes belong there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside =
                std::thread::Builder::new().name(std::thread::current().name().unwrap_or("?").into());
            let handle = inside.spawn_scoped(scope, || {
                process::enter_namespace(&file).unwrap();
                work()
            });
            handle.unwrap().join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip(&self, args: &[&str]) {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(args);
        host(&all);
    }

    /// Runs a shell command inside and returns its standard output; it must succeed.
    pub fn sh(&self, command: &str) -> String {
        let output = self.try_sh(command);
        assert!(output.status.success(), "{command}: {}", super::daemon::text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell command inside, whatever its end.
    pub fn try_sh(&self, command: &str) -> std::process::Output {
        self.run(|| Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).output().unwrap())
    }

    /// Loads nftables rules.
    pub fn nft(&self, ruleset: &str) {
        self.try_nft(ruleset).unwrap_or_else(|e| panic!("nft does not take\n{ruleset}\n{e}"));
    }

    /// Loads nftables rules, or says why not.
    pub fn try_nft(&self, ruleset: &str) -> Result<(), String> {
        self.run(|| {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|e| e.to_string())?;
            child.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        })
    }

    /// Counts the connection attempts that reach this namespace from now on.
    pub fn count_syns(&self) {
        self.count_syns_at("prerouting");
    }

    /// Counts the connection attempts that are made in this namespace from now on.
    pub fn count_syns_sent(&self) {
        self.count_syns_at("output");
    }

    fn count_syns_at(&self, hook: &str) {
        self.nft(&format!(
            "table inet seen {{
                counter syns {{ }}
                chain passing {{
                    type filter hook {hook} priority raw;
                    tcp flags & (syn | ack) == syn counter name syns
                }}
            }}"
        ));
    }

    /// Connection attempts since [`Ns::count_syns`] or [`Ns::count_syns_sent`].
    pub fn syns(&self) -> u64 {
        let text = self.sh("nft list counter inet seen syns");
        let mut words = text.split_whitespace();
        words.find(|w| *w == "packets").unwrap();
        words.next().unwrap().parse().unwrap()
    }

    fn sysctl(&self, key: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{}", key.replace('.', "/")), value)).unwrap();
    }
}

impl Lab {
    /// Builds the namespaces, or says loudly why this test is skipped.
    pub fn build_or_skip() -> Option<Lab> {
        static SWEEP: Once = Once::new();
        if !process::is_root() || !have("nft") || !have("ip") {
            skip("needs root and nftables");
            return None;
        }
        let probe = format!("cal-{}-{}-probe", std::process::id(), unique());
        let output = Command::new("ip").args(["netns", "add", &probe]).output().unwrap();
        if !output.status.success() {
            skip(&format!("needs network namespaces: {}", String::from_utf8_lossy(&output.stderr).trim()));
            return None;
        }
        host(&["netns", "del", &probe]);
        SWEEP.call_once(sweep);
        Some(Self::build())
    }

    fn build() -> Lab {
        let prefix = format!("cal-{}-{}", std::process::id(), unique());
        let lab = Lab {
            client: Ns::add(format!("{prefix}-c")),
            router: Ns::add(format!("{prefix}-r")),
            server: Ns::add(format!("{prefix}-s")),
        };
        let Lab { client, router, server } = &lab;

        client.ip(&["link", "add", "lan", "type", "veth", "peer", "name", "lan", "netns", &router.name]);
        server.ip(&["link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", &router.name]);
        for (ns, link) in [(client, "lan"), (router, "lan"), (router, "wan"), (server, "wan")] {
            ns.ip(&["link", "set", link, "up"]);
        }
        let address = |ns: &Ns, link: &str, addr: &str| {
            let mut args = vec!["addr", "add", addr, "dev", link];
            if addr.contains(':') {
                args.push("nodad");
            }
            ns.ip(&args);
        };
        address(client, "lan", &format!("{CLIENT4}/24"));
        address(client, "lan", &format!("{CLIENT6}/64"));
        address(router, "lan", &format!("{ROUTER4}/24"));
        address(router, "lan", &format!("{ROUTER6}/64"));
        address(router, "wan", &format!("{ROUTER_OUT4}/24"));
        address(router, "wan", &format!("{ROUTER_OUT6}/64"));
        for host in 5..=9 {
            address(server, "wan", &format!("203.0.113.{host}/24"));
            address(server, "wan", &format!("2001:db8:113::{host}/64"));
        }
        client.ip(&["route", "add", "default", "via", ROUTER4]);
        client.ip(&["-6", "route", "add", "default", "via", ROUTER6]);
        server.ip(&["route", "add", "default", "via", ROUTER_OUT4]);
        server.ip(&["-6", "route", "add", "default", "via", ROUTER_OUT6]);
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        lab
    }

    /// Sends the client's TCP to these ports to a listener on the router by REDIRECT, IPv4 and IPv6.
    pub fn redirect(&self, dports: &str, to: u16) {
        self.router.nft(&format!(
            "table inet proxy {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    iifname lan tcp dport {{ {dports} }} redirect to :{to}
                }}
            }}"
        ));
    }

    /// The same by TPROXY, with the routes that make the packets local.
    pub fn tproxy(&self, dports: &str, to: u16) {
        self.tproxy_after("", "tcp", dports, to);
    }

    /// The same for what is sent to these ports as datagrams.
    pub fn tproxy_udp(&self, dports: &str, to: u16) {
        self.tproxy_after("", "udp", dports, to);
    }

    /// The same for a transport protocol, `tcp`, `udp` or a set of both; `first` is a rule before the others.
    pub fn tproxy_after(&self, first: &str, transport: &str, dports: &str, to: u16) {
        for family in ["-4", "-6"] {
            self.router.ip(&[family, "rule", "add", "fwmark", "1", "lookup", "100"]);
        }
        self.router.ip(&["-4", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"]);
        self.router.ip(&["-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100"]);
        self.router.nft(&format!(
            "table inet proxy {{
                chain prerouting {{
                    type filter hook prerouting priority mangle;
                    {first}
                    iifname lan meta l4proto {transport} th dport {{ {dports} }} meta nfproto ipv4 tproxy ip to 127.0.0.1:{to} meta mark set 1 accept
                    iifname lan meta l4proto {transport} th dport {{ {dports} }} meta nfproto ipv6 tproxy ip6 to [::1]:{to} meta mark set 1 accept
                }}
            }}"
        ));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in [&self.client, &self.router, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", &ns.name]).output();
        }
    }
}

/// `addr:port`, with brackets where they are needed.
pub fn at(addr: &str, port: u16) -> String {
    let addr: IpAddr = addr.parse().unwrap();
    std::net::SocketAddr::new(addr, port).to_string()
}

fn host(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Removes what runs of the past left behind because they were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let Some(pid) = name.strip_prefix("cal-").and_then(|n| n.split('-').next()) else { continue };
        if pid.parse::<u32>().is_ok() && !std::path::Path::new("/proc").join(pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
