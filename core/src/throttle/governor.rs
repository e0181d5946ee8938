//! Keeps the limits while a run goes on: the stages ask before each request, a thread listens and adjusts.
//!
//! All waiting happens in the stages, in short pieces, so that cancelling works within a piece; nothing here sleeps under
//! the lock. A stage that forgot to ask would run unlimited: reads of the volume and writes of the store each pass one
//! place only. The listening thread wakes fifty times a second and costs a few thousandths of a core.

use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Limits;
use super::listener::Listener;
use super::observer::Observer;
use super::schedule::Schedule;
pub use super::shared::{Priority, RatePoint};
use super::shared::{Shared, lock};
use super::state::{ALONE_NAP, Alone, NAP_MAX, Reason, State, Turn};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::geometry::to_usize;
use crate::progress::Progress;
use crate::sys::cgroup::{self, Group, IoLimits};
use crate::sys::io_priority::{self, IoPriority};
use crate::sys::pressure::{IoPressure, io_pressure};

/// Share of the disk in a group, where others have 100.
const GROUP_WEIGHT: u16 = 10;

/// What the limits did to a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ThrottleReport {
    /// Seconds in which nothing was done because of a limit.
    pub throttled_s: f64,
    /// Of them for the sake of others' latency.
    pub latency_s: f64,
    /// Of them for the limits on reading.
    pub limit_s: f64,
    /// Of them for the limit on writing.
    pub write_limit_s: f64,
    /// Bytes read a second over the time.
    pub rates: Vec<RatePoint>,
    /// The control group that kept the fixed limits too, in words.
    pub cgroup: Option<String>,
    /// Seconds in which some task of the whole system waited for I/O while this ran, where the kernel tells.
    pub system_io_pressure_s: Option<f64>,
    /// What the user should know: what has no effect here, where it is blind.
    pub warnings: Vec<String>,
}

/// What a governor is made for.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// The device or file that is read.
    pub source: Option<PathBuf>,
    /// Reads pass the page cache, as those of a repository do.
    pub cached_reads: bool,
    /// Where this run writes.
    pub own_writes: Option<PathBuf>,
    /// A file with [`Limits`] as JSON that may change while the run goes on.
    pub control: Option<PathBuf>,
    /// I/O priority and niceness of the stages.
    pub priority: Priority,
    /// Told what slows the run down.
    pub progress: Progress,
}

/// Asked by the stages before each request; cheap to clone.
#[derive(Clone)]
pub struct Throttle(Arc<Shared>);

/// Listens and adjusts until it is dropped.
pub struct Governor {
    throttle: Throttle,
    thread: Option<JoinHandle<()>>,
    /// Left when this is dropped.
    group: Option<Group>,
    pressure: Option<IoPressure>,
}

impl Governor {
    /// Begins to keep these limits. Fails before anything is read when a priority may not be set or a schedule is wrong.
    pub fn start(limits: &Limits, watched: &Watched) -> Result<Self> {
        let schedule = Schedule::new(limits.limit_at.clone())?;
        check_priority(&watched.priority)?;
        let throttle = Throttle::new(limits, watched);
        throttle.warn_about_priority();
        let group = if watched.priority.cgroup { throttle.join_group(limits) } else { None };
        if *limits == Limits::none() && watched.control.is_none() {
            return Ok(Self { throttle, thread: None, group, pressure: None });
        }
        let pressure = io_pressure();
        let (shared, limits) = (Arc::clone(&throttle.0), limits.clone());
        let (applied, limits_hold) = mpsc::sync_channel::<()>(0);
        let run = move || {
            let mut listener = Listener::new(&shared, limits, schedule);
            drop(applied);
            listener.run();
        };
        let thread = std::thread::Builder::new().name("throttle".into()).spawn(run);
        let thread = thread.map_err(|source| Error::io("starting a thread", "the throttle", source))?;
        // Nothing is read before the hour's limits hold; what ends the wait is that the other end is dropped.
        let _ = limits_hold.recv();
        Ok(Self { throttle, thread: Some(thread), group, pressure })
    }

    /// No limits at all.
    #[must_use]
    pub fn none() -> Self {
        let throttle = Throttle::new(&Limits::none(), &Watched::default());
        Self { throttle, thread: None, group: None, pressure: None }
    }

