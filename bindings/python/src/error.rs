//! The core's errors as Python's exceptions: each kind is a class of `blkdelta._errors`.
//!
//! A panic is a bug of ours. It becomes `InternalError` and not PyO3's `PanicException`, which no `except Exception` sees.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blkdelta_core::error::{Error, ErrorKind, Result};
use pyo3::call::PyCallArgs;
use pyo3::prelude::{PyAnyMethods, PyErr, PyResult, Python};

/// For `map_err`, and `?` on the core's results.
pub fn raise(error: &Error) -> PyErr {
    let place = error.place();
    make(
        class_of(error),
        (
            error.full_text(),
            error.next_step(),
            error.error_path().map(std::path::Path::as_os_str),
            place.map(|(offset, _)| offset),
            place.map(|(_, length)| length).filter(|length| *length > 0),
            error.raw_os_error(),
        ),
    )
}

/// Results of the core as results of a Python function.
pub trait OrRaise<T> {
    /// The value, or its error as an exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| raise(&error))
    }
}

/// Runs something short of the core on this thread, without the interpreter's lock.
pub fn run_briefly<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    // What the work leaves half changed when it panics is only its own: the core's values are locks and counters.
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    done.map_err(|panic| internal(&*panic))?.or_raise()
}

/// What the caller did wrong, found before the core was asked.
pub fn wrong_use(text: impl Into<String>, hint: &str) -> PyErr {
    raise(&Error::new(ErrorKind::WrongUse, text).hint(hint))
}

/// A thread of ours panicked with this.
pub fn internal(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    make("InternalError", (format!("a bug in blkdelta: {text}"), "please report it", (), (), (), ()))
}

fn make(class: &str, arguments: impl for<'py> PyCallArgs<'py>) -> PyErr {
    Python::attach(|py| {
        let made = py.import("blkdelta._errors").and_then(|module| module.getattr(class)?.call1(arguments));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}

fn class_of(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::WrongUse => "WrongUseError",
        ErrorKind::NoRepository => "NoRepositoryError",
        ErrorKind::Locked => "LockedError",
        ErrorKind::WrongKey => "WrongKeyError",
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::AlreadyExists => "AlreadyExistsError",
        ErrorKind::Refused => "RefusedError",
        ErrorKind::IdentityMismatch => "IdentityMismatchError",
        ErrorKind::WrongParent => "WrongParentError",
        ErrorKind::SourceChanged => "SourceChangedError",
        ErrorKind::SnapshotLost => "SnapshotLostError",
        ErrorKind::Unreadable => "UnreadableError",
        ErrorKind::RolledBack => "RolledBackError",
        ErrorKind::Damaged => "DamagedError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::NoSpace => "NoSpaceError",
        ErrorKind::Cancelled => "CancelledError",
        ErrorKind::Io if is_denied(error) => "AccessDeniedError",
        // `ErrorKind` may grow.
        ErrorKind::Io | _ => "IoError",
    }
}

/// Whether the operating system said that we may not (EPERM, EACCES).
fn is_denied(error: &Error) -> bool {
    let code = error.raw_os_error().map(std::io::Error::from_raw_os_error);
    code.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}
