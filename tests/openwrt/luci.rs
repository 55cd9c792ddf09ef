//! The LuCI app: its rpcd script under busybox' shell with the daemon at work, and its pages in Chromium, fed with what that
//! script has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::lab::{CLIENT4, SERVER4, at};
use crate::common::{TempDir, have, skip};
use crate::router::{Router, VERSION, file_name, packages, project};
use crate::{Fate, fate, filtering};

const VIEWS: &str = "openwrt/luci-app-calamary/htdocs/luci-static/resources/view/calamary";

/// Asks the rpcd script as rpcd does: the method as an argument, its arguments as JSON on standard input.
fn ask(router: &Router, method: &str, arguments: &str) -> String {
    router.write("tmp/question", arguments);
    let command = format!("/usr/libexec/rpcd/luci.calamary call {method} </tmp/question");
    router.must(&["/bin/sh", "-c", &command]).trim().to_string()
}

fn parse(json: &str) -> BTreeMap<String, serde_yaml::Value> {
    serde_yaml::from_str(json).unwrap_or_else(|e| panic!("{e}:\n{json}"))
}

fn of<'a>(answer: &'a BTreeMap<String, serde_yaml::Value>, key: &str) -> &'a str {
    answer[key].as_str().unwrap_or_else(|| panic!("{key} of {answer:?}"))
}

/// A router with the app, whose daemon has denied one connection.
fn router() -> Option<Router> {
    let (router, _servers) = filtering()?;
    router.install(&packages().join(file_name("luci-app-calamary", VERSION)));
    assert_eq!(router.lab.client.run(|| fate(SERVER4)), Fate::Filtered);
    router.wait_log("calamary", &["Denied", "name=www.blocked.example"]);
    Some(router)
}

#[test]
fn the_rpcd_script_answers_what_the_pages_ask() {
    let Some(router) = router() else { return };
    let methods = parse(&router.must(&["/usr/libexec/rpcd/luci.calamary", "list"]));
    assert_eq!(methods.keys().collect::<Vec<_>>(), ["check", "log", "reload", "status", "why"]);

    let status = parse(&ask(&router, "status", "{}"));
    assert_eq!(of(&status, "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!((status["running"].as_bool(), status["intercepting"].as_bool()), (Some(true), Some(true)));
    assert!(of(&status, "metrics").contains("calamary_rule_actions{action=\"deny\"} 1"), "{status:?}");

    assert!(of(&status, "connections").starts_with("DEVICE  CLIENT"), "{status:?}");

    let log = parse(&ask(&router, "log", "{\"lines\":100000}"));
    assert!(of(&log, "output").contains("name=www.blocked.example"), "{log:?}");
    assert!(!of(&log, "output").contains("dnsmasq"), "{log:?}");
    let log = parse(&ask(&router, "log", "{ \"lines\": 1 }"));
    assert_eq!(of(&log, "output").lines().count(), 1, "{log:?}");

    let why = parse(&ask(&router, "why", "{\"facts\":\"dns=a.blocked.example port=443\"}"));
    assert!(of(&why, "output").contains("verdict: deny by rule 1"), "{why:?}");
    assert_eq!(why["code"].as_i64(), Some(3));
    // What a browser sends is one argument, whatever is in it.
    let hostile = parse(&ask(
        &router,
        "why",
        r#"{"facts":"'; touch /tmp/hostile; \"$(touch /tmp/hostile)\" `touch /tmp/hostile` -f /etc/passwd"}"#,
    ));
    assert_eq!(hostile["code"].as_i64(), Some(2), "{hostile:?}");
    assert!(!router.path("tmp/hostile").exists());

    assert_eq!(parse(&ask(&router, "check", "{}"))["code"].as_i64(), Some(0));
    router.edit("etc/calamary/config.yml", "rules:", "rulez:");
    // The daemon is asked, not the file; and the file if there is no daemon.
    let asks_why = || parse(&ask(&router, "why", "{\"facts\":\"dns=a.blocked.example port=443\"}"));
    assert_eq!(asks_why()["code"].as_i64(), Some(3));
    let socket = router.path("var/run/calamary-live/socket");
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    assert!(of(&asks_why(), "output").contains("rulez"));
    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    let check = parse(&ask(&router, "check", "{}"));
    assert!(check["code"].as_i64() == Some(2) && of(&check, "output").contains("rulez"), "{check:?}");
    assert_ne!(parse(&ask(&router, "reload", "{}"))["code"].as_i64(), Some(0));
    router.edit("etc/calamary/config.yml", "rulez:", "rules:");
    assert_eq!(parse(&ask(&router, "reload", "{}"))["code"].as_i64(), Some(0));
}

/// Text as a literal of JavaScript, inside a page.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '<' => out.push_str("\\x3c"),
            c => out.push(c),
        }
    }
    out + "\""
}

