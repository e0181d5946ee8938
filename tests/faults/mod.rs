//! A small volume with a repository, and ways to fail its system calls one by one. Shared by the tests of faults and of
//! crashes; the plan of faults is one for the process, so a test holds [`alone`] while it works.
// A helper of tests: a broken expectation must end the test, and unwrap says where.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// Each test program uses its part.
#![allow(dead_code)]

pub mod copying;
pub mod hostile;
pub mod journal;
pub mod lab;
pub mod pruning;
pub mod scanning;
pub mod watchdog;

use std::sync::{Mutex, MutexGuard, PoisonError};

use blkdelta_core::error::{Error, ErrorKind};
use blkdelta_core::sys::faults;

/// Held by a test while it arms faults or does anything that a fault of another test could hit.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The first call that fails, from 0.
    pub nth: u64,
    /// How it fails.
    pub errno: i32,
    /// All later ones fail too.
    pub sticky: bool,
    /// Only calls whose name begins so.
    pub only: Option<&'static str>,
}

impl Fault {
    /// One call fails, whichever it is.
    pub fn once(nth: u64, errno: i32) -> Self {
        Self { nth, errno, sticky: false, only: None }
    }

    /// From this call on all fail: nothing that would happen later happens, as after a crash.
    pub fn dead(nth: u64) -> Self {
        Self { nth, errno: libc::EIO, sticky: true, only: None }
    }

    /// Of the calls whose name begins so, this and all later ones fail.
    pub fn always(nth: u64, errno: i32, only: &'static str) -> Self {
        Self { nth, errno, sticky: true, only: Some(only) }
    }

    /// Runs `work` with the fault armed. Returns its result, and whether the fault came to pass.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> (T, bool) {
        faults::arm(self.nth, self.errno, self.sticky, self.only);
        let done = watchdog::guard(&self, work);
        let wanted = |name: &str| self.only.is_none_or(|only| name.starts_with(only));
        let seen: u64 =
            faults::disarm().iter().filter(|(name, _)| wanted(name)).map(|(_, calls)| calls).sum();
        (done, seen > self.nth)
    }
}

/// Calls `trial` with 0, 1, 2, ... until it says that its fault did not come to pass any more. Returns how many did.
pub fn for_every_call(mut trial: impl FnMut(u64) -> bool) -> u64 {
    let mut nth = 0;
    while trial(nth) {
        nth += 1;
        assert!(nth < 5000, "the number of system calls does not end");
    }
    nth
}

/// What a caller may rely on when a system call failed with `errno`: a kind to match on, and a path to show.
pub fn assert_sensible(error: &Error, fault: &Fault) {
    let expected: &[ErrorKind] = match fault.errno {
        libc::ENOSPC => &[ErrorKind::NoSpace],
        libc::EIO => &[ErrorKind::Io, ErrorKind::Unreadable],
        _ => &[ErrorKind::Io],
    };
    assert!(expected.contains(&error.kind()), "{fault:?}: {error:?}");
    assert!(error.error_path().is_some(), "{fault:?}: no path in {error:?}");
    assert_eq!(error.raw_os_error(), Some(fault.errno), "{fault:?}: the cause is lost in {error:?}");
}
