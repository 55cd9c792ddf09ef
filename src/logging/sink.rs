//! Where lines go, and what happens when they cannot.
//!
//! A log reader that stops reading must not stop the traffic, so nothing here blocks for long: before each write the
//! output is asked whether it has room, for up to [`PATIENCE`]; after that lines are dropped and counted, and until there
//! is room again nobody waits. Standard output is not made non-blocking instead, because that would change it for the
//! shell and the other programs that share it. Errors (a reader that is gone) drop lines in the same way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use log::Level;

use super::line::{self, Body, Line, MAX_LINE, Stamp, Style};
use crate::sys::output::writable_within;

/// How long one call may wait for an output that has no room, in all.
const PATIENCE: Duration = Duration::from_millis(100);
/// After syslog could not be reached, so long it is not tried again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Where syslog listens.
const SYSLOG: &str = "/dev/log";

/// Both targets; which one is used is the line's [`Style`].
pub(super) struct Sinks {
    stdout: Stdout,
    syslog: Syslog,
    losses: Losses,
}

impl Sinks {
    pub(super) const fn new() -> Self {
        Sinks {
            stdout: Stdout { file: None, torn: false, full: false },
            syslog: Syslog { socket: None, failed_at: None, full: false },
            losses: Losses { total: 0, told: 0 },
        }
    }

    /// Writes whole `lines` of `style`; `stamp` is the time of the last one.
    pub(super) fn write(&mut self, style: Style, stamp: &Stamp, lines: &[u8]) {
        let losses = &mut self.losses;
        if style.syslog {
            losses.around(style, stamp, lines, |lines| self.syslog.write(Path::new(SYSLOG), lines));
        } else {
            losses.around(style, stamp, lines, |lines| self.stdout.write(lines));
        }
    }

    /// Lines that got lost, ever.
    pub(super) fn dropped(&self) -> u64 {
        self.losses.total
    }
}

/// Counts the lines that got lost, and says so.
struct Losses {
    total: u64,
    /// How many of them a line has told of.
    told: u64,
}

impl Losses {
    /// Writes `lines` by `write`, which says how many of them were lost; if none were, but some had been before, a
    /// further line tells how many.
    fn around(&mut self, style: Style, stamp: &Stamp, lines: &[u8], mut write: impl FnMut(&[u8]) -> u64) {
        let lost = write(lines);
        self.total = self.total.saturating_add(lost);
        let untold = self.total.saturating_sub(self.told);
        if lost == 0 && untold > 0 {
            let mut report = Vec::new();
            let body =
                Body::Message(format_args!("{untold} log lines were dropped: the output was full or gone"));
            line::append(&mut report, style, stamp, &Line { level: Level::Warn, module: "logging", body });
            if write(&report) == 0 {
                self.told = self.total;
            }
        }
    }
}

/// Lines in `bytes`.
fn count(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |count, byte| count + u64::from(*byte == b'\n'))
}

/// The wait for room that all writes of one call share.
struct Patience<'a> {
    until: Instant,
    /// Whether the output had no room when it was last asked.
    full: &'a mut bool,
}

impl<'a> Patience<'a> {
    fn new(full: &'a mut bool) -> Self {
        Patience { until: Instant::now() + PATIENCE, full }
    }

    fn has_room(&mut self, fd: impl AsFd) -> bool {
        let wait =
            if *self.full { Duration::ZERO } else { self.until.saturating_duration_since(Instant::now()) };
        *self.full = !writable_within(fd, wait).unwrap_or(false);
        !*self.full
    }
}

/// Standard output.
struct Stdout {
    /// A duplicate of descriptor 1, past std's buffer, made at the first line.
    file: Option<File>,
    /// The last thing written was the beginning of a line.
    torn: bool,
    full: bool,
}

