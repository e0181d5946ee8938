//! `show`: one backup, and how all verbs name one.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::repository::Repository;
use jiff::Timestamp;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::summary::Summary;

/// The backup that is meant: `id` of `volume`, of what was taken at `at` or before.
pub fn resolve(
    caller: &Caller,
    repository: &Repository,
    id: *const c_char,
    volume: *const c_char,
    at: *const c_char,
) -> Result<BackupRecord> {
    let (id, volume) = (caller.name("id", id)?, caller.optional_name("volume", volume)?);
    let time = |text: &str| {
        text.parse::<Timestamp>().map_err(|source| {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not a time"))
                .because(source)
                .hint("write it as in 2026-11-21T14:00:00Z (RFC 3339)")
        })
    };
    let at = caller.optional_name("at", at)?.map(time).transpose()?;
    repository.resolve(id, volume, at)
}

/// Shows one backup: its record as `blkdelta show --json`.
///
/// `id`: the beginning of an id, "latest" or "latest~N". `volume`: what latest is of; NULL when there is only one.
/// `summary`: its numbers; NULL: not wanted. `json`: receives the record, freed with blkdelta_string_free(); NULL: not
/// wanted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_show(
    repository: *const RepositoryHandle,
    id: *const c_char,
    volume: *const c_char,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let record = resolve(caller, &repository, id, volume, std::ptr::null())?;
        caller.give_json(json, &record)?;
        caller.give_summary(&place, Summary::of_record(&record));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
