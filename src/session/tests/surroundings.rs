//! Facts that are looked up on the way: the time, and what ends with it.

use super::*;

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