impl Stdout {
    /// Says how many lines were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.file.is_none() {
            self.file = io::stdout().as_fd().try_clone_to_owned().ok().map(File::from);
        }
        let Some(file) = &mut self.file else { return count(lines) };
        let mut patience = Patience::new(&mut self.full);
        let mut rest = lines;
        if self.torn && patience.has_room(&*file) && file.write(b"\n").is_ok() {
            self.torn = false;
        }
        while !rest.is_empty() {
            if !patience.has_room(&*file) {
                break;
            }
            match file.write(piece(rest)) {
                Ok(written) => {
                    self.torn = written > 0 && rest.get(written - 1) != Some(&b'\n');
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        count(rest)
    }
}

/// As many whole lines as a pipe with room takes without blocking (PIPE_BUF).
fn piece(lines: &[u8]) -> &[u8] {
    let piece = lines.get(..MAX_LINE).unwrap_or(lines);
    let end = piece.iter().rposition(|byte| *byte == b'\n').map_or(piece.len(), |at| at + 1);
    piece.get(..end).unwrap_or(piece)
}

/// The local syslog daemon (RFC 3164 as its socket takes it: one datagram a line).
struct Syslog {
    /// Connected, not blocking.
    socket: Option<UnixDatagram>,
    /// When it could not be reached.
    failed_at: Option<Instant>,
    full: bool,
}

impl Syslog {
    /// Says how many lines were lost.
    fn write(&mut self, path: &Path, lines: &[u8]) -> u64 {
        let mut lost = 0;
        // Not yet the patience's own: the socket is made anew within.
        let mut full = self.full;
        let mut patience = Patience::new(&mut full);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let datagram = line.strip_suffix(b"\n").unwrap_or(line);
            // Twice, as the daemon may have been restarted: its new socket must be connected to.
            let sent = (0..2).any(|_| self.send(path, &mut patience, datagram));
            lost += u64::from(!sent);
        }
        self.full = full;
        lost
    }

    fn send(&mut self, path: &Path, patience: &mut Patience<'_>, datagram: &[u8]) -> bool {
        let Some(socket) = self.connected(path) else { return false };
        if !patience.has_room(socket) {
            return false;
        }
        match socket.send(datagram) {
            Ok(_) => true,
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                *patience.full = true;
                false
            }
            Err(_) => {
                self.socket = None;
                false
            }
        }
    }

    fn connected(&mut self, path: &Path) -> Option<&UnixDatagram> {
        if self.socket.is_none() && self.failed_at.is_none_or(|at| at.elapsed() >= RECONNECT_AFTER) {
            self.socket = connect(path).ok();
            self.failed_at = self.socket.is_none().then(Instant::now);
        }
        self.socket.as_ref()
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn stdout_of(writer: io::PipeWriter) -> Stdout {
        Stdout { file: Some(File::from(OwnedFd::from(writer))), torn: false, full: false }
    }

    /// `count` numbered lines of 100 bytes.
    fn lines(count: usize) -> Vec<u8> {
        (0..count).flat_map(|i| format!("{i:099}\n").into_bytes()).collect()
    }

    #[test]
    fn a_pipe_that_is_full_costs_one_wait_and_whole_lines() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stdout = stdout_of(writer);
        let sent = lines(5000);
        let start = Instant::now();
        let lost = stdout.write(&sent);
        assert!(start.elapsed() >= PATIENCE && start.elapsed() < 20 * PATIENCE, "{:?}", start.elapsed());
        assert!(lost > 0 && lost < 5000, "{lost}");
        let kept = usize::try_from(5000 - lost).unwrap() * 100;
        // From now on nobody waits.
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(stdout.write(b"x\n"), 1);
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());

        let mut got = vec![0; kept];
        reader.read_exact(&mut got).unwrap();
        assert!(got == sent[..kept], "not the first lines, whole");
        assert_eq!(stdout.write(b"again\n"), 0);
        drop(stdout);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "again\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(stdout_of(writer).write(&lines(3)), 3);
    }

    #[test]
    fn pieces_end_with_a_line() {
        let check = |bytes: &[u8], want| assert_eq!(piece(bytes).len(), want);
        check(b"", 0);
        check(b"one\ntwo\n", 8);
        check(&lines(100), 4000);
        check(&[b'x'; 5000], MAX_LINE);
    }

    #[test]
    fn losses_are_told_once_there_is_room() {
        let mut losses = Losses { total: 0, told: 0 };
        let mut got = Vec::new();
        let mut stamp = Stamp::default();
        stamp.refresh(Style::default(), 0, |_| crate::sys::time::local(0));
        losses.around(Style::default(), &stamp, b"a\nb\n", count);
        losses.around(Style::default(), &stamp, b"c\n", count);
        assert_eq!((losses.total, losses.told), (3, 0));
        for text in [b"d\n", b"e\n"] {
            losses.around(Style::default(), &stamp, text, |bytes| {
                got.extend_from_slice(bytes);
                0
            });
        }
        let got = String::from_utf8(got).unwrap();
        let (first, rest) = got.split_once('\n').unwrap();
        let (report, last) = rest.split_once('\n').unwrap();
        assert_eq!((first, last), ("d", "e\n"));
        assert!(
            report.ends_with(" | WARN | 3 log lines were dropped: the output was full or gone"),
            "{report}"
        );
        assert_eq!((losses.total, losses.told), (3, 3));
    }

    #[test]
    fn syslog_gets_a_datagram_a_line_and_may_restart() {
        let folder = std::env::temp_dir().join(format!("calamary-syslog-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let mut syslog = Syslog { socket: None, failed_at: None, full: false };
        let receive = |daemon: &UnixDatagram| {
            let mut buffer = [0; 100];
            let len = daemon.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };

        // Nobody there: one attempt, not one a line, and none for a while.
        assert_eq!(syslog.write(&path, b"a\nb\n"), 2);
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert_eq!(syslog.write(&path, b"c\n"), 1);
        syslog.failed_at = Instant::now().checked_sub(RECONNECT_AFTER);
        assert_eq!(syslog.write(&path, b"one\ntwo\n"), 0);
        assert_eq!([receive(&daemon), receive(&daemon)], ["one", "two"]);

        // A restart: the socket is another one.
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert_eq!(syslog.write(&path, b"three\n"), 0);
        assert_eq!(receive(&daemon), "three");

        // A daemon that does not read: its queue is short.
        let start = Instant::now();
        let lost = syslog.write(&path, &lines(5000));
        assert!(lost > 0, "no bound");
        assert!(start.elapsed() < 20 * PATIENCE, "{:?}", start.elapsed());
        assert_eq!(syslog.write(&path, b"x\n"), 1);
        while daemon.set_nonblocking(true).is_ok() && daemon.recv(&mut [0; 100]).is_ok() {}
        assert_eq!(syslog.write(&path, b"room\n"), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
