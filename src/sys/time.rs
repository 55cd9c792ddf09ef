//! Wall clock and local time, good after 2038 on every CPU.
//!
//! std's `SystemTime` is not used: on 32-bit musl libc's `time_t` has 4 bytes, and `SystemTime::now()` panics from 2038
//! on. musl itself has had the 64-bit calls since 1.2 under names of their own, which its C headers redirect to; they
//! are declared here. Nothing here is for measuring durations: the wall clock of a router jumps when NTP answers.

use std::ffi::{CString, c_int, c_long};
use std::path::Path;

/// A point in time: seconds and nanoseconds since 1970-01-01 00:00 UTC, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallClock {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds beyond them, below 1 000 000 000.
    pub nanos: u32,
}

/// A point in time as the clock on the wall shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Full year.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60 (a leap second).
    pub second: u8,
    /// Days since Sunday, 0 to 6.
    pub weekday: u8,
    /// Seconds east of UTC.
    pub utc_offset_secs: i32,
}

/// What the system's clock shows. A clock that cannot be read shows 1970, like a router without battery at boot.
pub fn now() -> WallClock {
    libc64::clock_gettime(libc::CLOCK_REALTIME)
        .map_or(WallClock { secs: 0, nanos: 0 }, |(secs, nanos)| WallClock { secs, nanos })
}

/// The start of 2026, when this version was written: no clock that is right shows less.
const WRITTEN: i64 = 1_767_225_600;

/// When this program was built, as packagers say it: <https://reproducible-builds.org/specs/source-date-epoch/>.
const BUILT: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match i64::from_str_radix(text, 10) {
        Ok(secs) if secs > WRITTEN => secs,
        Ok(_) | Err(_) => WRITTEN,
    },
    None => WRITTEN,
};

/// Whether a clock that shows `secs` since 1970 may be right. A router without battery shows 1970 until NTP answers.
pub fn is_plausible(secs: i64) -> bool {
    secs >= BUILT
}

/// [`now`] for rustls.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub struct TlsClock;

#[cfg(feature = "tls")]
impl rustls::time_provider::TimeProvider for TlsClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since_1970 = std::time::Duration::from_secs(u64::try_from(now().secs).ok()?);
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since_1970))
    }
}

/// `secs` since 1970-01-01 UTC in the zone of [`init_time_zone`]. A year beyond 32 bits gives the start of 1970, UTC.
pub fn local(secs: i64) -> LocalTime {
    let tm = libc64::localtime(secs);
    let small = |value: c_int| u8::try_from(value).unwrap_or_default();
    match tm {
        Some(tm) => LocalTime {
            year: tm.tm_year.saturating_add(1900),
            month: small(tm.tm_mon).saturating_add(1),
            day: small(tm.tm_mday),
            hour: small(tm.tm_hour),
            minute: small(tm.tm_min),
            second: small(tm.tm_sec),
            weekday: small(tm.tm_wday),
            utc_offset_secs: offset(tm.tm_gmtoff),
        },
        None => LocalTime {
            year: 1970,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            weekday: 4,
            utc_offset_secs: 0,
        },
    }
}

fn offset(secs: c_long) -> i32 {
    i32::try_from(secs).unwrap_or_default()
}

/// Where OpenWrt keeps the zone, as a POSIX TZ string. Its own musl is patched to read it, a static binary's is not.
const OPENWRT_ZONE: &str = "/etc/TZ";
/// More of it is not looked at.
const MAX_ZONE_BYTES: usize = 1024;

/// Settles the time zone for the whole process: TZ, else the first line of /etc/TZ, else /etc/localtime.
///
/// To be called at start: where other threads exist already, /etc/TZ is not looked at, because the environment cannot
/// be changed under them.
pub fn init_time_zone() {
    if std::env::var_os("TZ").is_none()
        && let Some(zone) = zone_file(Path::new(OPENWRT_ZONE))
        && super::limits::threads().is_ok_and(|count| count == 1)
    {
        // SAFETY: this is the process's only thread, so nobody reads the environment meanwhile; both texts are terminated.
        unsafe { libc::setenv(c"TZ".as_ptr(), zone.as_ptr(), 1) };
    }
    // SAFETY: no arguments; it reads the environment and the zone's file into libc's own locked state.
    unsafe { libc64::tzset() };
}

/// The first line of `path`, if it can be a TZ value.
fn zone_file(path: &Path) -> Option<CString> {
    let text = super::files::read(path, MAX_ZONE_BYTES).ok()?;
    let line = text.split(|byte| *byte == b'\n').next()?.trim_ascii();
    CString::new(line).ok().filter(|line| !line.is_empty())
}

/// libc's calls with a `time_t` of 8 bytes.
#[cfg(not(all(target_env = "musl", target_pointer_width = "32", not(target_arch = "riscv32"))))]
mod libc64 {
    unsafe extern "C" {
        pub(super) fn tzset();
    }

