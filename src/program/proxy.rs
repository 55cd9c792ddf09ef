//! `calamary`: rules, `--why`, an embedded default configuration, the metrics endpoint.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use getopts::{Matches, Options};

use super::{Bound, Program, Seen};
use crate::cli::{self, Source};
#[cfg(feature = "tls")]
use crate::config::Service;
use crate::config::{self, LoadOptions, Loaded, Mode, Plan, Problems};
#[cfg(feature = "metrics")]
use crate::daemon::Status;
use crate::daemon::{self, Household, Live};
use crate::decide::{Known, why};
#[cfg(feature = "metrics")]
use crate::engine;
#[cfg(feature = "tls")]
use crate::engine::prober::ProberConfig;
use crate::metrics::Metrics;
#[cfg(feature = "metrics")]
use crate::metrics::Server;
use crate::session::Session;
#[cfg(feature = "intercept")]
use crate::sys::privileges;
#[cfg(feature = "tls")]
use crate::sys::socket::Outgoing;
use crate::sys::time;

/// What runs beside the workers of the proxy.
#[derive(Debug, Default)]
pub struct Serving {
    #[cfg(feature = "metrics")]
    metrics: Option<Server>,
    live: Option<Live>,
}

impl Program for Session {
    const NAME: &'static str = "calamary";
    const ABOUT: &'static str = "A forward proxy that filters by what a connection really is.";
    const DEFAULT_PATH: &'static str = "/etc/calamary/config.yml";

    type Beside = Serving;
    type Around = Household;

    fn options(options: &mut Options) {
        if cfg!(feature = "household") {
            let facts = "explain what the rules say of 'src=… dest=… port=… dns=… protoL5=…'";
            options.optopt("", "why", facts, "FACTS");
            options.optflag("", "live", "let the running program explain, with --why");
            options.optflag("", "connections", "show the live connections of the running program");
            options.optopt(
                "",
                "pass",
                "let a device reach a name for a while: --pass 15m DEVICE NAME",
                "TIME",
            );
        }
        options.optflag("", "print-config", "print the embedded default configuration");
        #[cfg(feature = "intercept")]
        options.optopt("", "make-ca", "make an authority for `action: intercept` in a folder", "DIR");
        options.optflag("", "hash-password", "read a password and print its hash, for `users`");
    }

    fn words(given: &Matches) -> usize {
        if cfg!(feature = "household") && given.opt_present("pass") { 2 } else { 0 }
    }

