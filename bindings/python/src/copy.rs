//! `copy`: backups into another repository.

use blkdelta_core::operations::copy::{CopyOptions, copy};
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pymethods};
use pyo3::types::PyDict;

use crate::limits;
use crate::options::{BackupName, Options};
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Copies backups, or all of them, into another repository: the same ids, proven while they are read.
    ///
    /// What they build on is copied too, and what is there already is left alone, so an interrupted copy is finished by
    /// copying again. `to` is a `Repository` of the same block size, grain size and digest, with a key of its own.
    /// `read_back` reads each file again there; `dry_run` only says what would be copied. Limits are those of `backup`.
    ///
    /// Damage here is no exception: it stands in the report's `problems`, and what does not need it is copied. Raises
    /// `WrongUseError` (a `ValueError`) for a repository that does not fit, `AlreadyExistsError` (a `FileExistsError`) when
    /// another backup is in the place of one: then nothing was copied.
    ///
    /// >>> with blkdelta.Repository.init("copies") as copies:
    /// ...     report = repo.copy(copies, "latest", volume="db")
    /// ...     len(report.backups), report.problems, len(copies.list("db"))
    /// (1, (), 1)
    #[pyo3(
        signature = (to, *ids, **options),
        text_signature = "($self, to, *ids, volume=None, read_back=False, dry_run=False, latency_target=None, bwlimit=None, \
            iops_limit=None, write_limit=None, limit_at=(), min_rate=None, full_speed=False, ionice=None, nice=None, \
            cgroup=False, progress=None, cancel=None)"
    )]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn copy<'py>(
        &self,
        py: Python<'py>,
        to: &Bound<'py, Self>,
        ids: Vec<BackupName>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (from, to) = (self.core()?, to.get().core()?);
        let options = Options::new(options)?;
        let volume: Option<String> = options.take("volume")?;
        let (read_back, dry_run) = (options.flag("read_back")?, options.flag("dry_run")?);
        let running = limits::begin(&options, &self.state)?;
        let watch = options.watch()?;
        options.finish()?;
        let done = watch.run(py, |progress, cancel| {
            let resolve = |id: &BackupName| from.resolve(&id.0, volume.as_deref(), None);
            let chosen = ids.iter().map(resolve).collect::<Result<_, _>>()?;
            let gentleness = running.gentleness.clone();
            let options = CopyOptions { chosen, volume: volume.clone(), read_back, dry_run, gentleness };
            copy(&from, &to, &options, progress, cancel)
        })?;
        record(py, "CopyReport", &done)
    }
}
