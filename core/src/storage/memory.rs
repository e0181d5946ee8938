//! Storage in memory: for tests, and for callers that keep a repository elsewhere. A power cut loses all of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{LockGuard, ObjectReader, ObjectWriter, Storage, Unlocked};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;

type Objects = Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>;

/// Objects in a map; clones share them.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    objects: Objects,
    locks: Arc<Mutex<BTreeMap<String, String>>>,
}

impl MemoryStorage {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn display(name: &str) -> PathBuf {
    PathBuf::from("memory:").join(name)
}

impl Storage for MemoryStorage {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(MemoryWriter {
            objects: Arc::clone(&self.objects),
            name: name.into(),
            bytes: Vec::new(),
        }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut writer = self.create(name)?;
        writer.write(bytes)?;
        writer.finish()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let bytes = held(&self.objects).get(name).cloned();
        let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::NotFound, "opening").path(display(name)))?;
        Ok(Arc::new(MemoryReader { bytes, name: name.into() }))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = format!("{folder}/");
        let objects = held(&self.objects);
        let names = objects.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let prefix = format!("{folder}/");
        let objects = held(&self.objects);
        let names = objects.keys().filter_map(|name| name.strip_prefix(&prefix)?.split_once('/'));
        let mut folders: Vec<String> = names.map(|(folder, _)| folder.to_owned()).collect();
        folders.dedup();
        Ok(folders)
    }

    fn remove(&self, name: &str) -> Result<()> {
        held(&self.objects).remove(name);
        Ok(())
    }

    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>> {
        let mut locks = held(&self.locks);
        if let Some(holder) = locks.get(name) {
            return Err(Error::new(ErrorKind::Locked, format!("the volume is locked by {holder}"))
                .path(display(name)));
        }
        locks.insert(name.into(), note.into());
        Ok(Box::new(MemoryLock { locks: Arc::clone(&self.locks), name: name.into() }))
    }

    fn unlock(&self, name: &str, _force: bool) -> Result<Unlocked> {
        Ok(match held(&self.locks).get(name) {
            None => Unlocked::Free,
            Some(holder) => Unlocked::Held { holder: holder.clone(), why: "it ends with its holder".into() },
        })
    }

    fn retain(&self, _names: &[&str]) -> Result<()> {
        Ok(())
    }

    fn display(&self, name: &str) -> PathBuf {
        display(name)
    }
}

struct MemoryLock {
    locks: Arc<Mutex<BTreeMap<String, String>>>,
    name: String,
}

impl LockGuard for MemoryLock {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn can_be_lost(&self) -> bool {
        false
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        held(&self.locks).remove(&self.name);
    }
}

struct MemoryWriter {
    objects: Objects,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut objects = held(&self.objects);
        if objects.contains_key(&self.name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "naming").path(display(&self.name)));
        }
        objects.insert(self.name, Arc::new(self.bytes));
        Ok(())
    }
}

struct MemoryReader {
    bytes: Arc<Vec<u8>>,
    name: String,
}

impl ObjectReader for MemoryReader {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size() {
            let error = Error::damaged("the object is cut short").path(display(&self.name));
            return Err(error.at(offset, buffer.len() as u64));
        }
        buffer.copy_from_slice(&self.bytes[to_usize(offset)..to_usize(end)]);
        Ok(())
    }

    fn display(&self) -> PathBuf {
        display(&self.name)
    }
}
