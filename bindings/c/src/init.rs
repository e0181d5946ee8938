//! `init`, and opening and closing repositories.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::error::Result;
use blkdelta_core::repository::{InitOptions, Repository};

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle::{self, Handle};
use crate::options::extensible;

/// An open repository. May be used by any number of threads at once; closed once, by blkdelta_repository_close().
pub struct RepositoryHandle;

impl Handle for RepositoryHandle {
    type Object = Repository;
    const NAME: &'static str = "repository";
}

/// How volumes are cut, digested and compressed; what is NULL or 0 is the command's default.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FormatOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// "blake3", "sha256" or "xxh3".
    pub digest: *const c_char,
    /// "none", "lz4", "zstd" or "zstd:LEVEL".
    pub compression: *const c_char,
    /// Unit of reading in bytes, 64 KiB to 64 MiB.
    pub block_size: u32,
    /// Unit of change in bytes, 4 KiB to 64 KiB.
    pub grain_size: u32,
    /// Zero.
    pub reserved: [u8; 32],
}

extensible!(FormatOptions, "blkdelta_format_options");

/// For the library.
pub fn format(caller: &Caller, options: *const FormatOptions) -> Result<InitOptions> {
    let options = caller.options(options)?;
    let usual = InitOptions::default();
    let or_usual = |size: u32, usual: u32| if size == 0 { usual } else { size };
    Ok(InitOptions {
        digest: caller.parsed("digest", options.digest)?.unwrap_or(usual.digest),
        compression: caller.parsed("compression", options.compression)?.unwrap_or(usual.compression),
        block_size: or_usual(options.block_size, usual.block_size),
        grain_size: or_usual(options.grain_size, usual.grain_size),
    })
}

/// Makes a repository in a directory, which is made too, and opens it.
///
/// `path`: the directory. `format`: NULL for the defaults. `json`: receives the configuration (`blkdelta init --json`),
/// freed with blkdelta_string_free(); NULL: not wanted. `repository`: receives the handle, closed with
/// blkdelta_repository_close(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_init(
    path: *const c_char,
    format: *const FormatOptions,
    json: *mut *mut c_char,
    repository: *mut *mut RepositoryHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("repository", repository)?;
        let options = self::format(caller, format)?;
        let made = Repository::init_local(&caller.path("path", path)?, options)?;
        caller.give_json(json, made.config())?;
        caller.give(repository, handle::open::<RepositoryHandle>(made));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Opens the repository in a directory.
///
/// `repository`: receives the handle, closed with blkdelta_repository_close(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_repository_open(
    path: *const c_char,
    repository: *mut *mut RepositoryHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("repository", repository)?;
        let opened = Repository::open_local(&caller.path("path", path)?)?;
        caller.give(repository, handle::open::<RepositoryHandle>(opened));
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Closes a repository. Calls that still use it in other threads end as usual, and so do readers that came from it. NULL
/// is fine; a handle that was closed before is BLKDELTA_STATUS_WRONG_USE. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_repository_close(repository: *mut RepositoryHandle) -> Status {
    // SAFETY: a handle is never followed.
    unsafe { enter(|_| handle::close(repository.cast_const()).map(|()| Status::Ok)) }
}
