//! `apply`: a delta from a scan onto the image it was taken against.

use std::path::PathBuf;

use blkdelta_core::operations::apply::apply as core_apply;
use pyo3::prelude::{Bound, Py, PyAny, PyResult, Python, pyfunction};

use crate::progress::{CancelToken, Watch};
use crate::records::record;

/// Puts a delta of `scan_ranges` onto the device or file that holds the state it was taken against.
///
/// The whole target is proven before its first byte is written, and again afterwards; applying twice does no harm. `force`
/// overwrites a target that holds something, when the delta is a full one.
///
/// Raises `WrongParentError` (a `ValueError`) for any other target, `DamagedError` for a delta that does not prove.
///
/// >>> ranges = blkdelta.scan_ranges("db.img", delta="full.delta")
/// >>> blkdelta.apply("full.delta", "copy.img").bytes_written
/// 8388608
#[pyfunction]
#[pyo3(signature = (delta, target, *, force = false, progress = None, cancel = None))]
#[allow(clippy::needless_pass_by_value)] // as Python hands them over
pub fn apply<'py>(
    py: Python<'py>,
    delta: PathBuf,
    target: PathBuf,
    force: bool,
    progress: Option<Py<PyAny>>,
    cancel: Option<&CancelToken>,
) -> PyResult<Bound<'py, PyAny>> {
    let done = Watch::new(progress, cancel)
        .run(py, |progress, cancel| core_apply(&delta, &target, force, progress, cancel))?;
    record(py, "ApplyReport", &done)
}
