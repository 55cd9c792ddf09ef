//! The time of the week, and windows of it: `mon-fri 22:00-06:00`.
//!
//! Time is what the clock on the wall shows, as a minute of the week; whoever asks passes it in. In the hour that summer time
//! leaves out a window that begins in it begins behind it, and in the hour that comes twice it is open twice.

use std::fmt;
use std::str::FromStr;

const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0x7f;

/// A minute of the week, from Monday 00:00 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeekTime(u16);

impl WeekTime {
    /// Minutes of a week.
    pub const MINUTES: u16 = 7 * DAY_MINUTES;

    /// `weekday` counts from Sunday, 0 to 6, as libc's does; what is beyond a week begins it again.
    pub fn new(weekday: u8, hour: u8, minute: u8) -> WeekTime {
        let since_monday = (u16::from(weekday) + 6) % 7;
        let minutes = since_monday * DAY_MINUTES + u16::from(hour) * 60 + u16::from(minute);
        WeekTime(minutes % Self::MINUTES)
    }

    /// Every minute of the week.
    pub fn all() -> impl Iterator<Item = WeekTime> {
        (0..Self::MINUTES).map(WeekTime)
    }

    /// From 0, which is Monday 00:00.
    pub fn minute_of_week(self) -> u16 {
        self.0
    }

    fn day(self) -> u8 {
        u8::try_from(self.0 / DAY_MINUTES).unwrap_or_default()
    }

    fn minute_of_day(self) -> u16 {
        self.0 % DAY_MINUTES
    }
}

/// `mon-22:30`, without a blank, so that it can stand among other facts.
impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get(usize::from(self.day())).unwrap_or(&"");
        write!(f, "{day}-")?;
        show_clock(f, self.minute_of_day())
    }
}

impl FromStr for WeekTime {
    type Err = ();

    /// As it is displayed.
    fn from_str(text: &str) -> Result<WeekTime, ()> {
        let (day, clock) = text.split_once('-').ok_or(())?;
        let (day, minute) = (day_of(day).ok_or(())?, clock_of(clock).filter(|m| *m < DAY_MINUTES).ok_or(())?);
        Ok(WeekTime(u16::from(day) * DAY_MINUTES + minute))
    }
}

/// Some days, from one time of day to another, the second not included. Where the second is the earlier one it is that of the
/// next day: the days are those on which the window begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes of the day, below 24:00.
    from: u16,
    /// Minutes of the day, up to 24:00; never `from`.
    to: u16,
}

impl Window {
    /// Whether it is open then.
    pub fn contains(self, time: WeekTime) -> bool {
        let (day, minute) = (time.day(), time.minute_of_day());
        let yesterday = (day + 6) % 7;
        let begins_on = |day: u8| self.days >> day & 1 == 1;
        if self.from < self.to {
            begins_on(day) && (self.from..self.to).contains(&minute)
        } else {
            begins_on(day) && minute >= self.from || begins_on(yesterday) && minute < self.to
        }
    }
}

/// As it is written in a rule.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            let name = |day: u32| DAYS.get(day as usize % DAYS.len()).unwrap_or(&"");
            // A range may go over the end of the week; it begins where the day before is not in it.
            let first = (0..7).find(|day| self.days >> day & 1 == 1 && self.days >> ((day + 6) % 7) & 1 == 0);
            let (first, count) = (first.unwrap_or_default(), self.days.count_ones());
            f.write_str(name(first))?;
            if count > 1 {
                write!(f, "-{}", name(first + count - 1))?;
            }
            f.write_str(" ")?;
        }
        show_clock(f, self.from)?;
        f.write_str("-")?;
        show_clock(f, self.to)
    }
}

impl FromStr for Window {
    type Err = ();

    /// `mon-fri 22:00-06:00`, `sat 10:00-12:00`, `22:00-06:00` for every day, `sat-sun` for whole days.
    fn from_str(text: &str) -> Result<Window, ()> {
        let mut words = text.split_whitespace();
        let (first, second) = (words.next().ok_or(())?, words.next());
        if words.next().is_some() {
            return Err(());
        }
        let (days, hours) = match (days_of(first), second) {
            (Some(days), Some(hours)) => (days, hours_of(hours).ok_or(())?),
            (Some(days), None) => (days, (0, DAY_MINUTES)),
            (None, None) => (EVERY_DAY, hours_of(first).ok_or(())?),
            (None, Some(_)) => return Err(()),
        };
        Ok(Window { days, from: hours.0, to: hours.1 })
    }
}

