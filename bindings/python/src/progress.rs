//! Running the core beside Python: the core in a thread of its own, without the interpreter's lock; the calling thread
//! looks at signals and tells the progress.
//!
//! Whatever is raised meanwhile (Ctrl-C, an exception of the callback) sets the cancel token, waits for the core to stop,
//! which takes one block, and is raised then: when a call has ended, nothing of it goes on.
//! If the core ever called back into Python while the caller waits for it with the lock held, both would stand still; so
//! no callback runs in the core's thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use blkdelta_core::cancel::CancelToken as CoreToken;
use blkdelta_core::error::Result;
use blkdelta_core::progress::Progress as CoreProgress;
use blkdelta_core::units::format_size;
use pyo3::prelude::{Py, PyAny, PyResult, Python, pyclass, pymethods};

use crate::error::{OrRaise, internal};

/// How often signals are looked at and progress is told.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Asks a running call to stop, from another thread.
///
/// The call ends within a block and raises `CancelledError`. A token may be given to several calls.
///
/// >>> token = blkdelta.CancelToken()
/// >>> token.cancel()
/// >>> token.cancelled
/// True
#[pyclass(frozen, module = "blkdelta")]
#[derive(Default)]
pub struct CancelToken(CoreToken);

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Asks every call that has this token to stop.
    fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether it was asked.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn __repr__(&self) -> String {
        format!("<CancelToken cancelled={}>", if self.0.is_cancelled() { "True" } else { "False" })
    }
}

/// How far a call is; what a `progress=` function is given, at most 20 times a second and once in the end.
#[pyclass(frozen, get_all, module = "blkdelta")]
pub struct Progress {
    /// Bytes of the volume or range that will be passed.
    bytes_total: u64,
    /// Bytes passed so far, holes included.
    bytes_done: u64,
    /// Bytes found changed (in a restore: written) so far.
    bytes_changed: u64,
    /// Bytes stored so far.
    bytes_stored: u64,
    /// What slows the call down now, in a few words; empty when nothing does.
    note: String,
}

#[pymethods]
impl Progress {
    fn __repr__(&self) -> String {
        format!(
            "<Progress {} of {}, {} changed>",
            format_size(self.bytes_done),
            format_size(self.bytes_total),
            format_size(self.bytes_changed)
        )
    }
}

impl From<&CoreProgress> for Progress {
    fn from(progress: &CoreProgress) -> Self {
        Self {
            bytes_total: progress.bytes_total(),
            bytes_done: progress.bytes_done(),
            bytes_changed: progress.bytes_changed(),
            bytes_stored: progress.bytes_stored(),
            note: progress.note(),
        }
    }
}

/// Who is told of a call's progress, and what may stop it.
pub struct Watch {
    /// The core's counters.
    pub progress: CoreProgress,
    /// The call's own token, which the caller's token cancels too.
    pub cancel: CoreToken,
    callback: Option<Py<PyAny>>,
}

impl Watch {
    /// With the arguments `progress=` and `cancel=`.
    pub fn new(callback: Option<Py<PyAny>>, cancel: Option<&CancelToken>) -> Self {
        let cancel = cancel.map_or_else(CoreToken::new, |token| token.0.child());
        Self { progress: CoreProgress::new(), cancel, callback }
    }

    /// Runs `work` in a thread of its own until it ends.
    pub fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&CoreProgress, &CoreToken) -> Result<T> + Send,
    ) -> PyResult<T> {
        thread::scope(|scope| {
            let (ended, mut waiting) = channel::<()>();
            let worker = scope.spawn(move || {
                let _ended = ended; // dropped in the end, also by a panic: that wakes the calling thread
                work(&self.progress, &self.cancel)
            });
            let watched = self.until_ended(py, &mut waiting);
            if watched.is_err() {
                self.cancel.cancel();
            }
            let done = py.detach(|| worker.join());
            watched?;
            let done = done.map_err(|panic| internal(&*panic))?.or_raise()?;
            self.tell(py)?;
            Ok(done)
        })
    }

    fn until_ended(&self, py: Python<'_>, waiting: &mut Receiver<()>) -> PyResult<()> {
        loop {
            let waiting = &mut *waiting;
            match py.detach(move || waiting.recv_timeout(PATIENCE)) {
                Err(RecvTimeoutError::Timeout) => self.attend(py)?,
                _ => return Ok(()),
            }
        }
    }

    /// Looks at signals and tells the progress.
    pub fn attend(&self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()?;
        self.tell(py)
    }

    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(callback) = &self.callback {
            callback.call1(py, (Progress::from(&self.progress),))?;
        }
        Ok(())
    }
}
