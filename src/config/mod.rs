//! From the file to the plan.
//!
//! `tree` reads the YAML, `decode` knows maps and scalars, `service`, `listen`, `users`, `certs`, `vars` (with `list_file`
//! and `progress`), `rules` and `policy_tests` know the keys, and `doubts` what is allowed but hardly meant. Every problem of a file is
//! found in one go and shown with its place, see [`Problem`]. What a key asks for and this version cannot do is an error,
//! never passed over.

mod certs;
mod decode;
mod devices;
mod doubts;
mod limit;
pub mod list_file;
mod listen;
pub mod plan;
mod policy_tests;
mod problem;
mod progress;
pub mod redirector;
mod rules;
mod secret_file;
mod service;
mod tree;
pub mod users;
mod vars;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::certs::Certs;
use self::decode::{Keys, Section, boolean};
use self::policy_tests::PolicyTests;
use self::problem::Report;
use self::tree::{Node, Place, Value};
use self::vars::Variables;
use crate::auth::Users;
#[cfg(feature = "tls")]
use crate::decide::Action;
use crate::decide::L4;
#[cfg(feature = "tls")]
use crate::decide::rules::FieldSpec;
use crate::decide::rules::{RuleSpec, Ruleset, fold_user};
use crate::sys::files;

pub use devices::Devices;
pub use plan::{Limits, Listener, Log, Mode, Output, Plan, Service, Target, Timeouts};
pub use problem::{Problem, Problems};
pub use service::LIVE_SOCKET;

/// What a start without a file uses, and `--print-config` prints.
pub const DEFAULT_CONFIG: &str = include_str!("default.yml");

/// The largest configuration file; long lists belong into list files.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Listeners that the summary names.
const MAX_LISTENERS_SHOWN: usize = 16;

/// What may stand at the top level; the settings of `service` may, too.
const TOP_KEYS: Keys = Keys {
    own: &["service", "vars", "rules", "users", "devices", "tests"],
    shared: service::SETTINGS,
    aliases: &[],
};

/// What may stand under `service`.
const SERVICE_KEYS: Keys = Keys { own: &["vars", "rules"], shared: service::SETTINGS, aliases: &[] };

/// What the command line adds to a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// As `debug: true`.
    pub debug: bool,
    /// Whether somebody looks at standard error while long lists are read.
    pub progress: bool,
}

/// A configuration that can be started.
#[derive(Debug)]
pub struct Loaded<P = Plan> {
    /// What to run.
    pub plan: P,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Problem>,
    /// What the configuration comes to, in a few lines for `-v`.
    pub summary: String,
    /// What a reload must read again: the configuration file, certificates and keys, the list files that rules use, and
    /// files of users.
    pub files: Vec<PathBuf>,
}

/// Reads and checks a configuration, the list files that its rules use, and certificates that its listeners need.
///
/// # Errors
/// Every problem of the file, or that it cannot be read.
pub fn load_file(path: &Path, options: LoadOptions) -> Result<Loaded, Problems> {
    let mut loaded = load(&read(path)?, path, options)?;
    loaded.files.insert(0, path.to_owned());
    Ok(loaded)
}

/// The text of a configuration file.
fn read(path: &Path) -> Result<String, Problems> {
    let unreadable = |error: std::io::Error| Problems::whole_file(path, format!("cannot be read: {error}"));
    // One more than is allowed tells that there is more.
    let bytes = files::read(path, MAX_FILE_BYTES + 1).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
        let Place { line, column } = Place::after(&before);
        let message = match error.as_bytes() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16 is not supported: save the file as UTF-8",
            _ => "this byte is not UTF-8: save the file as UTF-8",
        };
        let (file, path) = (path.to_owned(), String::new());
        Problems::one(Problem { file, line, column, path, message: message.to_owned() })
    })
}

/// Where the program that runs on this configuration can be asked, if the configuration says so; nothing else is read of it.
///
/// # Errors
/// It cannot be read, or that is wrong.
pub fn live_socket(path: &Path) -> Result<Option<PathBuf>, Problems> {
    let text = read(path)?;
    let root = tree::parse(&text).map_err(|error| Problems::whole_file(path, error.message))?;
    let live = entry(&root, "live").or_else(|| entry(entry(&root, "service")?, "live"));
    let mut report = Report::default();
    let socket = service::live(live, &mut report);
    let clean = report.is_clean();
    let (errors, _) = report.resolve(&root, path);
    if clean { Ok(socket) } else { Err(errors) }
}

