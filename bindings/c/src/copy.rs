//! `copy`: backups into another repository.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::error::Result;
use blkdelta_core::operations::copy::{CopyOptions as CoreOptions, copy};
use blkdelta_core::operations::gentleness::Gentleness;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::extensible;
use crate::run::{Run, RunOptions};
use crate::summary::Summary;

/// What a copy takes; the names are those of the command's flags.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CopyOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Backups, named as for blkdelta_show(), with what they build on; all unless given.
    pub ids: *const *const c_char,
    /// How many they are.
    pub id_count: usize,
    /// Only this volume (UTF-8); NULL: all.
    pub volume: *const c_char,
    /// Not 0: read each file again there and compare its digest.
    pub read_back: u32,
    /// Not 0: only say what would be copied.
    pub dry_run: u32,
    /// Zero.
    pub reserved: [u8; 64],
}

extensible!(CopyOptions, "blkdelta_copy_options");

/// Copies backups from one repository into another: the same ids, the same records, proven while they are read. What is
/// there already is left alone. Cancelled or failed, what was copied stays: copy again for the rest.
///
/// `from`, `to`: of the same block size, grain size and digest, each with its own key. `options`: NULL for all backups.
/// `run`: NULL for the defaults. `summary`, `json`: the report (`blkdelta copy --json`), freed with
/// blkdelta_string_free(); NULL: not wanted. BLKDELTA_STATUS_DOUBTFUL: some could not be copied, and `json` says why. Any
/// thread; returns when all is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_copy(
    from: *const RepositoryHandle,
    to: *const RepositoryHandle,
    options: *const CopyOptions,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let (from, to) = (handle::object(from)?, handle::object(to)?);
        let options = caller.options(options)?;
        let volume = caller.optional_name("volume", options.volume)?;
        let ids = caller.names("ids", options.ids, options.id_count)?;
        let chosen = ids.iter().map(|id| from.resolve(id, volume, None)).collect::<Result<_>>()?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let wanted = CoreOptions {
            chosen,
            volume: volume.map(str::to_owned),
            read_back: options.read_back != 0,
            dry_run: options.dry_run != 0,
            gentleness: running.gentleness.clone(),
        };
        let report =
            run.perform(|work| copy(&from, &to, &wanted, &work.progress, &work.cancel), |(): ()| true)?;
        caller.give_json(json, &report)?;
        let summary = Summary {
            bytes_written: report.bytes_copied,
            problems: report.problems.len() as u64,
            duration_s: report.duration_s,
            throttled_s: report.throttled_s,
            ..Summary::new()
        };
        caller.give_summary(&place, summary);
        Ok(if report.problems.is_empty() { Status::Ok } else { Status::Doubtful })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
