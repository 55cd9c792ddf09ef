//! The packages for OpenWrt: built, read by an independent reader, installed, upgraded and removed; and their init script and
//! firewall rules at work, with real traffic. What a router's own userland does is done by stand-ins (tests/openwrt).
//! Packages have programs with all features, and their configuration asks for metrics.
#![cfg(feature = "metrics")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;
#[path = "openwrt/luci.rs"]
mod luci;
#[path = "openwrt/router.rs"]
mod router;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::TempDir;
use common::daemon::text;
use common::lab::{CLIENT4, ROUTER_OUT4, ROUTER4, SERVER4, SERVER6, at};
use common::origin::Origin;
use common::tls::{ALERT_UNRECOGNIZED_NAME, hello};
use router::{Router, VERSION, build_packages, file_name, have_tools, opkg, packages, programs, project};

/// Files of a folder, by name.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// A folder as cross/build.sh leaves it, with files that are quick to pack in place of programs.
fn small_programs() -> (TempDir, usize) {
    let dir = TempDir::new();
    let of_triple = listing(programs()).remove(0);
    let to = dir.0.join(of_triple.file_name().unwrap());
    std::fs::create_dir(&to).unwrap();
    let bytes = common::pattern(20_000, 1);
    for program in ["calamary", "calamary-redirector"] {
        std::fs::write(to.join(program), &bytes).unwrap();
    }
    (dir, bytes.len())
}

#[test]
fn packages_are_as_an_independent_reader_wants_them_and_the_same_each_time() {
    if !have_tools() {
        return;
    }
    let (programs, program) = small_programs();
    let folders = [TempDir::new(), TempDir::new()];
    for folder in &folders {
        let output = build_packages(&project().join("openwrt"), &programs.0, &folder.0);
        assert!(output.status.success(), "{}", text(&output));
    }
    let [once, again] = &folders;
    let packages = ["calamary", "calamary-redirector", "luci-app-calamary"];
    let found: Vec<PathBuf> =
        listing(&once.0).into_iter().filter(|p| p.extension().unwrap() == "ipk").collect();
    assert_eq!(found.len(), packages.len(), "{found:?}");
    for name in packages.map(|name| file_name(name, VERSION)) {
        let path = once.0.join(&name);
        let checked = opkg(&["check", path.to_str().unwrap()]);
        assert!(checked.status.success(), "{name}: {}", text(&checked));
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(again.0.join(&name)).unwrap(),
            "{name} differs"
        );

        // Besides the program there are only scripts and texts.
        let installed = text(&opkg(&["field", path.to_str().unwrap(), "Installed-Size"]));
        let installed: usize = installed.trim().parse().unwrap();
        assert!(
            installed.saturating_sub(program) < 64 * 1024,
            "{name}: {installed} bytes, the program has {program}"
        );
    }
}

#[test]
fn programs_for_routers_become_packages_for_every_name_of_their_cpu() {
    let Some(builds) = std::env::var_os("CALAMARY_ROUTER_BUILDS") else {
        return common::skip("set CALAMARY_ROUTER_BUILDS to the folder that cross/build.sh wrote");
    };
    if !have_tools() {
        return;
    }
    let out = TempDir::new();
    let output = build_packages(&project().join("openwrt"), Path::new(&builds), &out.0);
    assert!(output.status.success(), "{}", text(&output));
    let found = listing(&out.0);
    for triple in listing(Path::new(&builds)).iter().filter(|p| p.join("calamary").exists()) {
        let architecture = match triple.file_name().unwrap().to_str().unwrap().split('-').next().unwrap() {
            "mips" => "mips_24kc",
            "mipsel" => "mipsel_24kc",
            "armv7" => "arm_cortex-a7_neon-vfpv4",
            "arm" => "arm_arm1176jzf-s_vfp",
            "aarch64" => "aarch64_cortex-a53",
            "x86_64" => "x86_64",
            "i686" => "i386_pentium4",
            "armv5te" => "arm_xscale",
            "riscv64gc" => "riscv64_generic",
            other => panic!("what is {other} called?"),
        };
        for package in ["calamary", "calamary-redirector"] {
            let name = format!("{package}_{VERSION}_{architecture}.ipk");
            assert!(found.contains(&out.0.join(&name)), "no {name}");
            // What is small on a disk must be small in its package, too: 700 KB is the budget of a program as xz.
            let size = out.0.join(&name).metadata().unwrap().len();
            assert!(size < 1024 * 1024, "{name}: {size} bytes");
        }
    }
    for package in found.iter().filter(|p| p.extension().unwrap() == "ipk") {
        let checked = opkg(&["check", package.to_str().unwrap()]);
        assert!(checked.status.success(), "{}: {}", package.display(), text(&checked));
    }
}

