//! One block of a backup out of the frames of its chain, proven before anybody sees it: what restoring, verifying and
//! reading share.
//!
//! A frame of a sparse delta holds grains of many blocks; without a cache each of those blocks would decompress it again.

use std::ops::Range;
use std::sync::Arc;

use super::shared_cache::SharedCache;
use crate::delta::merged::BlockPlan;
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
}

impl BlockBuilder {
    /// From a chain's deltas, newest first: each of them wants its current frame to stay in memory.
    pub fn new(geometry: Geometry, deltas: &[Arc<DeltaReader>]) -> Self {
        let frames = SharedCache::new((FRAMES_MIN + deltas.len()).min(FRAMES_MAX));
        Self { geometry, deltas: deltas.to_vec(), frames }
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
        let covered: usize =
            plan.runs.iter().map(|run| self.run_bytes(plan, run.first, run.count).len()).sum();
        if covered < block.len() {
            block.fill(0);
        }
        for run in &plan.runs {
            let target = self.run_bytes(plan, run.first, run.count);
            let delta = &self.deltas[run.delta];
            let frame = self.frames.get((run.delta, run.frame), || delta.frame(run.frame))?;
            let start = to_usize(u64::from(run.raw_offset));
            let bytes = frame.get(start..start + target.len()).ok_or_else(|| {
                Error::damaged("a frame is shorter than its grains")
                    .path(delta.object().display())
                    .at(run.frame, 0)
            })?;
            block[target].copy_from_slice(bytes);
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

    /// The bytes of neighbouring grains inside their block.
    pub fn run_bytes(&self, plan: &BlockPlan, first: u32, count: u32) -> Range<usize> {
        let start = self.geometry.grain_range(first, plan.len).start;
        start..self.geometry.grain_range(first + count - 1, plan.len).end
    }
}

/// What is stored of this block contradicts itself.
pub fn wrong_block(geometry: &Geometry, index: BlockIndex, what: &str) -> Error {
    Error::damaged(what).at(geometry.block_offset(index), u64::from(geometry.block_len(index)))
}
