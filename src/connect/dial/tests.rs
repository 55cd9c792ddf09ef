use super::*;

const CONNECT: Duration = Duration::from_millis(2000);

/// What happens to an attempt.
#[derive(Clone, Copy)]
enum Fate {
    /// Connected after so many milliseconds.
    Up(u64),
    /// Failed after so many milliseconds.
    Down(u64, io::ErrorKind),
    /// Nothing ever.
    Silent,
}
use Fate::{Down, Silent, Up};
use io::ErrorKind::{ConnectionRefused, NetworkUnreachable};

/// Plays a dialer against servers under a fake clock and returns what it did, a line for each: milliseconds since the
/// start, then `+host` for a start, `-host` for giving up, `=host` for the connection, or the error.
fn play(addrs: &[(&str, Fate)], rounds: u32) -> Vec<String> {
    let start = Instant::now();
    let mut now = start;
    let list: Vec<SocketAddr> = addrs.iter().map(|(a, _)| SocketAddr::new(a.parse().unwrap(), 443)).collect();
    let mut dialer = Dialer::new(list.clone(), rounds, CONNECT);
    let mut under_way: Vec<(u8, usize, Instant)> = Vec::new();
    let mut lines = Vec::new();
    loop {
        let ms = now.duration_since(start).as_millis();
        match dialer.poll(now) {
            Dial::Start { attempt, addr } => {
                assert!(attempt < MAX_ATTEMPTS);
                assert!(under_way.iter().all(|u| u.0 != attempt), "{attempt} is under way");
                let i = list.iter().position(|a| *a == addr).unwrap();
                assert!(under_way.iter().all(|u| u.1 != i), "{addr} twice");
                lines.push(format!("{ms} +{}", addrs[i].0));
                let after = match addrs[i].1 {
                    Up(ms) | Down(ms, _) => Duration::from_millis(ms),
                    Silent => Duration::from_secs(3600),
                };
                under_way.push((attempt, i, now + after));
            }
            Dial::Abandon { attempt } => {
                let at = under_way.iter().position(|u| u.0 == attempt).unwrap();
                lines.push(format!("{ms} -{}", addrs[under_way.remove(at).1].0));
            }
            Dial::Failed(error) => {
                assert!(under_way.is_empty());
                lines.push(format!("{ms} {error:?}"));
                return lines;
            }
            Dial::Wait { until } => {
                assert!(until > now);
                let event =
                    (0..under_way.len()).min_by_key(|&i| under_way[i].2).filter(|&i| under_way[i].2 <= until);
                let Some(event) = event else {
                    now = until;
                    continue;
                };
                let (attempt, i, at) = under_way.remove(event);
                now = at;
                let ms = now.duration_since(start).as_millis();
                if let Down(_, kind) = addrs[i].1 {
                    dialer.failed(attempt, &kind.into(), now);
                    continue;
                }
                lines.push(format!("{ms} ={}", addrs[i].0));
                for attempt in dialer.connected(attempt) {
                    let at = under_way.iter().position(|u| u.0 == attempt).unwrap();
                    lines.push(format!("{ms} -{}", addrs[under_way.remove(at).1].0));
                }
                assert!(under_way.is_empty());
                return lines;
            }
        }
    }
}

#[track_caller]
fn check(addrs: &[(&str, Fate)], rounds: u32, expected: &[&str]) {
    assert_eq!(play(addrs, rounds), expected);
}

#[test]
fn one_address() {
    check(&[("192.0.2.1", Up(20))], 2, &["0 +192.0.2.1", "20 =192.0.2.1"]);
    check(&[("192.0.2.1", Down(5, ConnectionRefused))], 1, &["0 +192.0.2.1", "5 Refused"]);
    let twice = ["0 +192.0.2.1", "5 +192.0.2.1", "10 Refused"];
    check(&[("192.0.2.1", Down(5, ConnectionRefused))], 2, &twice);
    check(&[("192.0.2.1", Silent)], 1, &["0 +192.0.2.1", "2000 -192.0.2.1", "2000 TimedOut"]);
}

#[test]
fn ipv6_first_whatever_the_order() {
    check(&[("192.0.2.1", Up(1)), ("2001:db8::1", Up(1))], 1, &["0 +2001:db8::1", "1 =2001:db8::1"]);
}

#[test]
fn a_failure_starts_the_next_at_once() {
    let addrs = [("2001:db8::1", Down(0, NetworkUnreachable)), ("192.0.2.1", Up(30))];
    check(&addrs, 1, &["0 +2001:db8::1", "0 +192.0.2.1", "30 =192.0.2.1"]);
}

#[test]
fn a_slow_family_loses_after_the_delay() {
    let addrs = [("2001:db8::1", Up(400)), ("192.0.2.1", Up(30))];
    check(&addrs, 1, &["0 +2001:db8::1", "250 +192.0.2.1", "280 =192.0.2.1", "280 -2001:db8::1"]);
    // ... and wins if it is faster after all.
    let addrs = [("2001:db8::1", Up(260)), ("192.0.2.1", Up(30))];
    check(&addrs, 1, &["0 +2001:db8::1", "250 +192.0.2.1", "260 =2001:db8::1", "260 -192.0.2.1"]);
}

