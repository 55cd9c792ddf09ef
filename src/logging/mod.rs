//! Log lines: text or JSON, to standard output or syslog, in the router's local time.
//!
//! ```text
//! 2023-10-01 23:43:01 | INFO | 192.168.11.104 => 135.181.170.219:80 | Accept | rule=3 sport=51234 proto=http
//! 2023-10-01 23:43:01 | DEBUG | tcp | 192.168.11.104 => 135.181.170.219:80 | Closed | reason=finished sent=76
//! 2023-10-01 23:43:01 | WARN | rule 4 can never match
//! ```
//!
//! Two ways in: the `log` crate's macros for ordinary lines, and [`flow`] for lines about a connection, whose parts stay
//! apart so that JSON can name them. [`mod@line`] makes the bytes, `sink` gets rid of them.
//!
//! The `simplelog` crate is deliberately not used: its separator, its order and its escaping are its own, so it can
//! print neither this line nor JSON, and it makes a system call for each line.
//!
//! What must hold:
//! - The level check is one atomic load; nothing is formatted for a line that is not written.
//! - A worker makes one write for all the lines of a few milliseconds: it calls [`keep_until_flush`] once and [`flush`]
//!   when its lines have waited so long. Every other thread writes at once, and so does everybody for an error.
//! - An output that is full, slow or gone never stops the daemon: after a short, bounded wait lines are dropped and
//!   counted ([`dropped`]), and a line says how many once there is room again.

pub mod line;
mod sink;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter, Metadata, Record};

use crate::config::Log;
use crate::sys::time;
use line::{Body, Line, Stamp, Style};
pub use line::{Dest, Field, Value};
use sink::Sinks;

/// Takes over the `log` crate's lines, as `config` says. To be called once; before that, no line is written. `program` is
/// the name in syslog.
pub fn init(program: &'static str, config: &Log) {
    let _ = line::TAG.set(program);
    // A second call finds the logger in place: the configuration still counts.
    let _ = log::set_logger(&Logger);
    reconfigure(config);
}

/// Changes level, format and target for the lines that come after, in every thread.
pub fn reconfigure(config: &Log) {
    STYLE.store(Style { json: config.json, syslog: config.syslog }.bits(), Ordering::Relaxed);
    log::set_max_level(if config.debug { LevelFilter::Debug } else { LevelFilter::Info });
}

/// Whether a line of this level is written: ask before collecting fields.
pub fn enabled(level: Level) -> bool {
    level <= log::max_level()
}

/// Logs a line about a connection or a request.
///
/// `module` is shown at debug level; `src` is the client's address (its port is a field, `sport`); `event` is one of our
/// own words. The keys of `fields` are those of the line, in order, and must differ from `time`, `level`, `module`,
/// `src`, `dest` and `event`.
pub fn flow(
    level: Level,
    module: &'static str,
    src: Option<IpAddr>,
    dest: Dest<'_>,
    event: &str,
    fields: &[Field<'_>],
) {
    if enabled(level) {
        write(&Line { level, module, body: Body::Flow { src, dest, event, fields } });
    }
}

/// From now on this thread's lines wait for [`flush`]: for threads that call it again and again.
pub fn keep_until_flush() {
    with_buffer(|buffer| buffer.keep = true);
}

/// Whether this thread has kept lines.
pub fn has_kept() -> bool {
    BUFFER
        .try_with(|buffer| buffer.try_borrow().is_ok_and(|buffer| !buffer.lines.is_empty()))
        .unwrap_or(false)
}

/// Writes what this thread has kept.
pub fn flush() {
    with_buffer(Buffer::flush);
}

/// Lines that got lost so far, because their output was full or broken.
pub fn dropped() -> u64 {
    sinks().dropped()
}

/// The `log` crate's way in.
struct Logger;

/// What the libraries have to say is shown only if it is at least this serious.
const LIBRARIES: Level = Level::Warn;

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        enabled(metadata.level()) && (ours || metadata.level() <= LIBRARIES)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let module = short_module(record.target());
            write(&Line { level: record.level(), module, body: Body::Message(*record.args()) });
        }
    }

    fn flush(&self) {
        flush();
    }
}

/// `calamary::accept::http` is `http`.
fn short_module(target: &str) -> &str {
    target.rsplit("::").next().unwrap_or(target)
}

