//! Temporary exceptions: a device may reach a name for a while, whatever the rules say.
//!
//! They are rules of their own, looked at where the others do not accept. They survive a reload, as they are none of the
//! configuration's, and no restart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::decide::Action;
use crate::decide::device::{Mac, fold_device};
use crate::decide::name::NamePattern;
use crate::decide::rules::{AddrValue, FieldSpec, NameValue, RuleSpec, Ruleset, Term};

/// At once.
const MAX_PASSES: usize = 64;
/// The longest.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Everything.
const ANY: &str = "any";

/// The exceptions in force.
#[derive(Debug, Default)]
pub struct Passes {
    /// Whether there is one: all that is looked at for most decisions.
    any: AtomicBool,
    list: RwLock<List>,
}

#[derive(Debug, Default)]
struct List {
    passes: Vec<(RuleSpec, Instant)>,
    rules: Arc<Ruleset>,
}

impl Passes {
    /// Lets `device`, a name, hardware address or address, reach `name` and what is below it, or `any`, for `time`: `15m`.
    ///
    /// # Errors
    /// What cannot be understood, or that there are too many.
    pub fn add(&self, time: &str, device: &str, name: &str, now: Instant) -> Result<Duration, String> {
        let time = parse_time(time)?;
        let who = if let Ok(mac) = device.parse::<Mac>() {
            FieldSpec::Mac(vec![is(mac)])
        } else if let Ok(net) = device.parse::<std::net::IpAddr>() {
            FieldSpec::Src(vec![is(AddrValue::Net(net.to_canonical().into()))])
        } else {
            FieldSpec::Device(vec![is(fold_device(device))])
        };
        let mut fields = vec![who];
        if !name.eq_ignore_ascii_case(ANY) {
            let below = format!(".{}", name.trim_start_matches("*.").trim_start_matches('.'));
            let pattern = NamePattern::parse(&below).map_err(|why| format!("`{name}` is no name: {why}"))?;
            fields.push(FieldSpec::Dns(vec![is(NameValue::Pattern(pattern))]));
        }
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.forget_expired(now);
        if list.passes.len() >= MAX_PASSES {
            return Err(format!("there are {MAX_PASSES} exceptions already"));
        }
        list.passes.push((RuleSpec { action: Action::Accept, fields }, now + time));
        list.compile();
        self.any.store(true, Ordering::Release);
        Ok(time)
    }

    /// The exceptions as rules; nothing if there is none.
    pub fn rules(&self, now: Instant) -> Option<Arc<Ruleset>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        {
            let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
            if list.passes.iter().all(|(_, until)| now < *until) {
                return Some(Arc::clone(&list.rules));
            }
        }
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.forget_expired(now);
        list.compile();
        self.any.store(!list.passes.is_empty(), Ordering::Release);
        (!list.passes.is_empty()).then(|| Arc::clone(&list.rules))
    }
}

impl List {
    fn forget_expired(&mut self, now: Instant) {
        self.passes.retain(|(_, until)| now < *until);
    }

    fn compile(&mut self) {
        self.rules = Arc::new(Ruleset::new(self.passes.iter().map(|(rule, _)| rule.clone()).collect()));
    }
}

fn is<T>(value: T) -> Term<T> {
    Term { negated: false, value }
}

/// `90s`, `15m`, `2h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: `90s`, `15m`, `2h`, up to 24h");
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let secs = digits.then(|| count.parse::<u64>().ok()?.checked_mul(unit)).flatten().ok_or_else(wrong)?;
    let time = Duration::from_secs(secs);
    if time.is_zero() || time > MAX_TIME { Err(wrong()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::rules::Locals;
    use crate::decide::why::parse_facts;
    use crate::decide::{Decision, Verdict};

    #[test]
    fn an_exception_is_for_one_device_one_name_and_a_while() {
        let (passes, now) = (Passes::default(), Instant::now());
        assert!(passes.rules(now).is_none());
        passes.add("15m", "Tablet", "games.example", now).unwrap();
        passes.add("2h", "192.168.1.7", "any", now).unwrap();
        let accepts = |facts: &str, after: u64| {
            let Some(rules) = passes.rules(now + Duration::from_secs(after)) else { return false };
            let facts =
                parse_facts(&format!("{facts} dest=198.51.100.1 port=443 protoL5=tls mac=none sport=1"))
                    .unwrap();
            matches!(
                rules.decide(&facts, &Locals::default()),
                Decision::Verdict(Verdict { action: Action::Accept, .. })
            )
        };
        let tablet = "src=192.168.1.20 device=tablet";
        assert!(accepts(&format!("{tablet} dns=www.games.example"), 0));
        assert!(accepts(&format!("{tablet} dns=games.example"), 899));
        assert!(!accepts(&format!("{tablet} dns=games.example"), 900));
        assert!(!accepts(&format!("{tablet} dns=other.example"), 0));
        assert!(!accepts("src=192.168.1.20 device=phone dns=games.example", 0));
        assert!(accepts("src=192.168.1.7 device=unknown dns=none", 7199));
        assert!(passes.rules(now + Duration::from_secs(7200)).is_none());
    }

    #[test]
    fn times_and_names_are_checked_and_exceptions_bounded() {
        let (passes, now) = (Passes::default(), Instant::now());
        for time in ["", "m", "15", "0m", "25h", "-1m", "+1m", "1d", "99999999999999999999h", "1\u{e4}"] {
            assert!(passes.add(time, "tv", "a.example", now).is_err(), "{time}");
        }
        assert!(passes.add("1m", "tv", "..", now).is_err());
        assert!(passes.rules(now).is_none());
        for _ in 0..MAX_PASSES {
            passes.add("1m", "tv", "*.a.example", now).unwrap();
        }
        assert!(passes.add("1m", "tv", "a.example", now).is_err());
        passes.add("1m", "tv", "a.example", now + Duration::from_secs(60)).unwrap();
    }
}
