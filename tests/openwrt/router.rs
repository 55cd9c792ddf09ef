//! A router with OpenWrt's ways: the packages, installed below a root folder, whose scripts run under busybox' shell in the
//! laboratory's router namespace. Its `nft` and `ip` are real; what procd, UCI and fw4 would do is done by the stand-ins in
//! tests/openwrt/root, which also record what they were asked for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::common::daemon::{self, text};
use crate::common::lab::Lab;
use crate::common::{TempDir, have, process, skip, wait_for_at_most};

/// This machine's own, as a stand-in for a router's.
const TRIPLE: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-musl" } else { "x86_64-unknown-linux-musl" };
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "aarch64_generic" } else { "x86_64" };

/// What the first release of the packages is called.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-r1");

pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder as cross/build.sh leaves it, with this machine's own programs.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let dir = TempDir::new();
        let of_triple = dir.0.join(TRIPLE);
        fs::create_dir_all(&of_triple).unwrap();
        for (name, program) in [("calamary", daemon::PROGRAM), ("calamary-redirector", daemon::REDIRECTOR)] {
            // What debuggers need would make packages of a hundred megabytes.
            let to = of_triple.join(name);
            let status = Command::new("strip").arg("-o").arg(&to).arg(program).status().unwrap();
            assert!(status.success());
        }
        let path = dir.0.clone();
        (dir, path)
    });
    path
}

/// Runs build-ipk.sh of the folder `openwrt`.
pub fn build_packages(openwrt: &Path, programs: &Path, out: &Path) -> Output {
    Command::new(openwrt.join("build-ipk.sh")).arg(programs).arg(out).output().unwrap()
}

/// The packages of this source, built once.
pub fn packages() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let dir = FOLDER.get_or_init(|| {
        let dir = TempDir::new();
        let output = build_packages(&project().join("openwrt"), programs(), &dir.0);
        assert!(output.status.success(), "{}", text(&output));
        dir
    });
    &dir.0
}

/// The file name of a package.
pub fn file_name(package: &str, version: &str) -> String {
    let architecture = if package.starts_with("luci") { "all" } else { ARCHITECTURE };
    format!("{package}_{version}_{architecture}.ipk")
}

/// The reader that shares nothing with what writes packages.
pub fn opkg(args: &[&str]) -> Output {
    Command::new("python3").arg(project().join("tests/openwrt/opkg.py")).args(args).output().unwrap()
}

/// Whether packages can be built and read here; says so if not.
pub fn have_tools() -> bool {
    let missing = ["busybox", "python3", "strip", "tar", "gzip"].into_iter().find(|program| !have(program));
    if let Some(program) = missing {
        skip(&format!("needs {program}"));
    }
    missing.is_none()
}

pub struct Router {
    pub lab: Lab,
    root: TempDir,
}

impl Router {
    /// A router with nothing of ours on it, its interface `lan` up.
    pub fn new() -> Option<Router> {
        if !have_tools() {
            return None;
        }
        let router = Router { lab: Lab::build_or_skip()?, root: TempDir::new() };
        router.furnish();
        router.must(&["/sbin/fw4", "restart"]);
        Some(router)
    }

    /// The same with a package on it.
    pub fn with(package: &str) -> Option<Router> {
        let router = Router::new()?;
        router.install(&packages().join(file_name(package, VERSION)));
        Some(router)
    }

