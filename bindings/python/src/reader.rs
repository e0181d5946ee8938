//! Random reads of a backup, as if it were the volume.

use std::sync::{Arc, Mutex, PoisonError};

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::operations::reading::BackupReader;
use blkdelta_core::units::format_size;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pyclass, pymethods};
use pyo3::types::{PyMemoryView, PyTuple};

use crate::block::view_of;
use crate::error::{run_briefly, wrong_use};
use crate::options::{BackupName, Moment};
use crate::records::record;
use crate::repository::Repository;

/// Read at once; signals are looked at in between.
const PIECE: usize = 4 << 20;

/// An open backup, of which any bytes can be read; several threads may read at once.
///
/// Each block is proven before its bytes are handed out.
#[pyclass(frozen, module = "blkdelta")]
pub struct Reader {
    /// `None` when it was closed.
    core: Mutex<Option<Arc<BackupReader>>>,
    backup: BackupRecord,
}

#[pymethods]
impl Repository {
    /// Opens a backup for random reads.
    ///
    /// `id`, `volume` and `at` are those of `show`.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`), and `DamagedError` when its tables do not prove.
    ///
    /// >>> with repo.reader("latest", volume="db") as reader:
    /// ...     bytes(reader.read_at(4096, 4)), reader.size
    /// (b'data', 8388608)
    #[pyo3(signature = (id, *, volume = None, at = None))]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn reader(
        &self,
        py: Python<'_>,
        id: BackupName,
        volume: Option<&str>,
        at: Option<Moment>,
    ) -> PyResult<Reader> {
        let core = self.core()?;
        let open = || {
            let backup = core.resolve(&id.0, volume, at.map(|at| at.0))?;
            Ok((BackupReader::open(&core, &backup)?, backup))
        };
        let (reader, backup) = run_briefly(py, open)?;
        Ok(Reader { core: Mutex::new(Some(Arc::new(reader))), backup })
    }
}

impl Reader {
    fn core(&self) -> PyResult<Arc<BackupReader>> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).clone();
        core.ok_or_else(|| PyValueError::new_err("the reader is closed"))
    }

    fn read(&self, py: Python<'_>, offset: u64, length: usize) -> PyResult<Vec<u8>> {
        let core = self.core()?;
        if offset.checked_add(length as u64).is_none_or(|end| end > core.size()) {
            let text = format!("reading {length} bytes at {offset}, beyond the end of the volume");
            return Err(wrong_use(text, &format!("the volume has {} bytes", core.size())));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|error| PyMemoryError::new_err(error.to_string()))?;
        bytes.resize(length, 0);
        let mut at = offset;
        for piece in bytes.chunks_mut(PIECE) {
            run_briefly(py, || core.read_at(at, piece))?;
            at += piece.len() as u64;
            py.check_signals()?;
        }
        Ok(bytes)
    }
}

#[pymethods]
impl Reader {
    /// The bytes at a place, as a read-only memoryview: `offset` and `length` in bytes.
    ///
    /// Raises `WrongUseError` (a `ValueError`) beyond the end of the volume, `DamagedError` when a block does not prove.
    ///
    /// >>> with repo.reader("latest", volume="db") as reader:
    /// ...     reader.read_at(4096, 4).tobytes()
    /// b'data'
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        view_of(py, self.read(py, offset, length)?)
    }

    /// Fills a writable buffer (a bytearray, an array of numpy with dtype u1) with the bytes from `offset` on.
    ///
    /// Raises what `read_at` raises.
    ///
    /// >>> buffer = bytearray(4)
    /// >>> with repo.reader("latest", volume="db") as reader:
    /// ...     reader.read_into(4096, buffer)
    /// >>> buffer
    /// bytearray(b'data')
    fn read_into(&self, py: Python<'_>, offset: u64, buffer: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffer = PyBuffer::<u8>::get(buffer)?;
        let bytes = self.read(py, offset, buffer.item_count())?;
        buffer.copy_from_slice(py, &bytes)
    }

    /// Bytes of the volume.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.core()?.size())
    }

    /// What is read: a `Backup`.
    #[getter]
    fn backup<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        record(py, "Backup", &self.backup)
    }

    /// Lets it go; later reads raise `ValueError`.
    fn close(&self) {
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        format!(
            "<Reader of {:.12}, {}>",
            self.backup.backup_id.to_string(),
            format_size(self.backup.size_bytes)
        )
    }
}