fn show_clock(f: &mut fmt::Formatter<'_>, minute: u16) -> fmt::Result {
    write!(f, "{:02}:{:02}", minute / 60, minute % 60)
}

/// `mon` or `mon-fri`, also over the end of the week.
fn days_of(text: &str) -> Option<u8> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (day_of(from)?, day_of(to)?);
    let count = (to + 7 - from) % 7;
    Some((0..=count).fold(0, |days, after| days | 1 << ((from + after) % 7)))
}

fn day_of(text: &str) -> Option<u8> {
    let at = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text))?;
    u8::try_from(at).ok()
}

fn hours_of(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (clock_of(from)?, clock_of(to)?);
    (from < DAY_MINUTES && from != to).then_some((from, to))
}

/// `6:00` to `24:00`.
fn clock_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str, len: std::ops::RangeInclusive<usize>| -> Option<u16> {
        (len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (hour, minute) = (digits(hour, 1..=2)?, digits(minute, 2..=2)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_belongs_to_the_day_on_which_it_begins() {
        let check = |window: &str, open: &[&str], closed: &[&str]| {
            let parsed: Window = window.parse().unwrap_or_else(|()| panic!("{window}"));
            let at = |time: &str| parsed.contains(time.parse().unwrap_or_else(|()| panic!("{time}")));
            open.iter().for_each(|time| assert!(at(time), "{window} at {time}"));
            closed.iter().for_each(|time| assert!(!at(time), "{window} at {time}"));
        };
        check(
            "mon-fri 22:00-06:00",
            &["mon-22:00", "mon-23:59", "tue-00:00", "tue-05:59", "fri-22:00", "sat-05:59"],
            &["mon-05:59", "mon-00:00", "mon-21:59", "tue-06:00", "sat-06:00", "sat-22:00", "sun-03:00"],
        );
        check("sun 23:30-0:30", &["sun-23:30", "mon-00:29"], &["sun-00:10", "mon-00:30", "mon-23:45"]);
        check("08:00-24:00", &["mon-08:00", "sun-23:59"], &["mon-00:00", "sun-07:59"]);
        check("Sat-Sun", &["sat-00:00", "sun-23:59"], &["fri-23:59", "mon-00:00"]);
        check("sat-mon 10:00-11:00", &["sat-10:30", "sun-10:00", "mon-10:59"], &["tue-10:00", "fri-10:00"]);
        check("wed 00:00-24:00", &["wed-00:00", "wed-23:59"], &["tue-23:59", "thu-00:00"]);
        check("22:00-00:00", &["mon-22:00", "sun-23:59"], &["mon-00:00", "mon-21:59"]);
    }

    #[test]
    fn windows_are_shown_as_they_are_read() {
        let check = |text: &str, shown: &str| {
            let window: Window = text.parse().unwrap_or_else(|()| panic!("{text}"));
            assert_eq!(window.to_string(), shown);
            assert_eq!(shown.parse(), Ok(window));
        };
        check("MON-fri  22:00-6:00", "mon-fri 22:00-06:00");
        check("sat", "sat 00:00-24:00");
        check("sat-tue 1:02-3:04", "sat-tue 01:02-03:04");
        check("mon-sun 1:00-2:00", "01:00-02:00");
        check("tue-mon 1:00-2:00", "01:00-02:00");
    }

    #[test]
    fn what_is_no_window() {
        for text in [
            "",
            "monday",
            "mon-",
            "mon,tue",
            "mon 22-6",
            "22:00",
            "22:00-",
            "22:00-22:00",
            "24:00-06:00",
            "22:00-24:01",
            "22:60-23:00",
            "22:0-23:00",
            "+1:00-2:00",
            "022:00-23:00",
            "mon 22:00 06:00",
            "22:00-06:00 mon",
            "mon 22:00-06:00 x",
        ] {
            assert_eq!(text.parse::<Window>(), Err(()), "{text}");
        }
    }

    #[test]
    fn times_of_the_week() {
        assert_eq!(WeekTime::new(1, 0, 0).minute_of_week(), 0);
        assert_eq!(WeekTime::new(0, 23, 59).minute_of_week(), WeekTime::MINUTES - 1);
        assert_eq!(WeekTime::new(6, 7, 5).to_string(), "sat-07:05");
        assert!(WeekTime::all().all(|time| time.to_string().parse() == Ok(time)));
        assert_eq!("mon-24:00".parse::<WeekTime>(), Err(()));
        // libc allows no such thing, but it must not panic.
        assert!(WeekTime::new(255, 255, 255).minute_of_week() < WeekTime::MINUTES);
    }
}
