//! The live socket: what the running program knows, for whoever may open its file.
//!
//! One small thread serves one client at a time. A request is one line, `why FACTS`, `connections` or `pass TIME DEVICE NAME`; the
//! answer is an exit status on a line of its own and a text behind it. A client that is slow, or says too much, is let go.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Household;
use crate::config::{Mode, Plan, Service, list_file};
use crate::decide::{Action, Decision, Known, why};
use crate::engine::{Gather, Handle, Row};
use crate::session::Surroundings;
use crate::sys::local_socket;

/// The longest request.
const MAX_REQUEST: u64 = 4096;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take for the answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are shown; the others are only counted.
const MAX_ROWS: usize = 10_000;
/// How long the workers may take to say what they have.
const GATHERING: Duration = Duration::from_secs(2);
/// The pause after a client that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Characters of a name in the table: all that a name can have (RFC 1035 §2.3.4).
const MAX_SHOWN: usize = 253;

/// Exit status of a request that is wrong.
const WRONG: u8 = 2;

/// An answer: exit status and text.
type Answer = (u8, String);

/// Opens the socket for whom the program is going to run as.
///
/// # Errors
/// Another program answers there, or those of the system.
pub fn bind(path: &Path, service: &Service) -> Result<UnixListener, String> {
    let socket = local_socket::listen(path).map_err(|error| error.to_string())?;
    if let Some(user) = super::identity(service)? {
        // The file itself: whoever may write to its folder could have put a link there meanwhile.
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(|error| error.to_string())?;
    }
    Ok(socket)
}

/// The thread that serves. Dropping it leaves the thread running: see [`Live::stop`].
#[derive(Debug)]
pub struct Live {
    socket: UnixListener,
    path: PathBuf,
    stopping: Arc<AtomicBool>,
}

