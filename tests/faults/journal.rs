//! A storage in memory that writes down every durable step, so that the repository can be looked at as it was after each;
//! and that can stop a writer at a step, to let another one through. Its locks always succeed, as on a network file
//! system without locks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use blkdelta_core::error::Result;
use blkdelta_core::storage::memory::MemoryStorage;
use blkdelta_core::storage::{LockGuard, ObjectReader, ObjectWriter, Storage, Unlocked};

/// One durable change.
#[derive(Clone)]
pub enum Step {
    /// An object got its name.
    Put(String, Vec<u8>),
    /// An object went.
    Remove(String),
}

/// All changes in order.
pub type Steps = Arc<Mutex<Vec<Step>>>;

/// Called before a step with its verb (`finish`, `put_new`, `remove`, `list`, `retain`) and the object's name.
pub type Hook = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The storage.
#[derive(Clone)]
pub struct Journal {
    inner: MemoryStorage,
    steps: Steps,
    hook: Hook,
}

impl Journal {
    /// Empty.
    pub fn new() -> Self {
        Self { inner: MemoryStorage::new(), steps: Steps::default(), hook: Arc::new(|_, _| {}) }
    }

    /// The same objects, seen by a writer who is told of its steps.
    pub fn with_hook(&self, hook: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        Self { hook: Arc::new(hook), ..self.clone() }
    }

    /// The steps so far.
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }

    /// The storage as it was after these steps.
    pub fn replay(steps: &[Step]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for step in steps {
            match step {
                Step::Put(name, bytes) => storage.put_new(name, bytes).unwrap(),
                Step::Remove(name) => storage.remove(name).unwrap(),
            }
        }
        storage
    }

    /// Names of all objects after these steps, but for those of the audit log.
    pub fn names(&self) -> Vec<String> {
        let mut names = BTreeMap::new();
        for step in self.steps() {
            match step {
                Step::Put(name, _) => names.insert(name, ()),
                Step::Remove(name) => names.remove(&name),
            };
        }
        names.into_keys().filter(|name| !name.starts_with("audit/")).collect()
    }
}

struct NoLock;

impl LockGuard for NoLock {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn can_be_lost(&self) -> bool {
        true
    }
}

impl Storage for Journal {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.inner.create(name)?;
        Ok(Box::new(JournalWriter { inner, storage: self.clone(), name: name.into(), bytes: Vec::new() }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        (self.hook)("put_new", name);
        let mut steps = self.steps.lock().unwrap();
        self.inner.put_new(name, bytes)?;
        steps.push(Step::Put(name.into(), bytes.into()));
        Ok(())
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        self.inner.open(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        (self.hook)("list", folder);
        self.inner.list(folder)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.inner.folders(folder)
    }

    fn remove(&self, name: &str) -> Result<()> {
        (self.hook)("remove", name);
        let mut steps = self.steps.lock().unwrap();
        self.inner.remove(name)?;
        steps.push(Step::Remove(name.into()));
        Ok(())
    }

    fn unlock(&self, _name: &str, _force: bool) -> Result<Unlocked> {
        Ok(Unlocked::Free)
    }

    fn retain(&self, names: &[&str]) -> Result<()> {
        names.iter().for_each(|name| (self.hook)("retain", name));
        Ok(())
    }

    fn lock(&self, _name: &str, _note: &str) -> Result<Box<dyn LockGuard>> {
        Ok(Box::new(NoLock))
    }

    fn display(&self, name: &str) -> PathBuf {
        self.inner.display(name)
    }
}

struct JournalWriter {
    inner: Box<dyn ObjectWriter>,
    storage: Journal,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for JournalWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        (self.storage.hook)("finish", &self.name);
        let mut steps = self.storage.steps.lock().unwrap();
        self.inner.finish()?;
        steps.push(Step::Put(self.name, self.bytes));
        Ok(())
    }
}
