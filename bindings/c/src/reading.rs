//! Reads at any place of a backup, for programs that show one as a device or search in it.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::operations::reading::BackupReader;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle::{self, Handle};
use crate::init::RepositoryHandle;
use crate::show::resolve;

/// An open backup. May be used by any number of threads at once; closed once, by blkdelta_reader_close().
pub struct ReaderHandle;

impl Handle for ReaderHandle {
    type Object = BackupReader;
    const NAME: &'static str = "reader of a backup";
}

/// Opens a backup for reads at any place. The table of digests is proven here; each block is proven when it is read.
///
/// `id`, `volume`: as for blkdelta_show(); `at`: of what was taken at this time or before (RFC 3339), or NULL. `reader`:
/// receives the handle, closed with blkdelta_reader_close(). The repository may be closed before it. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_reader_open(
    repository: *const RepositoryHandle,
    id: *const c_char,
    volume: *const c_char,
    at: *const c_char,
    reader: *mut *mut ReaderHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("reader", reader)?;
        let repository = handle::object(repository)?;
        let record = resolve(caller, &repository, id, volume, at)?;
        let opened = BackupReader::open(&repository, &record)?;
        caller.give(reader, handle::open::<ReaderHandle>(opened));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Tells the bytes of the volume. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_reader_size(reader: *const ReaderHandle, size: *mut u64) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("size", size)?;
        caller.give(size, handle::object(reader)?.size());
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Reads `length` bytes from `offset` into `buffer`, all or none; whatever is handed out was proven. Bytes beyond the end are
/// BLKDELTA_STATUS_WRONG_USE. After a failure the buffer may hold anything. Any thread, also several at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_reader_read(
    reader: *const ReaderHandle,
    offset: u64,
    buffer: *mut u8,
    length: usize,
) -> Status {
    let work = |caller: &Caller| {
        let reader = handle::object(reader)?;
        caller.fill(buffer, length, |bytes| reader.read_at(offset, bytes))?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Closes a reader. NULL is fine; a handle that was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_reader_close(reader: *mut ReaderHandle) -> Status {
    // SAFETY: a handle is never followed.
    unsafe { enter(|_| handle::close(reader.cast_const()).map(|()| Status::Ok)) }
}
