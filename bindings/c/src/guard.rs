//! The one way in: every function that C calls runs its work in [`enter`], which stops panics, keeps the error, and hands the
//! work a [`Caller`] through which all pointers of the call are read and written.
//!
//! Trade-off: `Caller` has safe methods that follow pointers, so that each entry has one `unsafe` block with one promise
//! instead of one for each argument. That promise is C's: what the header says of each argument holds. If it does not, what
//! happens is undefined, as in any C library; what can be told (NULL, sizes, text) is checked.
#![allow(unsafe_code)] // pointers of C

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::slice;

use blkdelta_core::error::{Error, Result};
use serde::Serialize;

use crate::error::{Status, remember, remember_panic, wrong_use};

/// The right to follow the pointers of one call.
pub struct Caller(());

/// Runs the work of one call.
///
/// # Safety
/// Every pointer that `work` hands to its [`Caller`] is NULL or what the header demands of that argument.
pub unsafe fn enter(work: impl FnOnce(&Caller) -> Result<Status>) -> Status {
    match catch_unwind(AssertUnwindSafe(|| work(&Caller(())))) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => remember(&error),
        Err(panic) => remember_panic(&*panic),
    }
}

impl Caller {
    fn text(&self, text: *const c_char) -> Option<&CStr> {
        // SAFETY: not NULL, and by the promise of `enter` a string with its end that lives as long as the call.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    }

    /// A path: any bytes. NULL is none.
    pub fn optional_path(&self, path: *const c_char) -> Option<PathBuf> {
        self.text(path).map(|path| OsStr::from_bytes(path.to_bytes()).into())
    }

    /// A path that has to be there.
    pub fn path(&self, what: &str, path: *const c_char) -> Result<PathBuf> {
        self.optional_path(path).ok_or_else(|| wrong_use(format!("{what} is NULL")))
    }

    /// A name or a word: UTF-8. NULL is none.
    pub fn optional_name<'a>(&'a self, what: &str, name: *const c_char) -> Result<Option<&'a str>> {
        let not_utf8 = |_| wrong_use(format!("{what} is not UTF-8"));
        self.text(name).map(|name| name.to_str().map_err(not_utf8)).transpose()
    }

    /// A name that has to be there.
    pub fn name<'a>(&'a self, what: &str, name: *const c_char) -> Result<&'a str> {
        self.optional_name(what, name)?.ok_or_else(|| wrong_use(format!("{what} is NULL")))
    }

    /// What a word stands for; NULL leaves the usual.
    pub fn parsed<T: std::str::FromStr<Err = Error>>(
        &self,
        what: &str,
        word: *const c_char,
    ) -> Result<Option<T>> {
        self.optional_name(what, word)?.map(str::parse).transpose()
    }

    /// An array of `count` things; NULL only when there are none.
    pub fn array<'a, T: Copy>(&'a self, what: &str, items: *const T, count: usize) -> Result<&'a [T]> {
        if count == 0 {
            return Ok(&[]);
        }
        let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
        if items.is_null() || !items.is_aligned() || bytes.is_none() {
            return Err(wrong_use(format!("{what} is not an array of {count}")));
        }
        // SAFETY: not NULL, aligned, of a size that can be, and by the promise of `enter` `count` items long.
        Ok(unsafe { slice::from_raw_parts(items, count) })
    }

    /// An array of names.
    pub fn names(&self, what: &str, names: *const *const c_char, count: usize) -> Result<Vec<String>> {
        let names = self.array(what, names, count)?;
        names.iter().map(|name| self.name(what, *name).map(str::to_owned)).collect()
    }

    /// Lets the work fill the caller's buffer.
    pub fn fill(
        &self,
        buffer: *mut u8,
        length: usize,
        work: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if length == 0 {
            return work(&mut []);
        }
        if buffer.is_null() || isize::try_from(length).is_err() {
            return Err(wrong_use(format!("the buffer is not {length} bytes")));
        }
        // SAFETY: not NULL, and by the promise of `enter` so many bytes that nobody else touches during the call.
        work(unsafe { slice::from_raw_parts_mut(buffer, length) })
    }

    /// A file of our own for an open descriptor.
    pub fn file(&self, what: &str, descriptor: i32) -> Result<File> {
        if descriptor <= 0 {
            return Err(wrong_use(format!("{what} is not a file descriptor that can be written to")));
        }
        // SAFETY: not -1, and by the promise of `enter` open during the call; a closed one gives EBADF.
        let theirs = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let ours = theirs.try_clone_to_owned().map_err(|source| Error::io("using", what, source))?;
        Ok(ours.into())
    }

    /// Bytes at a place in the caller's memory.
    pub fn bytes(&self, place: *const u8, length: usize) -> &[u8] {
        // SAFETY: only called with places that were checked not to be NULL and lengths that the caller named.
        unsafe { slice::from_raw_parts(place, length) }
    }

    /// Refuses an output that must be there, before any work begins.
    pub fn check_out<T>(&self, what: &str, out: *mut T) -> Result<()> {
        if out.is_null() || !out.is_aligned() {
            return Err(wrong_use(format!("{what} is NULL, and the result has to go there")));
        }
        Ok(())
    }

    /// Writes an output; NULL means that it is not wanted.
    pub fn give<T>(&self, out: *mut T, value: T) {
        if !out.is_null() {
            // SAFETY: not NULL, and by the promise of `enter` room for a value of this type.
            unsafe { out.write(value) }
        }
    }

    /// Hands out a document as a string that the caller owns; NULL means that it is not wanted.
    pub fn give_json<T: Serialize + ?Sized>(&self, out: *mut *mut c_char, document: &T) -> Result<()> {
        if out.is_null() {
            return Ok(());
        }
        let text = serde_json::to_string(document)
            .map_err(|source| Error::io("writing JSON", "a string", source.into()))?;
        self.give(out, crate::error::c_text(text).into_raw());
        Ok(())
    }
}

/// Frees a string that a function of this library handed out. NULL is fine. Each string once, and no other: a second
/// time, as with free(), anything may happen. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller got it from `give_json` and gives it back once.
        drop(unsafe { CString::from_raw(text) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_with_its_message() {
        // SAFETY: no pointer is handed over.
        let status = unsafe { enter(|_| panic!("the test says so")) };
        assert_eq!(status, Status::Internal);
        // SAFETY: the text is the library's, and no call comes between.
        let text = unsafe { CStr::from_ptr(crate::error::blkdelta_last_error()) };
        assert!(text.to_str().unwrap().contains("the test says so"));
    }

    #[test]
    fn a_failure_leaves_its_whole_cause() {
        let cause = std::io::Error::from_raw_os_error(28);
        // SAFETY: no pointer is handed over.
        let status = unsafe { enter(|_| Err(Error::io("writing", "/x", cause))) };
        assert_eq!((status, crate::error::blkdelta_last_error_errno()), (Status::NoSpace, 28));
        assert!(!crate::error::blkdelta_last_error_hint().is_null());
    }
}