    fn without_configuration(given: &Matches) -> Option<ExitCode> {
        #[cfg(feature = "intercept")]
        if let Some(dir) = given.opt_str("make-ca") {
            return Some(match cli::make_ca(&dir) {
                Ok(advice) => {
                    cli::say(&advice);
                    ExitCode::SUCCESS
                }
                Err(error) => cli::cannot_run::<Session>(&error),
            });
        }
        if cfg!(feature = "household") {
            match request(given) {
                Ok(None) => {}
                Ok(Some(request)) => return Some(ask(given, &request)),
                Err(error) => return Some(cli::wrong::<Session>(error)),
            }
        }
        if given.opt_present("hash-password") {
            return Some(match cli::hash_password() {
                Ok(hash) => {
                    cli::say(&format!("{hash}\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => cli::refuse::<Session>(&[error]),
            });
        }
        given.opt_present("print-config").then(|| {
            cli::say(config::DEFAULT_CONFIG);
            ExitCode::SUCCESS
        })
    }

    fn instead(given: &Matches, loaded: &Loaded) -> Option<ExitCode> {
        if !cfg!(feature = "household") {
            return None;
        }
        given.opt_str("why").map(|facts| explain(loaded, &facts))
    }

    fn load(source: &Source, options: LoadOptions) -> Result<Loaded, Problems> {
        match source {
            Source::File(path) => config::load_file(path, options),
            Source::Default => config::load_default(options),
        }
    }

    #[cfg(feature = "tls")]
    fn prober(plan: &Plan) -> Option<ProberConfig> {
        let Service { timeouts, output, .. } = &plan.service;
        plan.trust.clone().map(|trust| ProberConfig {
            trust,
            timeout: timeouts.probe,
            outgoing: Outgoing { fwmark: output.fwmark, interface: output.interface.clone() },
            allow_local: output.allow_local,
        })
    }

    fn bind(plan: &Plan, running: Option<&Plan>) -> Result<Bound, String> {
        let metrics = bind_metrics(plan, running)?;
        let is_new = cfg!(feature = "household") && running.is_none_or(|running| running.live != plan.live);
        let bind_live = |path: &PathBuf| {
            daemon::bind_live(path, &plan.service)
                .map_err(|e| format!("cannot listen at {}: {e}", path.display()))
        };
        Ok(Bound { metrics, live: plan.live.as_ref().filter(|_| is_new).map(bind_live).transpose()? })
    }

    fn begin(plan: &Arc<Plan>, bound: Bound, seen: &Seen<'_, Self>) -> Result<Serving, String> {
        #[cfg(feature = "metrics")]
        let metrics = {
            let start = |socket| {
                let status = Status::new(seen.around, seen.workers);
                Server::start(socket, Arc::clone(seen.metrics), Box::new(status))
            };
            bound.metrics.map(start).transpose().map_err(|e| format!("cannot serve metrics: {e}"))?
        };
        let live = bound.live.zip(plan.live.as_ref()).filter(|_| cfg!(feature = "household"));
        let live =
            live.map(|(socket, path)| Live::start(socket, path, seen.around, seen.workers)).transpose();
        Ok(Serving {
            #[cfg(feature = "metrics")]
            metrics,
            live: live.map_err(|e| format!("cannot serve the live socket: {e}"))?,
        })
    }

    fn replace(old: &mut Serving, new: Serving, plan: &Plan, running: &Plan) {
        #[cfg(feature = "metrics")]
        if plan.service.metrics != running.service.metrics
            && let Some(server) = std::mem::replace(&mut old.metrics, new.metrics)
        {
            server.stop();
        }
        if plan.live != running.live
            && let Some(live) = std::mem::replace(&mut old.live, new.live)
        {
            live.stop();
        }
    }

    fn inherit(plan: &mut Plan, running: &Plan) {
        // Roots that are the same go on with what they have learnt, and answers that hang on them stay.
        #[cfg(feature = "tls")]
        if let (Some(new), Some(old)) = (&mut plan.trust, &running.trust)
            && new.is_same(old)
        {
            *new = Arc::clone(old);
        }
        // Certificates, sessions and refusals go on.
        #[cfg(feature = "intercept")]
        if let (Some(new), Some(old)) = (&mut plan.interception, &running.interception)
            && new.is_same(old)
        {
            *new = Arc::clone(old);
        }
        // What sources have taken stays taken, where a rule's limits are the same.
        for (index, keeper) in &mut plan.keepers {
            if let Some(old) = running.keepers.get(index).filter(|old| old.quota() == keeper.quota()) {
                *keeper = Arc::clone(old);
            }
        }
    }

    fn ended(plan: &Plan) {
        if let Some(path) = &plan.live {
            // Not allowed to everybody; what is left there is taken away by the next start.
            let _ = std::fs::remove_file(path);
        }
    }

    fn in_force(plan: &Arc<Plan>, metrics: &Metrics, around: &Arc<Household>) {
        #[cfg(feature = "intercept")]
        if plan.interception.is_some()
            && let Err(error) = privileges::forbid_dumps()
        {
            log::warn!("the authority's key is not kept out of core dumps: {error}");
        }
        around.follow(plan);
        metrics.rules_loaded(plan.rules.len());
    }

    fn in_short(plan: &Plan) -> String {
        format!("{} rules, {} listeners", plan.rules.len(), plan.service.listeners.len())
    }

    fn hello(plan: &Plan, source: &Source) {
        if *source == Source::Default
            && let Some(http) = plan.service.listeners.iter().find(|listener| listener.mode == Mode::Http)
        {
            log::warn!(
                "no configuration file: running on the embedded default; try it with: curl -x http://{} http://example.com/",
                http.addr
            );
        }
    }
}

#[cfg(feature = "metrics")]
fn bind_metrics(plan: &Plan, running: Option<&Plan>) -> Result<Option<TcpListener>, String> {
    if running.is_some_and(|running| running.service.metrics == plan.service.metrics) {
        return Ok(None);
    }
    let running = running.map(|running| super::listening(&running.service)).unwrap_or_default();
    let Some(addr) = plan.service.metrics else { return Ok(None) };
    engine::bind_one(addr, &running).map(Some).map_err(|e| format!("cannot serve metrics on {addr}: {e}"))
}

#[cfg(not(feature = "metrics"))]
fn bind_metrics(_: &Plan, _: Option<&Plan>) -> Result<Option<TcpListener>, String> {
    Ok(None)
}

/// What the running program is to be asked, if it is.
fn request(given: &Matches) -> Result<Option<String>, &'static str> {
    let (live, connections, pass) =
        (given.opt_present("live"), given.opt_present("connections"), given.opt_str("pass"));
    match (live, given.opt_str("why"), connections, pass) {
        (false, _, false, None) => Ok(None),
        (true, Some(facts), false, None) => Ok(Some(format!("why {facts}"))),
        (true, None, ..) => Err("--live goes with --why"),
        (_, None, true, None) => Ok(Some("connections".to_owned())),
        (_, None, false, Some(time)) => match &given.free[..] {
            [device, name] => Ok(Some(format!("pass {time} {device} {name}"))),
            _ => Err("--pass needs a time, a device and a name: --pass 15m DEVICE NAME"),
        },
        _ => Err("--why, --connections and --pass are three questions"),
    }
}

/// Asks the running program that has this configuration.
fn ask(given: &Matches, request: &str) -> ExitCode {
    let path = match Source::of(given.opt_str("config"), Path::new(Session::DEFAULT_PATH)) {
        Source::Default => Ok(None),
        Source::File(path) => config::live_socket(&path),
    };
    let path = match path {
        Ok(path) => path.unwrap_or_else(|| PathBuf::from(config::LIVE_SOCKET)),
        Err(problems) => return cli::refuse::<Session>(&[problems.to_string()]),
    };
    match cli::live::ask(&path, request) {
        Ok((status, text)) => {
            cli::say(&text);
            ExitCode::from(status)
        }
        Err(error) => cli::cannot_run::<Session>(&error),
    }
}

fn explain(loaded: &Loaded, facts: &str) -> ExitCode {
    let mut facts = match why::parse_facts(facts) {
        Ok(facts) => facts,
        Err(error) => return cli::wrong::<Session>(&format!("--why: {error}")),
    };
    if facts.time.is_unknown() {
        time::init_time_zone();
        facts.time = Known::Is(daemon::week_time());
    }
    let locals = match daemon::locals(&loaded.plan.service) {
        Ok(locals) => locals,
        Err(error) => {
            return cli::cannot_run::<Session>(&format!("cannot read this machine's addresses: {error}"));
        }
    };
    let explanation =
        why::explain_with_lines(&loaded.plan.rules, &facts, &locals, &config::list_file::find_line);
    cli::say(&format!("{explanation}\n"));
    ExitCode::from(explanation.exit_code())
}
