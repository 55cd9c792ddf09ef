//! SIGHUP and SIGTERM: what changes, what goes on, what ends.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::client::{End, Http, connect_via_proxy_header, expect_bytes, is_open, read_end};
use common::daemon::Daemon;
use common::dns::NameServer;
use common::origin::{Origin, finish};
use common::{TempDir, free_port, process, wait_for};

fn config(ports: &[u16], rules: &str) -> String {
    let listeners: String = ports.iter().map(|p| format!("  - {{mode: proxyproto, port: {p}}}\n")).collect();
    format!(
        "listen:\n{listeners}debug: true\noutput: {{allowLocal: true, retries: 0}}\ntimeout: {{drain: 1500}}\nrules:\n{rules}"
    )
}

const ACCEPT: &str = "  - {action: accept}\n";
const DENY: &str = "  - {action: deny}\n";

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn is_accepted(port: u16, origin: &Origin) -> bool {
    let mut stream = connect_via_proxy_header(at(port), origin.addr);
    if stream.write_all(b"?").is_err() {
        return false;
    }
    finish(&stream);
    read_end(&mut stream) == End::Closed(b"?".to_vec())
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported() {
    let port = free_port();
    let mut daemon = Daemon::start(&config(&[port], ACCEPT), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut old = connect_via_proxy_header(at(port), origin.addr);
    old.write_all(b"x").unwrap();
    expect_bytes(&mut old, b"x");

    for broken in [
        "listen: [",
        "listen:\n  - {mode: proxyproto, port: 99999}\nrules: []\n",
        "listen:\n  - {mode: proxyproto, port: 1}\nrules:\n  - {prot: 1, action: deny}\n",
        "rules:\n  - {action: deny}\n",
    ] {
        let before = daemon.count_log(&["| ERROR |"]);
        daemon.reload(broken);
        wait_for("an ERROR line", || (daemon.count_log(&["| ERROR |"]) > before).then_some(()));
        assert!(is_accepted(port, &origin), "{broken}");
        old.write_all(b"still").unwrap();
        expect_bytes(&mut old, b"still");
    }
    assert!(daemon.is_running());
}

#[test]
fn a_listener_that_cannot_be_bound_makes_the_whole_reload_void() {
    let (port, free) = (free_port(), free_port());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = Daemon::start(&config(&[port], ACCEPT), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    daemon.reload(&config(&[port, free, taken.local_addr().unwrap().port()], DENY));
    daemon.wait_log(&["| ERROR |"]);
    assert!(is_accepted(port, &origin), "new rules came with a configuration that cannot be served");
    assert!(!daemon.listens_on(free), "half of the new listeners came");
}

#[test]
fn new_rules_count_for_new_sessions_and_running_ones_keep_theirs() {
    let port = free_port();
    let daemon = Daemon::start(&config(&[port], ACCEPT), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut old = connect_via_proxy_header(at(port), origin.addr);
    old.write_all(b"x").unwrap();
    expect_bytes(&mut old, b"x");
    daemon.reload(&config(&[port], DENY));
    wait_for("the new rules", || (!is_accepted(port, &origin)).then_some(()));
    old.write_all(b"still").unwrap();
    expect_bytes(&mut old, b"still");
    daemon.reload(&config(&[port], ACCEPT));
    wait_for("the old rules", || is_accepted(port, &origin).then_some(()));
}

#[test]
fn a_changed_list_file_counts_from_the_next_reload_on_and_a_broken_one_never() {
    let (port, dir) = (free_port(), TempDir::new());
    let list = dir.write("list.txt", "192.0.2.1\n");
    let config = config(&[port], "  - {dest: $list, action: deny}\n  - {action: accept}\n")
        + &format!("vars: [{{name: list, file: '{}'}}]\n", list.display());
    let daemon = Daemon::start(&config, &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    assert!(is_accepted(port, &origin));

    dir.write("list.txt", "192.0.2.1\n127.0.0.0/8\n");
    assert!(is_accepted(port, &origin), "a list was read although nobody asked for it");
    daemon.reload(&config);
    wait_for("the new list", || (!is_accepted(port, &origin)).then_some(()));

    std::fs::remove_file(&list).unwrap();
    daemon.reload(&config);
    daemon.wait_log(&["| ERROR |", "list.txt", "cannot be read"]);
    assert!(!is_accepted(port, &origin), "the old list went with a reload that failed");

    dir.write("list.txt", "a.example\n");
    daemon.reload(&config);
    daemon.wait_log(&["| ERROR |", "holds names, and no address"]);
    assert!(!is_accepted(port, &origin));

    dir.write("list.txt", "192.0.2.1\n");
    daemon.reload(&config);
    wait_for("the mended list", || is_accepted(port, &origin).then_some(()));
}

#[test]
fn listeners_come_and_go_without_losing_a_connection() {
    let (stays, goes, comes) = (free_port(), free_port(), free_port());
    let mut daemon = Daemon::start(&config(&[stays, goes], ACCEPT), &[stays, goes]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut on_goes = connect_via_proxy_header(at(goes), origin.addr);
    on_goes.write_all(b"x").unwrap();
    expect_bytes(&mut on_goes, b"x");

    // Clients without a pause on the listener that stays.
    let done = AtomicBool::new(false);
    let (good, bad) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let counter = if is_accepted(stays, &origin) { &good } else { &bad };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..6 {
            let ports = if round % 2 == 0 { [stays, comes] } else { [stays, goes] };
            let gone = if round % 2 == 0 { goes } else { comes };
            daemon.reload(&config(&ports, ACCEPT));
            daemon.wait_listening(&ports);
            wait_for("the old listener to close", || (!daemon.listens_on(gone)).then_some(()));
        }
        daemon.reload(&config(&[stays, comes], ACCEPT));
        daemon.wait_listening(&[comes]);
        wait_for("the old listener to close", || (!daemon.listens_on(goes)).then_some(()));
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(bad.load(Ordering::SeqCst), 0, "of {} sessions", good.load(Ordering::SeqCst));
    assert!(good.load(Ordering::SeqCst) > 0);
    // A session over a listener that is gone goes on.
    on_goes.write_all(b"still").unwrap();
    expect_bytes(&mut on_goes, b"still");
    assert!(TcpStream::connect(at(goes)).is_err());
    assert!(is_accepted(comes, &origin));
}

#[test]
fn the_metrics_and_the_log_level_follow_a_reload() {
    let port = free_port();
    let daemon = Daemon::start(&config(&[port], ACCEPT).replace("debug: true\n", ""), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    assert!(is_accepted(port, &origin));
    assert_eq!(daemon.find_log(&["| DEBUG |"]), None);
    daemon.reload(&config(&[port], ACCEPT));
    wait_for("debug lines", || {
        is_accepted(port, &origin);
        daemon.find_log(&["| DEBUG |"])
    });
    let (first, second) = (free_port(), free_port());
    for metrics in [first, second] {
        daemon.reload(&format!("metrics: {{enabled: true, port: {metrics}}}\n{}", config(&[port], ACCEPT)));
        wait_for("the metrics", || daemon.listens_on(metrics).then_some(()));
        let answer = Http::connect(at(metrics)).ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        // What was counted before is not lost.
        assert!(!answer.text().contains("\ncalamary_req_tcp 0\n"), "{}", answer.text());
    }
    assert!(!daemon.listens_on(first));
    daemon.reload(&config(&[port], ACCEPT));
    wait_for("the end of the metrics", || (!daemon.listens_on(second)).then_some(()));
}

#[test]
fn a_change_of_workers_needs_a_restart_and_the_reload_says_so() {
    let port = free_port();
    let daemon = Daemon::start(&format!("workers: 1\n{}", config(&[port], ACCEPT)), &[port]);
    daemon.reload(&format!("workers: 2\n{}", config(&[port], ACCEPT)));
    let line = daemon.wait_log(&["restart"]);
    assert!(line.contains("workers"), "{line}");
}

#[test]
fn sigterm_drains_and_exits_0() {
    let port = free_port();
    let mut daemon = Daemon::start(&config(&[port], ACCEPT).replace("drain: 1500", "drain: 15000"), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut running = connect_via_proxy_header(at(port), origin.addr);
    running.write_all(b"x").unwrap();
    expect_bytes(&mut running, b"x");
    daemon.signal(libc::SIGTERM);
    wait_for("the listener to close", || TcpStream::connect(at(port)).is_err().then_some(()));
    assert!(daemon.is_running(), "it did not wait for the running session");
    running.write_all(b"last words").unwrap();
    expect_bytes(&mut running, b"last words");
    finish(&running);
    assert_eq!(read_end(&mut running), End::Closed(vec![]));
    // The last session is over: well before `drain`.
    let start = Instant::now();
    let status =
        daemon.wait_exit(Duration::from_secs(14)).expect("it did not exit when the last session was over");
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(14));
}

#[test]
fn a_second_signal_ends_the_drain() {
    for (first, second) in [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM)] {
        let port = free_port();
        let config = config(&[port], ACCEPT).replace("drain: 1500", "drain: 60000");
        let mut daemon = Daemon::start(&config, &[port]);
        let origin = Origin::echo("127.0.0.1:0");
        let mut running = connect_via_proxy_header(at(port), origin.addr);
        running.write_all(b"x").unwrap();
        expect_bytes(&mut running, b"x");
        daemon.signal(first);
        wait_for("the listener to close", || TcpStream::connect(at(port)).is_err().then_some(()));
        assert!(is_open(&mut running, Duration::from_millis(200)));
        daemon.signal(second);
        assert_eq!(daemon.wait_exit(common::PATIENCE).expect("it went on draining").code(), Some(0));
    }
}

#[test]
fn what_other_nameservers_said_is_forgotten() {
    let origin = common::origin::HttpOrigin::start("127.0.0.1:0");
    let servers = [(); 2].map(|()| NameServer::with("127.0.0.1:0", &[("a.example", &["127.0.0.1"])]));
    let port = free_port();
    let plan = |server: &NameServer| {
        let config = config(&[port], ACCEPT).replace("proxyproto", "http");
        format!("dnsNameservers: ['{}']\n{config}", server.addr)
    };
    let daemon = Daemon::start(&plan(&servers[0]), &[port]);
    let get = format!("GET http://a.example:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr().port());
    // More than there are workers, so that each has an answer to forget.
    let ask = || (0..40).for_each(|_| assert_eq!(Http::connect(at(port)).ask(&get).status, 200));
    ask();
    let asked = servers[0].asked("a.example");
    daemon.reload(&plan(&servers[1]));
    daemon.wait_log(&["Reloaded"]);
    ask();
    assert_eq!(servers[0].asked("a.example"), asked);
    assert!(servers[1].asked("a.example") > 0, "an answer of the old nameserver was used");
}

#[test]
fn sessions_that_do_not_end_are_cut_after_drain() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let port = free_port();
        let mut daemon = Daemon::start(&config(&[port], ACCEPT), &[port]);
        let origin = Origin::echo("127.0.0.1:0");
        let mut running = connect_via_proxy_header(at(port), origin.addr);
        running.write_all(b"x").unwrap();
        expect_bytes(&mut running, b"x");
        daemon.signal(signal);
        assert!(is_open(&mut running, Duration::from_millis(500)));
        let _ = read_end(&mut running);
        assert_eq!(daemon.wait_exit(common::PATIENCE).unwrap().code(), Some(0));
    }
}

#[test]
fn sigusr1_logs_the_live_connections() {
    let port = free_port();
    let daemon = Daemon::start(&config(&[port], ACCEPT).replace("debug: true\n", ""), &[port]);
    let origin = Origin::echo("127.0.0.1:0");
    let mut running = connect_via_proxy_header(at(port), origin.addr);
    running.write_all(b"x").unwrap();
    expect_bytes(&mut running, b"x");
    let to = format!("| INFO | 192.0.2.7 => {} | ", origin.addr);
    daemon.wait_log(&[&to, "Accept"]);
    assert_eq!(daemon.find_log(&["| Live |"]), None);
    daemon.signal(libc::SIGUSR1);
    let line = daemon.wait_log(&[&to, "| Live | mode=proxyproto rule=0 sport=51234 "]);
    assert!(line.contains(" sent=1 received=1 ms="), "{line}");
    running.write_all(b"y").unwrap();
    expect_bytes(&mut running, b"y");
}

#[test]
fn an_http_proxy_follows_new_rules_on_a_kept_connection() {
    // Requests are decided one by one, the second after a reload by the new rules at the latest: a connection that waits
    // for its next request may have got its rules when the last one ended.
    let port = free_port();
    let http = |rules: &str| config(&[port], rules).replace("proxyproto", "http");
    let daemon = Daemon::start(&http(ACCEPT), &[port]);
    let origin = common::origin::HttpOrigin::start("127.0.0.1:0");
    let mut kept = Http::connect(at(port));
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr());
    assert_eq!(kept.ask(&get).status, 200);
    daemon.reload(&http(DENY));
    wait_for("the new rules", || (Http::connect(at(port)).ask(&get).status == 403).then_some(()));
    assert!(matches!(kept.ask(&get).status, 200 | 403));
    assert_eq!(kept.ask(&get).status, 403);
}

/// The last thing in a reload that can fail: the thread that serves metrics.
#[test]
fn a_metrics_thread_that_cannot_start_voids_the_reload() {
    if !process::is_root() {
        return common::skip("needs root");
    }
    let (port, old, new) = (free_port(), free_port(), free_port());
    let with_metrics = |metrics: u16, rules: &str| {
        // A user of its own: only then do limits of processes count, and only this daemon's.
        let user = 60_000 + std::process::id() % 5_000;
        format!("{}user: {user}\nmetrics: {{enabled: true, port: {metrics}}}\n", config(&[port], rules))
    };
    let is_served = |metrics: u16| {
        Http::connect(("127.0.0.1", metrics)).ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    };
    let origin = Origin::echo("127.0.0.1:0");
    let threads = {
        let daemon = Daemon::start(&with_metrics(old, ACCEPT), &[port, old]);
        daemon.wait_log(&["Listening"]);
        daemon.status_field("Threads:")
    };
    // As many as it has, and not one more.
    let limit = format!("prlimit --nproc={threads} --pid $$");
    let mut daemon = Daemon::spawn_after(&limit, &with_metrics(old, ACCEPT));
    daemon.wait_listening(&[port, old]);
    wait_for("all threads", || (daemon.status_field("Threads:") == threads).then_some(()));
    daemon.reload(&with_metrics(new, DENY));
    daemon.wait_log(&["| ERROR |", "cannot serve metrics: Resource temporarily unavailable"]);
    daemon.wait_log(&["Not reloaded"]);
    assert!(is_served(old) && !daemon.listens_on(new));
    assert!(is_accepted(port, &origin));

    // Without the old one there is room for the new one.
    for (reloads, plan) in [config(&[port], ACCEPT), with_metrics(new, DENY)].into_iter().enumerate() {
        daemon.reload(&plan);
        wait_for("the reload", || (daemon.count_log(&["Reloaded"]) > reloads).then_some(()));
        wait_for("the old metrics to end", || (!daemon.listens_on(old)).then_some(()));
    }
    assert!(is_served(new));
    assert!(!is_accepted(port, &origin));
}