/// [`Style::bits`] of the lines to come.
static STYLE: AtomicU8 = AtomicU8::new(0);

static SINKS: Mutex<Sinks> = Mutex::new(Sinks::new());

fn sinks() -> MutexGuard<'static, Sinks> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread keeps at most about this many bytes of lines.
const MAX_KEPT: usize = 16 * 1024;

/// One thread's lines and its cached time.
#[derive(Default)]
struct Buffer {
    /// Whole lines, all of `style`.
    lines: Vec<u8>,
    style: Style,
    stamp: Stamp,
    keep: bool,
}

impl Buffer {
    fn write(&mut self, line: &Line<'_>) {
        let style = Style::from_bits(STYLE.load(Ordering::Relaxed));
        if style != self.style {
            self.flush();
            self.style = style;
        }
        self.stamp.refresh(style, time::now().secs, time::local);
        line::append(&mut self.lines, style, &self.stamp, line);
        if !self.keep || line.level == Level::Error || self.lines.len() > MAX_KEPT {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.lines.is_empty() {
            sinks().write(self.style, &self.stamp, &self.lines);
            self.lines.clear();
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::default();
}

fn write(line: &Line<'_>) {
    with_buffer(|buffer| buffer.write(line));
}

/// A line that is logged while the thread ends, or from within formatting another line, is lost: there is no buffer.
fn with_buffer(work: impl FnOnce(&mut Buffer)) {
    let _ = BUFFER.try_with(|buffer| {
        if let Ok(mut buffer) = buffer.try_borrow_mut() {
            work(&mut buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn modules_are_short() {
        assert_eq!(short_module("calamary::accept::http"), "http");
        assert_eq!(short_module("calamary"), "calamary");
        assert_eq!(short_module(""), "");
    }

    /// What a process whose standard output is a pipe really writes.
    #[test]
    fn levels_targets_and_keeping() {
        let output = testing::this_program()
            .args(["--exact", "logging::tests::child_that_logs", "--ignored", "--nocapture"])
            .envs([(testing::MARK, "1"), ("TZ", "UTC0")])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> =
            text.lines().filter_map(|line| line.split_once(" | ")).map(|(_, rest)| rest).collect();
        let want = [
            "WARN | first",
            // Kept: what another thread wrote meanwhile comes before it.
            "INFO | from another thread",
            "INFO | kept",
            "INFO | 192.0.2.1 => ? | Accept | rule=3",
            "ERROR | at once",
            "DEBUG | tests | now at debug level",
            "WARN | a library warns",
            "DEBUG | relay | ? => [2001:db8::1]:443 | Closed | sent=1",
            "INFO | kept until the thread ends",
        ];
        assert_eq!(lines, want, "{text}");
        let json = text.lines().find(|line| line.starts_with('{')).unwrap();
        assert!(json.ends_with(r#"+00:00","level":"INFO","message":"as JSON"}"#), "{json}");
    }

    #[test]
    #[ignore = "writes to standard output: run by levels_targets_and_keeping"]
    fn child_that_logs() {
        if !testing::is_child() {
            return;
        }
        let mut config = Log { debug: false, json: false, syslog: false };
        init("calamary", &config);
        log::warn!("first");
        log::debug!("not shown");
        keep_until_flush();
        log::info!("kept");
        let src = Some("192.0.2.1".parse().unwrap());
        flow(Level::Info, "session", src, Dest::Unknown, "Accept", &[("rule", 3_u16.into())]);
        flow(Level::Debug, "session", src, Dest::Unknown, "Hidden", &[]);
        std::thread::spawn(|| log::info!("from another thread")).join().unwrap();
        flush();
        log::error!("at once");
        config.debug = true;
        reconfigure(&config);
        log::debug!("now at debug level");
        log::debug!(target: "mio::poll", "a library chats");
        log::warn!(target: "mio::poll", "a library warns");
        let dest = Dest::Addr("[2001:db8::1]:443".parse().unwrap());
        flow(Level::Debug, "relay", None, dest, "Closed", &[("sent", 1_u64.into())]);
        // Another format, in the same turn.
        config.json = true;
        reconfigure(&config);
        log::info!("as JSON");
        config.json = false;
        reconfigure(&config);
        flush();
        std::thread::spawn(|| {
            keep_until_flush();
            log::info!("kept until the thread ends");
        })
        .join()
        .unwrap();
        assert_eq!(dropped(), 0);
    }
}
