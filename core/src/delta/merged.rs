//! A chain of deltas read as one state: for each block, in volume order, where each of its grains is.
//!
//! The newest delta that speaks of a grain decides. Nothing is inherited through an ancestor that is smaller than the
//! end of the block: such a block must have been stored whole above it. If that rule were broken, old data from before a
//! shrink could come back; so it is damage, never a guess.

use std::ops::Range;
use std::sync::Arc;

use crate::delta::reader::{DeltaReader, IndexCursor, LostPart};
use crate::digest::GrainDigest;
use crate::error::{Error, Result};
use crate::format::index::{GrainsEntry, IndexEntry};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;

/// Neighbouring grains of a block that lie side by side in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrainRun {
    /// First grain.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Which delta of the chain, 0 is the newest.
    pub delta: usize,
    /// Offset of the frame in the delta.
    pub frame: u64,
    /// Where the run starts in the frame's raw bytes.
    pub raw_offset: u32,
}

/// Where a block's bytes are. Grains in no run are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlan {
    /// Which block.
    pub index: BlockIndex,
    /// Its length in bytes.
    pub len: u32,
    /// Its data.
    pub runs: Vec<GrainRun>,
    /// The digest of every grain.
    pub digests: Vec<GrainDigest>,
    /// Grains of which a part of the index that cannot be read may have spoken: what older deltas say of them is right
    /// only if the whole block's digest is.
    pub doubtful: GrainSet,
    /// Why there are any.
    pub doubt: Option<String>,
}

/// What the upper part of a chain says of a block.
pub struct PartialBlock {
    /// Where its bytes are. Grains in no run are zero or inherited.
    pub plan: BlockPlan,
    /// Grains that are what they were below.
    pub inherited: GrainSet,
    /// It was stored whole although it had not changed, because the bytes below are damaged.
    pub healed: bool,
}

/// What deltas say of a block.
struct Said {
    plan: BlockPlan,
    /// Grains of which nothing was said.
    open: GrainSet,
    /// Whether anything was said.
    spoken: bool,
    /// Whether one of them stored it whole although it had not changed.
    healed: bool,
    /// Whether an older delta knew the block only in another length, or not at all: nothing is inherited through it.
    cut: bool,
}

/// The merged index of a chain, newest delta first, oldest (the full) last.
pub struct MergedIndex {
    cursors: Vec<IndexCursor>,
    geometry: Geometry,
    tolerant: bool,
}

impl MergedIndex {
    /// Of deltas given newest first; the geometry is the newest one's.
    pub fn new(chain: &[Arc<DeltaReader>]) -> Result<Self> {
        let newest = chain.first().ok_or_else(|| Error::damaged("a chain without a backup"))?;
        let geometry = newest.header().geometry;
        let cursors = chain.iter().map(DeltaReader::cursor).collect();
        Ok(Self { cursors, geometry, tolerant: false })
    }

    /// The same for whoever wants what can still be had: parts of the index that cannot be read put blocks in doubt.
    pub fn tolerant(chain: &[Arc<DeltaReader>]) -> Result<Self> {
        Ok(Self { tolerant: true, ..Self::new(chain)? })
    }

    /// Parts of the index that could not be read so far, the last one of each delta, with the delta's place in the chain.
    pub fn lost(&self) -> impl Iterator<Item = (usize, &LostPart)> {
        let parts = self.cursors.iter().enumerate();
        parts.filter_map(|(delta, cursor)| cursor.lost().map(|lost| (delta, lost)))
    }

    /// The plan of a block; blocks must be asked for in ascending order.
    pub fn block(&mut self, index: BlockIndex) -> Result<BlockPlan> {
        self.block_of(0, index)
    }

    /// The same of an older state: the one that the chain's deltas from this place on give.
    pub fn block_of(&mut self, state: usize, index: BlockIndex) -> Result<BlockPlan> {
        let said = self.said(state, index)?;
        let usable = said.open.is_empty() || said.plan.doubt.is_some();
        if usable { Ok(said.plan) } else { Err(self.incomplete(&said.plan)) }
    }

    /// Whether none of these deltas speaks of a block, and all are of volumes that go on behind it: then the states before
    /// and after them have it from the same place.
    pub fn is_passed_over(&mut self, deltas: Range<usize>, index: BlockIndex) -> bool {
        self.cursors[deltas].iter_mut().all(|cursor| {
            let known = cursor.reader().header().geometry.block_count();
            index + 1 < known && matches!(cursor.seek(index), Ok(None))
        })
    }

    /// What these deltas say of a block, if they are only the upper part of a chain; `None` when they do not speak of it.
    pub fn partial(&mut self, index: BlockIndex) -> Result<Option<PartialBlock>> {
        let Said { plan, open, spoken, healed, cut } = self.said(0, index)?;
        if cut && !open.is_empty() {
            return Err(self.incomplete(&plan));
        }
        Ok(spoken.then_some(PartialBlock { plan, inherited: open, healed }))
    }

    /// The first block at or after `block` that any of the deltas speaks of.
    pub fn next_spoken(&mut self, block: BlockIndex) -> Result<Option<BlockIndex>> {
        let end = self.geometry.block_count();
        let mut next = None;
        for cursor in &mut self.cursors {
            let found = cursor.next_block(block)?.filter(|found| *found < end);
            next = [next, found].into_iter().flatten().min();
        }
        Ok(next)
    }

