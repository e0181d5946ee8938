//! `diff`: the changed ranges between two backups of a volume.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::{c_char, c_void};

use blkdelta_core::operations::diff::diff;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::run::{ChangedRange, RangeCallback, Run, RunOptions, tell_range};
use crate::show::resolve;
use crate::summary::Summary;

/// Tells the ranges that differ between two backups of a volume; no data is read.
///
/// `from`, `to`: the older and the newer side, named as for blkdelta_show(). `volume`: what latest is of (UTF-8), or
/// NULL. `run`: NULL for the defaults. `on_range`: told each range (its data is NULL), with `user`; NULL: nobody is.
/// `summary`, `json`: the totals (`blkdelta diff --json` without its ranges), freed with blkdelta_string_free(); NULL: not
/// wanted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_diff(
    repository: *const RepositoryHandle,
    from: *const c_char,
    to: *const c_char,
    volume: *const c_char,
    run: *const RunOptions,
    on_range: RangeCallback,
    user: *mut c_void,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let older = resolve(caller, &repository, from, volume, std::ptr::null())?;
        let newer = resolve(caller, &repository, to, volume, std::ptr::null())?;
        let mut run = Run::new(caller, run)?;
        let report = run.perform(
            |work| diff(&repository, &older, &newer, &mut |range| work.tell(range), &work.cancel),
            |found: blkdelta_core::operations::ChangedRange| {
                tell_range(on_range, user, &ChangedRange::new(found.offset, found.length, found.kind))
            },
        )?;
        caller.give_json(json, &report)?;
        let summary = Summary {
            size_bytes: report.size_bytes,
            blocks_changed: report.blocks_changed,
            bytes_changed: report.bytes_changed,
            ..Summary::new()
        };
        caller.give_summary(&place, summary);
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
