//! How many requests to keep in flight: as few as give the full rate.
//!
//! Some devices need a deep queue for their full rate. For others it only makes everybody wait longer, and its many buffers,
//! used in turn, are in no cache when they are written again: a virtual disk whose host copies into them, or a controller
//! that writes into the processor's cache, can be faster with few. In a virtual machine the answer changed within seconds,
//! presumably whenever the hypervisor moved its threads. So both are tried side by side, again and again, more rarely while
//! the answer stays the same.
//!
//! Trade-off: each try costs what the worse one loses over some hundred MiB. It is left out where something else decides the
//! rate (limits, others, hashing), and the deep queue is taken then. If the rates of a device wander by more than the
//! two differ, either may be chosen, and little is lost.

use std::time::Instant;

use crate::throttle::to_f64;

/// What is few: one block of the usual length, in requests of the usual length.
const FEW: usize = 4;
/// A deeper queue must give so much more.
const WORTH: f64 = 1.05;
/// Bytes over which the rate of few is taken, and that of the most: many times what is in flight, because a device may end
/// all of that at once.
const WINDOW: [u64; 2] = [48 << 20, 96 << 20];
/// Bytes after a change of the depth that are not counted: what was in flight before, and buffers that are used first.
const SETTLE: [u64; 2] = [16 << 20, 32 << 20];
/// Bytes until the next try: at first, and at most.
const HOLD_MIN: u64 = 1 << 30;
const HOLD_MAX: u64 = 8 << 30;

/// The depth in use, and what is known of its rival.
pub struct Depth {
    most: usize,
    /// What is in use: the most, or few.
    deep: bool,
    /// The better one by the last try.
    chosen: bool,
    /// Bytes until the next try, as it was last set.
    hold: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// No try: so many bytes to go.
    Hold(u64),
    /// A depth is being tried, after so many bytes to go; its rival gave so many bytes a second, when that is known.
    Settle(u64, Option<f64>),
    /// Its rate is taken: since when, and bytes so far.
    Measure(Instant, u64, Option<f64>),
}

impl Depth {
    /// With at most so many requests in flight.
    pub fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        Self { most, deep: false, chosen: true, hold: HOLD_MIN, stage: Stage::Settle(SETTLE[0], None) }
    }

    /// Requests that may be in flight now.
    pub fn allowed(&self) -> usize {
        if self.deep { self.most } else { self.most.min(FEW) }
    }

    /// So many bytes came.
    pub fn count(&mut self, bytes: u64, now: Instant) {
        self.stage = match self.stage {
            Stage::Hold(left) if left > bytes => Stage::Hold(left - bytes),
            Stage::Hold(_) => Stage::Measure(now, 0, None),
            Stage::Settle(left, rival) if left > bytes => Stage::Settle(left - bytes, rival),
            Stage::Settle(_, rival) => Stage::Measure(now, 0, rival),
            Stage::Measure(since, sum, rival) if sum + bytes < WINDOW[usize::from(self.deep)] => {
                Stage::Measure(since, sum + bytes, rival)
            }
            Stage::Measure(since, sum, rival) => {
                let rate = to_f64(sum + bytes) / now.duration_since(since).as_secs_f64().max(1e-6);
                self.measured(rate, rival)
            }
        }
    }

    /// Something else than the device held requests back: a rate taken now would tell of that.
    pub fn disturbed(&mut self) {
        if !matches!(self.stage, Stage::Hold(_)) {
            self.deep = self.chosen;
            self.stage = Stage::Hold(self.hold);
        }
    }

    fn measured(&mut self, rate: f64, rival: Option<f64>) -> Stage {
        let Some(rival) = rival else {
            self.deep = !self.deep;
            return Stage::Settle(SETTLE[usize::from(self.deep)], Some(rate));
        };
        let (few, most) = if self.deep { (rival, rate) } else { (rate, rival) };
        let better = most > few * WORTH;
        tracing::debug!(few, most, deep = better, "requests in flight");
        self.hold = if better == self.chosen { (self.hold * 2).min(HOLD_MAX) } else { HOLD_MIN };
        (self.deep, self.chosen) = (better, better);
        Stage::Hold(self.hold)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Reads so many bytes from a device with these rates (MiB/s, for few and for the most) in requests of 1 MiB, and tells
    /// how many of them were read with the deep queue.
    fn read(depth: &mut Depth, now: &mut Instant, bytes: u64, few: u32, most: u32) -> u64 {
        let mut deep = 0;
        for _ in 0..bytes / MIB {
            let rate = if depth.allowed() > FEW { most } else { few };
            deep += if depth.allowed() > FEW { MIB } else { 0 };
            *now += Duration::from_secs(1) / rate;
            depth.count(MIB, *now);
        }
        deep
    }

    #[test]
    fn few_are_in_flight_where_more_gain_nothing_and_the_most_where_they_do() {
        let mut now = Instant::now();
        let deep = read(&mut Depth::new(16), &mut now, 64 << 30, 2000, 2000);
        assert!(deep < 2 << 30, "{} MiB for nothing", deep / MIB);
        let deep = read(&mut Depth::new(16), &mut now, 64 << 30, 2000, 2500);
        assert!(deep > 63 << 30, "{} MiB too slowly", (64 << 10) - deep / MIB);
    }

    #[test]
    fn a_device_that_changes_is_followed() {
        let (mut depth, mut now) = (Depth::new(16), Instant::now());
        read(&mut depth, &mut now, 64 << 30, 2600, 2200);
        assert_eq!(depth.allowed(), FEW);
        let deep = read(&mut depth, &mut now, 64 << 30, 1600, 2200);
        assert!(deep > (64 << 30) - HOLD_MAX - (1 << 30), "{} MiB", deep / MIB);
    }

    #[test]
    fn where_something_else_decides_the_rate_the_most_are_in_flight() {
        let (mut depth, mut now) = (Depth::new(16), Instant::now());
        assert_eq!(depth.allowed(), FEW, "the first try");
        depth.disturbed();
        assert_eq!(depth.allowed(), 16);
        // Known is known: a disturbance between two tries changes nothing.
        read(&mut depth, &mut now, 4 << 30, 2600, 2200);
        depth.disturbed();
        assert_eq!(depth.allowed(), FEW);
    }

    #[test]
    fn never_more_than_were_asked_for() {
        for most in 1..FEW + 1 {
            let mut depth = Depth::new(u32::try_from(most).unwrap());
            let mut now = Instant::now();
            for _ in 0..4096 {
                assert_eq!(depth.allowed(), most);
                read(&mut depth, &mut now, MIB, 100, 200);
            }
        }
    }
}
