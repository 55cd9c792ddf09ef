//! The running program: load, bind, drop privileges, start the workers, then follow signals.

mod check;
mod follower;

use std::sync::Arc;
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

pub use self::check::{check, check_user};
pub use self::follower::locals;
use self::follower::{Follower, Watch};
use crate::cli::Source;
use crate::config::{LoadOptions, Loaded, Mode, Plan};
use crate::engine::verifier::Verifier;
use crate::engine::{self, Admission, Command, Dialled, Effective, Handle, Shared, resolver};
use crate::logging;
use crate::metrics::Metrics;
#[cfg(feature = "metrics")]
use crate::metrics::Server;
use crate::session::Session;
use crate::sys::privileges::{self, Capability, Identity};
use crate::sys::socket::Outgoing;
use crate::sys::{limits, time};

/// Runs until a signal ends it.
///
/// # Errors
/// Why it cannot run, as one line for a person.
pub fn run(source: Source, options: LoadOptions, loaded: Loaded) -> Result<(), String> {
    time::init_time_zone();
    let mut plan = loaded.plan;
    logging::init(&plan.service.log);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Before there are threads, so that none misses the mask or keeps a privilege.
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT, SIGUSR1])
        .map_err(|e| format!("cannot handle signals: {e}"))?;
    let descriptors =
        limits::raise_descriptors().map_err(|e| format!("cannot read the descriptor limit: {e}"))?;
    let workers = worker_count(&plan);
    let bindings = engine::diff(&mut plan.service.listeners, &[], None, workers)?;
    let plan = Arc::new(plan);
    #[cfg(feature = "metrics")]
    let metrics_socket = bind_metrics(&plan, &[])?;
    #[cfg(feature = "metrics")]
    let sockets = metrics_socket.iter();
    #[cfg(not(feature = "metrics"))]
    let sockets = [].iter();
    drop_privileges(&plan, bindings.iter().flat_map(|binding| &binding.sockets).chain(sockets))?;

    let metrics = Arc::new(Metrics::new());
    metrics.rules_loaded(plan.rules.len());
    let effective = effective_limits(&plan, descriptors);
    let mut prepared = Vec::with_capacity(workers);
    for _ in 0..workers {
        prepared.push(engine::prepare().map_err(|e| format!("cannot make a worker: {e}"))?);
    }
    let askers: Vec<Handle<Plan>> = prepared.iter().map(|(handle, _)| handle.another()).collect();
    let verifier = Verifier::new(move |verified| {
        if let Some(worker) = askers.get(verified.asker.worker) {
            worker.tell(Command::Verified(verified));
        }
    });
    let answerers: Vec<Handle<Plan>> = prepared.iter().map(|(handle, _)| handle.another()).collect();
    let resolver = resolver::start(
        resolver_config(&plan),
        Box::new(move |answer| {
            if let Some(worker) = answerers.get(answer.asker.worker) {
                worker.tell(Command::Answer(answer));
            }
        }),
    )
    .map_err(|e| format!("cannot start the resolver: {e}"))?;
    let shared = Arc::new(Shared {
        metrics: Arc::clone(&metrics),
        admission: Admission::new(effective),
        resolver: resolver.clone(),
        verifier,
        dialled: Dialled::new(workers),
    });

    let watch = Watch::begin();
    let locals = locals(&plan).map_err(|e| format!("cannot read this machine's addresses: {e}"))?;
    let locals = Arc::new(locals);
    let mut handles = Vec::with_capacity(workers);
    let shares = engine::share_out(bindings, workers);
    for (index, ((mut handle, prepared), listeners)) in prepared.into_iter().zip(shares).enumerate() {
        let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
        engine::spawn::<Session>(
            index,
            &mut handle,
            prepared,
            shared,
            Arc::clone(&plan),
            Arc::clone(&locals),
        )
        .map_err(|e| format!("cannot start a worker: {e}"))?;
        handle.tell(Command::Plan(plan, listeners));
        handles.push(handle);
    }
    #[cfg(feature = "metrics")]
    let server = start_metrics(metrics_socket, &metrics)?;

    let followers = handles.iter().map(Handle::another).collect();
    let mut daemon = Daemon {
        source,
        options,
        descriptors,
        workers: handles,
        shared,
        follower: Follower::start(watch, &plan, &locals, followers),
        plan,
        #[cfg(feature = "metrics")]
        server,
    };
    daemon.announce();
    for signal in signals.forever() {
        match signal {
            SIGHUP => daemon.reload(),
            SIGUSR1 => daemon.tell_all(|| Command::Report),
            _ => break,
        }
    }
    daemon.stop(signals);
    Ok(())
}

/// Whom to become after binding.
fn identity(plan: &Plan) -> Result<Option<Identity>, String> {
    if plan.service.user.is_none() && plan.service.group.is_none() {
        return Ok(None);
    }
    Identity::resolve(plan.service.user.as_deref(), plan.service.group.as_deref())
        .map(Some)
        .map_err(|e| e.to_string())
}

struct Daemon {
    source: Source,
    options: LoadOptions,
    descriptors: u64,
    workers: Vec<Handle<Plan>>,
    shared: Arc<Shared>,
    follower: Follower,
    plan: Arc<Plan>,
    #[cfg(feature = "metrics")]
    server: Option<Server>,
}

impl Daemon {
    fn announce(&self) {
        for listener in &self.plan.service.listeners {
            log::info!("Listening: {} on {}", listener.mode.as_str(), listener.addr);
        }
        if self.source == Source::Embedded
            && let Some(http) =
                self.plan.service.listeners.iter().find(|listener| listener.mode == Mode::Http)
        {
            log::warn!(
                "no configuration file: running on the embedded default; try it with: curl -x http://{} http://example.com/",
                http.addr
            );
        }
    }

