//! Changed ranges as a list: there may be millions, so each becomes an object only when somebody looks at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use blkdelta_core::operations::{ChangedRange as CoreRange, RangeKind};
use blkdelta_core::units::format_size;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::{Bound, Py, PyAny, PyResult, pyclass, pymethods};

/// A range of a volume that changed, in bytes.
#[pyclass(frozen, eq, hash, get_all, module = "blkdelta")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangedRange {
    /// Where it starts.
    offset: u64,
    /// How many bytes.
    length: u64,
    /// `"data"`, or `"zero"` where the volume reads as zeros now.
    kind: &'static str,
}

#[pymethods]
impl ChangedRange {
    /// The first byte behind it.
    #[getter]
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn __repr__(&self) -> String {
        let Self { offset, length, kind } = self;
        format!("<ChangedRange {kind} at {offset}, {}>", format_size(*length))
    }
}

impl From<&CoreRange> for ChangedRange {
    fn from(range: &CoreRange) -> Self {
        Self { offset: range.offset, length: range.length, kind: kind_name(range.kind) }
    }
}

/// Its name in Python, as in JSON.
pub fn kind_name(kind: RangeKind) -> &'static str {
    match kind {
        RangeKind::Data => "data",
        RangeKind::Zero => "zero",
    }
}

/// The changed ranges of a volume, in order: a sequence of `ChangedRange`, with the `report` of what was compared.
#[pyclass(frozen, module = "blkdelta")]
pub struct ChangedRanges {
    ranges: Arc<Vec<CoreRange>>,
    /// What was compared, and the totals.
    #[pyo3(get)]
    report: Py<PyAny>,
}

impl ChangedRanges {
    /// Of these ranges and their report.
    pub fn new(ranges: Vec<CoreRange>, report: Bound<'_, PyAny>) -> Self {
        Self { ranges: Arc::new(ranges), report: report.unbind() }
    }
}

#[pymethods]
impl ChangedRanges {
    fn __len__(&self) -> usize {
        self.ranges.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<ChangedRange> {
        let count = self.ranges.len();
        let index = if index < 0 { count.checked_add_signed(index) } else { usize::try_from(index).ok() };
        let range = index.and_then(|index| self.ranges.get(index)).map(ChangedRange::from);
        range.ok_or_else(|| PyIndexError::new_err("there are fewer ranges"))
    }

    fn __iter__(&self) -> RangeIterator {
        RangeIterator { ranges: Arc::clone(&self.ranges), next: AtomicUsize::new(0) }
    }

    fn __repr__(&self) -> String {
        let bytes: u64 = self.ranges.iter().map(|range| range.length).sum();
        format!("<ChangedRanges: {} with {}>", self.ranges.len(), format_size(bytes))
    }
}

/// One way through them.
#[pyclass(frozen)]
pub struct RangeIterator {
    ranges: Arc<Vec<CoreRange>>,
    next: AtomicUsize,
}

#[pymethods]
impl RangeIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<ChangedRange> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        self.ranges.get(index).map(ChangedRange::from)
    }
}