/// apk-tools are in no Debian: what `apk mkpkg` is asked for is looked at instead.
#[test]
fn where_apk_tools_are_there_are_packages_for_apk_too() {
    if !have_tools() {
        return;
    }
    let ((programs, _), dir, out) = (small_programs(), TempDir::new(), TempDir::new());
    let recorded = dir.0.join("recorded");
    let stand_in = dir.write(
        "apk",
        format!(
            "#!/bin/sh\nset -e\n[ \"$1\" = mkpkg ]\n[ \"$2\" != --help ] || exit 0\nshift\nwhile [ $# -gt 0 ]; do\n\
             echo \"$1 $2\"\n\
             case $1 in\n\
             --script) sh -n \"${{2#*:}}\"; sed 's/^/script /' \"${{2#*:}}\" ;;\n\
             --files) (cd \"$2\" && find . -type f | sort && cat lib/apk/packages/*) ;;\n\
             --output) : >\"$2\" ;;\n\
             esac\nshift 2\ndone >>{}\n",
            recorded.display()
        ),
    );
    Command::new("chmod").arg("755").arg(stand_in).status().unwrap();
    let path = format!("{}:{}", dir.0.display(), std::env::var("PATH").unwrap());
    let built = Command::new(project().join("openwrt/build-ipk.sh"))
        .args([&programs.0, &out.0])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built));
    for package in ["calamary", "calamary-redirector", "luci-app-calamary"] {
        assert!(out.0.join(file_name(package, VERSION).replace(".ipk", ".apk")).exists(), "{package}");
        // The other kind of package knows nothing of apk's files.
        let checked = opkg(&["check", out.0.join(file_name(package, VERSION)).to_str().unwrap()]);
        assert!(checked.status.success(), "{package}: {}", text(&checked));
    }
    let recorded = std::fs::read_to_string(recorded).unwrap();
    for line in [
        "--info name:calamary",
        &format!("--info version:{VERSION}"),
        "--info depends:firewall4 kmod-nft-tproxy",
        "--info arch:noarch",
        "./lib/apk/packages/calamary.list",
        "./lib/apk/packages/calamary.rusers",
        "calamary=4128:calamary=4128",
        "/etc/calamary/config.yml",
        "script export PKG_UPGRADE=1",
        "script add_group_and_user",
        "script [ -n \"${IPKG_INSTROOT}\" ] || [ \"${PKG_UPGRADE}\" != 1 ] || /etc/init.d/calamary restart",
    ] {
        assert!(recorded.lines().any(|l| l == line), "no {line:?} in:\n{recorded}");
    }
}

#[test]
fn build_ipk_says_what_is_wrong() {
    let (dir, out) = (TempDir::new(), TempDir::new());
    std::fs::create_dir_all(dir.0.join("z80-unknown-cpm")).unwrap();
    dir.write("z80-unknown-cpm/calamary", "x");
    let script = project().join("openwrt");
    for (programs, words) in
        [(dir.0.join("nowhere"), "BINARY_DIR OUT_DIR"), (dir.0.clone(), "no name for z80-unknown-cpm")]
    {
        let output = build_packages(&script, &programs, &out.0);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
    }
}

/// The source of the packages as a later release has it: another configuration and another list.
fn next_release() -> TempDir {
    let dir = TempDir::new();
    let copied = Command::new("cp").arg("-R").arg(project().join("openwrt")).arg(&dir.0).status().unwrap();
    assert!(copied.success());
    let change = |file: &str, from: &str, to: &str| {
        let path = dir.0.join("openwrt").join(file);
        let content = std::fs::read_to_string(&path).unwrap();
        assert!(content.contains(from), "{file}");
        std::fs::write(&path, content.replace(from, to)).unwrap();
    };
    change("calamary/Makefile", "PKG_RELEASE:=1", "PKG_RELEASE:=2");
    change(
        "calamary/files/config.yml",
        "# Calamary on this router.",
        "# Calamary on this router, second release.",
    );
    change("calamary/files/lists/deny.txt", "blocked.example", "second.example");
    dir
}

