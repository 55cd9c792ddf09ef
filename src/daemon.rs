//! The running program: load, bind, drop privileges, start the workers, then follow signals.

mod check;
mod follower;
mod health;
mod household;
mod live;
mod passes;
#[cfg(feature = "metrics")]
mod status;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

pub use self::check::{check, check_user};
pub use self::follower::locals;
use self::follower::{Follower, Watch};
pub use self::health::Checks;
pub use self::household::{Household, week_time};
pub(crate) use self::live::{Live, bind as bind_live};
#[cfg(feature = "metrics")]
pub(crate) use self::status::Status;
use crate::cli::Source;
use crate::config::{LoadOptions, Loaded, Service};
#[cfg(feature = "tls")]
use crate::engine::prober::{self, Prober};
use crate::engine::verifier::Verifier;
use crate::engine::{self, Admission, Command, Dialled, Effective, Handle, Shared, resolver};
use crate::logging;
use crate::metrics::Metrics;
use crate::program::{Program, Seen};
use crate::session::{Memory, Surroundings};
use crate::sys::privileges::{self, Capability, Identity};
use crate::sys::signals::{Signal, Signals};
use crate::sys::socket::Outgoing;
use crate::sys::{limits, threads, time};

/// Runs until a signal ends it.
///
/// # Errors
/// Why it cannot run, as one line for a person.
pub fn run<P: Program>(source: Source, options: LoadOptions, loaded: Loaded<P::Plan>) -> Result<(), String> {
    time::init_time_zone();
    let mut plan = loaded.plan;
    logging::init(P::NAME, &plan.as_ref().log);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Before there are threads, so that none misses the mask or keeps a privilege.
    let signals = Signals::take().map_err(|e| format!("cannot handle signals: {e}"))?;
    let descriptors =
        limits::raise_descriptors().map_err(|e| format!("cannot read the descriptor limit: {e}"))?;
    let workers = worker_count(plan.as_ref());
    let bindings = engine::diff(&mut plan.as_mut().listeners, &[], None, workers)?;
    let plan = Arc::new(plan);
    let service: &Service = (*plan).as_ref();
    let bound = P::bind(&plan, None)?;
    let sockets = bindings.iter().flat_map(|binding| &binding.sockets).map(AsFd::as_fd);
    drop_privileges(service, sockets.chain(bound.metrics.as_ref().map(AsFd::as_fd)))?;

    let metrics = Arc::new(Metrics::new());
    let around = Arc::<P::Around>::default();
    P::in_force(&plan, &metrics, &around);
    let effective = effective_limits(service, descriptors);
    let mut prepared = Vec::with_capacity(workers);
    for _ in 0..workers {
        prepared.push(engine::prepare().map_err(|e| format!("cannot make a worker: {e}"))?);
    }
    let askers: Vec<Handle<P::Plan>> = prepared.iter().map(|(handle, _)| handle.another()).collect();
    let verifier = Verifier::new(move |verified| {
        if let Some(worker) = askers.get(verified.asker.worker) {
            worker.tell(Command::Verified(verified));
        }
    });
    let resolver = if P::RESOLVES {
        let answerers = prepared.iter().map(|(handle, _)| handle.another()).collect();
        Some(start_resolver(service, answerers)?)
    } else {
        None
    };
    let (admission, dialled) = (Admission::new(effective), Dialled::new(workers));
    #[cfg(feature = "tls")]
    let prober = {
        let askers: Vec<Handle<P::Plan>> = prepared.iter().map(|(handle, _)| handle.another()).collect();
        let surroundings = prober::Surroundings {
            deliver: Box::new(move |answer| {
                if let Some(worker) = askers.get(answer.asker.worker) {
                    worker.tell(Command::Probed(answer));
                }
            }),
            metrics: Arc::clone(&metrics),
            dialled: dialled.clone(),
            descriptors: Arc::clone(&admission.descriptors),
            clock: || time::now().secs,
        };
        Prober::new(P::prober(&plan), surroundings)
    };
    let shared = Arc::new(Shared {
        metrics: Arc::clone(&metrics),
        admission,
        resolver,
        verifier,
        surroundings: Arc::<P::Around>::clone(&around) as Arc<dyn Surroundings>,
        #[cfg(feature = "tls")]
        prober,
        dialled,
        sent: Dialled::new(workers),
        memory: Memory::new(Instant::now()),
    });

    let watch = Watch::begin();
    let locals = locals(service).map_err(|e| format!("cannot read this machine's addresses: {e}"))?;
    let locals = Arc::new(locals);
    let shown: Vec<Handle<P::Plan>> = prepared.iter().map(|(handle, _)| handle.another()).collect();
    let seen = Seen { metrics: &metrics, around: &around, workers: &shown };
    let beside = P::begin(&plan, bound, &seen)?;
    let mut handles = Vec::with_capacity(workers);
    let shares = engine::share_out(bindings, workers);
    for (index, ((mut handle, prepared), listeners)) in prepared.into_iter().zip(shares).enumerate() {
        let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
        engine::spawn::<P>(index, &mut handle, prepared, shared, Arc::clone(&plan), Arc::clone(&locals))
            .map_err(|e| format!("cannot start a worker: {e}"))?;
        handle.tell(Command::Plan(plan, listeners));
        handles.push(handle);
    }

    let followers = handles.iter().map(Handle::another).collect();
    let mut daemon = Daemon::<P> {
        source,
        options,
        descriptors,
        workers: handles,
        shared,
        follower: Follower::start(watch, &plan, &locals, followers),
        plan,
        around,
        beside,
    };
    daemon.announce();
    loop {
        match signals.next() {
            Signal::Hangup => daemon.reload(),
            Signal::User1 => daemon.report(),
            Signal::Interrupt | Signal::Terminate => break,
        }
    }
    daemon.stop(signals);
    Ok(())
}