    /// Loads the configuration again; if anything is wrong with it, nothing changes.
    fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => log::info!(
                "Reloaded: {} rules, {} listeners",
                self.plan.rules.len(),
                self.plan.service.listeners.len()
            ),
            Err(error) => {
                for line in error.lines() {
                    log::error!("{line}");
                }
                log::error!("Not reloaded: the configuration in force stays");
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let loaded = self.source.load(self.options).map_err(|problems| problems.to_string())?;
        let mut plan = loaded.plan;
        let running = &self.plan.service.listeners;
        let bindings = engine::diff(
            &mut plan.service.listeners,
            running,
            self.plan.service.metrics,
            self.workers.len(),
        )?;
        let plan = Arc::new(plan);
        #[cfg(feature = "metrics")]
        let metrics_changed = plan.service.metrics != self.plan.service.metrics;
        #[cfg(feature = "metrics")]
        let new_server = if metrics_changed {
            let addrs: Vec<_> =
                running.iter().map(|listener| listener.addr).chain(self.plan.service.metrics).collect();
            start_metrics(bind_metrics(&plan, &addrs)?, &self.shared.metrics)?
        } else {
            None
        };

        // From here on nothing can fail.
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        if worker_count(&plan) != self.workers.len()
            || (&plan.service.user, &plan.service.group)
                != (&self.plan.service.user, &self.plan.service.group)
        {
            log::warn!("a change of workers, user or group needs a restart");
        }
        logging::reconfigure(&plan.service.log);
        self.shared.metrics.rules_loaded(plan.rules.len());
        self.shared.admission.change(effective_limits(&plan, self.descriptors));
        self.shared.resolver.reconfigure(resolver_config(&plan));
        #[cfg(feature = "metrics")]
        if metrics_changed && let Some(server) = std::mem::replace(&mut self.server, new_server) {
            server.stop();
        }
        self.follower.follow(&plan);
        let shares = engine::share_out(bindings, self.workers.len());
        for (worker, listeners) in self.workers.iter().zip(shares) {
            worker.tell(Command::Plan(Arc::clone(&plan), listeners));
        }
        self.plan = plan;
        Ok(())
    }

    fn tell_all(&self, command: impl Fn() -> Command<Plan>) {
        for worker in &self.workers {
            worker.tell(command());
        }
    }

    /// Ends when the sessions have, or their time, or when a second signal asks for it.
    fn stop(self, mut signals: Signals) {
        let until = Instant::now() + self.plan.service.timeouts.drain;
        log::info!(
            "Stopping: up to {} ms for the sessions to end",
            self.plan.service.timeouts.drain.as_millis()
        );
        self.tell_all(|| Command::Drain(until));
        let workers: Vec<_> = self.workers.iter().map(Handle::another).collect();
        let hurry = move || {
            for signal in signals.forever() {
                for worker in &workers {
                    match signal {
                        SIGTERM | SIGINT => worker.tell(Command::Drain(Instant::now())),
                        SIGUSR1 => worker.tell(Command::Report),
                        _ => {}
                    }
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("signals".into()).spawn(hurry) {
            log::warn!("a second signal will not be heard: {error}");
        }
        for worker in self.workers {
            worker.join();
        }
        log::info!("Stopped");
    }
}

/// Becomes the configured user, keeping what the data path needs.
///
/// `sockets` become that user's, too: the kernel lets only sockets of one user share a port (socket(7), SO_REUSEPORT), and
/// a reload may have to bind beside these.
fn drop_privileges<'s>(
    plan: &Plan,
    sockets: impl Iterator<Item = &'s std::net::TcpListener>,
) -> Result<(), String> {
    let Some(identity) = identity(plan)? else { return Ok(()) };
    for socket in sockets {
        // Not allowed to anybody but root; then such a reload is refused with a reason.
        let _ = std::os::unix::fs::fchown(socket, Some(identity.uid), Some(identity.gid));
    }
    privileges::drop_to(identity, &[Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService])
        .map_err(|e| format!("cannot become the configured user: {e}"))
}

#[cfg(feature = "metrics")]
fn bind_metrics(
    plan: &Plan,
    running: &[std::net::SocketAddr],
) -> Result<Option<std::net::TcpListener>, String> {
    plan.service
        .metrics
        .map(|addr| {
            engine::bind_one(addr, running).map_err(|e| format!("cannot serve metrics on {addr}: {e}"))
        })
        .transpose()
}

#[cfg(feature = "metrics")]
fn start_metrics(
    socket: Option<std::net::TcpListener>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Server>, String> {
    socket
        .map(|socket| Server::start(socket, Arc::clone(metrics)))
        .transpose()
        .map_err(|e| format!("cannot serve metrics: {e}"))
}

fn worker_count(plan: &Plan) -> usize {
    plan.service.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn effective_limits(plan: &Plan, descriptors: u64) -> Effective {
    let effective = Effective::of(plan.service.limits, descriptors);
    if effective.lowered {
        log::warn!(
            "limits.connections is lowered to {}: the process may open {descriptors} descriptors",
            effective.connections
        );
    }
    effective
}

fn resolver_config(plan: &Plan) -> resolver::ResolverConfig {
    resolver::ResolverConfig {
        nameservers: plan.service.nameservers.clone(),
        timeout: plan.service.timeouts.dns_lookup,
        outgoing: Outgoing {
            fwmark: plan.service.output.fwmark,
            interface: plan.service.output.interface.clone(),
        },
    }
}
