//! What all long work shares: where local state is, limits, progress, cancelling.
//!
//! The work runs in a thread of its own while the calling thread waits, shows progress and hands on what was found: so all
//! callbacks come on the thread that made the call, and its priorities stay as they are. Trade-off: a callback is called
//! at the pace of the interval, and a cancel is obeyed one interval later at the latest, plus one block.
#![allow(unsafe_code)] // callbacks of C

use std::ffi::{c_char, c_int, c_void};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::{Error, Result};
use blkdelta_core::local_state;
use blkdelta_core::operations::RangeKind;
use blkdelta_core::operations::gentleness::{Gentleness, Wishes};
use blkdelta_core::operations::running::Running;
use blkdelta_core::progress::Progress;

use crate::error::c_text;
use crate::guard::Caller;
use crate::limits::{LimitOptions, wishes};
use crate::log;
use crate::options::extensible;

/// Findings on their way to the caller's callback.
const AHEAD: usize = 256;
const USUAL_INTERVAL_MS: u32 = 100;

/// How far a run has come. Belongs to the library; valid during the callback.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ProgressInfo {
    /// Size of this struct in the library that runs.
    pub struct_size: usize,
    /// Bytes of the volume or range that will be passed; grows or starts again when another pass begins.
    pub bytes_total: u64,
    /// Bytes passed so far.
    pub bytes_done: u64,
    /// Bytes found changed, or written by a restore.
    pub bytes_changed: u64,
    /// Bytes stored.
    pub bytes_stored: u64,
    /// What slows the run down now, in a few words; empty when nothing does. Never NULL.
    pub note: *const c_char,
}

/// Called a few times a second on the thread that made the call, and once in the end. A non-zero return cancels: the
/// call then ends with BLKDELTA_STATUS_CANCELLED. Must not throw, longjmp or close handles that the call uses.
pub type ProgressCallback =
    Option<unsafe extern "C" fn(user: *mut c_void, progress: *const ProgressInfo) -> c_int>;

/// What a range holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// Bytes that are not all zero.
    Data = 1,
    /// Zero.
    Zero = 2,
}

impl From<RangeKind> for Kind {
    fn from(kind: RangeKind) -> Self {
        match kind {
            RangeKind::Data => Self::Data,
            RangeKind::Zero => Self::Zero,
        }
    }
}

/// A range of the volume that changed. Belongs to the library; valid during the callback, or until the next call of the
/// iterator.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ChangedRange {
    /// Size of this struct in the library that runs.
    pub struct_size: usize,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Its bytes, as long as the struct itself is valid; NULL for a range that is zero now, and where only ranges are told.
    pub data: *const u8,
    /// Data or zero.
    pub kind: Kind,
}

impl ChangedRange {
    /// Without its bytes.
    pub fn new(offset: u64, length: u64, kind: RangeKind) -> Self {
        let data = ptr::null();
        Self { struct_size: size_of::<Self>(), offset, length, data, kind: kind.into() }
    }
}

/// Called for each changed range in the order of the volume, on the thread that made the call. A non-zero return cancels.
/// An offset that is not larger than the one before says that all is told again from the start, because a hint was
/// proven wrong: forget what was told. Must not throw, longjmp or close handles that the call uses.
pub type RangeCallback = Option<unsafe extern "C" fn(user: *mut c_void, range: *const ChangedRange) -> c_int>;

/// What all long work takes. NULL in its place gives all defaults.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RunOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Folder of the local state; NULL: BLKDELTA_STATE, as root /var/lib/blkdelta, else below the user's home.
    pub state: *const c_char,
    /// Limits; NULL: gentle to others, as the command is.
    pub limits: *const LimitOptions,
    /// Told how far it is; NULL: nobody is.
    pub on_progress: ProgressCallback,
    /// Handed to on_progress as it is.
    pub user: *mut c_void,
    /// Milliseconds between two calls of on_progress; 0: 100.
    pub progress_interval_ms: u32,
    /// Zero.
    pub reserved: [u8; 60],
}

extensible!(RunOptions, "blkdelta_run_options");

/// The options of a run, read and checked.
pub struct Run {
    state: PathBuf,
    wishes: Wishes,
    watcher: Watcher,
}

