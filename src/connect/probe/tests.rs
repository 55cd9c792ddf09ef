//! Probes under a fake clock.

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

/// A prober and its clock.
struct World {
    prober: Prober,
    known: Arc<Known>,
    now: Instant,
}

impl World {
    fn new() -> World {
        let known = Arc::new(Known::default());
        World { prober: Prober::new(Arc::clone(&known), TIMEOUT), known, now: Instant::now() }
    }

    fn ask(&mut self, name: &str, asker: Asker) {
        self.prober.ask(target(name), asker, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.prober.expire(self.now);
    }

    /// What is to be done now: the probes that begin, and `name: who` for answers.
    fn happens(&mut self) -> (Vec<(ProbeId, String)>, Vec<String>) {
        let (mut begun, mut told) = (Vec::new(), Vec::new());
        while let Some(action) = self.prober.next_action() {
            match action {
                Action::Begin { id, target } => begun.push((id, target.name.to_string())),
                Action::Abandon { .. } => told.push("abandoned".into()),
                Action::Answer(Answer { asker, target, finding }) => told.push(format!(
                    "{} {}: {}",
                    asker.token,
                    target.name,
                    finding.reason().unwrap_or("valid")
                )),
            }
        }
        (begun, told)
    }

    /// The one probe that begins now.
    fn begun(&mut self) -> ProbeId {
        let (begun, told) = self.happens();
        assert_eq!((begun.len(), told.len()), (1, 0), "{begun:?} {told:?}");
        begun[0].0
    }

    fn end(&mut self, id: ProbeId, finding: Finding) {
        self.prober.ended(id, finding, None, self.now);
    }
}

fn target(name: &str) -> Target {
    Target::new(name, "192.0.2.1:443".parse().unwrap(), &[Box::from(&b"h2"[..])])
}

fn asker(token: usize, source: u8) -> Asker {
    Asker { worker: token % 4, token, source: IpAddr::from([192, 168, 1, source]) }
}

#[test]
fn many_who_ask_at_once_wait_for_one_probe() {
    let mut world = World::new();
    for token in 0..100 {
        world.ask("example.com", asker(token, token as u8));
    }
    let id = world.begun();
    world.end(id, Finding::Valid);
    let (begun, told) = world.happens();
    assert!(begun.is_empty());
    assert_eq!(told, (0..100).map(|token| format!("{token} example.com: valid")).collect::<Vec<_>>());
}

#[test]
fn a_probe_is_for_one_name_at_one_place_asked_in_one_way() {
    let mut world = World::new();
    let same = target("example.com");
    let h1 = Target { alpn: [Box::from(&b"http/1.1"[..])].into(), ..same.clone() };
    let elsewhere = Target { addr: "192.0.2.2:443".parse().unwrap(), ..same.clone() };
    let port = Target { addr: "192.0.2.1:8443".parse().unwrap(), ..same.clone() };
    for target in [same.clone(), h1, elsewhere, port, target("example.org"), same] {
        world.prober.ask(target, asker(1, 1), world.now);
    }
    assert_eq!(world.happens().0.len(), 5);
}

#[test]
fn what_is_known_counts_for_its_time() {
    let check = |finding: Finding, counts_for: Option<Duration>, time: Duration| {
        let mut world = World::new();
        world.ask("example.com", asker(1, 1));
        let id = world.begun();
        world.prober.ended(id, finding, counts_for, world.now);
        world.happens();
        world.now += time - Duration::from_millis(1);
        assert_eq!(world.known.get(&target("example.com"), world.now), Some(finding));
        world.ask("example.com", asker(2, 1));
        let word = finding.reason().unwrap_or("valid");
        assert_eq!(world.happens(), (vec![], vec![format!("2 example.com: {word}")]));
        world.now += Duration::from_millis(1);
        assert_eq!(world.known.get(&target("example.com"), world.now), None);
        world.ask("example.com", asker(3, 1));
        world.begun();
    };
    let secs = Duration::from_secs;
    check(Finding::Valid, None, secs(4 * 3600));
    check(Finding::Valid, Some(secs(1_000_000)), secs(4 * 3600));
    check(Finding::Valid, Some(secs(60)), secs(60));
    check(Finding::Invalid(Distrust::Expired), None, secs(300));
    check(Finding::Unknown(Doubt::Refused), None, secs(60));
}

#[test]
fn what_says_nothing_of_the_server_is_not_kept() {
    for doubt in [Doubt::WrongClock, Doubt::Busy] {
        let mut world = World::new();
        world.ask("example.com", asker(1, 1));
        let id = world.begun();
        world.end(id, Finding::Unknown(doubt));
        world.happens();
        world.ask("example.com", asker(2, 1));
        world.begun();
    }
}

#[test]
fn a_slow_server_costs_the_time_of_one_probe() {
    let mut world = World::new();
    world.ask("slow.example", asker(1, 1));
    let id = world.begun();
    world.pass(Duration::from_millis(300));
    world.ask("slow.example", asker(2, 1));
    world.pass(Duration::from_millis(199));
    assert_eq!(world.happens(), (vec![], vec![]));
    assert_eq!(world.prober.next_timeout(), Some(world.now + Duration::from_millis(1)));
    world.pass(Duration::from_millis(1));
    let told = ["abandoned", "1 slow.example: timeout", "2 slow.example: timeout"];
    assert_eq!(world.happens(), (vec![], told.map(String::from).into()));
    assert_eq!(world.prober.next_timeout(), None);
    // Its late end is nobody's, and it is not asked again for a while.
    world.end(id, Finding::Valid);
    world.ask("slow.example", asker(3, 1));
    assert_eq!(world.happens(), (vec![], vec!["3 slow.example: timeout".into()]));
}

#[test]
fn so_many_run_and_the_others_wait_for_a_place_or_too_long() {
    let mut world = World::new();
    for n in 0..MAX_RUNNING + 2 {
        world.ask(&format!("{n}.example"), asker(n, n as u8));
    }
    let (begun, told) = world.happens();
    assert_eq!((begun.len(), told.len()), (MAX_RUNNING, 0));
    world.end(begun[3].0, Finding::Valid);
    let (next, told) = world.happens();
    assert_eq!(next[0].1, format!("{MAX_RUNNING}.example"));
    assert_eq!(told, ["3 3.example: valid"]);
    world.pass(TIMEOUT);
    let (begun, told) = world.happens();
    let last = MAX_RUNNING + 1;
    assert!(begun.is_empty() && told.contains(&format!("{last} {last}.example: busy")), "{told:?}");
    // Nobody knows of the one that had no turn.
    world.ask(&format!("{last}.example"), asker(1, 1));
    world.begun();
}

/// Else some who ask for silent servers would make every other one unknown for a minute.
#[test]
fn a_probe_that_had_to_wait_and_took_too_long_says_nothing_of_the_server() {
    let mut world = World::new();
    for n in 0..MAX_RUNNING {
        world.ask(&format!("{n}.example"), asker(n, n as u8));
    }
    let (begun, _) = world.happens();
    world.ask("late.example", asker(99, 99));
    world.pass(TIMEOUT - Duration::from_millis(1));
    world.end(begun[0].0, Finding::Valid);
    assert_eq!(world.happens().0[0].1, "late.example");
    world.pass(Duration::from_millis(1));
    let (_, told) = world.happens();
    assert!(told.contains(&"99 late.example: busy".to_owned()), "{told:?}");
    assert_eq!(world.known.get(&target("late.example"), world.now), None);
    assert!(world.known.get(&target("1.example"), world.now).is_some());
}

/// A poll's largest token is the waker's, also where `usize` has 32 bits.
#[test]
fn no_probe_has_the_largest_number() {
    let mut world = World::new();
    world.prober.last_id = u32::MAX - 2;
    for n in 0..4 {
        world.ask(&format!("{n}.example"), asker(n, 1));
    }
    let ids: Vec<u32> = world.happens().0.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [u32::MAX - 1, 0, 1, 2]);
}

