//! Reading a backup here and there, as if it were the volume: for servers of block devices, and for a look at a few bytes.
//!
//! Each block is put together and proven as a whole before any of its bytes are handed out, and the last few stay in
//! memory. Trade-off: a read of one byte costs a block; reads in order cost what a restore costs. Several threads may read at
//! once; they wait for each other only where they want the same block, and while its place is looked up.

use std::sync::{Arc, Mutex, PoisonError};

use super::block_builder::BlockBuilder;
use super::shared_cache::SharedCache;
use crate::backup_id::BackupRecord;
use crate::delta::merged::{BlockPlan, MergedIndex};
use crate::delta::reader::DeltaReader;
use crate::digest::{BlockDigest, BlockHasher, DigestKind};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::repository::Repository;
use crate::repository::chain::ChainTable;

/// Memory for proven blocks.
const HELD_BYTES: usize = 32 << 20;
/// Blocks that are held however large they are.
const HELD_MIN: usize = 4;

/// An open backup.
pub struct BackupReader {
    geometry: Geometry,
    digest: DigestKind,
    deltas: Vec<Arc<DeltaReader>>,
    builder: BlockBuilder,
    places: Mutex<Places>,
    blocks: SharedCache<BlockIndex, Vec<u8>>,
}

/// Where blocks are stored and what they must be. The index is read forwards; for a step back it is opened again.
struct Places {
    table: ChainTable,
    index: MergedIndex,
    next: BlockIndex,
}

impl BackupReader {
    /// Opens all of the backup's chain and proves its tables.
    ///
    /// # Errors
    /// `Damaged` when the chain contradicts itself, `Io` and `NotFound` of the storage.
    pub fn open(repository: &Repository, record: &BackupRecord) -> Result<Self> {
        let geometry = repository.geometry(record.size_bytes)?;
        let (_, deltas, table) = repository.open_whole(record)?;
        let held = (HELD_BYTES / to_usize(u64::from(geometry.block_size()))).max(HELD_MIN);
        Ok(Self {
            geometry,
            digest: record.digest,
            builder: BlockBuilder::new(geometry, &deltas),
            places: Mutex::new(Places { table, index: MergedIndex::new(&deltas)?, next: 0 }),
            deltas,
            blocks: SharedCache::new(held),
        })
    }

    /// Bytes of the volume.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.geometry.volume_size()
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `WrongUse` beyond the end of the volume; `Damaged` when a block cannot be proven, with its place.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let length = out.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.size()) {
            return Err(Error::new(ErrorKind::WrongUse, "reading beyond the end of the volume")
                .at(offset, length)
                .hint(format!("the volume has {} bytes", self.size())));
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let index = self.geometry.block_of(at);
            let inside = to_usize(at - self.geometry.block_offset(index));
            let block_len = to_usize(u64::from(self.geometry.block_len(index)));
            let piece = (block_len - inside).min(out.len() - done);
            self.read_block(index, inside, &mut out[done..done + piece])?;
            done += piece;
        }
        Ok(())
    }

    fn read_block(&self, index: BlockIndex, inside: usize, out: &mut [u8]) -> Result<()> {
        let expected = self.expected(index)?;
        if expected == BlockDigest::ZERO {
            out.fill(0);
            return Ok(());
        }
        let block = self.blocks.get(index, || self.build(index, expected))?;
        out.copy_from_slice(&block[inside..inside + out.len()]);
        Ok(())
    }

    fn expected(&self, index: BlockIndex) -> Result<BlockDigest> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(places.table.entry(index)?.digest)
    }

    fn build(&self, index: BlockIndex, expected: BlockDigest) -> Result<Vec<u8>> {
        let plan = self.plan(index)?;
        let mut block = vec![0; to_usize(u64::from(plan.len))];
        let mut hasher = BlockHasher::new(self.digest, self.geometry);
        self.builder.build(&mut hasher, &plan, expected, &mut block)?;
        Ok(block)
    }

    fn plan(&self, index: BlockIndex) -> Result<BlockPlan> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if index < places.next {
            places.index = MergedIndex::new(&self.deltas)?;
        }
        places.next = index + 1;
        places.index.block(index)
    }
}
