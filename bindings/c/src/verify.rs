//! `verify`: is what is stored whole?
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::verify::{VerifyOptions as CoreOptions, verify, wanted};

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::{extensible, unknown_option};
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
    pub zero: u32,
    /// Prove this much of what is stored, that whose last proof is oldest, such as "5%" or "20GiB"; NULL: no sample.
    pub sample: *const c_char,
    /// Zero.
    pub reserved: [u8; 24],
}

extensible!(VerifyOptions, "blkdelta_verify_options");

/// Checks what is stored: without `ids` also tags, key slots and the audit log, and whether the repository went back to an
/// older state since this host last saw it. Damage is no failure of the call: it is BLKDELTA_STATUS_DAMAGE_FOUND and stands
/// in the report. BLKDELTA_STATUS_DOUBTFUL: nothing is damaged, but a newer version wrote some of it.
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
        if options.zero != 0 {
            return Err(unknown_option("blkdelta_verify_options"));
        }
        let ids = caller.names("ids", options.ids, options.id_count)?;
        let (records, wrong) = wanted(&repository, &ids, caller.optional_name("volume", options.volume)?)?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let options = CoreOptions {
            data: options.data != 0,
            sample: caller.parsed("sample", options.sample)?,
            state: Some(run.state().clone()),
            gentleness: running.gentleness.clone(),
        };
        let report = run.perform(
            |work| verify(&repository, &records, &wrong, &options, &work.progress, &work.cancel),
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
        Ok(match report.ok {
            true => Status::Ok,
            false if report.is_damaged() => Status::DamageFound,
            false => Status::Doubtful,
        })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
