//! One block of a restore: read its frames, assemble it, prove it, put what is wanted of it into the sink.

use std::sync::Mutex;
use std::time::Duration;

use super::block_builder::{BlockBuilder, LostGrains, lost_ranges, wrong_block};
use super::damage::{MissingRange, join, missing_bytes};
use crate::cancel::CancelToken;
use crate::delta::merged::BlockPlan;
use crate::digest::{BlockDigest, BlockHasher, DigestKind, GrainDigest};
use crate::error::Result;
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;
use crate::sink::Sink;
use crate::sys::buffer_pool::{BufferPool, PooledBuffer};

const PATIENCE: Duration = Duration::from_millis(50);
/// Runs of zero grains at least this long are left out when the sink is zero already.
const SPARSE_RUN: usize = 64 << 10;

/// A block, or a run of zero blocks, that was proven and handed on.
pub struct Done {
    pub first: BlockIndex,
    pub count: u64,
    pub digest: BlockDigest,
    /// For sinks that take blocks in order.
    pub buffer: Option<PooledBuffer>,
    pub written: u64,
    pub kept: u64,
    /// What cannot be had of it.
    pub lost: Vec<MissingRange>,
}

/// What the workers of one restore share.
pub struct Job<'a> {
    pub geometry: Geometry,
    pub digest: DigestKind,
    pub blocks: BlockBuilder,
    pub sink: &'a dyn Sink,
    pub range: std::ops::Range<u64>,
    /// What is damaged leaves the target as it is, and all blocks are read there first.
    pub in_place: bool,
    /// Blocks that begin before this offset are read first too: an interrupted run has written them.
    pub resumed_to: u64,
    /// Damage is told, not an error.
    pub skip_damaged: bool,
    pub pool: &'a BufferPool,
    /// Held from taking a task to having its buffer, so that the lowest block never waits for a later one's buffer.
    pub order: Mutex<()>,
}

