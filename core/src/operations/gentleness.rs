//! What every verb takes to be gentle, and how it is set going.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::storage::location::is_url;
use crate::sys::io_priority::{self, IoPriority};
use crate::throttle::governor::{Governor, Priority, Watched};
use crate::throttle::schedule::Window;
use crate::throttle::{LatencyTarget, Limits};

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
            source: source.filter(|path| !is_url(path)).map(Path::to_path_buf),
            cached_reads,
            own_writes: own_writes.filter(|path| !is_url(path)).map(existing_folder),
            control: self.control.clone(),
            priority: self.priority,
            progress: progress.clone(),
        };
        Governor::start(&self.limits, &watched)
    }
}

/// What somebody names of it, for a run that begins or for one that goes on; the rest stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// No care of others; limits that are named still hold.
    pub full_speed: bool,
    /// In place of [`Limits::latency_target`].
    pub latency_target: Option<LatencyTarget>,
    /// In place of [`Limits::bwlimit`].
    pub bwlimit: Option<NonZeroU64>,
    /// In place of [`Limits::iops_limit`].
    pub iops_limit: Option<NonZeroU64>,
    /// In place of [`Limits::write_limit`].
    pub write_limit: Option<NonZeroU64>,
    /// In place of [`Limits::min_rate`].
    pub min_rate: Option<NonZeroU64>,
    /// In place of [`Limits::limit_at`], unless empty.
    pub limit_at: Vec<Window>,
    /// In place of [`Priority::io`].
    pub ionice: Option<IoPriority>,
    /// In place of [`Priority::nice`].
    pub nice: Option<i32>,
    /// [`Priority::cgroup`].
    pub cgroup: bool,
}

impl Wishes {
    /// For a run that begins; `usual` is what it does without wishes.
    ///
    /// # Errors
    /// `WrongUse` for a niceness that there is not.
    pub fn gentleness(&self, usual: Gentleness) -> Result<Gentleness> {
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            let text = format!("there is no niceness of {nice}");
            return Err(Error::new(ErrorKind::WrongUse, text).hint("give a number from -20 to 19"));
        }
        let mut gentleness = if self.full_speed { Gentleness::full_speed() } else { usual };
        self.put_into(&mut gentleness.limits);
        gentleness.priority.io = self.ionice.or(gentleness.priority.io);
        gentleness.priority.nice = self.nice.or(gentleness.priority.nice);
        gentleness.priority.cgroup = self.cgroup;
        Ok(gentleness)
    }

    /// For a run that goes on.
    ///
    /// # Errors
    /// `WrongUse` for what only a run that begins can take.
    pub fn change_running(&self, limits: &mut Limits) -> Result<()> {
        if self.ionice.is_some() || self.nice.is_some() || self.cgroup {
            let text = "ionice, nice and cgroup cannot be changed while a run goes on";
            return Err(Error::new(ErrorKind::WrongUse, text).hint("begin the run with them"));
        }
        if self.full_speed {
            *limits = Limits::none();
        }
        self.put_into(limits);
        Ok(())
    }

    fn put_into(&self, limits: &mut Limits) {
        limits.latency_target = self.latency_target.unwrap_or(limits.latency_target);
        limits.bwlimit = self.bwlimit.or(limits.bwlimit);
        limits.iops_limit = self.iops_limit.or(limits.iops_limit);
        limits.write_limit = self.write_limit.or(limits.write_limit);
        limits.min_rate = self.min_rate.unwrap_or(limits.min_rate);
        if !self.limit_at.is_empty() {
            limits.limit_at.clone_from(&self.limit_at);
        }
    }
}

/// The path itself, or the folder in which it will be made.
fn existing_folder(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.ancestors().find(|path| path.exists()).unwrap_or(&path).to_path_buf()
}
