//! What the system lets this process use, and what it uses.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::socket::cvt;

/// Counts descriptors against those that there may be, over all threads.
#[derive(Debug)]
pub struct Descriptors {
    most: u32,
    used: AtomicU32,
}

impl Descriptors {
    /// None is used yet.
    pub fn new(most: u32) -> Self {
        Descriptors { most, used: AtomicU32::new(0) }
    }

    /// `count` more, whether there is room or not: [`Descriptors::give_back`] ends it.
    pub fn use_anyway(&self, count: u32) {
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` more, if there is room: [`Descriptors::give_back`] ends it.
    pub fn take(&self, count: u32) -> bool {
        let used = self.used.fetch_add(count, Ordering::Relaxed);
        let room = used.saturating_add(count) <= self.most;
        if !room {
            self.give_back(count);
        }
        room
    }

    /// `count` fewer.
    pub fn give_back(&self, count: u32) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Default for Descriptors {
    /// So many that nobody is refused any.
    fn default() -> Self {
        Self::new(u32::MAX)
    }
}

/// Raises the soft limit of open descriptors (RLIMIT_NOFILE) to the hard one, and says how many may be open then.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a local that outlives the call; the kernel only reads it.
        cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    // `rlim_t` has 4 bytes on some 32-bit targets.
    #[allow(clippy::useless_conversion)]
    Ok(u64::from(limit.rlim_cur))
}

/// Bytes of memory that are resident now.
pub fn resident_memory() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    match (pages, u64::try_from(page)) {
        (Some(pages), Ok(page)) => Ok(pages.saturating_mul(page)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Descriptors that are open now. It costs one system call per few hundred of them: for a scrape, not for every turn.
pub fn open_descriptors() -> io::Result<u64> {
    // One of them is the directory that is being read.
    Ok(entries("/proc/self/fd")?.saturating_sub(1))
}

/// Threads of this process: the kernel counts their folders as links, as of every folder.
pub fn threads() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// CPUs that this thread may run on; 1 if that cannot be known.
pub fn processors() -> usize {
    // SAFETY: cpu_set_t is plain data for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size describe a local that outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: it reads the local that it is given.
    let count = if result == -1 { 1 } else { unsafe { libc::CPU_COUNT(&set) } };
    usize::try_from(count).map_or(1, |count| count.max(1))
}

fn entries(dir: &str) -> io::Result<u64> {
    let mut count = 0_u64;
    for entry in std::fs::read_dir(dir)? {
        entry?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        testing::in_child("sys::limits::tests::child_with_a_low_limit", &[]);
    }

    #[test]
    #[ignore = "changes the process's limits: run by the_soft_limit_becomes_the_hard_one"]
    fn child_with_a_low_limit() {
        if !testing::is_child() {
            return;
        }
        let low = libc::rlimit { rlim_cur: 100, rlim_max: 200 };
        // SAFETY: the pointer is to a local that outlives the call.
        cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const low) }).unwrap();
        assert_eq!(raise_descriptors().unwrap(), 200);
        assert_eq!(raise_descriptors().unwrap(), 200);
    }

    #[test]
    fn room_for_descriptors_is_given_back() {
        let descriptors = Descriptors::new(4);
        assert!(descriptors.take(2));
        assert!(!descriptors.take(3));
        assert!(descriptors.take(2));
        assert!(!descriptors.take(1));
        descriptors.give_back(2);
        descriptors.use_anyway(4);
        assert!(!descriptors.take(1));
        descriptors.give_back(4);
        assert!(descriptors.take(2));
    }

    #[test]
    fn memory_and_threads_are_plausible() {
        let memory = resident_memory().unwrap();
        assert!((100_000..1 << 40).contains(&memory), "{memory}");
        assert!(std::thread::spawn(threads).join().unwrap().unwrap() >= 2);
        assert!((1..=std::thread::available_parallelism().unwrap().get().max(1)).contains(&processors()));
    }

    #[test]
    fn descriptors_are_counted() {
        testing::in_child("sys::limits::tests::child_that_opens_files", &[]);
    }

    #[test]
    #[ignore = "needs a process for itself: run by descriptors_are_counted"]
    fn child_that_opens_files() {
        if !testing::is_child() {
            return;
        }
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..7).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert_eq!(open_descriptors().unwrap(), before + 7);
        drop(files);
        assert_eq!(open_descriptors().unwrap(), before);
    }
}
