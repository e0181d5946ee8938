//! What the kernel says about a block device: size, flags, holders, identity; and zeroing a range of it.
//!
//! Most is read from `/sys/dev/block/MAJOR:MINOR`, which is the same for every path that leads to the device.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::faults;

/// Device number as the kernel packs it (`st_rdev`, `st_dev`).
pub type DeviceNumber = u64;

mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_read_bad!(blkroget, 0x125e, libc::c_int);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
    nix::ioctl_read!(blkzname, 0x12, 125, [u8; super::ZVOL_NAME_MAX]);
}

/// Bytes that the driver of zvols writes for a name, its end included.
const ZVOL_NAME_MAX: usize = 256;

/// The device number, if `path` is a block device.
pub fn number_of(path: &Path) -> io::Result<Option<DeviceNumber>> {
    faults::point("stat")?;
    let metadata = fs::metadata(path)?;
    Ok(metadata.file_type().is_block_device().then(|| metadata.rdev()))
}

/// Bytes of an open block device.
pub fn size(file: &File) -> io::Result<u64> {
    faults::point("ioctl")?;
    let mut bytes = 0usize;
    // SAFETY: BLKGETSIZE64 writes one 64-bit number to the pointer, which is a live usize on this 64-bit target.
    unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes as u64)
}

/// Whether the kernel refuses writes to it.
pub fn is_read_only(file: &File) -> io::Result<bool> {
    let mut flag = 0;
    // SAFETY: BLKROGET writes one int to the pointer, which is a live int.
    unsafe { ioctl::blkroget(file.as_raw_fd(), &raw mut flag) }?;
    Ok(flag != 0)
}

/// Makes a range (whole sectors) read as zeros.
pub fn zero_out(file: &File, range: Range<u64>) -> io::Result<()> {
    faults::point("ioctl")?;
    let span = [range.start, range.end - range.start];
    // SAFETY: BLKZEROOUT reads two 64-bit numbers from the pointer, a live array of two.
    unsafe { ioctl::blkzeroout(file.as_raw_fd(), &raw const span) }?;
    Ok(())
}

/// The name of the ZFS volume or snapshot that an open device shows; `None` when its driver knows no such names.
pub fn zvol_name(file: &File) -> io::Result<Option<String>> {
    faults::point("ioctl")?;
    let mut name = [0; ZVOL_NAME_MAX];
    // SAFETY: BLKZNAME writes at most ZVOL_NAME_MAX bytes (the size is part of its number) to the pointer, a live array.
    match unsafe { ioctl::blkzname(file.as_raw_fd(), &raw mut name) } {
        Ok(_) => {
            let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(String::from_utf8(text.to_vec()).ok().filter(|name| !name.is_empty()))
        }
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The kernel's name of a device: `sda1`, `dm-3`, `zd16`.
#[must_use]
pub fn kernel_name(number: DeviceNumber) -> Option<String> {
    fs::canonicalize(sysfs(number)).ok()?.file_name()?.to_str().map(str::to_owned)
}

/// The folder of a device in sysfs.
#[must_use]
pub fn sysfs(number: DeviceNumber) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number)))
}

/// A trimmed text file below the device's folder; `None` when absent or empty.
#[must_use]
pub fn attribute(number: DeviceNumber, name: &str) -> Option<String> {
    let text = fs::read_to_string(sysfs(number).join(name)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The device of which this one is a partition.
#[must_use]
pub fn whole_disk(number: DeviceNumber) -> Option<DeviceNumber> {
    attribute(number, "partition")?;
    parse_number(&fs::read_to_string(sysfs(number).join("../dev")).ok()?)
}

/// All that is built on this device: its partitions and holders (LVM, md, crypt), to any depth, itself included.
#[must_use]
pub fn built_on(number: DeviceNumber) -> Vec<DeviceNumber> {
    closure(number, |folder| {
        let partitions = children(folder).into_iter().filter(|path| path.join("partition").exists());
        partitions.chain(children(&folder.join("holders"))).collect()
    })
}

/// All that this device is built on: its disk, its slaves and what they stand on, itself included.
#[must_use]
pub fn standing_on(number: DeviceNumber) -> Vec<DeviceNumber> {
    closure(number, |folder| {
        let mut below = children(&folder.join("slaves"));
        if folder.join("partition").exists() {
            below.push(folder.join(".."));
        }
        below
    })
}

fn closure(start: DeviceNumber, step: impl Fn(&Path) -> Vec<PathBuf>) -> Vec<DeviceNumber> {
    let mut found = vec![start];
    let mut next = 0;
    while let Some(number) = found.get(next).copied() {
        next += 1;
        for folder in step(&sysfs(number)) {
            let number = fs::read_to_string(folder.join("dev")).ok().as_deref().and_then(parse_number);
            if let Some(number) = number.filter(|number| !found.contains(number)) {
                found.push(number);
            }
        }
    }
    found
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Sectors written to the device since boot, as its statistics count them.
#[must_use]
pub fn sectors_written(number: DeviceNumber) -> Option<u64> {
    attribute(number, "stat")?.split_whitespace().nth(6)?.parse().ok()
}

/// The file behind a loop device.
#[must_use]
pub fn loop_backing(number: DeviceNumber) -> Option<PathBuf> {
    attribute(number, "loop/backing_file").map(PathBuf::from)
}

/// Loop devices whose backing file is the file with this device and inode.
#[must_use]
pub fn loops_over(file: &fs::Metadata) -> Vec<DeviceNumber> {
    let over = |number: &DeviceNumber| {
        let backing = loop_backing(*number).and_then(|path| fs::metadata(path).ok());
        backing.is_some_and(|backing| (backing.dev(), backing.ino()) == (file.dev(), file.ino()))
    };
    all().into_iter().filter(over).collect()
}

/// All whole devices of this host.
#[must_use]
pub fn all() -> Vec<DeviceNumber> {
    let devices = children(Path::new("/sys/block")).into_iter();
    devices.filter_map(|folder| parse_number(&fs::read_to_string(folder.join("dev")).ok()?)).collect()
}
