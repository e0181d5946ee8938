//! How a merged delta is laid out: its index entries, and for each frame of the run whether it is copied as it is or its
//! grains are taken out of it.
//!
//! A frame that is mostly alive and belongs to one or two neighbouring blocks is copied: no decompression, and restoring
//! stays a walk forwards. Of all others (much of them is dead, or they hold a few grains of each of many blocks) the living
//! grains are gathered, in block order, into new frames: a restore over many such frames at once would decompress each of
//! them again and again. Trade-off: a third of a copied frame may be dead, until a later merge finds more of it so.
//!
//! Here only places are told; those who encode fetch the bytes. Grains that are taken out are then proven by their digests;
//! of copied frames the bytes are proven to be those that were written.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam::channel::Sender;

use crate::cancel::CancelToken;
use crate::delta::merged::{BlockPlan, GrainRun, MergedIndex, PartialBlock};
use crate::delta::reader::DeltaReader;
use crate::delta::writer::ChangeCounts;
use crate::digest::{BlockDigest, GrainDigest};
use crate::encoder::FRAME_RAW_TARGET;
use crate::error::Result;
use crate::flow::DeltaMessage;
use crate::format::index::{GrainsEntry, IndexEntry, Piece};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;
use crate::operations::block_builder::wrong_block;
use crate::operations::failure::stopped;
use crate::operations::zero_range::ZeroRange;
use crate::progress::Progress;
use crate::repository::chain::ChainTable;

/// Living bytes in two neighbouring blocks that make a frame worth copying.
const WORTH_COPYING: usize = FRAME_RAW_TARGET / 3 * 2;
/// Copied frames that are remembered: those of the last blocks.
const COPIED_MAX: usize = 256;
/// Entries that may wait for the open frame.
const WAITING_MAX: usize = 4096;
/// The number of a frame that is still open.
const OPEN: u64 = u64::MAX;

/// Which delta of the run, and the offset of the frame in it.
type FrameKey = (usize, u64);

/// How a frame of the new delta comes to be.
pub enum FrameWork {
    /// As it is stored in a delta of the run.
    Copy { number: u64, delta: usize, offset: u64 },
    /// From grains of other frames, laid end to end.
    Gather { number: u64, runs: Vec<TakenRun> },
}

/// Grains that lie end to end in a frame of the run, to be taken out of it.
pub struct TakenRun {
    /// Which delta of the run.
    pub delta: usize,
    /// Offset of the frame in it.
    pub frame: u64,
    /// Where they begin in the frame's raw bytes.
    pub start: usize,
    /// Their bytes.
    pub len: usize,
    /// What they must be.
    pub digests: Vec<GrainDigest>,
}

/// What was laid out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// For the trailer and the record.
    pub changed: ChangeCounts,
    /// Living bytes of copied frames, before compression.
    pub bytes_copied: u64,
    /// Bytes of grains that were gathered.
    pub bytes_encoded: u64,
}

/// What the run says of one block.
struct Spoken {
    index: BlockIndex,
    /// Blocks of zeros from here on, when the run says that of several at once.
    zeros: u64,
    block: Option<PartialBlock>,
}

/// Lays the new delta out, in block order.
pub struct Layout {
    geometry: Geometry,
    index: MergedIndex,
    table: ChainTable,
    below: Option<ChainTable>,
    copied: HashMap<FrameKey, u64>,
    copied_order: VecDeque<FrameKey>,
    next_number: u64,
    open: Vec<TakenRun>,
    open_len: usize,
    /// Entries in order, of which the first points to the open frame.
    waiting: VecDeque<IndexEntry>,
    zero_range: ZeroRange,
    counts: Counts,
    work: Sender<FrameWork>,
    entries: Sender<DeltaMessage>,
}

impl Layout {
    pub fn new(
        deltas: &[Arc<DeltaReader>],
        table: ChainTable,
        below: Option<ChainTable>,
        work: Sender<FrameWork>,
        entries: Sender<DeltaMessage>,
    ) -> Result<Self> {
        let index = MergedIndex::new(deltas)?;
        let geometry = *table.geometry();
        Ok(Self {
            geometry,
            index,
            table,
            below,
            copied: HashMap::new(),
            copied_order: VecDeque::new(),
            next_number: 0,
            open: Vec::new(),
            open_len: 0,
            waiting: VecDeque::new(),
            zero_range: ZeroRange::default(),
            counts: Counts::default(),
            work,
            entries,
        })
    }

    /// All blocks of which the run speaks.
    pub fn run(&mut self, progress: &Progress, cancel: &CancelToken, stop: &CancelToken) -> Result<()> {
        let mut present = self.spoken_from(0)?;
        while let Some(spoken) = present {
            cancel.check()?;
            stop.check()?;
            let end = spoken.index + spoken.zeros.max(1);
            let next = self.spoken_from(end)?;
            match &spoken.block {
                Some(block) => self.block(block, next.as_ref().and_then(|next| next.block.as_ref()))?,
                None => self.zeros(spoken.index, spoken.zeros)?,
            }
            let passed_to = next.as_ref().map_or(self.geometry.block_count(), |next| next.index);
            progress.add_done(self.geometry.span_len(spoken.index, passed_to - spoken.index));
            present = next;
        }
        Ok(())
    }

