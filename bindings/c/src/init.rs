//! `init`, and opening and closing repositories.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;
use std::sync::Arc;

use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::Result;
use blkdelta_core::local_state::default_folder;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::storage::{self, Storage};

use crate::error::{Status, wrong_use};
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

fn give_made(
    caller: &Caller,
    made: Repository,
    json: *mut *mut c_char,
    repository: *mut *mut RepositoryHandle,
) -> Result<Status> {
    caller.give_json(json, made.config())?;
    give(caller, made, repository);
    Ok(Status::Ok)
}

/// Without a folder for local state nothing is remembered.
fn give(caller: &Caller, opened: Repository, repository: *mut *mut RepositoryHandle) {
    let opened = match default_folder() {
        Ok(state) => opened.remembering(&state),
        Err(_) => opened,
    };
    caller.give(repository, handle::open::<RepositoryHandle>(opened));
}

fn storage(caller: &Caller, path: *const c_char) -> Result<Arc<dyn Storage>> {
    storage::at(caller.path("path", path)?)
}

/// The passphrase that was given, else what the environment names.
fn secret(caller: &Caller, passphrase: *const c_char) -> Result<Option<Secret>> {
    match caller.optional_name("passphrase", passphrase)? {
        Some(text) => Secret::passphrase(text.as_bytes()).map(Some),
        None => Secret::from_environment(),
    }
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
        let made = Repository::init_at(caller.path("path", path)?, options)?;
        give_made(caller, made, json, repository)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Makes an encrypted repository in a directory, and opens it.
///
/// `passphrase`: opens it from now on; NULL: what the environment names (see blkdelta_repository_open()), which must name
/// something then. The rest as for blkdelta_init(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_init_encrypted(
    path: *const c_char,
    format: *const FormatOptions,
    passphrase: *const c_char,
    json: *mut *mut c_char,
    repository: *mut *mut RepositoryHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("repository", repository)?;
        let options = self::format(caller, format)?;
        let secret = secret(caller, passphrase)?.ok_or_else(|| {
            wrong_use("no passphrase is given").hint("give one, or set BLKDELTA_PASSWORD_FILE")
        })?;
        let storage = storage(caller, path)?;
        let made = Repository::init_encrypted(storage, options, &secret, &SlotOptions::default())?;
        give_made(caller, made, json, repository)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Opens the repository in a directory.
///
/// An encrypted one opens with what the environment names: BLKDELTA_PASSWORD_FILE, BLKDELTA_PASSWORD_COMMAND or
/// BLKDELTA_KEY_FILE; BLKDELTA_STATUS_WRONG_KEY when that does not fit or is not there.
/// `repository`: receives the handle, closed with blkdelta_repository_close(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_repository_open(
    path: *const c_char,
    repository: *mut *mut RepositoryHandle,
) -> Status {
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { blkdelta_repository_open_with(path, std::ptr::null(), repository) }
}

/// Opens the repository in a directory, an encrypted one with a passphrase.
///
/// `passphrase`: NULL: as blkdelta_repository_open(). One that is given for a repository that is not encrypted is
/// BLKDELTA_STATUS_WRONG_KEY: somebody may have put it there instead of yours. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_repository_open_with(
    path: *const c_char,
    passphrase: *const c_char,
    repository: *mut *mut RepositoryHandle,
) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("repository", repository)?;
        let storage = storage(caller, path)?;
        let opened = match secret(caller, passphrase)? {
            Some(secret) => Repository::open_with(storage, &secret)?,
            None => Repository::open(storage)?,
        };
        give(caller, opened, repository);
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
