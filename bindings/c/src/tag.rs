//! `tag`: labels of a backup are changed.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::show::resolve;

/// Gives a backup tags and takes some away. One with the tag "pin" is never pruned, and stays in a merge.
///
/// `id`, `volume`: as for blkdelta_show(). `add`, `remove`: so many tags (UTF-8); NULL with a count of 0. `json`: receives
/// all its tags as a JSON array, freed with blkdelta_string_free(); NULL: not wanted. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_tag(
    repository: *const RepositoryHandle,
    id: *const c_char,
    volume: *const c_char,
    add: *const *const c_char,
    add_count: usize,
    remove: *const *const c_char,
    remove_count: usize,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let repository = handle::object(repository)?;
        let (add, remove) =
            (caller.names("add", add, add_count)?, caller.names("remove", remove, remove_count)?);
        let record = resolve(caller, &repository, id, volume, std::ptr::null())?;
        let tags = repository.change_tags(&record, &add, &remove)?;
        caller.give_json(json, &tags)?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
