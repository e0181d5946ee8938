//! What a person or a host has to open a repository: a passphrase, a key file, or an exported key. Never on a command line,
//! where every process could read it, and never printed.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::export::ExportedKey;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key_slot::SecretKind;
use crate::sys::command::Command;
use crate::sys::faults;

/// A file that holds the passphrase; a line end behind it does not count.
pub const PASSWORD_FILE: &str = "BLKDELTA_PASSWORD_FILE";
/// A command (run with sh) that prints the passphrase.
pub const PASSWORD_COMMAND: &str = "BLKDELTA_PASSWORD_COMMAND";
/// A key file, or an exported key.
pub const KEY_FILE: &str = "BLKDELTA_KEY_FILE";

/// Longest passphrase or key file in bytes.
const SECRET_MAX: u64 = 64 << 10;

/// Opens a repository.
#[derive(Clone)]
pub enum Secret {
    /// Known to people.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The bytes of a file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// The keys themselves, from the safe.
    Exported(ExportedKey),
}

impl Secret {
    /// A passphrase as it was typed: a line end behind it does not count.
    pub fn passphrase(typed: &[u8]) -> Result<Self> {
        let line = typed.strip_suffix(b"\n").unwrap_or(typed);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(Error::new(ErrorKind::WrongUse, "the passphrase is empty")
                .hint("an empty one would keep nobody out: choose another"));
        }
        Ok(Self::Passphrase(Zeroizing::new(line.to_vec())))
    }

    /// The passphrase in a file.
    pub fn from_password_file(path: &Path) -> Result<Self> {
        Self::passphrase(&read(path)?).map_err(|error| error.path(path))
    }

    /// The passphrase that a command prints.
    pub fn from_password_command(command: &str) -> Result<Self> {
        let said = Command::new("sh").arg("-c").arg(command).run();
        let said = said.map_err(|error| {
            Error::new(ErrorKind::WrongKey, format!("the command of {PASSWORD_COMMAND} failed"))
                .because(error)
                .hint("run it by hand; it prints the passphrase and asks nobody")
        })?;
        Self::passphrase(Zeroizing::new(said.out).as_bytes())
    }

    /// A key file, or an exported key.
    pub fn from_key_file(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::WrongUse, "the key file is empty")
                .path(path)
                .hint("make one with `head -c 32 /dev/urandom > FILE`"));
        }
        if ExportedKey::is_one(&bytes) {
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            return ExportedKey::parse(text).map(Self::Exported).map_err(|error| error.path(path));
        }
        Ok(Self::KeyFile(bytes))
    }

    /// What the environment names, if anything.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::named_by(PASSWORD_FILE, PASSWORD_COMMAND, KEY_FILE)
    }

    /// What it names for the repository that copies go to: `BLKDELTA_TO_PASSWORD_FILE` and the like.
    pub fn from_environment_of_copies() -> Result<Option<Self>> {
        Self::named_by("BLKDELTA_TO_PASSWORD_FILE", "BLKDELTA_TO_PASSWORD_COMMAND", "BLKDELTA_TO_KEY_FILE")
    }

    fn named_by(file: &str, command: &str, key: &str) -> Result<Option<Self>> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match (named(file), named(command), named(key)) {
            (None, None, None) => Ok(None),
            (Some(file), None, None) => Self::from_password_file(&PathBuf::from(file)).map(Some),
            (None, Some(command), None) => Self::from_password_command(&command.to_string_lossy()).map(Some),
            (None, None, Some(key)) => Self::from_key_file(&PathBuf::from(key)).map(Some),
            _ => {
                let text = format!("more than one of {file}, {command} and {key} is set");
                Err(Error::new(ErrorKind::WrongUse, text).hint("set one of them"))
            }
        }
    }

    /// Which kind of slot it opens, with the bytes that open it; an exported key needs none.
    pub(crate) fn for_slot(&self) -> Option<(SecretKind, &[u8])> {
        match self {
            Self::Passphrase(bytes) => Some((SecretKind::Passphrase, bytes)),
            Self::KeyFile(bytes) => Some((SecretKind::KeyFile, bytes)),
            Self::Exported(_) => None,
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let problem = |source| Error::io("reading a secret from", path, source);
    faults::point("open").map_err(problem)?;
    if std::fs::metadata(path).map_err(problem)?.len() > SECRET_MAX {
        let text = format!("a passphrase or key file has at most {SECRET_MAX} bytes");
        return Err(Error::new(ErrorKind::WrongUse, text).path(path).hint("check the path"));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(problem)
}
