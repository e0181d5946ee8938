//! What is mounted, and what else holds a device: mountinfo, swaps.

use std::fs;
use std::path::{Path, PathBuf};

use super::block_device::{self, DeviceNumber};

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Device of the file system.
    pub device: DeviceNumber,
    /// Mounted read-only, both here and in the file system itself.
    pub read_only: bool,
}

/// All mounts that this process sees.
#[must_use]
pub fn mounts() -> Vec<Mount> {
    fs::read_to_string("/proc/self/mountinfo")
        .map(|text| text.lines().filter_map(parse).collect())
        .unwrap_or_default()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/x rw,errors=continue` (proc(5)).
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let fields: Vec<&str> = left.split(' ').collect();
    let (major, minor) = fields.get(2)?.split_once(':')?;
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let super_options = right.split(' ').nth(2)?;
    let source = right.split(' ').nth(1)?;
    let mut device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    if libc::major(device) == 0 {
        // btrfs and others show an anonymous number; the source names the device.
        device = block_device::number_of(Path::new(source)).ok().flatten().unwrap_or(device);
    }
    Some(Mount { point: unescape(fields.get(4)?), device, read_only: read_only(super_options) })
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"),
    )
}

/// Mounts of this device or of anything built on it.
#[must_use]
pub fn mounts_of(number: DeviceNumber) -> Vec<Mount> {
    let family = block_device::built_on(number);
    mounts().into_iter().filter(|mount| family.contains(&mount.device)).collect()
}

/// Whether this device or anything built on it is swap space.
#[must_use]
pub fn is_swap(number: DeviceNumber) -> bool {
    let family = block_device::built_on(number);
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let paths = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths
        .filter_map(|path| block_device::number_of(Path::new(path)).ok().flatten())
        .any(|swap| family.contains(&swap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read() {
        let line = r"36 35 98:5 / /mnt/a\040b rw,noatime shared:1 - ext4 /dev/x ro,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert!(mount.read_only);
        assert_eq!((libc::major(mount.device), libc::minor(mount.device)), (98, 5));
        assert!(parse("nonsense").is_none());
    }
}
