//! From the name of a zvol, or of its snapshot, to its device and back.
//!
//! udev's link `/dev/zvol/POOL/VOL` is the short way. It can be missing (containers, rescue systems), late, or still point
//! to what had the name before; so the kernel is asked for the name behind the device, and without a link every zvol is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::patiently;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::block_device;

/// How long a new device may take to appear.
const APPEARS: Duration = Duration::from_secs(60);
/// How long udev gets before every zvol is asked for its name.
const LINKED: Duration = Duration::from_millis(500);

/// The name of the zvol, or of the snapshot of one, that this device shows; `None` when it shows none, or a partition.
pub fn name_of(device: &Path) -> Result<Option<String>> {
    let number = block_device::number_of(device).ok().flatten();
    if !number.and_then(block_device::kernel_name).is_some_and(|name| is_of_a_zvol(&name)) {
        return Ok(None);
    }
    let problem = |source| Error::io("asking a zvol for its name", device, source);
    block_device::zvol_name(&open(device).map_err(problem)?).map_err(problem)
}

/// The device of the zvol or snapshot with this name, if it has one.
#[must_use]
pub fn of(name: &str) -> Option<PathBuf> {
    linked(name).or_else(|| searched(name))
}

/// The device of a zvol that was made just now.
pub fn appearing(name: &str) -> Result<PathBuf> {
    let begun = Instant::now();
    let found = patiently(APPEARS, || {
        linked(name).or_else(|| (begun.elapsed() >= LINKED).then(|| searched(name)).flatten())
    });
    found.ok_or_else(|| {
        Error::new(ErrorKind::Io, "the device of a zvol does not appear")
            .path(name)
            .hint("see whether /dev has devices zd0, zd1...: in a container they may be hidden")
    })
}

fn linked(name: &str) -> Option<PathBuf> {
    let link = Path::new("/dev/zvol").join(name);
    shows(&link, name).then_some(link)
}

fn searched(name: &str) -> Option<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let zvols = devices.map(|entry| entry.file_name()).filter(|name| name.to_str().is_some_and(is_of_a_zvol));
    zvols.map(|zvol| Path::new("/dev").join(zvol)).find(|device| shows(device, name))
}

fn shows(device: &Path, name: &str) -> bool {
    name_of(device).ok().flatten().as_deref() == Some(name)
}

fn is_of_a_zvol(kernel_name: &str) -> bool {
    let number = kernel_name.strip_prefix("zd");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn open(device: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(device)
}