#[test]
fn families_take_turns() {
    let addrs = [
        ("2001:db8::1", Down(0, NetworkUnreachable)),
        ("2001:db8::2", Down(0, NetworkUnreachable)),
        ("2001:db8::3", Down(0, NetworkUnreachable)),
        ("192.0.2.1", Down(0, NetworkUnreachable)),
        ("192.0.2.2", Down(0, ConnectionRefused)),
    ];
    let order = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"];
    let mut expected: Vec<String> = order.iter().map(|a| format!("0 +{a}")).collect();
    expected.push("0 Refused".into());
    assert_eq!(play(&addrs, 1), expected);
}

#[test]
fn a_round_ends_in_time_and_the_next_tries_all_again() {
    let addrs = [("2001:db8::1", Silent), ("192.0.2.1", Down(100, NetworkUnreachable))];
    check(
        &addrs,
        2,
        &[
            "0 +2001:db8::1",
            "250 +192.0.2.1",
            "2000 -2001:db8::1",
            "2000 +2001:db8::1",
            "2250 +192.0.2.1",
            "4000 -2001:db8::1",
            "4000 TimedOut",
        ],
    );
}

#[test]
fn a_short_round_has_a_turn_for_every_address() {
    let start = Instant::now();
    let addrs: Vec<SocketAddr> = (1..=4).map(|n| SocketAddr::from(([192, 0, 2, n], 80))).collect();
    let mut dialer = Dialer::new(addrs, 1, Duration::from_millis(100));
    let (mut now, mut started) = (start, 0);
    loop {
        match dialer.poll(now) {
            Dial::Start { .. } => started += 1,
            Dial::Wait { until } => now = until,
            Dial::Abandon { .. } => {}
            Dial::Failed(_) => break,
        }
    }
    assert_eq!((started, now - start), (4, Duration::from_millis(100)));
}

#[test]
fn at_most_eight_addresses_and_no_doubles() {
    let mut addrs: Vec<SocketAddr> = (0..20).map(|n| SocketAddr::from(([192, 0, 2, n / 2], 80))).collect();
    addrs.push("[2001:db8::1]:80".parse().unwrap());
    let dialer = Dialer::new(addrs, 1, CONNECT);
    assert_eq!(dialer.addrs.len(), MAX_ADDRESSES);
    assert!(dialer.addrs[0].is_ipv6());
    assert_eq!(dialer.addrs[7], "192.0.2.6:80".parse().unwrap());
}

#[test]
fn late_and_unknown_news_is_ignored() {
    let now = Instant::now();
    let mut dialer = Dialer::new(vec!["192.0.2.1:80".parse().unwrap()], 2, CONNECT);
    let Dial::Start { attempt: first, .. } = dialer.poll(now) else { panic!() };
    let later = now + CONNECT;
    assert_eq!(dialer.poll(later), Dial::Abandon { attempt: first });
    let Dial::Start { attempt: second, .. } = dialer.poll(later) else { panic!() };
    assert_ne!(first, second);
    for attempt in [first, 15, 16, 255] {
        dialer.failed(attempt, &ConnectionRefused.into(), later);
    }
    assert_eq!(dialer.poll(later), Dial::Wait { until: later + CONNECT });
    assert_eq!(dialer.connected(second), []);
}

#[test]
fn a_connection_in_the_last_moment_counts_and_leaves_nothing_open() {
    let now = Instant::now();
    let addrs = (1..=3).map(|n| SocketAddr::from(([192, 0, 2, n], 80))).collect();
    let mut dialer = Dialer::new(addrs, 2, CONNECT);
    let mut started = Vec::new();
    for n in 0..3 {
        let Dial::Start { attempt, .. } = dialer.poll(now + ATTEMPT_DELAY * n) else { panic!() };
        started.push(attempt);
    }
    // The round is over, the first attempt was given up; then the last one stands.
    assert_eq!(dialer.poll(now + CONNECT), Dial::Abandon { attempt: started[0] });
    assert_eq!(dialer.connected(started[2]), [started[1]]);
    assert!(matches!(dialer.poll(now + CONNECT), Dial::Failed(_)), "no further round");
}

#[test]
fn nothing_to_dial() {
    assert_eq!(Dialer::new(Vec::new(), 3, CONNECT).poll(Instant::now()), Dial::Failed(DialError::Other));
}

#[test]
fn an_attempt_that_is_put_off_waits_for_the_one_before() {
    let now = Instant::now();
    let addr = |host: u8| SocketAddr::from(([192, 0, 2, host], 443));
    let mut dialer = Dialer::new(vec![addr(1), addr(2)], 1, CONNECT);
    let Dial::Start { attempt: first, addr: to } = dialer.poll(now) else { panic!() };
    assert_eq!(to, addr(1));
    let later = now + ATTEMPT_DELAY;
    assert_eq!(dialer.poll(now), Dial::Wait { until: later });
    let Dial::Start { attempt: second, addr: to } = dialer.poll(later) else { panic!() };
    assert_eq!(to, addr(2));
    dialer.put_off(second, later);
    assert_eq!(dialer.poll(later), Dial::Wait { until: later + ATTEMPT_DELAY });
    dialer.failed(first, &ConnectionRefused.into(), later);
    assert_eq!(dialer.poll(later), Dial::Start { attempt: second, addr: addr(2) });
    assert_eq!(dialer.connected(second), []);
}
