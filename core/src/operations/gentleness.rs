//! What every verb takes to be gentle, and how it is set going.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::progress::Progress;
use crate::sys::io_priority::{self, IoPriority};
use crate::throttle::Limits;
use crate::throttle::governor::{Governor, Priority, Watched};

/// Limits, priorities, and where new limits come from while a run goes on.
#[derive(Debug, Clone)]
pub struct Gentleness {
    /// Rates and the latency target.
    pub limits: Limits,
    /// I/O priority and niceness of the threads that work.
    pub priority: Priority,
    /// A file with [`Limits`] as JSON, looked at again and again.
    pub control: Option<PathBuf>,
}

/// A tenth of the usual share of a busy core: whoever wakes up goes first, and a run on busy cores still ends.
const NICE: i32 = 10;

impl Default for Gentleness {
    /// Listens to others' latency, with the I/O priority of those who wait for everybody, and behind others on the cores:
    /// a database that waits for a core is as slow as one that waits for the disk.
    fn default() -> Self {
        // Whoever started us with less has said so; nobody may take it back without being root.
        let nice = NICE.max(io_priority::nice_of_this_thread());
        let priority = Priority { io: Some(IoPriority::Idle), nice: Some(nice), cgroup: false };
        Self { limits: Limits::default(), priority, control: None }
    }
}

impl Gentleness {
    /// Takes no care of others.
    #[must_use]
    pub fn full_speed() -> Self {
        Self { limits: Limits::none(), priority: Priority::default(), control: None }
    }

    /// Starts to keep them for a run that reads `source` (through the page cache: `cached_reads`) and writes near
    /// `own_writes`.
    pub(super) fn start(
        &self,
        source: Option<&Path>,
        own_writes: Option<&Path>,
        cached_reads: bool,
        progress: &Progress,
    ) -> Result<Governor> {
        let watched = Watched {
            source: source.map(Path::to_path_buf),
            cached_reads,
            own_writes: own_writes.map(existing_folder),
            control: self.control.clone(),
            priority: self.priority,
            progress: progress.clone(),
        };
        Governor::start(&self.limits, &watched)
    }
}

/// The path itself, or the folder in which it will be made.
fn existing_folder(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.ancestors().find(|path| path.exists()).unwrap_or(&path).to_path_buf()
}