#[test]
fn a_router_owner_installs_upgrades_and_removes_it_and_nothing_is_left() {
    let Some(router) = Router::new() else { return };
    let everything = || router.must(&["find", "/etc", "/usr", "/lib", "/var", "-xdev"]);
    let before = everything();
    router.install(&packages().join(file_name("calamary", VERSION)));
    assert!(router.read("etc/passwd").contains("\ncalamary:x:4128:4128:"), "{}", router.read("etc/passwd"));
    assert!(router.path("etc/rc.d/S21calamary").symlink_metadata().is_ok());
    assert!(!router.path("etc/uci-defaults/50-calamary").exists());
    // Nothing begins before the owner says so.
    assert_eq!((router.pid("calamary"), router.traces()), (None, String::new()));
    assert!(router.must(&["/usr/sbin/calamary", "--version"]).contains(env!("CARGO_PKG_VERSION")));
    let checked = router.must(&["/etc/init.d/calamary", "check"]);
    assert!(checked.contains("Config validated successfully") && !checked.contains("warning"), "{checked}");

    router.set("calamary", "main", "enabled", "1");
    router.edit("etc/calamary/config.yml", "rules:", "# mine\nrules:");
    router.write("etc/calamary/lists/mine.txt", "mine.example\n");
    router.init("calamary", "start");
    let first = router.pid("calamary").expect("it does not run");

    let (source, out) = (next_release(), TempDir::new());
    let built = build_packages(&source.0.join("openwrt"), programs(), &out.0);
    assert!(built.status.success(), "{}", text(&built));
    router.install(&out.0.join(file_name("calamary", &VERSION.replace("-r1", "-r2"))));
    let second = router.pid("calamary").expect("it does not run after the upgrade");
    assert_ne!(first, second, "the old program is still running");
    assert!(router.path("etc/rc.d/S21calamary").symlink_metadata().is_ok());
    assert!(router.read("etc/config/calamary").contains("option enabled '1'"));
    assert!(router.read("etc/calamary/config.yml").contains("# mine"));
    assert!(router.read("etc/calamary/config.yml-opkg").contains("second release"));
    assert!(router.read("etc/calamary/lists/deny.txt").contains("second.example"));
    router.wait_listening("calamary", 4129);

    router.remove("calamary");
    assert_eq!((router.pid("calamary"), router.traces()), (None, String::new()));
    let mut left: Vec<String> = everything().lines().map(str::to_string).collect();
    left.retain(|path| !before.lines().any(|old| old == path));
    // What the owner has changed is the owner's; no more than that, and the folders around it.
    let expected = "/etc/calamary /etc/calamary/config.yml /etc/calamary/config.yml-opkg /etc/calamary/lists \
                    /etc/calamary/lists/mine.txt /etc/config/calamary /etc/config/calamary-opkg";
    left.sort();
    assert_eq!(left, expected.split_whitespace().collect::<Vec<_>>());
}

/// What became of a connection to port 443 of a server that echoes.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Fate {
    /// The proxy's alert.
    Filtered,
    /// The server's echo of a name that the proxy does not let through.
    Direct,
    /// A reset, or nobody there.
    Refused,
}

fn fate(server: &str) -> Fate {
    let Ok(mut stream) = TcpStream::connect_timeout(&at(server, 443).parse().unwrap(), common::PATIENCE)
    else {
        return Fate::Refused;
    };
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let hello = hello("www.blocked.example");
    let mut answer = vec![0; ALERT_UNRECOGNIZED_NAME.len()];
    if stream.write_all(&hello).and_then(|()| stream.read_exact(&mut answer)).is_err() {
        return Fate::Refused;
    }
    if answer == ALERT_UNRECOGNIZED_NAME { Fate::Filtered } else { Fate::Direct }
}

