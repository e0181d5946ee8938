//! Structs that C fills in: their size first, reserved bytes last, all zero is the default.
//!
//! A program that was built with an older header hands over what it knows; one that was built with a newer header may use what we
//! do not know, and is then refused instead of half obeyed. If the size or the reserved bytes were not checked, a struct
//! that nobody had cleared would switch on whatever a later version puts there.
#![allow(unsafe_code)] // structs of C are taken byte by byte

use std::mem::MaybeUninit;
use std::ptr;

use blkdelta_core::error::{Error, ErrorKind, Result};

use crate::error::wrong_use;
use crate::guard::Caller;

/// No struct of ours will be that large: a size beyond it was never set.
const SIZE_MAX: usize = 4096;

/// A struct that begins with its size and ends with reserved bytes.
///
/// # Safety
/// `repr(C)`, the first field is `struct_size: usize`, no padding, and any bytes make a value of each field.
pub unsafe trait Extensible: Copy {
    /// For messages.
    const NAME: &'static str;
    /// What nobody may use yet.
    fn reserved(&self) -> &[u8];
}

/// Implements [`Extensible`] for a struct whose last field is `reserved`.
macro_rules! extensible {
    ($name:ident, $c_name:literal) => {
        // SAFETY: integers, floats and pointers alone, in C's layout, the size first; bindings/c/abi.txt shows each offset.
        unsafe impl crate::options::Extensible for $name {
            const NAME: &'static str = $c_name;
            fn reserved(&self) -> &[u8] {
                &self.reserved
            }
        }
    };
}
pub(crate) use extensible;

impl Caller {
    /// The options that the caller filled in; NULL gives all defaults.
    pub fn options<T: Extensible>(&self, options: *const T) -> Result<T> {
        let mut ours = MaybeUninit::<T>::zeroed();
        if !options.is_null() {
            let size = self.struct_size(options)?;
            let theirs = self.bytes(options.cast(), size);
            let known = size_of::<T>();
            if theirs[known..].iter().any(|byte| *byte != 0) {
                return Err(unknown_option(T::NAME));
            }
            // SAFETY: both are `known` bytes long: `struct_size` refuses what is shorter.
            unsafe { ptr::copy_nonoverlapping(theirs.as_ptr(), ours.as_mut_ptr().cast(), known) };
        }
        // SAFETY: all bytes are set, and by the trait's promise any bytes will do.
        let options = unsafe { ours.assume_init() };
        if options.reserved().iter().any(|byte| *byte != 0) {
            return Err(unknown_option(T::NAME));
        }
        Ok(options)
    }

    /// The size that the caller's struct says it has.
    pub fn struct_size<T: Extensible>(&self, place: *const T) -> Result<usize> {
        // SAFETY: not NULL; by the promise of `enter` there is a struct of ours, which begins with its size.
        let size = unsafe { place.cast::<usize>().read_unaligned() };
        if (size_of::<T>()..=SIZE_MAX).contains(&size) {
            return Ok(size);
        }
        Err(wrong_use(format!("the struct_size of {} is {size}", T::NAME))
            .hint("clear the struct and set its struct_size to its sizeof"))
    }
}

/// A refusal: bytes are set that must be zero.
pub fn unknown_option(name: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{name} has bytes set that this version does not know"))
        .hint("clear the struct before it is filled in, or use a newer library")
}
