//! Hints: what somebody says may have changed since one other state of the volume, and how that is proven.
//!
//! Whatever the storage layer or a file says becomes a [`ChangeMap`]: a set of blocks, so that its size depends on the
//! volume alone. A map holds for one parent only and is a hint, never a fact: [`proof`] picks blocks that it calls
//! unchanged and that are read all the same. If one of them differs, the caller reads the volume in full and says so.
//! A range that reaches into a block makes the whole block changed; ranges beyond the end are cut off, not refused,
//! because tools report in chunks of their own.

pub mod block_set;
pub mod lvm_cow;
pub mod lvm_thin;
pub mod map_file;
pub mod proof;
pub mod zfs_send;

use crate::geometry::Geometry;
use block_set::BlockSet;

/// Blocks that may have changed since the state that the hint is about.
#[derive(Debug, Clone)]
pub struct ChangeMap {
    geometry: Geometry,
    changed: BlockSet,
    /// Blocks that the storage layer maps to data, where it tells; the others read as zeros by the same table that the
    /// hint was read from, so reading them proves nothing.
    mapped: Option<BlockSet>,
}

impl ChangeMap {
    /// Nothing changed, for a volume cut like this.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, changed: BlockSet::none(geometry.block_count()), mapped: None }
    }

    /// How the volume is cut.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// These bytes may have changed (written, zeroed or discarded: all are read).
    pub fn add_changed(&mut self, offset: u64, length: u64) {
        self.changed.insert(self.blocks(offset, length));
    }

    /// From now on only blocks that are given to [`ChangeMap::add_mapped`] count as mapped.
    pub fn tell_mapped(&mut self) {
        self.mapped = Some(BlockSet::none(self.geometry.block_count()));
    }

    /// The storage layer holds data for these bytes.
    pub fn add_mapped(&mut self, offset: u64, length: u64) {
        let blocks = self.blocks(offset, length);
        if let Some(mapped) = &mut self.mapped {
            mapped.insert(blocks);
        }
    }

    fn blocks(&self, offset: u64, length: u64) -> std::ops::Range<u64> {
        let end = offset.saturating_add(length).min(self.geometry.volume_size());
        if offset >= end {
            return 0..0;
        }
        self.geometry.block_of(offset)..self.geometry.block_of(end - 1) + 1
    }

    /// Blocks that may have changed.
    #[must_use]
    pub fn changed(&self) -> &BlockSet {
        &self.changed
    }

    /// Blocks that the storage layer maps to data, where it told.
    #[must_use]
    pub fn into_mapped(self) -> Option<BlockSet> {
        self.mapped
    }

    /// Whether the storage layer says that nothing is mapped anywhere in this block.
    #[must_use]
    pub fn is_unmapped(&self, index: u64) -> bool {
        self.mapped.as_ref().is_some_and(|mapped| !mapped.contains(index))
    }
}
