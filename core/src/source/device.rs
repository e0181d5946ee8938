//! A block device as source: a partition, a loop device, a logical volume or a snapshot of one.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Source, identity, live};
use crate::backup_id::VolumeIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::block_device::{self, DeviceNumber};
use crate::sys::direct_file::DirectFile;
use crate::sys::mounts;

/// An open device.
pub struct DeviceSource {
    path: PathBuf,
    file: DirectFile,
    number: DeviceNumber,
    size: u64,
    identity: VolumeIdentity,
    allow_live: bool,
    written_before: Option<u64>,
}

impl DeviceSource {
    /// Opens it, unless it is live; `identity` where the device does not tell that of its volume.
    pub fn open(path: &Path, allow_live: bool, identity: Option<VolumeIdentity>) -> Result<Self> {
        let problem = |source| Error::io("opening the source", path, source);
        let number = block_device::number_of(path).map_err(problem)?;
        let number =
            number.ok_or_else(|| Error::new(ErrorKind::WrongUse, "not a block device").path(path))?;
        if !allow_live {
            check_not_live(path, number)?;
        }
        let file = DirectFile::open_read(path)?;
        let size = block_device::size(file.plain()).map_err(problem)?;
        let identity = identity.map_or_else(|| identity::of_device(number), Ok)?;
        let written_before = block_device::sectors_written(number);
        Ok(Self { path: path.to_path_buf(), file, number, size, identity, allow_live, written_before })
    }
}

fn check_not_live(path: &Path, number: DeviceNumber) -> Result<()> {
    if let Some(mount) = mounts::mounts_of(number).iter().find(|mount| !mount.read_only) {
        return Err(live(path, &format!("it is mounted read-write on {}", mount.point.display())));
    }
    if mounts::is_swap(number) {
        return Err(live(path, "it is swap space"));
    }
    // Claiming it for an instant shows holders that sysfs does not name; a read-only mount holds it too and is fine.
    let claimed = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path);
    let busy = claimed.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    if busy && mounts::mounts_of(number).is_empty() {
        return Err(live(path, "the kernel or another program holds it"));
    }
    Ok(())
}

impl Source for DeviceSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    fn file(&self) -> &DirectFile {
        &self.file
    }

    fn knows_holes(&self) -> bool {
        false
    }

    fn next_data(&self, from: u64) -> Result<Option<Range<u64>>> {
        Ok((from < self.size).then_some(from..self.size))
    }

    /// A device that refuses writes; a loop device's file could be written to beside it, so its times count too.
    fn mark(&self) -> Option<String> {
        let read_only = block_device::is_read_only(self.file.plain()).unwrap_or(false);
        if !read_only || self.allow_live {
            return None;
        }
        let below = match block_device::loop_backing(self.number) {
            Some(file) => super::image_file::time_mark(&std::fs::metadata(file).ok()?),
            None => String::new(),
        };
        Some(format!("read-only {} {} {below}", self.identity, self.size))
    }

    fn check_unchanged(&self) -> Result<()> {
        let size = block_device::size(self.file.plain())
            .map_err(|source| Error::io("looking at", &self.path, source))?;
        let moved = block_device::sectors_written(self.number) != self.written_before;
        if size != self.size {
            return Err(Error::new(ErrorKind::SourceChanged, "the device was resized while it was read")
                .path(&self.path));
        }
        if moved && !self.allow_live {
            return Err(Error::new(ErrorKind::SourceChanged, "the device was written to while it was read")
                .path(&self.path));
        }
        Ok(())
    }
}
