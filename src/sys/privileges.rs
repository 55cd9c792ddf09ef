//! Becoming an ordinary user after binding, with only the capabilities that the work still needs.
//!
//! What is left to the kernel: on the change of user it empties the ambient capabilities and makes the process not
//! dumpable (`suid_dumpable` is 0), so other processes of that user can neither trace it nor read its memory. Nothing
//! here turns that back on; [`forbid_dumps`] does the same for a process that changes no user.

use std::ffi::c_int;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::described;
use super::files;
use super::socket::cvt;

/// Whom to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id; it will be the only group.
    pub gid: u32,
}

/// A right of root's that may be kept (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Ports below 1024, for listeners that a reload adds.
    NetBindService = 10,
    /// IP_TRANSPARENT and SO_MARK.
    NetAdmin = 12,
    /// IP_TRANSPARENT and SO_BINDTODEVICE.
    NetRaw = 13,
}

impl Capability {
    fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

impl Identity {
    /// Who this process is.
    pub fn current() -> Self {
        // SAFETY: no arguments; these two cannot fail.
        unsafe { Identity { uid: libc::geteuid(), gid: libc::getegid() } }
    }

    /// The ids of `user` and `group`; a group that is not named is the user's own, a user that is not named stays.
    ///
    /// # Errors
    /// A name that does not exist is `NotFound`, with the name in its text.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> io::Result<Self> {
        // The keys of the configuration have the same names.
        let missing =
            |what, name| described(io::ErrorKind::NotFound, format!("{what}: no {what} named {name}"));
        let mut identity = Identity::current();
        if let Some(name) = user {
            // A number need not belong to anybody; its group is then the same number.
            let (uid, gid) = match (lookup_user(name)?, number(name)) {
                (Some(ids), _) => ids,
                (None, Some(id)) => (id, group_of(id)?.unwrap_or(id)),
                (None, None) => return Err(missing("user", name)),
            };
            identity = Identity { uid, gid };
        }
        if let Some(name) = group {
            identity.gid =
                lookup_group(name)?.or_else(|| number(name)).ok_or_else(|| missing("group", name))?;
        }
        Ok(identity)
    }
}

/// An id that is given as a number; the largest means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

/// The user's id and its own group's; `None` if there is no such user.
pub fn lookup_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    Ok(find(&read("/etc/passwd")?, |[found, _, uid, gid]| {
        Some((number(uid)?, number(gid)?)).filter(|_| found == name)
    }))
}

/// The own group of the user with this id; `None` if there is no such user.
fn group_of(uid: u32) -> io::Result<Option<u32>> {
    Ok(find(&read("/etc/passwd")?, |[_, _, found, gid]| number(gid).filter(|_| number(found) == Some(uid))))
}

/// The group's id; `None` if there is no such group.
pub fn lookup_group(name: &str) -> io::Result<Option<u32>> {
    Ok(find(&read("/etc/group")?, |[found, _, gid]| number(gid).filter(|_| found == name)))
}

/// What is read of a file of users or groups.
const MAX_FILE_BYTES: usize = 16 << 20;

/// A file of users or groups, nothing if there is none. It is read here and not by libc: musl knows these files only, too, in
/// 8 KB of a MIPS binary, and where users come from elsewhere, a number says what a name would.
fn read(path: &str) -> io::Result<Vec<u8>> {
    files::read(Path::new(path), MAX_FILE_BYTES).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })
}

/// What `wanted` finds in the first of the lines that have it: their first fields are `N` texts (passwd(5), group(5)).
fn find<T, const N: usize>(lines: &[u8], wanted: impl Fn([&str; N]) -> Option<T>) -> Option<T> {
    lines.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').map_while(|field| std::str::from_utf8(field).ok());
        let mut texts = [""; N];
        for text in &mut texts {
            *text = fields.next()?;
        }
        wanted(texts)
    })
}

