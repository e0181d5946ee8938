//! What others do on the devices below a source: the devices' statistics less our own part.
//!
//! Bytes are the truth: the kernel counts every sector of ours, however requests are split or merged on their way, so
//! others are there when more bytes passed than we asked for. Numbers and latencies of requests are estimates on top of
//! that. While requests of ours are in flight the true sum lies between "all of them were counted" and "none was"; the
//! estimate moves only as far as these bounds force it. Where we use a file system on the device, the kernel's own account
//! of this process takes the place of ours, and what its journal does for our syncs is allowed for: a backup next to its
//! source would else give way to itself. If a device did not count our reads at all it could not be trusted to count
//! others': that is told as blindness.

use std::path::Path;
use std::time::Duration;

use super::account::{Account, Credit, OwnFiles};
use super::latency::{Class, Others};
use super::to_f64;
use crate::sys::queue_stats::{Counters, Queue, QueueWatch, queues_under};

/// A device that has counted less than a quarter of so many bytes of ours is blind to us.
const BLIND_AFTER: u64 = 64 << 20;

/// Requests are taken to be at least so long, as the pages of caches and databases are. How many requests others made is
/// estimated within the bytes that they certainly moved: without this, one read of a file system's table, beside a hundred
/// of ours, would pass for eight.
const REQUEST_MIN: u64 = 4096;

/// What we have asked of the source since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own {
    /// Bytes and requests that were begun.
    pub begun_bytes: u64,
    /// Bytes of requests that have ended.
    pub done_bytes: u64,
    /// Requests that have ended.
    pub done_requests: u64,
    /// The sum of their latencies, as seen from here: a little more than what the device counts.
    pub done_time: Duration,
}

impl Own {
    fn in_flight(&self) -> u64 {
        self.begun_bytes.saturating_sub(self.done_bytes)
    }

    /// What ended since an earlier reading.
    fn ended_since(&self, before: &Self) -> Ended {
        Ended {
            bytes: self.done_bytes.saturating_sub(before.done_bytes),
            requests: self.done_requests.saturating_sub(before.done_requests),
            time: self.done_time.saturating_sub(before.done_time),
        }
    }
}

/// Requests of ours that ended between two readings.
struct Ended {
    bytes: u64,
    requests: u64,
    time: Duration,
}

/// One device.
struct Device {
    queue: Queue,
    watch: QueueWatch,
    first: Counters,
    last: Counters,
    others_bytes: CertainBytes,
    unsure: Unsure,
    /// Seconds by which we see a request of ours take longer than the device does.
    lag: f64,
    /// There where this run writes to a file system on the device.
    own_files: Option<OwnFiles>,
    /// Bytes that we have fetched through the page cache and that it has not counted yet.
    read_credit: Credit,
}

/// Reads since it was last certain whether others read: what the device counted, and what we know of ours. Others' requests
/// may be counted long before their bytes are certain.
#[derive(Default)]
struct Unsure {
    all: Class,
    ours: Class,
    /// Requests that the device counts for ours: long ones are split on their way.
    split: u64,
}

impl Unsure {
    fn add(&mut self, all: Class, ours: Class, split: u64) {
        self.all.add(all);
        self.ours.add(ours);
        self.split = self.split.saturating_add(split);
    }

    /// Others' part, now that so many bytes of theirs are certain. `lag` is what a request of ours takes longer as seen
    /// from here than by the device, in seconds.
    fn others(self, bytes: u64, lag: f64) -> Class {
        let lag = Duration::try_from_secs_f64(lag.max(0.0) * to_f64(self.ours.requests)).unwrap_or_default();
        let our_time = self.ours.time.saturating_sub(lag);
        let requests = self.all.requests.saturating_sub(self.split).clamp(1, (bytes / REQUEST_MIN).max(1));
        Class { requests, time: self.all.time.saturating_sub(our_time) }
    }
}