/// The same for a datagram to port 443.
fn datagram_fate(server: &str) -> Fate {
    let socket = UdpSocket::bind(if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.connect(at(server, 443)).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    socket.send(b"not QUIC").unwrap();
    match socket.recv(&mut [0; 100]) {
        Ok(_) => Fate::Direct,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Fate::Refused,
        Err(e) => panic!("{e}"),
    }
}

fn datagram_echo(addr: String) {
    let socket = UdpSocket::bind(addr).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    });
}

/// A router whose owner has enabled the package and changed nothing else, and servers to talk to.
fn filtering() -> Option<(Router, Vec<Origin>)> {
    let router = Router::with("calamary")?;
    router.set("calamary", "main", "enabled", "1");
    router.init("calamary", "start");
    router.wait_listening("calamary", 4128);
    router.wait_listening("calamary", 4129);
    let servers = router.lab.server.run(|| {
        datagram_echo(at(SERVER4, 443));
        datagram_echo(at(SERVER6, 443));
        [SERVER4, SERVER6].map(|server| Origin::echo(at(server, 443)))
    });
    Some((router, servers.into()))
}

/// Changes options of `intercept` on a router at work.
fn reconfigure(router: &Router, options: &[(&str, &str)]) {
    for (option, value) in options {
        router.set("calamary", "intercept", option, value);
    }
    router.trigger("calamary", "calamary");
}

/// What becomes of clients' connections over IPv4 and over IPv6.
fn check(router: &Router, what: &str, v4: Fate, v6: Fate) {
    let seen = router.lab.client.run(|| [fate(SERVER4), fate(SERVER6)]);
    assert_eq!(
        seen,
        [v4, v6],
        "{what}\n{}\n{}",
        router.lab.router.sh("nft list ruleset; ip rule; ip -6 rule"),
        router.log("calamary")
    );
}

#[test]
fn traffic_of_the_lan_is_intercepted_and_the_rest_left_alone() {
    let Some((router, _servers)) = filtering() else { return };
    let lab = &router.lab;
    // Among the ports are those that servers of the outside connect from: answers of port forwards go to them.
    router.set("calamary", "intercept", "port", "443 30000-65535");
    for mode in ["tproxy", "redirect"] {
        reconfigure(&router, &[("mode", mode)]);
        check(&router, mode, Fate::Filtered, Fate::Filtered);
        router.wait_log(
            "calamary",
            &[&format!("{CLIENT4} => {}", at(SERVER4, 443)), "Denied", "name=www.blocked.example"],
        );

        // The router's own web interface, by its address in the LAN and by the one outside.
        let _interface = lab.router.run(|| Origin::echo("0.0.0.0:443"));
        for address in [ROUTER4, ROUTER_OUT4] {
            assert_eq!(lab.client.run(|| fate(address)), Fate::Direct, "{mode} {address}");
        }
        // A port forward from outside to a server in the LAN.
        let inside = lab.client.run(|| Origin::echo(at(CLIENT4, 443)));
        lab.server.run(|| {
            let mut stream = common::client::connect(at(ROUTER_OUT4, 8443));
            stream.write_all(b"from outside").unwrap();
            common::client::expect_bytes(&mut stream, b"from outside");
        });
        assert_eq!(inside.accepted(), 1, "{mode}");
        // Nobody in the LAN talks to the listeners themselves.
        let direct = lab
            .client
            .run(|| TcpStream::connect_timeout(&at(ROUTER4, 4128).parse().unwrap(), Duration::from_secs(1)));
        assert!(direct.is_err(), "{mode}: the listener answers a client that was not redirected");
        let guard = lab.router.sh("nft list chain inet calamary input");
        assert!(!guard.contains("packets 0 "), "{mode}: it was not this rule that refused\n{guard}");
    }
}

