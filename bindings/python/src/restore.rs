//! `restore`: a backup onto a device, into a file or a stream.
#![allow(unsafe_code)] // borrowing a descriptor that Python owns; see the SAFETY comment

use std::fs::File;
use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use blkdelta_core::error::Error;
use blkdelta_core::operations::restore::{RestoreOptions, RestoreTarget, restore};
use pyo3::prelude::{Bound, PyAny, PyAnyMethods, PyResult, Python, pymethods};
use pyo3::types::PyDict;

use crate::error::{raise, wrong_use};
use crate::limits;
use crate::options::{BackupName, Moment, Options, Size};
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Restores a backup to a block device or a file, or writes it into a stream. Every byte is proven.
    ///
    /// `id` is an id or its beginning, `latest`, `latest~N` or a `Backup`; `at` leaves out what was taken later. `target` is a
    /// path, a descriptor (an int), or an open file or socket. `range` is an offset and a length, `(offset, length)` in
    /// bytes or texts such as "4MiB", restored at its own offset. `in_place` reads the target and writes only what differs;
    /// `force` overwrites a target that holds something; `read_back` proves the root on the target itself;
    /// `skip_damaged` restores what can be proven and lists the rest as `missing`; `resume` goes on where an interrupted
    /// restore of this backup onto this target was. Limits are those
    /// of `backup`, but nothing limits a restore unless it is given.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`), `RefusedError` for a target that is mounted or holds something,
    /// `DamagedError` when stored bytes do not prove.
    ///
    /// >>> repo.restore("latest", "restored.img", volume="db").root_proven
    /// True
    #[pyo3(
        signature = (id, target, **options),
        text_signature = "($self, id, target, *, volume=None, at=None, range=None, in_place=False, force=False, \
            read_back=False, skip_damaged=False, resume=False, latency_target=None, bwlimit=None, iops_limit=None, write_limit=None, limit_at=(), \
            min_rate=None, ionice=None, nice=None, cgroup=False, progress=None, cancel=None)"
    )]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn restore<'py>(
        &self,
        py: Python<'py>,
        id: BackupName,
        target: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let options = Options::new(options)?;
        let (volume, at): (Option<String>, Option<Moment>) = (options.take("volume")?, options.take("at")?);
        let range = options.take::<(Size, Size)>("range")?.map(|(offset, length)| bounds(&offset, &length));
        let running = limits::begin_restore(&options, &self.state)?;
        let restoring = RestoreOptions {
            target: stream_or_path(target)?,
            range: range.transpose()?,
            in_place: options.flag("in_place")?,
            force: options.flag("force")?,
            read_back: options.flag("read_back")?,
            skip_damaged: options.flag("skip_damaged")?,
            resume: options.flag("resume")?,
            state: Some(self.state.clone()),
            gentleness: running.gentleness.clone(),
        };
        let watch = options.watch()?;
        options.finish()?;
        let done = watch.run(py, |progress, cancel| {
            let backup = core.resolve(&id.0, volume.as_deref(), at.map(|at| at.0))?;
            restore(&core, &backup, &restoring, progress, cancel)
        })?;
        record(py, "RestoreReport", &done)
    }
}

fn bounds(offset: &Size, length: &Size) -> PyResult<Range<u64>> {
    let end = offset.0.checked_add(length.0);
    end.map(|end| offset.0..end).ok_or_else(|| wrong_use("the range is too long", "give (offset, length)"))
}

fn stream_or_path(target: &Bound<'_, PyAny>) -> PyResult<RestoreTarget> {
    if let Ok(path) = target.extract::<PathBuf>() {
        return Ok(RestoreTarget::Path(path));
    }
    if target.hasattr("flush")? {
        target.call_method0("flush")?;
    }
    let number: RawFd = match target.getattr_opt("fileno")? {
        Some(fileno) => fileno.call0()?.extract()?,
        None => target.extract()?,
    };
    if number < 0 {
        return Err(wrong_use(format!("{number} is not a descriptor"), "give a path, or an open file"));
    }
    // SAFETY: the number is not -1, and it is borrowed only for this one call, which copies the descriptor while `target`
    // is alive; if nothing is open under it, the copy fails with EBADF.
    let copied = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
    let problem = |source| raise(&Error::io("using the descriptor", number.to_string(), source));
    copied.map(|fd| RestoreTarget::Stream(File::from(fd))).map_err(problem)
}
