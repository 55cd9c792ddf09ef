//! What the rules of a household ask of the world: the time, and whose device a client is.
//!
//! Devices are looked up only if a rule hangs on one, or somebody asks: from then on a thread follows the kernel's neighbours.
//! Nobody waits for it. A client that it has not seen yet is looked for at once, by one dump of the table, which the kernel
//! has at hand: in answering a connection it has just sent that client something. Who sends a first datagram may be unknown
//! to the kernel, too.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::passes::Passes;
use crate::config::{Devices, Plan};
use crate::decide::device::{Mac, UNKNOWN};
use crate::decide::rules::Ruleset;
use crate::decide::week::WeekTime;
use crate::devices::Names;
use crate::session::{Device, Surroundings};
use crate::sys::addresses::{self, AddressWatch};
use crate::sys::threads;
use crate::sys::time::{self, WallClock};

/// Neighbours that are kept in mind: many more than a kernel keeps by itself.
const MAX_NEIGHBOURS: usize = 16_384;
/// Bytes of a leases file that are read.
const MAX_LEASES_BYTES: u64 = 1 << 20;
/// Clients who are looked for at once within a `WHILE`; each at most once.
const MAX_SEARCHES: usize = 50;
const WHILE: Duration = Duration::from_secs(1);
/// How often the neighbours are read where there is no word of changes.
const RETRY: Duration = Duration::from_secs(1);

/// The surroundings of the running program.
#[derive(Debug, Default)]
pub struct Household {
    known: RwLock<Known>,
    searches: Mutex<Searches>,
    reading: Mutex<()>,
    follower: Mutex<bool>,
    plan: RwLock<Option<Arc<Plan>>>,
    passes: Passes,
}

/// Who is known.
#[derive(Debug, Default)]
struct Known {
    configured: Option<Arc<Devices>>,
    neighbours: HashMap<IpAddr, Mac>,
    leases: Names,
    /// What the leases file was when it was read.
    stamp: Option<Stamp>,
}

/// What changes with the contents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// Who was looked for lately.
#[derive(Debug, Default)]
struct Searches {
    since: Option<Instant>,
    clients: HashSet<IpAddr>,
}

impl Surroundings for Household {
    fn week_time(&self) -> (WeekTime, Duration) {
        let now = time::now();
        (week_time_at(now), minute_left(now))
    }

    fn passes(&self, now: Instant) -> Option<Arc<Ruleset>> {
        if cfg!(feature = "household") { self.passes.rules(now) } else { None }
    }

    fn device(&self, client: IpAddr, neighbour: bool) -> Device {
        if !cfg!(feature = "household") {
            return Device::default();
        }
        let found = self.find(client, neighbour);
        let is_missing = (neighbour && found.mac.is_none()) || *found.name == *UNKNOWN;
        if is_missing && self.may_search(client, Instant::now()) {
            self.refresh();
            return self.find(client, neighbour);
        }
        found
    }
}

