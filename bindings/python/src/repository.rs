//! A repository: made, opened, closed. Its verbs are in the files with their names.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::repository::{InitOptions, Repository as CoreRepository};
use blkdelta_core::storage;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::{Bound, PyResult, Python, pyclass, pymethods};
use pyo3::types::PyDict;

use crate::error::run_briefly;
use crate::limits::state_folder;
use crate::options::Options;

/// A folder with backups of volumes.
///
/// Open it with `Repository.open`, make it with `Repository.init`; it can be used in a `with` statement, and by several
/// threads at once. Iterating over it gives every backup.
///
/// >>> with blkdelta.Repository.open("repo") as repo:
/// ...     [backup.volume for backup in repo]
/// ['db']
#[pyclass(frozen, module = "blkdelta")]
pub struct Repository {
    /// `None` when it was closed.
    core: Mutex<Option<CoreRepository>>,
    path: PathBuf,
    /// Base folder of local state.
    pub state: PathBuf,
}

impl Repository {
    /// The core's; an error when it was closed.
    pub fn core(&self) -> PyResult<CoreRepository> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).clone();
        core.ok_or_else(|| PyValueError::new_err("the repository is closed"))
    }

    fn of(core: &CoreRepository, path: PathBuf, state: Option<PathBuf>) -> PyResult<Self> {
        let state = state_folder(state)?;
        let core = core.remembering(&state);
        Ok(Self { core: Mutex::new(Some(core)), path, state })
    }
}

#[pymethods]
impl Repository {
    /// Opens the repository in a folder.
    ///
    /// `state` is the folder of local state, a cache that makes incremental backups quick; as with the command it is
    /// BLKDELTA_STATE, for root /var/lib/blkdelta, else $XDG_STATE_HOME/blkdelta.
    ///
    /// An encrypted one opens with `passphrase`, else with what the environment names: BLKDELTA_PASSWORD_FILE,
    /// BLKDELTA_PASSWORD_COMMAND or BLKDELTA_KEY_FILE. A passphrase that is given for one that is not encrypted is wrong
    /// too: somebody may have put it there instead of yours.
    ///
    /// Raises `NoRepositoryError` (a `FileNotFoundError`) when there is none, `WrongKeyError` (a `PermissionError`) when
    /// the passphrase does not fit or is missing, `UnsupportedError` when a newer version made it.
    ///
    /// >>> blkdelta.Repository.open("repo").grain_size
    /// 8192
    #[staticmethod]
    #[pyo3(signature = (path, *, state = None, passphrase = None))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        state: Option<PathBuf>,
        passphrase: Option<&str>,
    ) -> PyResult<Self> {
        let core = run_briefly(py, || {
            let storage = storage::at(&path)?;
            match passphrase {
                Some(text) => CoreRepository::open_with(storage, &Secret::passphrase(text.as_bytes())?),
                None => CoreRepository::open_by_environment(storage),
            }
        })?;
        Self::of(&core, path, state)
    }

    /// Makes a repository in a folder, which is made too, and opens it.
    ///
    /// `block_size` is the unit of reading (64KiB to 64MiB), `grain_size` the unit of change (4KiB to 64KiB), both in
    /// bytes or as a text; `digest` is blake3, sha256 or xxh3; `compression` is none, lz4, zstd or zstd:LEVEL.
    ///
    /// With a `passphrase` it is encrypted.
    ///
    /// Raises `AlreadyExistsError` (a `FileExistsError`) when there is one, `WrongUseError` (a `ValueError`) for sizes that
    /// do not fit.
    ///
    /// >>> blkdelta.Repository.init("another", grain_size="16KiB").grain_size
    /// 16384
    #[staticmethod]
    #[pyo3(
        signature = (path, *, state = None, passphrase = None, **format),
        text_signature = "(path, *, state=None, passphrase=None, digest='blake3', block_size='4MiB', grain_size='8KiB', \
                          compression='zstd:1')"
    )]
    fn init(
        py: Python<'_>,
        path: PathBuf,
        state: Option<PathBuf>,
        passphrase: Option<&str>,
        format: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let options = Options::new(format)?;
        let format = format_options(&options)?;
        options.finish()?;
        let core = run_briefly(py, || match passphrase {
            Some(text) => {
                let secret = Secret::passphrase(text.as_bytes())?;
                let storage = storage::at(&path)?;
                CoreRepository::init_encrypted(storage, format, &secret, &SlotOptions::default())
            }
            None => CoreRepository::init_at(&path, format),
        })?;
        Self::of(&core, path, state)
    }

    /// Lets it go; later calls raise `ValueError`. What runs goes on.
    fn close(&self) {
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }

    /// Its folder.
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Its id.
    #[getter]
    fn id(&self) -> PyResult<String> {
        Ok(self.core()?.config().repository_id.to_string())
    }

    /// Bytes of a block, the unit of reading.
    #[getter]
    fn block_size(&self) -> PyResult<u32> {
        Ok(self.core()?.config().block_size)
    }

    /// Bytes of a grain, the unit of change.
    #[getter]
    fn grain_size(&self) -> PyResult<u32> {
        Ok(self.core()?.config().grain_size)
    }

    /// Its digest: blake3, sha256 or xxh3.
    #[getter]
    fn digest(&self) -> PyResult<String> {
        Ok(self.core()?.config().digest.to_string())
    }

    fn __repr__(&self) -> String {
        let closed = if self.core().is_err() { ", closed" } else { "" };
        format!("<Repository {}{closed}>", self.path.display())
    }
}

/// Takes how volumes are cut, digested and compressed.
pub fn format_options(options: &Options<'_>) -> PyResult<InitOptions> {
    let usual = InitOptions::default();
    Ok(InitOptions {
        digest: options.parse("digest")?.unwrap_or(usual.digest),
        block_size: options.size_u32("block_size")?.unwrap_or(usual.block_size),
        grain_size: options.size_u32("grain_size")?.unwrap_or(usual.grain_size),
        compression: options.parse("compression")?.unwrap_or(usual.compression),
    })
}
