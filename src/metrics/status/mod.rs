//! The status page: what somebody at home wants to see of the running program, as one page and as the JSON behind it.
//!
//! The page is the same bytes for everybody, without anything that a client chose: it asks for the JSON and puts what stands
//! there into text nodes. It only shows; nothing can be changed here.

mod history;
mod host;
mod json;
mod top;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use history::History;
pub(super) use host::{Asked, asked_for};
pub use json::Json;
use top::{Seen, Top};

use super::{ACTIONS, Metrics};
use crate::sys::limits;

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");
/// What a browser may do with the page: show it, run this one script and style, and ask its origin for the JSON.
pub(super) const POLICY: &str = "default-src 'none'; connect-src 'self'; \
     script-src 'sha256-GleRPoEysb9bt8WpFq6cIkFik0gHn96utinvccbEHMk='; \
     style-src 'sha256-Jie+gghZPHEAEDBtyxFUzxtmYfTPWVzJlAo94WpKMyQ='; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Rows of each table of what was denied.
const TOP: usize = 20;

/// What the program around the counters has to show.
pub trait Overview: Send {
    /// Writes it, as entries of the document's object. It may take a moment, but has a bound in time and size.
    fn describe(&self, metrics: &Metrics, json: &mut Json);

    /// The name of the device that has this address now.
    fn device(&self, _addr: IpAddr) -> Option<Box<str>> {
        None
    }
}

/// Nothing beside the counters.
impl Overview for () {
    fn describe(&self, _: &Metrics, _: &mut Json) {}
}

/// Who was denied what.
#[derive(Debug, Default)]
pub(super) struct Denied {
    /// Somebody may look at it: until then nothing is kept.
    is_kept: AtomicBool,
    names: Mutex<Top>,
    devices: Mutex<Top>,
}

impl Denied {
    /// From now on it is kept.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// `device` was denied `name`; without a name, `dest`.
    pub(super) fn add(&self, name: Option<&[u8]>, dest: Option<IpAddr>, device: &[u8]) {
        if !self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        match (name, dest) {
            // However it is written, it is one name.
            (Some(name), _) => lock(&self.names).add(&name.to_ascii_lowercase()),
            (None, Some(dest)) => lock(&self.names).add(dest.to_string().as_bytes()),
            (None, None) => {}
        }
        lock(&self.devices).add(device);
    }
}

fn lock(top: &Mutex<Top>) -> MutexGuard<'_, Top> {
    top.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The JSON document. `host` is how this machine calls itself.
pub(super) fn document(metrics: &Metrics, history: &History, overview: &dyn Overview, host: &str) -> Vec<u8> {
    let mut json = Json::default();
    json.open('{');
    json.key("version").text(env!("CARGO_PKG_VERSION"));
    json.key("host").text(host);
    json.key("uptime").number(metrics.started.elapsed().as_secs());
    if let Ok(bytes) = limits::resident_memory() {
        json.key("memory").number(bytes);
    }
    json.key("open").number(metrics.current_connections().into());
    json.key("connections").number(metrics.total_connections());
    let (sent, received) = metrics.total_bytes();
    json.key("sent").number(sent);
    json.key("received").number(received);
    json.key("verdicts").open('{');
    for (action, counter) in ACTIONS.iter().zip(&metrics.actions) {
        json.key(action).number(counter.get());
    }
    json.close('}');
    json.key("history");
    history.describe(&mut json);
    json.key("denied").open('{');
    json.key("names");
    describe_top(&mut json, lock(&metrics.denied.names).best());
    json.key("devices");
    describe_top(&mut json, by_device(lock(&metrics.denied.devices).best(), overview));
    json.close('}');
    overview.describe(metrics, &mut json);
    json.close('}');
    json.into_bytes()
}

/// What is known by an address, as not every rule asks for devices, together with what is known by its device's name.
fn by_device(seen: Vec<Seen>, overview: &dyn Overview) -> Vec<Seen> {
    let mut devices: Vec<Seen> = Vec::with_capacity(seen.len());
    for (key, count) in seen {
        let addr = std::str::from_utf8(&key).ok().and_then(|text| text.parse().ok());
        let name = addr.and_then(|addr| overview.device(addr)).map(|name| name.into_boxed_bytes());
        let key = name.unwrap_or(key);
        match devices.iter_mut().find(|(other, _)| *other == key) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => devices.push((key, count)),
        }
    }
    devices.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    devices
}