/// Whom to become after binding.
fn identity(service: &Service) -> Result<Option<Identity>, String> {
    if service.user.is_none() && service.group.is_none() {
        return Ok(None);
    }
    Identity::resolve(service.user.as_deref(), service.group.as_deref()).map(Some).map_err(|e| e.to_string())
}

struct Daemon<P: Program> {
    source: Source,
    options: LoadOptions,
    descriptors: u64,
    workers: Vec<Handle<P::Plan>>,
    shared: Arc<Shared>,
    follower: Follower<P::Plan>,
    plan: Arc<P::Plan>,
    around: Arc<P::Around>,
    beside: P::Beside,
}

impl<P: Program> Daemon<P> {
    fn service(&self) -> &Service {
        (*self.plan).as_ref()
    }

    fn announce(&self) {
        for listener in &self.service().listeners {
            log::info!("Listening: {} on {}", listener.mode.as_str(), listener.place());
        }
        P::hello(&self.plan, &self.source);
    }

    fn report(&self) {
        P::report(&self.plan, &self.shared.metrics);
        self.tell_all(|| Command::Report);
    }

    /// Loads the configuration again; if anything is wrong with it, nothing changes.
    fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => log::info!("Reloaded: {}", P::in_short(&self.plan)),
            Err(error) => {
                for line in error.lines() {
                    log::error!("{line}");
                }
                log::error!("Not reloaded: the configuration in force stays");
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let loaded = P::load(&self.source, self.options).map_err(|problems| problems.to_string())?;
        let mut plan = loaded.plan;
        P::inherit(&mut plan, &self.plan);
        let running = self.service();
        let wanted = &mut plan.as_mut().listeners;
        let bindings = engine::diff(wanted, &running.listeners, running.metrics, self.workers.len())?;
        let bound = P::bind(&plan, Some(&self.plan))?;
        let plan = Arc::new(plan);
        let seen = Seen { metrics: &self.shared.metrics, around: &self.around, workers: &self.workers };
        let beside = P::begin(&plan, bound, &seen)?;

        // From here on nothing can fail.
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let service: &Service = (*plan).as_ref();
        if worker_count(service) != self.workers.len()
            || (&service.user, &service.group) != (&running.user, &running.group)
        {
            log::warn!("a change of workers, user or group needs a restart");
        }
        logging::reconfigure(&service.log);
        P::in_force(&plan, &self.shared.metrics, &self.around);
        self.shared.admission.change(effective_limits(service, self.descriptors));
        if P::RESOLVES
            && let Some(resolver) = &self.shared.resolver
        {
            resolver.reconfigure(resolver_config(service));
        }
        #[cfg(feature = "tls")]
        if P::PROBES {
            self.shared.prober.reconfigure(P::prober(&plan));
        }
        P::replace(&mut self.beside, beside, &plan, &self.plan);
        self.follower.follow(&plan);
        let shares = engine::share_out(bindings, self.workers.len());
        for (worker, listeners) in self.workers.iter().zip(shares) {
            worker.tell(Command::Plan(Arc::clone(&plan), listeners));
        }
        self.plan = plan;
        Ok(())
    }

