//! Which version this is: of the product, and of the binary interface.
//!
//! The two are apart: the interface keeps its number while functions and struct fields are only added.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::{CStr, c_char};

/// Version of the binary interface in this header, which is also the number behind `.so.` in the library's name. It
/// grows only when a program that was built before would no longer work.
pub const BLKDELTA_ABI_VERSION: u32 = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of the library that runs, such as "0.1.0". The text is constant. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the binary interface of the library that runs: compare it with BLKDELTA_ABI_VERSION. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_abi_version() -> u32 {
    BLKDELTA_ABI_VERSION
}