/// The value of a key, where that is all that is read.
fn entry<'t>(node: &'t Node, name: &str) -> Option<&'t Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| decode::scalar(key) == Some(name)).map(|(_, value)| value)
}

/// The embedded configuration.
///
/// # Errors
/// None, unless it was broken before the build.
pub fn load_default(options: LoadOptions) -> Result<Loaded, Problems> {
    load(DEFAULT_CONFIG, Path::new("default configuration"), options)
}

/// Checks the text of a configuration. `file` is shown in problems, and relative paths start from its folder.
///
/// # Errors
/// Every problem of the text.
pub fn load(text: &str, file: &Path, options: LoadOptions) -> Result<Loaded, Problems> {
    let decode = |root: &Node, file: &Path, report: &mut Report| decode(root, file, options.progress, report);
    load_with(text, file, options, decode)
}

/// Reads the YAML of `text` and lets `decode` make a plan of it, which counts if nothing was reported.
fn load_with<P: AsMut<Service>>(
    text: &str,
    file: &Path,
    options: LoadOptions,
    decode: impl FnOnce(&Node, &Path, &mut Report) -> Option<Loaded<P>>,
) -> Result<Loaded<P>, Problems> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("larger than {} MiB: long lists belong into list files", MAX_FILE_BYTES >> 20);
        return Err(Problems::whole_file(file, message));
    }
    let root = tree::parse(text).map_err(|error| {
        let (file, path) = (file.to_owned(), String::new());
        let (line, column) = (error.place.line, error.place.column);
        Problems::one(Problem { file, line, column, path, message: error.message })
    })?;

    let mut report = Report::default();
    let decoded = decode(&root, file, &mut report);
    let clean = report.is_clean();
    let (errors, warnings) = report.resolve(&root, file);
    match decoded {
        Some(mut loaded) if clean => {
            loaded.plan.as_mut().log.debug |= options.debug;
            loaded.warnings = warnings.into_vec();
            Ok(loaded)
        }
        _ => Err(errors),
    }
}

/// What the configuration says, without its warnings; only to be used if nothing was reported.
fn decode(root: &Node, file: &Path, progress: bool, report: &mut Report) -> Option<Loaded> {
    match root.value {
        Value::Map(_) => return decode_top(root, file, progress, report),
        Value::Null => {
            report.error(root, "the file is empty: at least one listener is needed (see --print-config)")
        }
        _ => report.expected(root, "a configuration: a map with the keys `service`, `vars` and `rules`"),
    }
    None
}

fn decode_top(root: &Node, file: &Path, progress: bool, report: &mut Report) -> Option<Loaded> {
    let mut section = Section::read(root, &TOP_KEYS, report);
    if let Some(node) = section.get("service") {
        let service = Section::read(node, &SERVICE_KEYS, report);
        section.join(service, report);
    }

    let settings = service::settings(&section, report);
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut users = users::Tables::read(section.get("users"), folder, report);
    let mut listeners = listeners(root, &section, settings.service.metrics, &mut users, report);
    let mut certs = Certs::read(section.get("certs"), folder, report);
    if listeners.iter().any(|listener| listener.mode == Mode::Https) {
        let role = certs.server(root, report);
        let https = listeners.iter_mut().filter(|listener| listener.mode == Mode::Https);
        https.for_each(|listener| listener.tls.clone_from(&role));
    }
    let mut vars = Variables::read(section.get("vars"), folder, progress, report);
    let devices = Devices::read(section.get("devices"), folder, report);
    let rules = match section.get("rules") {
        Some(node) => rules::rules(node, &mut vars, report),
        None => Vec::new(),
    };
    let count = section.get("rules").map_or(0, |node| decode::items(node).len());
    let tests = PolicyTests::read(section.get("tests"), count, report);
    let specs: Vec<RuleSpec> = rules.iter().map(|rule| rule.spec.clone()).collect();
    #[cfg(feature = "tls")]
    let intercepts = specs.iter().any(|rule| rule.action == Action::Intercept);
    #[cfg_attr(not(feature = "intercept"), expect(unused_variables, reason = "checked all the same"))]
    let fallback = section.get("interceptFallback").and_then(|node| boolean(node, report)).unwrap_or(false);
    #[cfg(feature = "tls")]
    let asks = specs.iter().any(asks_for_certificates);
    #[cfg(feature = "tls")]
    let trust = match intercepts || asks {
        true => certs.trust(root, report).map(Arc::new),
        false => None,
    };
    #[cfg(feature = "intercept")]
    let interception = trust
        .as_ref()
        .filter(|_| intercepts)
        .and_then(|trust| certs.interception(root, Arc::clone(trust), fallback, report));
    if !report.is_clean() {
        return None;
    }

    let compiled = Ruleset::new(specs);
    if compiled.is_empty() {
        report.warn(section.get("rules").unwrap_or(root), "there are no rules: everything is denied");
    }
    let tables = listeners.iter().filter_map(|listener| listener.users.as_deref());
    let named = tables.flat_map(Users::names).map(fold_user).collect();
    let reads_requests = listeners.iter().any(|listener| matches!(listener.mode, Mode::Http | Mode::Https));
    doubts::warn(&rules, &compiled, &named, reads_requests, report);
    doubts::warn_of_devices(&rules, &devices, report);
    if let (true, Some(node)) = (users.is_common_unused(), section.get("users")) {
        report.warn(
            node,
            "nobody is asked: every listener that could has users of its own, or is of another mode",
        );
    }
    let service = Service { listeners, ..settings.service };
    tests.run(&compiled, &service, report);
    let plan = Plan {
        service,
        rules: compiled,
        parsers: settings.parsers,
        keepers: limit::keepers(&rules),
        devices: Arc::new(devices),
        end_at_close: settings.end_at_close,
        live: settings.live,
        #[cfg(feature = "tls")]
        trust: trust.filter(|_| asks),
        #[cfg(feature = "intercept")]
        interception,
        strip_ech: settings.strip_ech,
    };
    let mut summary = summary(&plan, &vars, certs.trusted.as_deref());
    if tests.len() > 0 {
        // Writing to a string cannot fail.
        let _ = write!(summary, "\ntests: {}, all as expected", tests.len());
    }
    let lists = vars.files().map(|(_, path, _)| folder.join(path));
    let files = lists.chain(certs.files).chain(users.files()).collect();
    Some(Loaded { plan, warnings: Vec::new(), summary, files })
}

