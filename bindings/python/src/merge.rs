//! `merge`: neighbouring backups of a chain become one; also behind a backup whose chain is bounded.

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::Result;
use blkdelta_core::operations::backup::{BackupOptions, BackupReport};
use blkdelta_core::operations::merge::{self, MergeOptions, MergeReport, Shortening};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository as CoreRepository;
use pyo3::prelude::{Bound, PyAny, PyResult, Python, pymethods};
use pyo3::types::PyDict;
use serde::Serialize;

use crate::error::wrong_use;
use crate::limits;
use crate::options::{BackupName, Options};
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Merges a backup and those that it builds on into one, inside the repository.
    ///
    /// `last` is the run's last backup, whose state and id stay; `first` its first one, the full unless given. Those before
    /// `last` go, unless others build on them. `compression` is that of what is encoded anew. Limits are those of `backup`.
    ///
    /// Raises `WrongUseError` (a `ValueError`) for backups that are no such run, `LockedError`, `DamagedError`: then nothing
    /// was changed.
    ///
    /// >>> report = repo.merge(repo.backup("db.img", volume="db"))
    /// >>> report.kind, len(report.removed), len(repo.list("db"))
    /// ('full', 2, 1)
    #[pyo3(
        signature = (last, **options),
        text_signature = "($self, last, *, first=None, volume=None, compression=None, latency_target=None, bwlimit=None, \
            iops_limit=None, write_limit=None, limit_at=(), min_rate=None, full_speed=False, ionice=None, nice=None, \
            cgroup=False, progress=None, cancel=None)"
    )]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn merge<'py>(
        &self,
        py: Python<'py>,
        last: BackupName,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let options = Options::new(options)?;
        let first: Option<BackupName> = options.take("first")?;
        let volume: Option<String> = options.take("volume")?;
        let compression = options.parse("compression")?;
        let running = limits::begin(&options, &self.state)?;
        let watch = options.watch()?;
        options.finish()?;
        let done = watch.run(py, |progress, cancel| {
            let resolve = |name: &BackupName| core.resolve(&name.0, volume.as_deref(), None);
            let merging = MergeOptions {
                last: resolve(&last)?,
                first: first.as_ref().map(resolve).transpose()?,
                compression,
                gentleness: running.gentleness.clone(),
                state: self.state.clone(),
            };
            merge::merge(&core, &merging, progress, cancel)
        })?;
        record(py, "MergeReport", &done)
    }
}

/// A backup, and the merge that bounded its chain.
#[derive(Serialize)]
pub struct Told {
    /// What the backup did.
    #[serde(flatten)]
    pub report: BackupReport,
    /// What the merge did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<MergeReport>,
}

/// How long a chain may become, in backups.
pub fn max_chain(options: &Options<'_>) -> PyResult<Option<usize>> {
    let longest: Option<usize> = options.take("max_chain")?;
    match longest {
        Some(0) => Err(wrong_use("max_chain=0", "write 1 or more backups")),
        longest => Ok(longest),
    }
}

/// Bounds the chains of new backups.
pub fn bound(
    reports: &mut [Told],
    core: &CoreRepository,
    longest: usize,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<()> {
    let chain = |told: &Told| {
        let merging = MergeOptions {
            last: told.report.record.clone(),
            first: None,
            compression: options.compression,
            gentleness: options.gentleness.clone(),
            state: options.state.clone(),
        };
        Shortening::new(merging, longest)
    };
    let mut chains: Vec<Shortening> = reports.iter().map(chain).collect();
    let done = merge::shorten(core, &mut chains, progress, cancel);
    for (told, chain) in reports.iter_mut().zip(chains) {
        told.merged = chain.merged;
    }
    done
}
