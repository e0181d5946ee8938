//! A loop device over a file of zeros, for tests of what the kernel really does. It needs root and losetup(8).
//!
//! A test that gets none says so on the terminal itself, past the test harness, which swallows the output of what
//! passes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::block_device::{self, DeviceNumber};

/// Detached when dropped; its file goes too.
pub struct LoopDevice {
    pub path: PathBuf,
    pub number: DeviceNumber,
    pub backing: PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopDevice {
    /// One of this many bytes, all of them written; or `None`, and `test` is reported as skipped.
    pub fn new(test: &str, bytes: u64) -> Option<Self> {
        match Self::attach(bytes) {
            Ok(device) => Some(device),
            Err(reason) => {
                skipped(test, &format!("no loop device to be had: {reason}"));
                None
            }
        }
    }

    fn attach(bytes: u64) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let backing = folder.path().join("volume.img");
        let mut file = File::create(&backing)?;
        io::copy(&mut io::Read::take(io::repeat(0x5a), bytes), &mut file)?;
        file.sync_all()?;
        let attach = || Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        let mut made = attach()?;
        for _ in 0..50 {
            if made.status.success() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100)); // others may take the free device first
            made = attach()?;
        }
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        let path = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        let number = block_device::number_of(&path)?.ok_or_else(|| io::Error::other("not a block device"))?;
        Ok(Self { path, number, backing: fs::canonicalize(&backing)?, _folder: folder })
    }

    /// Opened past the page cache.
    pub fn open_direct(&self) -> File {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_DIRECT).open(&self.path).unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// Tells people that a test did not run.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {reason}");
}

/// A buffer for O_DIRECT, from one that is a page longer.
pub fn aligned(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    buffer.resize(len + 4096, 0);
    let start = buffer.as_ptr().align_offset(4096);
    &mut buffer[start..start + len]
}

/// The folder of tests must lie on a device for a stack to be followed.
pub fn lies_on_a_device(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|file| block_device::sysfs(file.dev()).join("stat").exists())
}
