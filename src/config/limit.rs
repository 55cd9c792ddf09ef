//! `limit` of an accepting rule: what one source may take of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{Keys, Section, number, scalar};
use super::problem::Report;
use super::rules::Rule;
use super::tree::{Node, Value};
use crate::quota::{Keeper, Quota};

const KEYS: Keys = Keys::new(&["connections", "newPerMinute", "rate"]);
const RATE: &str = "a rate: `500kbit`, `5mbit` or `1gbit` a second, from 8kbit to 100gbit";
/// Bits a second.
const RATES: std::ops::RangeInclusive<u64> = 8_000..=100_000_000_000;
const UNITS: &[(&str, u64)] = &[("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];

/// Reads the limits of a rule; what is wrong is reported.
pub(super) fn quota(node: &Node, report: &mut Report) -> Quota {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {}
        _ => {
            report.expected(node, "limits: a map with `connections`, `newPerMinute` or `rate`");
            return Quota::default();
        }
    }
    let given = Section::read(node, &KEYS, report);
    let mut count = |key: &str| {
        let most = u64::from(u32::MAX);
        let value = given.get(key).and_then(|node| number(node, "a number of connections", 1..=most, report));
        value.and_then(|value| u32::try_from(value).ok())
    };
    let (connections, new_per_minute) = (count("connections"), count("newPerMinute"));
    let rate = given.get("rate").and_then(|node| {
        let rate = scalar(node).and_then(parse_rate);
        if rate.is_none() {
            report.expected(node, RATE);
        }
        rate
    });
    Quota { connections, new_per_minute, rate }
}

/// Bytes a second of `5mbit`.
fn parse_rate(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (count, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let count = count.trim_end();
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits = count.parse::<u64>().ok()?.checked_mul(unit)?;
    RATES.contains(&bits).then_some(bits / 8)
}

/// A keeper for each rule that has limits.
pub(super) fn keepers(rules: &[Rule<'_>]) -> HashMap<u16, Arc<Keeper>> {
    let with_limits = (0..u16::MAX).zip(rules).filter_map(|(index, rule)| Some((index, rule.quota?)));
    with_limits.map(|(index, quota)| (index, Arc::new(Keeper::new(quota)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text: &str, want: Option<u64>| assert_eq!(parse_rate(text), want, "{text}");
        check("5mbit", Some(625_000));
        check("5 Mbit", Some(625_000));
        check("500kbit", Some(62_500));
        check("1gbit", Some(125_000_000));
        check("8000bit", Some(1000));
        for text in
            ["", "5", "mbit", "5mb", "5mbits", "-5mbit", "+5mbit", "1.5mbit", "7kbit", "101gbit", "0mbit"]
        {
            check(text, None);
        }
        check("99999999999999999999gbit", None);
        check("99999999999gbit", None);
    }
}