fn listeners(
    root: &Node,
    section: &Section<'_>,
    metrics: Option<SocketAddr>,
    users: &mut users::Tables<'_>,
    report: &mut Report,
) -> Vec<Listener> {
    let mut users_of =
        |node: Option<&Node>, mode: &str, report: &mut Report| users.of_listener(node, mode, report);
    let listeners = listen::required(root, section, &listen::WAYS, &mut users_of, report);
    if let (Some(addr), Some(node)) = (metrics, section.get("metrics"))
        && let Some(listener) = listeners.iter().find(|l| l.l4 == L4::Tcp && share_port(l.addr, addr))
    {
        report.error(
            node,
            format!(
                "{addr} and the listener on {} cannot both be bound: metrics need a port of their own",
                listener.addr
            ),
        );
    }
    listeners
}

/// Ports to listen on. Not 0, for one that the system chooses: the rule that keeps clients from our own listeners must know
/// it, and so must the firewall.
const PORTS: std::ops::RangeInclusive<u64> = 1..=65_535;

/// Whether only one of them can be bound.
pub fn share_port(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip()
        || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && same_ip
}

fn summary_of_listeners(service: &Service) -> String {
    let shown = service.listeners.iter().take(MAX_LISTENERS_SHOWN);
    let mut listeners: Vec<String> = shown.map(|l| format!("{} {}", l.mode.as_str(), l.place())).collect();
    if service.listeners.len() > MAX_LISTENERS_SHOWN {
        listeners.push("…".to_owned());
    }
    format!("listeners: {} ({})", service.listeners.len(), listeners.join(", "))
}

/// Whether a rule hangs on what servers' certificates are worth.
#[cfg(feature = "tls")]
fn asks_for_certificates(rule: &RuleSpec) -> bool {
    rule.fields.iter().any(|field| matches!(field, FieldSpec::Cert(_)))
}

fn summary(plan: &Plan, vars: &Variables<'_>, trusted: Option<&str>) -> String {
    let mut out = summary_of_listeners(&plan.service);
    // Writing to a string cannot fail.
    let _ = write!(out, "\nrules: {}, variables: {}", plan.rules.len(), vars.len());
    for (name, path, content) in vars.files() {
        let _ = write!(out, "\n${name}: {}", content.summary(path));
    }
    if let Some(trusted) = trusted {
        let _ = write!(out, "\n{trusted}");
    }
    if let Some(addr) = plan.service.metrics {
        let _ = write!(out, "\nmetrics: http://{addr}/metrics");
    }
    out
}
