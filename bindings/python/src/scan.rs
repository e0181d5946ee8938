//! `scan`: change tracking without a repository. The changes with their bytes, one after the other; or the ranges alone,
//! and a delta file.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use blkdelta_core::operations::changes::{Changes as CoreChanges, Waited};
use blkdelta_core::operations::running::Running;
use blkdelta_core::operations::scan::{ScanOptions, scan as core_scan};
use blkdelta_core::storage::ObjectWriter;
use blkdelta_core::storage::local::FileReplacer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::{Bound, Py, PyAny, PyResult, Python, pyclass, pyfunction, pymethods};
use pyo3::types::{PyDict, PyTuple};

use crate::backup::queue_depth;
use crate::change::Change;
use crate::error::OrRaise;
use crate::limits;
use crate::options::Options;
use crate::progress::{PATIENCE, Watch};
use crate::ranges::ChangedRanges;
use crate::records::record;
use crate::repository::format_options;

/// What changed in a volume, with its bytes: an iterator of `Change`, made by `scan`.
///
/// The volume is read as fast as the changes are taken. A `with` statement, or `close`, ends it early; the new manifest is
/// written only when all changes were taken.
#[pyclass(frozen, module = "blkdelta")]
pub struct Changes {
    source: PathBuf,
    state: Mutex<State>,
    watch: Watch,
}

struct State {
    /// `None` when it was closed or has failed.
    core: Option<CoreChanges>,
    report: Option<Py<PyAny>>,
    told: Instant,
    running: Option<Running>,
}

impl Changes {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One look, of `PATIENCE` at most, without the interpreter's lock.
    fn step(&self, py: Python<'_>) -> PyResult<Waited> {
        let waited =
            py.detach(|| self.with(|state| state.core.as_mut().map(|core| core.next_within(PATIENCE))));
        let closed = || PyValueError::new_err("the scan was closed before it came to its end");
        waited.ok_or_else(closed)?.or_raise()
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<Change>> {
        loop {
            let waited = self.step(py)?;
            let due = self.with(|state| state.told.elapsed() >= PATIENCE);
            if due || !matches!(waited, Waited::Change(_)) {
                self.with(|state| state.told = Instant::now());
                self.watch.attend(py)?;
            }
            match waited {
                Waited::Change(change) => return Ok(Some(Change::from(change))),
                Waited::End => return self.end(py).map(|()| None),
                Waited::NotYet => {}
            }
        }
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let report = self.with(|state| state.core.as_ref().and_then(|core| core.report().cloned()));
        if let Some(report) = report {
            let report = record(py, "ScanReport", &report)?.unbind();
            self.with(|state| {
                state.report = Some(report);
                state.running = None;
            });
        }
        Ok(())
    }
}

#[pymethods]
impl Changes {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Change>> {
        let next = self.take(py);
        if next.is_err() {
            self.close(py);
        }
        next
    }

    /// Ends the scan; what was not taken is told again by the next one.
    fn close(&self, py: Python<'_>) {
        if self.with(|state| state.report.is_some()) {
            return;
        }
        self.watch.cancel.cancel();
        py.detach(|| drop(self.with(|state| (state.core.take(), state.running.take()))));
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    /// What the scan did: a `ScanReport`, once all changes were taken; `None` before.
    #[getter]
    fn report(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.with(|state| state.report.as_ref().map(|report| report.clone_ref(py)))
    }

    fn __repr__(&self) -> String {
        format!("<Changes of {}>", self.source.display())
    }
}

/// Tracks changes without a repository: what changed in a volume since a manifest was written, with its bytes.
///
/// `manifest` is what is compared with; without it all that is not zero counts as changed. `write_manifest` gets the
/// manifest of what was read, and may be the same file; it is written when the last change was taken. `digest`,
/// `block_size` and `grain_size` (bytes, or a text such as "4MiB") hold without a manifest. All other arguments are those of
/// `Repository.backup`; `state` is the folder through which `blkdelta.limits` reaches this scan.
///
/// A change is never longer than a block. If a hint is proven wrong meanwhile, all is told again from the start, and the
/// report has an `alarm`.
///
/// Raises, from the iterator: `RefusedError` for a source that others write to, `IdentityMismatchError` (a `ValueError`)
/// for a manifest of another volume, `UnreadableError` and other `OSError`s of the device.
///
/// >>> changes = blkdelta.scan("db.img", write_manifest="db.manifest")
/// >>> sum(len(change.data) for change in changes) == changes.report.bytes_changed
/// True
/// >>> list(blkdelta.scan("db.img", manifest="db.manifest"))
/// []
#[pyfunction]
#[pyo3(
    signature = (source, **options),
    text_signature = "(source, *, manifest=None, write_manifest=None, digest='blake3', block_size='4MiB', \
        grain_size='8KiB', allow_live=False, new_identity=False, queue_depth=None, hints='auto', hint_sample='auto', \
        rescan_every=None, latency_target=None, bwlimit=None, iops_limit=None, write_limit=None, limit_at=(), \
        min_rate=None, full_speed=False, ionice=None, nice=None, cgroup=False, state=None, progress=None, cancel=None)"
)]
pub fn scan(source: PathBuf, options: Option<&Bound<'_, PyDict>>) -> PyResult<Changes> {
    let options = Options::new(options)?;
    let (scanning, running) = scan_options(source.clone(), &options)?;
    let watch = options.watch()?;
    options.finish()?;
    let core = CoreChanges::of_scan(scanning, &watch.progress, &watch.cancel).or_raise()?;
    let state = State { core: Some(core), report: None, told: Instant::now(), running: Some(running) };
    Ok(Changes { source, state: Mutex::new(state), watch })
}

