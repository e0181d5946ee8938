//! What to read: every block, but for holes of a file where the parent has no data either.
//!
//! A hole is a hint, and hints lie: of the runs of holes number 1, 2, 4, 8, ... one block picked by chance is read all
//! the same, and so is every block where the parent has data. If one of them holds data, the caller starts again without
//! hints.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::BlockDigest;
use crate::error::Result;
use crate::flow::Planned;
use crate::geometry::{BlockIndex, Geometry};
use crate::manifest::working::WorkingManifest;
use crate::source::Source;
use crate::sys::host;

/// Blocks that are read although the hint calls them holes.
#[derive(Clone, Default)]
pub struct Samples(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    waiting: BTreeSet<BlockIndex>,
    count: u64,
}

impl Samples {
    fn add(&self, index: BlockIndex) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.waiting.insert(index);
        inside.count += 1;
    }

    /// Whether this block was read although the hint calls it a hole; asked once a block, which is then forgotten.
    pub fn take(&self, index: BlockIndex) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&index)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

/// The plan of one run, in volume order.
pub struct Plan<'a> {
    source: &'a dyn Source,
    geometry: Geometry,
    parent: Option<&'a WorkingManifest>,
    use_holes: bool,
    samples: Samples,
    next: BlockIndex,
    data: Option<Range<u64>>,
    /// End of the run of hole blocks that is being worked through, and the sample in it.
    hole_end: BlockIndex,
    sample: Option<BlockIndex>,
    runs: u64,
}

impl<'a> Plan<'a> {
    /// Of all blocks; holes are left out only with `use_holes`.
    pub fn new(
        source: &'a dyn Source,
        geometry: Geometry,
        parent: Option<&'a WorkingManifest>,
        use_holes: bool,
        samples: Samples,
    ) -> Self {
        let data = Some(0..0);
        Self {
            source,
            geometry,
            parent,
            use_holes,
            samples,
            next: 0,
            data,
            hole_end: 0,
            sample: None,
            runs: 0,
        }
    }

    fn step(&mut self) -> Result<Planned> {
        if self.use_holes && self.next >= self.hole_end {
            self.find_hole()?;
        }
        let index = self.next;
        if index >= self.hole_end || self.sample == Some(index) || self.parent_has_data(index)? {
            if index < self.hole_end {
                self.samples.add(index);
            }
            self.next += 1;
            return Ok(Planned::Read(index));
        }
        let limit = self.sample.filter(|sample| *sample > index).unwrap_or(self.hole_end).min(self.hole_end);
        self.next += 1;
        while self.next < limit && !self.parent_has_data(self.next)? {
            self.next = self.skip_empty_pages(limit)?;
        }
        Ok(Planned::Hole { first: index, count: self.next - index })
    }

    /// Sets `hole_end` when a run of whole hole blocks starts at `next`.
    fn find_hole(&mut self) -> Result<()> {
        let start = self.geometry.block_offset(self.next);
        if self.data.as_ref().is_some_and(|data| data.end <= start) {
            self.data = self.source.next_data(start)?;
        }
        let end = match &self.data {
            Some(data) => self.geometry.block_of(data.start),
            None => self.geometry.block_count(),
        };
        if end > self.next {
            self.hole_end = end;
            self.runs += 1;
            self.sample = self.runs.is_power_of_two().then(|| random_block(self.next, end));
        }
        Ok(())
    }

    fn parent_has_data(&self, index: BlockIndex) -> Result<bool> {
        let Some(parent) = self.parent else { return Ok(false) };
        Ok(parent.entry(index)?.is_some_and(|entry| entry.digest != BlockDigest::ZERO))
    }

    /// The next block to look at: one on, or past a whole page of the parent's table that is empty.
    fn skip_empty_pages(&self, limit: BlockIndex) -> Result<BlockIndex> {
        use crate::digest::{BLOCKS_PER_PAGE, is_zero};
        let page_end = self.next + BLOCKS_PER_PAGE;
        if page_end > limit {
            return Ok(self.next + 1);
        }
        let Some(parent) = self.parent else { return Ok(limit) };
        let whole_page = self.next.is_multiple_of(BLOCKS_PER_PAGE);
        let empty = whole_page && is_zero(&parent.page(self.next / BLOCKS_PER_PAGE)?);
        Ok(if empty { page_end } else { self.next + 1 })
    }
}

fn random_block(first: BlockIndex, end: BlockIndex) -> BlockIndex {
    let random = host::random_bytes::<8>().map(u64::from_le_bytes).unwrap_or_default();
    first + random % (end - first)
}

impl Iterator for Plan<'_> {
    type Item = Result<Planned>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.geometry.block_count()).then(|| self.step())
    }
}
