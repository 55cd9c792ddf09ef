//! Whole configurations: the documented samples, tables of what is refused and doubted, and texts that nobody wrote.

use super::*;

use std::time::Duration;

use crate::decide::rules::{AddrValue, FieldSpec, NameValue, Term};
use crate::decide::{Action, Decision, Facts, Known, L4, L5, Verdict, rules::Locals};

const BASIC: &str = include_str!("testdata/basic.yml");
const SERVICE: &str = include_str!("testdata/service.yml");
const RULES: &str = include_str!("testdata/rules.yml");
const REFUSED: &str = include_str!("testdata/refused.txt");
const DOUBTED: &str = include_str!("testdata/doubted.txt");

fn load_text(text: &str) -> Result<Loaded, Problems> {
    load(text, Path::new("config.yml"), LoadOptions::default())
}

fn accepted(text: &str) -> Loaded {
    load_text(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The rules before they are compiled.
fn rules_of(text: &str, look: impl Fn(&[rules::Rule<'_>])) {
    let root = tree::parse(text).unwrap();
    let mut report = Report::default();
    let section = Section::read(&root, &TOP_KEYS, &mut report);
    let mut vars = Variables::read(section.get("vars"), Path::new(""), false, &mut report);
    let rules = rules::rules(section.get("rules").unwrap(), &mut vars, &mut report);
    assert!(report.is_clean(), "{:?}\n{text}", report.resolve(&root, Path::new("config.yml")));
    look(&rules);
}

/// Texts and lines of the tables in `testdata`.
fn table(table: &str) -> Vec<(String, Vec<String>)> {
    let mut cases = Vec::new();
    let (mut text, mut lines, mut in_text) = (String::new(), Vec::new(), true);
    for line in table.lines().chain(["%%"]) {
        match line {
            "=====" => in_text = false,
            "%%" => {
                cases.push((std::mem::take(&mut text), std::mem::take(&mut lines)));
                in_text = true;
            }
            _ if line.starts_with("## ") => {}
            _ if in_text => text = text + line + "\n",
            _ => lines.push(line.to_owned()),
        }
    }
    cases
}

/// Whether a case can be what it is in this build.
fn is_of_this_build((text, _): &(String, Vec<String>)) -> bool {
    let of_a_household = text.lines().any(|line| line.starts_with("devices:") || line.starts_with("tests:"))
        || text.contains(" mac:");
    cfg!(feature = "household") || !of_a_household
}

/// A key whose feature is left out is never ignored.
#[cfg(not(feature = "household"))]
#[test]
fn what_is_for_households_is_refused_without_that_feature() {
    let check = |text: &str, expected: &str| {
        let problems =
            load_text(&format!("listen: [{port}]\n{text}", port = "{port: 1}")).unwrap_err().to_string();
        assert_eq!(problems.trim_end(), expected, "{text}");
    };
    check("live: true\n", "config.yml:2:7: live: the live socket is not part of this build");
    check("devices: {tv: 192.0.2.1}\n", "config.yml:2:1: devices: devices are not part of this build");
    check(
        "tests: [{flow: port=1}]\n",
        "config.yml:2:1: tests: tests of the policy are not part of this build",
    );
    check(
        "rules: [{mac: 'aa:bb:cc:dd:ee:ff', action: deny}]\n",
        "config.yml:2:10: rules[0].mac: the field `mac` is not part of this build",
    );
    check(
        "rules: [{device: tv, action: deny}]\n",
        "config.yml:2:10: rules[0].device: the field `device` is not part of this build",
    );
    assert_eq!(accepted("listen: [{port: 1}]\nrules: []\nlive: false\ndevices:\ntests:\n").plan.live, None);
}

#[test]
fn refused_texts() {
    for (text, expected) in table(REFUSED).into_iter().filter(is_of_this_build) {
        let problems = load_text(&text).map(|loaded| loaded.summary).expect_err(&text);
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "\n{text}");
        for problem in problems.iter() {
            let line = text.lines().nth(problem.line as usize - 1).unwrap_or("");
            assert!(problem.column as usize <= line.chars().count() + 1, "{problem} is outside of\n{text}");
        }
    }
}

#[test]
fn datagrams_are_taken_where_the_build_and_the_mode_can() {
    let listeners = [
        ("tproxy: true", None),
        ("mode: proxyproto", None),
        ("mode: socks5", None),
        (
            "mode: socks5, tcp: false",
            Some("tcp: `udp` in mode `socks5` needs `tcp`, too: datagrams are asked for over a connection"),
        ),
    ];
    for (keys, refusal) in listeners {
        let text = format!("listen: [{{port: 1, udp: true, {keys}}}]\n");
        let refusal =
            if cfg!(feature = "udp") { refusal } else { Some("udp: `udp: true` is not part of this build") };
        let found = load_text(&text).err().map(|problems| problems.to_string());
        let ends = |found: &String| refusal.is_some_and(|refusal| found.trim_end().ends_with(refusal));
        assert!(found.as_ref().map_or(refusal.is_none(), ends), "{text}{found:?}");
    }
}

#[test]
fn doubted_texts() {
    for (text, expected) in table(DOUBTED).into_iter().filter(is_of_this_build) {
        let found: Vec<String> = accepted(&text).warnings.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "\n{text}");
    }
}

/// The samples of the documentation mean what they say.
#[test]
fn documented_samples() {
    for text in [BASIC, SERVICE] {
        let Loaded { plan, warnings, summary, files } = accepted(text);
        assert_eq!(files, Vec::<std::path::PathBuf>::new());
        assert_eq!(warnings, []);
        assert_eq!(
            summary,
            "listeners: 2 (transparent 127.0.0.1:4128, transparent [::1]:4128)\nrules: 4, variables: 2"
        );
        assert_eq!(plan.service.listeners.len(), 2);
        assert!(
            plan.service
                .listeners
                .iter()
                .all(|l| l.mode == Mode::Transparent && !l.tproxy && l.target == Target::Auto)
        );
        assert_eq!(plan.service.nameservers, ["1.1.1.1:53".parse().unwrap(), "8.8.8.8:53".parse().unwrap()]);
        assert_eq!(plan.service.timeouts.connect, Duration::from_millis(2000));
        assert_eq!(plan.service.timeouts.process, Duration::from_millis(1000));
        assert_eq!(plan.service.timeouts.idle, Duration::from_millis(30_000));
        assert_eq!(plan.service.output.retries, 1);
        assert_eq!(plan.service.metrics, None);
        assert!(!plan.service.log.debug);

        let check = |src: &str, dest: &str, port: u16, action: Action, rule: &str| {
            let facts = Facts {
                src: Known::Is(src.parse().unwrap()),
                dest: Known::Is(dest.parse().unwrap()),
                port: Known::Is(port),
                l4: Known::Is(L4::Tcp),
                ..Facts::default()
            };
            match plan.rules.decide(&facts, &Locals::default()) {
                Decision::Verdict(Verdict { action: a, rule: r }) => {
                    assert_eq!((a, r.to_string().as_str()), (action, rule), "{src} => {dest}:{port}");
                }
                need => panic!("{src} => {dest}:{port}: {need:?}"),
            }
        };
        check("192.168.11.104", "192.168.100.7", 443, Action::Deny, "0");
        check("192.168.11.104", "135.181.170.219", 22, Action::Deny, "1");
        check("192.168.11.104", "10.1.2.3", 80, Action::Accept, "2");
        check("192.168.11.104", "135.181.170.219", 443, Action::Accept, "3");
        check("192.168.11.104", "135.181.170.219", 80, Action::Deny, "default");
        check("203.0.113.9", "10.1.2.3", 80, Action::Deny, "default");
    }
    assert_eq!(accepted(RULES).plan.rules.len(), 4);
}

/// Every value that the documentation's list of matches names.
#[test]
fn documented_values() {
    let text = "
listen: [{port: 4128}]
service:
  metrics:
    enabled: false
    port: 9512
rules:
  - match:
      src: '192.0.2.1'
      dest: ['192.0.2.0/24', '2001:DB8::/32', '!2001:db8::1', '::ffff:10.0.0.0/104']
      port: '443'
      sport: [1024-65535, '!8080']
      protoL3: [ip4, ivp4, ip6, IPv4, ipv6]
      protoL4: TCP/udp
      action: accept
";
    let problems = load_text(text).map(|loaded| loaded.summary).unwrap_err();
    assert_eq!(problems.iter().count(), 1, "{problems}");
    rules_of(&text.replace("TCP/udp", "[TCP, udp]"), |rules| {
        let [rule] = rules else { panic!("one rule") };
        let [
            FieldSpec::Src(src),
            FieldSpec::Dest(dest),
            FieldSpec::Port(port),
            FieldSpec::Sport(sport),
            FieldSpec::ProtoL3(l3),
            FieldSpec::ProtoL4(l4),
        ] = rule.spec.fields.as_slice()
        else {
            panic!("{:?}", rule.spec.fields)
        };
        let shown = |terms: &[Term<AddrValue>]| {
            let shown = terms.iter().map(|term| match &term.value {
                AddrValue::Net(net) => format!("{}{net}", if term.negated { "!" } else { "" }),
                AddrValue::List(list) => format!("${}", list.variable()),
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown(src), ["192.0.2.1/32"]);
        assert_eq!(shown(dest), ["192.0.2.0/24", "2001:db8::/32", "!2001:db8::1/128", "10.0.0.0/8"]);
        let ports = |terms: &[Term<_>]| {
            let ports = terms
                .iter()
                .map(|t: &Term<crate::decide::rules::PortRange>| (t.negated, t.value.from, t.value.to));
            ports.collect::<Vec<_>>()
        };
        assert_eq!(ports(port), [(false, 443, 443)]);
        assert_eq!(ports(sport), [(false, 1024, 65535), (true, 8080, 8080)]);
        assert_eq!(l3.len(), 5);
        assert_eq!(l4.iter().map(|term| term.value).collect::<Vec<_>>(), [L4::Tcp, L4::Udp]);
    });
}

#[test]
fn words_in_any_case_and_place() {
    let check = |fields: &str, expected: &str| {
        let text =
            format!("vars: [{{name: v, value: [tls, http]}}]\nrules:\n  - {{{fields}, action: Allow}}\n");
        rules_of(&text, |rules| assert_eq!(format!("{:?}", rules[0].spec.fields), expected, "{fields}"));
        let text = format!(
            "vars: [{{name: v, value: [tls, http]}}]\nrules:\n  - {{match: {{{fields}}}, action: ALLOW}}\n"
        );
        rules_of(&text, |rules| {
            assert_eq!(format!("{:?}", rules[0].spec.fields), expected, "{fields}");
            assert_eq!(rules[0].spec.action, Action::Accept);
        });
    };
    check("encrypted: 'true'", "[Encrypted([Term { negated: false, value: true }])]");
    check("encrypted: yes", "[Encrypted([Term { negated: false, value: true }])]");
    check("encrypted: '!N'", "[Encrypted([Term { negated: true, value: false }])]");
    check("esni: 0", "[Esni([Term { negated: false, value: false }])]");
    check("ech: '! Grease'", "[Ech([Term { negated: true, value: Grease }])]");
    check("protocol5: quic", "[ProtoL5([Term { negated: false, value: Quic }])]");
    let both = "[ProtoL5([Term { negated: false, value: Tls }, Term { negated: false, value: Http }])]";
    check("protoL5: $v", both);
    check("protoL5: '!$v'", &both.replace("false", "true"));
    assert_eq!(both.matches(&format!("{:?}", L5::Tls)).count(), 1);
}

#[test]
fn listeners_and_settings() {
    let udp = cfg!(feature = "udp");
    let plan = accepted(
        &"
listen:
  - {port: 1}
  - {mode: HTTP, ip4: 0.0.0.0, ip6: [], port: '2', target: name}
  - {mode: proxyproto, ip4: [], ip6: ['fd00::2', 'fd00::1'], port: 3, trusted: [192.0.2.0/24]}
  - {mode: proxyproto, port: 4}
  - {port: 7, tproxy: true, udp: no}
  - {port: 65535}
  - {mode: socks5, ip6: [], port: 5, udp: UDP}
  - {mode: socks5, ip6: [], port: 6}
service:
  timeout: {connect: 1, process: '2', probe: 3, dnsLookup: 4, idle: 86400000, halfClosed: 6, udpIdle: 7, drain: 8}
  output: {retries: 0, fwmark: 0x1f, interface: br-lan, allowLocal: yes}
  limits: {connections: 1000, perSource: 10}
  parse: {quic: false, ntp: 'no'}
  log: {format: json, target: syslog}
  dnsNameservers: 192.0.2.53:5353
  debug: true
  workers: 2
  user: proxy
  group: 1000
"
        .replace("UDP", &udp.to_string()),
    )
    .plan;
    let given: Vec<_> = plan.service.listeners.iter().take(4).map(|l| l.given.as_deref()).collect();
    assert_eq!(given, [None, None, Some("listen[1].ip4"), Some("listen[2].ip6")]);
    let listeners: Vec<String> =
        plan.service.listeners.iter().map(|l| format!("{} {}", l.mode.as_str(), l.addr)).collect();
    assert_eq!(
        listeners,
        [
            "transparent 127.0.0.1:1",
            "transparent [::1]:1",
            "http 0.0.0.0:2",
            "proxyproto [fd00::2]:3",
            "proxyproto [fd00::1]:3",
            "proxyproto 127.0.0.1:4",
            "proxyproto [::1]:4",
            "transparent 127.0.0.1:7",
            "transparent [::1]:7",
            "transparent 127.0.0.1:65535",
            "transparent [::1]:65535",
            "socks5 127.0.0.1:5",
            "socks5 127.0.0.1:6",
        ]
    );
    assert!(plan.service.listeners.iter().all(|listener| listener.l4 == L4::Tcp));
    assert_eq!(plan.service.listeners.iter().filter(|listener| listener.associate).count(), usize::from(udp));
    assert_eq!(plan.service.listeners[11].associate, udp);
    assert_eq!(plan.service.listeners[2].target, Target::Name);
    assert!(plan.service.listeners[7].tproxy);
    let trusts = |listener: &Listener, ip: &str| listener.trusted.contains(ip.parse().unwrap());
    assert!(
        trusts(&plan.service.listeners[3], "192.0.2.7") && !trusts(&plan.service.listeners[3], "127.0.0.1")
    );
    for ip in ["127.0.0.1", "::1", "10.0.0.1", "172.31.0.1", "192.168.0.1", "fd12::1", "::ffff:10.0.0.1"] {
        assert!(trusts(&plan.service.listeners[5], ip), "{ip}");
    }
    for ip in ["203.0.113.1", "172.32.0.1", "2001:db8::1", "fe80::1", "169.254.0.1"] {
        assert!(!trusts(&plan.service.listeners[5], ip), "{ip}");
    }
    let ms = Duration::from_millis;
    assert_eq!(
        plan.service.timeouts,
        Timeouts {
            connect: ms(1),
            process: ms(2),
            probe: ms(3),
            dns_lookup: ms(4),
            idle: ms(86_400_000),
            half_closed: ms(6),
            udp_idle: ms(7),
            drain: ms(8),
        }
    );
    assert_eq!(
        plan.service.output,
        Output { retries: 0, fwmark: Some(31), interface: Some("br-lan".to_owned()), allow_local: true }
    );
    assert_eq!(plan.service.limits, Limits { connections: Some(1000), per_source: Some(10) });
    assert!(
        plan.parsers.tls && plan.parsers.http && plan.parsers.dns && !plan.parsers.quic && !plan.parsers.ntp
    );
    assert_eq!(plan.service.log, Log { debug: true, json: true, syslog: true });
    assert_eq!(plan.service.nameservers, ["192.0.2.53:5353".parse().unwrap()]);
    assert_eq!(
        (plan.service.workers, plan.service.user.as_deref(), plan.service.group.as_deref()),
        (Some(2), Some("proxy"), Some("1000"))
    );
}

/// `service`, `vars` and `rules` may stand together under `service`, and everything at the top level.
#[test]
fn either_layout() {
    let nested: String = RULES.lines().map(|line| format!("  {line}\n")).collect();
    let plan = accepted(&format!("service:\n{nested}")).plan;
    assert_eq!((plan.service.listeners.len(), plan.rules.len()), (2, 4));
    let problems =
        load_text("service:\n  listen: [{port: x}]\n  vars: [a]").map(|loaded| loaded.summary).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["service.listen[0].port", "service.vars[0]"]);
}

/// A key that is known but that nobody reads would be passed over in silence.
#[test]
fn every_known_key_is_read() {
    let check = |text: String, path: &str| {
        let problems = load_text(&text).map(|loaded| loaded.summary).expect_err(&text);
        let here =
            |problem: &Problem| problem.path.starts_with(path) && !problem.message.contains("is missing");
        assert!(problems.iter().any(here), "{problems}\n{text}");
    };
    for key in TOP_KEYS.all() {
        check(format!("{key}: {{no: [such]}}"), key);
    }
    for key in SERVICE_KEYS.all() {
        check(format!("service: {{{key}: {{no: [such]}}}}"), &format!("service.{key}"));
    }
    for key in listen::WAYS.keys.all() {
        check(format!("listen: [{{mode: proxyproto, {key}: {{no: [such]}}}}]"), &format!("listen[0].{key}"));
    }
    for section in ["certs", "timeout", "output", "limits", "metrics", "parse", "dns", "log"] {
        let problems = load_text(&format!("listen: [{{port: 1}}]\n{section}: {{no: 1}}"))
            .map(|l| l.summary)
            .unwrap_err();
        let message = problems.iter().next().unwrap().message.clone();
        // "`no` is no key here, accepted are `a`, `b`"
        let keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty(), "{message}");
        for key in keys {
            check(
                format!("listen: [{{port: 1}}]\n{section}: {{{key}: {{no: such}}}}"),
                &format!("{section}.{key}"),
            );
        }
    }
    for key in rules::RULE_KEYS.all() {
        check(
            format!("listen: [{{port: 1}}]\nrules: [{{{key}: {{no: [such]}}}}]"),
            &format!("rules[0].{key}"),
        );
    }
}

#[test]
fn defaults() {
    let plan = accepted("listen: [{port: 4128}]").plan;
    let ms = Duration::from_millis;
    assert_eq!(
        plan.service.timeouts,
        Timeouts {
            connect: ms(2000),
            process: ms(1000),
            probe: ms(500),
            dns_lookup: ms(2000),
            idle: ms(7_440_000),
            half_closed: ms(60_000),
            udp_idle: ms(120_000),
            drain: ms(10_000),
        }
    );
    assert_eq!(plan.service.output, Output { retries: 1, fwmark: None, interface: None, allow_local: false });
    assert_eq!(plan.service.limits, Limits { connections: None, per_source: None });
    assert_eq!((plan.service.metrics, plan.service.nameservers.len(), plan.service.workers), (None, 0, None));
    assert_eq!(plan.service.log, Log { debug: false, json: false, syslog: false });
    let debug = LoadOptions { debug: true, ..LoadOptions::default() };
    assert!(load("listen: [{port: 1}]", Path::new("config.yml"), debug).unwrap().plan.service.log.debug);
}

#[test]
#[cfg(feature = "metrics")]
fn metrics() {
    let check = |metrics: &str, expected: Option<&str>| {
        let plan = accepted(&format!("listen: [{{port: 1}}]\nmetrics: {metrics}")).plan;
        assert_eq!(plan.service.metrics, expected.map(|addr| addr.parse().unwrap()), "{metrics}");
    };
    check("", None);
    check("{port: 9000}", None);
    check("{enabled: true}", Some("127.0.0.1:9512"));
    check("{enabled: yes, port: '9000', ip: '::1'}", Some("[::1]:9000"));
    check("{enabled: true, port: 1, ip: 127.0.0.2}", Some("127.0.0.2:1"));
    let problems =
        load_text("listen: [{port: 1}]\nmetrics: {enabled: yes, port: 1, ip: '::'}").map(|l| l.summary);
    let expected = "config.yml:2:1: metrics: [::]:1 and the listener on [::1]:1 cannot both be bound: metrics need a \
                    port of their own";
    assert_eq!(problems.unwrap_err().to_string(), expected);
}

#[test]
#[cfg(not(feature = "metrics"))]
fn metrics_are_not_part_of_every_build() {
    let problems =
        load_text("listen: [{port: 1}]\nmetrics: {enabled: yes}").map(|loaded| loaded.summary).unwrap_err();
    let expected = "config.yml:2:20: metrics.enabled: metrics are not part of this build";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn the_embedded_configuration() {
    let Loaded { plan, warnings, .. } = load_default(LoadOptions::default()).unwrap();
    assert_eq!(warnings, []);
    assert!(plan.service.listeners.iter().all(|listener| listener.addr.ip().is_loopback()));
    let ports: Vec<(Mode, u16)> = plan.service.listeners.iter().map(|l| (l.mode, l.addr.port())).collect();
    let (http, transparent) = ((Mode::Http, 4130), (Mode::Transparent, 4128));
    assert_eq!(ports, [http, http, transparent, transparent]);
    assert!(plan.service.output.allow_local);
    assert_eq!(plan.rules.len(), 3);
}

/// What the comments of the embedded configuration show would be accepted, too.
#[test]
#[cfg(feature = "metrics")]
fn the_comments_of_the_embedded_configuration() {
    let shown =
        ["dnsNameservers:", "timeout:", "  connect:", "  process:", "  idle:", "metrics:", "  enabled:"];
    let shown = shown.into_iter().chain(["  port:", "vars:", "  - name: 'net", "    value:"]);
    let mut text = DEFAULT_CONFIG.to_owned();
    for key in shown {
        let commented = format!("# {key}");
        assert_eq!(text.matches(&commented).count(), 1, "{key}");
        text = text.replace(&commented, key);
    }
    let plan = accepted(&text).plan;
    assert_eq!(plan.service.nameservers.len(), 2);
    assert_eq!(plan.service.metrics, Some("127.0.0.1:9512".parse().unwrap()));
    let default = Timeouts { ..accepted("listen: [{port: 1}]").plan.service.timeouts };
    assert_eq!(plan.service.timeouts, default, "what is shown is the default");
}

#[test]
fn one_list_for_all_uses_of_a_variable() {
    let text = "
vars: [{name: n, value: [a.example, .b.example]}, {name: a, value: 10.0.0.0/8}]
rules:
  - {dns: $n, src: $a, action: deny}
  - {dns: '!$n', dest: [$a, 192.0.2.1], action: accept}
";
    rules_of(text, |rules| {
        let (FieldSpec::Dns(first), FieldSpec::Src(src)) =
            (&rules[0].spec.fields[0], &rules[0].spec.fields[1])
        else {
            panic!()
        };
        let (FieldSpec::Dns(second), FieldSpec::Dest(dest)) =
            (&rules[1].spec.fields[0], &rules[1].spec.fields[1])
        else {
            panic!()
        };
        let (NameValue::List(a), NameValue::List(b)) = (&first[0].value, &second[0].value) else { panic!() };
        assert!(std::sync::Arc::ptr_eq(a, b) && !first[0].negated && second[0].negated);
        assert!(
            a.contains_name("a.example") && a.contains_name("x.b.example") && !a.contains_name("x.a.example")
        );
        assert_eq!(a.find_name("a.example"), Some(2));
        let (AddrValue::List(a), AddrValue::List(b)) = (&src[0].value, &dest[0].value) else { panic!() };
        assert!(std::sync::Arc::ptr_eq(a, b));
    });
}

/// A folder of this test's own, gone when it is dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("calamary-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn list_files_stand_beside_the_configuration() {
    let folder = Folder::new("lists");
    folder.write(
        "ads.txt",
        "# ads\n0.0.0.0 ads.example\n||track.example^\nnot an entry\n192.0.2.0/24\n@@||x.example^\n\
         ||y.example^$popup\nads.example##.ad\nbad..name\n/ad/\n",
    );
    folder.write("empty.txt", "! nothing\n");
    folder.write("nets.txt", "192.0.2.0/24\n");
    let text = "
listen: [{port: 1}]
vars:
  - {name: ads, file: ads.txt}
  - {name: empty, file: empty.txt}
  - {name: unused, file: not-there.txt}
rules:
  - {dns: $ads, action: deny}
  - {dest: $ads, action: deny}
  - {dns: $empty, action: deny}
  - {action: accept}
";
    let path = folder.write("config.yml", text);
    let loaded = load_file(&path, LoadOptions::default()).unwrap();
    let (file, dir) = (path.display().to_string(), folder.0.display().to_string());
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            format!(
                "{file}:4:23: vars[0].file: `{dir}/ads.txt`: 2 lines are no entries and passed over: lines 4, 9"
            ),
            format!(
                "{file}:5:25: vars[1].file: `{dir}/empty.txt` holds no entry: it matches no traffic, and its negation every name or address"
            ),
            format!(
                "{file}:10:6: rules[2]: no traffic can match this rule: its fields exclude each other, or its variable is empty"
            ),
        ]
    );
    assert!(
        loaded.summary.ends_with(
            "rules: 4, variables: 3\n$ads: 2 names and 1 addresses from ads.txt; 1 exceptions; \
             for browsers only, passed over: 1 with options, 1 cosmetic, 1 patterns\n\
             $empty: 0 names and 0 addresses from empty.txt"
        ),
        "{}",
        loaded.summary
    );

    let check = |vars: &str, rule: &str, expected: &str| {
        let text = format!("listen: [{{port: 1}}]\nvars: [{vars}]\nrules: [{{{rule}, action: deny}}]\n");
        let problems = load(&text, &path, LoadOptions::default()).map(|loaded| loaded.summary).unwrap_err();
        assert_eq!(problems.to_string(), format!("{file}:{expected}"));
    };
    check("{name: n, file: nets.txt}", "dns: $n", "3:15: rules[0].dns: `$n` holds addresses, and no name");
    check(
        "{name: n, file: .}",
        "dns: $n",
        &format!("2:24: vars[0].file: `{dir}/.` cannot be read: not a regular file"),
    );
    check(
        "{name: n, file: \"x\\e[2J\"}",
        "dns: $n",
        &format!(
            "2:24: vars[0].file: `{dir}/x\\u{{1b}}[2J` cannot be read: No such file or directory (os error 2)"
        ),
    );
}