    /// The next block of which the run speaks.
    fn spoken_from(&mut self, from: BlockIndex) -> Result<Option<Spoken>> {
        let mut from = from;
        loop {
            let Some(index) = self.index.next_spoken(from)? else { return Ok(None) };
            if self.below.is_none() {
                let zeros = self.index.zero_run(index)?;
                if zeros > 0 {
                    return Ok(Some(Spoken { index, zeros, block: None }));
                }
            }
            if let Some(block) = self.index.partial(index)? {
                return Ok(Some(Spoken { index, zeros: 0, block: Some(block) }));
            }
            from = index + 1;
        }
    }

    fn block(&mut self, block: &PartialBlock, next: Option<&PartialBlock>) -> Result<()> {
        let (index, len) = (block.plan.index, block.plan.len);
        let new = self.table.entry(index)?.digest;
        let old = self.old(index)?;
        let same_len = self.below.as_ref().is_none_or(|below| below.geometry().block_len(index) == len);
        if old.same(&new) && same_len && !block.healed {
            return Ok(());
        }
        // Zeros that are inherited in part are said as a whole: then they need nothing from below.
        if new == BlockDigest::ZERO || (block.inherited.is_empty() && block.plan.runs.is_empty()) {
            return self.zero_block(index, len, old, new);
        }
        self.flush_zero_range()?;
        let entry = self.grains(block, next, old, new)?;
        self.put(IndexEntry::Grains(entry))
    }

    /// The digest of a block below the run; unknown where there is none.
    fn old(&mut self, index: BlockIndex) -> Result<BlockDigest> {
        match &mut self.below {
            Some(below) if index < below.geometry().block_count() => Ok(below.entry(index)?.digest),
            _ => Ok(BlockDigest::UNKNOWN),
        }
    }

    fn zero_block(&mut self, index: BlockIndex, len: u32, old: BlockDigest, new: BlockDigest) -> Result<()> {
        if new != BlockDigest::ZERO {
            return Err(wrong_block(
                &self.geometry,
                index,
                "delta and manifest disagree on a block of zeros",
            ));
        }
        if old == BlockDigest::UNKNOWN {
            return self.zeros(index, 1);
        }
        self.flush_zero_range()?;
        self.count(len.div_ceil(self.geometry.grain_size()), u64::from(len));
        self.put(IndexEntry::Zero { index, len, old })
    }

    /// Blocks of zeros that are not below.
    fn zeros(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        for index in first..first + count {
            if self.table.entry(index)?.digest != BlockDigest::ZERO {
                return Err(wrong_block(
                    &self.geometry,
                    index,
                    "delta and manifest disagree on a block of zeros",
                ));
            }
        }
        if self.below.is_some() {
            let bytes = self.geometry.span_len(first, count);
            self.counts.changed.blocks += count;
            self.counts.changed.grains += bytes.div_ceil(u64::from(self.geometry.grain_size()));
            self.counts.changed.bytes += bytes;
        }
        let before = self.zero_range.join(first, count);
        before.map_or(Ok(()), |entry| self.put(entry))
    }

    fn flush_zero_range(&mut self) -> Result<()> {
        let range = self.zero_range.take();
        range.map_or(Ok(()), |entry| self.put(entry))
    }

    fn count(&mut self, grains: u32, bytes: u64) {
        self.counts.changed.blocks += 1;
        self.counts.changed.grains += u64::from(grains);
        self.counts.changed.bytes += bytes;
    }

    fn grains(
        &mut self,
        block: &PartialBlock,
        next: Option<&PartialBlock>,
        old: BlockDigest,
        new: BlockDigest,
    ) -> Result<GrainsEntry> {
        let plan = &block.plan;
        let count = self.geometry.grains_in(plan.len);
        let (mut stored, mut zero) = (GrainSet::empty(count), GrainSet::empty(count));
        (0..count).filter(|grain| !block.inherited.contains(*grain)).for_each(|grain| zero.insert(grain));
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        // Newest first they were found; an entry names its grains in their order.
        let mut runs = plan.runs.clone();
        runs.sort_by_key(|run| run.first);
        for run in &runs {
            for grain in run.first..run.first + run.count {
                stored.insert(grain);
                zero.remove(grain);
            }
            let range = self.geometry.grains_range(run.first, run.count, plan.len);
            bytes += range.len() as u64;
            match self.copy(run, block, next)? {
                Some(frame) => {
                    self.counts.bytes_copied += range.len() as u64;
                    pieces.push(Piece { frame, raw_offset: run.raw_offset, grains: run.count });
                }
                None => self.gather(run, &block.plan, &mut pieces)?,
            }
        }
        // Without anything below there is nothing that a zero could differ from.
        let zeros = if self.below.is_some() { &zero } else { &GrainSet::empty(count) };
        bytes +=
            zeros.iter().map(|grain| self.geometry.grain_range(grain, plan.len).len() as u64).sum::<u64>();
        self.count(stored.count() + zeros.count(), bytes);
        let digests = stored.iter().map(|grain| plan.digests[to_usize(u64::from(grain))]).collect();
        let whole = block.inherited.is_empty();
        Ok(GrainsEntry { index: plan.index, len: plan.len, whole, old, new, stored, zero, pieces, digests })
    }

