//! `apply`: a delta onto the image it was taken against.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::operations::apply::apply;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::run::{Run, RunOptions};
use crate::summary::Summary;

/// Puts a delta from blkdelta_scan() onto the image that it was taken against; any other is refused before its first
/// byte is written. May be repeated after a crash.
///
/// `delta`: the delta file. `target`: device or file. `force`: not 0: overwrite a target that holds something, when the
/// delta is a full one. `run`: NULL for the defaults; its limits are not used. `summary`, `json`: the report (`blkdelta
/// apply --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_apply(
    delta: *const c_char,
    target: *const c_char,
    force: u32,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let (delta, target) = (caller.path("delta", delta)?, caller.path("target", target)?);
        let mut run = Run::new(caller, run)?;
        let report = run.perform(
            |work| apply(&delta, &target, force != 0, &work.progress, &work.cancel),
            |(): ()| true,
        )?;
        caller.give_json(json, &report)?;
        let summary = Summary {
            size_bytes: report.size_bytes,
            bytes_written: report.bytes_written,
            duration_s: report.duration_s,
            root_proven: 1,
            ..Summary::new()
        };
        caller.give_summary(&place, summary);
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
