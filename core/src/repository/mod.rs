//! A repository: configuration, volumes, backups. What is where is in [`layout`], what counts as a backup in [`catalog`],
//! how a backup comes to be in [`publish`], what it builds on in [`chain`], what was written on it later in [`tags`], who
//! did what in [`audit`], how an encrypted one is opened in [`keys`], how backups go where locks can be lost in
//! `tombstones`. What this host remembers of it is in `memory`, and what it concludes from that in `rollback`.

pub mod audit;
pub mod catalog;
pub mod chain;
pub mod keys;
pub mod layout;
mod memory;
pub mod publish;
mod rollback;
pub mod tags;
mod tombstones;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::backup_id::BackupId;
use crate::cancel::CancelToken;
use crate::digest::DigestKind;
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::format::repository_config::{Compression, Encryption, RepositoryConfig};
use crate::geometry::Geometry;
use crate::storage::local::LocalStorage;
use crate::storage::location::is_url;
use crate::storage::throttled::ThrottledStorage;
use crate::storage::{self, Storage, read_small};
use crate::sys::host;
use crate::throttle::governor::Throttle;

/// What `init` may choose; see [`RepositoryConfig`] for the meaning.
#[derive(Debug, Clone, Copy)]
pub struct InitOptions {
    /// Which digest.
    pub digest: DigestKind,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a grain.
    pub grain_size: u32,
    /// How frames are compressed.
    pub compression: Compression,
}

/// Block size unless chosen otherwise: one large read, one line of the table.
pub const DEFAULT_BLOCK_SIZE: u32 = 4 << 20;
/// Grain size unless chosen otherwise: a PostgreSQL page. Measured in `benches/README.md`.
pub const DEFAULT_GRAIN_SIZE: u32 = 8 << 10;

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            digest: DigestKind::Blake3,
            block_size: DEFAULT_BLOCK_SIZE,
            grain_size: DEFAULT_GRAIN_SIZE,
            compression: Compression::default(),
        }
    }
}

/// An open repository; cheap to clone.
#[derive(Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    config: RepositoryConfig,
    memory: Option<Arc<memory::Memory>>,
    /// The keys of an encrypted one.
    opened: Option<Arc<keys::Opened>>,
}

impl Repository {
    /// Makes a repository in storage that has none.
    pub fn init(storage: Arc<dyn Storage>, options: InitOptions) -> Result<Self> {
        let config = new_config(&*storage, options, None)?;
        keys::refuse_orphans(&*storage)?;
        put_config(&*storage, &record::encode(&config)?)?;
        Ok(Self { storage, config, memory: None, opened: None })
    }

    /// Opens the repository in this storage, unless it is encrypted: see [`Self::open_with`].
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let (config, _) = read_config(&*storage)?;
        if config.encryption.is_some() {
            let text = "the repository is encrypted, and no key is given";
            return Err(Error::new(ErrorKind::WrongKey, text).path(storage.display(layout::CONFIG)));
        }
        keys::refuse_without_encryption(&*storage)?;
        Ok(Self { storage, config, memory: None, opened: None })
    }

    /// Makes a repository at a location: a directory, which is made too, or a URL; see [`crate::storage::at`].
    pub fn init_at(location: impl AsRef<Path>, options: InitOptions) -> Result<Self> {
        Self::init(storage::at(location)?, options)
    }

    /// Opens the repository at a location.
    pub fn open_at(location: impl AsRef<Path>) -> Result<Self> {
        Self::open(storage::at(location)?)
    }

    /// Makes a repository in a directory, which is made too.
    pub fn init_local(path: &Path, options: InitOptions) -> Result<Self> {
        Self::init(Arc::new(LocalStorage::new(path)), options)
    }

    /// Opens the repository in a directory.
    pub fn open_local(path: &Path) -> Result<Self> {
        Self::open(Arc::new(LocalStorage::new(path)))
    }

    /// The configuration of the repository in this storage, which is never encrypted. Nothing else is opened.
    pub fn configuration(storage: &dyn Storage) -> Result<RepositoryConfig> {
        read_config(storage).map(|(config, _)| config)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// The same repository, read and written no faster than these limits allow.
    #[must_use]
    pub fn throttled(&self, throttle: &Throttle, cancel: &CancelToken) -> Self {
        let storage = ThrottledStorage::new(Arc::clone(&self.storage), throttle.clone(), cancel.clone());
        Self { storage: Arc::new(storage), ..self.clone() }
    }

    /// The storage under it.
    #[must_use]
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// How a volume of this size is cut here.
    pub fn geometry(&self, volume_size: u64) -> Result<Geometry> {
        Geometry::new(volume_size, self.config.block_size, self.config.grain_size)
    }
}

