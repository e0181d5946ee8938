//! The bytes under a repository: named objects that appear whole or not at all.
//!
//! Names are relative, with `/` between parts. An object is written once and never changed; [`Storage::create`] gives it
//! its name only when it is durable. `put_new` is the commit point of a backup: of two writers exactly one wins. If a
//! storage broke that promise, two hosts could both believe to have committed the same sequence.

pub mod local;
pub mod memory;
pub mod throttled;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;

/// Where a repository's objects live.
pub trait Storage: Send + Sync {
    /// Begins an object; it has no name until [`ObjectWriter::finish`].
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>>;
    /// Writes a small object durably, only if the name is free: an error of kind `AlreadyExists` otherwise.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Opens an object for reading.
    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>>;
    /// Names of all objects below a folder (without their parts' names), sorted; empty when there is none. Unfinished
    /// objects are listed too: see [`is_unfinished`].
    fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// Names of the folders right below a folder, sorted.
    fn folders(&self, folder: &str) -> Result<Vec<String>>;
    /// Removes an object, finished or not, durably; one that is gone already is no error.
    fn remove(&self, name: &str) -> Result<()>;
    /// Takes an exclusive lock that ends with its guard or its process; `note` tells others who holds it. An error of kind
    /// `Locked` when it is held.
    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>>;
    /// Path of an object for people, in messages.
    fn display(&self, name: &str) -> PathBuf;
}

/// An object being written, front to back. Dropped without `finish` it leaves nothing that counts.
pub trait ObjectWriter: Send {
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes it durable, then gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
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
pub trait LockGuard: Send {}

/// Ends the names of objects that were begun and not finished.
pub const UNFINISHED: &str = ".unfinished";

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