#[test]
fn files_that_are_no_text() {
    let folder = Folder::new("bytes");
    let check = |content: &[u8], expected: &str| {
        let path = folder.write("config.yml", content);
        let problems = load_file(&path, LoadOptions::default()).map(|loaded| loaded.summary).unwrap_err();
        assert_eq!(problems.to_string(), format!("{}:{expected}", path.display()));
    };
    check(b"listen:\n  - \xc3\xa4\xff", "2:6: this byte is not UTF-8: save the file as UTF-8");
    check(b"\xff\xfel\0i\0", "1:1: UTF-16 is not supported: save the file as UTF-8");
    check(b"listen:\n\0", "2:1: the character U+0000 is not allowed in YAML");
    check(b"\xef\xbb\xbflisten: []", "1:1: listen: there is no listener: without one there is nothing to do");
    check(&vec![b'#'; MAX_FILE_BYTES + 1], " larger than 4 MiB: long lists belong into list files");

    let missing = folder.0.join("missing.yml");
    let problems = load_file(&missing, LoadOptions::default()).map(|loaded| loaded.summary).unwrap_err();
    let expected = format!("{}: cannot be read: No such file or directory (os error 2)", missing.display());
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn problems_are_bounded() {
    let text = format!("listen: [{{port: 1}}]\nrules:\n{}", "  - {port: x, action: y}\n".repeat(1000));
    let problems = load_text(&text).map(|loaded| loaded.summary).unwrap_err();
    assert_eq!(problems.iter().count(), problem::MAX_PROBLEMS);
    assert_eq!(problems.omitted(), 2000 - problem::MAX_PROBLEMS);
    assert!(problems.to_string().ends_with("\nand 1900 more"));
}

/// Aliases of aliases: ten times ten times ten …
#[test]
fn aliases_cannot_blow_up() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    let problems = load_text(&text).map(|loaded| loaded.summary).unwrap_err();
    assert!(
        problems.to_string().contains("limit exceeded") || problems.to_string().contains("more than"),
        "{problems}"
    );

    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
    let problems = load_text(&text).map(|loaded| loaded.summary).unwrap_err();
    assert!(problems.to_string().contains("bytes of text"), "{problems}");

    let problems = load_text(&"[".repeat(1_000_000)).map(|loaded| loaded.summary).unwrap_err();
    assert!(problems.to_string().contains("recursion limit exceeded"), "{problems}");
    for nested in ["- ".repeat(200), "- ".repeat(1_000_000)] {
        let problems = load_text(&nested).map(|loaded| loaded.summary).unwrap_err();
        assert!(
            problems.to_string().contains("more than 128 lists and maps inside each other"),
            "{problems}"
        );
    }
}

