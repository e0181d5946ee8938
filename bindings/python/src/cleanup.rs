//! `cleanup`: what interrupted backups left.

use blkdelta_core::operations::cleanup::cleanup;
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pymethods};

use crate::error::run_briefly;
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Removes what interrupted backups of one volume, or of all, left: unfinished files, snapshots.
    ///
    /// Gives a list with what was removed for each volume; one that is at work is left alone, and its `problem` says so.
    ///
    /// >>> [volume.removed_snapshots for volume in repo.cleanup("db")]
    /// [()]
    #[pyo3(signature = (volume = None))]
    fn cleanup<'py>(&self, py: Python<'py>, volume: Option<&str>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let core = self.core()?;
        let cleaned = run_briefly(py, || cleanup(&core, volume, &self.state))?;
        cleaned.iter().map(|volume| record(py, "CleanedVolume", volume)).collect()
    }
}