impl Run {
    /// Takes what the caller filled in.
    pub fn new(caller: &Caller, options: *const RunOptions) -> Result<Self> {
        let options = caller.options(options)?;
        let wishes = match options.limits.is_null() {
            true => Wishes::default(),
            false => wishes(caller, options.limits)?,
        };
        let state = caller.optional_path(options.state).map_or_else(local_state::default_folder, Ok)?;
        Ok(Self { state, wishes, watcher: Watcher::new(&options) })
    }

    /// The folder of the local state.
    pub fn state(&self) -> &PathBuf {
        &self.state
    }

    /// Registers limits that start from `usual`; the registration goes with the answer.
    pub fn begin(&self, usual: Gentleness) -> Result<Running> {
        Running::begin(&self.state, self.wishes.gentleness(usual)?)
    }

    /// Who is told how far it is.
    pub fn into_watcher(self) -> Watcher {
        self.watcher
    }

    /// Does the work while the caller's callbacks run here; `on_found` answers whether to go on.
    pub fn perform<T: Send, F: Send>(
        &mut self,
        work: impl FnOnce(&Work<F>) -> Result<T> + Send,
        mut on_found: impl FnMut(F) -> bool,
    ) -> Result<T> {
        let (found, findings) = sync_channel(AHEAD);
        let (progress, cancel) = (Progress::new(), CancelToken::new());
        let stop = log::stop();
        thread::scope(|scope| {
            let its = Work { progress: progress.clone(), cancel: cancel.clone(), found };
            let worker = thread::Builder::new().name("blkdelta".into());
            // Moved in, so that the channel closes when the work ends.
            let worker = worker
                .spawn_scoped(scope, move || {
                    let its = its;
                    work(&its)
                })
                .map_err(|source| Error::io("starting a thread", "", source))?;
            loop {
                let going = match findings.recv_timeout(self.watcher.interval) {
                    Ok(found) => cancel.is_cancelled() || on_found(found),
                    Err(RecvTimeoutError::Timeout) => true,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if !cancel.is_cancelled() && (!going || stop.is_cancelled() || !self.watcher.look(&progress))
                {
                    cancel.cancel();
                }
            }
            let done = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            if done.is_ok() {
                self.watcher.tell(&progress);
            }
            done
        })
    }
}

/// What the work is given.
pub struct Work<F> {
    /// Counters that the calling thread shows.
    pub progress: Progress,
    /// Set when a callback says so.
    pub cancel: CancelToken,
    found: SyncSender<F>,
}

impl<F> Work<F> {
    /// Hands something on to the calling thread.
    pub fn tell(&self, found: F) -> Result<()> {
        // It listens until the work has ended; once it was cancelled it only empties the channel.
        let _ = self.found.send(found);
        self.cancel.check()
    }
}

/// The caller's progress callback and when it is due.
pub struct Watcher {
    callback: ProgressCallback,
    user: AtomicPtr<c_void>,
    interval: Duration,
    last: Instant,
}

impl Watcher {
    fn new(options: &RunOptions) -> Self {
        let interval = match options.progress_interval_ms {
            0 => USUAL_INTERVAL_MS,
            interval => interval,
        };
        Self {
            callback: options.on_progress,
            user: AtomicPtr::new(options.user),
            interval: Duration::from_millis(u64::from(interval)),
            last: Instant::now(),
        }
    }

    /// How long to wait between two looks.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Tells how far it is when it is time to; answers whether to go on.
    pub fn look(&mut self, progress: &Progress) -> bool {
        if self.last.elapsed() < self.interval {
            return true;
        }
        self.last = Instant::now();
        self.tell(progress)
    }

    /// Tells how far it is; answers whether to go on.
    pub fn tell(&self, progress: &Progress) -> bool {
        let Some(callback) = self.callback else { return true };
        let note = c_text(progress.note());
        let info = ProgressInfo {
            struct_size: size_of::<ProgressInfo>(),
            bytes_total: progress.bytes_total(),
            bytes_done: progress.bytes_done(),
            bytes_changed: progress.bytes_changed(),
            bytes_stored: progress.bytes_stored(),
            note: note.as_ptr(),
        };
        // SAFETY: the caller gave this function for this call, and `info` lives until it returns.
        unsafe { callback(self.user.load(Ordering::Relaxed), &raw const info) == 0 }
    }
}

/// Calls the caller's callback for a range; answers whether to go on.
pub fn tell_range(callback: RangeCallback, user: *mut c_void, range: &ChangedRange) -> bool {
    let Some(callback) = callback else { return true };
    // SAFETY: the caller gave this function for this call, and `range` lives until it returns.
    unsafe { callback(user, range) == 0 }
}
