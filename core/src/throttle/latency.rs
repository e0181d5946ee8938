//! The closed loop behind `--latency-target`: from what a device did for others, how gently we read from it.
//!
//! Pure: time and readings are passed in. It compares the latency of the others' requests while we read with the same
//! while we pause ("listening", a few hundredths of the time), so it needs no model of the device and does not blame
//! itself for a device that is slow of its own. It gives way in one step and comes back one step at a time; nothing it
//! decides is slower than the floor rate, which its caller keeps. Blind spots: what the device's statistics do not show
//! (another guest of the same host, a controller behind several disks), single slow requests among thousands (it sees
//! means), and others with fewer than `ACTIVE_REQUESTS` requests a second, who count as nobody; with hardly more they are
//! now and then taken for a burst that is over.

use std::time::Duration;

use super::to_f64;

/// From this many requests of others within [`MEMORY`] on, somebody uses the device.
const ACTIVE_REQUESTS: f64 = 4.0;
/// Below this they have gone.
const GONE_REQUESTS: f64 = 1.5;
/// More presence than this is not remembered, so that leaving is noticed within two seconds.
const PRESENCE_MAX: f64 = 8.0;
/// How long a request of others is remembered as their presence.
const MEMORY: Duration = Duration::from_secs(1);
/// Who came at once and is silent in the second half of the first pause is remembered as little more than gone: a program
/// that starts, or a commit of a file system's journal, is no reason to hold back for two seconds.
const PRESENCE_AFTER_BURST: f64 = 2.0;
/// How often we pause to hear the others alone, and for how long.
const LISTEN_EVERY: Duration = Duration::from_millis(1000);
const LISTEN_FOR: Duration = Duration::from_millis(60);
/// The first pause, before anything is known.
const LISTEN_FIRST: Duration = Duration::from_millis(150);
/// How often the level is looked at.
const DECIDE_EVERY: Duration = Duration::from_millis(200);
/// What `auto` lets the others' mean latency grow to, as a multiple of what they have alone.
const AUTO_RATIO: f64 = 1.05;
/// Decisions in a row that must find room before one step is taken back: so many at least, and at most.
const CALM_DECISIONS: std::ops::RangeInclusive<u32> = 5..=40;
/// A mean of fewer requests than this decides nothing.
const ENOUGH: f64 = 8.0;
/// What one new mean weighs against the older ones.
const BASELINE_WEIGHT: f64 = 0.2;

/// What is wanted of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nearly what the others have without us.
    Auto,
    /// At most this mean latency.
    Time(Duration),
}

/// Kinds of requests, whose latencies are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Class {
    /// Requests that ended.
    pub requests: u64,
    /// The sum of their latencies.
    pub time: Duration,
}

impl Class {
    pub(super) fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.time = self.time.saturating_add(more.time);
    }
}

/// What others did on one device since the last reading, our own part taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Others {
    /// Their reads.
    pub reads: Class,
    /// Their writes.
    pub writes: Class,
    /// Their cache flushes.
    pub flushes: Class,
    /// Requests of theirs that are under way now; only meant while we have none.
    pub waiting: u64,
}

impl Others {
    /// The same device's, seen a moment later.
    pub fn add(&mut self, later: &Self) {
        let classes = [&mut self.reads, &mut self.writes, &mut self.flushes];
        classes.into_iter().zip(later.classes()).for_each(|(class, more)| class.add(more));
        self.waiting = self.waiting.max(later.waiting);
    }

    fn classes(&self) -> [Class; 3] {
        [self.reads, self.writes, self.flushes]
    }

    fn requests(&self) -> u64 {
        self.classes().iter().map(|class| class.requests).fold(0, u64::saturating_add)
    }
}

/// How we read for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of a request at most; `None`: as large as the reader likes.
    pub request_len: Option<u32>,
    /// Requests in flight at most; `None`: as many as the reader likes.
    pub depth: Option<u32>,
    /// Rest after each request, in multiples of the time that it took.
    pub rest: u32,
    /// How long to wait for a moment without requests of others before reading all the same.
    pub patience: Duration,
    /// Do not read at all now.
    pub pause: bool,
}

impl Pace {
    /// Nobody else is there.
    pub const FULL: Self =
        Self { request_len: None, depth: None, rest: 0, patience: Duration::ZERO, pause: false };
    /// Not known yet whether somebody is there.
    pub const UNHEARD: Self = Self { pause: true, ..Self::FULL };