#[test]
fn the_pages_show_what_the_daemon_does() {
    let Some(program) = ["chromium", "chromium-browser"].into_iter().find(|p| have(p)) else {
        return skip("needs chromium");
    };
    let Some(router) = router() else { return };
    let [status, log] = ["status", "log"].map(|method| ask(&router, method, "{\"lines\":200}"));
    // As if the metrics were to be had from the LAN.
    let status = status.replace("http://127.0.0.1:9512/", "http://192.168.1.1:9512/");
    let why = ask(&router, "why", "{\"facts\":\"dns=www.blocked.example\"}");
    let files: String = ["config.yml", "lists/allow.txt", "lists/deny.txt"]
        .iter()
        .map(|file| {
            format!(
                "{}: {},",
                literal(&format!("/etc/calamary/{file}")),
                literal(&router.read(&format!("etc/calamary/{file}")))
            )
        })
        .collect();
    let mut page = format!(
        "<!DOCTYPE html><meta charset=utf-8><body><script>
         const page = {{ search: '' }};
         const files = {{ {files} }};
         const canned = {{
             uci: {{ main: {{}}, intercept: {{ mode: 'tproxy', on_failure: 'open' }} }},
             status: {status}, log: {log}, why: {why}, reload: {{ code: 0, output: '' }},
             check: () => Object.values(files).includes('refuse me\\n') ? {{ code: 2, output: 'line 1' }} : {{ code: 0, output: 'fine' }}
         }};</script>\n"
    );
    for view in views() {
        let name = view.0;
        page += &format!("<script type=text/plain id={name}>{}</script>\n", view.1);
    }
    let stand_ins = fs::read_to_string(project().join("tests/openwrt/luci.js")).unwrap();
    page += &format!("<script>{stand_ins}</script></body>");
    let dir = TempDir::new();
    let path = dir.write("page.html", page);
    let output = Command::new("timeout")
        .args([
            "90",
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.0.join("profile").display()))
        .arg(format!("file://{}", path.display()))
        .env("HOME", &dir.0)
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let notes: Vec<String> = dom
        .split("<pre class=\"note\">")
        .skip(1)
        .map(|rest| {
            rest.split("</pre>")
                .next()
                .unwrap()
                .replace("&amp;", "&")
                .replace("&gt;", ">")
                .replace("&lt;", "<")
        })
        .collect();
    let destination = at(SERVER4, 443);
    let line = format!("{CLIENT4} | www.blocked.example | {destination} | Denied | 1 | why?");
    for wanted in [
        "end: reached",
        "live: DEVICE",
        "link: http://192.168.1.1:9512/",
        "status: Running | yes",
        concat!("status: Version | ", env!("CARGO_PKG_VERSION")),
        "status: Traffic of the LAN is intercepted | yes",
        "status: If the daemon fails | everything passes unfiltered",
        "status: Let through | 0",
        "status: Denied | 1",
        "status: 1 | 1",
        "settings: main:service.enabled ",
        "settings: intercept:intercept.mode tproxy|redirect",
        "settings: intercept:intercept.quic block|proxy|pass",
        &line,
        "log denied: 1",
        "why asked: src=192.168.77.10 dest=203.0.113.5 port=443 dns=www.blocked.example protoL5=tls",
        "verdict: deny by rule 1",
        "notification: Refused, nothing is changed: line 1",
        "refused: # Names that are denied",
        "saved: \"other.example\\nmore.example\\n\"",
        "after delete: /etc/calamary/config.yml /etc/calamary/lists/allow.txt",
        "notification: Failed: Letters, digits",
        "after new: /etc/calamary/config.yml /etc/calamary/lists/allow.txt /etc/calamary/lists/kids.txt",
        "reloads: 3",
    ] {
        assert!(notes.iter().any(|note| note.contains(wanted)), "no {wanted:?} in {notes:#?}\n{dom}");
    }
}

