//! The bytes of one log line. Pure: the time comes in.
//!
//! Whatever a peer chose to send cannot break a line or forge another: in values every byte outside 0x21–0x7e, `|` and
//! `%` are written `%xx` (lower case), in messages the control characters are. JSON holds the same `%xx` values as
//! text does, because names on the wire need not be UTF-8, and so that both logs can be searched for the same string.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use log::Level;

use crate::decide::RuleId;
use crate::sys::time::LocalTime;

/// Where a connection goes, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest<'a> {
    /// Shown as `?`.
    Unknown,
    /// `192.0.2.1:80`, `[2001:db8::1]:80`.
    Addr(SocketAddr),
    /// `example.com:80`: the name was not resolved.
    Name(&'a str, u16),
}

/// A key and its value. The key is one of our own words.
pub type Field<'a> = (&'static str, Value<'a>);

/// What a field says.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A number, plain in JSON, too.
    Number(u64),
    /// Bytes from anywhere.
    Bytes(&'a [u8]),
    /// Several of them in order, separated by commas; a comma in one of them is escaped. An array in JSON.
    List(&'a [Box<[u8]>]),
    /// Something that can be shown, treated as [`Value::Bytes`].
    Shown(&'a dyn fmt::Display),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Bytes(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Value::Number(number)
    }
}

impl From<RuleId> for Value<'static> {
    fn from(rule: RuleId) -> Self {
        match rule {
            RuleId::Index(index) => index.into(),
            RuleId::Always => "always".into(),
            RuleId::Pass => "pass".into(),
            RuleId::Default => "default".into(),
            RuleId::Incomplete => "incomplete".into(),
        }
    }
}

/// How a line looks and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    pub(super) json: bool,
    pub(super) syslog: bool,
}

impl Style {
    /// Both switches in one atomic's worth.
    pub(super) fn bits(self) -> u8 {
        u8::from(self.json) | u8::from(self.syslog) << 1
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        Style { json: bits & 1 != 0, syslog: bits & 2 != 0 }
    }
}

/// The time as a line shows it, made once a second.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    made_for: Option<(Style, i64)>,
    text: String,
}

impl Stamp {
    /// Makes the text for `secs`, unless it is the one that was made last.
    pub(super) fn refresh(&mut self, style: Style, secs: i64, local: impl FnOnce(i64) -> LocalTime) {
        if self.made_for != Some((style, secs)) {
            self.made_for = Some((style, secs));
            self.text.clear();
            // Writing into a String does not fail.
            let _ = write_time(&mut self.text, style, local(secs));
        }
    }
}

fn write_time(out: &mut String, style: Style, time: LocalTime) -> fmt::Result {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let LocalTime { year, month, day, hour, minute, second, utc_offset_secs, .. } = time;
    match style {
        // RFC 3164 §4.1.2. The local sockets take no host name.
        Style { syslog: true, .. } => {
            let at = usize::from(month).saturating_sub(1).saturating_mul(3);
            let month = MONTHS.get(at..at.saturating_add(3)).unwrap_or("Jan");
            write!(out, "{month} {day:2} {hour:02}:{minute:02}:{second:02}")
        }
        // RFC 3339.
        Style { json: true, .. } => {
            let minutes = utc_offset_secs.unsigned_abs() / 60;
            let (sign, hours, minutes) =
                (if utc_offset_secs < 0 { '-' } else { '+' }, minutes / 60, minutes % 60);
            write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
            write!(out, "{sign}{hours:02}:{minutes:02}")
        }
        _ => write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"),
    }
}

/// What is logged.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    /// Shown at debug level.
    pub(super) module: &'a str,
    pub(super) body: Body<'a>,
}

pub(super) enum Body<'a> {
    Message(fmt::Arguments<'a>),
    Flow { src: Option<IpAddr>, dest: Dest<'a>, event: &'a str, fields: &'a [Field<'a>] },
}

/// The longest line. It is also what a pipe takes in one piece (PIPE_BUF).
pub(super) const MAX_LINE: usize = 4096;
/// Bytes that one value may take, escaped; the rest is cut off and `...` is put there.
const MAX_VALUE: usize = 1000;
/// The same for a message.
const MAX_MESSAGE: usize = 3500;

