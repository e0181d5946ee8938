//! `verify`: is what is stored whole?

use blkdelta_core::operations::verify::{VerifyOptions, verify, wanted};
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pymethods};
use pyo3::types::PyDict;

use crate::limits;
use crate::options::{BackupName, Options};
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Checks backups, or all of them: structure and digests, with `data=True` every byte up to each volume's root,
    /// with a `sample` such as "5%" or "20GiB" that part of what is stored whose last proof is oldest. Without ids
    /// also tags, key slots and the audit log, and whether the repository went back to an older state since this host saw it.
    ///
    /// Damage is no exception here: the report's `ok` is false, and its `problems` say where. Limits are those of `backup`.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`) when a backup that is named is not there.
    ///
    /// >>> report = repo.verify(data=True)
    /// >>> report.ok, report.backups_checked
    /// (True, 1)
    #[pyo3(
        signature = (*ids, **options),
        text_signature = "($self, *ids, volume=None, data=False, sample=None, latency_target=None, bwlimit=None, iops_limit=None, \
            write_limit=None, limit_at=(), min_rate=None, full_speed=False, ionice=None, nice=None, cgroup=False, \
            progress=None, cancel=None)"
    )]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn verify<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<BackupName>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let options = Options::new(options)?;
        let volume: Option<String> = options.take("volume")?;
        let data = options.flag("data")?;
        let sample = options.parse("sample")?;
        let running = limits::begin(&options, &self.state)?;
        let watch = options.watch()?;
        options.finish()?;
        let done = watch.run(py, |progress, cancel| {
            let ids: Vec<&str> = ids.iter().map(|id| id.0.as_str()).collect();
            let (records, wrong) = wanted(&core, &ids, volume.as_deref())?;
            let options = VerifyOptions {
                data,
                sample,
                state: Some(self.state.clone()),
                gentleness: running.gentleness.clone(),
            };
            verify(&core, &records, &wrong, &options, progress, cancel)
        })?;
        record(py, "VerifyReport", &done)
    }
}
