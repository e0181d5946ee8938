//! What the stages' side and the listening thread share.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::observer::{Glance, Observer};
use super::state::State;
use crate::progress::Progress;
use crate::sys::io_priority::IoPriority;

/// One point of the rates over the time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RatePoint {
    /// Seconds since the start, at the end of the interval.
    pub at_s: f64,
    /// Bytes read a second in the interval that ends here.
    pub bytes_per_s: u64,
    /// Whether others used the device.
    pub others_active: bool,
}

/// How the stages' threads are ranked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Priority {
    /// I/O priority of threads and requests.
    pub io: Option<IoPriority>,
    /// Niceness, -20 to 19.
    pub nice: Option<i32>,
    /// Let the kernel keep the fixed limits too, in a control group of this process.
    pub cgroup: bool,
}

pub(super) struct Shared {
    pub start: Instant,
    pub state: Mutex<State>,
    /// Locked before `state` where both are needed.
    pub observer: Mutex<Observer>,
    pub glance: Glance,
    pub priority: Priority,
    pub progress: Progress,
    pub control: Option<PathBuf>,
    pub stop: AtomicBool,
    pub rates: Mutex<Vec<RatePoint>>,
    pub warnings: Mutex<Vec<String>>,
}

impl Shared {
    /// Tells the log and the report.
    pub fn warn(&self, text: String) {
        tracing::warn!("{text}");
        lock(&self.warnings).push(text);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