    const fn gentle(kib: u32, rest: u32, patience_ms: u64) -> Self {
        let patience = Duration::from_millis(patience_ms);
        Self { request_len: Some(kib << 10), depth: Some(1), rest, patience, pause: false }
    }
}

/// From full speed down. One request at a time on every step but the first, because depth costs the others most. Then it is
/// the number of requests, more than their size: each costs the cores as well as the device, and small ones bring little.
/// Beside the last step a database's latency cannot be told from its own wandering.
const LADDER: [Pace; 8] = [
    Pace::FULL,
    Pace::gentle(512, 0, 1),
    Pace::gentle(256, 0, 2),
    Pace::gentle(256, 1, 4),
    Pace::gentle(256, 3, 16),
    Pace::gentle(256, 7, 32),
    Pace::gentle(256, 15, 100),
    Pace::gentle(256, 31, 1000),
];
/// The last step. There it begins when somebody appears: what it may take is found from below.
const GENTLEST: usize = LADDER.len() - 1;
/// Where it stays when it cannot see.
const BLIND_STEP: usize = 5;

/// A mean that remembers.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    requests: f64,
}

impl Mean {
    fn add(&mut self, class: Class) {
        self.sum += class.time.as_secs_f64();
        self.requests += to_f64(class.requests);
    }

    fn value(self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.sum / self.requests)
    }

    fn fade(&mut self, keep: f64) {
        self.sum *= keep;
        self.requests *= keep;
    }
}

/// What is known of one device's others: per class what they have alone and what they have beside us.
#[derive(Debug, Clone, Default)]
struct Ear {
    alone: [Mean; 3],
    beside: [Mean; 3],
}

impl Ear {
    fn hear(&mut self, others: &Others, listening: bool) {
        let means = if listening { &mut self.alone } else { &mut self.beside };
        for (mean, class) in means.iter_mut().zip(others.classes()) {
            mean.add(class);
        }
    }

    /// How much slower the others are beside us, over all classes by their number; `None` when too little was heard.
    fn ratio(&self, target: Target) -> Option<f64> {
        let (mut weighted, mut heard) = (0.0, 0.0);
        for (alone, beside) in self.alone.iter().zip(&self.beside) {
            let allowed = match target {
                Target::Auto => alone.value().map(|alone| alone * AUTO_RATIO),
                Target::Time(time) => Some(time.as_secs_f64()),
            };
            if let (Some(allowed), Some(now)) = (allowed, beside.value()) {
                // A clock of milliseconds can show zero for fast devices.
                weighted += beside.requests * now / allowed.max(1e-6);
                heard += beside.requests;
            }
        }
        (heard >= ENOUGH).then(|| weighted / heard)
    }

    fn fade_beside(&mut self, keep: f64) {
        self.beside.iter_mut().for_each(|mean| mean.fade(keep));
    }

    fn fade_alone(&mut self) {
        self.alone.iter_mut().for_each(|mean| mean.fade(1.0 - BASELINE_WEIGHT));
    }
}

/// The loop over all devices below a source.
#[derive(Debug, Clone)]
pub struct LatencyLoop {
    target: Target,
    ears: Vec<Ear>,
    level: usize,
    /// Requests of others lately, leaking away within [`MEMORY`].
    presence: f64,
    active: bool,
    blind: bool,
    /// The pause under way is the first since they came.
    just_came: bool,
    last_heard: Duration,
    listening_until: Option<Duration>,
    next_listen: Duration,
    next_decision: Duration,
    calm: u32,
    /// Calm decisions that the next step back takes: doubled by each step that was too much, halved by each that was not,
    /// because every try is paid by the others.
    calm_wanted: u32,
    last: Duration,
}

impl LatencyLoop {
    /// For so many devices, from `now` on.
    #[must_use]
    pub fn new(target: Target, devices: usize, now: Duration) -> Self {
        Self {
            target,
            ears: vec![Ear::default(); devices],
            level: 0,
            presence: 0.0,
            active: false,
            blind: false,
            just_came: false,
            last_heard: now,
            listening_until: None,
            next_listen: now,
            next_decision: now,
            calm: 0,
            calm_wanted: *CALM_DECISIONS.start(),
            last: now,
        }
    }

    /// Another target from now on.
    pub fn set_target(&mut self, target: Target) {
        self.target = target;
    }

