//! A token bucket on a clock that is passed in: how long a request must wait so that a rate holds.
//!
//! What is free is counted in billionths of a unit, in integers, so that a rate is exact however small the requests are
//! and however long it runs. A request goes as soon as its own amount is there; one that is larger than the whole burst
//! goes when the burst is full and leaves a debt that those after it wait off. For requests of at most `a` units, the
//! units that go within any time `T` are therefore at most `rate x T` + the larger of `a` and the burst.
//!
//! The burst is 30 ms' worth of the rate: with requests no larger than it, any window of 100 ms gets at most 1.3 times
//! its share, and 20 ms remain for callers that wake up late, before the promised 1.5 is reached. A smaller burst would
//! lose rate whenever a caller wakes up late: what is not taken within the 30 ms is gone. [`TokenBucket::largest`] is
//! 20 ms' worth for the same reason.
//!
//! Where the assumption fails: a request of more than 50 ms' worth is itself a burst above 1.5 (1 MiB at less than
//! 20 MiB/s, 4 KiB at less than 80 KiB/s). The rate holds then over time, not in each window; split requests by
//! `largest`. Below 80 KiB/s nothing that reads blocks of 4 KiB can be smoother than one block at a time.

use std::num::NonZeroU64;
use std::time::Duration;

/// Parts of one unit in which the level is counted: nanoseconds x units per second give exactly these.
const PARTS: i128 = 1_000_000_000;
const BURST_NANOS: i128 = 30_000_000;
/// 20 ms, as parts of a second.
const LARGEST_PER_SECOND: u64 = 50;
/// Reads of raw devices are whole multiples of this many bytes.
const GRANULE: u64 = 4096;
/// Threads that read the clock before they got the lock are late by less than this; more is a clock that was set back.
const STALE_MAX: Duration = Duration::from_secs(1);
/// A debt that was made at a lower rate holds up a higher rate for no longer than this.
const OLD_DEBT_NANOS_MAX: i128 = 1_000_000_000;

/// Units (bytes, requests) that flow in at a rate; whoever takes some is told how long to wait.
///
/// ```text
/// let wait = bucket.take(now, bytes);   // reserved: it is this caller's turn after `wait`, whatever others do
/// ```
///
/// Callers that must follow a change of the rate at once wait for [`TokenBucket::ready_in`] in steps and take when it
/// is zero: a wait that `take` has promised is not changed any more. They lose what they are late, as soon as their
/// requests are larger than the burst; those that take first do not.
#[derive(Debug)]
pub struct TokenBucket {
    /// Units per second; `None` is unlimited.
    rate: Option<NonZeroU64>,
    /// What was free at `updated`, in [`PARTS`] of a unit; below zero it is a debt.
    level: i128,
    updated: Duration,
}

impl TokenBucket {
    /// A full bucket that lets `rate` units per second through.
    #[must_use]
    pub fn new(rate: NonZeroU64) -> Self {
        Self { rate: Some(rate), level: burst(rate), updated: Duration::ZERO }
    }

