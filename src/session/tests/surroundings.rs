//! Facts that are looked up on the way: the time, and what ends with it.

use std::net::SocketAddr;

use super::*;
use crate::decide::rules::RuleSpec;
use crate::metrics::Metrics;
use crate::session::flow::{Act, Flow};
use crate::session::record::Kept;

#[test]
fn the_time_is_asked_where_a_rule_does() {
    let rules = config(
        "mode: transparent",
        &["action: deny, time: 'mon-fri 22:00-06:00', port: 22", "action: accept, port: [22, 23]"],
    );
    let check = |clock: &str, to: &str, want: &str| {
        let begun = talk(&rules, &[(In::Clock(clock), ""), (In::To(to), want)]);
        begun.session.facts().time.is().map(ToString::to_string)
    };
    assert_eq!(check("mon-21:59", "198.51.100.1:22", "Accept 1, dial 198.51.100.1:22").unwrap(), "mon-21:59");
    check("mon-22:00", "198.51.100.1:22", "Denied 0, close denied: reset");
    check("sat-05:59", "198.51.100.1:22", "Denied 0, close denied: reset");
    check("sun-23:00", "198.51.100.1:22", "Accept 1, dial 198.51.100.1:22");
    assert_eq!(check("mon-22:00", "198.51.100.1:23", "Accept 1, dial 198.51.100.1:23"), None);
}

#[test]
fn what_a_window_let_in_ends_with_it_where_that_is_wanted() {
    let rules = |end_at_close: bool| {
        let rules = &["action: accept, time: '08:00-20:00', port: 443", "action: accept, port: 22"];
        format!("{}endAtClose: {end_at_close}\n", config("mode: transparent", rules))
    };
    let open = |clock, to, dial| {
        [
            (In::Clock(clock), ""),
            (In::To(to), dial),
            (In::Connected, "tunnel 0"),
            (In::Clock("mon-19:59"), ""),
        ]
    };
    let watched = open("mon-19:00", SERVER, "Accept 0, dial 198.51.100.1:443");
    let mut session = talk(&rules(true), &watched);
    go_on(
        &mut session,
        &[
            (In::Review, "goes on"),
            // The clock was wrong and is set: it is asked anew each time.
            (In::Clock("wed-20:00"), ""),
            (In::Review, "window_closed"),
        ],
    );
    let mut session = talk(&rules(false), &watched);
    go_on(&mut session, &[(In::Review, "not reviewed")]);
    // What no rule asked for cannot matter.
    let unwatched = open("mon-19:00", "198.51.100.1:22", "Accept 1, dial 198.51.100.1:22");
    let mut session = talk(&rules(true), &unwatched);
    go_on(&mut session, &[(In::Review, "not reviewed")]);
}

/// Behind the window the rules want to see more than they did: what they did not see is not let in.
#[test]
fn what_would_have_to_be_looked_at_closer_ends_too() {
    let rules = &["action: accept, time: '08:00-20:00'", "action: accept, protoL5: tls"];
    let rules = format!("{}endAtClose: true\n", config("mode: transparent", rules));
    talk(
        &rules,
        &[
            (In::Clock("mon-19:00"), ""),
            (In::To(SERVER), "Accept 0, dial 198.51.100.1:443"),
            (In::Connected, "tunnel 0"),
            (In::Clock("mon-20:00"), ""),
            (In::Review, "window_closed"),
        ],
    );
}