    /// The number of the run's frame in the new delta, if it is copied.
    fn copy(
        &mut self,
        run: &GrainRun,
        block: &PartialBlock,
        next: Option<&PartialBlock>,
    ) -> Result<Option<u64>> {
        let key = (run.delta, run.frame);
        if let Some(number) = self.copied.get(&key) {
            return Ok(Some(*number));
        }
        let alive = self.alive(key, block) + next.map_or(0, |next| self.alive(key, next));
        if alive < WORTH_COPYING {
            return Ok(None);
        }
        let number = self.take_number();
        self.send(FrameWork::Copy { number, delta: run.delta, offset: run.frame })?;
        self.copied.insert(key, number);
        self.copied_order.push_back(key);
        if self.copied_order.len() > COPIED_MAX
            && let Some(oldest) = self.copied_order.pop_front()
        {
            self.copied.remove(&oldest);
        }
        Ok(Some(number))
    }

    fn alive(&self, key: FrameKey, block: &PartialBlock) -> usize {
        let runs = block.plan.runs.iter().filter(|run| (run.delta, run.frame) == key);
        runs.map(|run| self.geometry.grains_range(run.first, run.count, block.plan.len).len()).sum()
    }

    /// Lays a run's grains into the open frame.
    fn gather(&mut self, run: &GrainRun, plan: &BlockPlan, pieces: &mut Vec<Piece>) -> Result<()> {
        let mut start = to_usize(u64::from(run.raw_offset));
        for grain in run.first..run.first + run.count {
            let len = self.geometry.grain_range(grain, plan.len).len();
            if self.open_len >= FRAME_RAW_TARGET {
                self.close_open(Some(&mut *pieces))?;
            }
            let raw_offset = u32::try_from(self.open_len).unwrap_or(u32::MAX);
            match pieces.last_mut() {
                Some(piece) if piece.frame == OPEN => piece.grains += 1,
                _ => pieces.push(Piece { frame: OPEN, raw_offset, grains: 1 }),
            }
            self.take(run, start, len, plan.digests[to_usize(u64::from(grain))]);
            start += len;
        }
        Ok(())
    }

    /// One grain more for the open frame; it joins its neighbour.
    fn take(&mut self, run: &GrainRun, start: usize, len: usize, digest: GrainDigest) {
        let grain_size = to_usize(u64::from(self.geometry.grain_size()));
        self.open_len += len;
        self.counts.bytes_encoded += len as u64;
        match self.open.last_mut() {
            Some(last)
                if (last.delta, last.frame, last.start + last.len) == (run.delta, run.frame, start)
                    && last.len.is_multiple_of(grain_size) =>
            {
                last.len += len;
                last.digests.push(digest);
            }
            _ => self.open.push(TakenRun {
                delta: run.delta,
                frame: run.frame,
                start,
                len,
                digests: vec![digest],
            }),
        }
    }

    /// Closes the open frame; entries that waited for its number go on, and so do the pieces of the present block.
    fn close_open(&mut self, present: Option<&mut Vec<Piece>>) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let number = self.take_number();
        self.open_len = 0;
        let runs = std::mem::take(&mut self.open);
        self.send(FrameWork::Gather { number, runs })?;
        let settle = |pieces: &mut Vec<Piece>| {
            pieces.iter_mut().filter(|piece| piece.frame == OPEN).for_each(|piece| piece.frame = number);
        };
        if let Some(pieces) = present {
            settle(pieces);
        }
        for mut entry in std::mem::take(&mut self.waiting) {
            if let IndexEntry::Grains(grains) = &mut entry {
                settle(&mut grains.pieces);
            }
            self.tell(entry)?;
        }
        Ok(())
    }

    fn put(&mut self, entry: IndexEntry) -> Result<()> {
        let open = matches!(&entry, IndexEntry::Grains(entry) if entry.pieces.iter().any(|piece| piece.frame == OPEN));
        if self.waiting.is_empty() && !open {
            return self.tell(entry);
        }
        self.waiting.push_back(entry);
        if self.waiting.len() >= WAITING_MAX { self.close_open(None) } else { Ok(()) }
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn send(&self, work: FrameWork) -> Result<()> {
        self.work.send(work).map_err(|_| stopped())
    }

    fn tell(&self, entry: IndexEntry) -> Result<()> {
        self.entries.send(DeltaMessage::Entry(entry)).map_err(|_| stopped())
    }

    /// What is left; the stages behind end when this is gone.
    pub fn finish(mut self) -> Result<Counts> {
        self.flush_zero_range()?;
        self.close_open(None)?;
        Ok(self.counts)
    }
}
