//! What must hold before the first byte of a target is written.
//!
//! A restore onto the wrong device destroys what the user still had. So: the size fits, nothing is mounted on it or built
//! on it, it is not where the repository lives, it is not the volume that the backup was taken from, and it holds no
//! known signature; the last two only unless forced.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::block_device::{self, DeviceNumber};
use crate::sys::{faults, files, mounts};

/// A target as the user named it, and what he insists on.
#[derive(Debug, Clone)]
pub struct Target {
    /// Device or file.
    pub path: PathBuf,
    /// Bytes that will be written from its start.
    pub size: u64,
    /// Overwrite what is there.
    pub force: bool,
    /// Write only what differs from what is there.
    pub in_place: bool,
    /// Write only a part; the rest stays as it is.
    pub partial: bool,
    /// What the target holds is our own, from a restore that was interrupted: no reason to refuse it.
    pub ours: bool,
    /// Path of the repository, which must not be on the target.
    pub repository: Option<PathBuf>,
    /// Identity of the volume that the backup is of.
    pub identity: Option<String>,
}

pub(super) fn refused(path: &Path, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Refused, why).path(path)
}

impl Target {
    /// Checks of a device that need no descriptor.
    pub(super) fn check_device(&self, number: DeviceNumber) -> Result<()> {
        if let Some(mount) = mounts::mounts_of(number).first() {
            return Err(refused(&self.path, format!("the target is mounted on {}", mount.point.display()))
                .hint(format!("umount {}", mount.point.display())));
        }
        if mounts::is_swap(number) {
            return Err(refused(&self.path, "the target is swap space").hint("swapoff it first"));
        }
        self.check_repository(&block_device::built_on(number))
    }

    fn check_repository(&self, devices: &[DeviceNumber]) -> Result<()> {
        let Some(repository) = &self.repository else { return Ok(()) };
        let home = std::fs::metadata(repository).map(|metadata| metadata.dev());
        if home.is_ok_and(|home| devices.contains(&home)) {
            return Err(refused(&self.path, "the repository is on the target").hint("choose another target"));
        }
        Ok(())
    }

    /// A file inside the repository is never a target, forced or not.
    pub(super) fn check_outside_repository(&self) -> Result<()> {
        let Some(Ok(repository)) = self.repository.as_ref().map(std::fs::canonicalize) else { return Ok(()) };
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The file itself may be a link into the repository, or not exist yet.
        let places = [std::fs::canonicalize(&self.path), std::fs::canonicalize(folder)];
        if places.iter().flatten().any(|place| place.starts_with(&repository)) {
            return Err(
                refused(&self.path, "the target is inside the repository").hint("choose another target")
            );
        }
        Ok(())
    }

    /// The target's size against the backup's.
    pub(super) fn check_device_size(&self, size: u64) -> Result<()> {
        if size < self.size {
            let text = format!("the target is too small: it has {size} bytes, the volume {}", self.size);
            return Err(refused(&self.path, text).hint("use a target of at least that size"));
        }
        if size > self.size && !self.force {
            let text = format!("the target is larger: it has {size} bytes, the volume {}", self.size);
            return Err(refused(&self.path, text)
                .hint("--force writes the volume to its start and leaves the rest as it is"));
        }
        Ok(())
    }

    /// Restoring over the very volume that was backed up is right at times, and never by accident.
    pub(super) fn check_identity(&self, found: &str) -> Result<()> {
        if !self.force && self.identity.as_deref() == Some(found) {
            return Err(refused(&self.path, "the target is the volume that the backup was taken from")
                .hint("--force writes over it"));
        }
        Ok(())
    }

    /// Known signatures at the start and the end of what is there.
    pub(super) fn check_signature(&self, file: &std::fs::File, size: u64) -> Result<()> {
        if self.force || self.ours {
            return Ok(());
        }
        let found = signature(file, size)
            .map_err(|source| Error::io("looking for a signature", &self.path, source))?;
        match found {
            Some(name) => {
                Err(refused(&self.path, format!("the target holds {name}")).hint("--force writes over it"))
            }
            None => Ok(()),
        }
    }

    /// Checks of a regular file that exists.
    pub(super) fn check_file(&self, file: &std::fs::File, metadata: &std::fs::Metadata) -> Result<()> {
        let loops = block_device::loops_over(metadata);
        if let Some(mount) = loops.iter().flat_map(|number| mounts::mounts_of(*number)).next() {
            return Err(refused(
                &self.path,
                format!("a loop device mounts the target on {}", mount.point.display()),
            )
            .hint(format!("umount {}", mount.point.display())));
        }
        if !loops.is_empty() || files::open_for_writing_elsewhere(file) == Some(true) {
            return Err(refused(
                &self.path,
                "another program (or a loop device) has the target open for writing",
            )
            .hint("stop it first (losetup -j shows loop devices)"));
        }
        if self.partial && metadata.len() != self.size && metadata.len() > 0 {
            let text = format!("the target has {} bytes, the volume {}", metadata.len(), self.size);
            return Err(
                refused(&self.path, text).hint("a range is put into a copy of the whole volume, or use '-'")
            );
        }
        if metadata.len() > self.size && (self.in_place || self.ours) && !self.force {
            let text =
                format!("the target is larger: it has {} bytes, the volume {}", metadata.len(), self.size);
            return Err(refused(&self.path, text).hint("--force cuts it to the volume's size"));
        }
        if metadata.len() > 0 && !self.force && !self.in_place && !self.ours {
            return Err(refused(&self.path, "the target file exists and is not empty")
                .hint("--in-place writes only what differs, --force writes all of it"));
        }
        Ok(())
    }
}

/// (offset, bytes, name): where each format says that it lives.
const SIGNATURES: [(u64, &[u8], &str); 14] = [
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (4086, b"SWAPSPACE2", "swap space"),
    (3, b"NTFS    ", "an NTFS file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT16   ", "a FAT file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (4096, b"\xfc\x4e\x2b\xa9", "an md array member"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
];

fn signature(file: &std::fs::File, size: u64) -> io::Result<Option<&'static str>> {
    for (offset, bytes, name) in SIGNATURES {
        if offset + bytes.len() as u64 > size {
            continue;
        }
        let mut found = vec![0; bytes.len()];
        faults::point("pread")?;
        file.read_exact_at(&mut found, offset)?;
        if found == bytes {
            return Ok(Some(name));
        }
    }
    zfs_label(file, size)
}

/// A ZFS label's uberblocks begin with this magic, in either byte order.
fn zfs_label(file: &std::fs::File, size: u64) -> io::Result<Option<&'static str>> {
    const MAGIC: u64 = 0x00ba_b10c;
    let mut found = [0; 8];
    for offset in (128 << 10..256 << 10).step_by(1024).take_while(|offset| offset + 8 <= size) {
        file.read_exact_at(&mut found, offset)?;
        let number = u64::from_le_bytes(found);
        if number == MAGIC || number.swap_bytes() == MAGIC {
            return Ok(Some("a ZFS pool member"));
        }
    }
    Ok(None)
}
