//! The priority of a thread's reads and of its CPU time, as the kernel takes them: ioprio_set(2) and setpriority(2).
//!
//! An I/O priority is honoured by the I/O scheduler alone: bfq weighs classes and levels, mq-deadline lets a higher
//! class go first (levels are nothing to it, and what has waited ten seconds goes anyway), `none` and kyber ignore it.
//! Under those two this file changes nothing, and only a throttle keeps the database fast:
//! [`Queue::honours_priority`](super::queue_stats::Queue::honours_priority) tells beforehand.
//!
//! Both are attributes of a thread on Linux, not of a process. A new thread inherits both from the one that spawned it;
//! threads that are there already keep theirs. So whoever sets them does it first and spawns the readers after, or lets
//! every reader set its own. Reads through io_uring take the priority of the thread that submits them, unless the entry
//! carries [`IoPriority::bits`] itself.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::thread;

use serde::{Deserialize, Serialize};

use super::faults;
use crate::error::{Error, ErrorKind, Result};

/// The lowest level of a class; 0 is the highest.
pub const LEVEL_MAX: u8 = 7;

/// The level that `best-effort` alone means: what the kernel gives a thread of nice 0.
const LEVEL_USUAL: u8 = 4;

/// `IOPRIO_WHO_PROCESS` of the kernel's ioprio.h; with 0 it means the calling thread.
const WHO_PROCESS: libc::c_int = 1;

/// Class and level of a thread's I/O; written `idle`, `best-effort:0` to `best-effort:7`, `realtime:0` to `realtime:7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IoPriority {
    /// Served when nobody else wants the device.
    Idle,
    /// The class of ordinary processes, from 0 (highest) to 7; what is above counts as 7.
    BestEffort(u8),
    /// Before all others, from 0 (highest) to 7; only for the privileged.
    RealTime(u8),
}

impl IoPriority {
    /// What ioprio_set(2) and the `ioprio` of an io_uring entry take: the class in the upper three bits, the level
    /// below.
    #[must_use]
    pub fn bits(self) -> u16 {
        let (class, level) = match self {
            Self::RealTime(level) => (1, level),
            Self::BestEffort(level) => (2, level),
            Self::Idle => (3, 0),
        };
        class << 13 | u16::from(level.min(LEVEL_MAX))
    }
}

impl fmt::Display for IoPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::BestEffort(level) => write!(f, "best-effort:{}", level.min(&LEVEL_MAX)),
            Self::RealTime(level) => write!(f, "realtime:{}", level.min(&LEVEL_MAX)),
        }
    }
}

impl FromStr for IoPriority {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = |digits: &str| match digits.as_bytes() {
            [digit @ b'0'..=b'7'] => Some(digit - b'0'),
            _ => None,
        };
        let found = match text.split_once(':') {
            None if text == "idle" => Some(Self::Idle),
            None if text == "best-effort" => Some(Self::BestEffort(LEVEL_USUAL)),
            Some(("best-effort", digits)) => level(digits).map(Self::BestEffort),
            Some(("realtime", digits)) => level(digits).map(Self::RealTime),
            _ => None,
        };
        found.ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not an I/O priority")).hint(
                "write idle, best-effort:0 (highest) to best-effort:7 (lowest), or realtime:0 to realtime:7",
            )
        })
    }
}