/// All devices below a source.
pub struct Observer {
    devices: Vec<Device>,
    /// The source is a device itself: what we read from it must appear in its statistics.
    counts_all: bool,
    last_own: Own,
    /// Reads pass the page cache: what the process fetched is known afterwards only.
    cached_reads: bool,
    first_account: Account,
    last_account: Account,
    /// What the process fetched between the last two readings without a stage that tells: it may be on its way still.
    untold: u64,
    /// What [`Observer::look`] found and [`Observer::read`] has not told yet, device by device.
    found: Vec<Others>,
}

/// Bytes of ours that a device may have counted.
#[derive(Clone, Copy)]
struct Ours {
    /// At most these.
    begun: u64,
    /// All but these for sure.
    in_flight: u64,
}

impl Observer {
    /// Watches what is below `source`; writes of this process to file systems on the same devices as `own_writes` are
    /// not taken for others'. With `cached_reads` our reads are those that the kernel accounts to this process, read-ahead
    /// included, and not those that the stages tell.
    #[must_use]
    pub fn new(source: &Path, own_writes: Option<&Path>, cached_reads: bool) -> Self {
        let account = Account::now();
        let shared = own_writes.map(queues_under).unwrap_or_default();
        let watch = |queue: Queue| {
            let watch = queue.watch().ok()?;
            let now = watch.counters().ok()?;
            let ours = shared.iter().any(|other| other.number == queue.number);
            Some(Device {
                queue,
                watch,
                first: now,
                last: now,
                others_bytes: CertainBytes::default(),
                unsure: Unsure::default(),
                lag: 0.0,
                own_files: ours.then(OwnFiles::default),
                read_credit: Credit::default(),
            })
        };
        let devices = queues_under(source).into_iter().filter_map(watch).collect();
        let counts_all =
            !cached_reads && crate::sys::block_device::number_of(source).ok().flatten().is_some();
        Self { counts_all, cached_reads, ..Self::over(devices, account) }
    }

    /// Watches nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::over(Vec::new(), Account::now())
    }

    fn over(devices: Vec<Device>, account: Account) -> Self {
        Self {
            devices,
            counts_all: false,
            last_own: Own::default(),
            untold: 0,
            found: Vec::new(),
            cached_reads: false,
            first_account: account,
            last_account: account,
        }
    }

    /// How many devices are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// The queues, the source's own first.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.devices.iter().map(|device| &device.queue)
    }

    /// Whether the source's own statistics do not show what we read.
    #[must_use]
    pub fn is_blind(&self, own: &Own) -> bool {
        let Some(first) = self.devices.first().filter(|_| self.counts_all) else { return false };
        let counted = first.last.read_bytes.saturating_sub(first.first.read_bytes);
        own.done_bytes >= BLIND_AFTER && counted < own.done_bytes / 4
    }

    /// A second look at the same devices, which needs no lock of this one.
    #[must_use]
    pub fn glance(&self) -> Glance {
        let glance = |device: &Device| Some((device.queue.watch().ok()?, device.own_files.is_some()));
        Glance(self.devices.iter().filter_map(glance).collect())
    }

    /// Whether a moment without requests of ours tells more than any other.
    #[must_use]
    pub fn hears_more_alone(&self) -> bool {
        !self.cached_reads && !self.devices.is_empty()
    }

    /// Looks at once, for the next [`Observer::read`] to tell.
    pub fn look(&mut self, own: impl Fn() -> Own) {
        self.found = self.read(own);
    }

    /// What others did since the last call, device by device.
    pub fn read(&mut self, own: impl Fn() -> Own) -> Vec<Others> {
        let mut others = std::mem::take(&mut self.found);
        let seen = self.measure(own);
        others.resize(seen.len(), Others::default());
        others.iter_mut().zip(&seen).for_each(|(others, seen)| others.add(seen));
        others
    }

    /// `own` is asked before and after the devices are read, and the kernel's account between, so that the bounds hold: what
    /// had ended before was counted, what was begun after was not.
    fn measure(&mut self, own: impl Fn() -> Own) -> Vec<Others> {
        let early = own();
        let looks: Vec<_> = self.devices.iter().map(|device| device.look(&early).ok()).collect();
        let account = Account::now();
        let late = own();
        let own = Own { begun_bytes: late.begun_bytes, ..early };
        let before = std::mem::replace(&mut self.last_own, own);
        let fresh = account.since(std::mem::replace(&mut self.last_account, account));
        let read_by_us = account.since(self.first_account).read_bytes;
        let untold = fresh.read_bytes.saturating_sub(own.begun_bytes.saturating_sub(before.begun_bytes));
        let untold = untold.saturating_add(std::mem::replace(&mut self.untold, untold));
        let (cached_reads, counts_all) = (self.cached_reads, self.counts_all);
        let devices = self.devices.iter_mut().zip(looks);
        let others = devices.map(|(device, look)| {
            let Some(look) = look else { return Others::default() };
            // Where nothing but the source is read, what was asked of it is known sooner and says the same.
            let by_kernel = read_by_us > 0 && (device.own_files.is_some() || !counts_all);
            let ours = if by_kernel {
                Ours { begun: read_by_us, in_flight: own.in_flight().saturating_add(untold) }
            } else {
                Ours { begun: own.begun_bytes, in_flight: own.in_flight() }
            };
            device.read(look, &before, &own, ours, cached_reads, fresh)
        });
        others.collect()
    }
}

