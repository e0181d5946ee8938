//! A pass that goes on where an interrupted one was, and leaves marks from which the next one could.
//!
//! ```text
//! durable prefix of the old delta -> frames and entries, copied -> the new delta
//!                                 -> digests of the blocks passed -> root, table, counts
//! then the source, from the first block that was not passed
//! ```
//! A block that the prefix does not speak of is what it was in the parent. That is proven as the interrupted run has proven
//! it: by reading, or by the hint that let it be skipped; the marks in the table say which.

use std::time::{Duration, Instant};

use super::collector::Collector;
use crate::delta::prefix::DeltaPrefix;
use crate::delta::writer::Reached;
use crate::digest::BlockDigest;
use crate::error::{Error, Result};
use crate::flow::DeltaMessage;
use crate::format::index::{GrainsEntry, IndexEntry};
use crate::geometry::BlockIndex;
use crate::hint::block_set::BlockSet;

/// How often a run makes durable what it has stored.
const EVERY: Duration = Duration::from_secs(3);
/// How long an interrupted run waits for its last mark, and between two looks.
const LAST_MARK: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(5);

/// What a backup asks of a pass beyond what a scan does.
#[derive(Clone, Copy, Default)]
pub struct Extras<'a> {
    /// Blocks whose stored bytes in the parent are damaged.
    pub damaged: Option<&'a BlockSet>,
    /// What an interrupted run has passed.
    pub taken_over: Option<TakenOver<'a>>,
    /// Whoever notes how far this run has come.
    pub checkpoints: Option<&'a dyn Checkpoints>,
}

impl Extras<'_> {
    /// The first block to be read.
    pub fn first_block(&self) -> BlockIndex {
        self.taken_over.map_or(0, |taken| taken.next)
    }
}

/// What an interrupted run has passed.
#[derive(Clone, Copy)]
pub struct TakenOver<'a> {
    pub prefix: &'a DeltaPrefix,
    /// All blocks before this one.
    pub next: BlockIndex,
    /// It read every one of them.
    pub read_all: bool,
}

/// Notes how far a run has come.
pub trait Checkpoints: Sync {
    /// So far the delta is.
    fn save(&self, reached: Reached);
    /// How far it was told.
    fn saved(&self) -> BlockIndex;
    /// Nobody may go on from what this run has stored.
    fn forget(&self);
}

/// When the next mark is due.
pub struct Due(Instant);

