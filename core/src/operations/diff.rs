//! `diff`: the changed ranges between any two backups of a volume, to the grain, without reading data.
//!
//! Block tables tell which blocks differ; for those the merged indexes of both chains give the grain digests.

use serde::Serialize;

use super::{ChangedRange, RangeMerger};
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::delta::merged::MergedIndex;
use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, GrainDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;
use crate::repository::Repository;
use crate::repository::chain::ChainTable;

/// Totals of a comparison; the ranges were handed on one by one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DiffReport {
    /// The older side.
    pub from: Option<BackupId>,
    /// The newer side.
    pub to: Option<BackupId>,
    /// Bytes of the volume on the newer side.
    pub size_bytes: u64,
    /// Bytes of the volume on the older side.
    pub from_size_bytes: u64,
    /// Blocks that differ.
    pub blocks_changed: u64,
    /// Grains that differ.
    pub grains_changed: u64,
    /// Bytes of those grains.
    pub bytes_changed: u64,
}

/// Compares `from` with `to`; ranges speak of `to`, in order.
pub fn diff(
    repository: &Repository,
    from: &BackupRecord,
    to: &BackupRecord,
    on_range: &mut dyn FnMut(ChangedRange) -> Result<()>,
    cancel: &CancelToken,
) -> Result<DiffReport> {
    if from.volume != to.volume {
        let text = format!("'{}' and '{}' are different volumes", from.volume, to.volume);
        return Err(Error::new(ErrorKind::WrongUse, text).hint("compare two backups of one volume"));
    }
    let (old_chain, new_chain) = (repository.chain(from)?, repository.chain(to)?);
    let (mut old, mut new) = (repository.table(&old_chain)?, repository.table(&new_chain)?);
    let geometry = *new.geometry();
    let mut sides = Sides {
        old: MergedIndex::new(&repository.deltas(&old_chain)?)?,
        new: MergedIndex::new(&repository.deltas(&new_chain)?)?,
        old_geometry: *old.geometry(),
        geometry,
    };
    let mut report = DiffReport {
        from: Some(from.backup_id),
        to: Some(to.backup_id),
        size_bytes: to.size_bytes,
        from_size_bytes: from.size_bytes,
        ..DiffReport::default()
    };
    let mut ranges = RangeMerger::new(on_range);
    let mut index = 0;
    while index < geometry.block_count() {
        if index.is_multiple_of(BLOCKS_PER_PAGE) {
            cancel.check()?;
            if same_page(&old, &new, index / BLOCKS_PER_PAGE)? {
                index += BLOCKS_PER_PAGE;
                continue;
            }
        }
        if new.differs(&mut old, index)? {
            let zero = new.entry(index)?.digest == BlockDigest::ZERO;
            sides.compare(index, zero, &mut ranges, &mut report)?;
        }
        index += 1;
    }
    ranges.finish()?;
    Ok(report)
}

/// Whole pages that are equal in both, of a volume that is equally long there.
fn same_page(old: &ChainTable, new: &ChainTable, page: u64) -> Result<bool> {
    let last = (page + 1) * BLOCKS_PER_PAGE;
    let inside = last <= old.geometry().block_count() && last <= new.geometry().block_count();
    let same_end = old.geometry().volume_size() == new.geometry().volume_size();
    Ok((same_end || (inside && last < old.geometry().block_count().min(new.geometry().block_count())))
        && old.page(page)? == new.page(page)?)
}

struct Sides {
    old: MergedIndex,
    new: MergedIndex,
    old_geometry: Geometry,
    geometry: Geometry,
}

impl Sides {
    fn compare(
        &mut self,
        index: BlockIndex,
        zero: bool,
        ranges: &mut RangeMerger<'_>,
        report: &mut DiffReport,
    ) -> Result<()> {
        let len = self.geometry.block_len(index);
        let count = self.geometry.grains_in(len);
        let same_len = self.old_geometry.block_len(index) == len;
        let before = if same_len { self.old.block(index)?.digests } else { Vec::new() };
        let after = if zero {
            vec![GrainDigest::ZERO; to_usize(u64::from(count))]
        } else {
            self.new.block(index)?.digests
        };
        let (mut data, mut zeros) = (GrainSet::empty(count), GrainSet::empty(count));
        for (grain, digest) in (0..count).zip(&after) {
            if before.get(to_usize(u64::from(grain))) == Some(digest) {
                continue;
            }
            if *digest == GrainDigest::ZERO { zeros.insert(grain) } else { data.insert(grain) }
        }
        report.blocks_changed += 1;
        report.grains_changed += u64::from(data.count() + zeros.count());
        let changed = data.iter().chain(zeros.iter());
        report.bytes_changed +=
            changed.map(|grain| self.geometry.grain_range(grain, len).len() as u64).sum::<u64>();
        ranges.push_grains(&self.geometry, index, &data, &zeros)
    }
}
