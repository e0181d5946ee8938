//! The loop behind `--latency-target`, against simulated devices: one that nobody else uses, one whose latency rises with
//! our load, one that stalls, one that lies, one that becomes slow of its own.

use std::time::Duration;

use blkdelta_core::throttle::latency::{Class, LatencyLoop, Others, Pace, Target};

const TICK: Duration = Duration::from_millis(20);

/// A device that serves one request at a time.
struct Device {
    /// Others' requests a second.
    others: f64,
    /// Their latency without us, in seconds.
    alone: f64,
    /// Bytes a second that we get at full depth.
    rate: f64,
    owed: f64,
}

impl Device {
    fn new(others: f64) -> Self {
        Self { others, alone: 200e-6, rate: 1e9, owed: 0.0 }
    }

    /// Bytes a second of ours at this pace, and the share of the time in which we hold the device.
    fn ours(&self, pace: &Pace) -> (f64, f64, f64) {
        if pace.pause {
            return (0.0, 0.0, 0.0);
        }
        let len = f64::from(pace.request_len.unwrap_or(1 << 20)) * f64::from(pace.depth.unwrap_or(8));
        let service = 50e-6 + len / self.rate;
        let share = 1.0 / f64::from(1 + pace.rest);
        (share * len / service, share, service)
    }

    /// What others see: they wait for the rest of what is being served for us.
    fn latency(&self, pace: &Pace) -> f64 {
        let (_, share, service) = self.ours(pace);
        self.alone + share * service / 2.0
    }

    fn tick(&mut self, pace: &Pace) -> Others {
        self.owed += self.others * TICK.as_secs_f64();
        let requests = self.owed.floor();
        self.owed -= requests;
        let time = Duration::from_secs_f64(requests * self.latency(pace));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small count
        let requests = requests as u64;
        Others { reads: Class { requests, time }, ..Others::default() }
    }
}

struct Run {
    control: LatencyLoop,
    now: Duration,
    pace: Pace,
}

impl Run {
    fn new(target: Target) -> Self {
        Self { control: LatencyLoop::new(target, 1, Duration::ZERO), now: Duration::ZERO, pace: Pace::FULL }
    }

    /// Runs for so many seconds; returns our mean rate and the others' mean latency, as multiples of alone.
    fn go(&mut self, device: &mut Device, seconds: f64) -> (f64, f64) {
        let (mut bytes, mut latency, mut ticks) = (0.0, 0.0, 0.0);
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += TICK;
            let others = device.tick(&self.pace);
            bytes += device.ours(&self.pace).0 * TICK.as_secs_f64();
            latency += device.latency(&self.pace) / device.alone;
            ticks += 1.0;
            self.pace = self.control.observe(self.now, &[others]);
        }
        (bytes / seconds, latency / ticks)
    }
}

#[test]
fn nobody_else_means_full_speed() {
    let mut run = Run::new(Target::Auto);
    run.go(&mut Device::new(0.0), 20.0);
    assert_eq!(run.pace, Pace::FULL);
    // A few requests a second are nobody.
    run.go(&mut Device::new(2.0), 20.0);
    assert_eq!(run.pace, Pace::FULL);
}

#[test]
fn it_gives_way_at_once_and_comes_back_when_they_are_gone() {
    let mut run = Run::new(Target::Auto);
    let mut device = Device::new(500.0);
    run.go(&mut device, 0.05);
    assert_ne!(run.pace, Pace::FULL, "two ticks with a database are enough");
    run.go(&mut device, 10.0);
    assert_ne!(run.pace, Pace::FULL);
    device.others = 0.0;
    run.go(&mut device, 2.0);
    assert_eq!(run.pace, Pace::FULL);
}

#[test]
fn a_burst_that_is_over_at_once_is_forgotten_in_half_a_second() {
    let mut run = Run::new(Target::Auto);
    let mut idle = Device::new(0.0);
    run.go(&mut idle, 1.0);
    run.go(&mut Device::new(2000.0), 0.04);
    assert_ne!(run.pace, Pace::FULL);
    run.go(&mut idle, 0.5);
    assert_eq!(run.pace, Pace::FULL);
    // Who goes on after it is no burst, however few requests he has.
    run.go(&mut Device::new(2000.0), 0.04);
    let mut few = Device::new(5.0);
    for _ in 0..20 {
        run.go(&mut few, 0.5);
        assert_ne!(run.pace, Pace::FULL);
    }
}

