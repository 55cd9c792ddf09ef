//! Rules of a household on a router: whose device a client is, by the kernel's neighbours and a leases file.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::client::ask_once;
use common::daemon::Daemon;
use common::lab::{CLIENT4, CLIENT6, Lab, ROUTER4, ROUTER6, SERVER4, at};
use common::origin::HttpOrigin;
use common::{have, skip, wait_for};

const PORT: u16 = 4130;
const TABLET: &str = "02:00:00:00:00:10";
const OTHER: &str = "02:00:00:00:00:11";
/// As the kernel of a client makes them anew each day (RFC 8981).
const PRIVATE6: &str = "fd00:77::abcd:1234";

const CONFIG: &str = "
listen:
  - {mode: http, ip4: ['0.0.0.0'], ip6: ['::'], port: 4130}
devices:
  leases: leases
  Tablet: '02:00:00:00:00:10'
rules:
  - {device: TABLET, port: 80, action: deny}
  - {mac: '02:00:00:00:00:10', port: 81, action: deny}
  - {device: phone, action: deny}
  - {device: ['!tablet', '!phone'], action: accept}
  - {port: 82, action: accept}
";

/// What the proxy answers a client of the lab, asked for this port of the server.
fn status(lab: &Lab, proxy: &str, port: u16) -> u16 {
    let request =
        format!("GET http://{}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", at(SERVER4, port));
    lab.client.run(|| ask_once(at(proxy, PORT), request).status)
}

#[test]
fn devices_are_known_by_their_neighbours_table_and_leases() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.client.sh(&format!("ip link set lan address {TABLET}"));
    let _origins: Vec<_> = lab
        .server
        .run(|| [80, 81, 82].into_iter().map(|port| HttpOrigin::start(at(SERVER4, port))).collect());
    let daemon = lab.router.run(|| Daemon::start(CONFIG, &[PORT]));

    // By its hardware address, over both families.
    for (client, proxy) in [(CLIENT4, ROUTER4), (CLIENT6, ROUTER6)] {
        assert_eq!(status(&lab, proxy, 80), 403);
        daemon.wait_log(&[client, "| Denied | rule=0", "device=tablet"]);
        assert_eq!(status(&lab, proxy, 81), 403);
        daemon.wait_log(&[client, "| Denied | rule=1", "device=tablet"]);
        assert_eq!(status(&lab, proxy, 82), 200);
        daemon.wait_log(&[client, "| Accept | rule=4", "device=tablet"]);
    }
    // An address that it makes up is its own, too.
    if have("curl") {
        lab.client.sh(&format!("ip addr add {PRIVATE6}/64 dev lan nodad"));
        let ask = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --interface {PRIVATE6} -x http://{} http://{SERVER4}/",
            at(ROUTER6, PORT)
        );
        assert_eq!(lab.client.sh(&ask), "403");
        daemon.wait_log(&[PRIVATE6, "| Denied | rule=0", "device=tablet"]);
    } else {
        skip("without curl nobody asks from a privacy address");
    }

    // Another device takes over the address: nobody knows it, until it has a lease.
    lab.client.sh(&format!("ip link set lan address {OTHER}"));
    lab.router.sh("ip neigh flush all");
    wait_for("the other device", || (status(&lab, ROUTER4, 80) == 200).then_some(()));
    daemon.wait_log(&[CLIENT4, "| Accept | rule=3", "device=unknown"]);
    std::fs::write(daemon.dir().join("leases"), format!("0 {OTHER} {CLIENT4} Phone *\n")).unwrap();
    wait_for("the lease", || (status(&lab, ROUTER4, 80) == 403).then_some(()));
    daemon.wait_log(&[CLIENT4, "| Denied | rule=2", "device=phone"]);
    // And back again: the neighbours are followed for ever, not once.
    lab.client.sh(&format!("ip link set lan address {TABLET}"));
    lab.router.sh("ip neigh flush all");
    wait_for("the first device", || {
        status(&lab, ROUTER4, 82);
        daemon.log().lines().last().is_some_and(|line| line.contains("device=tablet")).then_some(())
    });
}

/// Who is not asked for is not looked up: no thread, no field in the log.
#[test]
fn nobody_is_looked_up_where_no_rule_asks() {
    let config = "listen:\n  - {mode: http, ip6: [], port: PORT}\nrules:\n  - {action: deny}\n";
    let port = common::free_port();
    let config = config.replace("PORT", &port.to_string());
    let daemon = Daemon::start(&config, &[port]);
    let threads = |daemon: &Daemon| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let name =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.flatten().map(name).collect::<String>()
    };
    assert_eq!(
        ask_once(("127.0.0.1", port), "GET http://192.0.2.1/ HTTP/1.1\r\nHost: a\r\n\r\n").status,
        403
    );
    let line = daemon.wait_log(&["| Denied | rule=0"]);
    assert!(!line.contains("device="), "{line}");
    assert!(!threads(&daemon).contains("neighbours"), "{}", threads(&daemon));
    daemon.reload(&config.replace("{action", "{device: tv, action"));
    wait_for("the follower", || threads(&daemon).contains("neighbours").then_some(()));
}
