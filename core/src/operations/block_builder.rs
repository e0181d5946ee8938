//! One block of a backup out of the frames of its chain, proven before anybody sees it: what restoring, verifying and
//! reading share.
//!
//! A frame of a sparse delta holds grains of many blocks; without a cache each of those blocks would decompress it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::damage::MissingRange;
use super::shared_cache::SharedCache;
use crate::delta::merged::{BlockPlan, GrainRun};
use crate::delta::reader::DeltaReader;
use crate::digest::{BlockDigest, BlockHasher, GrainDigest};
use crate::error::{Error, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};

const FRAMES_MIN: usize = 24;
const FRAMES_MAX: usize = 72;

/// Builds the blocks of one backup; shared by threads.
pub struct BlockBuilder {
    geometry: Geometry,
    deltas: Vec<Arc<DeltaReader>>,
    frames: SharedCache<(usize, u64), Vec<u8>>,
    /// Frames that could not be read or proven, and why.
    damaged: Mutex<BTreeMap<(usize, u64), String>>,
}

/// For each grain of a block why it cannot be had, with the file; `None` when it can.
pub type LostGrains = Vec<Option<String>>;

impl BlockBuilder {
    /// From a chain's deltas, newest first: each of them wants its current frame to stay in memory.
    pub fn new(geometry: Geometry, deltas: &[Arc<DeltaReader>]) -> Self {
        let frames = SharedCache::new((FRAMES_MIN + deltas.len()).min(FRAMES_MAX));
        Self { geometry, deltas: deltas.to_vec(), frames, damaged: Mutex::default() }
    }

    /// Frames that could not be read or proven so far: delta of the chain, offset, why.
    pub fn damaged(&self) -> BTreeMap<(usize, u64), String> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, run: &GrainRun, what: &str) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.entry((run.delta, run.frame)).or_insert_with(|| what.to_owned());
    }

    /// Copies a run's bytes out of its frame. A frame that fails once is noted, also if it can be read the next time.
    fn fetch(&self, run: &GrainRun, target: &mut [u8]) -> Result<()> {
        let copied = self.copy(run, target);
        if let Some(error) = copied.as_ref().err().filter(|error| error.is_damage()) {
            self.note(run, &error.full_text());
        }
        copied
    }

    fn copy(&self, run: &GrainRun, target: &mut [u8]) -> Result<()> {
        let delta = &self.deltas[run.delta];
        let frame = self.frames.get((run.delta, run.frame), || delta.frame(run.frame))?;
        let start = to_usize(u64::from(run.raw_offset));
        let bytes = frame.get(start..start + target.len()).ok_or_else(|| {
            Error::damaged("a frame is shorter than its grains")
                .path(delta.object().display())
                .at(run.frame, 0)
        })?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    /// Fills `block`, which is as long as the plan says, and proves it: block digest against the manifest, grain digests
    /// against the index.
    pub fn build(
        &self,
        hasher: &mut BlockHasher,
        plan: &BlockPlan,
        expected: BlockDigest,
        block: &mut [u8],
    ) -> Result<Vec<GrainDigest>> {
        let covered: usize = plan
            .runs
            .iter()
            .map(|run| self.geometry.grains_range(run.first, run.count, plan.len).len())
            .sum();
        if covered < block.len() {
            block.fill(0);
        }
        for run in &plan.runs {
            let target = self.geometry.grains_range(run.first, run.count, plan.len);
            self.fetch(run, &mut block[target])?;
        }
        let mut grains = Vec::new();
        let digest = hasher.hash(block, &mut grains);
        if let Some(grain) = grains.iter().zip(&plan.digests).position(|(ours, theirs)| ours != theirs) {
            let bytes = self.geometry.grain_range(u32::try_from(grain).unwrap_or(0), plan.len);
            let place = self.geometry.block_offset(plan.index) + bytes.start as u64;
            return Err(
                Error::damaged("stored bytes do not match their digest").at(place, bytes.len() as u64)
            );
        }
        if !digest.same(&expected) {
            return Err(wrong_block(&self.geometry, plan.index, "a block does not match its manifest"));
        }
        Ok(grains)
    }

    /// Fills a block that cannot be built with what can be proven of it, grain by grain against the index, zeros
    /// elsewhere; tells what is lost. With nothing lost, the block's digest is still to be proven.
    pub fn salvage(
        &self,
        hasher: &mut BlockHasher,
        plan: &BlockPlan,
        expected: BlockDigest,
        block: &mut [u8],
    ) -> Result<LostGrains> {
        block.fill(0);
        let mut lost: LostGrains = vec![None; plan.digests.len()];
        for run in &plan.runs {
            let target = self.geometry.grains_range(run.first, run.count, plan.len);
            match self.fetch(run, &mut block[target]) {
                Err(error) if error.is_damage() => {
                    lost[grain_positions(run)].fill(Some(error.full_text()));
                }
                other => other?,
            }
        }
        let mut grains = Vec::new();
        if hasher.hash(block, &mut grains).same(&expected) {
            return Ok(vec![None; lost.len()]);
        }
        for (grain, (ours, theirs)) in (0..).zip(grains.iter().zip(&plan.digests)) {
            let place = &mut lost[to_usize(u64::from(grain))];
            if plan.doubtful.contains(grain) {
                place.clone_from(&plan.doubt);
            } else if ours != theirs && place.is_none() {
                *place = Some(self.wrong_grain(plan, grain));
            }
            if place.is_some() {
                block[self.geometry.grain_range(grain, plan.len)].fill(0);
            }
        }
        Ok(lost)
    }

    fn wrong_grain(&self, plan: &BlockPlan, grain: u32) -> String {
        let text = "stored bytes do not match their digest";
        let holds = |run: &&GrainRun| (run.first..run.first + run.count).contains(&grain);
        let Some(run) = plan.runs.iter().find(holds) else { return text.to_owned() };
        let error = Error::damaged(text).path(self.deltas[run.delta].object().display()).at(run.frame, 0);
        self.note(run, &error.full_text());
        error.full_text()
    }
}

fn grain_positions(run: &GrainRun) -> std::ops::Range<usize> {
    to_usize(u64::from(run.first))..to_usize(u64::from(run.first + run.count))
}

/// The ranges of the volume that are lost with these grains of a block.
pub fn lost_ranges<'a>(
    geometry: &'a Geometry,
    plan: &'a BlockPlan,
    lost: LostGrains,
) -> impl Iterator<Item = MissingRange> + 'a {
    let offset = geometry.block_offset(plan.index);
    (0..).zip(lost).filter_map(move |(grain, what)| {
        let bytes = geometry.grain_range(grain, plan.len);
        what.map(|what| MissingRange {
            offset: offset + bytes.start as u64,
            length: bytes.len() as u64,
            what,
        })
    })
}

/// What is stored of this block contradicts itself.
pub fn wrong_block(geometry: &Geometry, index: BlockIndex, what: &str) -> Error {
    Error::damaged(what).at(geometry.block_offset(index), u64::from(geometry.block_len(index)))
}