    /// The device's statistics do not show our own reads: they cannot be trusted to show others'.
    pub fn set_blind(&mut self) {
        self.blind = true;
    }

    /// Whether that was said.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// Whether others are using the device.
    #[must_use]
    pub fn somebody_is_there(&self) -> bool {
        self.active
    }

    /// Takes what each device did since the last call and says how to read until the next.
    pub fn observe(&mut self, now: Duration, others: &[Others]) -> Pace {
        let elapsed = now.saturating_sub(self.last);
        self.last = now;
        if self.blind {
            return LADDER[BLIND_STEP];
        }
        self.notice(now, elapsed, others);
        if !self.active {
            return LADDER[0];
        }
        let listening = self.listening_until.is_some();
        for (ear, others) in self.ears.iter_mut().zip(others) {
            ear.hear(others, listening);
        }
        if let Some(until) = self.listening_until {
            if now < until {
                return self.pause();
            }
            if std::mem::take(&mut self.just_came) && now.saturating_sub(self.last_heard) > LISTEN_FIRST / 2 {
                self.presence = self.presence.min(PRESENCE_AFTER_BURST);
            }
            self.listening_until = None;
            self.next_listen = now + LISTEN_EVERY;
            self.next_decision = now + DECIDE_EVERY;
            return LADDER[self.level];
        }
        if now >= self.next_decision {
            self.next_decision = now + DECIDE_EVERY;
            self.decide(others);
        }
        if now >= self.next_listen {
            self.ears.iter_mut().for_each(Ear::fade_alone);
            self.listening_until = Some(now + LISTEN_FOR);
            return self.pause();
        }
        LADDER[self.level]
    }

    fn pause(&self) -> Pace {
        Pace { pause: true, ..LADDER[self.level] }
    }

    /// Presence and absence of others.
    fn notice(&mut self, now: Duration, elapsed: Duration, others: &[Others]) {
        let fade = (elapsed.as_secs_f64() / MEMORY.as_secs_f64()).min(1.0);
        let seen = others.iter().map(Others::requests).max().unwrap_or(0);
        self.presence = (self.presence * (1.0 - fade) + to_f64(seen)).min(PRESENCE_MAX);
        let waiting = others.iter().any(|others| others.waiting > 0);
        if waiting {
            // Requests that do not end are presence too, or a stalled device would look like an idle one.
            self.presence = self.presence.max(2.0);
        }
        if waiting || seen > 0 {
            self.last_heard = now;
        }
        if !self.active && self.presence >= ACTIVE_REQUESTS {
            self.active = true;
            // What was heard long ago, or beside our full speed, says nothing.
            self.ears.iter_mut().for_each(|ear| *ear = Ear::default());
            self.level = GENTLEST;
            self.calm = 0;
            self.calm_wanted = *CALM_DECISIONS.start();
            self.just_came = true;
            self.listening_until = Some(now + LISTEN_FIRST);
        } else if self.active && self.presence < GONE_REQUESTS {
            self.active = false;
            self.level = 0;
            self.listening_until = None;
        }
    }

    fn decide(&mut self, others: &[Others]) {
        let ratio = self.ears.iter().filter_map(|ear| ear.ratio(self.target)).reduce(f64::max);
        let stalled = others.iter().any(|others| others.waiting > 0 && others.requests() == 0);
        match ratio {
            Some(ratio) if ratio > 1.5 => self.give_way(2),
            Some(ratio) if ratio > 1.0 => self.give_way(1),
            None if stalled => self.give_way(1),
            Some(_) => self.calm += 1,
            None => {}
        }
        if self.calm >= self.calm_wanted && self.level > 1 {
            self.calm_wanted = (self.calm_wanted / 2).max(*CALM_DECISIONS.start());
            self.go_to(self.level - 1);
        } else {
            self.ears.iter_mut().for_each(|ear| ear.fade_beside(0.5));
        }
    }

    fn give_way(&mut self, steps: usize) {
        if self.level < GENTLEST {
            self.calm_wanted = (self.calm_wanted * 2).min(*CALM_DECISIONS.end());
        }
        self.go_to((self.level + steps).min(GENTLEST));
    }

    fn go_to(&mut self, level: usize) {
        self.level = level;
        self.calm = 0;
        // Means of another pace say nothing of this one.
        self.ears.iter_mut().for_each(|ear| ear.fade_beside(0.0));
    }
}