#[test]
fn a_killed_daemon_means_direct_traffic_or_none_as_its_owner_chose() {
    let Some((router, _servers)) = filtering() else { return };
    for (mode, on_failure, dead) in [
        ("tproxy", "open", Fate::Direct),
        ("tproxy", "closed", Fate::Refused),
        ("redirect", "open", Fate::Refused),
    ] {
        reconfigure(&router, &[("mode", mode), ("on_failure", on_failure), ("quic", "proxy")]);
        let what = format!("{mode} {on_failure}");
        let datagrams = || router.lab.client.run(|| [datagram_fate(SERVER4), datagram_fate(SERVER6)]);
        check(&router, &what, Fate::Filtered, Fate::Filtered);
        router.kill("calamary");
        check(&router, &format!("{what}, killed"), dead, dead);
        assert_eq!(datagrams(), [dead, dead], "{what}, killed");
        router.init("calamary", "start");
        router.wait_listening("calamary", 4129);
        check(&router, &format!("{what}, started again"), Fate::Filtered, Fate::Filtered);

        // A start that cannot succeed is no way around it, either.
        router.edit("etc/calamary/config.yml", "rules:", "rulez:");
        router.run(&["/etc/init.d/calamary", "restart"]);
        assert_eq!(router.pid("calamary"), None, "{what}");
        check(&router, &format!("{what}, refused configuration"), dead, dead);
        router.edit("etc/calamary/config.yml", "rulez:", "rules:");
        router.init("calamary", "start");
        router.wait_listening("calamary", 4129);
    }
}

#[test]
fn ipv6_and_quic_are_proxied_blocked_or_passed_as_its_owner_chose() {
    use Fate::{Direct, Filtered, Refused};
    let mut expected = [0, 0];
    let Some((router, _servers)) = filtering() else { return };
    for (mode, ipv6, quic, v6, [datagram4, datagram6]) in [
        ("tproxy", "proxy", "block", Filtered, [Refused, Refused]),
        ("redirect", "proxy", "pass", Filtered, [Direct, Direct]),
        ("tproxy", "block", "block", Refused, [Refused, Refused]),
        ("redirect", "block", "pass", Refused, [Direct, Direct]),
        ("tproxy", "pass", "block", Direct, [Refused, Direct]),
        ("redirect", "pass", "block", Direct, [Refused, Direct]),
        ("tproxy", "block", "proxy", Refused, [Direct, Refused]),
        ("tproxy", "pass", "proxy", Direct, [Direct, Direct]),
        ("tproxy", "proxy", "proxy", Filtered, [Direct, Direct]),
        // What only TPROXY can do is blocked, not passed.
        ("redirect", "proxy", "proxy", Filtered, [Refused, Refused]),
    ] {
        let options = [("mode", mode), ("ipv6", ipv6), ("quic", quic)];
        reconfigure(&router, &options);
        check(&router, &format!("{options:?}"), Filtered, v6);
        let datagrams = router.lab.client.run(|| [datagram_fate(SERVER4), datagram_fate(SERVER6)]);
        assert_eq!(datagrams, [datagram4, datagram6], "{options:?}");
        // The rules let in what is not QUIC; so the log tells whether it was asked.
        let asked = |server| {
            router
                .log("calamary")
                .lines()
                .filter(|l| l.contains(&format!("=> {} | Accept", at(server, 443))))
                .count()
        };
        let proxied = mode == "tproxy" && quic == "proxy";
        expected[0] += usize::from(proxied);
        expected[1] += usize::from(proxied && ipv6 == "proxy");
        router.wait(&format!("{expected:?} verdicts"), || [asked(SERVER4), asked(SERVER6)] == expected);
    }
}

#[test]
fn it_works_on_after_a_network_restart_and_a_firewall_reload() {
    let Some((router, _servers)) = filtering() else { return };
    for mode in ["tproxy", "redirect"] {
        reconfigure(&router, &[("mode", mode)]);
        // netifd takes rules and routes away, and says when the interface is up again.
        router.lab.router.sh(
            "for f in -4 -6; do ip $f rule del lookup 129; ip $f route flush table 129; done 2>/dev/null; true",
        );
        router.trigger("calamary", "interface.*.up");
        check(&router, &format!("{mode}, network restart"), Fate::Filtered, Fate::Filtered);
        router.must(&["/sbin/fw4", "reload"]);
        check(&router, &format!("{mode}, firewall reload"), Fate::Filtered, Fate::Filtered);
        router.must(&["/sbin/fw4", "restart"]);
        check(&router, &format!("{mode}, firewall restart"), Fate::Filtered, Fate::Filtered);
        // Nothing has changed: nothing is written or loaded, and the counters of the rules go on.
        let rules = router.path("var/run/calamary/fw4.nft").metadata().unwrap().modified().unwrap();
        router.init("calamary", "reload");
        assert_eq!(router.path("var/run/calamary/fw4.nft").metadata().unwrap().modified().unwrap(), rules);
    }
}