impl Live {
    /// Serves `socket`, which listens at `path`.
    ///
    /// # Errors
    /// No thread or descriptor is to be had.
    pub fn start(
        socket: UnixListener,
        path: &Path,
        around: &Arc<Household>,
        workers: &[Handle<Plan>],
    ) -> io::Result<Live> {
        let (listener, stopping) = (socket.try_clone()?, Arc::new(AtomicBool::new(false)));
        let (around, ends) = (Arc::clone(around), Arc::clone(&stopping));
        let workers: Vec<_> = workers.iter().map(Handle::another).collect();
        let serve = move || {
            for client in listener.incoming() {
                match client {
                    _ if ends.load(Ordering::Acquire) => return,
                    // One that breaks off has itself to blame.
                    Ok(client) => drop(talk(&client, &around, &workers)),
                    Err(error) => {
                        log::warn!("live socket: {error}");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        };
        std::thread::Builder::new().name("live".into()).spawn(serve)?;
        Ok(Live { socket, path: path.to_owned(), stopping })
    }

    /// Stops serving and takes the file away. Nobody waits for the thread: who is being answered still is.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // Linux ends a wait for a listening socket when that is shut down, as it does for TCP.
        let _ = UnixStream::from(OwnedFd::from(self.socket)).shutdown(Shutdown::Both);
        // Not allowed to everybody; what is left there is taken away by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn talk(client: &UnixStream, around: &Arc<Household>, workers: &[Handle<Plan>]) -> io::Result<()> {
    let mut request = String::new();
    BufReader::new(Timed::new(client, PATIENCE).take(MAX_REQUEST)).read_line(&mut request)?;
    let (status, text) = match request.strip_suffix('\n') {
        Some(request) => answer(request, around, workers),
        None => (WRONG, format!("the request is longer than {MAX_REQUEST} bytes\n")),
    };
    Timed::new(client, ANSWER_PATIENCE).write_all(format!("{status}\n{text}").as_bytes())
}

/// A client that has so much time in all, however often it says or takes a little.
struct Timed<'c> {
    client: &'c UnixStream,
    until: Instant,
}

impl<'c> Timed<'c> {
    fn new(client: &'c UnixStream, time: Duration) -> Self {
        Timed { client, until: Instant::now() + time }
    }

    /// What is left; an error if it is nothing, which for a socket would be for ever.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.client.set_read_timeout(self.left()?)?;
        self.client.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.client.set_write_timeout(self.left()?)?;
        self.client.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client.flush()
    }
}

fn answer(request: &str, around: &Arc<Household>, workers: &[Handle<Plan>]) -> Answer {
    let (command, rest) = request.split_once(' ').unwrap_or((request, ""));
    match command {
        "why" => explain(rest, around),
        "connections" => connections(around, workers),
        "pass" => pass(rest, around),
        _ => (WRONG, "unknown request: is the program of another version?\n".to_owned()),
    }
}

/// As `--why`, with what the running program knows: its rules and lists, the client's device, exceptions.
fn explain(facts: &str, around: &Arc<Household>) -> Answer {
    let mut facts = match why::parse_facts(facts) {
        Ok(facts) => facts,
        Err(error) => return (WRONG, format!("{error}\n")),
    };
    let Some(plan) = around.plan() else { return (WRONG, "no rules are in force\n".to_owned()) };
    let locals = match super::locals(&plan.service) {
        Ok(locals) => locals,
        Err(error) => return (1, format!("cannot read this machine's addresses: {error}\n")),
    };
    if facts.time.is_unknown() {
        facts.time = Known::Is(around.week_time().0);
    }
    let passes = around.passes(Instant::now());
    if let (Known::Is(src), true) = (facts.src, plan.rules.asks_device() || passes.is_some()) {
        let device = around.device(src, facts.mac.is_unknown());
        if facts.mac.is_unknown() {
            facts.mac = device.mac.map_or(Known::Absent, Known::Is);
        }
        if facts.device.is_unknown() {
            facts.device = Known::Is(device.name);
        }
    }
    let explanation = why::explain_with_lines(&plan.rules, &facts, &locals, &list_file::find_line);
    let mut text = format!("{explanation}");
    if let Known::Is(device) = &facts.device {
        let _ = writeln!(text, "device: {device}");
    }
    let accepts = |rules: &crate::decide::rules::Ruleset| matches!(rules.decide(&facts, &locals), Decision::Verdict(verdict) if verdict.action == Action::Accept);
    if explanation.exit_code() != 0 && passes.is_some_and(|rules| accepts(&rules)) {
        let _ = writeln!(text, "but: accept by pass, an exception for a while (--pass)");
        return (0, text);
    }
    (explanation.exit_code(), text)
}

fn pass(rest: &str, around: &Arc<Household>) -> Answer {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [time, device, name] = words[..] else {
        return (
            WRONG,
            "a time, a device and a name are needed, as in: 15m tablet games.example\n".to_owned(),
        );
    };
    match around.add_pass(time, device, name) {
        Ok(()) => {
            log::info!("Pass: {} may reach {} for {}", printable(device), printable(name), printable(time));
            (0, format!("{device} may reach {name} for {time}\n"))
        }
        Err(error) => (WRONG, format!("{error}\n")),
    }
}

fn connections(around: &Arc<Household>, workers: &[Handle<Plan>]) -> Answer {
    let (rows, omitted) = Gather::ask(workers, MAX_ROWS).wait(GATHERING);
    let mut table = vec![
        ["DEVICE", "CLIENT", "NAME", "DESTINATION", "VERDICT", "RULE", "SENT", "RECEIVED", "AGE"]
            .map(str::to_owned),
    ];
    table.extend(rows.iter().map(|row| cells(row, around)));
    let mut widths = [0; 9];
    for row in &table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &table {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    if omitted > 0 {
        let _ = writeln!(text, "and {omitted} more");
    }
    (0, text)
}

fn cells(row: &Row, around: &Arc<Household>) -> [String; 9] {
    let (verdict, rule) = row.verdict.clone().unwrap_or(("-", "-".to_owned()));
    [
        device_of(row, around).map_or("-".to_owned(), String::from),
        row.client.ip().to_string(),
        row.name.as_deref().map_or("-".to_owned(), |name| printable(&String::from_utf8_lossy(name))),
        row.dest.map_or("?".to_owned(), |dest| dest.to_string()),
        verdict.to_owned(),
        rule,
        row.bytes.0.to_string(),
        row.bytes.1.to_string(),
        format!("{}s", row.age.as_secs()),
    ]
}

/// Whose connection it is, where somebody has asked for devices.
pub(super) fn device_of(row: &Row, around: &Household) -> Option<Box<str>> {
    let neighbour = row.mode != Mode::ProxyProtocol;
    around.is_following().then(|| around.seen(row.client.ip(), neighbour))
}

/// What a client chose, for a terminal: nothing that it would obey, and no more than that.
fn printable(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table is as wide as its longest name, in every row.
    #[test]
    fn a_long_name_is_cut_off_in_the_table() {
        let row = Row {
            client: "192.168.1.20:5000".parse().unwrap(),
            mode: crate::config::Mode::Transparent,
            dest: None,
            name: Some(vec![b'x'; 1024].into()),
            verdict: None,
            bytes: (0, 0),
            age: Duration::ZERO,
        };
        let [_, _, name, ..] = cells(&row, &Arc::default());
        assert_eq!(name, "x".repeat(MAX_SHOWN));
    }
}
