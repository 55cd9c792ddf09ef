//! `docs/redirect.md` works as it stands there: each way is set up, sends real traffic through, and leaves nothing behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::client::{connect, expect_bytes};
use common::daemon::{Daemon, text};
use common::lab::{
    CLIENT4, CLIENT6, Lab, Ns, ROUTER_OUT4, ROUTER_OUT6, ROUTER4, ROUTER6, SERVER4, SERVER6, at,
};
use common::origin::{HttpOrigin, Origin};
use common::{have, process, skip};

const PORT: u16 = 4128;

/// The fenced blocks under a heading of the page: what stands behind the fence, and the text.
fn section(heading: &str) -> Vec<(String, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redirect.md");
    let page = std::fs::read_to_string(page).unwrap();
    let start = format!("\n## {heading}\n");
    let from = page.find(&start).unwrap_or_else(|| panic!("no section {heading}")) + start.len();
    let section = page[from..].split("\n## ").next().unwrap();
    let fenced = section.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').map(|(l, b)| (l.to_string(), b.to_string())).unwrap()).collect()
}

/// The one block of its kind under a heading.
fn block(heading: &str, kind: &str) -> Option<String> {
    let mut of_kind = section(heading).into_iter().filter(|(k, _)| k == kind);
    let found = of_kind.next().map(|(_, body)| body);
    assert!(of_kind.next().is_none(), "two blocks {kind} in {heading}");
    found
}

/// Whose connections are taken.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Clients,
    Routers,
}

/// Every rule, chain of our own, table, policy rule and route that a page's commands could leave behind.
fn state(router: &Ns, by: &str) -> String {
    let firewall = if by == "nft" {
        "nft list ruleset".to_string()
    } else {
        // The built-in chains stay once they were looked at.
        "for save in iptables-save ip6tables-save; do $save | grep -e ^-A -e '^:CALAMARY' || true; done"
            .to_string()
    };
    router.sh(&format!(
        "{firewall}; for f in -4 -6; do ip $f rule; ip $f route show table 100 2>/dev/null || true; done"
    ))
}

/// Sets a section up with nftables or iptables, lets `whose` connections through, and takes it away.
fn works(heading: &str, whose: Whose) {
    for by in ["nft", "iptables"] {
        if !have("curl") || (by == "iptables" && !have("iptables")) {
            skip(&format!("needs curl and {by}"));
            continue;
        }
        let Some(lab) = Lab::build_or_skip() else { return };
        let run = |kind: &str| match block(heading, kind) {
            Some(script) => drop(lab.router.sh(&format!("set -e\n{script}"))),
            None => assert_eq!(kind.split(' ').next_back(), Some("ip"), "no {kind} in {heading}"),
        };
        let before = state(&lab.router, by);
        if by == "nft" {
            lab.router.nft(&block(heading, "nft").unwrap());
        } else {
            run("sh iptables");
        }
        run("sh ip");
        assert_ne!(state(&lab.router, by), before);
        let daemon = lab.router.run(|| Daemon::start(&block(heading, "yaml").unwrap(), &[PORT]));
        let servers = [SERVER4, SERVER6];
        let origins = lab.server.run(|| servers.map(|server| HttpOrigin::start(at(server, 80))));
        let own = lab.router.run(|| [ROUTER4, ROUTER6].map(|addr| Origin::banner(at(addr, 443), "own\n")));
        let (asks, addresses) = match whose {
            Whose::Clients => (&lab.client, [CLIENT4, CLIENT6]),
            Whose::Routers => (&lab.router, [ROUTER_OUT4, ROUTER_OUT6]),
        };
        let curl = |server: &str| {
            let output = asks.try_sh(&format!("curl -sS -m 20 --noproxy '*' http://{}/x", at(server, 80)));
            assert!(output.status.success(), "{heading}, {by}: {}\n{}", text(&output), daemon.log());
            assert!(text(&output).starts_with("GET /x HTTP/1.1"), "{}", text(&output));
        };
        for (server, address) in servers.into_iter().zip(addresses) {
            curl(server);
            daemon.wait_log(&[&format!("| {address} => {} | Accept | rule=0", at(server, 80))]);
        }
        // What is meant for the router itself is not taken away.
        for addr in [ROUTER4, ROUTER6] {
            asks.run(|| expect_bytes(&mut connect(at(addr, 443)), b"own\n"));
        }
        assert_eq!(own[0].accepted() + own[1].accepted(), 2);
        // No loop: it would need no time at all.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(daemon.count_log(&["| Accept |"]), servers.len(), "{heading}, {by}: {}", daemon.log());
        assert_eq!(daemon.count_log(&["| Denied |"]), 0, "{heading}, {by}: {}", daemon.log());

        run(&format!("sh undo {by}"));
        run("sh undo ip");
        assert_eq!(state(&lab.router, by), before, "{heading}, {by}");
        drop(daemon);
        // Without rules and without calamary everything goes as before.
        for server in servers {
            let output = asks.try_sh(&format!("curl -sS -m 20 --noproxy '*' http://{}/x", at(server, 80)));
            assert!(output.status.success(), "{heading}, {by}: {}", text(&output));
        }
        assert_eq!(origins.iter().map(HttpOrigin::accepted).sum::<usize>(), 4);
    }
}

