//! The last hour: bytes and sessions, twice a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::json::Json;
use crate::metrics::Metrics;

/// From one sample to the next.
const INTERVAL: Duration = Duration::from_secs(30);
/// Samples of an hour.
const MAX_SAMPLES: usize = 120;

/// What was.
#[derive(Debug)]
pub(in crate::metrics) struct History {
    /// The oldest first.
    samples: VecDeque<Sample>,
    /// All bytes at the last sample.
    before: (u64, u64),
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Bytes to servers and from servers since the sample before.
    sent: u64,
    received: u64,
    /// Sessions at that moment.
    sessions: u32,
}

impl History {
    /// It begins now.
    pub(in crate::metrics) fn new(now: Instant, metrics: &Metrics) -> Self {
        History { samples: VecDeque::new(), before: metrics.total_bytes(), due: now + INTERVAL }
    }

    /// When [`History::go_on`] wants to be called next.
    pub(in crate::metrics) fn due(&self) -> Instant {
        self.due
    }

    /// Takes a sample if it is time.
    pub(in crate::metrics) fn go_on(&mut self, now: Instant, metrics: &Metrics) {
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        let (sent, received) = metrics.total_bytes();
        let sample = Sample {
            sent: sent.saturating_sub(self.before.0),
            received: received.saturating_sub(self.before.1),
            sessions: metrics.current_connections(),
        };
        self.before = (sent, received);
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// `{"interval":30,"samples":120,"sent":[…],"received":[…],"sessions":[…]}`
    pub(super) fn describe(&self, json: &mut Json) {
        json.open('{');
        json.key("interval").number(INTERVAL.as_secs());
        json.key("samples").number(MAX_SAMPLES as u64);
        let mut list = |key: &'static str, value: fn(&Sample) -> u64| {
            json.key(key).open('[');
            self.samples.iter().for_each(|sample| json.number(value(sample)));
            json.close(']');
        };
        list("sent", |sample| sample.sent);
        list("received", |sample| sample.received);
        list("sessions", |sample| sample.sessions.into());
        json.close('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::decide::L4;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let metrics = Metrics::new();
        metrics.bytes(1_000_000, 1_000_000);
        let start = Instant::now();
        let mut history = History::new(start, &metrics);
        metrics.connection_opened(Mode::Http, L4::Tcp);
        for n in 1..=130_u32 {
            metrics.bytes(n.into(), 7);
            history.go_on(start + INTERVAL * n - Duration::from_millis(1), &metrics);
            history.go_on(start + INTERVAL * n, &metrics);
        }
        assert_eq!(history.samples.len(), MAX_SAMPLES);
        assert_eq!(history.samples.front(), Some(&Sample { sent: 11, received: 7, sessions: 1 }));
        assert_eq!(history.samples.back(), Some(&Sample { sent: 130, received: 7, sessions: 1 }));
        assert_eq!(history.due(), start + INTERVAL * 131);
        let mut json = Json::default();
        history.describe(&mut json);
        let text = String::from_utf8(json.into_bytes()).unwrap();
        assert!(text.starts_with("{\"interval\":30,\"samples\":120,\"sent\":[11,12,"), "{text}");
        assert!(text.contains(",130],\"received\":[7,") && text.ends_with(",1,1]}"), "{text}");
    }
}
