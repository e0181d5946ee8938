//! What the next request may do: the state behind [`super::governor::Throttle`], with the clock passed in.

use std::num::NonZeroU64;
use std::time::Duration;

use super::latency::Pace;
use super::observer::Own;
use super::token_bucket::TokenBucket;
use super::{Limits, to_f64};

/// The longest piece of waiting.
pub const NAP_MAX: Duration = Duration::from_millis(20);
/// How often a request looks whether others have theirs under way.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// How often the requests under way are let end, so that what the device has counted is exactly known.
const ALONE_EVERY: Duration = Duration::from_millis(200);
/// Not more often than once in so many times of a request: where requests take long, an empty queue costs more.
const ALONE_SHARE: u32 = 50;
/// A look that the requests under way delay by more than this is left out: where they take so long, or one never comes back.
const ALONE_PATIENCE: Duration = Duration::from_millis(500);
/// How long a thread waits at once for the requests of others of this run.
pub(super) const ALONE_NAP: Duration = Duration::from_micros(100);

/// What to do with the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Begin it, with so many bytes; tell its end by [`super::governor::Throttle::done`].
    Go(u32),
    /// Ask again after this time, or when a request has ended.
    Wait(Duration, Reason),
}

/// Why a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Others use the device.
    Latency,
    /// `--bwlimit`, `--limit-at`, `--iops-limit`.
    Limit,
    /// `--write-limit`.
    WriteLimit,
    /// The devices have not been looked at yet, which they are while a run still prepares.
    FirstLook,
    /// The requests under way are to end before a look at the devices.
    Alone,
}

/// Whether a look at the devices is due while nothing of ours is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    NotDue,
    /// Something is under way still: ask again after [`ALONE_NAP`].
    Wait,
    /// Look, then go on.
    Now,
}

/// Buckets, the present pace, and what was begun and ended.
pub(super) struct State {
    pub bytes: TokenBucket,
    pub requests: TokenBucket,
    pub writes: TokenBucket,
    pub pace: Pace,
    pub min_rate: u64,
    pub own: Own,
    pub begun_requests: u64,
    pub last_begin: Duration,
    pub last_end: Duration,
    pub last_took: Duration,
    pub looking_since: Option<Duration>,
    /// Somebody listens for others, and hears them best while nothing of ours is under way.
    pub listens_alone: bool,
    pub next_alone: Duration,
    pub waited: [Duration; 5],
    pub waited_until: Duration,
}

impl State {
    /// With full buckets.
    pub fn new(limits: &Limits) -> Self {
        let mut state = Self {
            bytes: TokenBucket::unlimited(),
            requests: TokenBucket::unlimited(),
            writes: TokenBucket::unlimited(),
            pace: Pace::FULL,
            min_rate: limits.min_rate.get(),
            own: Own::default(),
            begun_requests: 0,
            last_begin: Duration::ZERO,
            last_end: Duration::ZERO,
            last_took: Duration::ZERO,
            looking_since: None,
            listens_alone: false,
            next_alone: ALONE_EVERY,
            waited: [Duration::ZERO; 5],
            waited_until: Duration::ZERO,
        };
        state.set(limits, limits.bwlimit, Duration::ZERO);
        state
    }

    pub fn set(&mut self, limits: &Limits, bwlimit: Option<NonZeroU64>, now: Duration) {
        self.bytes.set_rate(now, bwlimit);
        self.requests.set_rate(now, limits.iops_limit);
        self.writes.set_rate(now, limits.write_limit);
        self.min_rate = limits.min_rate.get();
    }

    fn requests_in_flight(&self) -> u64 {
        self.begun_requests.saturating_sub(self.own.done_requests)
    }