#[test]
fn forwarded_by_redirect() {
    works("Forwarded, REDIRECT", Whose::Clients);
}

#[test]
fn forwarded_by_tproxy() {
    works("Forwarded, TPROXY", Whose::Clients);
}

#[test]
fn output_by_redirect_told_apart_by_user() {
    works("Output, REDIRECT, told apart by user", Whose::Routers);
}

#[test]
fn output_by_redirect_told_apart_by_mark() {
    works("Output, REDIRECT, told apart by mark", Whose::Routers);
}

#[test]
fn output_by_tproxy() {
    works("Output, TPROXY", Whose::Routers);
}

/// The page says that a rule which does not leave calamary out does no harm but lets nothing through.
#[test]
fn without_loop_prevention_nothing_works_and_nothing_spins() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let heading = "Output, REDIRECT, told apart by mark";
    let rules = block(heading, "nft").unwrap();
    let careless = rules.replace("        meta mark 42 return\n", "");
    assert_ne!(rules, careless);
    lab.router.nft(&careless);
    let config = block(heading, "yaml").unwrap().replace("  fwmark: 42\n", "  fwmark: 42\n  retries: 0\n");
    let daemon = lab.router.run(|| Daemon::start(&config, &[PORT]));
    let origin = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let output = lab.router.try_sh(&format!("curl -sS -m 20 --noproxy '*' http://{}/", at(SERVER4, 80)));
    assert!(!output.status.success(), "{}", text(&output));
    daemon.wait_log(&["Denied", "rule=always"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.count_log(&["| Accept |"]), 1, "{}", daemon.log());
    assert_eq!(origin.accepted(), 0);
}

/// The unit, and the one in `docs/`, as systemd reads them; only the program's path is one that exists here.
#[test]
fn systemd_accepts_the_units() {
    if !have("systemd-analyze") {
        return skip("needs systemd-analyze");
    }
    let whole =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/calamary.service")).unwrap();
    let dir = common::TempDir::new();
    let verify = |unit: &str| {
        let path = dir.write("calamary.service", unit.replace("/usr/bin/calamary", "/bin/true"));
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap();
        (output.status.success(), text(&output))
    };
    let part = block("Without root", "ini").unwrap();
    for unit in [&whole, &part] {
        let (fine, said) = verify(unit);
        assert!(fine && said.is_empty(), "{said}");
    }
    // What the page has is in the whole unit, too, and a mistake would be found.
    for line in part.lines().filter(|line| !line.starts_with("ExecStart=")) {
        assert!(whole.lines().any(|l| l == line), "{line}");
    }
    let (_, said) = verify(&part.replace("AmbientCapabilities", "AmbientCapability"));
    assert!(said.contains("AmbientCapability"), "{said}");
}

/// The capabilities of the file are enough for an ordinary user.
#[test]
fn the_program_with_capabilities_needs_no_root() {
    if !process::is_root() || !have("setcap") || !have("setpriv") {
        return skip("needs root and setcap");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let dir = common::TempDir::new();
    let program = dir.0.join("calamary");
    std::fs::copy(common::daemon::PROGRAM, &program).unwrap();
    let script = block("Without root", "sh setcap").unwrap();
    let script = script.replace("/usr/bin/calamary", program.to_str().unwrap());
    let output = Command::new("sh").arg("-ec").arg(&script).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let heading = "Output, TPROXY";
    let config = dir.write("config.yml", block(heading, "yaml").unwrap());
    let start = |program: &std::path::Path| {
        let command = format!(
            "timeout 2 setpriv --reuid=proxy --regid=proxy --clear-groups --inh-caps=-all {} -f {}",
            program.display(),
            config.display()
        );
        text(&lab.router.try_sh(&command))
    };
    assert!(start(&program).contains("Listening: transparent on [::1]:4128"), "{}", start(&program));
    let bare = dir.0.join("bare");
    std::fs::copy(common::daemon::PROGRAM, &bare).unwrap();
    assert!(
        start(&bare).contains("not permitted (tproxy needs CAP_NET_ADMIN or CAP_NET_RAW"),
        "{}",
        start(&bare)
    );
}