/// Others' bytes since the start, as far as they are certain; below zero where a cache gave us what a device never saw.
#[derive(Default)]
struct CertainBytes(i128);

impl CertainBytes {
    /// How many more it has become when the device has counted so many.
    fn grow(&mut self, counted: u64, ours: Ours) -> u64 {
        let least = i128::from(counted) - i128::from(ours.begun);
        let most = least + i128::from(ours.in_flight);
        let before = self.0;
        self.0 = before.clamp(least, most);
        u64::try_from(self.0 - before).unwrap_or(0)
    }
}

/// Looks whether anything is under way: what a request does before it begins.
#[derive(Default)]
pub struct Glance(Vec<(QueueWatch, bool)>);

impl Glance {
    /// Requests under way on any device, those in its scheduler too; only others' while we have none. Of a device that we
    /// write to ourselves reads alone tell.
    #[must_use]
    pub fn somebody_waits(&self) -> bool {
        self.0.iter().any(|(watch, we_write)| waiting(watch, *we_write).is_ok_and(|requests| requests > 0))
    }
}

fn waiting(watch: &QueueWatch, reads_alone: bool) -> std::io::Result<u64> {
    if reads_alone {
        watch.in_flight().map(|(reads, _)| u64::from(reads))
    } else {
        watch.counters().map(|now| now.in_flight)
    }
}

impl Device {
    /// Its counters, and the requests under way on it, which are others' unless some of ours are.
    fn look(&self, own: &Own) -> std::io::Result<(Counters, u64)> {
        let now = self.watch.counters()?;
        let ask = own.in_flight() == 0 && self.own_files.is_some();
        let waiting = if ask { waiting(&self.watch, true)? } else { now.in_flight };
        Ok((now, waiting))
    }

    fn read(
        &mut self,
        (now, waiting): (Counters, u64),
        before: &Own,
        own: &Own,
        ours: Ours,
        cached_reads: bool,
        fresh: Account,
    ) -> Others {
        let last = std::mem::replace(&mut self.last, now);
        let all = added([last.reads, now.reads], [last.read_time, now.read_time]);
        let reads = if cached_reads {
            self.read_credit.give(fresh.read_bytes);
            self.read_credit.take_off(all, now.read_bytes.saturating_sub(last.read_bytes)).0
        } else {
            let counted = now.read_bytes.saturating_sub(self.first.read_bytes);
            let others_bytes = self.others_bytes.grow(counted, ours);
            self.others_reads(all, &own.ended_since(before), others_bytes, ours.in_flight == 0)
        };
        let (writes, flushes) = self.others_writes(&last, &now, fresh);
        Others { reads, writes, flushes, waiting: if own.in_flight() == 0 { waiting } else { 0 } }
    }