#[test]
fn who_asks_for_much_leaves_places_to_others() {
    let mut world = World::new();
    for n in 0..MAX_PER_SOURCE + 10 {
        world.ask(&format!("{n}.example"), asker(n, 1));
    }
    let (begun, told) = world.happens();
    assert_eq!(begun.len(), MAX_RUNNING_PER_SOURCE);
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|line| line.ends_with(": busy")), "{told:?}");
    // Others come at once, whoever waits longer.
    for n in 0..MAX_RUNNING - MAX_RUNNING_PER_SOURCE {
        world.ask(&format!("other{n}.example"), asker(n, 2));
        world.begun();
    }
    world.ask("last.example", asker(1, 3));
    assert_eq!(world.happens(), (vec![], vec![]));
    world.end(begun[0].0, Finding::Valid);
    assert_eq!(world.happens().0[0].1, "last.example");
}

#[test]
fn all_of_it_is_bounded() {
    let mut world = World::new();
    for n in 0..10_000_usize {
        let source = IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        world.prober.ask(target(&format!("{n}.example")), Asker { worker: 0, token: n, source }, world.now);
    }
    assert_eq!(world.prober.flights.len(), MAX_RUNNING + MAX_WAITING);
    for n in 0..2 * MAX_ASKERS {
        world.ask("0.example", asker(n, 9));
    }
    assert_eq!(world.prober.flights[&target("0.example")].askers.len(), MAX_ASKERS);
    world.pass(TIMEOUT);
    world.happens();
    assert!(world.prober.flights.is_empty() && world.prober.waiting.is_empty());
    assert!(world.prober.running.is_empty());
}

#[test]
fn other_roots_make_everything_unknown() {
    let mut world = World::new();
    world.ask("known.example", asker(1, 1));
    let id = world.begun();
    world.end(id, Finding::Valid);
    world.ask("under-way.example", asker(2, 1));
    let (begun, _) = world.happens();
    world.prober.forget();
    world.end(begun[0].0, Finding::Valid);
    assert_eq!(world.happens().1, ["2 under-way.example: valid"]);
    for name in ["known.example", "under-way.example"] {
        assert_eq!(world.known.get(&target(name), world.now), None);
    }
}

#[test]
fn what_a_client_offers_is_asked_for_within_bounds() {
    let protocol = |text: &str| Box::from(text.as_bytes());
    let alpn = |offered: &[&str]| {
        let offered: Vec<Box<[u8]>> = offered.iter().map(|text| protocol(text)).collect();
        Target::new("example.com", "192.0.2.1:443".parse().unwrap(), &offered).alpn
    };
    assert_eq!(*alpn(&["h2", "http/1.1"]), [protocol("h2"), protocol("http/1.1")]);
    let long = "x".repeat(MAX_ALPN_BYTES);
    assert_eq!(*alpn(&["h2", &long, "http/1.1"]), [protocol("h2")]);
    assert!(alpn(&[&long]).is_empty() && alpn(&[]).is_empty());
    assert_eq!(*alpn(&["", "h2", ""]), [protocol("h2")]);
}
