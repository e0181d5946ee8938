//! The bytes under a repository: named objects that appear whole or not at all.
//!
//! Names are relative, with `/` between parts. An object is written once and never changed; [`Storage::create`] gives it
//! its name only when it is durable. `put_new` is the commit point of a backup: of two writers exactly one wins. If a
//! storage broke that promise, two hosts could both believe to have committed the same sequence.

/// What a layer over another storage, its `inner`, leaves as it is: names, removals, locks.
macro_rules! pass_on_to_inner {
    () => {
        fn list(&self, folder: &str) -> Result<Vec<String>> {
            self.inner.list(folder)
        }

        fn list_stamped(&self, folder: &str) -> Result<Vec<(String, Option<String>)>> {
            self.inner.list_stamped(folder)
        }

        fn folders(&self, folder: &str) -> Result<Vec<String>> {
            self.inner.folders(folder)
        }

        fn remove(&self, name: &str) -> Result<()> {
            self.inner.remove(name)
        }

        fn lock(&self, name: &str, note: &str) -> Result<Box<dyn super::LockGuard>> {
            self.inner.lock(name, note)
        }

        fn unlock(&self, name: &str, force: bool) -> Result<super::Unlocked> {
            self.inner.unlock(name, force)
        }

        fn retain(&self, names: &[&str]) -> Result<()> {
            self.inner.retain(names)
        }

        fn display(&self, name: &str) -> std::path::PathBuf {
            self.inner.display(name)
        }
    };
}
use pass_on_to_inner;

#[cfg(test)]
mod contract;
pub mod local;
pub mod location;
pub mod memory;
#[cfg(feature = "object-storage")]
pub mod object;
pub mod sealed;
pub mod throttled;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
pub use location::at;

/// Where a repository's objects live.
pub trait Storage: Send + Sync {
    /// Begins an object; it has no name until [`ObjectWriter::finish`].
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>>;
    /// Writes a small object durably, only if the name is free: an error of kind `AlreadyExists` otherwise.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Opens an object for reading.
    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>>;
    /// Opens what [`ObjectWriter::make_durable`] told of an object that was never finished; `name` is the one it would have.
    /// Only the bytes that were durable then may be read, and its writer must be dead: it may not be able to go on. An error
    /// of kind `NotFound` when it is gone, `Unsupported` where nothing is kept.
    fn open_unfinished(&self, _unfinished: &str, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let text = "this storage keeps nothing of an object that is not whole";
        Err(crate::error::Error::new(crate::error::ErrorKind::Unsupported, text).path(self.display(name)))
    }
    /// Names of all objects below a folder (without their parts' names), sorted; empty when there is none. Unfinished
    /// objects are listed too: see [`is_unfinished`].
    fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// The same names, each with a stamp that is another one whenever the object is another one, also under an old name. `None`
    /// where the storage cannot tell.
    fn list_stamped(&self, folder: &str) -> Result<Vec<(String, Option<String>)>> {
        Ok(self.list(folder)?.into_iter().map(|name| (name, None)).collect())
    }
    /// Names of the folders right below a folder, sorted.
    fn folders(&self, folder: &str) -> Result<Vec<String>>;
    /// Removes an object, finished or not, durably; one that is gone already is no error. What is removed unfinished can
    /// never be finished, and one that was finished meanwhile stays.
    fn remove(&self, name: &str) -> Result<()>;
    /// Takes an exclusive lock that ends with its guard or, sooner or later, its process; `note` tells others who holds it.
    /// An error of kind `Locked` when it is held.
    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>>;
    /// Removes a lock whose holder is dead; with `force` that of a living one too, where that is possible.
    fn unlock(&self, name: &str, force: bool) -> Result<Unlocked>;
    /// Keeps these objects from being removed for as long as the location asks for, counted from now; does nothing where
    /// the location does not ask.
    fn retain(&self, names: &[&str]) -> Result<()>;
    /// Path of an object for people, in messages.
    fn display(&self, name: &str) -> PathBuf;
}

/// An object being written, front to back. Dropped without `finish` it leaves nothing that counts.
pub trait ObjectWriter: Send {
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes durable what was written so far, or tells how much of it is: from now on that outlives its writer. `None` where
    /// the storage keeps nothing of an object that is not whole, and where there is nothing durable yet.
    fn make_durable(&mut self) -> Result<Option<Durable>> {
        Ok(None)
    }
    /// Makes it durable, then gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What is durable of an object that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// The name, in the folder of the one it will have, under which it can be opened and removed if it is never finished.
    pub name: String,
    /// So many of the bytes that were written.
    pub len: u64,
}

/// An object being read.
pub trait ObjectReader: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`; ending early is damage.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    /// Path for people.
    fn display(&self) -> PathBuf;
}

/// A held lock.
pub trait LockGuard: Send {
    /// An error of kind `Locked` when the lock is another's by now, or may be.
    fn check(&self) -> Result<()>;
    /// Whether it is another's for sure; [`LockGuard::check`] tells whose.
    fn is_lost(&self) -> bool {
        false
    }
    /// Whether the lock can be lost while it is held (a lease that was not renewed in time). What it guards then needs a
    /// second guard: between the check and what follows it the process may stand still.
    fn can_be_lost(&self) -> bool;
}

/// What became of a lock that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocked {
    /// Nobody held it.
    Free,
    /// It was removed.
    Removed {
        /// Who held it.
        holder: String,
        /// Why it could be removed.
        why: String,
    },
    /// It stays.
    Held {
        /// Who holds it.
        holder: String,
        /// Why it stays.
        why: String,
    },
}

/// Ends the names of objects that were begun and not finished.
pub const UNFINISHED: &str = ".unfinished";

/// What a name gets behind it while its object is written: another ending for each writer.
fn unfinished_ending() -> String {
    let unique = crate::sys::host::random_bytes::<4>().map(u32::from_le_bytes).unwrap_or_default();
    format!(".{unique:08x}{UNFINISHED}")
}

/// Whether a listed name is an unfinished object's.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// All bytes of an object of at most `limit` bytes.
pub fn read_small(storage: &dyn Storage, name: &str, limit: u64) -> Result<Vec<u8>> {
    let object = storage.open(name)?;
    if object.size() > limit {
        let text = format!("{} bytes, at most {limit} are possible", object.size());
        return Err(crate::error::Error::damaged(text).path(object.display()));
    }
    let mut bytes = vec![0; crate::geometry::to_usize(object.size())];
    object.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A stream as the place of a delta: nothing can be taken back, so its reader relies on the trailer.
pub struct StreamWriter<W: std::io::Write + Send> {
    out: W,
    written: u64,
}

impl<W: std::io::Write + Send> StreamWriter<W> {
    /// Writes to this stream.
    pub fn new(out: W) -> Self {
        Self { out, written: 0 }
    }
}

impl<W: std::io::Write + Send> ObjectWriter for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| {
            crate::error::Error::io("writing", "standard output", source).at(self.written, bytes.len() as u64)
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.out.flush().map_err(|source| crate::error::Error::io("writing", "standard output", source))
    }
}
