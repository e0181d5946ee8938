//! What is read: a block device or an image file, with its size, its identity and a word on whether it holds still.
//!
//! A live source gives a smeared image, so it is refused before the first byte is read, and looked at again before a
//! backup is committed. `allow_live` is the user's insisting.

mod device;
pub mod identity;
mod image_file;

use std::ops::Range;
use std::path::Path;

use crate::backup_id::VolumeIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::block_device;
use crate::sys::direct_file::DirectFile;

pub use device::DeviceSource;
pub use image_file::ImageFileSource;

/// An open source.
pub trait Source: Send + Sync {
    /// What the user named.
    fn path(&self) -> &Path;
    /// Bytes of the volume.
    fn size(&self) -> u64;
    /// Which volume it is.
    fn identity(&self) -> &VolumeIdentity;
    /// The open file or device.
    fn file(&self) -> &DirectFile;
    /// Whether [`Source::next_data`] can tell holes from data.
    fn knows_holes(&self) -> bool;
    /// The next range at or after `from` that may hold data; `None` when only a hole follows.
    fn next_data(&self, from: u64) -> Result<Option<Range<u64>>>;
    /// An error of kind `SourceChanged` when it was written to, or resized, since it was opened.
    fn check_unchanged(&self) -> Result<()>;
    /// A text that stays the same as long as nobody can have written to it, also while it is closed; `None` where that
    /// cannot be told.
    fn mark(&self) -> Option<String> {
        None
    }
}

/// Opens a source; a live one is refused unless `allow_live`. `identity` is that of the volume where the path shows only a
/// snapshot of it.
pub fn open(path: &Path, allow_live: bool, identity: Option<VolumeIdentity>) -> Result<Box<dyn Source>> {
    Ok(match check(path)? {
        Kind::Device => Box::new(DeviceSource::open(path, allow_live, identity)?),
        Kind::ImageFile => Box::new(ImageFileSource::open(path, allow_live)?),
    })
}

/// What a path can be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Device,
    /// A regular file.
    ImageFile,
}

/// Looks at a path without opening it; what is neither a device nor a regular file is an error.
pub fn check(path: &Path) -> Result<Kind> {
    let problem = |source| Error::io("opening the source", path, source);
    let metadata = std::fs::metadata(path).map_err(problem)?;
    if metadata.is_dir() {
        return Err(Error::new(ErrorKind::WrongUse, "a directory cannot be the source")
            .path(path)
            .hint("name a block device or an image file; blkdelta backs up raw volumes"));
    }
    if block_device::number_of(path).map_err(problem)?.is_some() {
        return Ok(Kind::Device);
    }
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::WrongUse, "this is neither a block device nor a regular file")
            .path(path)
            .hint("name a block device or an image file"));
    }
    Ok(Kind::ImageFile)
}

/// The refusal of a live source.
fn live(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("the source is live: {why}"))
        .path(path)
        .hint("back up a snapshot of it, or unmount it; --allow-live reads it all the same and the image may be smeared")
}