impl Household {
    /// From now on by this plan. Begins to follow the neighbours if its rules ask for devices.
    pub fn follow(self: &Arc<Self>, plan: &Arc<Plan>) {
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(plan));
        if !cfg!(feature = "household") {
            return;
        }
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Those of the same file stay until it is read again: nobody is unknown in between.
            if known.configured.as_ref().is_none_or(|old| old.leases != plan.devices.leases) {
                (known.leases, known.stamp) = (Names::default(), None);
            }
            known.configured = Some(Arc::clone(&plan.devices));
        }
        if plan.rules.asks_device() {
            self.follow_neighbours();
        } else if self.is_following() {
            self.refresh();
        }
    }

    /// Begins to follow the neighbours, once.
    pub fn follow_neighbours(self: &Arc<Self>) {
        let mut following = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if *following {
            self.refresh();
            return;
        }
        *following = true;
        // Listening comes first, or a change in between would be missed.
        let watch = AddressWatch::neighbours();
        self.refresh();
        let household = Arc::clone(self);
        let started = watch.and_then(|watch| {
            let follow = move || household.follow_for_ever(watch);
            threads::spawn("neighbours", threads::STACK_SIZE, follow)
        });
        if let Err(error) = started {
            log::warn!("cannot follow the neighbours, each is looked for when it comes: {error}");
        }
    }

    /// The plan in force.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a device reach a name for a while, see [`Passes::add`].
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn add_pass(self: &Arc<Self>, time: &str, device: &str, name: &str) -> Result<(), String> {
        self.passes.add(time, device, name, Instant::now())?;
        self.follow_neighbours();
        Ok(())
    }

    /// Whether the neighbours are known.
    pub fn is_following(&self) -> bool {
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow_for_ever(&self, mut watch: AddressWatch) {
        let mut complained = false;
        loop {
            match watch.wait() {
                Ok(()) => {}
                Err(error) => {
                    if !complained {
                        log::warn!("cannot follow the neighbours, they are read each second: {error}");
                        complained = true;
                    }
                    std::thread::sleep(RETRY);
                }
            }
            self.refresh();
        }
    }

    /// The name of a device that was seen already: nobody is looked for.
    pub fn seen(&self, client: IpAddr, neighbour: bool) -> Box<str> {
        self.find(client, neighbour).name
    }

    fn find(&self, client: IpAddr, neighbour: bool) -> Device {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mac = if neighbour { known.neighbours.get(&client).copied() } else { None };
        let configured = known.configured.as_ref().and_then(|devices| devices.names.find(client, mac));
        // A client chooses its hostname: it does not become one of those that somebody has named.
        let is_taken =
            |name: &str| known.configured.as_ref().is_some_and(|devices| devices.called.contains(name));
        let leased = || known.leases.find(client, mac).filter(|name| neighbour && !is_taken(name));
        Device { mac, name: configured.or_else(leased).unwrap_or(UNKNOWN).into() }
    }

    /// Whether nobody has looked for this client a while ago, and not too many others were looked for.
    fn may_search(&self, client: IpAddr, now: Instant) -> bool {
        let mut searches = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        if searches.since.is_none_or(|since| now.saturating_duration_since(since) >= WHILE) {
            searches.since = Some(now);
            searches.clients.clear();
        }
        searches.clients.len() < MAX_SEARCHES && searches.clients.insert(client)
    }

    /// Reads the neighbours, and the leases if they have changed. What cannot be read stays as it was.
    fn refresh(&self) {
        // One after the other, or what was read first could be what stays.
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let neighbours = addresses::neighbours();
        let (path, stamp) = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            (known.configured.as_ref().and_then(|devices| devices.leases.clone()), known.stamp)
        };
        let leases = path.as_deref().and_then(|path| changed_leases(path, stamp));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match neighbours {
            Ok(neighbours) => {
                let neighbours = neighbours.into_iter().take(MAX_NEIGHBOURS);
                known.neighbours = neighbours.map(|(addr, mac)| (addr, Mac(mac))).collect();
            }
            Err(error) => log::debug!("cannot read the neighbours: {error}"),
        }
        if let Some((leases, stamp)) = leases {
            (known.leases, known.stamp) = (leases, stamp);
        }
    }
}