#[test]
fn a_zone_gets_its_devices_when_its_interface_comes_up() {
    let Some(router) = Router::with("calamary") else { return };
    router.set("calamary", "main", "enabled", "1");
    router.write("tmp/network", "");
    router.init("calamary", "start");
    router.wait_listening("calamary", 4129);
    assert_eq!(router.traces(), "", "rules without a device");
    router.write("tmp/network", "lan lan\n");
    router.trigger("calamary", "interface.*.up");
    let _server = router.lab.server.run(|| Origin::echo(at(SERVER4, 443)));
    assert_eq!(router.lab.client.run(|| fate(SERVER4)), Fate::Filtered);
}

#[test]
fn who_turns_it_off_finds_no_trace_of_it() {
    let Some((router, _servers)) = filtering() else { return };
    for (mode, off) in
        [("tproxy", "disable"), ("redirect", "disable"), ("tproxy", "stop"), ("tproxy", "only the firewall")]
    {
        router.set("calamary", "main", "enabled", "1");
        router.set("calamary", "intercept", "enabled", "1");
        router.set("calamary", "intercept", "mode", mode);
        router.init("calamary", "start");
        router.wait_listening("calamary", 4129);
        check(&router, mode, Fate::Filtered, Fate::Filtered);
        assert_ne!(router.traces(), "");
        match off {
            "disable" => router.set("calamary", "main", "enabled", "0"),
            "only the firewall" => router.set("calamary", "intercept", "enabled", "0"),
            _ => router.init("calamary", "stop"),
        }
        if off != "stop" {
            router.trigger("calamary", "calamary");
        }
        assert_eq!(router.traces(), "", "{mode} {off}");
        assert_eq!(router.pid("calamary").is_some(), off == "only the firewall", "{mode} {off}");
        check(&router, off, Fate::Direct, Fate::Direct);
    }
}

#[test]
fn a_reload_takes_what_is_right_and_keeps_what_runs_otherwise() {
    let Some((router, _servers)) = filtering() else { return };
    let pid = router.pid("calamary");
    router.edit("etc/calamary/config.yml", "rules:", "rulez:");
    let refused = router.run(&["/etc/init.d/calamary", "reload"]);
    assert!(!refused.status.success() && text(&refused).contains("refused"), "{}", text(&refused));
    assert!(text(&router.run(&["/etc/init.d/calamary", "check"])).contains("rulez"));
    check(&router, "a refused configuration", Fate::Filtered, Fate::Filtered);

    router.edit("etc/calamary/config.yml", "rulez:", "rules:");
    router.write("etc/calamary/lists/deny.txt", "other.example\n");
    router.init("calamary", "reload");
    router.wait_log("calamary", &["Reloaded"]);
    check(&router, "a changed list", Fate::Direct, Fate::Direct);
    assert_eq!(router.pid("calamary"), pid);

    for (section, option, value) in [
        ("intercept", "mode", "magic"),
        ("intercept", "port", "http"),
        ("intercept", "fwmark", "0x1; drop"),
        ("main", "enabled", "maybe"),
    ] {
        let config = router.read("etc/config/calamary");
        let rules = router.lab.router.sh("nft -s list table inet calamary");
        router.set("calamary", section, option, value);
        router.run(&["/etc/init.d/calamary", "reload"]);
        assert_eq!(router.lab.router.sh("nft -s list table inet calamary"), rules, "{option} {value}");
        assert_eq!(router.pid("calamary"), pid, "{option} {value}");
        router.write("etc/config/calamary", &config);
    }
    assert!(router.read("tmp/log/system").contains("section intercept is not valid"));
}

