//! A repository: configuration, volumes, backups. What is where is in [`layout`], what counts as a backup in [`catalog`],
//! how a backup comes to be in [`publish`], what it builds on in [`chain`], what was written on it later in [`tags`].

pub mod catalog;
pub mod chain;
pub mod layout;
pub mod publish;
pub mod tags;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::backup_id::BackupId;
use crate::cancel::CancelToken;
use crate::digest::DigestKind;
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::format::repository_config::{Compression, RepositoryConfig};
use crate::geometry::Geometry;
use crate::storage::local::LocalStorage;
use crate::storage::throttled::ThrottledStorage;
use crate::storage::{Storage, read_small};
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
}

impl Repository {
    /// Makes a repository in storage that has none.
    pub fn init(storage: Arc<dyn Storage>, options: InitOptions) -> Result<Self> {
        Geometry::new(0, options.block_size, options.grain_size)?;
        let id = host::random_bytes()
            .map_err(|source| Error::io("reading random bytes", "/dev/urandom", source))?;
        let config = RepositoryConfig {
            format_version: RepositoryConfig::FORMAT_VERSION,
            repository_id: BackupId::from_bytes(id),
            created_at: Timestamp::now(),
            digest: options.digest,
            block_size: options.block_size,
            grain_size: options.grain_size,
            compression: options.compression,
        };
        storage.put_new(layout::CONFIG, &record::encode(&config)?).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists, "there is a repository already")
                .path(storage.display(layout::CONFIG))
                .hint("use it as it is, or choose another directory"),
            _ => error,
        })?;
        Ok(Self { storage, config })
    }

    /// Opens the repository in this storage.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let path = storage.display(layout::CONFIG);
        let bytes =
            read_small(&*storage, layout::CONFIG, record::MAX_LEN).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    Error::new(ErrorKind::NoRepository, "there is no repository here").path(&path)
                }
                _ => error,
            })?;
        let version = RepositoryConfig::version_of(&bytes);
        if let Some(version) =
            version.filter(|version| *version > u64::from(RepositoryConfig::FORMAT_VERSION))
        {
            let text = format!("the repository has format {version}; this program knows up to 1");
            return Err(Error::new(ErrorKind::Unsupported, text).path(&path));
        }
        let config: RepositoryConfig = record::decode(&bytes).map_err(|error| {
            error.path(&path).hint("the configuration is damaged: put it back from a copy of the repository")
        })?;
        config
            .check()
            .map_err(|error| Error::damaged("an impossible configuration").path(&path).because(error))?;
        Ok(Self { storage, config })
    }

    /// Makes a repository in a directory, which is made too.
    pub fn init_local(path: &Path, options: InitOptions) -> Result<Self> {
        Self::init(Arc::new(LocalStorage::new(path)), options)
    }

    /// Opens the repository in a directory.
    pub fn open_local(path: &Path) -> Result<Self> {
        Self::open(Arc::new(LocalStorage::new(path)))
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
        Self { storage: Arc::new(storage), config: self.config.clone() }
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
