//! The changed blocks of a scan with their bytes: pulled one by one, or pushed into a callback.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::operations::change::Change;
use blkdelta_core::operations::changes::{Changes, Waited};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::running::Running;
use blkdelta_core::operations::scan::ScanReport;
use blkdelta_core::progress::Progress;

use crate::error::{Status, wrong_use};
use crate::guard::{Caller, enter};
use crate::handle::{self, Handle};
use crate::log;
use crate::run::{ChangedRange, RangeCallback, Run, RunOptions, Watcher, tell_range};
use crate::scan::{self, ScanOptions};
use crate::summary::Summary;

/// A pass over a volume that tells what changed. Used by one thread at a time; closed once, by blkdelta_changes_close().
pub struct ChangesHandle;

impl Handle for ChangesHandle {
    type Object = Mutex<Pass>;
    const NAME: &'static str = "iterator over changes";
}

/// A scan that is pulled, and what was told last.
pub struct Pass {
    changes: Changes,
    told: Option<Told>,
    progress: Progress,
    cancel: CancelToken,
    stop: CancelToken,
    watcher: Watcher,
    _running: Running,
}

/// The change whose bytes the caller may look at, in the form that C sees.
struct Told {
    change: Change,
    range: ChangedRange,
}

// SAFETY: the pointer in `range` is into the bytes that `change` holds, which may be read by any thread.
unsafe impl Send for Told {}

impl Pass {
    fn new(caller: &Caller, options: *const ScanOptions, run: *const RunOptions) -> Result<Self> {
        let options = caller.options(options)?;
        if !options.delta.is_null() || options.delta_fd != 0 {
            return Err(wrong_use("a delta is written by blkdelta_scan(), not beside the changes"));
        }
        let run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let wanted = options.for_core(caller, running.gentleness.clone())?;
        let (progress, cancel) = (Progress::new(), CancelToken::new());
        let changes = Changes::of_scan(wanted, &progress, &cancel)?;
        let (stop, watcher) = (log::stop(), run.into_watcher());
        Ok(Self { changes, told: None, progress, cancel, stop, watcher, _running: running })
    }

    /// The next change, or NULL at the end.
    fn next(&mut self) -> Result<*const ChangedRange> {
        self.told = None;
        loop {
            self.cancel.check()?;
            let waited = self.changes.next_within(self.watcher.interval())?;
            if matches!(waited, Waited::End) {
                self.watcher.tell(&self.progress);
                return Ok(std::ptr::null());
            }
            if self.stop.is_cancelled() || !self.watcher.look(&self.progress) {
                self.cancel.cancel();
            } else if let Waited::Change(change) = waited {
                return Ok(self.tell(change));
            }
        }
    }

    fn tell(&mut self, change: Change) -> *const ChangedRange {
        let mut range = ChangedRange::new(change.offset, change.length, change.kind);
        let told = self.told.insert(Told { change, range });
        // Taken after the move, so that it points to where the bytes stay.
        let data = told.change.data();
        if !data.is_empty() {
            range.data = data.as_ptr();
        }
        told.range = range;
        &raw const told.range
    }

    fn report(&self) -> Result<&ScanReport> {
        self.changes.report().ok_or_else(|| {
            wrong_use("not all changes were told yet")
                .hint("ask for changes until there is none, then for the report")
        })
    }
}

fn pass(pass: &Mutex<Pass>) -> MutexGuard<'_, Pass> {
    pass.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a scan whose changes are pulled with their bytes: blkdelta_changes_next() until it tells NULL, then
/// blkdelta_changes_report() if wanted, then blkdelta_changes_close().
///
/// `options`: as for blkdelta_scan(), without a delta. `run`: NULL for the defaults; on_progress is called by
/// blkdelta_changes_next(), and its `user` has to live until the iterator is closed. `changes`: receives the handle. Any
/// thread. A source or manifest that cannot be used may be told here or by the first blkdelta_changes_next().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_changes_open(
    options: *const ScanOptions,
    run: *const RunOptions,
    changes: *mut *mut ChangesHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("changes", changes)?;
        let pass = Pass::new(caller, options, run)?;
        caller.give(changes, handle::open::<ChangesHandle>(Mutex::new(pass)));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Tells the next changed range with its bytes, waiting for it; a range never spans two blocks of the volume.
///
/// `range`: receives a pointer that belongs to the library and is valid until the next call with this iterator, or NULL
/// when all was told. Only then the new manifest gets its name: what a program did not ask beyond is told again by its next
/// scan. An offset that is not larger than the one before says that all is told again from the start, because a
/// hint was proven wrong. After a failure there are no more changes. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_changes_next(
    changes: *mut ChangesHandle,
    range: *mut *const ChangedRange,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("range", range)?;
        let object = handle::object(changes.cast_const())?;
        caller.give(range, pass(&object).next()?);
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Tells what the scan did, once blkdelta_changes_next() has told NULL: `summary` and `json` as for blkdelta_scan(), and
/// the same status. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_changes_report(
    changes: *const ChangesHandle,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let object = handle::object(changes)?;
        let pass = pass(&object);
        let report = pass.report()?;
        caller.give_json(json, report)?;
        caller.give_summary(&place, scan::summary(report));
        Ok(scan::status(report))
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Closes an iterator; before its end this cancels the scan, and its new manifest is not made. NULL is fine; a handle that
/// was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_changes_close(changes: *mut ChangesHandle) -> Status {
    // SAFETY: a handle is never followed.
    unsafe { enter(|_| handle::close(changes.cast_const()).map(|()| Status::Ok)) }
}

/// The same as a loop of the library's: `on_range` is told each changed range with its bytes, valid during the callback.
///
/// The other arguments and the result are those of blkdelta_scan(). When the callback cancels, the new manifest is not
/// made, also not at the last range. Any thread; returns when all is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_changes_each(
    options: *const ScanOptions,
    run: *const RunOptions,
    on_range: RangeCallback,
    user: *mut c_void,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        if on_range.is_none() {
            return Err(wrong_use("on_range is NULL"));
        }
        let place = caller.summary(summary)?;
        let mut pass = Pass::new(caller, options, run)?;
        loop {
            let range = pass.next()?;
            let Some(told) = pass.told.as_ref().filter(|_| !range.is_null()) else { break };
            if !tell_range(on_range, user, &told.range) {
                return Err(Error::new(ErrorKind::Cancelled, "a callback has cancelled the scan"));
            }
        }
        let report = pass.report()?;
        caller.give_json(json, report)?;
        caller.give_summary(&place, scan::summary(report));
        Ok(scan::status(report))
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
