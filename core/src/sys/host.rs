//! Who and where we are: host name, boot, random bytes.

use std::fs::File;
use std::io::Read;

use super::faults;
use crate::error::{Error, Result};

/// The host's name; `localhost` when it has none that is text.
#[must_use]
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

/// The kernel's id of this boot, if it tells.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The namespace of our process ids, if the kernel tells: ids of another one say nothing here.
#[must_use]
pub fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

/// Whether there is a process with this id; `true` when it cannot be told.
#[must_use]
pub fn process_lives(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return true };
    pid <= 0 || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

/// Random bytes from the kernel.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    faults::point("urandom")
        .and_then(|()| File::open("/dev/urandom")?.read_exact(&mut bytes))
        .map_err(|source| Error::io("reading random bytes", "/dev/urandom", source))?;
    Ok(bytes)
}

/// A random number below `bound`; 0 when the kernel gives no random bytes.
#[must_use]
pub fn random_below(bound: u64) -> u64 {
    random_bytes::<8>().map(u64::from_le_bytes).unwrap_or_default() % bound.max(1)
}

/// Whether we act as root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The name of the user we act for, behind sudo too; the number when it has no name.
#[must_use]
pub fn user() -> String {
    let uid = nix::unistd::getuid();
    let name =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    match std::env::var("SUDO_USER") {
        Ok(behind) if !behind.is_empty() && behind != name => format!("{name} for {behind}"),
        _ => name,
    }
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Bytes that this process has fetched from storage and sent towards it so far, as the kernel accounts them (writes when a
/// page of the cache becomes dirty); 0 where it does not tell.
#[must_use]
pub fn storage_bytes() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    };
    (number("read_bytes:"), number("write_bytes:"))
}
