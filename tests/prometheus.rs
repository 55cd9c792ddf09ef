//! `docs/prometheus-alerts.yml` and `docs/grafana.json` as a real Prometheus takes them: it checks the rules, scrapes a running
//! daemon, and knows every metric that they name.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::process::{Child, Command, Stdio};

use common::daemon::{Daemon, text};
use common::{TempDir, client, free_port, have, skip, wait_for};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/prometheus-alerts.yml");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json");

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every metric's name in a text: words of ours, and those that client libraries share.
fn metrics_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<String> = words
        .filter(|word| word.starts_with("calamary_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn prometheus_takes_the_rules_and_knows_what_they_and_the_dashboard_name() {
    if !have("promtool") || !have("prometheus") {
        return skip("needs prometheus");
    }
    let checked = Command::new("promtool").args(["check", "rules", ALERTS]).output().unwrap();
    assert!(checked.status.success() && text(&checked).contains("6 rules found"), "{}", text(&checked));

    let (port, metrics, web) = (free_port(), free_port(), free_port());
    let config = format!(
        "listen:\n  - {{mode: http, ip6: [], port: {port}}}\nmetrics: {{enabled: true, port: {metrics}}}\nrules: [{{action: deny}}]\n"
    );
    let _daemon = Daemon::start(&config, &[port, metrics]);
    let dir = TempDir::new();
    let scraped = dir.write(
        "prometheus.yml",
        format!(
            "global: {{scrape_interval: 1s}}\nrule_files: ['{ALERTS}']\nscrape_configs:\n  - job_name: calamary\n    static_configs: [{{targets: ['127.0.0.1:{metrics}']}}]\n"
        ),
    );
    let log = std::fs::File::create(dir.0.join("log")).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", scraped.display()))
        .arg(format!("--storage.tsdb.path={}", dir.0.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{web}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let stream = std::net::TcpStream::connect(("127.0.0.1", web)).ok()?;
        drop(stream);
        Some(client::ask_once(("127.0.0.1", web), request).text())
    };
    // Scraped, and the daemon is up by the first alert's own words.
    let named = metrics_in(&std::fs::read_to_string(ALERTS).unwrap());
    let shown = metrics_in(&std::fs::read_to_string(DASHBOARD).unwrap());
    assert!(named.len() >= 5 && shown.len() >= 7, "{named:?} {shown:?}");
    for name in named.iter().chain(&shown) {
        let query = format!("/api/v1/query?query={name}%7Bjob=%22calamary%22%7D");
        wait_for(name, || ask(&query).filter(|answer| answer.contains("\"__name__\"")));
    }
    let rules = ask("/api/v1/rules").unwrap();
    assert!(rules.contains("CalamaryDown") && !rules.contains("\"health\":\"err\""), "{rules}");
}
