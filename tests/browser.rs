//! A real browser through the HTTP proxy, in the clear and inside TLS, and through the SOCKS proxy.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::daemon::{Daemon, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, CLIENT6, DNS4, Lab, ROUTER4, ROUTER6, SERVER4, at};
use common::origin::HttpOrigin;
use common::tls::HttpsOrigin;
use common::{TempDir, have, skip};

#[test]
fn chromium_browses_through_the_http_proxy() {
    browse_through("http", "");
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
    browse_through("https", &trusted);
}

#[test]
fn chromium_browses_through_the_socks_proxy() {
    browse_through("socks5", "");
}

/// Through a proxy of this mode, over IPv4 and over IPv6.
fn browse_through(mode: &str, flag: &str) {
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
        "listen:\n  - {{mode: {mode}, ip4: ['{ROUTER4}'], ip6: ['{ROUTER6}'], port: 4130}}\n\
         dnsNameservers: ['{DNS4}']\ncerts:\n  serverPublic: {folder}/server.pem\n  \
         serverPrivate: {folder}/server.key\n\
         rules:\n  - {{dns: '*.blocked.example', action: deny}}\n  - {{dns: '.example.com', action: accept}}\n"
    );
    let daemon = lab.router.run(|| Daemon::start(&config, &[4130]));
    let browse = |router: &str, url: &str| {
        let home = TempDir::new();
        let output = lab.client.try_sh(&format!(
            "HOME={home} timeout 90 {program} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
             --disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable \
             --ignore-certificate-errors --user-data-dir={home}/profile --proxy-server='{mode}://{proxy}' \
             {flag} --dump-dom {url}",
            home = home.0.display(),
            proxy = at(router, 4130)
        ));
        text(&output)
    };

    for (client, router) in [(CLIENT4, ROUTER4), (CLIENT6, ROUTER6)] {
        let page = browse(router, "https://www.example.com/secure");
        assert!(page.contains("GET /secure HTTP/1.1 host=www.example.com"), "{router}: {page}");
        daemon.wait_log(&[
            &format!("{client} => {SERVER4}:443 | Accept | rule=1"),
            "proto=tls name=www.example.com",
        ]);
    }
    assert!(https.accepted() > 0);

    let page = browse(ROUTER4, "http://plain.example.com/plain");
    assert!(page.contains("GET /plain HTTP/1.1 host=plain.example.com"), "{page}");
    assert!(http.requests().iter().any(|r| r.line.contains("/plain")));

    let page = browse(ROUTER6, "https://x.blocked.example/never");
    assert!(!page.contains("GET /never"), "{page}");
    daemon.wait_log(&["Denied | rule=0", "name=x.blocked.example"]);
    assert!(https.requests().iter().all(|r| !r.line.contains("/never")));
}
