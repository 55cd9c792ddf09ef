//! What the rules of a household ask of the world: the time.

use std::time::Duration;

use crate::decide::week::WeekTime;
use crate::session::Surroundings;
use crate::sys::time::{self, WallClock};

/// The surroundings of the running program.
#[derive(Debug, Default)]
pub struct Household;

impl Surroundings for Household {
    fn week_time(&self) -> (WeekTime, Duration) {
        let now = time::now();
        (week_time_at(now), minute_left(now))
    }
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
}