    /// Others' part of all reads since the last reading; `certain`: none of ours is under way that could be among them.
    fn others_reads(&mut self, all: Class, ended: &Ended, others_bytes: u64, certain: bool) -> Class {
        let ours = Class { requests: ended.requests, time: ended.time };
        let split = match self.queue.max_request_len {
            0 => ours.requests,
            len => ended.bytes.div_ceil(len).max(ours.requests),
        };
        self.unsure.add(all, ours, split);
        if others_bytes == 0 {
            if ours.requests > 0 && all.requests > 0 {
                self.learn_lag(ours.time, all.time, ours.requests);
            }
            if certain {
                self.unsure = Unsure::default();
            }
            return Class::default();
        }
        std::mem::take(&mut self.unsure).others(others_bytes, self.lag)
    }

    /// While nobody else reads, the device's own account of our requests shows what waking up costs us.
    fn learn_lag(&mut self, our_time: Duration, time: Duration, ours: u64) {
        let seen = (our_time.as_secs_f64() - time.as_secs_f64()) / to_f64(ours);
        self.lag += 0.1 * (seen - self.lag);
    }

    /// Others' writes and flushes since the last reading.
    fn others_writes(&mut self, last: &Counters, now: &Counters, fresh: Account) -> (Class, Class) {
        let writes = added([last.writes, now.writes], [last.write_time, now.write_time]);
        let flushes = added([last.flushes, now.flushes], [last.flush_time, now.flush_time]);
        let bytes = now.write_bytes.saturating_sub(last.write_bytes);
        match &mut self.own_files {
            Some(own) => own.take_off(writes, bytes, flushes, fresh),
            None => (writes, flushes),
        }
    }
}

/// What came between two readings of a device's counters.
fn added([last, now]: [u64; 2], [time_before, time]: [Duration; 2]) -> Class {
    Class { requests: now.saturating_sub(last), time: time.saturating_sub(time_before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(requests: u64) -> Class {
        Class { requests, time: Duration::from_millis(requests) }
    }

    #[test]
    fn reads_of_ours_on_their_way_are_not_others() {
        let mut others = CertainBytes::default();
        let mut grow = |counted, begun, in_flight| others.grow(counted, Ours { begun, in_flight });
        assert_eq!(grow(60 << 20, 64 << 20, 4 << 20), 0);
        // A file of ours is read ahead through the page cache: begun, and counted two readings later.
        assert_eq!(grow(64 << 20, 65 << 20, 1 << 20), 0);
        assert_eq!(grow(64 << 20, 65 << 20, 1 << 20), 0);
        assert_eq!(grow(65 << 20, 65 << 20, 0), 0);
        // Others, beside us and alone.
        assert_eq!(grow((67 << 20) + 8192, 67 << 20, 0), 8192);
        assert_eq!(grow((67 << 20) + 16384, 68 << 20, 1 << 20), 0, "it may be ours");
        assert_eq!(grow((68 << 20) + 16384, 68 << 20, 0), 8192, "it was not");
    }

    #[test]
    fn requests_that_hid_among_ours_are_told_when_their_bytes_are_certain() {
        let hidden = || {
            let mut unsure = Unsure::default();
            (0..10).for_each(|_| unsure.add(class(42), class(40), 40));
            unsure
        };
        assert_eq!(hidden().others(20 * 8192, 0.0), class(20));
        // No more than their bytes can be, however ours were split on their way; but somebody was there.
        assert_eq!(hidden().others(2 * REQUEST_MIN, 0.0).requests, 2);
        assert_eq!(hidden().others(512, 0.0).requests, 1);
    }

    #[test]
    fn a_cache_that_gives_us_much_hides_no_others() {
        let mut others = CertainBytes::default();
        assert_eq!(others.grow(0, Ours { begun: 1 << 30, in_flight: 0 }), 0);
        assert_eq!(others.grow(8192, Ours { begun: 1 << 30, in_flight: 0 }), 8192);
    }
}
