//! `merge`: neighbouring backups of a chain become one, inside the repository.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;
use std::ptr;

use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, merge};

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::run::{Run, RunOptions};
use crate::show::resolve;
use crate::summary::Summary;

/// Merges the backups from `first` to `last` into one, without the volume. The state of `last` stays, under its id too;
/// those before it go, unless others build on them. Failed or cancelled, nothing was changed.
///
/// `first`, `last`: named as for blkdelta_show(); `first` NULL: the full that `last` builds on, and the result is a full.
/// `volume`: what latest is of (UTF-8), or NULL. `compression`: of what is encoded anew, such as "zstd:3"; NULL: the
/// repository's. `run`: NULL for the defaults. `summary`, `json`: the report (`blkdelta merge --json`), freed with
/// blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_merge(
    repository: *const RepositoryHandle,
    first: *const c_char,
    last: *const c_char,
    volume: *const c_char,
    compression: *const c_char,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let record = |id| resolve(caller, &repository, id, volume, ptr::null());
        let (last, first) = (record(last)?, (!first.is_null()).then(|| record(first)).transpose()?);
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let options = MergeOptions {
            last,
            first,
            compression: caller.parsed("compression", compression)?,
            gentleness: running.gentleness.clone(),
            state: run.state().clone(),
        };
        let report =
            run.perform(|work| merge(&repository, &options, &work.progress, &work.cancel), |(): ()| true)?;
        caller.give_json(json, &report)?;
        caller.give_summary(&place, Summary::of_record(&report.record));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
