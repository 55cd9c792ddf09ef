//! The Prometheus text format, 0.0.4.

use std::fmt::{self, Display, Write};

use super::{ACTIONS, Attempt, FAMILIES, Limit, MODES, Metrics, PROBED, PROTOCOLS, TLS_VERSIONS};
use crate::connect::dial::DialError;
use crate::decide::RuleId;
use crate::session::CloseReason;
use crate::sys::limits;

/// The Content-Type of [`Metrics::render`]'s text.
#[cfg(feature = "metrics")]
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// Every number, as text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing into a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let mut page = Page { out };
        page.counter(
            "calamary_bytes_rcv",
            "Payload bytes received from servers.",
            self.bytes_received.get(),
        )?;
        page.counter("calamary_bytes_sent", "Payload bytes sent to servers.", self.bytes_sent.get())?;
        page.gauge("calamary_current_connections", "Connections open now.", self.connections.get())?;
        let sessions = MODES.iter().zip(&self.sessions).map(|(mode, gauge)| (mode.as_str(), gauge.get()));
        page.family("calamary_sessions", "gauge", "Connections open now, by way in.", "mode", sessions)?;
        page.labelled(
            "calamary_req_protoL3",
            "Decided requests with a known destination, by the family used towards it.",
            "protocol",
            FAMILIES.iter().zip(&self.families),
        )?;
        page.labelled(
            "calamary_req_protoL5",
            "Identified connections, by what their first bytes are.",
            "protocol",
            PROTOCOLS.iter().zip(&self.protocols),
        )?;
        let [tcp, udp] = &self.opened;
        page.counter("calamary_req_tcp", "TCP connections taken in.", tcp.get())?;
        page.counter("calamary_req_udp", "UDP sessions taken in.", udp.get())?;
        page.labelled(
            "calamary_req_tls_version",
            "Identified connections, by the highest TLS version offered.",
            "version",
            TLS_VERSIONS.iter().zip(&self.tls_versions),
        )?;
        page.labelled(
            "calamary_rule_actions",
            "Decided requests, by action.",
            "action",
            ACTIONS.iter().zip(&self.actions),
        )?;
        self.write_rules(&mut page)?;
        let reasons = CloseReason::ALL.into_iter().map(CloseReason::as_str);
        page.labelled(
            "calamary_closed",
            "Connections that ended, by reason.",
            "reason",
            reasons.zip(&self.closed),
        )?;
        let limits = Limit::ALL.into_iter().map(Limit::as_str);
        page.labelled(
            "calamary_refused",
            "Connections refused by a limit: when they came, or once a PROXY header had told their source.",
            "limit",
            limits.zip(&self.refused),
        )?;
        let results = Attempt::ALL.into_iter().map(Attempt::as_str);
        page.labelled(
            "calamary_authentications",
            "Credentials that clients sent, by result. `right` and `wrong` were hashed.",
            "result",
            results.zip(&self.attempts),
        )?;
        page.labelled(
            "calamary_cert_probes",
            "Servers asked for their certificate, by what it is worth.",
            "result",
            PROBED.iter().zip(&self.probes),
        )?;
        let kinds = DialError::ALL.into_iter().map(DialError::as_str);
        page.labelled(
            "calamary_dial_errors",
            "Failed attempts to connect to an address, by kind.",
            "kind",
            kinds.zip(&self.dial_errors),
        )?;
        page.counter("calamary_dns_lookups", "Names asked for.", self.dns_lookups.get())?;
        page.counter("calamary_dns_answers", "Names answered, also negatively.", self.dns_answers.get())?;
        page.counter("calamary_dns_failures", "Names that nobody answered for.", self.dns_failures.get())?;
        let dropped = crate::logging::dropped();
        page.counter("calamary_log_dropped", "Log lines lost to an output that was full or gone.", dropped)?;
        self.write_process(&mut page)
    }

    fn write_rules(&self, page: &mut Page<'_>) -> fmt::Result {
        let rules = self.rules.snapshot();
        let hits = rules.iter().enumerate().map(|(id, (_, hits))| (id, *hits));
        page.family(
            "calamary_rule_hits",
            "counter",
            "Requests that a rule was looked at for.",
            "ruleId",
            hits,
        )?;

        const NAME: &str = "calamary_rule_matches";
        let matches = rules.iter().enumerate().map(|(id, (matches, _))| (id, *matches));
        page.family(NAME, "counter", "Requests that a rule decided.", "ruleId", matches)?;
        for rule in [RuleId::Always, RuleId::Default, RuleId::Incomplete, RuleId::Pass] {
            page.sample(NAME, "ruleId", rule, self.rules.matches(rule))?;
        }
        Ok(())
    }

    /// The names under `process_` are those that Prometheus' own client libraries use.
    fn write_process(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Ok(bytes) = limits::resident_memory() {
            page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes)?;
        }
        if let Ok(count) = limits::open_descriptors() {
            page.gauge("process_open_fds", "Number of open file descriptors.", count)?;
        }
        page.gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            self.started_at,
        )?;
        page.gauge("calamary_uptime_seconds", "Seconds since the start.", self.started.elapsed().as_secs())?;
        page.head("calamary_build_info", "gauge", "What is running.")?;
        page.sample("calamary_build_info", "version", env!("CARGO_PKG_VERSION"), 1)
    }
}

/// The text in the making.
struct Page<'a> {
    out: &'a mut String,
}