#[test]
fn aliases_and_anchors_work() {
    let plan = accepted(
        "
listen:
  - &base {mode: http, port: 1}
  - {mode: http, port: 2, ip4: &ips [127.0.0.2], ip6: []}
  - {mode: http, port: 3, ip4: *ips, ip6: []}
",
    )
    .plan;
    assert_eq!(plan.service.listeners.len(), 4);
    // The place of a value is where it is written.
    let problems =
        load_text("listen: [{port: &p http}, {port: *p}]").map(|loaded| loaded.summary).unwrap_err();
    let expected = "config.yml:1:17: listen[0].port: `http` is not a port: a number 1-65535\n\
                    config.yml:1:17: listen[1].port: `http` is not a port: a number 1-65535";
    assert_eq!(problems.to_string(), expected);
}

/// A long inline variable loads in linear time: this takes minutes if it does not.
#[test]
fn long_variables_load() {
    let names: Vec<String> = (0..100_000).map(|n| format!("n{n}.example")).collect();
    let text = format!(
        "listen: [{{port: 1}}]\nvars: [{{name: n, value: [{}]}}]\nrules: [{{dns: $n, action: deny}}, {{dns: '!$n', action: accept}}]\n",
        names.join(", ")
    );
    assert_eq!(accepted(&text).plan.rules.len(), 2);
}

