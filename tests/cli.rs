//! The command line: every flag, every exit status, every complaint in words that help.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::process::Output;

use common::daemon::{Daemon, run, run_on, text};
use common::lab::Lab;
use common::{TempDir, free_port, have, skip};

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", text(output)))
}

#[test]
fn version_and_help() {
    for flag in ["-V", "--version"] {
        let output = run(&[flag]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("calamary {}\n", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(status(&output), 0);
    }
    for flag in ["-h", "--help"] {
        let output = run(&[flag]);
        assert_eq!(status(&output), 0);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for option in ["--config", "--validate", "--debug", "--version", "--help", "--why", "--print-config"]
        {
            assert!(help.contains(option), "{help}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for args in [&["--no-such-flag"][..], &["-f"], &["stray"], &["--why"]] {
        let output = run(args);
        assert_eq!(status(&output), 2, "{args:?}: {}", text(&output));
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
    }
}

#[test]
fn a_named_file_that_is_missing_is_exit_2() {
    for args in [&["-f", "/nonexistent/config.yml"][..], &["-f", "/nonexistent/config.yml", "-v"]] {
        let output = run(args);
        assert_eq!(status(&output), 2);
        assert!(text(&output).contains("/nonexistent/config.yml"), "{}", text(&output));
    }
}

#[test]
fn validation_says_so_and_binds_nothing() {
    let port = free_port();
    let config = format!("listen:\n  - {{mode: proxyproto, port: {port}}}\nrules:\n  - {{action: accept}}\n");
    let _running = Daemon::start(&config, &[port]);
    // Beside a running daemon on the same port.
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert!(text(&output).contains("Config validated successfully"), "{}", text(&output));
}

#[test]
fn a_second_daemon_on_the_port_is_exit_1() {
    for mode in ["http", "proxyproto", "transparent"] {
        let port = free_port();
        let config = format!("listen:\n  - {{mode: {mode}, port: {port}}}\nrules:\n  - {{action: accept}}\n");
        let _running = Daemon::start(&config, &[port]);
        let output = run_on(&config, &["-f", "{}"]);
        assert_eq!(status(&output), 1, "{}", text(&output));
        assert!(text(&output).contains(&port.to_string()), "{}", text(&output));
    }
}

#[test]
fn a_configuration_without_listeners_is_exit_2_and_without_rules_a_warning() {
    let output = run_on("rules:\n  - {action: accept}\n", &["-f", "{}", "-v"]);
    assert_eq!(status(&output), 2, "{}", text(&output));
    assert!(text(&output).contains("listen"), "{}", text(&output));
    let output = run_on("listen:\n  - {mode: http, port: 4130}\n", &["-f", "{}", "-v"]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert!(text(&output).contains("rules"), "{}", text(&output));
}

#[test]
fn every_problem_is_reported_with_place_path_and_nearest_spelling() {
    for (config, words) in [
        // An unknown key: line, column, path, the nearest one.
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - match:\n      prot: 443\n    action: deny\n",
            &["config.yml:5", "rules[0]", "prot", "port"][..],
        ),
        (
            "listen:\n  - {mode: htpp, port: 1}\nrules: []\n",
            &["config.yml:2", "listen[0].mode", "htpp", "http"],
        ),
        (
            "listen:\n  - {mode: http, port: 70000}\nrules: []\n",
            &["config.yml:2", "listen[0].port", "70000", "65535"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - {port: '80-x', action: deny}\n",
            &["config.yml:4", "rules[0]", "port", "80-x"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - {dest: 10.0.0.0/40, action: deny}\n",
            &["config.yml:4", "rules[0]", "dest", "10.0.0.0/40"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - {action: acept}\n",
            &["config.yml:4", "rules[0]", "acept", "accept"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - {dest: $lan, action: deny}\n",
            &["config.yml:4", "rules[0]", "lan"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nrules:\n  - {action: deny}\nrules:\n  - {action: deny}\n",
            &["rules"],
        ),
        (
            "listen:\n  - {mode: http, port: 1}\nvars:\n  - {name: a, value: [1]}\n  - {name: a, value: [2]}\nrules: []\n",
            &["config.yml:5", "a"],
        ),
        ("listen: [\n", &["config.yml"]),
    ] {
        let output = run_on(config, &["-f", "{}", "-v"]);
        assert_eq!(status(&output), 2, "{config}: {}", text(&output));
        for word in words {
            assert!(text(&output).contains(word), "no {word:?} in:\n{}\nfor:\n{config}", text(&output));
        }
    }
}

#[test]
fn all_problems_are_printed_not_only_the_first() {
    let config = "listen:\n  - {mode: http, port: 1}\nrules:\n  - {port: x1, action: deny}\n  - {dest: x2, action: deny}\n  - {action: x3}\n";
    let output = run_on(config, &["-f", "{}", "-v"]);
    assert_eq!(status(&output), 2);
    for word in ["rules[0]", "x1", "rules[1]", "x2", "rules[2]", "x3"] {
        assert!(text(&output).contains(word), "no {word:?} in:\n{}", text(&output));
    }
}

#[test]
fn the_same_thing_in_two_places_is_an_error() {
    let listen = "listen:\n  - {mode: http, port: 1}\n";
    for rest in [
        "service:\n  debug: true\ndebug: true\nrules: []\n",
        "rules: []\nservice:\n  rules: []\n",
        "rules:\n  - {match: {port: 1}, port: 2, action: deny}\n",
        "rules:\n  - {match: {action: deny}, action: accept}\n",
        "rules:\n  - {protoL4: tcp, protocol4: tcp, action: deny}\n",
    ] {
        let output = run_on(&format!("{listen}{rest}"), &["-f", "{}", "-v"]);
        assert_eq!(status(&output), 2, "{rest}: {}", text(&output));
    }
}

/// The sample of the original documentation, its two misplaced lines back under the listener.
const SAMPLE: &str = "---
service:
  listen:
    - mode: 'transparent'
      ip4: ['127.0.0.1'] # is default
      ip6: ['::1'] # is default
      port: 4128
      tcp: true
      udp: false # not yet implemented
      tproxy: false

  certs:
    serverPublic: '/tmp/calamary.crt'
    serverPrivate: '/tmp/calamary.key'
    interceptPublic: '/tmp/calamary.subca.crt'
    interceptPrivate: '/tmp/calamary.subca.key'

  dnsNameservers: ['1.1.1.1', '8.8.8.8']
  debug: false
  timeout: # ms
    connect: 2000
    process: 1000
    idle: 30000

  output:
    retries: 1 # connect-retries

  metrics:
    enabled: false
    port: 9512

vars:
  - name: 'net_private'
    value: ['192.168.0.0/16', '172.16.0.0/12', '10.0.0.0/8']
  - name: 'svc_http'
    value: [80, 443]

rules:
  - match:
      dest: '192.168.100.0/24'
      action: 'drop'

  - match:
      port: ['!443', '!80']
      action: 'drop'

  - match:
      src: '$net_private'
      dest: '$net_private'
      port: '$svc_http'
      protoL4: 'tcp'
      action: 'accept'

  - match:
      dest: '!$net_private'
      port: 443
      protoL4: 'tcp'
      action: 'accept'
";

/// The sample as it is printed: everything of `service` at the margin behind the page break.
fn sample_as_printed() -> String {
    let (service, rest) = SAMPLE.split_once("\n  certs:").unwrap();
    let (margin, rules) = rest.split_once("\nvars:").unwrap();
    let margin: Vec<&str> = margin.lines().map(|l| l.strip_prefix("  ").unwrap_or(l)).collect();
    format!("{service}\ncerts:{}\nvars:{rules}", margin.join("\n"))
}

#[test]
fn the_sample_of_the_original_documentation_works_and_means_what_it_says() {
    for config in [SAMPLE.to_string(), sample_as_printed()] {
        let output = run_on(&config, &["-f", "{}", "-v"]);
        assert_eq!(status(&output), 0, "{}\n{config}", text(&output));
        for (facts, code) in [
            ("src=192.168.1.2 dest=192.168.100.7 port=443 protoL4=tcp", 3),
            ("src=192.168.1.2 dest=192.168.2.7 port=443 protoL4=tcp", 0),
            ("src=192.168.1.2 dest=192.168.2.7 port=22 protoL4=tcp", 3),
            ("src=192.168.1.2 dest=198.51.100.7 port=443 protoL4=tcp", 0),
            ("src=192.168.1.2 dest=198.51.100.7 port=80 protoL4=tcp", 3),
        ] {
            let output = run_on(&config, &["-f", "{}", "--why", facts]);
            assert_eq!(status(&output), code, "{facts}: {}", text(&output));
        }
    }
}

#[test]
fn why_explains_and_exits_0_3_or_4() {
    let config = "listen:\n  - {mode: transparent, port: 4128}\nrules:\n  - {src: 192.168.1.66, action: deny}\n\
                  \x20 - {dns: '*.example.com', port: 443, action: deny}\n  - {encrypted: no, action: redirect}\n  - {protoL5: tls, action: accept}\n";
    for (facts, code, words) in [
        (
            "src=192.168.1.20 dest=203.0.113.5 port=443 dns=ads.example.com protoL5=tls",
            3,
            &["ads.example.com", "1"][..],
        ),
        ("src=192.168.1.20 dest=203.0.113.5 port=443 dns=www.example.org protoL5=tls", 0, &["accept"]),
        ("src=192.168.1.20 dest=203.0.113.5 port=443 dns=none protoL5=tls", 0, &["accept"]),
        ("src=192.168.1.20 dest=203.0.113.5 port=80 dns=none protoL5=http", 3, &["redirect"]),
        ("src=192.168.1.20 dest=203.0.113.5 port=443", 4, &["dns"]),
        ("dest=203.0.113.5 port=443 protoL5=tls dns=www.example.org", 4, &["src"]),
        ("src=192.168.1.66 dest=203.0.113.5 port=443", 3, &["deny"]),
        ("src=192.168.1.20 dest=127.0.0.1 port=443 dns=none protoL5=tls", 3, &["always"]),
    ] {
        let output = run_on(config, &["-f", "{}", "--why", facts]);
        assert_eq!(status(&output), code, "{facts}: {}", text(&output));
        for word in words {
            assert!(
                text(&output).to_lowercase().contains(word),
                "no {word:?} for {facts}:\n{}",
                text(&output)
            );
        }
    }
    for wrong in ["dest=nonsense", "colour=red", "port=99999", "src"] {
        let output = run_on(config, &["-f", "{}", "--why", wrong]);
        assert_eq!(status(&output), 2, "{wrong}: {}", text(&output));
    }
}

#[test]
fn why_takes_the_time_as_it_is_where_the_machine_is() {
    let rules = "listen:\n  - {mode: transparent, port: 4128}\nrules:\n  - {time: 'TIME', action: accept}\n";
    // A window that is open all week long but for a minute that was given.
    let now = rules.replace("TIME", "!wed 12:00-12:01");
    for (facts, code) in [("dest=203.0.113.5 time=wed-12:00", 3), ("dest=203.0.113.5 time=thu-12:00", 0)] {
        let output = run_on(&now, &["-f", "{}", "--why", facts]);
        assert_eq!(status(&output), code, "{facts}: {}", text(&output));
    }
    // What is not given is now: known, whatever it is.
    let any = rules.replace("TIME", "00:00-24:00");
    let output = run_on(&any, &["-f", "{}", "--why", "dest=203.0.113.5"]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert!(text(&output).contains("is in 00:00-24:00"), "{}", text(&output));
}

#[test]
fn a_configuration_that_fails_its_own_tests_is_refused() {
    let config = "listen:\n  - {mode: http, port: 4130}\nrules:\n  - {port: 443, action: accept}\ntests:\n  \
                  - {flow: 'dest=203.0.113.5 port=443', expect: accept}\n  - {flow: 'dest=203.0.113.5 port=80', expect: WHAT}\n";
    let good = run_on(&config.replace("WHAT", "deny"), &["-f", "{}", "-v"]);
    assert_eq!(status(&good), 0, "{}", text(&good));
    assert!(text(&good).contains("tests: 2, all as expected"), "{}", text(&good));
    for args in [&["-f", "{}", "-v"][..], &["-f", "{}"]] {
        let bad = run_on(&config.replace("WHAT", "accept"), args);
        assert_eq!(status(&bad), 2, "{}", text(&bad));
        let said = ":7:6: tests[1]: expected accept, but it is deny by default: no rule matches";
        assert!(text(&bad).contains(said), "{}", text(&bad));
    }
}

#[test]
fn why_names_the_list_and_the_line_of_a_hit() {
    let dir = TempDir::new();
    let list = dir.write(
        "ads.txt",
        "# ads\nfirst.example\n0.0.0.0 second.example\n||third.example^\n! comment\n192.0.2.0/24\n",
    );
    let config = format!(
        "listen:\n  - {{mode: http, port: 4130}}\nvars:\n  - {{name: ads, file: '{}'}}\nrules:\n  - {{dns: $ads, action: deny}}\n  - {{action: accept}}\n",
        list.display()
    );
    for (name, line) in [
        ("first.example", Some(2)),
        ("sub.second.example", Some(3)),
        ("third.example", Some(4)),
        ("fourth.example", None),
    ] {
        let facts = format!("src=10.0.0.1 dest=198.51.100.1 port=443 protoL5=tls dns={name}");
        let output = run_on(&config, &["-f", "{}", "--why", &facts]);
        match line {
            Some(line) => {
                assert_eq!(status(&output), 3, "{}", text(&output));
                assert!(text(&output).contains(&format!("ads.txt:{line}")), "{name}: {}", text(&output));
            }
            None => assert_eq!(status(&output), 0, "{}", text(&output)),
        }
    }
}

#[test]
fn a_long_list_shows_its_progress_on_a_terminal_only() {
    let dir = TempDir::new();
    let names: String = (0..200_000).map(|i| format!("host{i}.example\n")).collect();
    let list = dir.write("long.txt", format!("{names}@@||host7.example^\n||x^$popup\n"));
    let config = dir.write(
        "config.yml",
        format!(
            "listen:\n  - {{mode: http, port: 4130}}\nvars:\n  - {{name: ads, file: '{}'}}\nrules:\n  - {{dns: $ads, action: deny}}\n  - {{action: accept}}\n",
            list.display()
        ),
    );
    let plain = run(&["-f", config.to_str().unwrap(), "-v"]);
    assert_eq!(status(&plain), 0, "{}", text(&plain));
    let summary = "$ads: 200000 names and 0 addresses from";
    assert!(text(&plain).contains(summary) && text(&plain).contains("1 exceptions"), "{}", text(&plain));
    assert!(!text(&plain).contains("\x1b[K"), "{}", text(&plain));

    // util-linux: runs a command on a terminal of its own.
    let command = format!("{} -f {} -v", env!("CARGO_BIN_EXE_calamary"), config.display());
    if !have("script") {
        return skip("needs script");
    }
    let terminal =
        std::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    let shown = text(&terminal);
    assert!(shown.contains(summary), "{shown}");
    for part in ["\r\x1b[Kreading ", "line 65536", "\r\x1b[Kstoring "] {
        assert!(shown.contains(part), "no {part:?}: {shown}");
    }
    let last = shown.rfind("\x1b[K").unwrap();
    assert!(
        shown[last..].starts_with("\x1b[KConfig") || shown[last..].starts_with("\x1b[K\r"),
        "it stays: {shown}"
    );
}

#[test]
fn the_default_configuration_is_printed_commented_and_valid() {
    let output = run(&["--print-config"]);
    assert_eq!(status(&output), 0);
    let config = String::from_utf8(output.stdout).unwrap();
    for words in ["#", "4130", "4128", "*.blocked.example", "allowLocal: true"] {
        assert!(config.contains(words), "no {words:?} in:\n{config}");
    }
    let output = run_on(&config, &["-f", "{}", "-v"]);
    assert_eq!(status(&output), 0, "{}", text(&output));
}

#[test]
fn without_any_file_the_embedded_default_starts_and_says_how_to_try_it() {
    if std::path::Path::new("/etc/calamary/config.yml").exists() {
        return skip("needs a machine without /etc/calamary/config.yml");
    }
    // In a namespace: the default ports may be taken here.
    let Some(lab) = Lab::build_or_skip() else { return };
    if !have("curl") {
        return skip("needs curl");
    }
    lab.router.run(|| {
        let mut daemon = Daemon::spawn_without_file(&[]);
        daemon.wait_listening(&[4128, 4130]);
        let warning = daemon.wait_log(&["| WARN", "curl -x"]);
        assert!(warning.contains("4130"), "{warning}");
        let origin = common::origin::HttpOrigin::start("127.0.0.1:0");
        let url = format!("http://127.0.0.1:{}/hi", origin.port());
        let curl = |url: &str| {
            let args = ["-sS", "-m", "20", "-x", "http://127.0.0.1:4130", url];
            text(&std::process::Command::new("curl").args(args).output().unwrap())
        };
        let allowed = curl(&url);
        assert!(allowed.starts_with("GET /hi"), "{allowed}");
        let denied = curl("https://ads.blocked.example/");
        assert!(denied.contains("unrecognized name"), "{denied}");
        daemon.wait_log(&["| INFO | 127.0.0.1 => ? | Denied | rule=0", "name=ads.blocked.example"]);
        assert_eq!(daemon.stop().code(), Some(0));
    });
}

#[test]
fn debug_on_the_command_line_is_debug_in_the_file() {
    let port = free_port();
    let config = format!("listen:\n  - {{mode: http, port: {port}}}\nrules:\n  - {{action: deny}}\n");
    let daemon = Daemon::start_with(&config, &[port], &["-d"]);
    common::client::ask_once(("127.0.0.1", port), "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n");
    daemon.wait_log(&["| DEBUG |"]);
}

#[cfg(not(feature = "intercept"))]
#[test]
fn what_is_not_part_of_a_build_is_refused_by_name_instead_of_being_ignored() {
    let output = run_on(
        "listen:\n  - {mode: transparent, port: 4128}\nrules:\n  - {action: intercept}\n",
        &["-f", "{}", "-v"],
    );
    assert_eq!(status(&output), 2, "{}", text(&output));
    assert!(text(&output).contains("intercept"), "{}", text(&output));
}
