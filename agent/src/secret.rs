//! Where passphrases come from: files, a command, or the terminal. Never the command line, which every user can read.

use std::path::Path;

use blkdelta_core::crypto::secret::{PASSWORD_COMMAND, PASSWORD_FILE, Secret};
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::sys::terminal;

use crate::cli::NewKeyArgs;

/// The passphrase of a repository, asked once.
pub fn ask() -> Result<Secret> {
    Secret::passphrase(&terminal::ask_hidden("passphrase of the repository")?)
}

/// A new passphrase, asked twice.
pub fn ask_new() -> Result<Secret> {
    if !terminal::somebody_is_there() {
        return Err(Error::new(
            ErrorKind::WrongUse,
            "no passphrase is given, and nobody is there to be asked",
        )
        .hint(format!(
            "set {PASSWORD_FILE} or {PASSWORD_COMMAND}, or name a new one with --new-password-file"
        )));
    }
    let first = terminal::ask_hidden("new passphrase")?;
    if *terminal::ask_hidden("the same again")? != *first {
        return Err(Error::new(ErrorKind::WrongUse, "the two passphrases differ")
            .hint("nothing was changed: try again"));
    }
    Secret::passphrase(&first)
}

/// The new key that flags name, or a passphrase that is asked for.
pub fn new_key(args: &NewKeyArgs) -> Result<Secret> {
    match (&args.key_file, &args.new_password_file) {
        (Some(file), _) => key_file(file),
        (None, Some(file)) => Secret::from_password_file(file),
        (None, None) => ask_new(),
    }
}

fn key_file(path: &Path) -> Result<Secret> {
    match Secret::from_key_file(path)? {
        Secret::Exported(_) => {
            Err(Error::new(ErrorKind::WrongUse, "this is an exported key, not a key file")
                .path(path)
                .hint("make one with `head -c 32 /dev/urandom > FILE`"))
        }
        secret => Ok(secret),
    }
}