    fn tell_all(&self, command: impl Fn() -> Command<P::Plan>) {
        for worker in &self.workers {
            worker.tell(command());
        }
    }

    /// Ends when the sessions have, or their time, or when a second signal asks for it.
    fn stop(self, signals: Signals) {
        let drain = self.service().timeouts.drain;
        let until = Instant::now() + drain;
        let millis = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        log::info!("Stopping: up to {millis} ms for the sessions to end");
        self.tell_all(|| Command::Drain(until));
        let workers: Vec<_> = self.workers.iter().map(Handle::another).collect();
        let hurry = move || {
            loop {
                let signal = signals.next();
                for worker in &workers {
                    match signal {
                        Signal::Interrupt | Signal::Terminate => worker.tell(Command::Drain(Instant::now())),
                        Signal::User1 => worker.tell(Command::Report),
                        Signal::Hangup => {}
                    }
                }
            }
        };
        if let Err(error) = threads::spawn("signals", threads::STACK_SIZE, hurry) {
            log::warn!("a second signal will not be heard: {error}");
        }
        for worker in self.workers {
            worker.join();
        }
        P::ended(&self.plan);
        log::info!("Stopped");
    }
}

/// Becomes the configured user, keeping what the data path needs.
///
/// `sockets` become that user's, too: the kernel lets only sockets of one user share a port (socket(7), SO_REUSEPORT), and
/// a reload may have to bind beside these.
fn drop_privileges<'s>(
    service: &Service,
    sockets: impl Iterator<Item = BorrowedFd<'s>>,
) -> Result<(), String> {
    let Some(identity) = identity(service)? else { return Ok(()) };
    for socket in sockets {
        // Not allowed to anybody but root; then such a reload is refused with a reason.
        let _ = std::os::unix::fs::fchown(socket, Some(identity.uid), Some(identity.gid));
    }
    privileges::drop_to(identity, &[Capability::NetAdmin, Capability::NetRaw, Capability::NetBindService])
        .map_err(|e| format!("cannot become the configured user: {e}"))
}

fn start_resolver<P: Send + Sync + 'static>(
    service: &Service,
    workers: Vec<Handle<P>>,
) -> Result<resolver::ResolverHandle, String> {
    let deliver = move |answer: resolver::Answer| {
        if let Some(worker) = workers.get(answer.asker.worker) {
            worker.tell(Command::Answer(answer));
        }
    };
    resolver::start(resolver_config(service), Box::new(deliver))
        .map_err(|e| format!("cannot start the resolver: {e}"))
}

fn resolver_config(service: &Service) -> resolver::ResolverConfig {
    resolver::ResolverConfig {
        nameservers: service.nameservers.clone(),
        timeout: service.timeouts.dns_lookup,
        outgoing: Outgoing { fwmark: service.output.fwmark, interface: service.output.interface.clone() },
    }
}

fn worker_count(service: &Service) -> usize {
    service.workers.unwrap_or_else(limits::processors)
}

fn effective_limits(service: &Service, descriptors: u64) -> Effective {
    let effective = Effective::of(service.limits, descriptors);
    if effective.lowered {
        log::warn!(
            "limits.connections is lowered to {}: the process may open {descriptors} descriptors",
            effective.connections
        );
    }
    effective
}
