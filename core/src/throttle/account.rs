//! What the kernel accounts to this process, and what of a device's work that explains.
//!
//! Where we write to a file system on a watched device, or read through the page cache, the device counts our bytes later
//! than the process asked for them: they are credit until then. A file system also works for our syncs, which nobody
//! accounts to us, so each sync is allowed a little. Too little, and a backup gives way to itself; too much, and it hides
//! others: what was not used is soon forgotten.

use super::latency::Class;
use super::to_f64;
use crate::sys::{files, host};

/// What a file system does at most for one sync of ours, besides writing the data: flushes, and bytes of its journal and
/// tables. ext4, XFS and btrfs do less.
const FLUSHES_PER_SYNC: u64 = 4;
const JOURNAL_PER_SYNC: u64 = 256 << 10;
/// Of so many syncs that is remembered; without a bound, what they did not use would hide others for ever.
const SYNCS_REMEMBERED: u64 = 8;

/// What this process makes a file system do, and its device has not counted yet.
#[derive(Default)]
pub struct OwnFiles {
    writes: Credit,
    journal: Credit,
    flushes: u64,
}

/// What the kernel accounts to this process.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub syncs: u64,
}

impl Account {
    /// As it is now.
    pub fn now() -> Self {
        let (read_bytes, write_bytes) = host::storage_bytes();
        Self { read_bytes, write_bytes, syncs: files::syncs() }
    }

    /// What came since an earlier one.
    pub fn since(self, before: Self) -> Self {
        Self {
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
            syncs: self.syncs.saturating_sub(before.syncs),
        }
    }
}

impl OwnFiles {
    /// What is left to others of writes with so many bytes, and of flushes.
    pub fn take_off(&mut self, writes: Class, bytes: u64, flushes: Class, fresh: Account) -> (Class, Class) {
        let syncs = fresh.syncs.min(SYNCS_REMEMBERED);
        self.flushes = (self.flushes + syncs * FLUSHES_PER_SYNC).min(SYNCS_REMEMBERED * FLUSHES_PER_SYNC);
        self.journal.0 = (self.journal.0 + syncs * JOURNAL_PER_SYNC).min(SYNCS_REMEMBERED * JOURNAL_PER_SYNC);
        self.writes.give(fresh.write_bytes);
        // A flush with nothing to write is counted as a write of no bytes too.
        let empty = if bytes == 0 { writes.requests.min(self.flushes) } else { 0 };
        let our_flushes = flushes.requests.min(self.flushes);
        self.flushes -= our_flushes;
        let (writes, bytes) = self.writes.take_off(less(writes, empty), bytes);
        let (writes, _) = self.journal.take_off(writes, bytes);
        (writes, less(flushes, our_flushes))
    }
}

/// What is left of a class without so many of its requests.
fn less(all: Class, requests: u64) -> Class {
    if requests == 0 {
        return all;
    }
    let left = all.requests.saturating_sub(requests);
    Class { requests: left, time: all.time.mul_f64(to_f64(left) / to_f64(all.requests.max(1))) }
}

/// Bytes of ours, by the kernel's account of this process, that a device has not counted yet.
#[derive(Default)]
pub struct Credit(u64);

impl Credit {
    /// So many bytes more.
    pub fn give(&mut self, bytes: u64) {
        self.0 = self.0.saturating_add(bytes);
    }

    /// What is left to others of requests with so many bytes, and of these.
    pub fn take_off(&mut self, all: Class, bytes: u64) -> (Class, u64) {
        let ours = bytes.min(self.0);
        self.0 -= ours;
        if ours == 0 {
            return (all, bytes);
        }
        let theirs = to_f64(bytes - ours) / to_f64(bytes);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
        let requests = (to_f64(all.requests) * theirs).round() as u64;
        (Class { requests, time: all.time.mul_f64(theirs) }, bytes - ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn class(requests: u64) -> Class {
        Class { requests, time: Duration::from_millis(requests) }
    }

    fn fresh(write_bytes: u64, syncs: u64) -> Account {
        Account { read_bytes: 0, write_bytes, syncs }
    }

    #[test]
    fn what_our_syncs_make_a_file_system_do_is_not_others() {
        let mut own = OwnFiles::default();
        // The data, whenever the device counts it, then the journal and its flushes.
        assert_eq!(own.take_off(class(0), 0, class(0), fresh(8 << 20, 0)), (class(0), class(0)));
        assert_eq!(own.take_off(class(8), 8 << 20, class(0), fresh(0, 0)), (class(0), class(0)));
        assert_eq!(own.take_off(class(3), 64 << 10, class(2), fresh(0, 1)), (class(0), class(0)));
        // A flush that had nothing to write.
        assert_eq!(own.take_off(class(1), 0, class(1), fresh(0, 1)), (class(0), class(0)));
    }

    #[test]
    fn others_are_seen_beside_it() {
        let mut own = OwnFiles::default();
        let (writes, flushes) = own.take_off(class(100), 100 << 20, class(50), fresh(50 << 20, 1));
        assert!((49..=51).contains(&writes.requests), "{writes:?}");
        assert_eq!(flushes.requests, 50 - FLUSHES_PER_SYNC);
        // What syncs did not use is kept for the next ones only.
        for _ in 0..1000 {
            own.take_off(class(0), 0, class(0), fresh(0, 1));
        }
        let (writes, flushes) = own.take_off(class(100), 100 << 20, class(100), fresh(0, 0));
        assert!(writes.requests >= 95, "{writes:?}");
        assert_eq!(flushes.requests, 100 - SYNCS_REMEMBERED * FLUSHES_PER_SYNC);
    }
}
