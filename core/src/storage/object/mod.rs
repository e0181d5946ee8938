//! An object store as storage: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.
//!
//! ```text
//! url -> clients (credentials) -> remote (tries, threads) -> upload (unfinished) | download | lease | retention
//! ```
//! An object appears whole with the last request of its upload; until then a note stands for it. A put that must be
//! the first is a conditional one; a store that takes the condition and does not keep it would let two hosts commit the same
//! backup, so [`open`] ed storage is probed when a repository is made.

mod clients;
mod credentials;
mod download;
mod lease;
mod refusal;
mod remote;
mod retention;
mod unfinished;
mod upload;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectMeta, ObjectStoreExt, PutMode, PutOptions};

use self::download::{Download, ReadBudget};
use self::refusal::{Failure, Meaning};
use self::remote::Remote;
use self::upload::Upload;
use self::url::Url;
use super::{LockGuard, ObjectReader, ObjectWriter, Storage, Unlocked, is_unfinished};
use crate::error::{Error, ErrorKind, Result};

/// Names of objects that are large and rarely read: they get the storage class of the URL.
const DELTA: &str = ".delta";

/// Objects in a bucket.
pub struct ObjectStorage {
    remote: Arc<Remote>,
    budget: Arc<ReadBudget>,
    url: Url,
}

/// The storage at a URL; nothing is asked of it yet.
pub fn open(url: &str) -> Result<Arc<dyn Storage>> {
    let url = Url::parse(url)?;
    let patience = remote::patience()?;
    let remote = Remote::new(clients::clients(&url, remote::connector(patience))?, &url, patience)?;
    Ok(Arc::new(ObjectStorage { remote, budget: Arc::default(), url }))
}

/// A store in memory, for tests; its client keeps conditions as a server does. Each storage is another view of it.
#[cfg(test)]
pub fn in_memory() -> impl Fn() -> Arc<dyn Storage> {
    let (url, remote) = in_memory_remote();
    move || {
        let (remote, url) = (Arc::clone(&remote), url.clone());
        Arc::new(ObjectStorage { remote, budget: Arc::default(), url })
    }
}

#[cfg(test)]
fn in_memory_remote() -> (Url, Arc<Remote>) {
    let store = Arc::new(object_store::memory::InMemory::new());
    let clients = remote::Clients { objects: Arc::clone(&store) as _, uploads: store, s3: None };
    let url = Url::parse("s3://bucket/prefix").unwrap();
    let remote = Remote::new(clients, &url, Duration::from_secs(1)).unwrap();
    (url, remote)
}

impl ObjectStorage {
    fn attributes(&self, name: &str) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some(class) = self.url.storage_class.as_ref().filter(|_| name.ends_with(DELTA)) {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    fn names(&self, folder: &str) -> Result<Names> {
        let (remote, key) = (Arc::clone(&self.remote), self.remote.key(folder)?);
        let listed = self.remote.wait(async move {
            let request = || remote.clients().objects.list_with_delimiter(Some(&key));
            remote.tried(Duration::ZERO, request).await.result
        });
        let listed = listed.map_err(|failure| failure.error("listing", &self.remote.display(folder)))?;
        let last = |path: &Path| path.filename().map(str::to_owned);
        let stamped = |meta: &ObjectMeta| Some((last(&meta.location)?, stamp(meta)));
        let mut objects: Vec<_> = listed.objects.iter().filter_map(stamped).collect();
        let mut folders: Vec<String> = listed.common_prefixes.iter().filter_map(last).collect();
        objects.sort();
        folders.sort();
        Ok(Names { objects, folders })
    }
}

/// What is right below a folder.
struct Names {
    /// With their stamps.
    objects: Vec<(String, Option<String>)>,
    folders: Vec<String>,
}

/// The server's digest of an object, its size and its time: each of them another one when the bytes are.
fn stamp(meta: &ObjectMeta) -> Option<String> {
    let ObjectMeta { e_tag, size, last_modified, .. } = meta;
    e_tag.as_ref().map(|tag| format!("{tag}.{size}.{last_modified}"))
}

impl Storage for ObjectStorage {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        let upload =
            Upload::begin(Arc::clone(&self.remote), name, self.attributes(name), self.url.part_size)?;
        Ok(Box::new(upload))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (remote, key, bytes) = (Arc::clone(&self.remote), self.remote.key(name)?, bytes.to_vec());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.remote.wait(async move { remote.put_new(&key, bytes, options).await });
        put.map_err(|failure| failure.error("writing", &self.display(name)))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        Ok(Arc::new(Download::open(&self.remote, &self.budget, name)?))
    }

    fn open_unfinished(&self, unfinished: &str, name: &str) -> Result<Arc<dyn ObjectReader>> {
        unfinished::complete(&self.remote, unfinished, name)?;
        self.open(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.names(folder)?.objects.into_iter().map(|(name, _)| name).collect())
    }

    fn list_stamped(&self, folder: &str) -> Result<Vec<(String, Option<String>)>> {
        Ok(self.names(folder)?.objects)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.names(folder)?.folders)
    }

    fn remove(&self, name: &str) -> Result<()> {
        if is_unfinished(name) {
            unfinished::abort(&self.remote, name)?;
        }
        let (remote, key) = (Arc::clone(&self.remote), self.remote.key(name)?);
        let removed = self.remote.wait(async move {
            let request = || remote.clients().objects.delete(&key);
            remote.tried(Duration::ZERO, request).await.result
        });
        match removed {
            Err(failure) if failure.meaning == Meaning::Missing => Ok(()),
            Err(failure) => Err(refused_removal(failure, &self.display(name))),
            Ok(()) => Ok(()),
        }
    }

    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>> {
        lease::lock(&self.remote, name, note)
    }

    fn unlock(&self, name: &str, force: bool) -> Result<Unlocked> {
        lease::unlock(&self.remote, name, force)
    }

    fn retain(&self, names: &[&str]) -> Result<()> {
        self.url.object_lock.map_or(Ok(()), |lock| retention::extend(&self.remote, lock, names))
    }

    fn display(&self, name: &str) -> PathBuf {
        self.remote.display(name)
    }
}

/// A removal that is not allowed is most often an object lock at work.
fn refused_removal(failure: Failure, path: &std::path::Path) -> Error {
    let denied = failure.meaning == Meaning::Denied;
    let error = failure.error("removing", path);
    if !denied {
        return error;
    }
    error.kind_is(ErrorKind::Refused).hint(
        "the object stays: an object lock protects it until its retention ends, or the credentials may not delete; \
         run it again then",
    )
}
