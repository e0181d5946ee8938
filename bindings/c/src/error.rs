//! Statuses: numbers that never change their meaning, and the message of the last failure on each thread.
//!
//! A new kind of failure gets a new number; programs treat each negative one that they do not know as a failure. If two
//! threads could see each other's message, a program would print the wrong cause: so it is kept for each thread.
#![allow(unsafe_code)] // functions that C calls

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use blkdelta_core::error::{Error, ErrorKind};

/// What a call came to. Zero: done. Positive: done, results were handed out, and something should be looked at.
/// Negative: failed, nothing was handed out; treat a negative number that you do not know as a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Done, but something could not be read or proven: the report says what (the command's exit code 3).
    Doubtful = 3,
    /// blkdelta_verify() found damage: the report says where (the command's exit code 14).
    DamageFound = 14,
    /// The caller asked for something that makes no sense: NULL, a freed or foreign handle, a bad size, a wrong value.
    WrongUse = -1,
    /// There is no repository there.
    NoRepository = -2,
    /// Another process works on the same volume.
    Locked = -3,
    /// The key or passphrase does not open the repository.
    WrongKey = -4,
    /// The backup, volume or file is not there.
    NotFound = -5,
    /// Something that must be new is there already.
    AlreadyExists = -6,
    /// It would be unsafe: a live source, a mounted target, a target that holds data.
    Refused = -7,
    /// The volume is not the one that the name, manifest or delta belongs to.
    IdentityMismatch = -8,
    /// A delta or manifest does not belong to this parent.
    WrongParent = -9,
    /// The source changed while it was read.
    SourceChanged = -10,
    /// The snapshot no longer holds the state at which it was taken.
    SnapshotLost = -11,
    /// The source could not be read.
    Unreadable = -12,
    /// Stored data does not match its checksums or contradicts itself.
    Damaged = -13,
    /// Written by a newer version, or an option that this version does not know.
    Unsupported = -14,
    /// No room left on the device.
    NoSpace = -15,
    /// A callback cancelled.
    Cancelled = -16,
    /// Any other failure of the operating system.
    Io = -17,
    /// The repository went back to an older state, or became another one, since this host last saw it.
    RolledBack = -18,
    /// A failure of a kind that has no number yet.
    Other = -98,
    /// A mistake in the library; the message says where. What was stored before is untouched.
    Internal = -99,
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::WrongUse => Self::WrongUse,
            ErrorKind::NoRepository => Self::NoRepository,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::WrongKey => Self::WrongKey,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists => Self::AlreadyExists,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::IdentityMismatch => Self::IdentityMismatch,
            ErrorKind::WrongParent => Self::WrongParent,
            ErrorKind::SourceChanged => Self::SourceChanged,
            ErrorKind::SnapshotLost => Self::SnapshotLost,
            ErrorKind::Unreadable => Self::Unreadable,
            ErrorKind::Damaged => Self::Damaged,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::NoSpace => Self::NoSpace,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Io => Self::Io,
            ErrorKind::RolledBack => Self::RolledBack,
            _ => Self::Other,
        }
    }
}

#[derive(Default)]
struct Last {
    message: CString,
    hint: Option<CString>,
    system_error: c_int,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// A wrong use of this interface.
pub fn wrong_use(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::WrongUse, text)
}

/// Keeps a failure for `blkdelta_last_error` and tells its number.
pub fn remember(error: &Error) -> Status {
    keep(Last {
        message: c_text(error.full_text()),
        hint: error.next_step().map(c_text),
        system_error: error.raw_os_error().unwrap_or(0),
    });
    error.kind().into()
}

/// The same for a panic that was caught.
pub fn remember_panic(panic: &(dyn Any + Send)) -> Status {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    let hint = c_text("report it; what was stored before is untouched");
    keep(Last {
        message: c_text(format!("a mistake in the library: {text}")),
        hint: Some(hint),
        system_error: 0,
    });
    Status::Internal
}

fn keep(last: Last) {
    // A thread that is ending has no place left for it.
    let _ = LAST.try_with(|place| place.replace(last));
}

/// Text for C: a NUL inside, which no message should have, is left out.
pub fn c_text(text: impl Into<String>) -> CString {
    let mut bytes = text.into().into_bytes();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// The last failure of a call on this thread, with its whole cause, in one line; empty when there was none. Never NULL.
///
/// The text belongs to the library and is valid until the next call on this thread that fails. Only to be asked after a
/// call that failed: a call that succeeds leaves it as it is. Any thread; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().message.as_ptr()).unwrap_or(c"".as_ptr())
}

/// What a person can do next after the last failure on this thread; NULL when nothing is known. Valid as long as the
/// text of blkdelta_last_error().
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_last_error_hint() -> *const c_char {
    let hint = |last: &RefCell<Last>| last.borrow().hint.as_deref().map_or(ptr::null(), CStr::as_ptr);
    LAST.try_with(hint).unwrap_or(ptr::null())
}

/// The errno of the operating system that is the cause of the last failure on this thread; 0 when there is none.
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_last_error_errno() -> c_int {
    LAST.try_with(|last| last.borrow().system_error).unwrap_or(0)
}
