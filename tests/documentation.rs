//! The documentation is true where a machine can tell: snippets load, samples validate, links lead somewhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use calamary::session::CloseReason;
use common::client::Http;
use common::daemon::{Daemon, REDIRECTOR, run_on, run_program_on, text};
use common::dns::NameServer;
use common::lab::{CLIENT4, CLIENT6, DNS4, Lab, ROUTER_OUT4, ROUTER_OUT6, ROUTER4, SERVER4, SERVER6, at};
use common::origin::{HttpOrigin, Origin};
use common::tls::HttpsOrigin;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [root(), root().join("docs"), root().join("docs/modes")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.sort();
    pages
}

/// The fenced blocks of a language: page and first line, and the text.
fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for page in pages() {
        let content = std::fs::read_to_string(&page).unwrap();
        let mut block: Option<(usize, String)> = None;
        for (number, line) in content.lines().enumerate() {
            match &mut block {
                Some((start, body)) if line.trim_end() == "```" => {
                    found.push((format!("{}:{start}", page.display()), std::mem::take(body)));
                    block = None;
                }
                Some((_, body)) => {
                    body.push_str(line);
                    body.push('\n');
                }
                None if line.trim_end() == format!("```{language}") => {
                    block = Some((number + 2, String::new()))
                }
                None => {}
            }
        }
    }
    found
}

#[test]
fn every_nftables_snippet_loads() {
    let found = blocks("nft");
    assert!(found.len() >= 3, "{} snippets", found.len());
    for (place, snippet) in found {
        let Some(lab) = Lab::build_or_skip() else { return };
        if let Err(error) = lab.router.try_nft(&snippet) {
            panic!("{place}\n{snippet}\n{error}");
        }
    }
}

#[test]
fn every_routing_snippet_runs() {
    let found = blocks("sh ip");
    assert!(!found.is_empty());
    for (place, snippet) in found {
        let Some(lab) = Lab::build_or_skip() else { return };
        let output = lab.router.try_sh(&format!("set -e\n{snippet}"));
        assert!(output.status.success(), "{place}\n{snippet}\n{}", text(&output));
    }
}

#[test]
fn the_page_about_transparent_mode_works_step_by_step() {
    if !common::have("curl") {
        return common::skip("needs curl");
    }
    let on_page = |language| {
        let of_page =
            blocks(language).into_iter().filter(|(place, _)| place.contains("modes/transparent.md"));
        of_page.map(|(_, body)| body).collect::<Vec<String>>()
    };
    let (configs, rules, routes) = (on_page("yaml"), on_page("nft"), on_page("sh ip"));
    // First REDIRECT, then TPROXY, as the page has them.
    for way in 0..2 {
        let Some(lab) = Lab::build_or_skip() else { return };
        lab.router.nft(&rules[way]);
        if way == 1 {
            lab.router.sh(&routes[0]);
        }
        let daemon = lab.router.run(|| Daemon::start(&configs[way], &[4128]));
        for server in [SERVER4, SERVER6] {
            let _https = lab.server.run(|| HttpsOrigin::start(at(server, 443)));
            let target = at(server, 443);
            let output = lab
                .client
                .try_sh(&format!("curl -sSk -m 20 --connect-to '::{target}' https://www.example.com/x"));
            assert!(output.status.success(), "{}\n{}", text(&output), daemon.log());
            daemon.wait_log(&[&format!("=> {target} | Accept")]);
        }
        if way == 0 {
            // The filter of the snippet: the listener is not reached directly.
            let direct = format!("curl -sS -m 2 http://{ROUTER4}:4128/");
            assert_eq!(lab.client.try_sh(&direct).status.code(), Some(28));
        }
    }
}

/// The first block of a language on a page.
fn first_on(page: &str, language: &str) -> String {
    let mut found = blocks(language).into_iter().filter(|(place, _)| place.contains(page));
    found.next().unwrap_or_else(|| panic!("no {language} in {page}")).1
}

