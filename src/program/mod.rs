//! What makes each program itself: everything else of [`crate::cli`] and [`crate::daemon`] is the same for all.

mod proxy;
mod redirector;

#[cfg(feature = "metrics")]
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use getopts::{Matches, Options};

use crate::cli::Source;
use crate::config::{LoadOptions, Loaded, Problems, Service};
use crate::engine::Handle;
#[cfg(feature = "tls")]
use crate::engine::prober::ProberConfig;
use crate::metrics::Metrics;
use crate::session::{Machine, Surroundings};

/// A program on the engine, called by its session machine.
pub trait Program: Machine<Plan: AsMut<Service>> {
    /// As it is called.
    const NAME: &'static str;
    /// What it is, in a line.
    const ABOUT: &'static str;
    /// Where its configuration is when nothing is said.
    const DEFAULT_PATH: &'static str;

    /// What runs beside the workers.
    type Beside;
    /// What its sessions look up where a rule asks for it.
    type Around: Surroundings + Default + 'static;

    /// Adds the options that only this program has.
    fn options(_options: &mut Options) {}

    /// Does what they ask for that needs no configuration, instead of running.
    fn without_configuration(_given: &Matches) -> Option<ExitCode> {
        None
    }

    /// Does what they ask for, instead of running.
    fn instead(_given: &Matches, _loaded: &Loaded<Self::Plan>) -> Option<ExitCode> {
        None
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn load(source: &Source, options: LoadOptions) -> Result<Loaded<Self::Plan>, Problems>;

    /// Lets `plan` go on with what the `running` one has learnt.
    fn inherit(_plan: &mut Self::Plan, _running: &Self::Plan) {}

    /// What probes of certificates work with, where `plan` wants any.
    #[cfg(feature = "tls")]
    fn prober(_plan: &Self::Plan) -> Option<ProberConfig> {
        None
    }

    /// Binds what `plan` wants beside its listeners, while the `running` plan still has its own.
    ///
    /// # Errors
    /// Why that cannot be, as one line for a person.
    fn bind(_plan: &Self::Plan, _running: Option<&Self::Plan>) -> Result<Bound, String> {
        Ok(Bound::default())
    }

    /// Starts what runs beside the workers.
    ///
    /// # Errors
    /// Why that cannot be, as one line for a person.
    fn begin(plan: &Arc<Self::Plan>, bound: Bound, seen: &Seen<'_, Self>) -> Result<Self::Beside, String>;

    /// The last worker has ended.
    fn ended(_plan: &Self::Plan) {}

    /// How many words its options may have behind them.
    fn words(_given: &Matches) -> usize {
        0
    }

    /// Puts what was started for `plan` in the place of what ran for the `running` one.
    fn replace(old: &mut Self::Beside, new: Self::Beside, _plan: &Self::Plan, _running: &Self::Plan) {
        *old = new;
    }

    /// From here on `plan` is in force.
    fn in_force(_plan: &Arc<Self::Plan>, _metrics: &Metrics, _around: &Arc<Self::Around>) {}

    /// The plan in a few words, for the log.
    fn in_short(plan: &Self::Plan) -> String;

    /// What the log says once it runs, after its listeners.
    fn hello(_plan: &Self::Plan, _source: &Source) {}

    /// What SIGUSR1 logs before the live connections.
    fn report(_plan: &Self::Plan, _metrics: &Metrics) {}
}

/// What was bound for a plan beside its listeners.
#[derive(Debug, Default)]
pub struct Bound {
    /// For the metrics.
    pub metrics: Option<TcpListener>,
    /// Where the running program can be asked.
    pub live: Option<UnixListener>,
}

/// What of the program may be shown beside the workers.
pub struct Seen<'a, P: Program> {
    /// What is counted.
    pub metrics: &'a Arc<Metrics>,
    /// What sessions look up.
    pub around: &'a Arc<P::Around>,
    /// Who may be asked for sessions.
    pub workers: &'a [Handle<P::Plan>],
}

/// What a plan listens on.
#[cfg(feature = "metrics")]
fn listening(service: &Service) -> Vec<SocketAddr> {
    service.listeners.iter().map(|listener| listener.addr).chain(service.metrics).collect()
}
