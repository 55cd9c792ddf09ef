//! A real browser through the HTTP proxy, in the clear and inside TLS, and through the SOCKS proxy.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

#[cfg(feature = "intercept")]
use std::io::Write as _;

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

#[test]
#[cfg(feature = "intercept")]
fn chromium_with_the_authority_imported_is_intercepted() {
    if !["chromium", "certutil"].into_iter().all(have) {
        return skip("needs chromium and certutil");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let _names = lab.server.run(|| NameServer::with("203.0.113.9:53", &[("www.example.com", &[SERVER4])]));
    let authority = common::authority::Authority::new();
    let tls = authority.issue("www.example.com").server();
    let origin = lab.server.run(|| {
        common::origin::Origin::serve(at(SERVER4, 443), move |stream| {
            let connection = rustls::ServerConnection::new(std::sync::Arc::clone(&tls)).unwrap();
            let mut stream = std::io::BufReader::new(rustls::StreamOwned::new(connection, stream));
            while let Some(request) = common::origin::Request::read(&mut stream) {
                let page = format!("<p>the server has seen {}</p>", request.line);
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length";
                let answer = format!("{head}: {}\r\n\r\n{page}", page.len());
                if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    });
    let (ca, home) = (TempDir::new(), TempDir::new());
    let made = common::daemon::run(&["--make-ca", ca.0.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    let config = format!(
        "listen:\n  - {{mode: http, ip4: ['{ROUTER4}'], ip6: [], port: 4130}}\ndnsNameservers: ['{DNS4}']\n\
         certs: {{interceptPublic: {ca}/ca.pem, interceptPrivate: {ca}/ca.key, caPublic: {root}}}\n\
         rules:\n  - {{path: '/ads*', action: deny}}\n  - {{action: intercept}}\n",
        ca = ca.0.display(),
        root = authority.root().display()
    );
    let daemon = lab.router.run(|| Daemon::start(&config, &[4130]));
    let browse = |path: &str| {
        let output = lab.client.try_sh(&format!(
            "HOME={home} timeout 90 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
             --user-data-dir={home}/profile --proxy-server='http://{proxy}' --dump-dom https://www.example.com{path}",
            home = home.0.display(),
            proxy = at(ROUTER4, 4130)
        ));
        text(&output)
    };
    // Without the authority it looks at nothing.
    let page = browse("/before");
    assert!(!page.contains("the server has seen"), "{page}");
    let imported = lab.client.try_sh(&format!(
        "mkdir -p {home}/.pki/nssdb && certutil -N --empty-password -d sql:{home}/.pki/nssdb && \
         certutil -A -n calamary -t C,, -d sql:{home}/.pki/nssdb -i {ca}/ca.pem",
        home = home.0.display(),
        ca = ca.0.display()
    ));
    assert!(imported.status.success(), "{}", text(&imported));
    let page = browse("/after");
    assert!(page.contains("the server has seen GET /after HTTP/1.1"), "{page}\n{}", daemon.log());
    let page = browse("/ads/1");
    assert!(page.contains("denied by the proxy's rules"), "{page}");
    daemon.wait_log(&["Denied | rule=0", "inside=http host=www.example.com path=/ads/1"]);
    assert!(origin.accepted() > 0);
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