/// A window may also begin to deny.
#[test]
fn bedtime_ends_what_was_let_in_before() {
    let rules = &["action: deny, time: '21:00-07:00'", "action: accept"];
    let rules = format!("{}endAtClose: true\n", config("mode: http", rules));
    talk(
        &rules,
        &[
            (In::Clock("sun-20:00"), ""),
            (In::Start, "read until 1000"),
            (
                In::Bytes(b"CONNECT 198.51.100.1:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
                "Accept 1, dial 198.51.100.1:443",
            ),
            (In::Connected, "200, tunnel 0"),
            (In::Clock("sun-20:59"), ""),
            (In::Review, "goes on"),
            (In::Clock("mon-06:59"), ""),
            (In::Review, "window_closed"),
        ],
    );
}

/// Also where no rule has asked for the time.
#[test]
fn what_an_exception_let_in_ends_with_it_where_that_is_wanted() {
    let open = |end_at_close: bool| {
        let rules = config("mode: transparent", &["action: deny, port: 443"]);
        let mut session = Simulation::new(&format!("{rules}endAtClose: {end_at_close}\n"));
        let everything = RuleSpec { action: Action::Accept, fields: Vec::new() };
        session.home.passes = Some(Arc::new(Ruleset::new(vec![everything])));
        let accepted = "Accept pass, dial 198.51.100.1:443";
        go_on(&mut session, &[(In::To(SERVER), accepted), (In::Connected, "tunnel 0")]);
        session
    };
    let mut session = open(true);
    go_on(&mut session, &[(In::Review, "goes on")]);
    session.home.passes = None;
    go_on(&mut session, &[(In::Review, "window_closed")]);
    go_on(&mut open(false), &[(In::Review, "not reviewed")]);
}

/// A first datagram may come before the kernel knows its sender. Who is known stays who he was, though the kernel forgets him.
#[test]
#[cfg_attr(not(feature = "household"), ignore = "this build knows no devices")]
fn who_was_not_known_is_looked_up_again_when_the_time_is() {
    let rules = &[
        "action: deny, device: tablet, time: '21:00-07:00'",
        "action: accept, device: [phone, unknown]",
        "action: accept, device: tablet",
    ];
    let rules = format!("{}endAtClose: true\n", config("mode: transparent", rules));
    let begin = |clock: &str, device: Device, accepted: &str| {
        let mut session = Simulation::new(&rules);
        session.home.device.1 = device;
        go_on(
            &mut session,
            &[
                (In::Clock(clock), ""),
                (In::To(SERVER), accepted),
                (In::Connected, "tunnel 0"),
                (In::Review, "goes on"),
            ],
        );
        session
    };
    let tablet = || Simulation::new(&rules).home.device.1;
    let mut session = begin("mon-21:30", Device::default(), "Accept 1, dial 198.51.100.1:443");
    session.home.device.1 = tablet();
    go_on(&mut session, &[(In::Review, "window_closed")]);
    let mut session = begin("mon-20:30", tablet(), "Accept 2, dial 198.51.100.1:443");
    session.home.device.1 = Device::default();
    go_on(
        &mut session,
        &[(In::Review, "goes on"), (In::Clock("mon-21:00"), ""), (In::Review, "window_closed")],
    );
}

fn hello(name: &str) -> Vec<u8> {
    let message = fixture::HelloBody::new(vec![fixture::server_name(name)]).message();
    fixture::records(&message, 1000)
}

/// What is observed is told before the verdict, which it does not change; what it hangs on is obtained for what is accepted,
/// as it would be for a rule that decides.
#[test]
fn an_observing_rule_is_told_and_passed() {
    let rules = config(
        "mode: transparent",
        &[
            "action: observe, dns: .ads.example",
            "action: observe, port: [22, 443]",
            "action: accept, port: 443",
            "action: observe",
        ],
    );
    let ads = hello("www.ads.example");
    let after_ads = "Observe 0, Observe 1, Accept 2, dial 198.51.100.1:443";
    talk(&rules, &[(In::To(SERVER), "read until 1000"), (In::Bytes(&ads), after_ads)]);
    let other = hello("www.example.com");
    let after_other = "Observe 1, Accept 2, dial 198.51.100.1:443";
    talk(&rules, &[(In::To(SERVER), "read until 1000"), (In::Bytes(&other), after_other)]);
    // What is denied is not looked at any closer.
    talk(&rules, &[(In::To("198.51.100.1:22"), "Observe 1, Observe 3, Denied default, close denied: reset")]);
    talk(&rules, &[(In::To("127.0.0.1:443"), "Denied always, close denied: reset")]);
}

#[test]
fn a_limit_refuses_what_a_rule_accepts() {
    let limit = "action: accept, port: 443, limit: { connections: 1 }";
    let rules = config("mode: http", &[limit, "action: accept"]);
    let first = talk(
        &rules,
        &[
            (In::Start, "read until 1000"),
            (
                In::Bytes(b"CONNECT 198.51.100.1:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
                "Accept 0, dial 198.51.100.1:443",
            ),
        ],
    );
    let plan = Arc::clone(&first.plan);
    let second = |want: &str| {
        let mut second = Simulation::new(&rules);
        second.plan = Arc::clone(&plan);
        let listener = plan.service.listeners[0].clone();
        second.session =
            Session::new(Arc::clone(&plan), &listener, "192.168.1.20:51235".parse().unwrap(), second.now);
        go_on(
            &mut second,
            &[
                (In::Start, "read until 1000"),
                (In::Bytes(b"CONNECT 198.51.100.1:443 HTTP/1.1\r\nHost: a\r\n\r\n"), want),
            ],
        );
        second
    };
    let refused = second("Denied 0, close limit: 503");
    let verdict = refused.session.verdict().unwrap();
    let fields = refused.session.fields(verdict);
    assert!(fields.iter().any(|(key, _)| *key == "limit"));
    // The place is free again when the first is over.
    drop(first);
    second("Accept 0, dial 198.51.100.1:443");
}

#[test]
#[cfg_attr(not(feature = "household"), ignore = "this build knows no devices")]
fn a_device_is_looked_up_where_a_rule_hangs_on_it() {
    let rules = &["action: deny, device: tablet, port: 443", "action: accept, port: [22, 443]"];
    let rules = config("mode: transparent", rules);
    let denied = talk(&rules, &[(In::To(SERVER), "Denied 0, close denied: reset")]);
    assert_eq!(denied.home.asked.load(Ordering::Relaxed), 1);
    let verdict = denied.session.verdict().unwrap();
    assert!(denied.session.fields(verdict).iter().any(|(key, _)| *key == "device"));
    let accepted = talk(&rules, &[(In::To("198.51.100.1:22"), "Accept 1, dial 198.51.100.1:22")]);
    assert_eq!(accepted.home.asked.load(Ordering::Relaxed), 0);
}

/// Whoever speaks for a client in a PROXY header is our neighbour; the client is not, whatever its address.
#[test]
#[cfg_attr(not(feature = "household"), ignore = "this build knows no devices")]
fn a_client_behind_a_proxy_header_is_no_neighbour() {
    let rules = &[
        "action: deny, mac: '02:00:00:00:00:01'",
        "action: deny, mac: '!02:00:00:00:00:02'",
        "action: accept",
    ];
    let header = b"PROXY TCP4 192.168.1.20 198.51.100.1 5000 443\r\n";
    let accepted = "Accept 2, dial 198.51.100.1:443";
    let rules = config("mode: proxyproto", rules);
    talk(&rules, &[(In::Start, "read until 1000"), (In::Bytes(header), accepted)]);
    let transparent = rules.replace("proxyproto", "transparent");
    talk(&transparent, &[(In::To(SERVER), "Denied 0, close denied: reset")]);
}

/// A flow of datagrams is looked at behind each minute, too.
#[test]
fn a_flow_ends_with_its_window() {
    let rules = &["action: accept, time: '08:00-20:00'"];
    let rules =
        format!("{}endAtClose: true\ntimeout: {{ udpIdle: 600000 }}\n", config("mode: transparent", rules));
    let Simulation { plan, locals, mut verdicts, preludes, mut home, memory, now, .. } =
        Simulation::new(&rules);
    let (mut record, metrics) = (Kept::default(), Metrics::new());
    let listener = Arc::new(plan.service.listeners[0].clone());
    let (client, server): (SocketAddr, SocketAddr) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    macro_rules! env {
        ($now:expr) => {
            &mut Env {
                now: $now,
                plan: &plan,
                locals: &locals,
                preludes: &preludes,
                surroundings: &home,
                memory: &memory,
                report: &mut verdicts,
            }
        };
    }
    let wish = Wish::Address(server);
    let (mut flow, act) =
        Flow::<Session>::begin(&listener, client, None, wish, false, b"datagram", env!(now));
    assert_eq!(act, Act::Connect(vec![server]));
    let act = flow.connected(server, LOCAL.parse().unwrap(), &mut record, &metrics, env!(now));
    assert_eq!(act, Act::Send(vec![b"datagram".to_vec()]));
    let minute = flow.due().unwrap();
    assert!(minute > now + Duration::from_secs(60) && minute < now + Duration::from_secs(61));
    assert_eq!(flow.expired(env!(minute)), Act::Wait);
    home.time = "mon-20:00".parse().unwrap();
    let next = flow.due().unwrap();
    assert!(next > minute + Duration::from_secs(59), "{:?}", next - minute);
    assert_eq!(flow.expired(env!(next)), Act::End(CloseReason::WindowClosed));
}