fn describe_top(json: &mut Json, seen: Vec<Seen>) {
    json.open('[');
    for (name, count) in seen.iter().take(TOP) {
        json.open('{');
        json.key("name").bytes(name);
        json.key("count").number((*count).into());
        json.close('}');
    }
    json.close(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Encoding};
    use sha2::{Digest, Sha256};
    use std::time::Instant;

    fn between(open: &str, close: &str) -> &'static str {
        let (_, rest) = PAGE.split_once(open).unwrap();
        rest.split_once(close).unwrap().0
    }

    /// Where this fails after a change of the page, the message says what the policy must be.
    #[test]
    fn the_policy_names_the_one_script_and_the_one_style() {
        for (open, close) in [("<script>", "</script>"), ("<style>", "</style>")] {
            let hash = format!("'sha256-{}'", Base64::encode_string(&Sha256::digest(between(open, close))));
            assert!(POLICY.contains(&hash), "{open} is {hash}");
            assert_eq!(PAGE.matches(open).count(), 1);
        }
        // Neither of the two covers these.
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
    }

    /// The only word that leads out of the page is the namespace of SVG.
    #[test]
    fn the_page_needs_nothing_from_outside_and_is_small() {
        let outside: Vec<_> = PAGE.match_indices("://").map(|(at, _)| &PAGE[at - 4..at + 18]).collect();
        assert_eq!(outside, ["http://www.w3.org/2000"]);
        for word in ["innerHTML", "src=", "@import", "url(", "<link", "eval("] {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.len() < 25_000, "{}", PAGE.len());
    }

    #[test]
    fn a_device_is_one_whether_it_was_asked_for_or_not() {
        struct Names;
        impl Overview for Names {
            fn describe(&self, _: &Metrics, _: &mut Json) {}
            fn device(&self, addr: IpAddr) -> Option<Box<str>> {
                (addr.to_string() != "192.0.2.9").then(|| "tablet".into())
            }
        }
        let seen = [("192.0.2.9", 4), ("192.0.2.1", 3), ("tablet", 2), ("2001:db8::1", 1)];
        let seen = seen.map(|(key, count)| (key.as_bytes().into(), count)).into();
        let want: [Seen; 2] = [(b"tablet"[..].into(), 6), (b"192.0.2.9"[..].into(), 4)];
        assert_eq!(by_device(seen, &Names), want);
    }

    #[test]
    fn the_document_is_json_whatever_clients_say() {
        let metrics = Metrics::new();
        let hostile: [&[u8]; 5] = [
            b"<script>alert(1)</script>\"\\",
            "\u{202e}moc.elpmaxe".as_bytes(),
            &[b'x'; 600],
            b"\0\r\n\xff\xfe",
            b"%22},{",
        ];
        let deny = |name: &[u8]| metrics.denied.add(Some(name), None, b"K\xc3\xbcche");
        deny(b"before.example");
        metrics.denied.keep();
        hostile.into_iter().for_each(deny);
        metrics.denied.add(Some(b"ADS.example"), None, b"192.0.2.1");
        metrics.denied.add(Some(b"ads.example"), None, b"192.0.2.1");
        metrics.denied.add(None, "2001:db8::1".parse().ok(), b"192.0.2.1");
        let bytes = document(&metrics, &History::new(Instant::now(), &metrics), &(), "a \"router\"\u{7}");
        assert!(bytes.is_ascii());
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("before.example"), "{text}");
        let value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(value["host"].as_str(), Some("a%20\"router\"%07"));
        let names: Vec<_> = value["denied"]["names"]
            .as_sequence()
            .unwrap()
            .iter()
            .map(|n| n["name"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), 7, "{names:?}");
        assert_eq!((names[0], value["denied"]["names"][0]["count"].as_u64()), ("ads.example", Some(2)));
        for want in [
            "<script>alert(1)</script>\"\\",
            "%e2%80%aemoc.elpmaxe",
            "%00%0d%0a%ff%fe",
            "%2522},{",
            "2001:db8::1",
        ] {
            assert!(names.contains(&want), "{want} {names:?}");
        }
        assert!(names.contains(&&*"x".repeat(top::MAX_KEY)));
        assert_eq!(value["denied"]["devices"][0]["name"].as_str(), Some("K%c3%bcche"));
        assert_eq!(value["verdicts"]["deny"].as_u64(), Some(0));
    }
}