    /// How long to give way to others, and why; `None`: go.
    pub fn give_way(
        &mut self,
        now: Duration,
        wanted: u32,
        others_wait: impl FnOnce() -> bool,
    ) -> Option<(Duration, Reason)> {
        let pace = self.pace;
        if pace == Pace::FULL {
            self.looking_since = None;
            return None;
        }
        let ours = self.requests_in_flight();
        if pace.depth.is_some_and(|depth| ours >= u64::from(depth)) {
            return Some((NAP_MAX, Reason::Latency));
        }
        // The floor: whatever others do, a run must end.
        let len = pace.request_len.unwrap_or(wanted).min(wanted);
        let slowest = Duration::from_secs_f64(f64::from(len) / to_f64(self.min_rate.max(1)));
        if now >= self.last_begin + slowest {
            return None;
        }
        if pace == Pace::UNHEARD {
            return Some((Duration::from_millis(1), Reason::FirstLook));
        }
        if pace.pause {
            return Some((Duration::from_millis(5), Reason::Latency));
        }
        let rested = self.last_end + self.last_took * pace.rest;
        if now < rested {
            return Some((rested - now, Reason::Latency));
        }
        if ours == 0 && others_wait() {
            let since = *self.looking_since.get_or_insert(now);
            if now.saturating_sub(since) < pace.patience {
                return Some((LOOK_EVERY, Reason::Latency));
            }
        }
        None
    }

    /// At full speed the queue is never empty, and what it holds may or may not have been counted: a few others would hide
    /// in that for seconds, the longer the deeper it is.
    pub fn alone(&mut self, now: Duration) -> Alone {
        if !self.listens_alone || self.pace != Pace::FULL || now < self.next_alone {
            return Alone::NotDue;
        }
        let empty = self.requests_in_flight() == 0;
        if !empty && now < self.next_alone + ALONE_PATIENCE {
            return Alone::Wait;
        }
        self.next_alone = now + ALONE_EVERY.max(self.last_took.saturating_mul(ALONE_SHARE));
        if empty { Alone::Now } else { Alone::NotDue }
    }

    pub fn admit(&mut self, now: Duration, wanted: u32) -> Result<u32, Duration> {
        let mut len = self.pace.request_len.map_or(wanted, |most| most.min(wanted));
        if self.bytes.rate().is_some() || self.requests.rate().is_some() {
            len = len.min(u32::try_from(self.bytes.largest()).unwrap_or(u32::MAX)).max(4096).min(wanted);
            let wait = self.bytes.ready_in(now, u64::from(len)).max(self.requests.ready_in(now, 1));
            if wait > Duration::ZERO {
                return Err(wait);
            }
            self.bytes.take(now, u64::from(len));
            self.requests.take(now, 1);
        }
        self.looking_since = None;
        self.last_begin = now;
        self.own.begun_bytes += u64::from(len);
        self.begun_requests += 1;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_before_the_first_look_and_that_is_not_called_throttled_for_others() {
        let mut state = State::new(&Limits::none());
        state.pace = Pace::UNHEARD;
        let now = Duration::from_millis(1);
        let (_, reason) = state.give_way(now, 1 << 20, || false).unwrap();
        assert_eq!(reason, Reason::FirstLook);
        state.pace = Pace::FULL;
        assert_eq!(state.give_way(now, 1 << 20, || true), None);
    }

    #[test]
    fn at_full_speed_the_queue_is_let_run_empty_now_and_then_for_a_look() {
        let mut state = State::new(&Limits::none());
        let (before, due) = (Duration::from_millis(199), Duration::from_millis(200));
        assert_eq!(state.alone(due), Alone::NotDue, "nobody listens");
        state.listens_alone = true;
        assert_eq!(state.admit(before, 1 << 20), Ok(1 << 20));
        assert_eq!(state.alone(before), Alone::NotDue);
        assert_eq!(state.alone(due), Alone::Wait, "one is under way");
        let mut stuck = State { next_alone: due, ..State::new(&Limits::none()) };
        (stuck.listens_alone, stuck.begun_requests) = (true, 1);
        assert_eq!(stuck.alone(due * 3), Alone::Wait);
        assert_eq!(stuck.alone(due * 4), Alone::NotDue, "it never comes back, and the run goes on");
        (state.own.done_requests, state.last_took) = (1, Duration::from_millis(1));
        assert_eq!(state.alone(due), Alone::Now);
        assert_eq!(state.alone(due), Alone::NotDue);
        assert_eq!(state.alone(due * 2), Alone::Now);
        state.pace = Pace::UNHEARD;
        assert_eq!(state.alone(due * 4), Alone::NotDue, "a gentle pace has hardly anything under way");
        // Where a request takes a tenth of a second, an empty queue is dear.
        (state.pace, state.last_took) = (Pace::FULL, Duration::from_millis(100));
        assert_eq!(state.alone(due * 4), Alone::Now);
        assert_eq!(state.alone(due * 28), Alone::NotDue);
        assert_eq!(state.alone(due * 29), Alone::Now);
    }
}
