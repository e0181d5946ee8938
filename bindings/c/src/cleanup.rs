//! `cleanup`: what interrupted backups left is removed now.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::operations::cleanup::cleanup;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::run::{Run, RunOptions};

/// Removes what interrupted backups left: unfinished files, snapshots. The next backup of each volume would do the same.
///
/// `volume`: only this one (UTF-8); NULL: all. `run`: its state folder is used; NULL for the defaults. `json`: receives
/// what was done (`blkdelta cleanup --json`), freed with blkdelta_string_free(); NULL: not wanted.
/// BLKDELTA_STATUS_DOUBTFUL: a volume was left as it is, and `json` says why. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_cleanup(
    repository: *const RepositoryHandle,
    volume: *const c_char,
    run: *const RunOptions,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let repository = handle::object(repository)?;
        let volume = caller.optional_name("volume", volume)?;
        let run = Run::new(caller, run)?;
        let cleaned = cleanup(&repository, volume, run.state())?;
        caller.give_json(json, &cleaned)?;
        let all = cleaned.iter().all(|volume| volume.problem.is_none());
        Ok(if all { Status::Ok } else { Status::Doubtful })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
