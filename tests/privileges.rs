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

/// From one address to all and back: both sockets are there for a moment, which the kernel allows to one user only.
#[test]
fn a_reload_as_nobody_changes_the_address_on_a_port_that_root_bound() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let config = |ip: &str| {
        format!(
            "listen:\n  - {{mode: http, ip4: ['{ip}'], ip6: [], port: 4128}}\nuser: nobody\nrules:\n  - {{action: deny}}\n"
        )
    };
    let daemon = lab.router.run(|| Daemon::start(&config("127.0.0.1"), &[4128]));
    common::wait_for("the drop to nobody", || daemon.status_field("Uid:").starts_with("65534").then_some(()));
    for (round, ip) in ["0.0.0.0", "127.0.0.1", "0.0.0.0"].into_iter().enumerate() {
        daemon.reload(&config(ip));
        common::wait_for("the reload", || {
            assert_eq!(daemon.find_log(&["| ERROR |"]), None);
            (daemon.count_log(&["Reloaded"]) > round).then_some(())
        });
    }
}

#[test]
fn an_unknown_user_or_group_is_a_configuration_error() {
    let check = |key: &str, name: &str, args: &[&str]| {
        let config =
            format!("listen:\n  - {{mode: http, port: 4130}}\n{key}: {name}\nrules:\n  - {{action: deny}}\n");
        let output = run_on(&config, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(&format!("{key}: no {key} named {name}")), "{}", text(&output));
    };
    for args in [&["-f", "{}", "-v"][..], &["-f", "{}"]] {
        check("user", "no-such-user", args);
        check("group", "no-such-group", args);
    }
}

#[test]
fn a_file_that_the_user_cannot_read_again_is_found_at_validation_and_at_start() {
    use std::os::unix::fs::PermissionsExt;

    if !common::process::is_root() {
        return common::skip("needs root");
    }
    let dir = common::TempDir::new();
    let config = "listen:\n  - {mode: http, port: 4130}\nuser: nobody\nvars:\n  - {name: ads, file: list.txt}\n\
                  \x20 - {name: unused, file: unused.txt}\nrules:\n  - {dns: $ads, action: deny}\n";
    let files = [dir.write("config.yml", config), dir.write("list.txt", "ads.example\n")];
    let unused = dir.write("unused.txt", "ads.example\n");
    let mode = |file: &std::path::Path, mode| {
        std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(&unused, 0o600);
    for file in &files {
        files.iter().for_each(|other| mode(other, 0o644));
        mode(file, 0o600);
        for args in [&["-v"][..], &[]] {
            let args: Vec<&str> = ["-f", files[0].to_str().unwrap()].iter().chain(args).copied().collect();
            let output = common::daemon::run(&args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
            assert!(text(&output).contains(file.to_str().unwrap()), "{}", text(&output));
        }
    }
    files.iter().for_each(|other| mode(other, 0o644));
    let output = common::daemon::run(&["-f", files[0].to_str().unwrap(), "-v"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