/// The same without the bytes: the changed ranges as a list with a `report`, and if wanted a delta file.
///
/// `delta` is a file that gets what changed; `blkdelta.apply` puts it onto the image that the manifest was written of.
/// `compression` (none, lz4, zstd or zstd:LEVEL) is the delta's.
///
/// Raises what `scan` raises.
///
/// >>> ranges = blkdelta.scan_ranges("db.img", delta="db.delta")
/// >>> len(ranges), ranges[0]
/// (1, <ChangedRange data at 0, 1.0 MiB>)
#[pyfunction]
#[pyo3(
    signature = (source, **options),
    text_signature = "(source, *, manifest=None, write_manifest=None, delta=None, digest='blake3', block_size='4MiB', \
        grain_size='8KiB', compression='zstd:1', allow_live=False, new_identity=False, queue_depth=None, hints='auto', \
        hint_sample='auto', rescan_every=None, latency_target=None, bwlimit=None, iops_limit=None, write_limit=None, \
        limit_at=(), min_rate=None, full_speed=False, ionice=None, nice=None, cgroup=False, state=None, \
        progress=None, cancel=None)"
)]
pub fn scan_ranges(
    py: Python<'_>,
    source: PathBuf,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<ChangedRanges> {
    let options = Options::new(options)?;
    let (scanning, _running) = scan_options(source, &options)?;
    let delta: Option<PathBuf> = options.take("delta")?;
    let watch = options.watch()?;
    options.finish()?;
    let ranges = Mutex::new(Vec::new());
    let all = || ranges.lock().unwrap_or_else(PoisonError::into_inner);
    let report = watch.run(py, |progress, cancel| {
        let mut make =
            delta.as_ref().map(|path| || Ok(Box::new(FileReplacer::begin(path)?) as Box<dyn ObjectWriter>));
        let delta = make.as_mut().map(|make| make as &mut dyn FnMut() -> _);
        let mut on_range = |range| {
            all().push(range);
            Ok(())
        };
        let mut on_restart = || {
            all().clear();
            Ok(())
        };
        core_scan(&scanning, delta, &mut on_range, &mut on_restart, progress, cancel)
    })?;
    let report = record(py, "ScanReport", &report)?;
    Ok(ChangedRanges::new(ranges.into_inner().unwrap_or_else(PoisonError::into_inner), report))
}

fn scan_options(source: PathBuf, options: &Options<'_>) -> PyResult<(ScanOptions, Running)> {
    let running = limits::begin(options, &limits::state_folder(options.take("state")?)?)?;
    let scanning = ScanOptions {
        manifest: options.take("manifest")?,
        write_manifest: options.take("write_manifest")?,
        format: format_options(options)?,
        allow_live: options.flag("allow_live")?,
        new_identity: options.flag("new_identity")?,
        hints: options.hints()?,
        proof: options.proof()?,
        queue_depth: queue_depth(options)?,
        gentleness: running.gentleness.clone(),
        ..ScanOptions::new(source)
    };
    Ok((scanning, running))
}
