//! The live socket: the running program explains, shows its connections, and makes exceptions for a while.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::client::{ask_once, expect_bytes, tunnel};
use common::daemon::{Daemon, run, run_on, text};
use common::origin::Origin;
use common::{TempDir, free_port, wait_for};

/// A daemon with a live socket in a folder of its own.
struct Live {
    dir: TempDir,
    daemon: Daemon,
    port: u16,
    config: String,
}

impl Live {
    fn start(rules: &str) -> Live {
        let (dir, port) = (TempDir::new(), free_port());
        let socket = dir.write("x", "").with_file_name("live");
        let config = format!(
            "listen:\n  - {{mode: http, ip6: [], port: {port}}}\nlive: '{}'\noutput: {{allowLocal: true}}\n{rules}",
            socket.display()
        );
        let daemon = Daemon::start(&config, &[port]);
        Live { dir, daemon, port, config }
    }

    fn socket(&self) -> PathBuf {
        self.dir.write("x", "").with_file_name("live")
    }

    /// Runs the program with the daemon's configuration.
    fn ask(&self, args: &[&str]) -> Output {
        run_on(&self.config, &[&["-f", "{}"], args].concat())
    }

    fn status_of(&self, name: &str) -> u16 {
        let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        ask_once(("127.0.0.1", self.port), request).status
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

const RULES: &str = "rules:\n  - {dns: .blocked.test, action: deny}\n  - {action: accept}\n";

#[test]
fn the_running_program_explains_by_its_own_rules() {
    let live = Live::start(RULES);
    let facts = "src=127.0.0.1 dest=198.51.100.1 port=443 protoL5=tls dns=www.blocked.test";
    let denied = live.ask(&["--why", facts, "--live"]);
    assert_eq!(code(&denied), 3, "{}", text(&denied));
    assert!(text(&denied).contains("verdict: deny by rule 0"), "{}", text(&denied));
    // The file says something else by now, and nobody has told the program.
    let changed = live.config.replace("action: deny", "action: accept");
    let asked = run_on(&changed, &["-f", "{}", "--why", facts, "--live"]);
    assert_eq!(code(&asked), 3, "{}", text(&asked));
    assert_eq!(code(&run_on(&changed, &["-f", "{}", "--why", facts])), 0);
    let unknown = live.ask(&["--why", "dest=198.51.100.1", "--live"]);
    assert_eq!(code(&unknown), 4, "{}", text(&unknown));
    let wrong = live.ask(&["--why", "colour=red", "--live"]);
    assert_eq!(code(&wrong), 2, "{}", text(&wrong));
}

#[test]
fn live_connections_are_shown() {
    let live = Live::start(RULES);
    let origin = Origin::echo("127.0.0.1:0");
    let target = format!("127.0.0.1:{}", origin.port());
    let mut client = tunnel(("127.0.0.1", live.port), &target);
    client.write_all(b"hello").unwrap();
    expect_bytes(&mut client, b"hello");
    let table = wait_for("the row", || {
        let shown = live.ask(&["--connections"]);
        assert_eq!(code(&shown), 0, "{}", text(&shown));
        text(&shown).contains(&target).then(|| text(&shown))
    });
    let row = table.lines().find(|line| line.contains(&target)).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..8], ["-", "127.0.0.1", "-", &target, "Accept", "1", "5", "5"], "{table}");
    assert!(table.starts_with("DEVICE"), "{table}");
}

/// An exception goes with the rules of another configuration as with those of this one, for one device and one name.
#[test]
fn an_exception_lets_one_device_reach_one_name() {
    let live = Live::start(RULES);
    assert_eq!(live.status_of("www.blocked.test"), 403);
    let made = live.ask(&["--pass", "15m", "127.0.0.1", "blocked.test"]);
    assert_eq!(code(&made), 0, "{}", text(&made));
    // Nobody knows an address of it, but it may be looked for.
    assert!(matches!(live.status_of("www.blocked.test"), 502 | 504));
    live.daemon.reload(&live.config.replace("blocked.test, action", "test, action"));
    assert!(matches!(live.status_of("blocked.test"), 502 | 504));
    assert_eq!(live.status_of("other.test"), 403);
    let facts = "src=127.0.0.1 dest=198.51.100.1 port=443 protoL5=tls dns=blocked.test";
    let why = live.ask(&["--why", facts, "--live"]);
    assert_eq!(code(&why), 0, "{}", text(&why));
    assert!(text(&why).contains("accept by pass"), "{}", text(&why));

    for wrong in
        [&["--pass", "15m", "tv"][..], &["--pass", "soon", "tv", "a.test"], &["--pass", "1m", "tv", ".."]]
    {
        let refused = live.ask(wrong);
        assert_eq!(code(&refused), 2, "{wrong:?}: {}", text(&refused));
    }
}

