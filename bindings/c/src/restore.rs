//! `restore`: a backup onto a device, into a file or a stream.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;
use std::ops::Range;
use std::path::Path;

use blkdelta_core::error::Result;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::restore::{
    RestoreOptions as CoreOptions, RestoreReport, RestoreTarget, restore,
};

use crate::error::{Status, wrong_use};
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::extensible;
use crate::run::{Run, RunOptions};
use crate::show::resolve;
use crate::summary::Summary;

/// What a restore takes; the names are those of the command's flags. Only `target` or `target_fd` must be set.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RestoreOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Block device or file; NULL: into target_fd.
    pub target: *const c_char,
    /// What latest is of (UTF-8); NULL when the repository has one volume.
    pub volume: *const c_char,
    /// Of what was taken at this time or before (RFC 3339); NULL: of all.
    pub at: *const c_char,
    /// Only the bytes from here on, at their own offset.
    pub range_offset: u64,
    /// So many bytes; 0: the whole volume.
    pub range_length: u64,
    /// Write into this open file, from front to back, such as a pipe; a range is then written alone. Stays the caller's.
    pub target_fd: i32,
    /// Not 0: read the target and write only what differs.
    pub in_place: u32,
    /// Not 0: overwrite a target that holds something.
    pub force: u32,
    /// Not 0: read the target again afterwards and prove the root on it.
    pub read_back: u32,
    /// Not 0: restore what can be proven; what is damaged is left out and stands in the report as missing.
    pub skip_damaged: u32,
    /// Not 0: go on where an interrupted restore of this backup onto this target was.
    pub resume: u32,
    /// Zero.
    pub reserved: [u8; 56],
}

extensible!(RestoreOptions, "blkdelta_restore_options");

impl RestoreOptions {
    fn for_core(&self, caller: &Caller, state: &Path, gentleness: Gentleness) -> Result<CoreOptions> {
        let target = match (caller.optional_path(self.target), self.target_fd) {
            (Some(path), 0) => RestoreTarget::Path(path),
            (Some(_), _) => return Err(wrong_use("both target and target_fd are set")),
            (None, fd) => RestoreTarget::Stream(caller.file("target_fd", fd)?),
        };
        Ok(CoreOptions {
            target,
            range: self.range()?,
            in_place: self.in_place != 0,
            force: self.force != 0,
            read_back: self.read_back != 0,
            skip_damaged: self.skip_damaged != 0,
            resume: self.resume != 0,
            state: Some(state.to_owned()),
            gentleness,
        })
    }

    fn range(&self) -> Result<Option<Range<u64>>> {
        match (self.range_offset, self.range_length) {
            (0, 0) => Ok(None),
            (_, 0) => Err(wrong_use("range_offset is set, and range_length is not")),
            (offset, length) => {
                let end = offset.checked_add(length);
                end.map(|end| Some(offset..end)).ok_or_else(|| wrong_use("the range is too long"))
            }
        }
    }
}

/// Restores a backup; every block is proven before it is written. Others on the target's device are taken care of only
/// if run->limits has a latency_target, because somebody waits for a restore.
///
/// `id`: the beginning of an id, "latest" or "latest~N". `run`: NULL for the defaults. `summary`, `json`: the report
/// (`blkdelta restore --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is
/// done. Cancelled or failed, the target is incomplete: restore it again with resume, and only the rest is written.
/// BLKDELTA_STATUS_DOUBTFUL: with skip_damaged something is missing; summary->problems counts the ranges.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_restore(
    repository: *const RepositoryHandle,
    id: *const c_char,
    options: *const RestoreOptions,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let options = caller.options(options)?;
        let record = resolve(caller, &repository, id, options.volume, options.at)?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::full_speed())?;
        let wanted = options.for_core(caller, run.state(), running.gentleness.clone())?;
        let report = run.perform(
            |work| restore(&repository, &record, &wanted, &work.progress, &work.cancel),
            |(): ()| true,
        )?;
        caller.give_json(json, &report)?;
        let summary = Summary { sequence: record.sequence, ..self::summary(&report) };
        caller.give_summary(&place, summary);
        Ok(if report.missing.is_empty() { Status::Ok } else { Status::Doubtful })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

fn summary(report: &RestoreReport) -> Summary {
    Summary {
        size_bytes: report.size_bytes,
        bytes_written: report.bytes_written,
        duration_s: report.duration_s,
        throttled_s: report.throttled_s,
        root_proven: u32::from(report.root_proven),
        problems: report.missing.len() as u64,
        ..Summary::new()
    }
    .with_id(&report.backup_id.to_string())
}
