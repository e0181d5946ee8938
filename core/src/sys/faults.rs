//! Fault points: in tests the n-th call of a kind fails; in a normal build they are nothing.

/// Passes, or fails as the test that armed it wants.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub fn point(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "fault-injection")]
pub use armed::*;

/// How much of what a read got counts: all, or about half in whole sectors as the kernel may always answer. The rest is
/// spoilt then, as if it had never been read.
#[inline]
#[must_use]
pub fn shortened(name: &'static str, got: usize, buffer: &mut [u8]) -> usize {
    if got < 1024 || point(name).is_ok() {
        return got;
    }
    let less = got / 1024 * 512;
    buffer[less..got].fill(SPOILT);
    less
}

/// What a failed read leaves in its buffer.
pub const SPOILT: u8 = 0xa5;

#[cfg(feature = "fault-injection")]
mod armed {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Default)]
    struct Plan {
        countdown: Option<u64>,
        errno: i32,
        sticky: bool,
        only: Option<&'static str>,
        seen: BTreeMap<&'static str, u64>,
        order: Vec<&'static str>,
    }

    static PLAN: Mutex<Option<Plan>> = Mutex::new(None);

    fn plan() -> MutexGuard<'static, Option<Plan>> {
        PLAN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes, or fails as the test that armed it wants.
    pub fn point(name: &'static str) -> io::Result<()> {
        let mut guard = plan();
        let Some(plan) = guard.as_mut() else { return Ok(()) };
        *plan.seen.entry(name).or_default() += 1;
        plan.order.push(name);
        if plan.only.is_some_and(|only| !name.starts_with(only)) {
            return Ok(());
        }
        match plan.countdown {
            Some(0) => {
                if !plan.sticky {
                    plan.countdown = None;
                }
                Err(io::Error::from_raw_os_error(plan.errno))
            }
            Some(left) => {
                plan.countdown = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts calls without failing any.
    pub fn count() {
        *plan() = Some(Plan::default());
    }

    /// The call number `nth` (from 0) of all points, or of those whose name begins with `only`, fails with `errno`; with
    /// `sticky` every later one too, as if the process had died there.
    pub fn arm(nth: u64, errno: i32, sticky: bool, only: Option<&'static str>) {
        *plan() = Some(Plan { countdown: Some(nth), errno, sticky, only, ..Plan::default() });
    }

    /// Ends counting or failing; returns the calls seen by name.
    pub fn disarm() -> BTreeMap<&'static str, u64> {
        plan().take().map(|plan| plan.seen).unwrap_or_default()
    }

    /// As [`disarm`], but returns the calls in their order: what is synced before what is named can be read off it.
    pub fn disarm_ordered() -> Vec<&'static str> {
        plan().take().map(|plan| plan.order).unwrap_or_default()
    }
}
