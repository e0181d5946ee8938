//! `verify`: is what is stored whole?
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::error::{Error, Result};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::verify::verify;
use blkdelta_core::repository::Repository;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::extensible;
use crate::run::{Run, RunOptions};
use crate::summary::Summary;

/// What a verification takes; the names are those of the command's flags.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct VerifyOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Backups, named as for blkdelta_show(); all unless given.
    pub ids: *const *const c_char,
    /// How many they are.
    pub id_count: usize,
    /// Only this volume (UTF-8); NULL: all.
    pub volume: *const c_char,
    /// Not 0: read every byte and prove each volume's root.
    pub data: u32,
    /// Zero.
    pub reserved: [u8; 36],
}

extensible!(VerifyOptions, "blkdelta_verify_options");

/// The backups that are meant, and the records that cannot be read.
fn wanted(
    caller: &Caller,
    repository: &Repository,
    options: &VerifyOptions,
) -> Result<(Vec<BackupRecord>, Vec<Error>)> {
    let volume = caller.optional_name("volume", options.volume)?;
    let ids = caller.names("ids", options.ids, options.id_count)?;
    if ids.is_empty() {
        let catalog = repository.catalog(volume)?;
        return Ok((catalog.records, catalog.damaged));
    }
    let records = ids.iter().map(|id| repository.resolve(id, volume, None)).collect::<Result<_>>()?;
    Ok((records, Vec::new()))
}

/// Checks what is stored. Damage is no failure of the call: it is BLKDELTA_STATUS_DAMAGE_FOUND and stands in the report.
///
/// `options`: NULL for all backups without their data. `run`: NULL for the defaults. `summary`, `json`: the report
/// (`blkdelta verify --json`), freed with blkdelta_string_free(); NULL: not wanted. Any thread; returns when all is
/// done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_verify(
    repository: *const RepositoryHandle,
    options: *const VerifyOptions,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let options = caller.options(options)?;
        let (records, damaged) = wanted(caller, &repository, &options)?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let (data, gentle) = (options.data != 0, &running.gentleness);
        let report = run.perform(
            |work| verify(&repository, &records, &damaged, data, gentle, &work.progress, &work.cancel),
            |(): ()| true,
        )?;
        caller.give_json(json, &report)?;
        let summary = Summary {
            problems: report.problems.len() as u64,
            backups_checked: report.backups_checked,
            throttled_s: report.throttled_s,
            ..Summary::new()
        };
        caller.give_summary(&place, summary);
        Ok(if report.ok { Status::Ok } else { Status::DamageFound })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
