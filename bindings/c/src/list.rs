//! `list`: the backups of a repository.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use crate::error::{Status, remember};
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;

/// Lists backups by volume and sequence: a JSON array of records as `blkdelta list --json`.
///
/// `volume`: only this one (UTF-8); NULL: all. `json`: receives a string that the caller frees with
/// blkdelta_string_free(). When a record cannot be read, the others are told with BLKDELTA_STATUS_DOUBTFUL, and
/// blkdelta_last_error() says which. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_list(
    repository: *const RepositoryHandle,
    volume: *const c_char,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("json", json)?;
        let volume = caller.optional_name("volume", volume)?;
        let catalog = handle::object(repository)?.catalog(volume)?;
        caller.give_json(json, &catalog.records)?;
        let Some(damaged) = catalog.damaged.first() else { return Ok(Status::Ok) };
        remember(damaged);
        Ok(Status::Doubtful)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