/// What it accepts by an exception is called so in the log.
#[test]
fn the_log_names_the_exception() {
    let origin = Origin::echo("127.0.0.1:0");
    let live = Live::start("rules:\n  - {action: deny}\n");
    assert_eq!(code(&live.ask(&["--pass", "1h", "127.0.0.1", "any"])), 0);
    let _tunnel = tunnel(("127.0.0.1", live.port), &format!("127.0.0.1:{}", origin.port()));
    live.daemon.wait_log(&["| Accept | rule=pass "]);
    live.daemon.wait_log(&["Pass: 127.0.0.1 may reach any for 1h"]);
}

#[test]
fn the_socket_is_guarded_by_its_file() {
    let mut live = Live::start(RULES);
    let path = live.socket();
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o117, 0, "{:o}", file.permissions().mode());

    // Whoever says too much, or nothing, is let go, and the next is served.
    let mut silent = UnixStream::connect(&path).unwrap();
    let mut loud = UnixStream::connect(&path).unwrap();
    loud.write_all(&[b'x'; 5000]).unwrap();
    let mut answer = String::new();
    let _ = loud.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("2\n"), "{answer}");
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(code(&live.ask(&["--connections"])), 0);

    // Another one does not take it over; after a stop it is gone.
    let other = run_on(&live.config.replace(&live.port.to_string(), &free_port().to_string()), &["-f", "{}"]);
    assert_eq!(code(&other), 1, "{}", text(&other));
    assert!(text(&other).contains("cannot listen at"), "{}", text(&other));
    live.daemon.stop();
    assert!(!Path::new(&path).exists());
    let nobody = live.ask(&["--connections"]);
    assert_eq!(code(&nobody), 1, "{}", text(&nobody));
    assert!(text(&nobody).contains("live: true"), "{}", text(&nobody));
}

/// The time is that of the whole request: a client that always says a little more does not keep the others out.
#[test]
fn a_client_that_drips_is_let_go() {
    let live = Live::start(RULES);
    let mut client = UnixStream::connect(live.socket()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    wait_for("the end", || match client.write_all(b"x").and_then(|()| client.read(&mut [0; 64])) {
        Ok(_) => Some(()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(_) => Some(()),
    });
    assert_eq!(code(&live.ask(&["--connections"])), 0);
}

#[test]
fn a_killed_program_leaves_a_socket_that_is_in_nobodys_way() {
    let mut live = Live::start(RULES);
    live.daemon.signal(9);
    live.daemon.wait_exit(std::time::Duration::from_secs(10)).unwrap();
    assert!(live.socket().exists());
    let again = Daemon::start(&live.config, &[live.port]);
    assert_eq!(code(&live.ask(&["--connections"])), 0);
    drop(again);
}

#[test]
fn a_reload_moves_it_and_takes_it_away() {
    let live = Live::start(RULES);
    let (old, new) = (live.socket(), live.socket().with_file_name("moved"));
    let at = |path: &Path| live.config.replace(old.to_str().unwrap(), path.to_str().unwrap());
    let asks = |config: &str| code(&run_on(config, &["-f", "{}", "--connections"]));
    assert_eq!(asks(&live.config), 0);
    // One who is silent delays nothing.
    let silent = UnixStream::connect(&old).unwrap();
    live.daemon.reload(&at(&new));
    live.daemon.wait_count(1, &["Reloaded"]);
    assert_eq!((asks(&live.config), asks(&at(&new))), (1, 0));
    assert!(!old.exists());
    drop(silent);
    // Where it cannot be: nothing changes.
    live.daemon.rewrite(&at(&live.dir.0.join("missing/socket")));
    live.daemon.signal(1);
    live.daemon.wait_log(&["ERROR", "cannot listen at", "missing/socket"]);
    assert_eq!(asks(&at(&new)), 0);
    let off = live.config.replace("live:", "#");
    live.daemon.reload(&off);
    live.daemon.wait_count(2, &["Reloaded"]);
    assert!(!new.exists());
    live.daemon.reload(&live.config);
    live.daemon.wait_count(3, &["Reloaded"]);
    assert_eq!(asks(&live.config), 0);
}

#[test]
fn the_questions_do_not_mix() {
    for wrong in [&["--live"][..], &["--live", "--connections"], &["--connections", "--pass", "1m", "a", "b"]]
    {
        let output = run(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}: {}", text(&output));
    }
}
