//! A regular file as target: sparse where the volume is zero.

use std::fs::{File, OpenOptions};
use std::path::Path;

use super::{Sink, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::source::identity;
use crate::sys::buffer_pool::PooledBuffer;
use crate::sys::direct_file::DirectFile;
use crate::sys::{faults, files};

/// An open target file.
pub struct ImageFileSink {
    file: DirectFile,
    fresh: bool,
}

impl ImageFileSink {
    /// Checks and opens it. A new file, or one that may be overwritten whole, starts as one hole of the volume's size.
    pub fn open(target: &Target) -> Result<Self> {
        let problem = |source| Error::io("opening the target", &target.path, source);
        if target.path.is_dir() {
            return Err(Error::new(ErrorKind::WrongUse, "a directory cannot be the target")
                .path(&target.path)
                .hint("name a file in it, a block device, or '-' for standard output"));
        }
        target.check_outside_repository()?;
        if target.path.exists() {
            // Before it is opened for writing: our own descriptor would look like another writer's.
            let file = faults::point("open").and_then(|()| File::open(&target.path)).map_err(problem)?;
            target.check_file(&file, &file.metadata().map_err(problem)?)?;
            target.check_identity(identity::of_file(&target.path, &file)?.as_str())?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = DirectFile::open_write(&target.path, &options, 0).map_err(problem)?;
        let metadata = file.plain().metadata().map_err(problem)?;
        let keep = target.in_place || target.partial || target.ours;
        if !keep {
            faults::point("ftruncate").and_then(|()| file.plain().set_len(0)).map_err(problem)?;
        }
        faults::point("ftruncate").and_then(|()| file.plain().set_len(target.size)).map_err(problem)?;
        Ok(Self { file, fresh: metadata.len() == 0 || !keep })
    }
}

impl Sink for ImageFileSink {
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all(data, offset)
    }

    fn put_zeros(&self, offset: u64, len: u64) -> Result<()> {
        if self.fresh || len == 0 {
            return Ok(());
        }
        match files::punch_hole(self.file.plain(), offset..offset + len) {
            Ok(()) => Ok(()),
            Err(reason) => {
                tracing::debug!(%reason, "the file system cannot punch holes");
                write_zeros(&self.file, offset, len)
            }
        }
    }

    fn starts_zero(&self) -> bool {
        self.fresh
    }

    fn read(&self, buffer: &mut PooledBuffer, offset: u64, len: usize) -> Result<()> {
        self.file.read_block(buffer, offset, len)
    }

    fn finish(&self) -> Result<()> {
        self.file.sync()?;
        sync_folder(self.file.path())
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::sync_directory(folder).map_err(|source| Error::io("syncing the directory of", path, source))
}

/// Writes zeros where a device or file system cannot make them by itself.
pub(super) fn write_zeros(file: &DirectFile, offset: u64, len: u64) -> Result<()> {
    #[repr(align(4096))]
    struct Zeros([u8; 64 << 10]);
    static ZEROS: Zeros = Zeros([0; 64 << 10]);
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(ZEROS.0.len() as u64);
        file.write_all(&ZEROS.0[..to_usize(piece)], offset + at)?;
        at += piece;
    }
    Ok(())
}
