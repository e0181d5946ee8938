//! A control group of our own, in which the kernel itself limits what this whole process reads and writes.
//!
//! It is the limit that holds whatever our code does, and the only one that includes the page cache's reads and
//! programs that we start. In exchange it needs root or a delegated group, counts only whole disks, and knows no
//! schedule. Where it is refused, [`WhyNot`] says why in sentences; the token bucket of the throttle is there in any
//! case.
//!
//! Version 2 (`io.max`, `io.weight`) is tried first, then version 1 (`blkio.throttle.*`). The file of version 2 tells
//! where the group is made and why. If the process is killed, an empty group stays behind; the next run removes it.
//!
//! Writes are limited where they go past the page cache. What the kernel writes back later counts for the group in
//! version 2 only, and only on file systems that support it.

mod own;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::block_device::{self, DeviceNumber};
use super::faults;
use crate::units::format_size;

/// What our groups' names begin with; the process's number follows.
const PREFIX: &str = "blkdelta-";

/// A group is about this process, so there is one at most.
static HELD: AtomicBool = AtomicBool::new(false);

/// What the kernel shall hold this process to, on each of the devices; `None` leaves it free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoLimits {
    /// Bytes read per second.
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    pub write_bps: Option<u64>,
    /// Reads per second.
    pub read_iops: Option<u64>,
    /// Share among the groups beside it, 1 to 10000 where 100 is usual. Only bfq and the iocost controller heed it.
    pub weight: Option<u16>,
}

/// Why there is no group: one sentence for each way that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyNot {
    /// Sentences for the user, without full stops.
    pub reasons: Vec<String>,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

impl std::error::Error for WhyNot {}

/// This process is in a limited group until this is dropped; then it is back where it was and the group is gone.
#[derive(Debug)]
pub struct Group {
    place: Place,
    words: String,
}

impl Group {
    /// What was made, in words: where the group is and what it limits.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.words
    }

    /// The group's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.place.leave();
        HELD.store(false, Ordering::Release);
    }
}

/// Moves this process, all its threads and what it starts from now on, into a new group with these limits.
///
/// The kernel limits whole disks: a partition stands for its disk. It holds for the devices named here alone, so name
/// either the source or the disks under it, not both, or every read is held up twice.
pub fn limit_io(devices: &[DeviceNumber], limits: &IoLimits) -> Result<Group, WhyNot> {
    let only = |reason: String| WhyNot { reasons: vec![reason] };
    check(devices, limits).map_err(only)?;
    if HELD.swap(true, Ordering::AcqRel) {
        return Err(only("this process has made a limited cgroup already".into()));
    }
    let made = make(&whole_disks(devices), limits);
    if made.is_err() {
        HELD.store(false, Ordering::Release);
    }
    made.map_err(|reasons| WhyNot { reasons })
}

fn make(disks: &[DeviceNumber], limits: &IoLimits) -> Result<Group, Vec<String>> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| vec![format!("{path}: {error}")]);
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let second = own::version_2(&groups, &mounts).and_then(|own| v2::make(&own, disks, limits));
    let (version, made) = match second {
        Ok(made) => (2, made),
        Err(why_not_2) => {
            match own::version_1(&groups, &mounts).and_then(|own| v1::make(&own, disks, limits)) {
                Ok(made) => (1, made),
                Err(why_not_1) => return Err(vec![why_not_2, why_not_1]),
            }
        }
    };
    let (place, remarks) = made;
    let words = describe(&place.folder, version, disks, limits, remarks);
    Ok(Group { place, words })
}

fn check(devices: &[DeviceNumber], limits: &IoLimits) -> Result<(), String> {
    if devices.is_empty() {
        return Err("a cgroup limits devices, and the source lies on none".into());
    }
    let rates = [limits.read_bps, limits.write_bps, limits.read_iops];
    if rates.contains(&Some(0)) {
        return Err("a limit of 0 would stop everything".into());
    }
    if limits.weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
        return Err("the weight of a cgroup lies between 1 and 10000".into());
    }
    if *limits == IoLimits::default() {
        return Err("no limit was asked for".into());
    }
    Ok(())
}

fn whole_disks(devices: &[DeviceNumber]) -> Vec<DeviceNumber> {
    let mut disks: Vec<DeviceNumber> =
        devices.iter().map(|number| block_device::whole_disk(*number).unwrap_or(*number)).collect();
    disks.sort_unstable();
    disks.dedup();
    disks
}

fn describe(
    folder: &Path,
    version: u8,
    disks: &[DeviceNumber],
    limits: &IoLimits,
    remarks: Vec<String>,
) -> String {
    let names: Vec<String> = disks.iter().map(|disk| name(*disk)).collect();
    let mut parts = Vec::new();
    parts.extend(limits.read_bps.map(|rate| format!("reads {}/s", format_size(rate))));
    parts.extend(limits.read_iops.map(|rate| format!("{rate} reads/s")));
    parts.extend(limits.write_bps.map(|rate| format!("writes {}/s", format_size(rate))));
    parts.extend(remarks);
    format!("cgroup v{version} {}: on {}: {}", folder.display(), names.join(", "), parts.join(", "))
}

