//! Encryption: which keys there are and how bytes are sealed. No I/O but random bytes, and no names of objects' folders.
//!
//! ```text
//! passphrase or key file -- Argon2id --> opens a key slot --> master keys -- HKDF, for each object --> object key --> units
//! ```
//! AES-256-GCM, HKDF-SHA256 and Argon2id come from libraries. Trade-off: a random master key for the repository, wrapped by
//! each passphrase, so that passphrases change without any data being written anew; who once had the master key keeps it.
//! If an object key were ever used for two objects, equal nonces would give both away: so each object begins with a salt
//! of its own, drawn when it is begun, and no object is ever continued.

pub mod export;
pub mod master_keys;
pub mod sealing;
pub mod secret;
pub mod wrapping;

use crate::error::{Error, ErrorKind};

/// The cryptographic library refused what it never refuses.
fn library_failed() -> Error {
    Error::new(ErrorKind::Io, "the cryptographic library failed")
}