#[test]
fn others_hardly_notice_and_we_still_get_something() {
    for others in [50.0, 500.0, 3000.0] {
        let mut run = Run::new(Target::Auto);
        let mut device = Device::new(others);
        run.go(&mut device, 10.0);
        let (rate, latency) = run.go(&mut device, 30.0);
        assert!(latency < 1.2, "{others} requests a second: latency x{latency:.2}");
        assert!(rate > 10e6, "{others} requests a second: we get {rate:.0} bytes a second");
    }
}

#[test]
fn what_was_too_much_is_tried_again_ever_more_rarely() {
    let mut run = Run::new(Target::Auto);
    let mut device = Device::new(500.0);
    device.rate = 500e6; // only the gentlest step is within the target
    run.go(&mut device, 30.0);
    let gentlest = run.pace.rest;
    let (mut ticks, mut more) = (0, 0);
    for _ in 0..3000 {
        run.go(&mut device, TICK.as_secs_f64());
        ticks += 1;
        more += i32::from(!run.pace.pause && run.pace.rest < gentlest);
    }
    assert!(gentlest > 7, "it rests {gentlest} times as long as it reads");
    assert!((1..ticks / 20).contains(&more), "{more} of {ticks} ticks above the gentlest step");
}

#[test]
fn a_target_in_milliseconds_is_kept_and_used() {
    let mut run = Run::new(Target::Time(Duration::from_millis(5)));
    let mut device = Device::new(500.0);
    run.go(&mut device, 20.0);
    let (generous, _) = run.go(&mut device, 10.0);
    let mut run = Run::new(Target::Time(Duration::from_micros(230)));
    run.go(&mut device, 20.0);
    let (strict, latency) = run.go(&mut device, 10.0);
    assert!(generous > 2.0 * strict, "{generous} against {strict}");
    assert!(latency * device.alone < 300e-6);
}

#[test]
fn a_device_that_stalls_never_stops_us_for_ever() {
    let mut run = Run::new(Target::Auto);
    run.go(&mut Device::new(500.0), 5.0);
    let (mut paused, mut full) = (0, 0);
    for _ in 0..3000 {
        run.now += TICK;
        let stalled = Others { waiting: 3, ..Others::default() };
        run.pace = run.control.observe(run.now, &[stalled]);
        paused += u32::from(run.pace.pause);
        full += u32::from(run.pace == Pace::FULL);
    }
    assert!(paused < 600, "{paused} of 3000 ticks paused");
    assert_eq!(full, 0, "somebody waits there");
}

#[test]
fn a_device_that_becomes_slow_of_its_own_is_not_our_fault() {
    let mut run = Run::new(Target::Auto);
    let mut device = Device::new(1000.0);
    device.rate = 20e9; // we hardly disturb it
    run.go(&mut device, 20.0);
    let (before, _) = run.go(&mut device, 10.0);
    device.alone *= 20.0;
    run.go(&mut device, 40.0);
    let (after, _) = run.go(&mut device, 20.0);
    assert!(after > before / 4.0, "{before} before, {after} after");
}

#[test]
fn a_device_that_lies_gets_a_pace_all_the_same() {
    let mut run = Run::new(Target::Auto);
    let mut seed = 7u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 20
    };
    for _ in 0..20_000 {
        run.now += Duration::from_micros(random() % 50_000);
        let mut class = || Class { requests: random() % 1_000_000, time: Duration::from_millis(random()) };
        let others = Others { reads: class(), writes: class(), flushes: class(), waiting: 0 };
        run.pace = run.control.observe(run.now, &[others]);
        assert!(run.pace.request_len.is_none_or(|len| len >= 4096));
        assert!(run.pace.patience <= Duration::from_secs(1));
    }
    // Statistics that do not show even our own reads are not believed.
    run.control.set_blind();
    let pace = run.control.observe(run.now + TICK, &[Others::default()]);
    assert_eq!(pace.depth, Some(1));
    assert!(!pace.pause);
}
