//! Errors, and the rules for making them.
//!
//! 1. Every public function of this crate returns [`Error`]. A caller matches on [`ErrorKind`], a person reads the rest.
//! 2. The message names the operation; path, offset and length go into the context, never into the message by hand.
//! 3. The cause is chained, not printed into the message.
//! 4. What a person can do next is said in a hint. A kind with an obvious next step has a default hint.
//! 5. An error is never downgraded: what could not be read or proven fails the operation.
//!
//! ```text
//! Error = kind (to match) + message (what was being done) + path, offset, length (where) + hint + source (why)
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What kind of failure this is; the agent's exit codes and the bindings' numbers are derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that makes no sense.
    WrongUse,
    /// There is no repository there.
    NoRepository,
    /// Another process works on the same volume.
    Locked,
    /// The key or passphrase does not open the repository.
    WrongKey,
    /// The backup, volume or file is not there.
    NotFound,
    /// Something that must be new is there already.
    AlreadyExists,
    /// It would be unsafe: a live source, a mounted target, a target that holds data.
    Refused,
    /// The volume is not the one that the name, manifest or delta belongs to.
    IdentityMismatch,
    /// A delta or manifest does not belong to this parent.
    WrongParent,
    /// The source changed while it was read.
    SourceChanged,
    /// The snapshot no longer holds the state at which it was taken (overflow, full pool).
    SnapshotLost,
    /// The source could not be read.
    Unreadable,
    /// The repository went back to an older state, or became another one, since this host last saw it.
    RolledBack,
    /// Stored data does not match its checksums or contradicts itself.
    Damaged,
    /// Written by a newer version, or with a feature this version does not know.
    Unsupported,
    /// No room left on the device.
    NoSpace,
    /// The caller cancelled.
    Cancelled,
    /// Any other failure of the operating system.
    Io,
}

/// An error: see the rules at the top of this file.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    length: Option<u64>,
    hint: Option<String>,
    source: Option<Source>,
    unclear: bool,
}

impl Error {
    /// An error of `kind`; `message` says what was being done or what is wrong, in lower case, without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let hint = default_hint(kind).map(str::to_owned);
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            path: None,
            offset: None,
            length: None,
            hint,
            source: None,
            unclear: false,
        }))
    }

    /// An error of the operating system while doing `what` on `path`; a full disk gets its own kind.
    #[must_use]
    pub fn io(what: impl Into<String>, path: impl AsRef<Path>, source: io::Error) -> Self {
        let kind = match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
            _ if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ if source.kind() == io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            _ => ErrorKind::Io,
        };
        let mut error = Self::new(kind, what).path(path).because(source);
        if error.0.hint.is_none() {
            error.0.hint = error.raw_os_error().and_then(os_hint).map(str::to_owned);
        }
        error
    }

    /// Stored data that contradicts its checksum, its specification or its neighbours.
    #[must_use]
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// Adds the path, unless a deeper layer has named one.
    #[must_use]
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Adds the place inside the path, in bytes, unless a deeper layer has named one.
    #[must_use]
    pub fn at(mut self, offset: u64, length: u64) -> Self {
        if self.0.offset.is_none() {
            self.0.offset = Some(offset);
            self.0.length = Some(length);
        }
        self
    }

    /// Says what to do next, instead of the kind's default hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Chains the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Makes it another kind; for layers that know what a low-level failure means.
    #[must_use]
    pub fn kind_is(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Says that nobody knows whether it was done: the answer of another machine did not arrive.
    #[must_use]
    pub fn outcome_unknown(mut self) -> Self {
        self.0.unclear = true;
        self
    }

    /// Whether it may have been done all the same.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        self.0.unclear
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether stored data is wrong, or cannot be read where it lies (a bad sector under the repository).
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::Damaged || self.raw_os_error() == Some(libc::EIO)
    }

    /// The path it is about, if any.
    #[must_use]
    pub fn error_path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The place inside the path, if any: offset and length in bytes.
    #[must_use]
    pub fn place(&self) -> Option<(u64, u64)> {
        self.0.offset.map(|offset| (offset, self.0.length.unwrap_or(0)))
    }

    /// The next step for a person, if one is known.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The errno of the first operating system error in the chain.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                return Some(code);
            }
            cause = error.source();
        }
        None
    }

    /// Message, place and every cause in one line.
    #[must_use]
    pub fn full_text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, ": {}", path.display())?;
        }
        match (self.0.offset, self.0.length) {
            (Some(offset), Some(length)) if length > 0 => write!(f, " (offset {offset}, {length} bytes)"),
            (Some(offset), _) => write!(f, " (offset {offset})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.full_text())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

fn default_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NoRepository => {
            Some("make one with `blkdelta init -r DIR`, or check --repo and BLKDELTA_REPO")
        }
        ErrorKind::Locked => Some("wait until the other run has ended; it releases the volume by itself"),
        ErrorKind::WrongKey => Some(
            "give the right one: BLKDELTA_PASSWORD_FILE, BLKDELTA_PASSWORD_COMMAND, BLKDELTA_KEY_FILE, or at the prompt",
        ),
        ErrorKind::Damaged => {
            Some("run `blkdelta verify --data` to see what else is hurt, and restore from another backup")
        }
        ErrorKind::RolledBack => Some(
            "`blkdelta list` shows what can still be restored; if this is meant, `blkdelta audit --accept` takes it as it is",
        ),
        ErrorKind::Unsupported => Some("update blkdelta: use the version that wrote it, or a newer one"),
        ErrorKind::NoSpace => Some("make room there and run it again; what was stored before is untouched"),
        ErrorKind::SnapshotLost => Some(
            "nothing was committed; give the snapshot more room (--snapshot-size) or the pool more space",
        ),
        ErrorKind::SourceChanged => {
            Some("back up a snapshot, or stop the writers; --allow-live accepts a smeared image")
        }
        _ => None,
    }
}

fn os_hint(code: i32) -> Option<&'static str> {
    match code {
        libc::EACCES | libc::EPERM => Some("run it as root, or as a user who may open this path"),
        libc::ENOENT => Some("check the path"),
        libc::EBUSY => Some("it is in use: unmount it, or stop what holds it"),
        libc::EIO => Some("the device reports errors: look at the kernel log (dmesg)"),
        libc::EROFS => Some("the file system or device is read-only"),
        libc::ENOTDIR | libc::EISDIR => Some("check the path: a file and a directory were mixed up"),
        _ => Some("see the cause above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_and_cause_are_told_once() {
        let io = io::Error::from_raw_os_error(libc::EIO);
        let error = Error::io("reading the source", "/dev/x", io).at(4096, 512).path("/other").at(1, 1);
        assert_eq!(error.to_string(), "reading the source: /dev/x (offset 4096, 512 bytes)");
        assert!(error.full_text().contains("Input/output error"));
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(error.next_step().is_some());
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let error = Error::io("writing", "/x", io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
}
