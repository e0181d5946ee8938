//! `list`, `show` and `volumes`: which backups there are.

use std::ffi::CString;

use pyo3::prelude::{Bound, IntoPyObject, PyAny, PyAnyMethods, PyErr, PyResult, Python, pymethods};
use pyo3::types::PyIterator;

use crate::error::run_briefly;
use crate::options::{BackupName, Moment};
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// The backups of one volume, or of all, as a list, oldest first.
    ///
    /// A record that cannot be read is left out, with a `DamageWarning`, and tags that cannot be read too; `verify` tells more.
    ///
    /// >>> [(backup.volume, backup.kind) for backup in repo.list()]
    /// [('db', 'full')]
    #[pyo3(signature = (volume = None))]
    fn list<'py>(&self, py: Python<'py>, volume: Option<&str>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let core = self.core()?;
        let catalog = run_briefly(py, || core.catalog(volume))?;
        for error in catalog.damaged.iter().chain(&catalog.damaged_tags) {
            let category = py.import("blkdelta._errors")?.getattr("DamageWarning")?;
            let text = CString::new(error.full_text().replace('\0', " "))?;
            PyErr::warn(py, &category, &text, 1)?;
        }
        catalog.records.iter().map(|backup| record(py, "Backup", backup)).collect()
    }

    /// One backup: by its id or the beginning of it, `latest` or `latest~N`.
    ///
    /// `at` leaves out what was taken later: a `datetime`, or RFC 3339 text.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`) when there is none, `WrongUseError` (a `ValueError`) when several fit.
    ///
    /// >>> repo.show("latest", volume="db").size_bytes
    /// 8388608
    #[pyo3(signature = (id, *, volume = None, at = None))]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn show<'py>(
        &self,
        py: Python<'py>,
        id: BackupName,
        volume: Option<&str>,
        at: Option<Moment>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let found = run_briefly(py, || core.resolve(&id.0, volume, at.map(|at| at.0)))?;
        record(py, "Backup", &found)
    }

    /// The names of all volumes, sorted.
    ///
    /// >>> repo.volumes()
    /// ['db']
    fn volumes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let core = self.core()?;
        run_briefly(py, || core.volumes())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list(py, None)?.into_pyobject(py)?.try_iter()
    }
}
