//! A storage that counts the bytes that are read of each object.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use blkdelta_core::error::Result;
use blkdelta_core::storage::{LockGuard, ObjectReader, ObjectWriter, Storage, Unlocked};

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// Counts what is read of the storage below it.
pub struct Counting {
    inner: Arc<dyn Storage>,
    counts: Counts,
}

impl Counting {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, counts: Counts::default() }
    }

    /// Bytes that were read of an object, each as often as it was.
    ///
    /// # Panics
    /// After a panic while it counted.
    #[must_use]
    pub fn read_of(&self, name: &str) -> u64 {
        self.counts.lock().expect("the counts").get(name).copied().unwrap_or(0)
    }
}

impl Storage for Counting {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create(name)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.inner.put_new(name, bytes)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let (inner, counts) = (self.inner.open(name)?, Arc::clone(&self.counts));
        Ok(Arc::new(CountingReader { inner, counts, name: name.to_owned() }))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.inner.folders(folder)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }

    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>> {
        self.inner.lock(name, note)
    }

    fn unlock(&self, name: &str, force: bool) -> Result<Unlocked> {
        self.inner.unlock(name, force)
    }

    fn retain(&self, names: &[&str]) -> Result<()> {
        self.inner.retain(names)
    }

    fn display(&self, name: &str) -> PathBuf {
        self.inner.display(name)
    }
}

struct CountingReader {
    inner: Arc<dyn ObjectReader>,
    counts: Counts,
    name: String,
}

impl ObjectReader for CountingReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        *self.counts.lock().expect("the counts").entry(self.name.clone()).or_default() += buffer.len() as u64;
        self.inner.read_exact_at(buffer, offset)
    }

    fn display(&self) -> PathBuf {
        self.inner.display()
    }
}