#[test]
fn the_page_about_the_http_proxy_works_as_printed() {
    if !common::have("curl") {
        return common::skip("needs curl");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let here = |text: String| text.replace("192.168.1.", "192.168.77.");
    let config = here(first_on("modes/http.md", "yaml")) + "dnsNameservers: ['203.0.113.9']\n";
    let daemon = lab.router.run(|| Daemon::start(&config, &[4130]));
    let names: &[(&str, &[&str])] = &[("www.example.com", &[SERVER4]), ("www.blocked.example", &[SERVER4])];
    let _names = lab.server.run(|| NameServer::with(&at(DNS4, 53), names));
    let _https = lab.server.run(|| HttpsOrigin::start(at(SERVER4, 443)));
    let _http = lab.server.run(|| HttpOrigin::start(at(SERVER4, 80)));
    let dir = common::TempDir::new();
    dir.write(".curlrc", "insecure\nsilent\nshow-error\nmax-time = 20\n");
    let run = |command: &str| {
        text(&lab.client.try_sh(&format!("CURL_HOME={}; export CURL_HOME; {command}", dir.0.display())))
    };
    let commands = here(first_on("modes/http.md", "sh curl"));
    assert_eq!(commands.lines().count(), 3);
    for command in commands.lines() {
        let said = run(command);
        assert!(said.contains("GET / HTTP/1.1 host=www.example.com"), "{command}: {said}\n{}", daemon.log());
        let said = run(&command.replace("www.example.com", "www.blocked.example"));
        assert!(said.contains("unrecognized name") || said.contains("denied by the proxy's rules"), "{said}");
        // What the page says of those who open the proxy itself.
        let said = run(&format!("curl http://{ROUTER4}:4130/"));
        assert!(said.contains("this is a proxy: it needs an absolute URL or CONNECT"), "{said}");
    }
}

#[test]
fn the_page_about_the_proxy_protocol_works_as_printed() {
    if !common::have("curl") || !common::have("haproxy") {
        return common::skip("needs curl and haproxy");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let here = |text: String| text.replace("10.8.0.0/24", "127.0.0.0/8").replace("10.8.0.1", "127.0.0.1");
    let page = "modes/proxyproto.md";
    let daemon = lab.router.run(|| Daemon::start_with(&here(first_on(page, "yaml")), &[4129], &["-d"]));
    lab.tproxy("80", 4127);
    let dir = common::TempDir::new();
    let config = dir.write("haproxy.cfg", here(first_on(page, "haproxy")));
    let mut haproxy =
        lab.router.run(|| Command::new("haproxy").arg("-db").arg("-f").arg(&config).spawn().unwrap());
    daemon.wait_log(&["Closed | reason=health_check"]);
    for server in [SERVER4, SERVER6] {
        let _http = lab.server.run(|| HttpOrigin::start(at(server, 80)));
        let target = at(server, 80);
        let said = text(&lab.client.try_sh(&format!("curl -sS -m 20 --noproxy '*' http://{target}/x")));
        assert!(said.contains("GET /x HTTP/1.1"), "{said}\n{}", daemon.log());
        daemon.wait_log(&[&format!("=> {target} | Accept")]);
    }
    haproxy.kill().unwrap();
    haproxy.wait().unwrap();
}

#[test]
fn the_page_about_the_socks_proxy_works_as_printed() {
    if !common::have("curl") || !common::have("nc.openbsd") {
        return common::skip("needs curl and netcat-openbsd");
    }
    let Some(lab) = Lab::build_or_skip() else { return };
    let here = |text: &str| text.replace("192.168.1.", "192.168.77.");
    let config = here(&first_on("modes/socks5.md", "yaml")) + "dnsNameservers: ['203.0.113.9']\n";
    let _daemon = lab.router.run(|| Daemon::start(&config, &[1080]));
    let names: &[(&str, &[&str])] = &[
        ("www.example.com", &[SERVER4]),
        ("www.blocked.example", &[SERVER4]),
        ("server.example.com", &[SERVER4]),
    ];
    let _names = lab.server.run(|| NameServer::with(&at(DNS4, 53), names));
    let _https = lab.server.run(|| HttpsOrigin::start(at(SERVER4, 443)));
    let _ssh = lab.server.run(|| Origin::banner(at(SERVER4, 22), "SSH-2.0-test\r\n"));
    let page = here(&first_on("modes/socks5.md", "sh"));
    let line = |program: &str| page.lines().find(|line| line.starts_with(program)).unwrap();
    let curl = line("curl").replacen("curl", "curl -sSk -m 20", 1);
    let said = text(&lab.client.try_sh(&curl));
    assert!(said.contains("GET / HTTP/1.1 host=www.example.com"), "{said}");
    let said = text(&lab.client.try_sh(&curl.replace("www.example.com", "www.blocked.example")));
    assert!(said.contains("unrecognized name"), "{said}");
    // As ssh runs it for a server, which speaks first.
    let command = line("ssh").split_once("ProxyCommand='").unwrap().1.split('\'').next().unwrap();
    let command = command.replacen("nc", "timeout 20 nc.openbsd -d", 1).replace("%h", "server.example.com");
    let said = text(&lab.client.try_sh(&format!("{} | head -n 1", command.replace("%p", "22"))));
    assert!(said.contains("SSH-2.0-test"), "{said}");
}

/// REDIRECT and TPROXY of what clients send, and of what the machine itself sends, with the configurations and the rules as
/// they stand there.
#[test]
fn the_page_about_the_redirector_works_as_printed() {
    if !common::have("curl") {
        return common::skip("needs curl");
    }
    let page = "docs/redirector.md";
    // The first server is there, the second is not.
    let here = |text: String| text.replace("10.8.0.1", "203.0.113.6").replace("10.8.0.", "203.0.113.");
    let all_on = |language: &str| {
        let of_page = blocks(language).into_iter().filter(|(place, _)| place.contains(page));
        of_page.map(|(_, body)| here(body)).collect::<Vec<String>>()
    };
    let (configs, rules) = (all_on("yaml redirector"), all_on("nft"));
    let routes = first_on("modes/transparent.md", "sh ip");
    // (configuration, rules, whether the machine itself is the client)
    for (config, rules, is_own) in
        [(&configs[0], &rules[0], false), (&configs[0], &rules[1], true), (&configs[1], &rules[2], false)]
    {
        let Some(lab) = Lab::build_or_skip() else { return };
        lab.router.nft(rules);
        if config.contains("tproxy: true") {
            lab.router.sh(&routes);
        }
        let server = lab.server.run(|| {
            let local = "output: {allowLocal: true}\n";
            Daemon::start(&(here(first_on(page, "yaml")) + local), &[4129])
        });
        let user = if is_own { "user: nobody\n" } else { "" };
        let redirector = lab.router.run(|| Daemon::start_redirector(&format!("{config}{user}"), &[4128]));
        let (client, ips) = if is_own {
            (&lab.router, [ROUTER_OUT4, ROUTER_OUT6])
        } else {
            (&lab.client, [CLIENT4, CLIENT6])
        };
        for (ip, dest) in ips.into_iter().zip([SERVER4, SERVER6]) {
            let target = at(dest, 80);
            let _http = lab.server.run(|| HttpOrigin::start(&*target));
            let said = text(&client.try_sh(&format!("curl -sS -m 20 --noproxy '*' http://{target}/x")));
            assert!(said.contains("GET /x HTTP/1.1"), "{said}\n{}", redirector.log());
            redirector.wait_log(&[&format!("| {ip} => {target} | Forward | server=203.0.113.6:4129")]);
            server.wait_log(&[&format!("| {ip} => {target} | Accept | rule=0")]);
        }
        assert_eq!(redirector.count_log(&["| Denied |"]), 0, "{}", redirector.log());
    }
}

#[test]
#[cfg(feature = "tls")]
fn the_page_about_https_works_step_by_step() {
    if !common::have("curl") || !common::have("openssl") {
        return common::skip("needs curl and openssl");
    }
    let on_page = |language| {
        let mut of_page = blocks(language).into_iter().filter(|(place, _)| place.contains("modes/https.md"));
        of_page.next().unwrap().1
    };
    let dir = common::TempDir::new();
    let here =
        |snippet: String| snippet.replace("192.168.1.1", "127.0.0.2").replace("192.168.1.0", "127.0.0.0");
    let made = std::process::Command::new("sh")
        .args(["-ec", &here(on_page("sh openssl"))])
        .current_dir(&dir.0)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let config = here(on_page("yaml")).replace("/etc/calamary", dir.0.to_str().unwrap());
    let _daemon = Daemon::start(&format!("{config}output: {{allowLocal: true}}\n"), &[4131]);
    let https = HttpsOrigin::start("127.0.0.1:0");
    let output = std::process::Command::new("curl")
        .args(["-sSk", "-m", "20", "--noproxy", "", "--proxy", "https://127.0.0.2:4131", "--proxy-cacert"])
        .args([dir.0.join("root.pem").to_str().unwrap(), &format!("https://{}/x", https.addr())])
        .output()
        .unwrap();
    assert!(text(&output).starts_with("GET /x HTTP/1.1"), "{}", text(&output));
}

#[test]
fn the_router_of_the_readme_works_as_printed() {
    if !common::have("curl") {
        return common::skip("needs curl");
    }
    let of_readme = |language| {
        let mut found = blocks(language).into_iter().filter(|(place, _)| place.contains("README.md"));
        found.next().unwrap().1
    };
    let Some(lab) = Lab::build_or_skip() else { return };
    lab.router.nft(&of_readme("nft"));
    let _daemon = lab.router.run(|| Daemon::start(&of_readme("yaml"), &[4128]));
    for server in [SERVER4, SERVER6] {
        let _https = lab.server.run(|| HttpsOrigin::start(at(server, 443)));
        let curl = |url: &str, port: u16| {
            let target = at(server, port);
            text(&lab.client.try_sh(&format!("curl -sSik -m 20 --connect-to '::{target}' {url}")))
        };
        let allowed = curl("https://www.example.com/x", 443);
        assert!(allowed.contains("GET /x HTTP/1.1 host=www.example.com"), "{allowed}");
        for name in ["x.ads.example", "tracker.example", "x.tracker.example"] {
            let denied = curl(&format!("https://{name}/"), 443);
            assert!(denied.contains("unrecognized name"), "{denied}");
        }
        let plain = curl("http://www.example.com/x", 80);
        assert!(plain.contains("301 ") && plain.contains("Location: https://www.example.com/x"), "{plain}");
    }
}

#[test]
fn every_complete_configuration_validates() {
    let found = blocks("yaml");
    let complete: Vec<_> =
        found.iter().filter(|(_, body)| body.contains("listen:") && body.contains("rules:")).collect();
    assert!(complete.len() >= 4, "{} samples", complete.len());
    let dir = common::TempDir::new();
    let private = dir.write("private.txt", "bank.example\n");
    for (place, body) in complete {
        // Addresses of the reader's machine.
        let body = &body
            .replace("ip4: ['192.168.1.1']", "ip4: ['127.0.0.2']")
            .replace("ip4: ['10.8.0.1']", "ip4: ['127.0.0.3']")
            .replace("ip4: ['10.8.0.11']", "ip4: ['127.0.0.3']")
            .replace(
                "/etc/calamary/proxy",
                &format!("{}/tests/vectors/certificates/server", root().display()),
            )
            .replace(
                "/etc/calamary/ca.",
                &format!("{}/tests/vectors/certificates/authority.", root().display()),
            )
            .replace("/etc/calamary/private.txt", private.to_str().unwrap());
        if body.contains("action: intercept") && !cfg!(feature = "intercept") {
            continue;
        }
        let output = run_on(body, &["-f", "{}", "-v"]);
        assert!(output.status.success(), "{place}\n{body}\n{}", text(&output));
    }
}

#[test]
fn every_configuration_of_the_redirector_validates() {
    let found = blocks("yaml redirector");
    assert!(found.len() >= 3, "{} samples", found.len());
    for (place, body) in found {
        let output = run_program_on(REDIRECTOR, &body, &["-f", "{}", "-v"]);
        assert!(output.status.success(), "{place}\n{body}\n{}", text(&output));
    }
}

#[test]
fn every_setting_of_the_redirector_is_documented() {
    let problems = text(&run_program_on(
        REDIRECTOR,
        "zzz: 1\nlisten: [{zzz: 1}]\noutput: {zzz: 1}",
        &["-f", "{}", "-v"],
    ));
    let page = std::fs::read_to_string(root().join("docs/redirector.md")).unwrap();
    let mut sections = 0;
    for (line, keys) in problems.lines().filter_map(|l| Some((l, l.split_once("accepted are ")?.1))) {
        sections += 1;
        for key in keys.split(", ").map(|key| key.trim_matches('`')) {
            assert!(key == "mode" || has_word(&page, key), "`{key}` is not on the page: {line}");
        }
    }
    assert_eq!(sections, 3, "{problems}");
}

#[test]
fn the_haproxy_of_a_fleet_starts() {
    if !common::have("haproxy") {
        return common::skip("needs haproxy");
    }
    let all = blocks("haproxy");
    let found: Vec<_> = all.iter().filter(|(place, _)| place.contains("fleet.md")).collect();
    assert_eq!(found.len(), 1);
    let dir = common::TempDir::new();
    let path = dir.write("haproxy.cfg", &found[0].1);
    let mut haproxy = std::process::Command::new("haproxy");
    haproxy.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg("-c").arg("-f").arg(path);
    let output = haproxy.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_keepalived_and_the_prometheus_of_a_fleet_are_taken() {
    let Some(lab) = Lab::build_or_skip() else { return };
    let dir = common::TempDir::new();
    for (language, command) in
        [("keepalived", "keepalived --config-test --use-file"), ("yaml prometheus", "promtool check config")]
    {
        let program = command.split(' ').next().unwrap();
        if !common::have(program) {
            return common::skip(&format!("needs {program}"));
        }
        // Its interface must be there.
        let path = dir.write(program, first_on("docs/fleet.md", language).replace("eth0", "wan"));
        let output = lab.server.try_sh(&format!("PATH=$PATH:/usr/sbin {command} {}", path.display()));
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn every_fragment_of_rules_validates() {
    for (place, body) in blocks("yaml").iter().filter(|(_, body)| !body.contains("listen:")) {
        let listen = "listen:\n  - {mode: http, port: 4130}\n";
        let rules = if body.contains("rules:") { "" } else { "\nrules:\n  - {action: deny}\n" };
        let output = run_on(&format!("{listen}{body}{rules}"), &["-f", "{}", "-v"]);
        assert!(output.status.success(), "{place}\n{body}\n{}", text(&output));
    }
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let content = std::fs::read_to_string(&page).unwrap();
        for (at, _) in content.match_indices("](") {
            let target = content[at + 2..].split(')').next().unwrap();
            let path = target.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !page.parent().unwrap_or(Path::new(".")).join(path).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    // In docs/testing.md a promise is followed by `cargo test --test PROGRAM NAME`.
    let page = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let mut named = 0;
    for (at, command) in page.match_indices("cargo test --test ") {
        let mut words = page[at + command.len()..].split(['`', '\n']).next().unwrap().split_whitespace();
        let program = words.next().unwrap();
        let path = root().join(format!("tests/{program}.rs"));
        let code = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let Some(name) = words.next() {
            let exists = code.lines().any(|l| {
                l.strip_prefix("fn ")
                    .and_then(|l| l.split('(').next())
                    .is_some_and(|test| test.contains(name))
            });
            assert!(exists, "no test `{name}` in {program}");
        }
        named += 1;
    }
    assert!(named > 20, "{named}");
}

/// Whether a page has `word` by itself.
fn has_word(page: &str, word: &str) -> bool {
    let joins = |c: char| c.is_ascii_alphanumeric() || c == '_';
    page.match_indices(word)
        .any(|(at, _)| !page[..at].ends_with(joins) && !page[at + word.len()..].starts_with(joins))
}

#[test]
fn every_setting_is_documented() {
    // An unknown key is answered by all those that are known.
    let mut config = "listen:\n  - {port: 4130, zzz: 1}\nvars:\n  - {name: x, value: [1], zzz: 1}\n\
                      rules:\n  - {action: deny, zzz: 1}\nzzz: 1\n"
        .to_string();
    for section in ["timeout", "output", "limits", "metrics", "parse", "log", "dns", "certs"] {
        config += &format!("{section}: {{zzz: 1}}\n");
    }
    let problems = text(&run_on(&config, &["-f", "{}", "-v"]));
    let pages: String = ["docs/configuration.md", "docs/rules.md"]
        .map(|page| std::fs::read_to_string(root().join(page)).unwrap())
        .concat();
    let mut sections = 0;
    for (line, keys) in problems.lines().filter_map(|l| Some((l, l.split_once("accepted are ")?.1))) {
        sections += 1;
        for key in keys.split(", ").map(|key| key.trim_matches('`')) {
            assert!(has_word(&pages, key), "`{key}` is in neither page: {line}");
        }
    }
    assert_eq!(sections, 12, "{problems}");
}

#[test]
fn every_metric_and_every_close_reason_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/logging-and-metrics.md")).unwrap();
    for reason in CloseReason::ALL {
        assert!(has_word(&page, reason.as_str()), "no reason `{}`", reason.as_str());
    }
    let (port, metrics) = (common::free_port(), common::free_port());
    let config = format!(
        "listen:\n  - {{mode: http, port: {port}}}\nmetrics: {{enabled: true, port: {metrics}}}\n\
         rules:\n  - {{action: deny}}\n"
    );
    let _daemon = Daemon::start(&config, &[port, metrics]);
    let answer = Http::connect(("127.0.0.1", metrics)).ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = answer.text();
    let names: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 15, "{text}");
    for name in names {
        assert!(has_word(&page, name), "no metric `{name}`");
    }
}
