//! `docs/home.md` works as it stands there, with two devices in namespaces, at noon and at bedtime.
//!
//! Other than on the page are only the place of `/etc/calamary` and of the socket, the address of the client in a question,
//! and that `calamary` is this build.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::daemon::{Daemon, PROGRAM, text};
use common::lab::{CLIENT4, Lab, SERVER4, at};
use common::origin::Origin;
use common::tls::{ALERT_UNRECOGNIZED_NAME, hello};
use common::{TempDir, wait_for};

const PORT: u16 = 4128;
const TABLET: &str = "aa:bb:cc:dd:ee:01";
const LAPTOP: &str = "aa:bb:cc:dd:ee:02";

/// Longer than anything takes that happens.
const PATIENCE: Duration = Duration::from_secs(10);

/// The one block of its kind on the page.
fn block(kind: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/home.md");
    let page = std::fs::read_to_string(page).unwrap();
    let fenced = page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let mut found = fenced.filter(|(of, _)| *of == kind).map(|(_, body)| body.to_owned());
    let body = found.next().unwrap_or_else(|| panic!("no block {kind}"));
    assert!(found.next().is_none(), "two blocks {kind}");
    body
}

/// The household of the page.
struct Home {
    lab: Lab,
    dir: TempDir,
    _server: Origin,
}

impl Home {
    fn build() -> Option<Home> {
        let lab = Lab::build_or_skip()?;
        let dir = TempDir::new();
        let server = lab.server.run(|| Origin::echo(at(SERVER4, 443)));
        let home = Home { lab, dir, _server: server };
        home.run("lists");
        home.dir.write("config.yml", home.here(&block("yml")));
        let checked = home.run("check");
        assert!(checked.contains("tests: 3, all as expected"), "{checked}");
        home.lab.router.nft(&block("nft"));
        Some(home)
    }

    /// A text of the page, in this test's folder.
    fn here(&self, text: &str) -> String {
        let dir = self.dir.0.to_str().unwrap();
        text.replace("/etc/calamary", dir)
            .replace("live: true", &format!("live: '{dir}/live'"))
            .replace("192.168.1.20", CLIENT4)
    }

    fn try_run(&self, kind: &str) -> Output {
        let dir = self.dir.0.to_str().unwrap();
        let script = self.here(&block(&format!("sh {kind}")));
        let ours = format!("calamary() {{ {PROGRAM} -f {dir}/config.yml \"$@\"; }}");
        self.lab.router.try_sh(&format!("{ours}\n{script}"))
    }

    fn run(&self, kind: &str) -> String {
        let output = self.try_run(kind);
        assert!(output.status.success(), "{kind}: {}", text(&output));
        text(&output)
    }

    /// The daemon, where it is about this hour now.
    fn start_at(&self, hour: u64) -> Daemon {
        let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
        // The zone's sign is that of POSIX: west is positive.
        let zone = format!("HOME-{}", (hour + 24 - utc) % 24);
        let mut command = Command::new(PROGRAM);
        command.env("TZ", zone);
        let config = self.here(&block("yml"));
        self.lab.router.run(|| Daemon::start_by(command, &config, &[PORT]))
    }

    /// The client becomes this device, which the running program sees a moment later.
    fn becomes(&self, mac: &str, name: &str) {
        self.lab.client.sh(&format!("ip link set lan address {mac}"));
        self.lab.router.sh("ip neigh flush all");
        wait_for("the other device", || {
            self.reaches("nobody.example");
            text(&self.try_run("why")).contains(&format!("device: {name}\n")).then_some(())
        });
    }

    /// Whether the client reaches the server by this name.
    fn reaches(&self, name: &str) -> bool {
        let hello = hello(name);
        self.lab.client.run(|| {
            // What is denied before its first bytes is reset, perhaps before `connect` is back.
            let Ok(mut server) = TcpStream::connect(at(SERVER4, 443)) else { return false };
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            if server.write_all(&hello).is_err() {
                return false;
            }
            let mut answer = [0; 7];
            match server.read_exact(&mut answer) {
                Ok(()) if answer == ALERT_UNRECOGNIZED_NAME => false,
                Ok(()) => hello.starts_with(&answer),
                Err(_) => false,
            }
        })
    }
}

#[test]
fn ads_and_adult_sites_are_blocked_for_two_devices_and_it_is_told_why() {
    let Some(home) = Home::build() else { return };
    let daemon = home.start_at(12);
    for (mac, device) in [(TABLET, "tablet"), (LAPTOP, "laptop")] {
        home.becomes(mac, device);
        for name in ["banner.ads.example", "tracker.example", "www.adult.example"] {
            assert!(!home.reaches(name), "{device} {name}: {}", daemon.log());
            daemon.wait_log(&["| Denied | rule=1", &format!("device={device}"), &format!("name={name}")]);
        }
        assert!(home.reaches("www.example.com"), "{device}: {}", daemon.log());
        let why = home.try_run("why");
        assert_eq!(why.status.code(), Some(3), "{}", text(&why));
        assert!(text(&why).contains("banner.ads.example is in $ads ("), "{}", text(&why));
        assert!(text(&why).contains("ads.txt:1)"), "{}", text(&why));
        assert!(text(&why).contains(&format!("device: {device}")), "{}", text(&why));
    }
    assert!(home.run("connections").starts_with("DEVICE"));
    home.becomes("aa:bb:cc:dd:ee:03", "unknown");
    assert!(home.reaches("banner.ads.example"), "{}", daemon.log());
    daemon.wait_log(&["| Accept | rule=2", "device=unknown"]);
}

#[test]
fn at_bedtime_one_device_sleeps_unless_it_has_a_pass() {
    let Some(home) = Home::build() else { return };
    let daemon = home.start_at(23);
    home.becomes(LAPTOP, "laptop");
    assert!(home.reaches("www.example.com"), "{}", daemon.log());
    home.becomes(TABLET, "tablet");
    assert!(!home.reaches("www.example.com"), "{}", daemon.log());
    daemon.wait_log(&["| Denied | rule=0", "device=tablet"]);
    assert!(home.run("pass").contains("tablet may reach any for 30m"));
    assert!(home.reaches("www.example.com"), "{}", daemon.log());
    daemon.wait_log(&["| Accept | rule=pass", "device=tablet"]);
}