    /// A bucket without a limit, until [`TokenBucket::set_rate`] gives it one.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { rate: None, level: 0, updated: Duration::ZERO }
    }

    /// Units per second that hold now; `None` is unlimited.
    #[must_use]
    pub fn rate(&self) -> Option<NonZeroU64> {
        self.rate
    }

    /// Lets `rate` units per second through from `now` on; `None` is unlimited. `now` as in [`TokenBucket::take`].
    ///
    /// Waits that were promised before stay as they are, and requests that come now stay behind them: a debt keeps its
    /// end when the rate falls, and also when it rises, unless that end is more than a second off. Unlimited forgives
    /// the debt; a limit after it begins with an empty bucket, since nobody knows what went just before.
    pub fn set_rate(&mut self, now: Duration, rate: Option<NonZeroU64>) {
        self.advance(now);
        if self.rate == rate {
            return;
        }
        self.level = match (self.rate, rate) {
            (Some(old), Some(new)) if self.level < 0 => {
                // Kept in units, a debt of 50 ms at 10 GiB/s would stop 1 KiB/s for a week; kept in time alone, a debt
                // of 1 MiB made at 1 KiB/s would stop 10 GiB/s for 17 minutes.
                let (promised, anew) = (nanos_of(self.level, old), nanos_of(self.level, new));
                let kept = promised.min(anew.max(OLD_DEBT_NANOS_MAX));
                -kept.saturating_mul(i128::from(new.get()))
            }
            // Above the new burst is cut where the level is asked for.
            (Some(_), Some(_)) => self.level,
            (None, _) | (_, None) => 0,
        };
        self.rate = rate;
    }

    /// Reserves `amount` units; the caller may act after the returned time (zero: at once), without asking again.
    ///
    /// `now` is the time since a start that all calls share. A `now` that lies less than a second before an earlier one
    /// counts as that one; one that lies further back is a clock that was set back, and time goes on from there.
    pub fn take(&mut self, now: Duration, amount: u64) -> Duration {
        self.advance(now);
        let Some(rate) = self.rate else { return Duration::ZERO };
        let wait = wait(self.level, rate, amount);
        self.level = self.level.saturating_sub(parts(amount));
        wait
    }

    /// How long [`TokenBucket::take`] would make the caller wait, without taking.
    #[must_use]
    pub fn ready_in(&self, now: Duration, amount: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| wait(self.level_at(now, rate), rate, amount))
    }

    /// The largest request, in bytes, with which no window of 100 ms gets more than 1.5 times its share: 20 ms' worth
    /// in whole blocks of 4096 bytes, and at least one block. Below 80 KiB/s that one block is already too much (see
    /// the top of this file). It changes with the rate; only for a bucket whose units are bytes.
    #[must_use]
    pub fn largest(&self) -> u64 {
        let worth = self.rate.map_or(u64::MAX, |rate| rate.get() / LARGEST_PER_SECOND);
        (worth / GRANULE).max(1) * GRANULE
    }

    fn level_at(&self, now: Duration, rate: NonZeroU64) -> i128 {
        let elapsed = now.saturating_sub(self.updated).as_nanos();
        let gained = i128::try_from(elapsed.saturating_mul(u128::from(rate.get()))).unwrap_or(i128::MAX);
        self.level.saturating_add(gained).min(burst(rate))
    }

    fn advance(&mut self, now: Duration) {
        if let Some(rate) = self.rate {
            self.level = self.level_at(now, rate);
        }
        if now > self.updated || self.updated.saturating_sub(now) >= STALE_MAX {
            self.updated = now;
        }
    }
}

fn parts(amount: u64) -> i128 {
    i128::from(amount).saturating_mul(PARTS)
}

/// The most that may be saved up, in [`PARTS`].
fn burst(rate: NonZeroU64) -> i128 {
    i128::from(rate.get()).saturating_mul(BURST_NANOS)
}

/// Nanoseconds in which these [`PARTS`] flow in, rounded up, whether they are said as a lack or as a debt (below zero).
fn nanos_of(parts: i128, rate: NonZeroU64) -> i128 {
    i128::try_from(parts.unsigned_abs().div_ceil(u128::from(rate.get()))).unwrap_or(i128::MAX)
}

