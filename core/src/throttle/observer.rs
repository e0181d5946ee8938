//! What others do on the devices below a source: the devices' statistics less our own part.
//!
//! Bytes are the truth: the kernel counts every sector of ours, however requests are split or merged on their way, so
//! others are there when more bytes passed than we asked for. Numbers and latencies of requests are estimates on top of
//! that. While requests of ours are in flight the true sum lies between "all of them were counted" and "none was"; the
//! estimate moves only as far as these bounds force it. If a device did not count our reads at all it could not be
//! trusted to count others': that is told as blindness.

use std::path::Path;
use std::time::Duration;

use super::latency::{Class, Others};
use super::to_f64;
use crate::sys::host;
use crate::sys::queue_stats::{Counters, Queue, QueueWatch, queues_under};

/// A device that has counted less than a quarter of so many bytes of ours is blind to us.
const BLIND_AFTER: u64 = 64 << 20;

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
}

/// One device.
struct Device {
    queue: Queue,
    watch: QueueWatch,
    first: Counters,
    last: Counters,
    /// Others' bytes so far, as far as they are certain.
    others_bytes: i128,
    /// Seconds by which we see a request of ours take longer than the device does.
    lag: f64,
    /// Bytes that we have written on this device's file systems and that it has not counted yet.
    write_credit: Option<Credit>,
    /// Bytes that we have fetched through the page cache and that it has not counted yet.
    read_credit: Credit,
}

/// All devices below a source.
pub struct Observer {
    devices: Vec<Device>,
    /// The source is a device itself: what we read from it must appear in its statistics.
    counts_all: bool,
    last_own: Own,
    /// Reads pass the page cache: what the process fetched is known afterwards only.
    cached_reads: bool,
    last_storage: (u64, u64),
}

impl Observer {
    /// Watches what is below `source`; writes of this process to file systems on the same devices as `own_writes` are
    /// not taken for others'. With `cached_reads` our reads are those that the kernel accounts to this process, read-ahead
    /// included, and not those that the stages tell.
    #[must_use]
    pub fn new(source: &Path, own_writes: Option<&Path>, cached_reads: bool) -> Self {
        let shared = own_writes.map(queues_under).unwrap_or_default();
        let watch = |queue: Queue| {
            let watch = queue.watch().ok()?;
            let now = watch.counters().ok()?;
            let ours = shared.iter().any(|other| other.number == queue.number);
            let write_credit = ours.then(Credit::default);
            let read_credit = Credit::default();
            Some(Device {
                queue,
                watch,
                first: now,
                last: now,
                others_bytes: 0,
                lag: 0.0,
                write_credit,
                read_credit,
            })
        };
        Self {
            devices: queues_under(source).into_iter().filter_map(watch).collect(),
            cached_reads,
            counts_all: !cached_reads && crate::sys::block_device::number_of(source).ok().flatten().is_some(),
            last_own: Own::default(),
            last_storage: host::storage_bytes(),
        }
    }

    /// Watches nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            devices: Vec::new(),
            counts_all: false,
            last_own: Own::default(),
            cached_reads: false,
            last_storage: (0, 0),
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
        Glance(self.devices.iter().filter_map(|device| device.queue.watch().ok()).collect())
    }

    /// What others did since the last call, device by device. `own` is asked before and after the devices are read, so
    /// that the bounds hold: what had ended before was counted, what was begun after was not.
    pub fn read(&mut self, own: impl Fn() -> Own) -> Vec<Others> {
        let early = own();
        let counters: Vec<_> = self.devices.iter().map(|device| device.watch.counters().ok()).collect();
        let late = own();
        let own = Own { begun_bytes: late.begun_bytes, ..early };
        let before = std::mem::replace(&mut self.last_own, own);
        let storage = host::storage_bytes();
        let last = std::mem::replace(&mut self.last_storage, storage);
        let fetched = self.cached_reads.then(|| storage.0.saturating_sub(last.0));
        let written = storage.1.saturating_sub(last.1);
        let devices = self.devices.iter_mut().zip(counters);
        devices
            .map(|(device, now)| {
                now.map_or_else(Others::default, |now| device.read(now, &before, &own, fetched, written))
            })
            .collect()
    }
}

/// Looks whether anything is under way: what a request does before it begins.
#[derive(Default)]
pub struct Glance(Vec<QueueWatch>);