/// A small generator, so that a failure can be had again (xorshift, Marsaglia 2003).
struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % limit
    }
}

/// Whatever happens to a configuration, it is accepted or every problem has a place in it.
#[test]
fn mutated_texts_never_panic() {
    let pieces: &[&[u8]] = &[
        b"!",
        b"*",
        b"&",
        b"[",
        b"]",
        b"{",
        b"}",
        b":",
        b"-",
        b"#",
        b"'",
        b"\"",
        b"\n",
        b"\t",
        b" ",
        b"|\n",
        b">\n",
        b"---\n",
        b"...\n",
        b"!!str ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"\0",
        b"\xc3\xa4",
        b"\xff",
        b"\\x",
        b"$",
        b"99999999999999999999",
        b"1e999",
        b".nan",
        b"~",
        b"\xef\xbb\xbf",
        b"\r",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"%YAML 9.9\n",
    ];
    let mut random = Random(2_463_534_242);
    for round in 0..4000 {
        let seed = [BASIC, SERVICE, RULES, DEFAULT_CONFIG][round % 4];
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let end = (at + random.below(12)).min(bytes.len());
            match random.below(4) {
                0 => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied())),
                1 => drop(bytes.splice(at..end, pieces[random.below(pieces.len())].iter().copied())),
                2 => drop(bytes.drain(at..end)),
                _ => bytes[at] = random.below(256) as u8,
            }
            if bytes.is_empty() {
                bytes.push(b'a');
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match load_text(&text) {
            Ok(loaded) => {
                for warning in loaded.warnings {
                    assert!(warning.line > 0 && warning.column > 0, "{warning}\n{text}");
                }
            }
            Err(problems) => {
                assert!(problems.iter().count() > 0, "refused without a reason:\n{text}");
                for problem in problems.iter() {
                    assert!(problem.line > 0 && problem.column > 0, "{problem}\n{text}");
                    assert!(
                        problem.line as usize
                            <= text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count(),
                        "{problem}\n{text}"
                    );
                    assert!(!problem.to_string().contains('\n'), "{problem}");
                }
            }
        }
    }
}