    fn furnish(&self) {
        let root = self.path("");
        let stand_ins = project().join("tests/openwrt/root");
        let copied = Command::new("cp").arg("-R").arg(stand_ins.join(".")).arg(&root).status().unwrap();
        assert!(copied.success());
        for folder in [
            "bin",
            "usr/sbin",
            "usr/lib/opkg/info",
            "etc/config",
            "etc/rc.d",
            "etc/uci-defaults",
            "tmp/log",
            "var/run",
            "proc",
            "dev",
            "host/usr",
        ] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        // The router's shell and tools; then this machine's nft and setpriv, with their libraries.
        let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
        fs::copy(String::from_utf8(busybox.stdout).unwrap().trim(), self.path("bin/busybox")).unwrap();
        let applets = Command::new("busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            if !["sbin", "usr/bin"].iter().any(|dir| self.path(dir).join(applet).exists()) {
                symlink("busybox", self.path("bin").join(applet)).unwrap();
            }
        }
        symlink("/host/usr/sbin/nft", self.path("usr/sbin/nft")).unwrap();
        for entry in fs::read_dir("/usr/lib").unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with("-linux-gnu") || name.starts_with("ld-linux") {
                symlink(format!("/host/usr/lib/{name}"), self.path("lib").join(name)).unwrap();
            }
        }
        symlink("/host/usr/lib64", self.path("lib64")).unwrap();
        self.write("etc/passwd", "root:x:0:0::/root:/bin/ash\n");
        self.write("etc/group", "root:x:0:\n");
        self.write("etc/hosts", "127.0.0.1 localhost\n");
        self.write("etc/resolv.conf", "nameserver 127.0.0.1\n");
        self.write("etc/config/firewall", "config zone\n\toption name 'lan'\n\tlist network 'lan'\n");
        self.write("tmp/network", "lan lan\n");
    }

    /// A path of the router's, seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.0.join(path)
    }

    pub fn write(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).unwrap();
    }

    /// A file's text; empty if there is none.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Replaces text in a file, which must be there.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let content = self.read(path);
        assert!(content.contains(from), "no {from:?} in {path}:\n{content}");
        self.write(path, &content.replace(from, to));
    }

    /// Runs something of the router's on the router.
    pub fn run(&self, command: &[&str]) -> Output {
        let root = self.path("");
        self.inside("exec chroot \"$0\" \"$@\"", root.to_str().unwrap(), command)
    }

    /// The same, which must succeed; its output.
    pub fn must(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {}\n{}", text(&output), self.read("tmp/log/system"));
        text(&output)
    }

    /// A command of an init script, which must succeed.
    pub fn init(&self, service: &str, command: &str) {
        self.must(&[&format!("/etc/init.d/{service}"), command]);
    }

    /// Runs a shell script of this machine with the router's root mounted, in the router's namespace.
    fn inside(&self, script: &str, name: &str, args: &[&str]) -> Output {
        let root = self.path("");
        let root = root.display();
        let script = format!(
            "mount --bind /usr {root}/host/usr && mount --rbind /proc {root}/proc && mount --rbind /dev {root}/dev && {script}"
        );
        self.lab.router.run(|| {
            Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", &script, name])
                .args(args)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .stdin(Stdio::null())
                .output()
                .unwrap()
        })
    }

    pub fn install(&self, package: &Path) {
        let root = self.path("");
        self.opkg(&["install", root.to_str().unwrap(), package.to_str().unwrap()]);
    }

    pub fn remove(&self, package: &str) {
        let root = self.path("");
        self.opkg(&["remove", root.to_str().unwrap(), package]);
    }

    fn opkg(&self, args: &[&str]) {
        let script = project().join("tests/openwrt/opkg.py");
        let output = self.inside("exec python3 \"$0\" \"$@\"", script.to_str().unwrap(), args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    }

    /// Sets an option in a section of /etc/config/SERVICE.
    pub fn set(&self, service: &str, section: &str, option: &str, value: &str) {
        self.must(&["/sbin/uci", "set", &format!("{service}.{section}.{option}={value}")]);
    }

    /// What the scripts told procd, a line for each parameter.
    pub fn record(&self, service: &str) -> String {
        self.read(&format!("tmp/procd/{service}"))
    }

    /// Runs what a service asked procd to run on an event.
    pub fn trigger(&self, service: &str, event: &str) {
        let triggers = self.read(&format!("tmp/procd/{service}.triggers"));
        let command = triggers.lines().find_map(|line| line.strip_prefix(&format!("{event}: ")));
        let command = command.unwrap_or_else(|| panic!("no trigger for {event} in:\n{triggers}"));
        self.must(&command.split(' ').collect::<Vec<_>>());
    }

    /// The process of a service's daemon.
    pub fn pid(&self, service: &str) -> Option<u32> {
        let pid = self.read(&format!("tmp/procd/{service}.pid")).trim().parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // The number may be another process' by now; and what starts the daemon has names of its own.
        let ours = ["calamary", "setpriv", "sh", "ash"]
            .iter()
            .any(|name| status.strip_prefix("Name:\t").is_some_and(|rest| rest.starts_with(name)));
        (ours && !status.contains("State:\tZ")).then_some(pid)
    }

    /// Kills a daemon, and waits until none of its threads holds a listener any more.
    pub fn kill(&self, service: &str) {
        process::signal(self.pid(service).expect("it does not run"), libc::SIGKILL);
        self.wait("its end", || self.pid(service).is_none() && !self.listens(4128) && !self.listens(4129));
    }

    /// The daemon's log.
    pub fn log(&self, service: &str) -> String {
        self.read(&format!("tmp/log/{service}"))
    }

    pub fn wait_log(&self, service: &str, words: &[&str]) {
        let found = || self.log(service).lines().any(|line| words.iter().all(|word| line.contains(word)));
        self.wait(&format!("{words:?}"), found);
    }

    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let came = wait_for_at_most(crate::common::PATIENCE, || holds().then_some(()));
        assert!(
            came.is_some(),
            "waited in vain for {what}\n{}\n{}",
            self.log("calamary"),
            self.read("tmp/log/system")
        );
    }

    /// Waits until the daemon takes connections at a port.
    pub fn wait_listening(&self, service: &str, port: u16) {
        assert!(self.pid(service).is_some(), "it does not run:\n{}", self.log(service));
        self.wait(&format!("a listener on {port}"), || self.listens(port));
    }

    /// Whether anything on the router takes connections at a port.
    fn listens(&self, port: u16) -> bool {
        let port = format!(":{port:04X} ");
        let tables = self.lab.router.run(|| {
            ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap())
        });
        tables.concat().lines().any(|line| line.contains(&port) && line.contains(" 0A "))
    }

    /// Everything in the kernel's firewall and routing that is not as a router without our packages has it.
    pub fn traces(&self) -> String {
        let tables = self.lab.router.sh("nft list tables");
        let rules = self.lab.router.sh("ip -4 rule show; ip -6 rule show");
        let routes = self.lab.router.sh(
            "for f in -4 -6; do ip $f route show table all type local | grep default; done; nft list ruleset | grep -i calamary; true",
        );
        let usual = |line: &&str| {
            !line.is_empty()
                && *line != "table inet fw4"
                && !["0:", "32766:", "32767:"].iter().any(|rule| line.starts_with(rule))
        };
        let all = [tables, rules, routes].concat();
        let mut found: Vec<&str> = all.lines().filter(usual).collect();
        // The running daemon's socket is no trace.
        let runs = self.pid("calamary").is_some();
        let left = self.path("var/run").read_dir().unwrap().flatten();
        if left.into_iter().any(|entry| !runs || entry.file_name() != "calamary-live") {
            found.push("/var/run is not empty");
        }
        found.join("\n")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for service in ["calamary", "calamary-redirector"] {
            if let Some(pid) = self.pid(service) {
                process::signal(pid, libc::SIGKILL);
            }
        }
        for service in ["calamary", "calamary-redirector"] {
            let log = self.log(service);
            assert!(
                std::thread::panicking() || !log.contains("panicked at"),
                "panic text in the log:\n{log}"
            );
        }
    }
}