impl TryFrom<String> for IoPriority {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<IoPriority> for String {
    fn from(priority: IoPriority) -> Self {
        priority.to_string()
    }
}

/// Gives the calling thread, and those that it spawns from now on, this I/O priority.
pub fn set_for_this_thread(priority: IoPriority) -> io::Result<()> {
    faults::point("ioprio_set")?;
    let who: libc::c_int = 0;
    // SAFETY: ioprio_set takes three integers and no pointer; 0 names the calling thread, which exists.
    let done =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, who, libc::c_int::from(priority.bits())) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this user may have the priority: a thread tries it and ends, so nothing has changed when it is refused
/// (EPERM: `realtime` needs CAP_SYS_NICE or CAP_SYS_ADMIN).
pub fn may_set(priority: IoPriority) -> io::Result<()> {
    let trial =
        thread::Builder::new().name("ioprio-trial".into()).spawn(move || set_for_this_thread(priority))?;
    trial.join().unwrap_or_else(|_| Err(io::Error::other("the thread that tried the priority broke off")))
}

/// Gives the calling thread, and those that it spawns from now on, this nice value: -20 (most CPU time) to 19 (least).
///
/// What was given up cannot be had back without CAP_SYS_NICE or a limit (RLIMIT_NICE) that allows it.
pub fn set_nice_for_this_thread(nice: i32) -> io::Result<()> {
    if !(-20..=19).contains(&nice) {
        // The kernel would silently take the nearest value that exists.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a nice value lies between -20 and 19"));
    }
    faults::point("setpriority")?;
    // SAFETY: setpriority takes three integers and no pointer; 0 names the calling thread (on Linux: not its process).
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The nice value of the calling thread.
#[must_use]
pub fn nice_of_this_thread() -> i32 {
    // SAFETY: getpriority takes two integers and no pointer. -1 is a value as well as the error, which cannot happen for 0.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_bits_of_this_thread() -> libc::c_long {
        // SAFETY: ioprio_get takes two integers and no pointer.
        unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) }
    }

    #[test]
    fn priorities_are_written_as_they_are_read() {
        let mut all = vec![IoPriority::Idle];
        all.extend(
            (0..=LEVEL_MAX).flat_map(|level| [IoPriority::BestEffort(level), IoPriority::RealTime(level)]),
        );
        for priority in all {
            assert_eq!(priority.to_string().parse::<IoPriority>().unwrap(), priority);
            let json = serde_json::to_string(&priority).unwrap();
            assert_eq!(json, format!("\"{priority}\""));
            assert_eq!(serde_json::from_str::<IoPriority>(&json).unwrap(), priority);
        }
        assert_eq!("best-effort".parse::<IoPriority>().unwrap(), IoPriority::BestEffort(4));
    }

    #[test]
    fn what_is_no_priority_is_refused_with_a_hint() {
        for wrong in [
            "",
            "Idle",
            "idle:3",
            "best-effort:8",
            "best-effort:",
            "best-effort:+1",
            "realtime",
            "realtime:77",
        ] {
            let error = wrong.parse::<IoPriority>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse, "{wrong}");
            assert!(error.next_step().unwrap().contains("realtime:7"));
        }
        assert!(serde_json::from_str::<IoPriority>("\"fast\"").is_err());
        assert!(set_nice_for_this_thread(20).is_err());
        assert!(set_nice_for_this_thread(-21).is_err());
    }

    /// The kernel's ioprio.h: class << 13 | level, where 1 is realtime, 2 best effort, 3 idle.
    #[test]
    fn bits_are_those_of_the_kernel() {
        assert_eq!(IoPriority::RealTime(0).bits(), 0x2000);
        assert_eq!(IoPriority::BestEffort(7).bits(), 0x4007);
        assert_eq!(IoPriority::BestEffort(200).bits(), 0x4007);
        assert_eq!(IoPriority::Idle.bits(), 0x6000);
    }

    #[test]
    fn a_thread_passes_its_priorities_on_and_leaves_others_alone() {
        let (io_before, nice_before) = (io_bits_of_this_thread(), nice_of_this_thread());
        thread::spawn(|| {
            set_for_this_thread(IoPriority::Idle).unwrap();
            set_nice_for_this_thread(19).unwrap();
            assert_eq!(io_bits_of_this_thread(), libc::c_long::from(IoPriority::Idle.bits()));
            thread::spawn(|| {
                assert_eq!(io_bits_of_this_thread(), libc::c_long::from(IoPriority::Idle.bits()));
                assert_eq!(nice_of_this_thread(), 19);
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
        assert_eq!((io_bits_of_this_thread(), nice_of_this_thread()), (io_before, nice_before));
    }

    #[test]
    fn trying_a_priority_changes_nothing_here() {
        let before = io_bits_of_this_thread();
        may_set(IoPriority::Idle).unwrap();
        let realtime = may_set(IoPriority::RealTime(4));
        if crate::sys::host::is_root() {
            realtime.unwrap();
        } else {
            assert_eq!(realtime.unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        assert_eq!(io_bits_of_this_thread(), before);
    }
}
