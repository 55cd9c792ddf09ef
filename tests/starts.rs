//! What a start needs of the machine, and that `-v` finds what would be missing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::process::Command;

use common::daemon::{Daemon, PROGRAM, run_on, text};
use common::lab::Lab;
use common::{free_port, process};

#[test]
fn a_machine_without_ipv6_starts_with_the_default_addresses() {
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.client.sh("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done");
    lab.client.run(|| {
        let mut daemon = Daemon::spawn_without_file(&[]);
        daemon.wait_listening(&[4128, 4130]);
        assert_eq!(daemon.count_log(&["WARN", "cannot listen on [::1]:4130"]), 1, "{}", daemon.log());
        assert_eq!(daemon.count_log(&["Listening", "[::1]"]), 0, "{}", daemon.log());

        // What the file names is wanted.
        let named = "listen:\n  - {mode: http, ip6: ['::1'], port: 4131}\nrules:\n  - {action: accept}\n";
        let output = run_on(named, &["-f", "{}", "-v"]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(
            text(&output).contains("listen[0].ip6: this machine has no address ::1"),
            "{}",
            text(&output)
        );
        // At boot an address may come later: that is no fault of the file, and a supervisor may try again.
        let output = run_on(named, &["-f", "{}"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("cannot listen on [::1]:4131"), "{}", text(&output));
        let named = "listen:\n  - {mode: http, ip6: ['::'], port: 4131}\nrules:\n  - {action: accept}\n";
        let _wildcard = Daemon::start(named, &[4131]);
    });
}

#[test]
fn what_this_machine_lacks_is_found_before_the_start() {
    let port = free_port();
    let wrong = |config: &str, words: &str, calls: &[&[&str]]| {
        let config = format!("{config}\nrules:\n  - {{action: accept}}\n");
        for args in calls {
            let output = run_on(&config, args);
            assert_eq!(output.status.code(), Some(2), "{config} {}", text(&output));
            let said = text(&output);
            assert!(said.contains(words) && said.contains("config.yml:"), "{words} in {said}");
        }
    };
    let validate: &[&str] = &["-f", "{}", "-v"];
    let check = |config: &str, words: &str| wrong(config, words, &[validate]);
    // What is wrong with the file itself is wrong at a start, too.
    let check_both = |config: &str, words: &str| wrong(config, words, &[validate, &["-f", "{}"]]);
    let good = format!("listen:\n  - {{mode: http, ip6: [], port: {port}}}");
    check(
        &format!(
            "listen:\n  - {{mode: http, ip4: [], port: 1}}\n  - {{mode: http, ip4: ['192.0.2.9'], port: {port}}}"
        ),
        "listen[1].ip4: this machine has no address 192.0.2.9",
    );
    check(
        &format!("{good}\nmetrics: {{enabled: true, ip: 192.0.2.9}}"),
        "metrics: this machine has no address 192.0.2.9",
    );
    check(
        &format!("{good}\noutput: {{interface: nosuch0}}"),
        "output.interface: this machine has no interface `nosuch0`",
    );
    check_both(&format!("{good}\nuser: nobody-at-all"), "user: no user named nobody-at-all");
    check_both(
        &format!("listen:\n  - {{mode: http, ip4: ['0.0.0.0', '127.0.0.1'], port: {port}}}"),
        "cannot both be bound",
    );
    // A firewall may send any address here.
    let tproxy = format!(
        "listen:\n  - {{mode: transparent, tproxy: true, ip4: ['192.0.2.9'], ip6: [], port: {port}}}\nrules: []\n"
    );
    let output = run_on(&tproxy, &["-f", "{}", "-v"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_user_may_be_a_number() {
    if !process::is_root() {
        return common::skip("needs root");
    }
    let port = free_port();
    let config = |user: &str| {
        format!(
            "listen:\n  - {{mode: http, ip6: [], port: {port}}}\nuser: {user}\nrules:\n  - {{action: accept}}\n"
        )
    };
    for (user, ids) in [("65534", "65534\t65534\t65534\t65534"), ("54321", "54321\t54321\t54321\t54321")] {
        let mut daemon = Daemon::start(&config(user), &[port]);
        assert_eq!(daemon.status_field("Uid:"), ids);
        assert_eq!(daemon.status_field("Gid:"), ids);
        daemon.stop();
    }
}

/// From loopback to all addresses and back is what people change.
#[test]
fn metrics_may_move_to_another_address_on_their_port() {
    let (port, metrics) = (free_port(), free_port());
    let config = |ip: &str| {
        format!(
            "listen:\n  - {{mode: http, ip6: [], port: {port}}}\nmetrics: {{enabled: true, ip: {ip}, port: {metrics}}}\nrules:\n  - {{action: accept}}\n"
        )
    };
    let daemon = Daemon::start(&config("127.0.0.1"), &[port, metrics]);
    for (round, ip) in ["0.0.0.0", "127.0.0.1"].into_iter().enumerate() {
        daemon.reload(&config(ip));
        common::wait_for("the reload", || (daemon.count_log(&["Reloaded"]) > round).then_some(()));
        let mut client = common::client::Http::connect(("127.0.0.1", metrics));
        assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    }
}

/// Each thing that a start needs is missed in turn: each time it says what, and ends with 1.
#[test]
fn a_start_that_runs_out_of_descriptors_is_exit_1_whatever_it_lacks() {
    let (port, metrics) = (free_port(), free_port());
    let dir = common::TempDir::new();
    let config = dir.write(
        "config.yml",
        format!(
            "listen:\n  - {{mode: http, ip4: [127.0.0.1, 127.0.0.2], ip6: [], port: {port}}}\nworkers: 1\n\
             metrics: {{enabled: true, port: {metrics}}}\nrules:\n  - {{action: accept}}\n"
        ),
    );
    let path = config.to_str().unwrap();
    let start = |descriptors: u32| {
        let script = format!("ulimit -n {descriptors}; exec timeout 1 {PROGRAM} -f {path}");
        Command::new("sh").arg("-c").arg(script).output().unwrap()
    };
    let mut said = Vec::new();
    // Fewer, and the loader does not find its libraries.
    for descriptors in 4..64 {
        let output = start(descriptors);
        // It has what it needs, and runs until `timeout` ends it.
        if output.status.code() == Some(124) {
            break;
        }
        assert_eq!(output.status.code(), Some(1), "{descriptors}: {}", text(&output));
        let line = text(&output);
        assert!(line.contains("Too many open files") && !line.contains("panicked"), "{descriptors}: {line}");
        said.push(line);
    }
    for lacking in [
        "cannot listen on",
        "cannot serve metrics on",
        "cannot make a worker",
        "cannot start the resolver",
        // Without them the `always` rule would let through what it is there for.
        "cannot read this machine's addresses",
    ] {
        assert!(said.iter().any(|line| line.contains(lacking)), "{lacking} in {said:#?}");
    }
}
