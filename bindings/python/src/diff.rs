//! `diff`: what changed between two backups.

use blkdelta_core::operations::diff::diff;
use pyo3::prelude::{PyResult, Python, pymethods};

use crate::options::BackupName;
use crate::progress::{CancelToken, Watch};
use crate::ranges::ChangedRanges;
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// The changed ranges between two backups of a volume, to the grain, without reading their data.
    ///
    /// `older` and `newer` are ids, beginnings of ids, `latest`, `latest~N`, or `Backup`s. The ranges are those of the newer
    /// one, in bytes, as a list whose `report` has the totals.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`), and `WrongUseError` (a `ValueError`) for backups of two volumes.
    ///
    /// >>> newest = repo.show("latest", volume="db")
    /// >>> list(repo.diff(newest, newest))
    /// []
    #[pyo3(signature = (older, newer, *, volume = None, cancel = None))]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn diff(
        &self,
        py: Python<'_>,
        older: BackupName,
        newer: BackupName,
        volume: Option<&str>,
        cancel: Option<&CancelToken>,
    ) -> PyResult<ChangedRanges> {
        let core = self.core()?;
        let (ranges, report) = Watch::new(None, cancel).run(py, |_, cancel| {
            let (from, to) = (core.resolve(&older.0, volume, None)?, core.resolve(&newer.0, volume, None)?);
            let mut ranges = Vec::new();
            let mut on_range = |range| {
                ranges.push(range);
                Ok(())
            };
            let report = diff(&core, &from, &to, &mut on_range, cancel)?;
            Ok((ranges, report))
        })?;
        Ok(ChangedRanges::new(ranges, record(py, "DiffReport", &report)?))
    }
}
