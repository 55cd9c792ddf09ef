//! What the integration tests share: the daemon as a user starts it, servers to connect to, clients that speak byte by
//! byte, and network namespaces with real nftables.
//!
//! Nothing here leaves loopback or the namespaces that a test builds for itself.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

pub mod authority;
pub mod client;
pub mod daemon;
pub mod dns;
pub mod lab;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod socks;
pub mod tls;
pub mod udp;

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once. Generous: a loaded machine is not a bug.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `condition` until it gives something, or panics with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for_at_most(PATIENCE, condition).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Polls `condition` until it gives something or `limit` has passed.
pub fn wait_for_at_most<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A number that no other caller of this process gets.
pub fn unique() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A port that nothing listens on, below the range of ephemeral ports so that no outgoing connection takes it, and that
/// no test program which runs at the same time is given.
pub fn free_port() -> u16 {
    for _ in 0..10_000 {
        let offset = (std::process::id().wrapping_mul(37).wrapping_add(unique())) % 12_000;
        let port = 20_000 + offset as u16;
        // Looking is binding for a moment, and would be in the way of another program's daemon.
        if !reserve(port) {
            continue;
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Takes the abstract socket that stands for a port among test programs, until this one ends.
fn reserve(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("calamary-test-port-{port}")).unwrap();
    UnixListener::bind_addr(&name).map(std::mem::forget).is_ok()
}

/// A folder of its own, removed when the value goes away.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        // Not below the build folder: a daemon that has dropped root must be able to read it.
        let path = std::env::temp_dir().join(format!("calamary-test-{}-{}", std::process::id(), unique()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a program is on the PATH.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|d| d.join(program).is_file())
}

/// Says loudly that a test did not run. With `CALAMARY_REQUIRE_NETNS=1` that is a failure.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_string();
    let line = format!("\nSKIPPED ({why}): {test}\n");
    assert!(std::env::var_os("CALAMARY_REQUIRE_NETNS").is_none_or(|v| v != "1"), "{line}");
    // Straight to the descriptor: the test runner swallows the output of tests that pass.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Bytes that differ everywhere, so that a lost, doubled or moved piece shows in a comparison.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A checksum that notices loss, doubling and reordering (FNV-1a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum(u64, u64);

impl Checksum {
    pub fn new() -> Checksum {
        Checksum(0xcbf2_9ce4_8422_2325, 0)
    }

    pub fn of(bytes: &[u8]) -> Checksum {
        let mut sum = Checksum::new();
        sum.add(bytes);
        sum
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.1 += bytes.len() as u64;
    }

    pub fn len(&self) -> u64 {
        self.1
    }
}