    /// For the stages.
    #[must_use]
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// What was done so far.
    #[must_use]
    pub fn report(&self) -> ThrottleReport {
        let [latency, limit, write, ..] = self.throttle.state().waited;
        ThrottleReport {
            throttled_s: (latency + limit + write).as_secs_f64(),
            latency_s: latency.as_secs_f64(),
            limit_s: limit.as_secs_f64(),
            write_limit_s: write.as_secs_f64(),
            rates: lock(&self.throttle.0.rates).clone(),
            cgroup: self.group.as_ref().map(|group| group.describe().to_owned()),
            system_io_pressure_s: self.pressure.as_ref().and_then(|before| {
                let waited = io_pressure()?.some.saturating_sub(before.some);
                Some(waited.as_secs_f64())
            }),
            warnings: lock(&self.throttle.0.warnings).clone(),
        }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.throttle.0.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn check_priority(priority: &Priority) -> Result<()> {
    if let Some(io) = priority.io {
        io_priority::may_set(io).map_err(|source| {
            Error::io("setting the I/O priority", io.to_string(), source)
                .hint("realtime needs CAP_SYS_ADMIN; idle and best-effort are free to all")
        })?;
    }
    if let Some(nice) = priority.nice {
        let tried = std::thread::spawn(move || io_priority::set_nice_for_this_thread(nice)).join();
        tried.unwrap_or(Ok(())).map_err(|source| {
            Error::io("setting the niceness", nice.to_string(), source)
                .hint("only root may go below the present niceness; choose 0 to 19")
        })?;
    }
    Ok(())
}

impl Throttle {
    fn new(limits: &Limits, watched: &Watched) -> Self {
        let listens = limits.latency_target.wanted().is_some() || watched.control.is_some();
        let observer = match &watched.source {
            Some(source) if listens || watched.priority.io.is_some() || watched.priority.cgroup => {
                Observer::new(source, watched.own_writes.as_deref(), watched.cached_reads)
            }
            _ => Observer::none(),
        };
        Self(Arc::new(Shared {
            start: Instant::now(),
            state: Mutex::new(State::new(limits)),
            glance: observer.glance(),
            observer: Mutex::new(observer),
            priority: watched.priority,
            progress: watched.progress.clone(),
            control: watched.control.clone(),
            stop: AtomicBool::new(false),
            rates: Mutex::default(),
            warnings: Mutex::default(),
        }))
    }

    fn now(&self) -> Duration {
        self.0.start.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// I/O priority that each request should carry.
    #[must_use]
    pub fn io_priority(&self) -> Option<IoPriority> {
        self.0.priority.io
    }

    /// Ranks the calling thread; called at the beginning of each stage. What failed was tried before the run began.
    pub fn enter_thread(&self) {
        let priority = &self.0.priority;
        let io = priority.io.map_or(Ok(()), io_priority::set_for_this_thread);
        let nice = priority.nice.map_or(Ok(()), io_priority::set_nice_for_this_thread);
        if let Err(reason) = io.and(nice) {
            tracing::debug!(%reason, "a thread keeps its priority");
        }
    }

    /// Whether a read of up to `wanted` bytes may begin now, and how large it may be (a multiple of 4096 if it is less).
    #[must_use]
    pub fn turn(&self, wanted: u32) -> Turn {
        let now = self.now();
        let mut state = self.state();
        if let Some((wait, reason)) = state.give_way(now, wanted, || self.0.glance.somebody_waits()) {
            return Turn::Wait(wait.min(NAP_MAX), reason);
        }
        match state.alone(now) {
            Alone::NotDue => {}
            Alone::Wait => return Turn::Wait(ALONE_NAP, Reason::Alone),
            Alone::Now => {
                drop(state);
                lock(&self.0.observer).look(|| self.state().own);
                state = self.state();
            }
        }
        match state.admit(now, wanted) {
            Ok(len) => Turn::Go(len),
            Err(wait) => Turn::Wait(wait.clamp(Duration::from_micros(50), NAP_MAX), Reason::Limit),
        }
    }

    /// A read of so many bytes has ended, well or not.
    pub fn done(&self, bytes: u32, took: Duration) {
        let now = self.now();
        let mut state = self.state();
        state.own.done_bytes += u64::from(bytes);
        state.own.done_requests += 1;
        state.own.done_time += took;
        state.last_end = now;
        state.last_took = took;
    }

    /// Waits as a turn said, and accounts for it.
    pub fn wait(&self, wait: Duration, reason: Reason) {
        let begun = self.now();
        std::thread::sleep(wait);
        let ended = self.now();
        let mut state = self.state();
        // Several threads may wait at once: the time counts once.
        let counted = ended.saturating_sub(begun.max(state.waited_until));
        state.waited_until = state.waited_until.max(ended);
        state.waited[reason as usize] += counted;
    }

    /// Reads `len` bytes in turns: `read` is called with one range after another, as soon and as large as the limits allow.
    pub fn in_turns(
        &self,
        len: usize,
        cancel: &CancelToken,
        mut read: impl FnMut(Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut at = 0;
        while at < len {
            cancel.check()?;
            match self.turn(u32::try_from(len - at).unwrap_or(u32::MAX)) {
                Turn::Wait(wait, reason) => self.wait(wait, reason),
                Turn::Go(piece) => {
                    let begun = Instant::now();
                    let end = at + to_usize(u64::from(piece));
                    let result = read(at..end);
                    self.done(piece, begun.elapsed());
                    result?;
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// Waits until so many bytes may be stored, and while others should go first.
    pub fn wait_to_write(&self, bytes: u64, cancel: &CancelToken) -> Result<()> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        while let Some((wait, reason)) = self.give_way(wanted) {
            cancel.check()?;
            self.wait(wait.min(NAP_MAX), reason);
        }
        let mut left = self.reserve_write(bytes);
        while left > Duration::ZERO {
            cancel.check()?;
            let nap = left.min(NAP_MAX);
            self.wait(nap, Reason::WriteLimit);
            left = left.saturating_sub(nap);
        }
        Ok(())
    }

    fn give_way(&self, wanted: u32) -> Option<(Duration, Reason)> {
        let now = self.now();
        self.state().give_way(now, wanted, || self.0.glance.somebody_waits())
    }

    fn reserve_write(&self, bytes: u64) -> Duration {
        let now = self.now();
        let mut state = self.state();
        state.last_begin = now;
        state.writes.take(now, bytes)
    }

    /// A write has ended.
    pub fn wrote(&self, took: Duration) {
        let now = self.now();
        let mut state = self.state();
        state.last_end = now;
        state.last_took = took;
    }

    /// Bytes to store at once at most, so that the limit holds over short times too.
    #[must_use]
    pub fn write_piece(&self) -> usize {
        let state = self.state();
        let limit = match state.writes.rate() {
            Some(_) => to_usize(state.writes.largest()),
            None => usize::MAX,
        };
        state.pace.request_len.map_or(limit, |len| limit.min(to_usize(u64::from(len))))
    }

    /// The kernel keeps the limits of the command line too; later ones (by the clock, or set while it runs) it does not
    /// know, so they can only be lower.
    fn join_group(&self, limits: &Limits) -> Option<Group> {
        // Not what is built on them too: every read would be held up at each.
        let observer = lock(&self.0.observer);
        let devices: Vec<_> =
            observer.queues().filter(|queue| queue.is_leaf).map(|queue| queue.number).collect();
        drop(observer);
        let wanted = IoLimits {
            read_bps: limits.bwlimit.map(NonZeroU64::get),
            write_bps: limits.write_limit.map(NonZeroU64::get),
            read_iops: limits.iops_limit.map(NonZeroU64::get),
            weight: Some(GROUP_WEIGHT),
        };
        match cgroup::limit_io(&devices, &wanted) {
            Ok(group) => {
                tracing::info!("{}", group.describe());
                Some(group)
            }
            Err(why) => {
                self.0.warn(format!("no control group: {why}"));
                None
            }
        }
    }

    fn warn_about_priority(&self) {
        let Some(io) = self.0.priority.io else { return };
        let observer = lock(&self.0.observer);
        let deaf: Vec<String> = observer
            .queues()
            .filter(|queue| queue.is_leaf && !queue.honours_priority())
            .map(|queue| {
                let scheduler = queue.scheduler().unwrap_or_else(|| "none".into());
                format!("{} (scheduler {scheduler})", queue.name)
            })
            .collect();
        drop(observer);
        if !deaf.is_empty() {
            self.0.warn(format!(
                "--ionice {io} has no effect on {}: its queue scheduler ignores priorities; bfq or mq-deadline heed them",
                deaf.join(", ")
            ));
        }
    }
}
