//! Exit codes: a contract. Whatever is not listed is a failure.

use std::process::ExitCode;

use blkdelta_core::error::{Error, ErrorKind};

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong use.
    WrongUse = 2,
    /// Done, but something could not be read or proven.
    Doubtful = 3,
    /// No such repository.
    NoRepository = 10,
    /// Locked by another.
    Locked = 11,
    /// Wrong key.
    WrongKey = 12,
    /// Verify found damage.
    Damaged = 14,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The code of a failure; `by_sigterm` tells the two signals apart.
    pub fn of(error: &Error, by_sigterm: bool) -> Self {
        match error.kind() {
            ErrorKind::WrongUse => Self::WrongUse,
            ErrorKind::NoRepository => Self::NoRepository,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::WrongKey => Self::WrongKey,
            ErrorKind::Cancelled if by_sigterm => Self::Terminated,
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