impl Due {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Whether it is time; it counts from now on again.
    pub fn now(&mut self) -> bool {
        let due = self.0.elapsed() >= EVERY;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

impl Collector<'_> {
    /// Begins where an interrupted run was, if there is one to go on from.
    pub fn begin(&mut self, taken: Option<&TakenOver<'_>>) -> Result<()> {
        let frames = taken.map_or(Ok(0), |taken| self.take_over(taken))?;
        let next = taken.map_or(0, |taken| taken.next);
        self.delta.as_ref().map_or(Ok(()), |delta| delta.begin(next, frames))
    }

    /// Takes over what it has passed; returns how many frames that are.
    fn take_over(&mut self, taken: &TakenOver<'_>) -> Result<u64> {
        let mut next = 0;
        let frames = taken.prefix.walk(|message| {
            if let DeltaMessage::Entry(entry) = &message {
                let (first, count) = entry.span();
                self.inherit(next, first, taken.read_all)?;
                self.inherit_entry(entry, taken.read_all)?;
                self.progress.add_done(self.geometry.span_len(first, count));
                next = first + count;
            }
            self.send(message)
        })?;
        if next > taken.next {
            return Err(Error::damaged("the unfinished delta has come further than its note says"));
        }
        self.inherit(next, taken.next, taken.read_all)?;
        Ok(frames)
    }

    fn send(&self, message: DeltaMessage) -> Result<()> {
        self.delta.as_ref().map_or(Ok(()), |delta| delta.send(message))
    }

    /// Blocks that the interrupted run found as they are in the parent.
    fn inherit(&mut self, first: BlockIndex, end: BlockIndex, read_all: bool) -> Result<()> {
        if end > first && end > self.inherited_blocks() {
            return Err(Error::damaged(
                "the unfinished delta does not speak of a block that the parent lacks",
            ));
        }
        for index in first..end {
            let digest = if read_all { self.table.push_reread()? } else { self.table.push_carried()? };
            self.root.push(digest);
            self.progress.add_done(u64::from(self.geometry.block_len(index)));
        }
        Ok(())
    }

    /// Blocks that it found changed, or healed.
    fn inherit_entry(&mut self, entry: &IndexEntry, read_all: bool) -> Result<()> {
        match entry {
            IndexEntry::Grains(entry) => self.inherit_grains(entry, read_all),
            IndexEntry::Zero { index, len, old } => {
                self.check_old(*index, old)?;
                let grains = u64::from(self.geometry.grains_in(*len));
                self.count_inherited(1, grains, u64::from(*len));
                self.root.push(BlockDigest::ZERO);
                self.table.push_read(BlockDigest::ZERO, false)
            }
            IndexEntry::ZeroRange { first, count } => {
                if self.has_parent {
                    let bytes = self.geometry.span_len(*first, *count);
                    let grains = bytes.div_ceil(u64::from(self.geometry.grain_size()));
                    self.count_inherited(*count, grains, bytes);
                }
                self.root.push_zeros(*count);
                if !read_all {
                    return self.table.push_holes(*count);
                }
                (0..*count).try_for_each(|_| self.table.push_read(BlockDigest::ZERO, false))
            }
        }
    }

    fn inherit_grains(&mut self, entry: &GrainsEntry, read_all: bool) -> Result<()> {
        self.check_old(entry.index, &entry.old)?;
        let healed = entry.whole && entry.old.same(&entry.new) && entry.new != BlockDigest::ZERO;
        if healed {
            self.healed += 1;
        } else {
            let zero = entry.zero.iter().filter(|_| self.has_parent);
            let grains: Vec<u32> = entry.stored.iter().chain(zero).collect();
            let bytes = grains.iter().map(|grain| self.geometry.grain_range(*grain, entry.len).len() as u64);
            self.count_inherited(1, grains.len() as u64, bytes.sum());
        }
        self.root.push(entry.new);
        self.table.push_read(entry.new, healed && read_all)
    }

    fn count_inherited(&mut self, blocks: u64, grains: u64, bytes: u64) {
        self.statistics.blocks_changed += blocks;
        self.statistics.grains_changed += grains;
        self.statistics.bytes_changed += bytes;
        self.progress.add_changed(bytes);
    }

    /// The prefix must have been written against this very parent.
    fn check_old(&self, index: BlockIndex, old: &BlockDigest) -> Result<()> {
        let entry = self.table.parent.map_or(Ok(None), |parent| parent.entry(index))?;
        if entry.map_or(BlockDigest::UNKNOWN, |entry| entry.digest) != *old {
            return Err(Error::damaged("the unfinished delta was made against another state"));
        }
        Ok(())
    }

    /// The last mark of a run that is interrupted: waits a moment until it is noted, for the stages behind end with us.
    pub fn last_mark(&mut self, next: BlockIndex, checkpoints: &dyn Checkpoints) -> Result<()> {
        self.mark(next)?;
        let begun = Instant::now();
        while checkpoints.saved() < next && begun.elapsed() < LAST_MARK {
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }

    /// Tells the delta's writer that all blocks before `next` have been told of; where there are none, nobody could go on.
    pub fn mark(&mut self, next: BlockIndex) -> Result<()> {
        if next == 0 {
            return Ok(());
        }
        self.flush_zero_range()?;
        self.delta.as_mut().map_or(Ok(()), |delta| delta.mark(next))
    }
}
