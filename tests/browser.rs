//! A real browser through the HTTP proxy, in the clear and inside TLS, and through the SOCKS proxy.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, DNS4, Lab, ROUTER4, SERVER4, at};
use common::origin::HttpOrigin;
use common::tls::HttpsOrigin;
use common::{TempDir, have, skip};

#[test]
fn chromium_browses_through_the_http_proxy() {
    browse_through("{mode: http, ip4: ['{ip}'], ip6: [], port: 4130}", "http://{ip}:4130", "");
}

#[test]
#[cfg(feature = "tls")]
fn chromium_browses_through_the_proxy_inside_tls() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/certificates");
    let hash = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "openssl x509 -in {folder}/server.pem -pubkey -noout | openssl pkey -pubin -outform der | \
             openssl dgst -sha256 -binary | openssl base64"
        ))
        .output()
        .unwrap();
    // Chromium has no flag for one more root, but one for a key that it is to trust, of a proxy, too.
    let trusted =
        format!("--ignore-certificate-errors-spki-list={}", String::from_utf8_lossy(&hash.stdout).trim());
    browse_through("{mode: https, ip4: ['{ip}'], ip6: [], port: 4130}", "https://{ip}:4130", &trusted);
}

#[test]
fn chromium_browses_through_the_socks_proxy() {
    browse_through("{mode: socks5, ip4: ['{ip}'], ip6: [], port: 4130}", "socks5://{ip}:4130", "");
}

fn browse_through(listener: &str, proxy: &str, flag: &str) {
    let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|p| have(p))
    else {
        return skip("needs chromium");
    };
    let Some(lab) = Lab::build_or_skip() else { return };
    let _names = lab.server.run(|| {
        NameServer::with(
            "203.0.113.9:53",
            &[
                ("www.example.com", &[SERVER4]),
                ("x.blocked.example", &[SERVER4]),
                ("plain.example.com", &[SERVER4]),
            ],
        )
    });
    let https = lab.server.run(|| HttpsOrigin::start(at(SERVER4, 443)));
    let http = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/certificates");
    let config = format!(
        "listen:\n  - {}\ndnsNameservers: ['{DNS4}']\ncerts:\n  serverPublic: {folder}/server.pem\n  \
         serverPrivate: {folder}/server.key\n\
         rules:\n  - {{dns: '*.blocked.example', action: deny}}\n  - {{dns: '.example.com', action: accept}}\n",
        listener.replace("{ip}", ROUTER4)
    );
    let proxy = proxy.replace("{ip}", ROUTER4);
    let daemon = lab.router.run(|| Daemon::start(&config, &[4130]));
    let browse = |url: &str| {
        let home = TempDir::new();
        let output = lab.client.try_sh(&format!(
            "HOME={home} timeout 90 {program} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
             --disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable \
             --ignore-certificate-errors --user-data-dir={home}/profile --proxy-server={proxy} \
             {flag} --dump-dom {url}",
            home = home.0.display()
        ));
        text(&output)
    };

    let page = browse("https://www.example.com/secure");
    assert!(page.contains("GET /secure HTTP/1.1 host=www.example.com"), "{page}");
    daemon.wait_log(&[
        &format!("{CLIENT4} => {SERVER4}:443 | Accept | rule=1"),
        "proto=tls name=www.example.com",
    ]);
    assert!(https.accepted() > 0);

    let page = browse("http://plain.example.com/plain");
    assert!(page.contains("GET /plain HTTP/1.1 host=plain.example.com"), "{page}");
    assert!(http.requests().iter().any(|r| r.line.contains("/plain")));

    let page = browse("https://x.blocked.example/never");
    assert!(!page.contains("GET /never"), "{page}");
    daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);
    assert!(https.requests().iter().all(|r| !r.line.contains("/never")));
}