/// Becomes `identity` for good, with those of `keep` that the process has now, and without a way to gain more by
/// executing something (PR_SET_NO_NEW_PRIVS).
///
/// To be called before there are other threads: capabilities belong to a thread and are inherited by its children.
///
/// # Errors
/// The step that failed, by name; the process must end then, as it may be half-way.
pub fn drop_to(identity: Identity, keep: &[Capability]) -> io::Result<()> {
    let Identity { uid, gid } = identity;
    let step = |name: &'static str, result: io::Result<()>| {
        result.map_err(|e| described(e.kind(), format!("{name}: {e}")))
    };
    let kept = keep.iter().fold(0, |bits, capability| bits | capability.bit()) & permitted()?;

    // A service manager may have changed the user already; without root the calls would fail.
    if uid == 0 || Identity::current() != identity {
        step("PR_SET_KEEPCAPS", prctl(libc::PR_SET_KEEPCAPS, 1))?;
        // SAFETY: the pointer and the count describe one local, which outlives the call.
        step("setgroups", cvt(unsafe { libc::setgroups(1, &raw const gid) }).map(drop))?;
        // SAFETY: no pointers.
        step("setresgid", cvt(unsafe { libc::setresgid(gid, gid, gid) }).map(drop))?;
        // SAFETY: no pointers.
        step("setresuid", cvt(unsafe { libc::setresuid(uid, uid, uid) }).map(drop))?;
        step("PR_SET_KEEPCAPS", prctl(libc::PR_SET_KEEPCAPS, 0))?;
    }
    step("capset", set_capabilities(kept))?;
    step("PR_SET_NO_NEW_PRIVS", prctl(libc::PR_SET_NO_NEW_PRIVS, 1))
}

/// Keeps this process's memory from everybody else of its user and from core dumps: there are keys in it.
///
/// # Errors
/// Those of prctl(2), which has none for this.
pub fn forbid_dumps() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

fn prctl(option: c_int, value: libc::c_ulong) -> io::Result<()> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers only.
    cvt(unsafe { libc::prctl(option, value, UNUSED, UNUSED, UNUSED) }).map(drop)
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: 64 capabilities in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0 is the calling thread.
    pid: c_int,
}

/// `struct __user_cap_data_struct`: one half.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities that this thread may use, one bit each.
fn permitted() -> io::Result<u64> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut halves = [CapabilityHalf::default(); 2];
    // SAFETY: the pointers are to locals of the layout that version 3 has, and they outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = halves;
    Ok(u64::from(high.permitted) << 32 | u64::from(low.permitted))
}

