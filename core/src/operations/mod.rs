//! The verbs: wiring of the stages, the only place that knows them all.

pub mod apply;
mod assembled_block;
mod assembly;
pub mod audit;
pub mod backup;
mod block_builder;
pub mod change;
pub mod changes;
pub mod cleanup;
mod collector;
pub mod copy;
pub mod damage;
mod delta_feed;
mod delta_pipe;
pub mod diff;
mod digests;
mod failure;
pub mod gentleness;
pub mod healing;
pub mod hinting;
pub mod merge;
mod order;
mod plan;
pub mod prune;
pub mod reading;
pub mod restore;
pub mod running;
pub mod scan;
mod shared_cache;
mod snapshot_watch;
mod taking_over;
mod tracking;
pub mod unlock;
pub mod verify;
mod zero_range;

pub use tracking::DEFAULT_QUEUE_DEPTH;

use serde::Serialize;

/// Whether a changed range holds data or became zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeKind {
    /// Bytes that are not all zero.
    Data,
    /// Zero now.
    Zero,
}

/// A range of the volume that changed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChangedRange {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Data or zero.
    pub kind: RangeKind,
}

/// Joins neighbouring ranges of one kind and hands them on in order.
pub(crate) struct RangeMerger<'a> {
    open: Option<ChangedRange>,
    on_range: &'a mut (dyn FnMut(ChangedRange) -> crate::error::Result<()> + 'a),
}

impl<'a> RangeMerger<'a> {
    pub(crate) fn new(on_range: &'a mut (dyn FnMut(ChangedRange) -> crate::error::Result<()> + 'a)) -> Self {
        Self { open: None, on_range }
    }

    pub(crate) fn push(&mut self, range: ChangedRange) -> crate::error::Result<()> {
        if let Some(open) = &mut self.open
            && open.offset + open.length == range.offset
            && open.kind == range.kind
        {
            open.length += range.length;
            return Ok(());
        }
        match self.open.replace(range) {
            Some(done) => (self.on_range)(done),
            None => Ok(()),
        }
    }

    /// Grains of one block at `block_offset`, which is `len` bytes long.
    pub(crate) fn push_grains(
        &mut self,
        geometry: &crate::geometry::Geometry,
        index: u64,
        data: &crate::grain_set::GrainSet,
        zero: &crate::grain_set::GrainSet,
    ) -> crate::error::Result<()> {
        let (start, len) = (geometry.block_offset(index), geometry.block_len(index));
        for grain in 0..data.capacity() {
            let kind = match (data.contains(grain), zero.contains(grain)) {
                (true, _) => RangeKind::Data,
                (false, true) => RangeKind::Zero,
                (false, false) => continue,
            };
            let bytes = geometry.grain_range(grain, len);
            self.push(ChangedRange { offset: start + bytes.start as u64, length: bytes.len() as u64, kind })?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> crate::error::Result<()> {
        match self.open.take() {
            Some(done) => (self.on_range)(done),
            None => Ok(()),
        }
    }
}
