//! `calamary-redirector`: servers and their health, nothing that filters or serves.

use std::path::Path;
use std::sync::Arc;

use super::{Bound, Program, Seen};
use crate::cli::Source;
use crate::config::redirector::{RedirectPlan, load_file};
use crate::config::{LoadOptions, Loaded, Problems};
use crate::daemon::Checks;
use crate::metrics::Metrics;
use crate::session::Nowhere;
use crate::session::redirect::Redirection;

impl Program for Redirection {
    const NAME: &'static str = "calamary-redirector";
    const ABOUT: &'static str = "Sends redirected connections to calamary servers, with the PROXY protocol.";
    const DEFAULT_PATH: &'static str = "/etc/calamary/redirector.yml";

    type Around = Nowhere;
    type Beside = Checks;

    /// There is no default that would lead anywhere: the default file must be there.
    fn load(source: &Source, options: LoadOptions) -> Result<Loaded<RedirectPlan>, Problems> {
        match source {
            Source::File(path) => load_file(path, options),
            Source::Default => load_file(Path::new(Self::DEFAULT_PATH), options),
        }
    }

    fn inherit(plan: &mut RedirectPlan, running: &RedirectPlan) {
        plan.servers.inherit(&running.servers);
    }

    fn begin(plan: &Arc<RedirectPlan>, _bound: Bound, _seen: &Seen<'_, Self>) -> Result<Checks, String> {
        Checks::start(plan).map_err(|e| format!("cannot start the health checks: {e}"))
    }

    fn in_short(plan: &RedirectPlan) -> String {
        format!("{} servers, {} listeners", plan.servers.iter().len(), plan.service.listeners.len())
    }

    fn hello(plan: &RedirectPlan, _source: &Source) {
        for server in plan.servers.iter() {
            log::info!("Server: {}, {}", server.name(), server.standing().as_str());
        }
    }

    fn report(plan: &RedirectPlan, metrics: &Metrics) {
        let (sent, received) = metrics.total_bytes();
        log::info!(
            "Counters: connections={} open={} sent={sent} received={received}",
            metrics.total_connections(),
            metrics.current_connections()
        );
        for server in plan.servers.iter() {
            log::info!(
                "Server: {}, {}, connections={} failures={}",
                server.name(),
                server.standing().as_str(),
                server.connections(),
                server.failures()
            );
        }
    }
}