/// Permits and uses exactly `bits`, and lets no program that is executed inherit any.
fn set_capabilities(bits: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |bits| CapabilityHalf { effective: bits, permitted: bits, inheritable: 0 };
    let halves = [half(bits as u32), half((bits >> 32) as u32)];
    // SAFETY: the pointers are to locals of the layout that version 3 has, and they outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether `identity`, in that one group, could open `path` for reading, by the permission bits of the file and of
/// the folders above it. Access control lists and security modules are not looked at: it is for a warning.
pub fn readable_by(path: &Path, identity: Identity) -> io::Result<bool> {
    const READ: u32 = 4;
    const SEARCH: u32 = 1;
    if identity.uid == 0 {
        return Ok(true);
    }
    let allows = |path: &Path, bit: u32| -> io::Result<bool> {
        let found = std::fs::metadata(path)?;
        let shift = match () {
            () if found.uid() == identity.uid => 6,
            () if found.gid() == identity.gid => 3,
            () => 0,
        };
        Ok(found.mode() >> shift & bit != 0)
    };
    let path = path.canonicalize()?;
    for folder in path.ancestors().skip(1) {
        if !allows(folder, SEARCH)? {
            return Ok(false);
        }
    }
    allows(&path, READ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{limits, testing};
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn names_are_looked_up() {
        assert_eq!(lookup_user("root").unwrap(), Some((0, 0)));
        assert_eq!(lookup_group("root").unwrap(), Some(0));
        for name in ["no-such-name", "", "ro\0ot"] {
            assert_eq!(lookup_user(name).unwrap(), None, "{name:?}");
            assert_eq!(lookup_group(name).unwrap(), None, "{name:?}");
        }
        let error = Identity::resolve(Some("no-such-name"), None).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::NotFound, "user: no user named no-such-name")
        );
        let error = Identity::resolve(Some("root"), Some("no-such-name")).unwrap_err();
        assert_eq!(error.to_string(), "group: no group named no-such-name");
        assert_eq!(Identity::resolve(Some("root"), None).unwrap(), Identity { uid: 0, gid: 0 });
    }

    #[test]
    fn lines_that_are_no_entries_are_passed_over() {
        let check = |lines: &[u8], want: Option<u32>| {
            let found = find(lines, |[name, _, gid]| number(gid).filter(|_| name == "b"));
            assert_eq!(found, want, "{}", String::from_utf8_lossy(lines));
        };
        check(b"a:x:1:\nb:x:2:m,n\nb:x:3:\n", Some(2));
        check(b"b:x:2", Some(2));
        check(
            b"b:x\nb\n\n:::\n#b:x:1:\nb:x:-1:\nb:x::\nb:x:4294967295:\n b:x:5:\nb:\xff:6:\nb:x:7:",
            Some(7),
        );
        check(b"bb:x:1:\nB:x:2:", None);
        check(b"", None);
    }

    #[test]
    fn root_becomes_somebody_with_the_kept_capabilities_only() {
        if testing::is_root("root_becomes_somebody_with_the_kept_capabilities_only") {
            testing::in_child("sys::privileges::tests::child_that_drops", &[]);
        }
    }

    #[test]
    #[ignore = "drops privileges: run by root_becomes_somebody_with_the_kept_capabilities_only"]
    fn child_that_drops() {
        if !testing::is_child() {
            return;
        }
        let had = permitted().unwrap();
        drop_to(Identity { uid: 65_534, gid: 65_533 }, &[Capability::NetAdmin, Capability::NetBindService])
            .unwrap();

        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let check = |key: &str, want: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            assert_eq!(line.split_ascii_whitespace().collect::<Vec<_>>().join(" "), want, "{key}");
        };
        let kept = format!("{:016x}", had & (1 << 12 | 1 << 10));
        check("Uid:", "65534 65534 65534 65534");
        check("Gid:", "65533 65533 65533 65533");
        check("Groups:", "65533");
        check("CapPrm:", &kept);
        check("CapEff:", &kept);
        check("CapInh:", "0000000000000000");
        check("CapAmb:", "0000000000000000");
        check("NoNewPrivs:", "1");
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::setuid(0) }, -1, "root came back");
        // What the metrics show still works for a process that is not dumpable.
        assert!(limits::open_descriptors().unwrap() >= 3);
        assert!(limits::resident_memory().unwrap() > 0);
        // Again as the same one, with less: nothing that only root may do is asked for.
        drop_to(Identity { uid: 65_534, gid: 65_533 }, &[Capability::NetAdmin]).unwrap();
        assert_eq!(permitted().unwrap(), had & 1 << 12);
        // And an error says where it is.
        let error = drop_to(Identity { uid: 0, gid: 0 }, &[]).unwrap_err();
        assert_eq!(error.to_string(), "setgroups: Operation not permitted (os error 1)");
    }

    #[test]
    fn readable_follows_the_permission_bits() {
        if !testing::is_root("readable_follows_the_permission_bits") {
            return;
        }
        let folder = std::env::temp_dir().join(format!("calamary-readable-{}", std::process::id()));
        let file = folder.join("list");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&file, "x").unwrap();
        chown(&file, Some(1000), Some(2000)).unwrap();
        let check = |folder_mode, file_mode, uid, gid, want| {
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(folder_mode)).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(file_mode)).unwrap();
            let got = readable_by(&file, Identity { uid, gid }).unwrap();
            assert_eq!(got, want, "{folder_mode:o} {file_mode:o} {uid}:{gid}");
        };
        check(0o755, 0o644, 5, 5, true);
        check(0o700, 0o644, 5, 5, false);
        check(0o755, 0o640, 5, 5, false);
        check(0o755, 0o640, 5, 2000, true);
        check(0o755, 0o640, 1000, 5, true);
        // The owner's bits count for the owner, even where others have more.
        check(0o755, 0o044, 1000, 2000, false);
        check(0o700, 0o000, 0, 0, true);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(readable_by(&file, Identity { uid: 5, gid: 5 }).is_err());
    }
}