impl Page<'_> {
    /// `help` has no backslash and no line break.
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    /// `label`'s value is one of our own words or a number, so there is nothing to escape.
    fn sample(&mut self, name: &str, key: &str, label: impl Display, value: impl Display) -> fmt::Result {
        writeln!(self.out, "{name}{{{key}=\"{label}\"}} {value}")
    }

    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        key: &str,
        samples: impl IntoIterator<Item = (impl Display, impl Display)>,
    ) -> fmt::Result {
        self.head(name, kind, help)?;
        samples.into_iter().try_for_each(|(label, value)| self.sample(name, key, label, value))
    }

    fn labelled<'c>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        counters: impl IntoIterator<Item = (impl Display, &'c super::Counter)>,
    ) -> fmt::Result {
        let samples = counters.into_iter().map(|(label, counter)| (label, counter.get()));
        self.family(name, "counter", help, key, samples)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.head(name, "counter", help)?;
        writeln!(self.out, "{name} {value}")
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        writeln!(self.out, "{name} {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::connect::distrust::Distrust;
    use crate::connect::probe::Finding;
    use crate::decide::{Action, L4, L5, Verdict};
    use crate::wire::tls::Version;
    use std::collections::HashSet;

    /// The day of the documentation's metrics page.
    fn documented() -> Metrics {
        let metrics = Metrics::new();
        metrics.rules_loaded(4);
        for i in 0..3_u8 {
            metrics.connection_opened(Mode::Transparent, L4::Tcp);
            let accept = Verdict { action: Action::Accept, rule: RuleId::Index(3) };
            metrics.verdict(accept, Some("135.181.170.219".parse().unwrap()));
            if i == 0 {
                metrics.identified(L5::Http, None);
            } else {
                metrics.identified(L5::Tls, Some(Version(0x0303)));
                metrics.connection_closed(Mode::Transparent, CloseReason::Finished);
            }
        }
        metrics.bytes(1000, 12_707);
        metrics.bytes(760, 0);
        metrics
    }

    #[test]
    fn the_documented_names_and_labels() {
        let metrics = documented();
        metrics.verdict(Verdict { action: Action::Deny, rule: RuleId::Always }, None);
        metrics.verdict(
            Verdict { action: Action::Redirect, rule: RuleId::Incomplete },
            Some("::ffff:1.2.3.4".parse().unwrap()),
        );
        metrics.dial_error(DialError::TimedOut);
        metrics.connection_refused(Limit::PerSource);
        metrics.probed(Finding::Invalid(Distrust::Expired));
        metrics.dns_lookup();
        metrics.dns_answered(true);
        metrics.dns_answered(false);
        let text = metrics.render();
        let lines: HashSet<&str> = text.lines().collect();
        for want in [
            "calamary_bytes_rcv 12707",
            "calamary_bytes_sent 1760",
            "calamary_current_connections 1",
            "calamary_req_protoL3{protocol=\"IPv4\"} 4",
            "calamary_req_protoL3{protocol=\"IPv6\"} 0",
            "calamary_req_protoL5{protocol=\"HTTP\"} 1",
            "calamary_req_protoL5{protocol=\"TLS\"} 2",
            "calamary_req_tcp 3",
            "calamary_req_udp 0",
            "calamary_req_tls_version{version=\"1.2\"} 2",
            "calamary_req_tls_version{version=\"none\"} 1",
            "calamary_rule_actions{action=\"accept\"} 3",
            "calamary_rule_actions{action=\"deny\"} 1",
            "calamary_rule_actions{action=\"redirect\"} 1",
            "calamary_rule_hits{ruleId=\"0\"} 3",
            "calamary_rule_hits{ruleId=\"1\"} 3",
            "calamary_rule_hits{ruleId=\"2\"} 3",
            "calamary_rule_hits{ruleId=\"3\"} 3",
            "calamary_rule_matches{ruleId=\"2\"} 0",
            "calamary_rule_matches{ruleId=\"3\"} 3",
            "calamary_rule_matches{ruleId=\"always\"} 1",
            "calamary_rule_matches{ruleId=\"default\"} 0",
            "calamary_rule_matches{ruleId=\"incomplete\"} 1",
            "calamary_sessions{mode=\"transparent\"} 1",
            "calamary_sessions{mode=\"proxyproto\"} 0",
            "calamary_closed{reason=\"finished\"} 2",
            "calamary_closed{reason=\"shutdown\"} 0",
            "calamary_refused{limit=\"per_source\"} 1",
            "calamary_dial_errors{kind=\"timeout\"} 1",
            "calamary_cert_probes{result=\"invalid\"} 1",
            "calamary_cert_probes{result=\"valid\"} 0",
            "calamary_dns_lookups 1",
            "calamary_dns_answers 1",
            "calamary_dns_failures 1",
            "calamary_uptime_seconds 0",
            concat!("calamary_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE calamary_bytes_rcv counter",
            "# TYPE calamary_current_connections gauge",
        ] {
            assert!(lines.contains(want), "{want}\n{text}");
        }
    }

    /// The format's rules: each name has its HELP and TYPE once, right before all of its samples, and no series twice.
    #[test]
    fn the_text_is_valid() {
        let text = documented().render();
        assert!(text.ends_with('\n') && text.is_ascii());
        let (mut names, mut series, mut current) = (HashSet::new(), HashSet::new(), "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split_once(' ').unwrap().0;
                assert!(names.insert(current), "{current} comes twice");
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {current} ")).unwrap();
                assert!(["counter", "gauge"].contains(&kind), "{kind}");
                continue;
            }
            let (what, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(what), "{what} comes twice");
            value.parse::<f64>().unwrap();
            let name = what.split_once('{').map_or(what, |(name, labels)| {
                let (key, label) = labels.strip_suffix("\"}").unwrap().split_once("=\"").unwrap();
                assert!(key.bytes().all(|b| b.is_ascii_alphabetic()), "{key}");
                assert!(!label.contains(['"', '\\', '\n']), "{label}");
                name
            });
            assert_eq!(name, current);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        }
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
            assert!(names.contains(name), "{name}");
        }
    }
}
