//! The collector: takes blocks in volume order and builds from them the root, the table pages, the counts, the list
//! of changed ranges and the delta's entries.

use super::change::Teller;
use super::delta_feed::DeltaFeed;
use super::zero_range::ZeroRange;
use crate::backup_id::{Sequence, Statistics};
use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, DigestKind, RootBuilder, RootDigest, is_zero};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{ChangedBlock, Collected, Compared, Content, Skip, Skipped, Verdict};
use crate::format::index::IndexEntry;
use crate::format::manifest::{ENTRY_LEN, PAGE_LEN, TableEntry};
use crate::geometry::{BlockIndex, Geometry};
use crate::manifest::stored::PageSpool;
use crate::manifest::working::WorkingManifest;
use crate::progress::Progress;

/// Builds the new block table page by page, beside the parent's.
pub struct TableBuilder<'a> {
    pub parent: Option<&'a WorkingManifest>,
    pub next: Option<&'a WorkingManifest>,
    pub spool: Option<PageSpool>,
    pub sequence: Sequence,
    /// Every block is really read in this run: unchanged entries keep their older mark, so that their page stays equal.
    pub reads_all: bool,
    page: Vec<u8>,
    parent_page: Vec<u8>,
    number: u64,
    oldest: Option<Sequence>,
}

impl<'a> TableBuilder<'a> {
    pub fn new(
        parent: Option<&'a WorkingManifest>,
        next: Option<&'a WorkingManifest>,
        spool: Option<PageSpool>,
        sequence: Sequence,
        reads_all: bool,
    ) -> Result<Self> {
        let mut builder = Self {
            parent,
            next,
            spool,
            sequence,
            reads_all,
            page: Vec::with_capacity(PAGE_LEN),
            parent_page: Vec::new(),
            number: 0,
            oldest: Some(sequence),
        };
        builder.parent_page = builder.load_parent_page()?;
        Ok(builder)
    }

    fn load_parent_page(&self) -> Result<Vec<u8>> {
        self.parent.map_or_else(|| Ok(vec![0; PAGE_LEN]), |parent| parent.page(self.number))
    }

    fn parent_entry(&self) -> Result<TableEntry> {
        let at = self.page.len();
        TableEntry::decode(&self.parent_page[at..at + ENTRY_LEN])
    }

    /// A block that was read; `keep_mark` leaves the older mark on an unchanged one.
    pub(super) fn push_read(&mut self, digest: BlockDigest, keep_mark: bool) -> Result<()> {
        let before = self.parent_entry()?;
        let keep = keep_mark && before.last_read != 0;
        let last_read = if keep { before.last_read } else { self.sequence };
        self.push(TableEntry { digest, last_read })
    }

    /// The next block was read and is what it was in the parent; returns its digest.
    pub(super) fn push_reread(&mut self) -> Result<BlockDigest> {
        let digest = self.parent_entry()?.digest;
        self.push_read(digest, true)?;
        Ok(digest)
    }

    /// The next block is what it was in the parent, by a hint; returns its digest.
    pub(super) fn push_carried(&mut self) -> Result<BlockDigest> {
        let before = self.parent_entry()?;
        let scanned = self.parent.map_or(0, |parent| parent.header().scanned_sequence);
        self.lower_oldest(before.last_read.max(scanned));
        self.push(before)?;
        Ok(before.digest)
    }

    fn lower_oldest(&mut self, read: Sequence) {
        self.oldest = match (self.oldest, read) {
            (Some(oldest), read) if read > 0 => Some(oldest.min(read)),
            _ => None,
        };
    }

    fn push_hole(&mut self) -> Result<()> {
        let before = self.parent_entry()?;
        let entry = if before.digest == BlockDigest::ZERO { before } else { TableEntry::HOLE };
        self.lower_oldest(entry.last_read);
        self.push(entry)
    }

