//! Flags of the `key` verb: the keys of an encrypted repository.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Arguments of `key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub what: KeyVerb,
}

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List the keys; no passphrase is needed for that.
    List,
    /// Add a passphrase or a key file that opens the repository too.
    Add(NewKeyArgs),
    /// Put a new passphrase or key file in the place of the one that is used now.
    #[command(visible_alias = "change")]
    Passwd(NewKeyArgs),
    /// Remove a key; never the last one.
    Remove(KeyRemoveArgs),
    /// New master key for all that is written from now on, known to the new passphrase or key file alone; all other keys go.
    Rotate(NewKeyArgs),
    /// Write the keys themselves as text, for the safe.
    Export(KeyExportArgs),
    /// Add a passphrase or a key file with the help of an exported key, when all others are lost.
    Import(KeyImportArgs),
}

/// A new key; a passphrase is asked for unless one is named.
#[derive(Debug, Args)]
pub struct NewKeyArgs {
    /// Take the bytes of this file as the key; make it with `head -c 32 /dev/urandom`.
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_file")]
    pub key_file: Option<PathBuf>,
    /// Take the new passphrase from this file.
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// What people need to know of it, such as whose it is; it is stored in clear.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
}

/// Arguments of `key remove`.
#[derive(Debug, Args)]
pub struct KeyRemoveArgs {
    /// Beginning of its id.
    pub id: String,
}

/// Arguments of `key export`.
#[derive(Debug, Args)]
pub struct KeyExportArgs {
    /// New file for it, readable by you alone; standard output unless given.
    pub file: Option<PathBuf>,
}

/// Arguments of `key import`.
#[derive(Debug, Args)]
pub struct KeyImportArgs {
    /// The exported key.
    pub file: PathBuf,
    #[command(flatten)]
    pub new: NewKeyArgs,
}
