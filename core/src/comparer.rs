//! The comparing stage: which grains of a block differ from the parent.
//!
//! Block digests decide; the parent's grain digests are looked at only for blocks that differ. Where they cannot be
//! trusted (their check fails), where the block's length changed, or where the block differs but no grain does, the whole
//! block is stored: too much is safe, too little is a wrong restore. So it is where the parent's bytes are damaged.

use std::sync::Arc;

use crate::digest::{BlockDigest, GrainDigest};
use crate::error::Result;
use crate::flow::{ChangedBlock, Content, Verdict};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;
use crate::hint::block_set::BlockSet;
use crate::manifest::working::WorkingManifest;
use crate::sys::buffer_pool::PooledBuffer;

/// Compares blocks with a parent, or with nothing.
#[derive(Clone, Copy)]
pub struct Comparer<'a> {
    parent: Option<&'a WorkingManifest>,
    geometry: Geometry,
    damaged: Option<&'a BlockSet>,
}

impl<'a> Comparer<'a> {
    /// Against `parent`; without one every block that is not zero is changed.
    #[must_use]
    pub fn new(parent: Option<&'a WorkingManifest>, geometry: Geometry) -> Self {
        Self { parent, geometry, damaged: None }
    }

    /// Of these blocks the parent's stored bytes are damaged: they are stored whole, changed or not.
    #[must_use]
    pub fn heal(self, damaged: Option<&'a BlockSet>) -> Self {
        Self { damaged, ..self }
    }

    /// What to do with block `index`.
    pub fn compare(
        &self,
        index: BlockIndex,
        digest: BlockDigest,
        grains: Vec<GrainDigest>,
        buffer: PooledBuffer,
    ) -> Result<Verdict> {
        let Some(parent) = self.parent else {
            return Ok(whole(BlockDigest::UNKNOWN, grains, buffer));
        };
        let old = parent.entry(index)?.map_or(BlockDigest::UNKNOWN, |entry| entry.digest);
        let same_len = parent.header().geometry.block_len(index) == self.geometry.block_len(index);
        let damaged = self.damaged.is_some_and(|damaged| damaged.contains(index));
        if same_len && old.same(&digest) && (!damaged || digest == BlockDigest::ZERO) {
            return Ok(Verdict::Unchanged);
        }
        let comparable = same_len && old != BlockDigest::UNKNOWN && !damaged;
        let run = if comparable { parent.run(index, &old)? } else { None };
        Ok(match run {
            Some(run) => differing(old, &run, grains, buffer),
            None => whole(old, grains, buffer),
        })
    }
}

fn whole(old: BlockDigest, grains: Vec<GrainDigest>, buffer: PooledBuffer) -> Verdict {
    let count = u32::try_from(grains.len()).unwrap_or(u32::MAX);
    let (mut stored, mut zero) = (GrainSet::empty(count), GrainSet::empty(count));
    for (grain, digest) in (0..count).zip(&grains) {
        if *digest == GrainDigest::ZERO { zero.insert(grain) } else { stored.insert(grain) }
    }
    let content = Content::Read { buffer: Arc::new(buffer), grains };
    Verdict::Changed(Box::new(ChangedBlock { old, whole: true, stored, zero, content }))
}

fn differing(
    old: BlockDigest,
    run: &[GrainDigest],
    grains: Vec<GrainDigest>,
    buffer: PooledBuffer,
) -> Verdict {
    let count = u32::try_from(grains.len()).unwrap_or(u32::MAX);
    let (mut stored, mut zero) = (GrainSet::empty(count), GrainSet::empty(count));
    for (grain, digest) in (0..count).zip(&grains) {
        if run.get(to_usize(u64::from(grain))) == Some(digest) {
            continue;
        }
        if *digest == GrainDigest::ZERO { zero.insert(grain) } else { stored.insert(grain) }
    }
    if stored.is_empty() && zero.is_empty() {
        return whole(old, grains, buffer);
    }
    let content = Content::Read { buffer: Arc::new(buffer), grains };
    Verdict::Changed(Box::new(ChangedBlock { old, whole: false, stored, zero, content }))
}