    pub(super) fn clock_gettime(clock: libc::clockid_t) -> Option<(i64, u32)> {
        // SAFETY: timespec is plain data for which all zeroes is a value.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a local that outlives the call.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        #[allow(clippy::useless_conversion)]
        (result == 0).then(|| (i64::from(time.tv_sec), u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    pub(super) fn localtime(secs: i64) -> Option<libc::tm> {
        let secs = libc::time_t::try_from(secs).ok()?;
        // SAFETY: tm is plain data for which all zeroes is a value: a null zone name is never read here.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to locals that outlive the call.
        let result = unsafe { libc::localtime_r(&raw const secs, &raw mut tm) };
        (!result.is_null()).then_some(tm)
    }
}

/// As above, by the names that musl's headers give them (`_REDIR_TIME64` in its time.h).
#[cfg(all(target_env = "musl", target_pointer_width = "32", not(target_arch = "riscv32")))]
mod libc64 {
    use std::ffi::c_long;

    /// musl's `struct timespec` with 64-bit time: the nanoseconds stand where the low half of a 64-bit number would.
    #[repr(C)]
    struct Timespec64 {
        tv_sec: i64,
        #[cfg(target_endian = "big")]
        _pad: u32,
        tv_nsec: c_long,
        #[cfg(target_endian = "little")]
        _pad: u32,
    }

    unsafe extern "C" {
        pub(super) fn tzset();
        fn __clock_gettime64(clock: libc::clockid_t, time: *mut Timespec64) -> libc::c_int;
        fn __localtime64_r(secs: *const i64, tm: *mut libc::tm) -> *mut libc::tm;
    }

    pub(super) fn clock_gettime(clock: libc::clockid_t) -> Option<(i64, u32)> {
        let mut time = Timespec64 { tv_sec: 0, _pad: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a local of the layout that this symbol writes, and it outlives the call.
        let result = unsafe { __clock_gettime64(clock, &raw mut time) };
        (result == 0).then(|| (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    pub(super) fn localtime(secs: i64) -> Option<libc::tm> {
        // SAFETY: tm is plain data for which all zeroes is a value: a null zone name is never read here.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to locals that outlive the call; `struct tm` is the same for both time_t.
        let result = unsafe { __localtime64_r(&raw const secs, &raw mut tm) };
        (!result.is_null()).then_some(tm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn the_clock_runs() {
        let (first, second) = (now(), now());
        assert!(first.secs > 1_700_000_000 && first.nanos < 1_000_000_000);
        assert!(second >= first);
    }

    #[test]
    fn a_clock_that_has_not_been_set_is_not_plausible() {
        assert!(!is_plausible(0) && !is_plausible(-1) && !is_plausible(BUILT - 1));
        assert!(is_plausible(BUILT) && is_plausible(now().secs) && is_plausible(i64::MAX));
    }

    #[test]
    fn local_time_follows_tz_across_summer_time_and_2038() {
        testing::in_child(
            "sys::time::tests::child_in_central_europe",
            &[("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")],
        );
    }

    #[test]
    #[ignore = "run with TZ set by local_time_follows_tz_across_summer_time_and_2038"]
    fn child_in_central_europe() {
        if !testing::is_child() {
            return;
        }
        init_time_zone();
        let check = |secs, year, month, day, hour, minute, second, weekday, utc_offset_secs| {
            let want = LocalTime { year, month, day, hour, minute, second, weekday, utc_offset_secs };
            assert_eq!(local(secs), want, "{secs}");
        };
        check(0, 1970, 1, 1, 1, 0, 0, 4, 3600);
        check(1_696_196_581, 2023, 10, 1, 23, 43, 1, 0, 7200);
        check(1_698_541_199, 2023, 10, 29, 2, 59, 59, 0, 7200);
        check(1_698_541_200, 2023, 10, 29, 2, 0, 0, 0, 3600);
        check(2_209_032_000, 2040, 1, 1, 13, 0, 0, 0, 3600);
        check(i64::MAX, 1970, 1, 1, 0, 0, 0, 4, 0);
    }

    #[test]
    fn the_zone_file_gives_its_first_line() {
        let path = std::env::temp_dir().join(format!("calamary-tz-{}", std::process::id()));
        let check = |text: &str, want: Option<&str>| {
            std::fs::write(&path, text).unwrap();
            let found = zone_file(&path).map(|zone| zone.into_string().unwrap());
            assert_eq!(found.as_deref(), want, "{text:?}");
        };
        check("CET-1CEST,M3.5.0,M10.5.0/3\n", Some("CET-1CEST,M3.5.0,M10.5.0/3"));
        check("UTC", Some("UTC"));
        check("\nUTC\n", None);
        check("", None);
        check("U\0C", None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(zone_file(&path), None);
    }
}
