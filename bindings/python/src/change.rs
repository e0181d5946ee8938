//! One change of a scan: a range and its bytes, which Python looks at where they are.
#![allow(unsafe_code)] // the buffer protocol; see the SAFETY comment

use std::ffi::c_int;

use blkdelta_core::operations::change::Change as CoreChange;
use blkdelta_core::units::format_size;
use pyo3::ffi;
use pyo3::prelude::{Bound, PyResult, pyclass, pymethods};
use pyo3::types::PyMemoryView;

use crate::block::fill_view;
use crate::ranges::kind_name;

/// A changed range with its bytes.
///
/// `data` is a read-only memoryview of them, made without a copy; it is empty where `kind` is `"zero"`. The change itself is
/// a buffer too: `numpy.frombuffer(change, dtype="u1")`.
#[pyclass(frozen, module = "blkdelta")]
pub struct Change(CoreChange);

impl From<CoreChange> for Change {
    fn from(change: CoreChange) -> Self {
        Self(change)
    }
}

#[pymethods]
impl Change {
    /// Where it starts, in bytes of the volume.
    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset
    }

    /// How many bytes changed.
    #[getter]
    fn length(&self) -> u64 {
        self.0.length
    }

    /// `"data"`, or `"zero"` where the volume reads as zeros now.
    #[getter]
    fn kind(&self) -> &'static str {
        kind_name(self.0.kind)
    }

    /// Its bytes as a read-only memoryview, not copied; empty when they are zero now.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    fn __repr__(&self) -> String {
        let length = format_size(self.0.length);
        format!("<Change {} at {}, {length}>", self.kind(), self.0.offset)
    }

    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().0.data();
        // SAFETY: `view` is the one that Python handed to this slot; the change holds the buffer that its bytes are in,
        // neither moves nor changes them, and `slf` is frozen and owns the change until it is freed.
        unsafe { fill_view(slf, bytes, view, flags) }
    }
}