/// The names of a leases file that is not the one of `stamp`. One that is gone or cannot be read has none.
fn changed_leases(path: &Path, stamp: Option<Stamp>) -> Option<(Names, Option<Stamp>)> {
    let now = std::fs::metadata(path).ok();
    let now = now.map(|file| Stamp {
        device: file.dev(),
        inode: file.ino(),
        len: file.len(),
        modified: (file.mtime(), file.mtime_nsec()),
    });
    if now == stamp {
        return None;
    }
    let text = read(path).unwrap_or_default();
    Some((Names::of_leases(&text), now))
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_LEASES_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Local time, now. The clock is looked at anew each time: that of a router jumps when NTP answers.
pub fn week_time() -> WeekTime {
    week_time_at(time::now())
}

fn week_time_at(now: WallClock) -> WeekTime {
    let local = time::local(now.secs);
    WeekTime::new(local.weekday, local.hour, local.minute)
}

/// How long the clock on the wall goes on showing the minute that it shows. Zones are whole minutes apart today.
fn minute_left(now: WallClock) -> Duration {
    let into = u64::try_from(now.secs.rem_euclid(60)).unwrap_or_default();
    Duration::from_secs(60u64.saturating_sub(into)).saturating_sub(Duration::from_nanos(now.nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, LoadOptions};

    #[test]
    fn a_minute_ends_at_its_end() {
        let check = |secs, nanos, want_ms| {
            assert_eq!(minute_left(WallClock { secs, nanos }), Duration::from_millis(want_ms), "{secs}");
        };
        check(0, 0, 60_000);
        check(59, 999_000_000, 1);
        check(-1, 0, 1000);
        check(1_696_196_581, 500_000_000, 58_500);
    }

    #[test]
    fn a_client_is_looked_for_once_in_a_while_and_not_all_of_them() {
        let (household, now) = (Household::default(), Instant::now());
        let client = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        assert!(household.may_search(client(0), now));
        assert!(!household.may_search(client(0), now + WHILE / 2));
        let others = (1..1000).filter(|n| household.may_search(client(*n), now)).count();
        assert_eq!(others, MAX_SEARCHES - 1);
        assert!(household.may_search(client(0), now + WHILE));
    }

    fn plan(yaml: &str) -> Arc<Plan> {
        let load = |text: &str| config::load(text, Path::new("t.yml"), LoadOptions::default());
        Arc::new(load(&format!("listen: [{{port: 4128}}]\nrules: []\n{yaml}")).unwrap().plan)
    }

    /// A client may call itself what it likes.
    #[test]
    #[cfg_attr(not(feature = "household"), ignore = "this build knows no devices")]
    fn a_lease_does_not_make_a_client_one_of_the_named_devices() {
        let household = Arc::new(Household::default());
        household.follow(&plan("devices: {Laptop: 'aa:bb:cc:dd:ee:01', leases: none}\n"));
        let leases = "0 aa:bb:cc:dd:ee:02 192.168.1.2 LAPTOP *\n0 aa:bb:cc:dd:ee:03 192.168.1.3 phone *\n";
        {
            let mut known = household.known.write().unwrap();
            known.leases = Names::of_leases(leases);
            known.neighbours = (1..4)
                .map(|n| (IpAddr::from([192, 168, 1, n]), Mac([0xaa, 0xbb, 0xcc, 0xdd, 0xee, n])))
                .collect();
        }
        let name = |n: u8| household.find(IpAddr::from([192, 168, 1, n]), true).name;
        assert_eq!([name(1), name(2), name(3)].each_ref().map(|name| &**name), ["laptop", UNKNOWN, "phone"]);
    }

    /// Not even for a moment does a reload forget who is who.
    #[test]
    #[cfg_attr(not(feature = "household"), ignore = "this build knows no devices")]
    fn a_reload_keeps_the_leases_of_the_same_file() {
        let household = Arc::new(Household::default());
        household.follow(&plan("devices: {leases: a}\n"));
        household.known.write().unwrap().leases = Names::of_leases("0 x 192.168.1.2 phone *\n");
        let name = || household.find(IpAddr::from([192, 168, 1, 2]), true).name;
        household.follow(&plan("devices: {leases: a}\ndebug: true\n"));
        assert_eq!(&*name(), "phone");
        household.follow(&plan("devices: {leases: b}\n"));
        assert_eq!(&*name(), UNKNOWN);
    }

    #[test]
    fn leases_are_read_again_when_they_change() {
        let path = std::env::temp_dir().join(format!("calamary-leases-{}", std::process::id()));
        assert_eq!(changed_leases(&path, None), None, "there is no file, and was none");
        std::fs::write(&path, "1 aa:bb:cc:dd:ee:01 192.168.1.20 tablet *\n").unwrap();
        let (names, stamp) = changed_leases(&path, None).unwrap();
        assert_eq!(names.find(IpAddr::from([192, 168, 1, 20]), None), Some("tablet"));
        assert_eq!(changed_leases(&path, stamp), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(changed_leases(&path, stamp), Some((Names::default(), None)));
    }
}