    /// Newest first, until every grain is spoken of or nothing older may be believed.
    fn said(&mut self, state: usize, index: BlockIndex) -> Result<Said> {
        let geometry = self.cursors[state].reader().header().geometry;
        let len = geometry.block_len(index);
        let grains = geometry.grains_in(len);
        let digests = vec![GrainDigest::ZERO; to_usize(u64::from(grains))];
        let doubtful = GrainSet::empty(grains);
        let mut plan = BlockPlan { index, len, runs: Vec::new(), digests, doubtful, doubt: None };
        let mut open = GrainSet::empty(grains);
        (0..grains).for_each(|grain| open.insert(grain));
        let end = geometry.block_offset(index) + u64::from(len);
        let (mut spoken, mut healed, mut cut) = (false, false, false);
        for (number, cursor) in self.cursors.iter_mut().enumerate().skip(state) {
            if cursor.reader().header().geometry.volume_size() < end {
                cut = true;
                break;
            }
            let entry = match cursor.seek(index) {
                Err(error) if self.tolerant && error.is_damage() => {
                    if plan.doubt.is_none() {
                        plan.doubtful = open.clone();
                        plan.doubt = Some(error.full_text());
                    }
                    continue;
                }
                other => other?,
            };
            spoken |= entry.is_some();
            match entry {
                None => {}
                Some(IndexEntry::Zero { .. } | IndexEntry::ZeroRange { .. }) => {
                    open = GrainSet::empty(grains);
                }
                Some(IndexEntry::Grains(entry)) if entry.len != len => {
                    cut = true;
                    break;
                }
                Some(IndexEntry::Grains(entry)) => {
                    healed |= entry.whole && entry.old.same(&entry.new);
                    resolve(&geometry, &mut plan, &mut open, number, entry);
                }
            }
            if open.is_empty() {
                break;
            }
        }
        Ok(Said { plan, open, spoken, healed, cut })
    }

    fn incomplete(&self, plan: &BlockPlan) -> Error {
        let path = self.cursors.last().map(|cursor| cursor.reader().object().display()).unwrap_or_default();
        Error::damaged(format!("the chain does not hold all of block {}", plan.index))
            .path(path)
            .at(self.geometry.block_offset(plan.index), u64::from(plan.len))
    }

    /// How many blocks from `block` on lie in one zero range, with nothing newer over them; 0 when `block` does not.
    pub fn zero_run(&mut self, block: BlockIndex) -> Result<u64> {
        match self.said_zero_run(block) {
            // Block by block it will be seen what can be had.
            Err(error) if self.tolerant && error.is_damage() => Ok(0),
            other => other,
        }
    }

    fn said_zero_run(&mut self, block: BlockIndex) -> Result<u64> {
        let mut run = self.geometry.block_count() - block;
        for cursor in &mut self.cursors {
            // An ancestor that ends before this block says nothing of it; [`MergedIndex::block`] will judge that.
            let known = cursor.reader().header().geometry.block_count();
            if known <= block {
                return Ok(0);
            }
            run = run.min(known - block);
            let start = match cursor.seek(block)? {
                Some(IndexEntry::ZeroRange { first, count }) => {
                    run = run.min(first + count - block);
                    return Ok(run);
                }
                Some(_) => return Ok(0),
                None => cursor.next_block(block)?,
            };
            run = run.min(start.map_or(run, |start| start - block));
        }
        Ok(0)
    }
}

fn resolve(
    geometry: &Geometry,
    plan: &mut BlockPlan,
    open: &mut GrainSet,
    delta: usize,
    entry: &GrainsEntry,
) {
    for grain in entry.zero.iter() {
        open.remove(grain);
    }
    let mut pieces = entry.pieces.iter();
    let (mut left, mut frame, mut raw_offset) = (0, 0, 0);
    for (grain, digest) in entry.stored.iter().zip(&entry.digests) {
        if left == 0 {
            let Some(piece) = pieces.next() else { return };
            (left, frame, raw_offset) = (piece.grains, piece.frame, piece.raw_offset);
        }
        let bytes = u32::try_from(geometry.grain_range(grain, plan.len).len()).unwrap_or(0);
        if open.contains(grain) {
            open.remove(grain);
            plan.digests[to_usize(u64::from(grain))] = *digest;
            push_grain(
                geometry,
                &mut plan.runs,
                GrainRun { first: grain, count: 1, delta, frame, raw_offset },
            );
        }
        left -= 1;
        raw_offset = raw_offset.saturating_add(bytes);
    }
}

fn push_grain(geometry: &Geometry, runs: &mut Vec<GrainRun>, grain: GrainRun) {
    if let Some(last) = runs.last_mut() {
        let follows = last.first + last.count == grain.first
            && (last.delta, last.frame) == (grain.delta, grain.frame)
            && u64::from(last.raw_offset) + u64::from(last.count) * u64::from(geometry.grain_size())
                == u64::from(grain.raw_offset);
        if follows {
            last.count += 1;
            return;
        }
    }
    runs.push(grain);
}