/// What ujail shows the daemon, and what procd does for it: nothing here can be seen from the daemon's behaviour, as the
/// stand-in has no jail.
#[test]
fn procd_is_asked_for_a_jail_and_for_restarts() {
    let Some((router, _servers)) = filtering() else { return };
    let record = router.record("calamary");
    for line in [
        "command /usr/sbin/calamary -f /etc/calamary/config.yml",
        "file /etc/calamary/lists/deny.txt",
        "reload_signal HUP",
        "respawn 3600 5 0",
        "user calamary",
        "no_new_privs 1",
        "capabilities /etc/capabilities/calamary.json",
        "jail calamary log procfs",
        "mount /etc/calamary /etc/ssl/certs /etc/hosts /etc/resolv.conf /tmp/resolv.conf /etc/TZ /tmp/TZ /tmp/dhcp.leases",
        "mount_rw /var/run/calamary-live",
    ] {
        assert!(record.lines().any(|l| l == line), "no {line:?} in:\n{record}");
    }
    // The stand-in does give it that user and those capabilities.
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", router.pid("calamary").unwrap())).unwrap();
    for line in [
        "Uid:\t4128\t4128\t4128\t4128",
        "CapEff:\t0000000000001400",
        "CapBnd:\t0000000000001400",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{status}");
    }
}

#[test]
fn the_redirector_is_a_package_of_its_own_with_the_same_script() {
    let Some(router) = Router::with("calamary-redirector") else { return };
    router.install(&packages().join(file_name("calamary", VERSION)));
    let lab = &router.lab;
    // The server of the fleet is a calamary beyond the router, on the machine that the client wants to go to.
    let config = "listen:\n  - {mode: proxyproto, ip4: ['203.0.113.8'], ip6: [], port: 4129, trusted: ['203.0.113.0/24']}\n\
                  output: {allowLocal: true}\n\
                  rules:\n  - {dns: .blocked.example, action: deny}\n  - {action: accept}\n";
    let server = lab.server.run(|| common::daemon::Daemon::start(config, &[4129]));
    router.edit("etc/calamary/redirector.yml", "192.0.2.1:4129", "203.0.113.8:4129");
    router.set("calamary-redirector", "main", "enabled", "1");
    router.init("calamary-redirector", "start");
    router.wait_listening("calamary-redirector", 4129);
    for address in [SERVER4, SERVER6] {
        assert_eq!(lab.client.run(|| fate(address)), Fate::Filtered, "{}", router.log("calamary-redirector"));
        server.wait_log(&["Denied", &format!("=> {}", at(address, 443))]);
    }
    router.remove("calamary-redirector");
    assert_eq!((router.pid("calamary-redirector"), router.traces()), (None, String::new()));
}

/// The blocks of docs/openwrt.md that are for the router's own shell, in their order.
fn blocks_of_the_page() -> Vec<String> {
    let page = std::fs::read_to_string(project().join("docs/openwrt.md")).unwrap();
    let blocks = page.split("```sh router\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

#[test]
fn the_page_takes_a_router_owner_to_a_filtered_lan_and_back() {
    let Some(router) = Router::with("calamary") else { return };
    let _servers = router.lab.server.run(|| [SERVER4, SERVER6].map(|server| Origin::echo(at(server, 443))));
    let blocks = blocks_of_the_page();
    let [on, closed, off] = &blocks[..] else { panic!("{blocks:#?}") };
    let run = |block: &str| router.must(&["/bin/sh", "-e", "-c", block]);
    check(&router, "installed", Fate::Direct, Fate::Direct);
    run(on);
    router.wait_listening("calamary", 4129);
    check(&router, on, Fate::Filtered, Fate::Filtered);
    run(closed);
    router.kill("calamary");
    check(&router, closed, Fate::Refused, Fate::Refused);
    run(off);
    check(&router, off, Fate::Direct, Fate::Direct);
    assert_eq!((router.pid("calamary"), router.traces()), (None, String::new()));
}

#[test]
fn every_script_is_one_for_busybox() {
    if !have_tools() {
        return;
    }
    let found =
        Command::new("find").args(["openwrt", "tests/openwrt", "-type", "f"]).current_dir(project()).output();
    let files = String::from_utf8(found.unwrap().stdout).unwrap();
    let is_script = |file: &&str| {
        std::fs::read(project().join(file)).unwrap().starts_with(b"#!/bin/sh")
            || file.starts_with("tests/openwrt/root/lib/")
    };
    let scripts: Vec<&str> = files.lines().filter(is_script).collect();
    assert!(scripts.len() >= 10, "{scripts:?}");
    for script in scripts {
        let output =
            Command::new("busybox").args(["ash", "-n"]).arg(project().join(script)).output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
    }
}
