//! The thread beside a run: looks at the devices, the clock and the control file, and sets the pace.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::Limits;
use super::latency::{LatencyLoop, Pace};
use super::schedule::Schedule;
use super::shared::{RatePoint, Shared, lock};
use crate::error::{Error, Result};
use crate::units::format_rate;

/// How often the devices are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How often the clock and the control file are looked at.
const SLOW_TICK: Duration = Duration::from_millis(250);
/// Points of the reported rates; when there are more, every second one goes.
const RATES_MAX: usize = 240;

/// The thread's state.
pub(super) struct Listener<'a> {
    shared: &'a Shared,
    limits: Limits,
    schedule: Schedule,
    latency: Option<LatencyLoop>,
    control_text: String,
    rate_every: Duration,
    next_rate: Duration,
    last_done: u64,
}

impl<'a> Listener<'a> {
    /// With the limits of the command line.
    pub fn new(shared: &'a Shared, limits: Limits, schedule: Schedule) -> Self {
        let mut listener = Self {
            shared,
            limits,
            schedule,
            latency: None,
            control_text: String::new(),
            rate_every: Duration::from_secs(1),
            next_rate: Duration::from_secs(1),
            last_done: 0,
        };
        listener.apply(Duration::ZERO);
        if listener.latency.is_some() {
            // The first look comes while a run still prepares; a full queue before it is a jolt to a busy database.
            lock(&shared.state).pace = Pace::UNHEARD;
        }
        listener
    }

    /// Until it is told to stop.
    pub fn run(&mut self) {
        let mut next_slow = SLOW_TICK;
        while !self.shared.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(TICK);
            let now = self.shared.start.elapsed();
            if now >= next_slow {
                next_slow = now + SLOW_TICK;
                self.take_new_limits();
                self.apply(now);
            }
            self.listen(now);
            if now >= self.next_rate {
                self.note_rate(now);
            }
        }
    }

    /// The limits of this moment.
    fn apply(&mut self, now: Duration) {
        let scheduled = self.schedule.rate_at(Timestamp::now());
        let bwlimit = scheduled.unwrap_or(self.limits.bwlimit);
        lock(&self.shared.state).set(&self.limits, bwlimit, now);
        self.shared.progress.set_note(&self.note(bwlimit));
        let devices = lock(&self.shared.observer).len();
        match (self.limits.latency_target.wanted(), &mut self.latency) {
            (Some(target), Some(latency)) => latency.set_target(target),
            (Some(target), None) if devices > 0 => {
                self.latency = Some(LatencyLoop::new(target, devices, now));
            }
            (Some(_), None) => {}
            (None, _) => {
                self.latency = None;
                let mut state = lock(&self.shared.state);
                (state.pace, state.listens_alone) = (Pace::FULL, false);
            }
        }
    }

    fn note(&self, bwlimit: Option<NonZeroU64>) -> String {
        let active = self.latency.as_ref().is_some_and(LatencyLoop::somebody_is_there);
        match (active, bwlimit) {
            (true, _) => "giving way to others".into(),
            (false, Some(rate)) => format!("at most {}", format_rate(rate.get())),
            (false, None) => String::new(),
        }
    }

    fn take_new_limits(&mut self) {
        let Some(path) = &self.shared.control else { return };
        let Ok(text) = std::fs::read_to_string(path) else { return };
        if text == self.control_text {
            return;
        }
        match parse_limits(&text, path) {
            Ok((limits, schedule)) => {
                if limits != self.limits {
                    tracing::info!(bwlimit = ?limits.bwlimit, latency_target = ?limits.latency_target, "new limits");
                }
                (self.limits, self.schedule) = (limits, schedule);
            }
            Err(error) => tracing::warn!("new limits are not taken: {}", error.full_text()),
        }
        self.control_text = text;
    }

    fn listen(&mut self, now: Duration) {
        let Some(latency) = &mut self.latency else { return };
        let mut observer = lock(&self.shared.observer);
        let own = || lock(&self.shared.state).own;
        let others = observer.read(own);
        if !latency.is_blind() && observer.is_blind(&own()) {
            latency.set_blind();
            let name = observer.queues().next().map_or_else(String::new, |queue| queue.name.clone());
            let text = format!(
                "the statistics of {name} do not show our reads, so --latency-target cannot see others; \
                 reading gently all the time; --bwlimit sets a rate, --full-speed takes no care"
            );
            self.shared.warn(text);
        }
        let listens_alone = observer.hears_more_alone() && !latency.is_blind();
        drop(observer);
        let pace = latency.observe(now, &others);
        let mut state = lock(&self.shared.state);
        (state.pace, state.listens_alone) = (pace, listens_alone);
        drop(state);
        tracing::trace!(?pace, ?others, "pace");
    }

    fn note_rate(&mut self, now: Duration) {
        let done = lock(&self.shared.state).own.done_bytes;
        let bytes = done - std::mem::replace(&mut self.last_done, done);
        let others_active = self.latency.as_ref().is_some_and(LatencyLoop::somebody_is_there);
        let point = RatePoint {
            at_s: now.as_secs_f64(),
            bytes_per_s: per_second(bytes, self.rate_every),
            others_active,
        };
        let mut rates = lock(&self.shared.rates);
        rates.push(point);
        if rates.len() >= RATES_MAX {
            thin_out(&mut rates);
            self.rate_every *= 2;
        }
        self.next_rate = now + self.rate_every;
    }
}

/// Two neighbours become one: the mean of their rates at the later one's time.
fn thin_out(rates: &mut Vec<RatePoint>) {
    let merged = rates.chunks(2).filter_map(|pair| {
        let last = pair.last()?;
        let sum: u64 = pair.iter().map(|point| point.bytes_per_s).sum();
        let others_active = pair.iter().any(|point| point.others_active);
        Some(RatePoint { bytes_per_s: sum / pair.len() as u64, others_active, ..*last })
    });
    *rates = merged.collect();
}

fn per_second(bytes: u64, interval: Duration) -> u64 {
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / millis
}

/// Limits from a control file, checked as those of the command line are.
pub fn parse_limits(text: &str, path: &Path) -> Result<(Limits, Schedule)> {
    let limits: Limits = serde_json::from_str(text)
        .map_err(|source| Error::damaged("no limits are in it").path(path).because(source))?;
    let schedule = Schedule::new(limits.limit_at.clone())?;
    Ok((limits, schedule))
}
