//! What is damaged, and whom it hurts: places in deltas on one side, ranges of volumes on the other.
//!
//! A damaged frame is one place; it hurts every backup whose state still needs a grain of it, and each in other ranges,
//! because later deltas hide what they hold themselves. Found by indexes alone: no data is read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::backup_id::BackupRecord;
use crate::delta::merged::MergedIndex;
use crate::error::Result;
use crate::format::index::IndexEntry;
use crate::geometry::{BlockIndex, Geometry};
use crate::repository::Repository;
use crate::repository::chain::{Chain, ChainTable};

/// A range of a volume that cannot be had from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingRange {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Why: what is damaged, with file and place.
    pub what: String,
}

/// Puts ranges in order and joins neighbours that miss for the same reason.
pub(super) fn join(mut ranges: Vec<MissingRange>) -> Vec<MissingRange> {
    ranges.sort_by_key(|range| range.offset);
    let mut joined: Vec<MissingRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.offset + last.length == range.offset && last.what == range.what => {
                last.length += range.length;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Bytes of all these ranges.
pub(super) fn missing_bytes(ranges: &[MissingRange]) -> u64 {
    ranges.iter().map(|range| range.length).sum()
}

/// Where in a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Spot {
    /// The frame at this offset.
    Frame(u64),
    /// The part of the index that tells of these blocks, first and last.
    Index(BlockIndex, BlockIndex),
}

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Name of the delta in the repository.
    pub delta: String,
    /// Where in it.
    pub spot: Spot,
    /// What is wrong there, with the file.
    pub what: String,
}

/// Ranges that a backup misses because of these places. What of it cannot be opened is told by the check of its structure.
pub(super) fn hurt(
    repository: &Repository,
    record: &BackupRecord,
    places: &[Place],
) -> Result<Vec<MissingRange>> {
    let chain = repository.chain(record)?;
    let position = |place: &Place| chain.records().iter().position(|record| record.delta.name == place.delta);
    let ours: Vec<(usize, &Place)> =
        places.iter().filter_map(|place| position(place).map(|delta| (delta, place))).collect();
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let deltas = repository.deltas(&chain)?;
    let geometry = repository.geometry(record.size_bytes)?;
    let mut index = MergedIndex::tolerant(&deltas)?;
    let mut states = States { repository, chain: &chain, tables: BTreeMap::new() };
    let mut ranges = Vec::new();
    for block in blocks_of(&deltas, &ours, &geometry)? {
        let plan = index.block(block)?;
        for (delta, place) in &ours {
            let grains: Vec<(u32, u32)> = match place.spot {
                Spot::Frame(frame) => {
                    let runs = plan.runs.iter().filter(|run| (run.delta, run.frame) == (*delta, frame));
                    runs.map(|run| (run.first, run.count)).collect()
                }
                Spot::Index(first, last) => {
                    let told = (first..=last).contains(&block) && states.changed(*delta, block)?;
                    if told { plan.doubtful.runs() } else { Vec::new() }
                }
            };
            let start = geometry.block_offset(block);
            ranges.extend(grains.into_iter().map(|(first, count)| {
                let bytes = geometry.grains_range(first, count, plan.len);
                let (offset, length) = (start + bytes.start as u64, bytes.len() as u64);
                MissingRange { offset, length, what: place.what.clone() }
            }));
        }
    }
    Ok(join(ranges))
}

/// Blocks that may be hurt, ascending.
fn blocks_of(
    deltas: &[std::sync::Arc<crate::delta::reader::DeltaReader>],
    places: &[(usize, &Place)],
    geometry: &Geometry,
) -> Result<BTreeSet<BlockIndex>> {
    let mut blocks = BTreeSet::new();
    let frames: BTreeSet<(usize, u64)> = places
        .iter()
        .filter_map(|(delta, place)| match place.spot {
            Spot::Frame(frame) => Some((*delta, frame)),
            Spot::Index(..) => None,
        })
        .collect();
    for delta in frames.iter().map(|(delta, _)| *delta).collect::<BTreeSet<_>>() {
        for line in deltas[delta].segments()? {
            // A part that cannot be read is a place of its own.
            for entry in deltas[delta].entries(&line).unwrap_or_default() {
                if let IndexEntry::Grains(entry) = entry
                    && entry.pieces.iter().any(|piece| frames.contains(&(delta, piece.frame)))
                {
                    blocks.insert(entry.index);
                }
            }
        }
    }
    for (_, place) in places {
        if let Spot::Index(first, last) = place.spot {
            blocks.extend(first..=last.min(geometry.block_count().saturating_sub(1)));
        }
    }
    blocks.retain(|block| *block < geometry.block_count());
    Ok(blocks)
}

/// The tables of the states along a chain, opened when asked for.
struct States<'a> {
    repository: &'a Repository,
    chain: &'a Chain,
    tables: BTreeMap<usize, ChainTable>,
}

impl States<'_> {
    /// Whether the backup at this place of the chain changed a block: its index must then have told of it.
    fn changed(&mut self, place: usize, block: BlockIndex) -> Result<bool> {
        if place + 1 == self.chain.records().len() {
            return Ok(true);
        }
        for place in [place, place + 1] {
            if !self.tables.contains_key(&place) {
                let chain = self.repository.chain(&self.chain.records()[place])?;
                self.tables.insert(place, self.repository.table(&chain)?);
            }
        }
        let (Some(mut after), Some(mut before)) =
            (self.tables.remove(&place), self.tables.remove(&(place + 1)))
        else {
            return Ok(true);
        };
        let within = |table: &ChainTable| block < table.geometry().block_count();
        let changed = !within(&before) || !within(&after) || after.differs(&mut before, block)?;
        self.tables.insert(place, after);
        self.tables.insert(place + 1, before);
        Ok(changed)
    }
}