/// The configuration of a repository that is to be made in this storage.
fn new_config(
    storage: &dyn Storage,
    options: InitOptions,
    encryption: Option<Encryption>,
) -> Result<RepositoryConfig> {
    Geometry::new(0, options.block_size, options.grain_size)?;
    let id = host::random_bytes()?;
    let config = RepositoryConfig {
        format_version: match encryption {
            None => RepositoryConfig::IN_CLEAR,
            Some(_) => RepositoryConfig::ENCRYPTED,
        },
        repository_id: BackupId::from_bytes(id),
        created_at: Timestamp::now(),
        digest: options.digest,
        block_size: options.block_size,
        grain_size: options.grain_size,
        compression: options.compression,
        encryption,
    };
    config.check_digest()?;
    if is_url(&storage.display(layout::CONFIG)) {
        probe(storage, config.repository_id)?;
    }
    Ok(config)
}

/// The commit point of `init`.
fn put_config(storage: &dyn Storage, bytes: &[u8]) -> Result<()> {
    storage.put_new(layout::CONFIG, bytes).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => there_is_one(storage),
        _ => error,
    })
}

fn there_is_one(storage: &dyn Storage) -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a repository already")
        .path(storage.display(layout::CONFIG))
        .hint("use it as it is, or choose another directory")
}

/// The configuration, and BLAKE3 of its file, to which keys are bound.
fn read_config(storage: &dyn Storage) -> Result<(RepositoryConfig, [u8; 32])> {
    let path = storage.display(layout::CONFIG);
    let bytes = read_small(storage, layout::CONFIG, record::MAX_LEN).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NoRepository, "there is no repository here").path(&path),
        _ => error,
    })?;
    let newest = RepositoryConfig::FORMAT_VERSION;
    let version = RepositoryConfig::version_of(&bytes);
    if let Some(version) = version.filter(|version| *version > u64::from(newest)) {
        let text = format!("the repository has format {version}; this program knows up to {newest}");
        return Err(Error::new(ErrorKind::Unsupported, text).path(&path));
    }
    let config: RepositoryConfig = record::decode(&bytes).map_err(|error| {
        error.path(&path).hint("the configuration is damaged: put it back from a copy of the repository")
    })?;
    config
        .check()
        .map_err(|error| Error::damaged("an impossible configuration").path(&path).because(error))?;
    Ok((config, *blake3::hash(&bytes).as_bytes()))
}

const PROBE_HINT: &str = "two hosts could lose each other's backups there: use a store (or a bucket without versions) that keeps the \
     condition If-None-Match; if one host alone ever writes, add ?single-writer=yes to the URL";

/// Proves that of two puts of one name the second is refused. A store that only seems to keep this condition would let two
/// hosts commit the same backup.
fn probe(storage: &dyn Storage, id: BackupId) -> Result<()> {
    let name = format!("probe-{id}");
    storage.put_new(&name, b"first")?;
    let second = storage.put_new(&name, b"second");
    storage.remove(&name)?;
    match second {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(Error::new(
            ErrorKind::Refused,
            "this store overwrites an object that was to be put only if absent",
        )
        .path(storage.display(&name))
        .hint(PROBE_HINT)),
    }
}