impl Glance {
    /// Requests under way on any device, those in its scheduler too; only others' while we have none.
    #[must_use]
    pub fn somebody_waits(&self) -> bool {
        self.0.iter().any(|watch| watch.counters().is_ok_and(|now| now.in_flight > 0))
    }
}

impl Device {
    fn read(&mut self, now: Counters, before: &Own, own: &Own, fetched: Option<u64>, written: u64) -> Others {
        let last = std::mem::replace(&mut self.last, now);
        let reads = if let Some(fetched) = fetched {
            let all = Class {
                requests: now.reads.saturating_sub(last.reads),
                time: now.read_time.saturating_sub(last.read_time),
            };
            self.read_credit.take_off(all, now.read_bytes.saturating_sub(last.read_bytes), fetched)
        } else {
            let others_bytes = self.others_read_bytes(&now, own);
            self.others_reads(&last, &now, before, own, others_bytes)
        };
        let waiting = if own.in_flight() == 0 { now.in_flight } else { 0 };
        Others {
            reads,
            writes: self.others_writes(&last, &now, written),
            flushes: Class {
                requests: now.flushes.saturating_sub(last.flushes),
                time: now.flush_time.saturating_sub(last.flush_time),
            },
            waiting,
        }
    }

    /// Bytes that others have certainly read since the last reading.
    fn others_read_bytes(&mut self, now: &Counters, own: &Own) -> u64 {
        let counted = i128::from(now.read_bytes.saturating_sub(self.first.read_bytes));
        let least = counted - i128::from(own.begun_bytes);
        let most = least + i128::from(own.in_flight());
        let before = self.others_bytes;
        self.others_bytes = before.clamp(least, most);
        u64::try_from(self.others_bytes - before).unwrap_or(0)
    }

    fn others_reads(
        &mut self,
        last: &Counters,
        now: &Counters,
        before: &Own,
        own: &Own,
        others_bytes: u64,
    ) -> Class {
        let requests = now.reads.saturating_sub(last.reads);
        let time = now.read_time.saturating_sub(last.read_time);
        let ours = own.done_requests - before.done_requests;
        let our_time = own.done_time.saturating_sub(before.done_time);
        if others_bytes == 0 {
            if ours > 0 && requests > 0 {
                self.learn_lag(our_time, time, ours);
            }
            return Class::default();
        }
        let lag = Duration::try_from_secs_f64(self.lag.max(0.0) * to_f64(ours)).unwrap_or_default();
        let our_time = our_time.saturating_sub(lag);
        let split = match self.queue.max_request_len {
            0 => ours,
            len => (own.done_bytes - before.done_bytes).div_ceil(len).max(ours),
        };
        let others = requests.saturating_sub(split).clamp(1, (others_bytes / 512).max(1));
        Class { requests: others, time: time.saturating_sub(our_time) }
    }

    /// While nobody else reads, the device's own account of our requests shows what waking up costs us.
    fn learn_lag(&mut self, our_time: Duration, time: Duration, ours: u64) {
        let seen = (our_time.as_secs_f64() - time.as_secs_f64()) / to_f64(ours);
        self.lag += 0.1 * (seen - self.lag);
    }

    fn others_writes(&mut self, last: &Counters, now: &Counters, written: u64) -> Class {
        let requests = now.writes.saturating_sub(last.writes);
        let time = now.write_time.saturating_sub(last.write_time);
        let bytes = now.write_bytes.saturating_sub(last.write_bytes);
        let all = Class { requests, time };
        match &mut self.write_credit {
            Some(credit) => credit.take_off(all, bytes, written),
            None => all,
        }
    }
}

/// Bytes of ours, by the kernel's account of this process, that a device has not counted yet.
#[derive(Default)]
struct Credit(u64);

impl Credit {
    /// What is left to others of `bytes` in these requests, after `fresh` more bytes of ours.
    fn take_off(&mut self, all: Class, bytes: u64, fresh: u64) -> Class {
        self.0 = self.0.saturating_add(fresh);
        let ours = bytes.min(self.0);
        self.0 -= ours;
        if bytes == 0 {
            return all;
        }
        let theirs = to_f64(bytes - ours) / to_f64(bytes);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
        let requests = (to_f64(all.requests) * theirs).round() as u64;
        Class { requests, time: all.time.mul_f64(theirs) }
    }
}