fn wait(level: i128, rate: NonZeroU64, amount: u64) -> Duration {
    let needed = parts(amount).min(burst(rate));
    if amount == 0 || level >= needed {
        return Duration::ZERO;
    }
    // Not longer than u64 nanoseconds (584 years), so that adding it to an `Instant` does not overflow.
    let nanos = nanos_of(needed.saturating_sub(level), rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TEN: Duration = Duration::from_secs(10);
    const WINDOW: Duration = Duration::from_millis(100);
    const RATES: [u64; 13] = [
        KIB,
        10_000,
        80 * KIB,
        100 * KIB,
        333_333,
        MIB,
        5 * MIB,
        20 * MIB,
        50 * MIB,
        123_456_789,
        GIB,
        3 * GIB,
        10 * GIB,
    ];

    fn rate(units: u64) -> NonZeroU64 {
        NonZeroU64::new(units).unwrap()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// When a request acted, and its units.
    type Acts = Vec<(Duration, u64)>;

    /// Numbers that look random, below `end`.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end.max(1)
        }
    }

    /// One caller that takes, waits (and wakes up late by up to `late`), acts and takes again.
    fn one_taker(bucket: &mut TokenBucket, size: u64, until: Duration, late: Duration) -> Acts {
        let (mut now, mut acts, mut numbers) = (Duration::ZERO, Vec::new(), Numbers(1));
        let late = u64::try_from(late.as_nanos()).unwrap();
        loop {
            now += bucket.take(now, size) + Duration::from_nanos(numbers.below(late));
            if now >= until {
                return acts;
            }
            acts.push((now, size));
        }
    }

    /// One caller that asks first, and takes when it need not wait.
    fn one_asker(bucket: &mut TokenBucket, size: u64, until: Duration, late: Duration) -> Acts {
        let (mut now, mut acts, mut numbers) = (Duration::ZERO, Vec::new(), Numbers(2));
        let late = u64::try_from(late.as_nanos()).unwrap();
        loop {
            now += bucket.ready_in(now, size) + Duration::from_nanos(numbers.below(late));
            if now >= until {
                return acts;
            }
            assert_eq!(bucket.ready_in(now, size), Duration::ZERO);
            assert_eq!(bucket.take(now, size), Duration::ZERO);
            acts.push((now, size));
        }
    }

    /// Any number of callers that take as soon as the bucket exists, before anybody acts.
    fn all_at_once(bucket: &mut TokenBucket, size: u64, until: Duration) -> Acts {
        let waits = std::iter::repeat_with(|| bucket.take(Duration::ZERO, size));
        waits.take_while(|wait| *wait < until).map(|wait| (wait, size)).collect()
    }

    fn sum(acts: &[(Duration, u64)]) -> u64 {
        acts.iter().map(|(_, units)| units).sum()
    }

    /// The most units within any half-open window of this length.
    fn fullest_window(acts: &[(Duration, u64)], length: Duration) -> u64 {
        let (mut first, mut inside, mut most) = (0, 0, 0);
        for (time, units) in acts {
            inside += units;
            while acts[first].0 + length <= *time {
                inside -= acts[first].1;
                first += 1;
            }
            most = most.max(inside);
        }
        most
    }

    fn assert_pace(acts: &[(Duration, u64)], units: u64, size: u64, what: &str) {
        let burst = (units * 3 / 100).max(size) + 1;
        assert!(sum(acts) <= units * 10 + burst, "{what}: {} in 10 s", sum(acts));
        assert!(sum(acts) + size + 1 >= units * 10, "{what}: {} in 10 s", sum(acts));
        let most = fullest_window(acts, WINDOW);
        assert!(most <= units / 10 + burst, "{what}: {most} in 100 ms");
    }

    #[test]
    fn the_rate_is_exact_and_smooth_for_every_size() {
        for units in RATES {
            let largest = TokenBucket::new(rate(units)).largest();
            for size in [1, 512, 4096, 5000, 64 * KIB, 256 * KIB, MIB, 3 * MIB, largest] {
                if units * 10 / size > 50_000 {
                    continue; // too many requests for a test
                }
                let what = format!("{units}/s in requests of {size}");
                let one = one_taker(&mut TokenBucket::new(rate(units)), size, TEN, Duration::ZERO);
                assert_pace(&one, units, size, &what);
                let asks = one_asker(&mut TokenBucket::new(rate(units)), size, TEN, Duration::ZERO);
                assert_pace(&asks, units, size, &what);
                let many = all_at_once(&mut TokenBucket::new(rate(units)), size, TEN);
                assert_pace(&many, units, size, &what);
            }
        }
    }

    #[test]
    fn the_promises_hold_for_the_largest_request_even_if_callers_are_late() {
        for units in RATES.into_iter().filter(|units| *units >= 80 * KIB) {
            let size = TokenBucket::new(rate(units)).largest();
            for late in [Duration::ZERO, millis(1), millis(5), millis(10)] {
                let mut acts = vec![one_taker(&mut TokenBucket::new(rate(units)), size, TEN, late)];
                // 4 KiB are more than the burst below 133 KiB/s: nothing is saved up for those who ask too late.
                if size <= units * 2 / 100 {
                    acts.push(one_asker(&mut TokenBucket::new(rate(units)), size, TEN, late));
                }
                for acts in acts {
                    let what = format!("{units}/s in requests of {size}, up to {late:?} late");
                    let share = sum(&acts) * 1000 / (units * 10);
                    assert!((950..=1050).contains(&share), "{what}: {share} per mille in 10 s");
                    let most = fullest_window(&acts, WINDOW) * 1000 / (units / 10);
                    assert!(most <= 1500, "{what}: {most} per mille in 100 ms");
                }
            }
        }
    }

    #[test]
    fn the_largest_request_follows_the_rate() {
        let mut bucket = TokenBucket::new(rate(50 * MIB));
        assert_eq!(bucket.largest(), MIB);
        for (units, largest) in [(1, 4096), (KIB, 4096), (MIB, 20_480), (10 * GIB, 214_745_088)] {
            bucket.set_rate(Duration::ZERO, Some(rate(units)));
            assert_eq!(bucket.largest(), largest, "{units}/s");
        }
        bucket = TokenBucket::unlimited();
        assert_eq!(bucket.ready_in(TEN, u64::MAX), Duration::ZERO);
        assert_eq!((bucket.largest() % 4096, bucket.rate()), (0, None));
        assert!(bucket.largest() > u64::MAX / 2);
    }

    #[test]
    fn idle_time_saves_up_no_more_than_the_burst() {
        let mut bucket = TokenBucket::new(rate(100_000));
        let hour = Duration::from_secs(3600);
        assert_eq!(bucket.take(hour, 3_000), Duration::ZERO);
        assert_eq!(bucket.take(hour, 1), Duration::from_micros(10));
        assert_eq!(bucket.ready_in(hour, 99), millis(1));
        assert_eq!(bucket.ready_in(hour, 0), Duration::ZERO);
        // A request larger than the burst goes when the burst is full; its debt is waited off by the next one.
        assert_eq!(bucket.take(2 * hour, 100_000), Duration::ZERO);
        assert_eq!(bucket.ready_in(2 * hour, 100_000), Duration::from_secs(1));
        assert_eq!(bucket.ready_in(2 * hour + millis(970), 3_000), millis(30));
    }

    #[test]
    fn a_changed_rate_holds_from_the_change_on() {
        let (mut bucket, mut now, mut numbers) = (TokenBucket::new(rate(MIB)), Duration::ZERO, Numbers(3));
        let (mut changed, mut units, mut allowed, mut acts) = (Duration::ZERO, MIB, 0, Vec::new());
        let mut fastest = Vec::new();
        while changed < 3 * TEN {
            let next = changed + millis(100 + numbers.below(900));
            loop {
                let act = now + bucket.take(now, 20 * KIB);
                if act < next {
                    (now, _) = (act, acts.push((act, 20 * KIB)));
                    continue;
                }
                // The change comes while this caller sleeps; its promised time stays.
                fastest.push((changed, next, units));
                allowed += units * u64::try_from((next - changed).as_millis()).unwrap() / 1000;
                (changed, units) = (next, MIB + numbers.below(100 * MIB));
                bucket.set_rate(changed, Some(rate(units)));
                acts.push((act, 20 * KIB));
                now = act;
                break;
            }
        }
        let share = sum(&acts) * 1000 / allowed;
        assert!((990..=1010).contains(&share), "{share} per mille");
        for (from, to, units) in fastest {
            let before = |end: Duration| acts.partition_point(|(time, _)| *time < end);
            let most = fullest_window(&acts[before(from)..before(to)], WINDOW);
            assert!(most <= units / 10 + (units * 3 / 100).max(20 * KIB) + 20 * KIB, "{most} at {units}/s");
        }
    }

    #[test]
    fn debts_do_not_outlive_a_change_by_much() {
        let mut bucket = TokenBucket::new(rate(10 * GIB));
        bucket.take(Duration::ZERO, GIB);
        let before = bucket.ready_in(Duration::ZERO, 1);
        bucket.set_rate(Duration::ZERO, Some(rate(KIB)));
        assert!(bucket.ready_in(Duration::ZERO, 1) <= before + millis(1));

        let mut bucket = TokenBucket::new(rate(KIB));
        bucket.take(Duration::ZERO, MIB);
        assert!(bucket.ready_in(Duration::ZERO, 1) > Duration::from_secs(1000));
        bucket.set_rate(Duration::ZERO, Some(rate(10 * GIB)));
        assert!(bucket.ready_in(Duration::ZERO, 1) <= millis(1001));

        bucket.set_rate(Duration::ZERO, None);
        assert_eq!(bucket.take(Duration::ZERO, u64::MAX), Duration::ZERO);
        bucket.set_rate(millis(5), Some(rate(1000)));
        assert_eq!(bucket.take(millis(5), 30), millis(30));
        // Full at the higher rate is not more than full at the lower one.
        bucket.set_rate(TEN, Some(rate(1_000_000)));
        bucket.set_rate(2 * TEN, Some(rate(1000)));
        assert_eq!(bucket.take(2 * TEN, 30), Duration::ZERO);
        assert_eq!(bucket.ready_in(2 * TEN, 1), millis(1));
    }

    #[test]
    fn a_clock_that_goes_backwards_neither_gives_nor_blocks() {
        let mut bucket = TokenBucket::new(rate(1000));
        assert_eq!(bucket.take(TEN, 30), Duration::ZERO);
        // Two threads whose clocks were read in turn, before the lock: no time is counted twice.
        for step in 0..1000 {
            bucket.take(TEN + millis(step) - millis(step % 2 * 20), 2);
        }
        let now = TEN + millis(1000);
        assert_eq!(bucket.ready_in(now, 1), millis(1001));
        // Set back by far: no gift, and it goes on from there.
        let debt = bucket.take(now, 100);
        assert!(bucket.take(millis(1), 1) >= debt);
        assert_eq!(bucket.take(millis(1200), 1), Duration::ZERO);
    }

    #[test]
    fn nothing_overflows() {
        for units in [1, u64::MAX] {
            let mut bucket = TokenBucket::new(rate(units));
            for now in [Duration::ZERO, Duration::MAX, Duration::ZERO, TEN, Duration::MAX] {
                for amount in [u64::MAX, 0, 1, u64::MAX] {
                    let ready = bucket.ready_in(now, amount);
                    let wait = bucket.take(now, amount);
                    assert!(wait == ready && wait <= Duration::from_nanos(u64::MAX));
                }
                for other in [Some(rate(u64::MAX)), Some(rate(1)), None, Some(rate(units))] {
                    bucket.set_rate(now, other);
                    bucket.take(now, u64::MAX);
                }
            }
        }
        let mut bucket = TokenBucket { rate: Some(rate(1)), level: i128::MIN, updated: Duration::ZERO };
        assert_eq!(bucket.take(Duration::ZERO, u64::MAX), Duration::from_nanos(u64::MAX));
        bucket.set_rate(Duration::ZERO, Some(rate(u64::MAX)));
        assert!(bucket.ready_in(Duration::ZERO, 1) > TEN);
    }
}
