//! Small notes beside the local state: what verify has proven, what was found damaged, how far an interrupted run had come.
//!
//! Each is one JSON document that is replaced as a whole. All of them may be lost at any time: then work is done again that
//! was done before, and nothing else. So one that cannot be read counts as lost, with a word in the log.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::layout::encode_volume;
use crate::storage::local::replace_file;
use crate::sys::faults;

/// Larger ones are not ours.
const SIZE_MAX: u64 = 64 << 20;

/// The folder of a repository's local state, made if need be.
///
/// # Errors
/// `Io` when it cannot be made.
pub fn folder(base: &Path, repository: &Repository) -> Result<PathBuf> {
    let folder = repository.local_folder(base);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    faults::point("mkdir").and_then(|()| builder.create(&folder)).map_err(|source| {
        Error::io("making the folder of the local state", &folder, source)
            .hint("set BLKDELTA_STATE to a folder that you may write to")
    })?;
    Ok(folder)
}

/// A note of one kind about one volume.
#[derive(Debug, Clone)]
pub struct Note {
    path: PathBuf,
}

impl Note {
    /// The note of this kind below `base`; nothing is made yet.
    ///
    /// # Errors
    /// `WrongUse` for a volume that cannot be.
    pub fn new(base: &Path, repository: &Repository, volume: &str, kind: &str) -> Result<Self> {
        Ok(Self { path: repository.local_folder(base).join(format!("{}.{kind}", encode_volume(volume)?)) })
    }

    /// Where it is, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; `None` when there is none, or none that can be read.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let small = std::fs::metadata(&self.path).ok()?.len() <= SIZE_MAX;
        let bytes = std::fs::read(&self.path).ok().filter(|_| small);
        let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if read.is_none() {
            tracing::warn!(path = %self.path.display(), "a note of the local state cannot be read: it starts over");
        }
        read
    }

    /// Replaces it, durably. The folder must be there: see [`folder`].
    ///
    /// # Errors
    /// Of writing; the old one stays then.
    pub fn write<T: Serialize>(&self, note: &T) -> Result<()> {
        let bytes = serde_json::to_vec(note)
            .map_err(|source| Error::io("writing JSON", &self.path, source.into()))?;
        replace_file(&self.path, &bytes)
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// Of removing.
    pub fn remove(&self) -> Result<()> {
        match faults::point("unlink").and_then(|()| std::fs::remove_file(&self.path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}
