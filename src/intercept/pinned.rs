//! Clients that did not accept our certificate for a name: programs that know the server's own, or have not imported the
//! authority.
//!
//! With `interceptFallback` they are let through undecrypted for a while. A client alone decides what stands here of it, so
//! it has a share of the places only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a refusal is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Refusals that are remembered, of all clients together.
pub const MAX_PINNED: usize = 1024;

/// Of one client.
pub const MAX_OF_ONE_CLIENT: usize = 128;

/// Who refused what, until when.
#[derive(Debug, Default)]
pub struct Pinned(Mutex<HashMap<(IpAddr, Box<str>), Instant>>);

impl Pinned {
    /// Remembers that `client` refused a certificate for `name`. Where there is no room it is forgotten at once.
    pub fn remember(&self, client: IpAddr, name: &str, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (client, Box::from(name));
        if !all.contains_key(&key) {
            all.retain(|_, until| *until > now);
            let of_client = all.keys().filter(|(other, _)| *other == client).count();
            if all.len() >= MAX_PINNED || of_client >= MAX_OF_ONE_CLIENT {
                return;
            }
        }
        if let Some(until) = now.checked_add(REMEMBERED) {
            all.insert(key, until);
        }
    }

    /// Whether `client` has refused a certificate for `name` lately.
    pub fn has(&self, client: IpAddr, name: &str, now: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Mostly nobody has refused anything.
        !all.is_empty() && all.get(&(client, Box::from(name))).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_for_one_client_one_name_and_a_while() {
        let (pinned, start) = (Pinned::default(), Instant::now());
        let [one, other]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        pinned.remember(one, "pinned.example", start);
        let check = |client, name, after: Duration, want| {
            assert_eq!(pinned.has(client, name, start + after), want, "{client} {name} {after:?}");
        };
        let minute = Duration::from_secs(60);
        check(one, "pinned.example", minute, true);
        check(other, "pinned.example", minute, false);
        check(one, "other.example", minute, false);
        check(one, "pinned.example", REMEMBERED, false);
    }

    #[test]
    fn no_client_takes_all_places_and_all_of_them_not_more_than_there_are() {
        let (pinned, start) = (Pinned::default(), Instant::now());
        for client in 0..20u8 {
            for name in 0..MAX_OF_ONE_CLIENT + 5 {
                pinned.remember([192, 0, 2, client].into(), &format!("{name}.example"), start);
            }
            let count = pinned.0.lock().unwrap().len();
            assert_eq!(count, (MAX_OF_ONE_CLIENT * (usize::from(client) + 1)).min(MAX_PINNED));
        }
        // When they have been forgotten there is room again.
        pinned.remember([192, 0, 2, 99].into(), "late.example", start + REMEMBERED);
        assert_eq!(pinned.0.lock().unwrap().len(), 1);
    }
}
