//! Who and where we are: host name, boot, random bytes.

use std::fs::File;
use std::io::{self, Read};

use super::faults;

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

/// Random bytes from the kernel.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    faults::point("urandom")?;
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
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