    pub(super) fn push_holes(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            if self.page.is_empty() && count >= BLOCKS_PER_PAGE && is_zero(&self.parent_page) {
                self.page.resize(PAGE_LEN, 0);
                self.oldest = None;
                self.close()?;
                count -= BLOCKS_PER_PAGE;
            } else {
                self.push_hole()?;
                count -= 1;
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: TableEntry) -> Result<()> {
        entry.encode(&mut self.page);
        if self.page.len() == PAGE_LEN { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        self.page.resize(PAGE_LEN, 0);
        if let Some(spool) = &mut self.spool
            && self.page != self.parent_page
        {
            spool.push(self.number, &self.page)?;
        }
        if let Some(next) = self.next
            && !is_zero(&self.page)
        {
            next.put_page(self.number, &self.page)?;
        }
        self.page.clear();
        self.number += 1;
        self.parent_page = self.load_parent_page()?;
        Ok(())
    }

    fn finish(mut self) -> Result<(Option<PageSpool>, Option<Sequence>)> {
        if !self.page.is_empty() {
            self.close()?;
        }
        Ok((self.spool, self.oldest))
    }
}

/// What the collector has found out.
pub struct Collection {
    pub root: RootDigest,
    pub spool: Option<PageSpool>,
    pub oldest_read: Option<Sequence>,
    pub statistics: Statistics,
    /// Blocks that were stored again although they have not changed.
    pub healed: u64,
}

/// Told first block, number of blocks and the digest of each.
pub type OnDigest<'a> = &'a mut (dyn FnMut(BlockIndex, u64, BlockDigest) -> Result<()> + 'a);

/// Takes blocks in volume order.
pub struct Collector<'a> {
    pub geometry: Geometry,
    pub(super) statistics: Statistics,
    pub(super) healed: u64,
    pub table: TableBuilder<'a>,
    teller: Teller<'a>,
    pub delta: Option<DeltaFeed>,
    pub progress: &'a Progress,
    /// Told every block's digest, in order, holes of a section as one.
    pub on_digest: Option<OnDigest<'a>>,
    pub(super) root: RootBuilder,
    pub(super) has_parent: bool,
    zero_range: ZeroRange,
}

impl<'a> Collector<'a> {
    pub fn new(
        geometry: Geometry,
        digest: DigestKind,
        table: TableBuilder<'a>,
        teller: Teller<'a>,
        delta: Option<DeltaFeed>,
        progress: &'a Progress,
    ) -> Self {
        let has_parent = table.parent.is_some();
        let root = RootBuilder::new(digest, &geometry);
        let statistics = Statistics { blocks_total: geometry.block_count(), ..Statistics::default() };
        Self {
            geometry,
            statistics,
            healed: 0,
            table,
            teller,
            delta,
            progress,
            on_digest: None,
            root,
            has_parent,
            zero_range: ZeroRange::default(),
        }
    }

    /// The next item in order; `by_chance` when it was read only to prove a hint.
    pub fn take(&mut self, item: Collected, by_chance: bool) -> Result<()> {
        let (first, count) = item.span();
        match item {
            Collected::Skip(Skipped { why: Skip::Hole, .. }) => self.take_hole(first, count)?,
            Collected::Skip(Skipped { why: Skip::Carried, .. }) => self.take_carried(first, count)?,
            Collected::Block(block) => self.take_block(block, by_chance)?,
        }
        self.delta.as_mut().map_or(Ok(()), |delta| delta.passed(first, count))
    }

    /// An item whose turn has come in its section: what is to be stored of it goes on its way.
    pub fn gather(&mut self, item: &mut Collected) -> Result<()> {
        let (first, count) = item.span();
        self.progress.add_done(self.geometry.span_len(first, count));
        match (item, &mut self.delta) {
            (Collected::Block(block), Some(delta)) => delta.gather(block),
            _ => Ok(()),
        }
    }

    fn tell(&mut self, first: BlockIndex, count: u64, digest: BlockDigest) -> Result<()> {
        self.on_digest.as_mut().map_or(Ok(()), |on_digest| on_digest(first, count, digest))
    }

    fn take_carried(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        for index in first..first + count {
            let digest = self.table.push_carried()?;
            self.tell(index, 1, digest)?;
            self.root.push(digest);
        }
        self.statistics.bytes_carried += self.geometry.span_len(first, count);
        Ok(())
    }

    fn take_hole(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        self.tell(first, count, BlockDigest::ZERO)?;
        self.root.push_zeros(count);
        self.table.push_holes(count)?;
        let inherited = self.inherited_blocks().saturating_sub(first).min(count);
        self.statistics.bytes_carried += self.geometry.span_len(first, inherited);
        if inherited < count {
            self.take_zero_tail(first + inherited, count - inherited)?;
        }
        Ok(())
    }

    /// Blocks that have their full counterpart in the parent.
    pub(super) fn inherited_blocks(&self) -> u64 {
        self.table.parent.map_or(0, |parent| self.geometry.shared_blocks(&parent.header().geometry))
    }

    /// Zero blocks that the parent does not have: stored explicitly, as ranges.
    fn take_zero_tail(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        if self.has_parent {
            let length = self.geometry.span_len(first, count);
            self.teller.zeros(self.geometry.block_offset(first), length)?;
            self.statistics.blocks_changed += count;
            self.statistics.grains_changed += length.div_ceil(u64::from(self.geometry.grain_size()));
            self.statistics.bytes_changed += length;
        }
        let before = self.zero_range.join(first, count);
        self.entry(before)
    }

    pub(super) fn flush_zero_range(&mut self) -> Result<()> {
        let range = self.zero_range.take();
        self.entry(range)
    }

    fn entry(&mut self, entry: Option<IndexEntry>) -> Result<()> {
        match (entry, &self.delta) {
            (Some(entry), Some(delta)) => delta.entry(entry),
            _ => Ok(()),
        }
    }

    fn take_block(&mut self, block: Compared, by_chance: bool) -> Result<()> {
        self.tell(block.index, 1, block.digest)?;
        self.statistics.bytes_read += u64::from(block.len);
        self.root.push(block.digest);
        // A page of the table that only got new marks would be stored again, so marks are renewed where neighbours are.
        let healed = block.is_healed();
        let unchanged = healed || matches!(block.verdict, Verdict::Unchanged);
        self.table.push_read(block.digest, unchanged && (self.table.reads_all || by_chance))?;
        let Verdict::Changed(changed) = block.verdict else { return Ok(()) };
        let absent_before = changed.whole && changed.old == BlockDigest::UNKNOWN;
        if block.digest == BlockDigest::ZERO && absent_before {
            return self.take_zero_tail(block.index, 1);
        }
        if healed {
            self.healed += 1;
        } else {
            self.count(block.index, &changed)?;
        }
        self.flush_zero_range()?;
        match changed.content {
            Content::Gathered(entry) => self.entry(Some(entry)),
            Content::Read { .. } if self.delta.is_none() => Ok(()),
            Content::Read { .. } => Err(Error::new(ErrorKind::Io, "a changed block was not stored")),
        }
    }

    fn count(&mut self, index: BlockIndex, changed: &ChangedBlock) -> Result<()> {
        let len = self.geometry.block_len(index);
        let empty = crate::grain_set::GrainSet::empty(changed.zero.capacity());
        // Without a parent there is nothing that a zero could differ from.
        let zero = if self.has_parent { &changed.zero } else { &empty };
        let bytes: usize = changed
            .stored
            .iter()
            .chain(zero.iter())
            .map(|grain| self.geometry.grain_range(grain, len).len())
            .sum();
        self.statistics.blocks_changed += 1;
        self.statistics.grains_changed += u64::from(changed.stored.count() + zero.count());
        self.statistics.bytes_changed += bytes as u64;
        self.progress.add_changed(bytes as u64);
        self.teller.block(&self.geometry, index, changed, zero)
    }

    /// All blocks have come.
    pub fn finish(mut self) -> Result<Collection> {
        self.flush_zero_range()?;
        self.teller.finish()?;
        let (spool, oldest_read) = self.table.finish()?;
        let (statistics, healed) = (self.statistics, self.healed);
        Ok(Collection { root: self.root.finish()?, spool, oldest_read, statistics, healed })
    }
}