/// Name and source of each page.
fn views() -> Vec<(String, String)> {
    let mut views: Vec<(String, String)> = fs::read_dir(project().join(VIEWS))
        .unwrap()
        .flatten()
        .map(|e| {
            (
                e.path().file_stem().unwrap().to_str().unwrap().to_string(),
                fs::read_to_string(e.path()).unwrap(),
            )
        })
        .collect();
    views.sort();
    views
}

/// The menu leads to pages that are there; what a page asks for is granted, and no more; nothing may run commands at will.
#[test]
fn menu_and_rights_are_those_that_the_pages_need() {
    let app = project().join("openwrt/luci-app-calamary/root/usr/share");
    let json = |path: &str| -> serde_yaml::Value {
        serde_yaml::from_str(&fs::read_to_string(app.join(path)).unwrap().replace('\t', " ")).unwrap()
    };
    let menu = json("luci/menu.d/luci-app-calamary.json");
    let shown: BTreeSet<String> = menu
        .as_mapping()
        .unwrap()
        .iter()
        .filter_map(|(_, entry)| {
            Some(entry.get("action")?.get("path")?.as_str()?.strip_prefix("calamary/")?.to_string())
        })
        .collect();
    assert_eq!(shown, views().into_iter().map(|(name, _)| name).collect());

    let rights = json("rpcd/acl.d/luci-app-calamary.json");
    let rights = rights.get("luci-app-calamary").unwrap();
    let words = format!("{rights:?}");
    assert!(!words.contains("exec") && !words.contains("\"*\""), "{words}");
    let mut granted: BTreeSet<String> = BTreeSet::new();
    for kind in ["read", "write"] {
        let ubus = rights.get(kind).unwrap().get("ubus").unwrap();
        assert_eq!(ubus.as_mapping().unwrap().len(), 1, "{kind}: more than one object");
        let methods = ubus.get("luci.calamary").unwrap().as_sequence().unwrap();
        granted.extend(methods.iter().map(|m| m.as_str().unwrap().to_string()));
    }
    let asked = views().into_iter().flat_map(|(_, source)| {
        source
            .split("method: '")
            .skip(1)
            .map(|rest| rest.split('\'').next().unwrap().to_string())
            .collect::<Vec<_>>()
    });
    assert_eq!(granted, asked.collect());
}

/// As LuCI's own scanner finds them: `_('…')` of the pages, titles of the menu, the description of the rights.
#[test]
fn the_template_for_translations_has_every_text() {
    let app = project().join("openwrt/luci-app-calamary");
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for (_, source) in views() {
        texts.extend(source.split("_('").skip(1).map(|rest| rest.split("')").next().unwrap().to_string()));
    }
    for (file, key) in [("luci/menu.d", "\"title\": \""), ("rpcd/acl.d", "\"description\": \"")] {
        let path = app.join("root/usr/share").join(file).join("luci-app-calamary.json");
        let json = fs::read_to_string(path).unwrap();
        texts.extend(json.split(key).skip(1).map(|rest| rest.split('"').next().unwrap().to_string()));
    }
    let mut template = String::from("msgid \"\"\nmsgstr \"Content-Type: text/plain; charset=UTF-8\"\n");
    for text in texts {
        template += &format!("\nmsgid \"{}\"\nmsgstr \"\"\n", text.replace('"', "\\\""));
    }
    let path = app.join("po/templates/calamary.pot");
    // To write it anew: CALAMARY_WRITE_POT=1.
    if std::env::var_os("CALAMARY_WRITE_POT").is_some() {
        fs::write(&path, &template).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == template, "{} is out of date:\n{template}", shown(&path));
}

fn shown(path: &Path) -> String {
    path.strip_prefix(project()).unwrap().display().to_string()
}