/// Appends `line` with its line break.
pub(super) fn append(out: &mut Vec<u8>, style: Style, stamp: &Stamp, line: &Line<'_>) {
    if style.syslog {
        let (tag, id) = (TAG.get().unwrap_or(&"calamary"), std::process::id());
        push(out, format_args!("<{}>{} {tag}[{id}]: ", priority(line.level), stamp.text));
    }
    if style.json {
        json(out, style, stamp, line);
    } else {
        text(out, style, stamp, line);
    }
    out.push(b'\n');
}

/// The program's name in syslog.
pub(super) static TAG: OnceLock<&'static str> = OnceLock::new();

/// RFC 3164 §4.1.1: facility daemon (3), and the level.
fn priority(level: Level) -> u8 {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    3 * 8 + severity
}

fn text(out: &mut Vec<u8>, style: Style, stamp: &Stamp, line: &Line<'_>) {
    if !style.syslog {
        push(out, format_args!("{} | ", stamp.text));
    }
    push(out, format_args!("{} | ", line.level));
    if line.level >= Level::Debug {
        push(out, format_args!("{} | ", line.module));
    }
    match line.body {
        Body::Message(message) => shown(out, MAX_MESSAGE, escape_control, &message),
        Body::Flow { src, dest, event, fields } => {
            write_src(out, src);
            out.extend(b" => ");
            write_dest(out, dest, escape);
            out.extend(b" | ");
            shown(out, MAX_VALUE, escape_control, &event);
            let mut before: &[u8] = b" | ";
            for (key, value) in fields {
                out.extend(before);
                before = b" ";
                out.extend(key.as_bytes());
                out.push(b'=');
                write_value(out, value);
            }
        }
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Number(number) => push(out, format_args!("{number}")),
        Value::Bytes(bytes) => Bounded::new(out, MAX_VALUE, escape).bytes(bytes),
        Value::Shown(value) => shown(out, MAX_VALUE, escape, value),
        Value::List(items) => {
            let mut bounded = Bounded::new(out, MAX_VALUE, escape_item);
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    bounded.ours(b",");
                }
                bounded.bytes(item);
            }
        }
    }
}

fn json(out: &mut Vec<u8>, style: Style, stamp: &Stamp, line: &Line<'_>) {
    out.push(b'{');
    if !style.syslog {
        push(out, format_args!("\"time\":\"{}\",", stamp.text));
    }
    push(out, format_args!("\"level\":\"{}\"", line.level));
    if line.level >= Level::Debug {
        out.extend(b",\"module\":\"");
        shown(out, MAX_VALUE, escape_json, &line.module);
        out.push(b'"');
    }
    match line.body {
        Body::Message(message) => {
            out.extend(b",\"message\":\"");
            shown(out, MAX_MESSAGE, escape_json, &message);
            out.push(b'"');
        }
        Body::Flow { src, dest, event, fields } => {
            out.extend(b",\"src\":\"");
            write_src(out, src);
            out.extend(b"\",\"dest\":\"");
            write_dest(out, dest, escape_value_json);
            out.extend(b"\",\"event\":\"");
            shown(out, MAX_VALUE, escape_json, &event);
            out.push(b'"');
            for (key, value) in fields {
                push(out, format_args!(",\"{key}\":"));
                write_json_value(out, value);
            }
        }
    }
    out.push(b'}');
}

fn write_json_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Number(number) => push(out, format_args!("{number}")),
        Value::Bytes(bytes) => {
            out.push(b'"');
            Bounded::new(out, MAX_VALUE, escape_value_json).bytes(bytes);
            out.push(b'"');
        }
        Value::Shown(value) => {
            out.push(b'"');
            shown(out, MAX_VALUE, escape_value_json, value);
            out.push(b'"');
        }
        Value::List(items) => {
            out.push(b'[');
            let mut bounded = Bounded::new(out, MAX_VALUE, escape_value_json);
            for (i, item) in items.iter().enumerate() {
                if bounded.is_full() {
                    break;
                }
                bounded.ours(if i > 0 { b",\"" } else { b"\"" });
                bounded.bytes(item);
                bounded.out.push(b'"');
            }
            out.push(b']');
        }
    }
}

/// Appends `bytes` as a line in JSON has them within the quotes of a value: escaped, and up to a bound.
#[cfg(feature = "metrics")]
pub(crate) fn append_json_value(out: &mut Vec<u8>, bytes: &[u8]) {
    Bounded::new(out, MAX_VALUE, escape_value_json).bytes(bytes);
}

fn write_src(out: &mut Vec<u8>, src: Option<IpAddr>) {
    match src {
        Some(addr) => push(out, format_args!("{addr}")),
        None => out.push(b'?'),
    }
}

