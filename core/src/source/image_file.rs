//! An image file as source. Its holes are a hint: the file is synced first, so that dirty data is not taken for a hole.

use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Source, identity, live};
use crate::backup_id::VolumeIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::direct_file::DirectFile;
use crate::sys::{block_device, files, mounts};

/// An open image file.
pub struct ImageFileSource {
    path: PathBuf,
    file: DirectFile,
    before: Metadata,
    identity: VolumeIdentity,
    allow_live: bool,
    knows_holes: bool,
}

impl ImageFileSource {
    /// Opens it, unless it is live.
    pub fn open(path: &Path, allow_live: bool) -> Result<Self> {
        let file = DirectFile::open_read(path)?;
        let problem = |source| Error::io("looking at the source", path, source);
        let before = file.plain().metadata().map_err(problem)?;
        if !allow_live {
            check_not_live(path, &file, &before)?;
        }
        let knows_holes = files::next_data(file.plain(), 0, before.len()).is_ok();
        if knows_holes {
            file.sync()?;
        }
        let identity = identity::of_file(path, file.plain())?;
        Ok(Self { path: path.to_path_buf(), file, before, identity, allow_live, knows_holes })
    }
}

fn check_not_live(path: &Path, file: &DirectFile, metadata: &Metadata) -> Result<()> {
    for number in block_device::loops_over(metadata) {
        if let Some(mount) = mounts::mounts_of(number).iter().find(|mount| !mount.read_only) {
            return Err(live(
                path,
                &format!("a loop device mounts it read-write on {}", mount.point.display()),
            ));
        }
    }
    if files::open_for_writing_elsewhere(file.plain()) == Some(true) {
        return Err(live(path, "another program (or a loop device) has it open for writing"));
    }
    Ok(())
}

/// Size and times; that of the last change of the inode cannot be set back.
pub(super) fn time_mark(metadata: &Metadata) -> String {
    let (written, changed) =
        ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    format!("{} {}.{:09} {}.{:09}", metadata.len(), written.0, written.1, changed.0, changed.1)
}

impl Source for ImageFileSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.before.len()
    }

    fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    fn file(&self) -> &DirectFile {
        &self.file
    }

    fn knows_holes(&self) -> bool {
        self.knows_holes
    }

    fn next_data(&self, from: u64) -> Result<Option<Range<u64>>> {
        files::next_data(self.file.plain(), from, self.size())
            .map_err(|source| Error::io("asking for holes", &self.path, source).at(from, 0))
    }

    fn mark(&self) -> Option<String> {
        (!self.allow_live).then(|| format!("{} {}", self.identity, time_mark(&self.before)))
    }

    fn check_unchanged(&self) -> Result<()> {
        let now =
            self.file.plain().metadata().map_err(|source| Error::io("looking at", &self.path, source))?;
        if now.len() != self.before.len() {
            return Err(Error::new(ErrorKind::SourceChanged, "the file was resized while it was read")
                .path(&self.path));
        }
        let stamp = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
        if stamp(&now) != stamp(&self.before) && !self.allow_live {
            return Err(Error::new(ErrorKind::SourceChanged, "the file was written to while it was read")
                .path(&self.path));
        }
        Ok(())
    }
}
