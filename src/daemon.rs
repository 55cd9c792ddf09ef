//! The running program: load, bind, drop privileges, start the workers, then follow signals.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::cli::Source;
use crate::config::{LoadOptions, Loaded, Mode, Plan};
use crate::decide::rules::Locals;
use crate::engine::{self, Admission, Binding, Command, Dialled, Effective, Handle, Shared, resolver};
use crate::logging;
use crate::metrics::Metrics;
#[cfg(feature = "metrics")]
use crate::metrics::Server;
use crate::sys::addresses::{self, AddressWatch};
use crate::sys::privileges::{self, Capability, Identity};
use crate::sys::socket::Outgoing;
use crate::sys::{limits, time};

/// Runs until a signal ends it.
///
/// # Errors
/// Why it cannot run, as one line for a person.
pub fn run(source: Source, options: LoadOptions, loaded: Loaded) -> Result<(), String> {
    time::init_time_zone();
    let plan = Arc::new(loaded.plan);
    logging::init(&plan.log);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Before there are threads, so that none misses the mask or keeps a privilege.
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT, SIGUSR1])
        .map_err(|e| format!("cannot handle signals: {e}"))?;
    let descriptors =
        limits::raise_descriptors().map_err(|e| format!("cannot read the descriptor limit: {e}"))?;
    let workers = worker_count(&plan);
    let bindings = plan
        .listeners
        .iter()
        .map(|listener| engine::bind(listener, workers))
        .collect::<Result<Vec<_>, _>>()?;
    #[cfg(feature = "metrics")]
    let metrics_socket = bind_metrics(&plan)?;
    drop_privileges(&plan, &bindings)?;

    let metrics = Arc::new(Metrics::new());
    metrics.rules_loaded(plan.rules.len());
    let effective = effective_limits(&plan, descriptors);
    let mut prepared = Vec::with_capacity(workers);
    for _ in 0..workers {
        prepared.push(engine::prepare().map_err(|e| format!("cannot make a worker: {e}"))?);
    }
    let answerers: Vec<Handle> = prepared.iter().map(|(handle, _)| handle.another()).collect();
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
        dialled: Dialled::new(workers),
    });

    let locals = Arc::new(locals(&plan));
    let mut handles = Vec::with_capacity(workers);
    let shares = engine::share_out(bindings, workers);
    for (index, ((mut handle, prepared), listeners)) in prepared.into_iter().zip(shares).enumerate() {
        let (shared, plan, locals) = (Arc::clone(&shared), Arc::clone(&plan), Arc::clone(&locals));
        engine::spawn(index, &mut handle, prepared, shared, Arc::clone(&plan), locals)
            .map_err(|e| format!("cannot start a worker: {e}"))?;
        handle.tell(Command::Plan(plan, listeners));
        handles.push(handle);
    }
    #[cfg(feature = "metrics")]
    let server = metrics_socket.map(|socket| Server::start(socket, Arc::clone(&metrics))).transpose();
    #[cfg(feature = "metrics")]
    let server = server.map_err(|e| format!("cannot serve metrics: {e}"))?;

    let followers = handles.iter().map(Handle::another).collect();
    let mut daemon = Daemon {
        source,
        options,
        descriptors,
        workers: handles,
        shared,
        follower: Follower::start(&plan, followers),
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

/// What a start would find wrong beyond the configuration itself, without binding anything: it also works beside a running
/// daemon.
pub fn check(loaded: &Loaded) -> Vec<String> {
    let mut problems = check_user(loaded);
    let own = addresses::local_addresses().unwrap_or_default();
    for listener in &loaded.plan.listeners {
        let ip = listener.addr.ip();
        if !own.is_empty() && !ip.is_unspecified() && !ip.is_loopback() && own.binary_search(&ip).is_err() {
            problems.push(format!("listen: this machine has no address {ip}"));
        }
    }
    problems
}

/// What is wrong with `user` and `group`: they do not exist, or could not read at a reload what must be read then.
pub fn check_user(loaded: &Loaded) -> Vec<String> {
    let user = match identity(&loaded.plan) {
        Ok(Some(user)) => user,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![error],
    };
    // What cannot be looked at is not known to be unreadable.
    let unreadable = |file: &&PathBuf| privileges::readable_by(file, user).is_ok_and(|readable| !readable);
    let problem = |file: &PathBuf| format!("user: {} could not be read again at a reload", file.display());
    loaded.files.iter().filter(unreadable).map(problem).collect()
}

/// Whom to become after binding.
fn identity(plan: &Plan) -> Result<Option<Identity>, String> {
    if plan.user.is_none() && plan.group.is_none() {
        return Ok(None);
    }
    Identity::resolve(plan.user.as_deref(), plan.group.as_deref()).map(Some).map_err(|e| e.to_string())
}

/// What the rules must know of this machine.
pub fn locals(plan: &Plan) -> Locals {
    let addrs = addresses::local_addresses().unwrap_or_else(|error| {
        log::warn!("cannot read this machine's addresses: {error}");
        Vec::new()
    });
    locals_with(plan, addrs)
}

fn locals_with(plan: &Plan, addrs: Vec<IpAddr>) -> Locals {
    let mut tcp_ports: Vec<u16> = plan.listeners.iter().map(|listener| listener.addr.port()).collect();
    tcp_ports.extend(plan.metrics.map(|addr| addr.port()));
    tcp_ports.sort_unstable();
    tcp_ports.dedup();
    Locals { addrs, tcp_ports, allow_local: plan.output.allow_local }
}

struct Daemon {
    source: Source,
    options: LoadOptions,
    descriptors: u64,
    workers: Vec<Handle>,
    shared: Arc<Shared>,
    follower: Follower,
    plan: Arc<Plan>,
    #[cfg(feature = "metrics")]
    server: Option<Server>,
}

impl Daemon {
    fn announce(&self) {
        for listener in &self.plan.listeners {
            log::info!("Listening: {} on {}", listener.mode.as_str(), listener.addr);
        }
        if self.source == Source::Embedded
            && let Some(http) = self.plan.listeners.iter().find(|listener| listener.mode == Mode::Http)
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
                self.plan.listeners.len()
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
        let plan = Arc::new(loaded.plan);
        let bindings = engine::diff(&plan.listeners, &self.plan.listeners, self.workers.len())?;
        #[cfg(feature = "metrics")]
        let metrics_socket = if plan.metrics == self.plan.metrics { None } else { bind_metrics(&plan)? };

        // From here on nothing can fail.
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        if worker_count(&plan) != self.workers.len()
            || (&plan.user, &plan.group) != (&self.plan.user, &self.plan.group)
        {
            log::warn!("a change of workers, user or group needs a restart");
        }
        logging::reconfigure(&plan.log);
        self.shared.metrics.rules_loaded(plan.rules.len());
        self.shared.admission.change(effective_limits(&plan, self.descriptors));
        self.shared.resolver.reconfigure(resolver_config(&plan));
        #[cfg(feature = "metrics")]
        if plan.metrics != self.plan.metrics {
            if let Some(server) = self.server.take() {
                server.stop();
            }
            self.server = metrics_socket
                .and_then(|socket| Server::start(socket, Arc::clone(&self.shared.metrics)).ok());
        }
        let locals = self.follower.follow(&plan);
        let shares = engine::share_out(bindings, self.workers.len());
        for (worker, listeners) in self.workers.iter().zip(shares) {
            worker.tell(Command::Locals(Arc::clone(&locals)));
            worker.tell(Command::Plan(Arc::clone(&plan), listeners));
        }
        self.plan = plan;
        Ok(())
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.tell(command());
        }
    }

    /// Ends when the sessions have, or their time, or when a second signal asks for it.
    fn stop(self, mut signals: Signals) {
        let until = Instant::now() + self.plan.timeouts.drain;
        log::info!("Stopping: up to {} ms for the sessions to end", self.plan.timeouts.drain.as_millis());
        self.tell_all(|| Command::Drain(until));
        let workers: Vec<Handle> = self.workers.iter().map(Handle::another).collect();
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

/// Keeps the workers' idea of this machine's addresses true: routers get new ones while they run.
struct Follower {
    plan: Arc<Mutex<Arc<Plan>>>,
}

impl Follower {
    fn start(plan: &Arc<Plan>, workers: Vec<Handle>) -> Self {
        let plan = Arc::new(Mutex::new(Arc::clone(plan)));
        let current = Arc::clone(&plan);
        let follow = move |mut watch: AddressWatch| {
            while watch.wait().is_ok() {
                let plan = Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner));
                let locals = Arc::new(locals(&plan));
                for worker in &workers {
                    worker.tell(Command::Locals(Arc::clone(&locals)));
                }
            }
        };
        let started = AddressWatch::new().and_then(|watch| {
            std::thread::Builder::new().name("addresses".into()).spawn(move || follow(watch))
        });
        if let Err(error) = started {
            log::warn!(
                "cannot follow changes of this machine's addresses, they are read at reload only: {error}"
            );
        }
        Follower { plan }
    }

    /// From now on for this plan.
    fn follow(&self, plan: &Arc<Plan>) -> Arc<Locals> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(plan);
        Arc::new(locals(plan))
    }
}

/// Becomes the configured user, keeping what the data path needs.
fn drop_privileges(plan: &Plan, bindings: &[Binding]) -> Result<(), String> {
    let Some(identity) = identity(plan)? else { return Ok(()) };
    for binding in bindings {
        binding.give_to(identity);
    }
    privileges::drop_to(identity, &[Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService])
        .map_err(|e| format!("cannot become the configured user: {e}"))
}

#[cfg(feature = "metrics")]
fn bind_metrics(plan: &Plan) -> Result<Option<std::net::TcpListener>, String> {
    plan.metrics
        .map(|addr| {
            std::net::TcpListener::bind(addr).map_err(|e| format!("cannot serve metrics on {addr}: {e}"))
        })
        .transpose()
}

fn worker_count(plan: &Plan) -> usize {
    plan.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn effective_limits(plan: &Plan, descriptors: u64) -> Effective {
    let effective = Effective::of(plan.limits, descriptors);
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
        nameservers: plan.nameservers.clone(),
        timeout: plan.timeouts.dns_lookup,
        outgoing: Outgoing { fwmark: plan.output.fwmark, interface: plan.output.interface.clone() },
    }
}