fn name(disk: DeviceNumber) -> String {
    let folder = fs::canonicalize(block_device::sysfs(disk)).ok();
    let name = folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| device(disk))
}

/// `8:16`, as the limits' files want it.
fn device(number: DeviceNumber) -> String {
    format!("{}:{}", libc::major(number), libc::minor(number))
}

/// A group that was made, and the way back.
#[derive(Debug)]
struct Place {
    /// The new group.
    folder: PathBuf,
    /// Where the process was.
    origin: PathBuf,
    /// To be written to the origin's `cgroup.subtree_control` before a process may go back there.
    switch_off: Option<String>,
}

impl Place {
    /// A new empty group below `parent`. Groups of runs that were killed are removed first.
    fn create(parent: &Path, origin: &Path) -> Result<Self, String> {
        sweep(parent);
        let own = process::id();
        // Another container that sees the same groups may have a process with our number.
        let names =
            std::iter::once(format!("{PREFIX}{own}")).chain((2..9).map(|n| format!("{PREFIX}{own}-{n}")));
        for folder in names.map(|name| parent.join(name)) {
            match faults::point("cgroup_mkdir").and_then(|()| fs::create_dir(&folder)) {
                Ok(()) => return Ok(Self { folder, origin: origin.to_path_buf(), switch_off: None }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let why = advice(&error);
                    return Err(format!("a cgroup cannot be made in {}: {error}{why}", parent.display()));
                }
            }
        }
        Err(format!("{} is full of groups with our number", parent.display()))
    }

    /// Moves this process in.
    fn enter(&self) -> Result<(), String> {
        write(&self.folder.join("cgroup.procs"), "0")
    }

    /// Moves all processes back and removes the group. What fails is logged: the work is done by then.
    fn leave(&mut self) {
        if let Some(text) = self.switch_off.take()
            && let Err(reason) = write(&self.origin.join("cgroup.subtree_control"), &text)
        {
            tracing::warn!(reason, "a cgroup stays divided");
        }
        // A child that is just being made, or one that is just ending, keeps the group for a moment.
        let mut last = Ok(());
        for pause_ms in [0, 1, 2, 5, 10, 20, 50, 100, 200] {
            thread::sleep(Duration::from_millis(pause_ms));
            for process in processes(&self.folder) {
                if let Err(reason) = write(&self.origin.join("cgroup.procs"), &process) {
                    tracing::debug!(process, reason, "not moved back");
                }
            }
            last = faults::point("cgroup_rmdir").and_then(|()| fs::remove_dir(&self.folder));
            if last.is_ok() {
                return;
            }
        }
        if let Err(error) = last {
            tracing::warn!(group = %self.folder.display(), %error, "the cgroup stays, with its limits");
        }
    }
}

/// Processes in a group, as this process sees their numbers.
fn processes(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process of another container: it cannot be named from here.
    text.lines().filter(|line| *line != "0").map(str::to_owned).collect()
}

/// Removes groups of ours whose process is gone. The kernel refuses to remove one that is in use.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(|rest| rest.split('-').next());
        let number: Option<u32> = number.flatten().and_then(|number| number.parse().ok());
        if number.is_some_and(|number| !Path::new(&format!("/proc/{number}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Sets the weight in those of the files that this kernel has, each with its own maximum, and says so; also when it
/// cannot be done, as long as there are other limits to hold.
fn weigh(folder: &Path, files: &[(&str, u16)], limits: &IoLimits) -> Result<Option<String>, String> {
    let Some(weight) = limits.weight else { return Ok(None) };
    let mut set = false;
    for (file, max) in files {
        let file = folder.join(file);
        if file.exists() {
            write(&file, &weight.min(*max).to_string())?;
            set = true;
        }
    }
    if set {
        Ok(Some(format!("weight {weight}")))
    } else if *limits == (IoLimits { weight: limits.weight, ..IoLimits::default() }) {
        Err("this kernel offers no weights for cgroups (bfq or the iocost controller would)".into())
    } else {
        Ok(Some("and no weight, which this kernel does not offer".into()))
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let done = faults::point("cgroup_write").and_then(|()| {
        // Never created: on a file system that is no cgroup this must fail.
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        io::Write::write_all(&mut file, text.as_bytes())
    });
    done.map_err(|error| format!("writing '{text}' to {} failed: {error}{}", path.display(), advice(&error)))
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => " (root may, or the owner of a delegated group)",
        Some(libc::EROFS) => " (the container has its cgroups read-only)",
        Some(libc::EBUSY) => " (other processes are in that group)",
        Some(libc::ENODEV) => " (not a whole disk, or it is gone)",
        Some(libc::ENOENT) => " (this kernel cannot limit that)",
        _ => "",
    }
}
