//! Bytes that Rust owns and Python looks at without a copy: the buffer protocol, read-only.
//!
//! It rests on one thing: the bytes of a frozen object never move and never change while the object lives, and whoever
//! looks at them holds a reference to the object. If an object changed its bytes, Python would read freed memory.
#![allow(unsafe_code)] // the border to Python; see the SAFETY comments

use std::ffi::c_int;

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::{Bound, PyErr, PyResult, Python, pyclass, pymethods};
use pyo3::types::PyMemoryView;
use pyo3::{PyClass, ffi};

/// Bytes read from a backup.
#[pyclass(frozen, module = "blkdelta")]
pub struct Block(Vec<u8>);

#[pymethods]
impl Block {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().0.as_slice();
        // SAFETY: `view` is the one that Python handed to this slot; the bytes belong to `slf`, a frozen object that owns
        // them until it is freed and never changes them.
        unsafe { fill_view(slf, bytes, view, flags) }
    }
}

/// A memoryview of these bytes.
pub fn view_of(py: Python<'_>, bytes: Vec<u8>) -> PyResult<Bound<'_, PyMemoryView>> {
    PyMemoryView::from(Bound::new(py, Block(bytes))?.as_any())
}

/// Answers Python's request for a look at `bytes`, which belong to `owner`.
///
/// # Safety
/// `view` is the valid pointer that Python hands to `__getbuffer__`; `bytes` stay where they are, unchanged, as long as
/// `owner` lives.
pub unsafe fn fill_view<T: PyClass>(
    owner: &Bound<'_, T>,
    bytes: &[u8],
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    let length = isize::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("too long"))?;
    let start = bytes.as_ptr().cast_mut().cast();
    // SAFETY: see above; Python only reads, because the view is filled as read-only (a request to write is refused), and
    // it takes a reference to `owner` that it gives back with the view.
    let filled = unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), start, length, 1, flags) };
    if filled == 0 { Ok(()) } else { Err(PyErr::fetch(owner.py())) }
}
