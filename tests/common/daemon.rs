//! The built daemon, started as a user starts it: a configuration file, a process, a log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use super::{PATIENCE, TempDir, process, wait_for, wait_for_at_most};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_calamary");
pub const REDIRECTOR: &str = env!("CARGO_BIN_EXE_calamary-redirector");

/// So many looks at a number in a row find it the same when it is steady.
const STEADY_LOOKS: u32 = 30;

/// A running daemon. Dropping it kills it, and fails the test if its log holds panic text.
pub struct Daemon {
    child: Child,
    log_path: PathBuf,
    dir: TempDir,
}

/// Runs the program to its end with these arguments.
pub fn run(args: &[&str]) -> Output {
    run_program(PROGRAM, args)
}

/// The same for any of the programs.
pub fn run_program(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs the program to its end on a configuration, `{}` in `args` being the file's path.
pub fn run_on(config: &str, args: &[&str]) -> Output {
    run_program_on(PROGRAM, config, args)
}

/// The same for any of the programs.
pub fn run_program_on(program: &str, config: &str, args: &[&str]) -> Output {
    let dir = TempDir::new();
    let path = dir.write("config.yml", config);
    let args: Vec<String> = args.iter().map(|a| a.replace("{}", path.to_str().unwrap())).collect();
    run_program(program, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Both outputs of a finished program as text.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Daemon {
    /// Starts the daemon in the calling thread's network namespace and waits until it listens on all `ports`.
    pub fn start(config: &str, ports: &[u16]) -> Daemon {
        Self::start_with(config, ports, &[])
    }

    /// The same with further arguments.
    pub fn start_with(config: &str, ports: &[u16], args: &[&str]) -> Daemon {
        let mut daemon = Self::spawn(config, args);
        daemon.wait_listening(ports);
        daemon
    }

    /// Starts a redirector and waits until it listens on all `ports`.
    pub fn start_redirector(config: &str, ports: &[u16]) -> Daemon {
        let dir = TempDir::new();
        let path = dir.write("config.yml", config);
        let mut command = Command::new(REDIRECTOR);
        command.arg("-f").arg(path);
        let mut daemon = Self::launch_command(dir, command);
        daemon.wait_listening(ports);
        daemon
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(config: &str, args: &[&str]) -> Daemon {
        let dir = TempDir::new();
        let path = dir.write("config.yml", config);
        let mut all = vec!["-f", path.to_str().unwrap()];
        all.extend_from_slice(args);
        Self::launch(dir, &all)
    }

    /// Starts another build of the daemon, which `command` runs up to its arguments, and waits until it listens.
    pub fn start_by(mut command: Command, config: &str, ports: &[u16]) -> Daemon {
        let dir = TempDir::new();
        command.arg("-f").arg(dir.write("config.yml", config));
        let mut daemon = Self::launch_command(dir, command);
        daemon.wait_listening(ports);
        daemon
    }

    /// Starts the process with no `-f`.
    pub fn spawn_without_file(args: &[&str]) -> Daemon {
        Self::launch(TempDir::new(), args)
    }

    /// Starts the process after a shell's preparations, which run in a mount namespace of their own: what they mount is
    /// seen by the daemon only, and gone with it.
    pub fn spawn_after(preparations: &str, config: &str) -> Daemon {
        let dir = TempDir::new();
        let path = dir.write("config.yml", config);
        let mut command = Command::new("unshare");
        let script = format!("{preparations} && exec {PROGRAM} -f {}", path.display());
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        Self::launch_command(dir, command)
    }

    fn launch(dir: TempDir, args: &[&str]) -> Daemon {
        let mut command = Command::new(PROGRAM);
        command.args(args);
        Self::launch_command(dir, command)
    }

    fn launch_command(dir: TempDir, mut command: Command) -> Daemon {
        let log_path = dir.0.join("log");
        let log = File::create(&log_path).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Daemon { child, log_path, dir }
    }

    /// Waits until the daemon's namespace has a listener on each of the ports.
    pub fn wait_listening(&mut self, ports: &[u16]) {
        let listening = wait_for_at_most(PATIENCE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended at start with {status}:\n{}", self.log());
            }
            ports.iter().all(|port| self.listens_on(*port)).then_some(())
        });
        assert!(listening.is_some(), "the daemon does not listen on {ports:?}:\n{}", self.log());
    }

    /// Whether a TCP socket of the daemon's namespace listens on this port.
    pub fn listens_on(&self, port: u16) -> bool {
        ["tcp", "tcp6"].iter().any(|file| {
            let table =
                std::fs::read_to_string(format!("/proc/{}/net/{file}", self.pid())).unwrap_or_default();
            table.lines().skip(1).any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                let state = fields.nth(1).unwrap_or_default();
                state == "0A" && local.rsplit(':').next() == Some(&format!("{port:04X}"))
            })
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of the configuration file.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log_path).unwrap()).into_owned()
    }

    /// The first line of the log that holds all the words, waiting for it.
    pub fn wait_log(&self, words: &[&str]) -> String {
        let found = wait_for_at_most(PATIENCE, || self.find_log(words));
        found.unwrap_or_else(|| panic!("no log line with {words:?} in:\n{}", self.log()))
    }

    /// The first line of the log that holds all the words, now.
    pub fn find_log(&self, words: &[&str]) -> Option<String> {
        self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_string)
    }

    /// Waits for this many lines of the log that hold all the words; there must not be more.
    pub fn wait_count(&self, count: usize, words: &[&str]) {
        let _ = wait_for_at_most(PATIENCE, || (self.count_log(words) >= count).then_some(()));
        assert_eq!(self.count_log(words), count, "lines with {words:?} in:\n{}", self.log());
    }

    /// How many lines of the log hold all the words.
    pub fn count_log(&self, words: &[&str]) -> usize {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Puts another configuration in the file's place.
    pub fn rewrite(&self, config: &str) {
        self.dir.write("config.yml", config);
    }

    pub fn signal(&self, signal: i32) {
        process::signal(self.pid(), signal);
    }

    /// SIGHUP after putting another configuration in place.
    pub fn reload(&self, config: &str) {
        self.rewrite(config);
        self.signal(libc::SIGHUP);
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end of the process.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for_at_most(limit, || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let status = self.wait_exit(PATIENCE);
        status.unwrap_or_else(|| panic!("did not stop at SIGTERM:\n{}", self.log()))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Open descriptors, as soon as they stay the same for a while: a program that listens may still be starting threads.
    pub fn steady_descriptors(&self) -> usize {
        let (mut before, mut same) = (self.descriptors(), 0);
        wait_for("a steady number of descriptors", || {
            let now = self.descriptors();
            same = if now == before { same + 1 } else { 0 };
            before = now;
            (same == STEADY_LOOKS).then_some(now)
        })
    }

    /// Resident memory in KiB, to the page: what /proc/PID/status says is off by some pages for each core.
    pub fn memory_kib(&self) -> u64 {
        let sums = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let resident = sums.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        resident.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// A line of /proc/PID/status.
    pub fn status_field(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_string()
    }

    /// Waits until there are at most this many descriptors.
    pub fn wait_descriptors(&self, at_most: usize) {
        wait_for(&format!("at most {at_most} descriptors, has {}", self.descriptors()), || {
            (self.descriptors() <= at_most).then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- the daemon's log, at most 60 lines:\n{}", tail.join("\n"));
        } else {
            assert!(!log.contains("panicked at"), "panic text in the log:\n{log}");
        }
    }
}