impl Job<'_> {
    pub fn buffer(&self, stop: &CancelToken) -> Result<PooledBuffer> {
        loop {
            stop.check()?;
            if let Some(buffer) = self.pool.take(PATIENCE) {
                return Ok(buffer);
            }
        }
    }

    /// Whether a block's place on the target is read first, to write only what differs.
    pub fn reads_first(&self, index: BlockIndex) -> bool {
        self.in_place || self.geometry.block_offset(index) < self.resumed_to
    }

    pub fn zeros(
        &self,
        hasher: &mut BlockHasher,
        first: BlockIndex,
        count: u64,
        stop: &CancelToken,
    ) -> Result<Done> {
        let (start, end) =
            self.wanted(self.geometry.block_offset(first), self.geometry.span_len(first, count));
        let (mut written, mut kept) = (0, 0);
        if self.reads_first(first) && !self.sink.starts_zero() {
            let mut buffer = self.buffer(stop)?;
            for index in first..first + count {
                let (offset, len) =
                    (self.geometry.block_offset(index), to_usize(u64::from(self.geometry.block_len(index))));
                self.sink.read(&mut buffer, offset, len)?;
                if hasher.hash(&buffer[..len], &mut Vec::new()) == BlockDigest::ZERO {
                    kept += len as u64;
                } else {
                    let (start, end) = self.wanted(offset, len as u64);
                    self.sink.put_zeros(start, end - start)?;
                    written += end - start;
                }
            }
        } else if !self.sink.in_order() {
            self.sink.put_zeros(start, end - start)?;
        }
        Ok(Done { first, count, digest: BlockDigest::ZERO, buffer: None, written, kept, lost: Vec::new() })
    }

    /// The part of `offset .. offset + len` that is wanted.
    pub fn wanted(&self, offset: u64, len: u64) -> (u64, u64) {
        let start = offset.max(self.range.start);
        (start, (offset + len).min(self.range.end).max(start))
    }

    pub fn block(
        &self,
        hasher: &mut BlockHasher,
        plan: &BlockPlan,
        expected: BlockDigest,
        mut buffer: PooledBuffer,
        existing: Option<PooledBuffer>,
    ) -> Result<Done> {
        let offset = self.geometry.block_offset(plan.index);
        let len = to_usize(u64::from(plan.len));
        let done = |buffer, written, kept| Done {
            first: plan.index,
            count: 1,
            digest: expected,
            buffer,
            written,
            kept,
            lost: Vec::new(),
        };
        let mut old_grains = Vec::new();
        let existing = match existing {
            Some(mut existing) => {
                self.sink.read(&mut existing, offset, len)?;
                if hasher.hash(&existing[..len], &mut old_grains).same(&expected) {
                    return Ok(done(None, 0, u64::from(plan.len)));
                }
                Some(existing)
            }
            None => None,
        };
        buffer.set_len(len);
        let grains = match self.blocks.build(hasher, plan, expected, &mut buffer) {
            Err(error) if self.skip_damaged && error.is_damage() => {
                let there = existing.as_ref().map(|bytes| (&bytes[..len], &old_grains[..]));
                return self.salvage(hasher, plan, expected, buffer, there);
            }
            other => other?,
        };
        if self.sink.in_order() {
            return Ok(done(Some(buffer), u64::from(plan.len), 0));
        }
        let mut wanted = GrainSet::empty(self.geometry.grains_in(plan.len));
        for grain in 0..wanted.capacity() {
            let bytes = self.geometry.grain_range(grain, plan.len);
            let differs = existing.as_ref().is_none_or(|existing| existing[bytes.clone()] != buffer[bytes]);
            if differs {
                wanted.insert(grain);
            }
        }
        if existing.is_none() && self.sink.starts_zero() {
            leave_out_zeros(&self.geometry, &grains, &mut wanted);
        }
        let written = self.put_grains(&wanted, plan, &buffer)?;
        Ok(done(None, written, u64::from(plan.len) - written))
    }

    /// A block of which some is damaged: puts what can be proven, makes the rest zero (in place: leaves it).
    fn salvage(
        &self,
        hasher: &mut BlockHasher,
        plan: &BlockPlan,
        expected: BlockDigest,
        mut buffer: PooledBuffer,
        there: Option<(&[u8], &[GrainDigest])>,
    ) -> Result<Done> {
        let mut lost = self.blocks.salvage(hasher, plan, expected, &mut buffer)?;
        if let Some((bytes, digests)) = there {
            self.take_from_target(plan, &mut lost, &mut buffer, bytes, digests);
        }
        let whole = lost.iter().all(Option::is_none);
        if whole && !hasher.hash(&buffer, &mut Vec::new()).same(&expected) {
            let error = wrong_block(&self.geometry, plan.index, "a block does not match its manifest");
            lost.fill(Some(error.full_text()));
            buffer.fill(0);
        }
        let mut wanted = GrainSet::empty(self.geometry.grains_in(plan.len));
        for (grain, _) in (0..).zip(&lost).filter(|(_, lost)| lost.is_none()) {
            let bytes = self.geometry.grain_range(grain, plan.len);
            if there.is_none_or(|(there, _)| there[bytes.clone()] != buffer[bytes]) {
                wanted.insert(grain);
            }
        }
        let lost = self.missing(plan, lost);
        let mut done =
            Done { first: plan.index, count: 1, digest: expected, buffer: None, written: 0, kept: 0, lost };
        let had = u64::from(plan.len).saturating_sub(missing_bytes(&done.lost));
        if self.sink.in_order() {
            done.written = had;
            done.buffer = Some(buffer);
            return Ok(done);
        }
        done.written = self.put_grains(&wanted, plan, &buffer)?;
        done.kept = had.saturating_sub(done.written);
        if !self.in_place {
            done.lost.iter().try_for_each(|lost| self.sink.put_zeros(lost.offset, lost.length))?;
        }
        Ok(done)
    }

    /// The wanted ranges of the volume that are lost with these grains.
    fn missing(&self, plan: &BlockPlan, lost: LostGrains) -> Vec<MissingRange> {
        let wanted =
            lost_ranges(&self.geometry, plan, lost).filter_map(|MissingRange { offset, length, what }| {
                let (start, end) = self.wanted(offset, length);
                (start < end).then_some(MissingRange { offset: start, length: end - start, what })
            });
        join(wanted.collect())
    }

    /// Grains that the target itself still holds as they must be are not lost.
    fn take_from_target(
        &self,
        plan: &BlockPlan,
        lost: &mut LostGrains,
        buffer: &mut PooledBuffer,
        bytes: &[u8],
        digests: &[GrainDigest],
    ) {
        for (grain, what) in (0..).zip(lost).filter(|(_, what)| what.is_some()) {
            let number = to_usize(u64::from(grain));
            if !plan.doubtful.contains(grain) && digests.get(number) == plan.digests.get(number) {
                let range = self.geometry.grain_range(grain, plan.len);
                buffer[range.clone()].copy_from_slice(&bytes[range]);
                *what = None;
            }
        }
    }

    fn put_grains(&self, grains: &GrainSet, plan: &BlockPlan, buffer: &PooledBuffer) -> Result<u64> {
        let offset = self.geometry.block_offset(plan.index);
        let mut written = 0;
        for (first, count) in grains.runs() {
            let bytes = self.geometry.grains_range(first, count, plan.len);
            let (start, end) = self.wanted(offset + bytes.start as u64, bytes.len() as u64);
            if start < end {
                self.sink.put(start, &buffer[to_usize(start - offset)..to_usize(end - offset)])?;
                written += end - start;
            }
        }
        Ok(written)
    }
}

/// Takes long runs of zero grains out of what is written.
fn leave_out_zeros(geometry: &Geometry, grains: &[GrainDigest], wanted: &mut GrainSet) {
    let mut zero = GrainSet::empty(wanted.capacity());
    for (grain, digest) in (0..wanted.capacity()).zip(grains) {
        if *digest == GrainDigest::ZERO {
            zero.insert(grain);
        }
    }
    for (first, count) in zero.runs() {
        if to_usize(u64::from(count) * u64::from(geometry.grain_size())) >= SPARSE_RUN {
            (first..first + count).for_each(|grain| wanted.remove(grain));
        }
    }
}