fn write_dest(out: &mut Vec<u8>, dest: Dest<'_>, escape: Escape) {
    match dest {
        Dest::Unknown => out.push(b'?'),
        // Made anew to be without a scope, which would be written with a `%`.
        Dest::Addr(addr) => push(out, format_args!("{}", SocketAddr::new(addr.ip(), addr.port()))),
        Dest::Name(name, port) => {
            Bounded::new(out, MAX_VALUE, escape).bytes(name.as_bytes());
            push(out, format_args!(":{port}"));
        }
    }
}

/// Our own words.
fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Writing into a Vec does not fail.
    let _ = out.write_fmt(text);
}

fn shown(out: &mut Vec<u8>, max: usize, escape: Escape, value: &dyn fmt::Display) {
    // An error is the bound: the rest is not even formatted.
    let _ = write!(Bounded::new(out, max, escape), "{value}");
}

/// How a byte is written: itself, or something else.
type Escape = fn(u8) -> Escaped;

/// What stands for one byte.
enum Escaped {
    Itself,
    /// `%xx`
    Percent,
    /// `\` and this.
    Backslash(u8),
    /// `\u00xx`
    Unicode,
}

/// In values.
fn escape(byte: u8) -> Escaped {
    match byte {
        b'|' | b'%' => Escaped::Percent,
        0x21..=0x7e => Escaped::Itself,
        _ => Escaped::Percent,
    }
}

/// In an item of a list.
fn escape_item(byte: u8) -> Escaped {
    if byte == b',' { Escaped::Percent } else { escape(byte) }
}

/// In messages.
fn escape_control(byte: u8) -> Escaped {
    if byte.is_ascii_control() { Escaped::Percent } else { Escaped::Itself }
}

/// In JSON strings (RFC 8259 §7) that are UTF-8.
fn escape_json(byte: u8) -> Escaped {
    match byte {
        b'"' | b'\\' => Escaped::Backslash(byte),
        b'\n' => Escaped::Backslash(b'n'),
        b'\t' => Escaped::Backslash(b't'),
        _ if byte.is_ascii_control() => Escaped::Unicode,
        _ => Escaped::Itself,
    }
}

/// The escaping of values, and then that of JSON.
fn escape_value_json(byte: u8) -> Escaped {
    match escape(byte) {
        Escaped::Itself => escape_json(byte),
        other => other,
    }
}

/// Writes escaped bytes up to a bound.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    escape: Escape,
    /// Bytes that may still be written; `None` once something was cut off.
    left: Option<usize>,
}

impl<'a> Bounded<'a> {
    fn new(out: &'a mut Vec<u8>, max: usize, escape: Escape) -> Self {
        Bounded { out, escape, left: Some(max) }
    }

    fn is_full(&self) -> bool {
        self.left.is_none()
    }

    fn bytes(&mut self, mut bytes: &[u8]) {
        while let Some(left) = self.left
            && let Some(&byte) = bytes.first()
        {
            // As much as stands for itself in one piece, up to the bound.
            let plain =
                bytes.iter().take(left).take_while(|byte| matches!((self.escape)(**byte), Escaped::Itself));
            let run = plain.count();
            let (piece, rest) = bytes.split_at(run.max(1));
            match (self.escape)(byte) {
                Escaped::Itself => self.ours(piece),
                Escaped::Percent => {
                    let [high, low] = hex(byte);
                    self.ours(&[b'%', high, low]);
                }
                Escaped::Backslash(letter) => self.ours(&[b'\\', letter]),
                Escaped::Unicode => {
                    let [high, low] = hex(byte);
                    self.ours(&[b'\\', b'u', b'0', b'0', high, low]);
                }
            }
            bytes = rest;
        }
    }

    /// Writes `bytes` as they are, all or none.
    fn ours(&mut self, bytes: &[u8]) {
        match self.left.map(|left| left.checked_sub(bytes.len())) {
            Some(Some(left)) => {
                self.left = Some(left);
                self.out.extend(bytes);
            }
            Some(None) => {
                self.left = None;
                // Not in the middle of a character.
                while self.out.last().is_some_and(|byte| (0x80..0xc0).contains(byte)) {
                    self.out.pop();
                }
                self.out.pop_if(|byte| *byte >= 0xc0);
                self.out.extend(b"...");
            }
            None => {}
        }
    }
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        if self.is_full() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
}

#[cfg(test)]
mod tests;
