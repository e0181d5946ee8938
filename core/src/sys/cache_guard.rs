//! Reading through the page cache and leaving it as it was: what was not there before is given back afterwards.
//!
//! Whether a page was there must be asked before anything could have brought it in, and the kernel reads ahead: a mark
//! left by somebody else's read starts it even on a descriptor that asked for none. So residency is recorded well ahead
//! of the reads. If read-ahead reached further than `AHEAD`, some pages would stay that were not there before.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::files;

/// Bytes whose residency is recorded together.
const CHUNK: u64 = 4 << 20;
/// Chunks recorded ahead of a read, and kept behind one for threads that lag.
const AHEAD: u64 = 16;

/// Remembers, for a window around the reads, which pages the cache did not hold.
#[derive(Debug, Default)]
pub struct CacheGuard {
    absent: Mutex<BTreeMap<u64, Vec<Range<u64>>>>,
    /// Ranges that the kernel did not give back yet: pages that are still being read ahead are left alone.
    staying: Mutex<Vec<Range<u64>>>,
}

impl CacheGuard {
    /// Ranges of `offset .. offset + len` to give back after they were read.
    pub fn before(&self, file: &File, offset: u64, len: usize) -> Vec<Range<u64>> {
        let end = offset + len as u64;
        let (first, last) = (offset / CHUNK, end / CHUNK);
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in first..=last + AHEAD {
            absent.entry(chunk).or_insert_with(|| files::absent_pages(file, chunk * CHUNK, CHUNK));
        }
        *absent = absent.split_off(&first.saturating_sub(AHEAD));
        let ranges = absent.range(first..=last).flat_map(|(_, ranges)| ranges);
        let clipped = ranges.map(|range| range.start.max(offset)..range.end.min(end.next_multiple_of(4096)));
        clipped.filter(|range| range.start < range.end).collect()
    }

    /// Gives the ranges back, and those that stayed before.
    pub fn after(&self, file: &File, ranges: Vec<Range<u64>>) {
        let mut staying = self.staying.lock().unwrap_or_else(PoisonError::into_inner);
        staying.extend(ranges);
        files::drop_pages(file, &staying);
        staying.retain(|range| {
            let absent = files::absent_pages(file, range.start, range.end - range.start);
            absent.iter().map(|absent| absent.end - absent.start).sum::<u64>() < range.end - range.start
        });
    }
}
