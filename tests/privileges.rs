//! Dropping root: another user after binding, only the capabilities that are needed, and the work still gets done.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;

use common::client::{connect, expect_bytes};
use common::daemon::{Daemon, run_on, text};
use common::lab::{Lab, SERVER4, SERVER6, at};
use common::origin::Origin;

const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;

#[test]
fn after_binding_the_daemon_is_nobody_and_tproxy_and_marks_still_work() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.tproxy("7000", 4128);
    let config = "listen:\n  - {mode: transparent, port: 4128, tproxy: true}\nuser: nobody\noutput: {fwmark: 7}\n\
                  rules:\n  - {port: '7000', action: accept}\n";
    let daemon = lab.router.run(|| Daemon::start(config, &[4128]));
    let ids =
        |field: &str| daemon.status_field(field).split_whitespace().next().unwrap().parse::<u32>().unwrap();
    common::wait_for("the drop to nobody", || (ids("Uid:") == 65534).then_some(()));
    assert_ne!(ids("Gid:"), 0);
    assert_eq!(
        daemon.status_field("Groups:").split_whitespace().find(|g| *g == "0"),
        None,
        "still in root's group"
    );
    let effective = u64::from_str_radix(&daemon.status_field("CapEff:"), 16).unwrap();
    let needed = CAP_NET_ADMIN | CAP_NET_RAW | CAP_NET_BIND_SERVICE;
    assert_eq!(effective & !needed, 0, "more capabilities than needed: {effective:x}");
    // All of the threads, not only the first.
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        assert!(status.lines().any(|l| l.starts_with("Uid:\t65534\t65534\t65534\t65534")), "{status}");
    }

    let _echo = lab.server.run(|| [Origin::echo(at(SERVER4, 7000)), Origin::echo(at(SERVER6, 7000))]);
    for server in [at(SERVER4, 7000), at(SERVER6, 7000)] {
        lab.client.run(|| {
            let mut stream = connect(&server);
            stream.write_all(b"ping").unwrap();
            expect_bytes(&mut stream, b"ping");
        });
    }

    // A reload binds a further listener, transparent and below 1024, as nobody.
    daemon.reload(&config.replace(
        "listen:\n",
        "listen:\n  - {mode: transparent, ip4: [127.0.0.1], ip6: [], port: 999, tproxy: true}\n",
    ));
    common::wait_for("the new listener", || daemon.listens_on(999).then_some(()));
}

#[test]
fn an_unknown_user_is_a_configuration_error() {
    let config = "listen:\n  - {mode: http, port: 4130}\nuser: no-such-user\nrules:\n  - {action: deny}\n";
    let output = run_on(config, &["-f", "{}", "-v"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("no-such-user"), "{}", text(&output));
}

#[test]
fn a_list_that_the_user_cannot_read_is_found_at_validation() {
    if !common::process::is_root() {
        return common::skip("needs root");
    }
    let dir = common::TempDir::new();
    let list = dir.write("list.txt", "ads.example\n");
    std::fs::set_permissions(&list, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = format!(
        "listen:\n  - {{mode: http, port: 4130}}\nuser: nobody\nvars:\n  - {{name: ads, file: '{}'}}\n\
         rules:\n  - {{dns: $ads, action: deny}}\n",
        list.display()
    );
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("list.txt"), "{}", text(&output));
}
