//! What to read: every block, but for those that a hint lets us skip.
//!
//! Two hints lead here. Holes of a file (and what the storage layer maps nothing to) are skipped where the parent has no data either; of the runs of holes number 1, 2,
//! 4, 8, ... one block picked by chance is read all the same, and so is every block where the parent has data. A change
//! map has been turned into sets of blocks before ([`MapPlan`]). A hint that one read block contradicts is given up: the
//! caller starts again and reads everything.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::BlockDigest;
use crate::error::Result;
use crate::flow::{Planned, Skip, Skipped};
use crate::geometry::{BlockIndex, Geometry};
use crate::hint::block_set::BlockSet;
use crate::hint::proof::MapPlan;
use crate::manifest::working::WorkingManifest;
use crate::source::Source;
use crate::sys::host;

/// What lets blocks be skipped.
#[derive(Debug, Clone, Copy)]
pub enum Skipping<'a> {
    /// Nothing: every block is read.
    Nothing,
    /// Holes of the source, as its file system tells them.
    Holes,
    /// The same for blocks in which the storage layer maps nothing: all but these.
    Unmapped(&'a BlockSet),
    /// A change map against the parent.
    Map(&'a MapPlan),
}

/// Why a block is read although the hint would let it be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A hole of the file; if it holds data, the hint lies.
    Hole,
    /// Picked by chance or at the edge of a change; if it differs from the parent, the hint lies.
    Chance,
    /// Its turn in the rolling scan; the same.
    Rolling,
}

/// Blocks that are read to prove the hint.
#[derive(Clone, Default)]
pub struct Samples(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    waiting: BTreeMap<BlockIndex, Sample>,
    by_chance: u64,
    rolling: u64,
}

impl Samples {
    fn add(&self, index: BlockIndex, why: Sample) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.waiting.insert(index, why);
        match why {
            Sample::Rolling => inside.rolling += 1,
            Sample::Hole | Sample::Chance => inside.by_chance += 1,
        }
    }

    /// Whether this block was read to prove the hint; asked once a block, which is then forgotten.
    pub fn take(&self, index: BlockIndex) -> Option<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&index)
    }

    /// How many there are: picked by chance, and by the rolling scan.
    pub fn count(&self) -> (u64, u64) {
        let inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inside.by_chance, inside.rolling)
    }
}

/// The plan of one run, in volume order.
pub struct Plan<'a> {
    source: &'a dyn Source,
    geometry: Geometry,
    parent: Option<&'a WorkingManifest>,
    skipping: Skipping<'a>,
    samples: Samples,
    next: BlockIndex,
    data: Option<Range<u64>>,
    /// End of the run of hole blocks that is being worked through, and the sample in it.
    hole_end: BlockIndex,
    sample: Option<BlockIndex>,
    runs: u64,
}

impl<'a> Plan<'a> {
    /// Of all blocks; what is read to prove the hint is put into `samples`.
    pub fn new(
        source: &'a dyn Source,
        geometry: Geometry,
        parent: Option<&'a WorkingManifest>,
        skipping: Skipping<'a>,
        samples: Samples,
    ) -> Self {
        let data = Some(0..0);
        Self {
            source,
            geometry,
            parent,
            skipping,
            samples,
            next: 0,
            data,
            hole_end: 0,
            sample: None,
            runs: 0,
        }
    }

    /// The blocks before this one have been passed by an interrupted run.
    pub fn start_at(mut self, first: BlockIndex) -> Self {
        self.next = first;
        self
    }

    fn step(&mut self) -> Result<Planned> {
        match self.skipping {
            Skipping::Nothing => Ok(self.read()),
            Skipping::Holes | Skipping::Unmapped(_) => self.step_over_holes(),
            Skipping::Map(plan) => Ok(self.step_by_map(plan)),
        }
    }

    fn read(&mut self) -> Planned {
        self.next += 1;
        Planned::Read(self.next - 1)
    }

    fn step_by_map(&mut self, plan: &MapPlan) -> Planned {
        let first = self.next;
        let until = plan.next_read(first).min(self.geometry.block_count());
        if until > first {
            self.next = until;
            return Planned::Skip(Skipped { first, count: until - first, why: Skip::Carried });
        }
        if let Some(sample) = plan.sample(first) {
            self.samples.add(first, if sample.rolling { Sample::Rolling } else { Sample::Chance });
        }
        self.read()
    }

    fn step_over_holes(&mut self) -> Result<Planned> {
        if self.next >= self.hole_end {
            self.find_hole()?;
        }
        let index = self.next;
        if index >= self.hole_end || self.sample == Some(index) || self.parent_has_data(index)? {
            if index < self.hole_end {
                self.samples.add(index, Sample::Hole);
            }
            return Ok(self.read());
        }
        let limit = self.sample.filter(|sample| *sample > index).unwrap_or(self.hole_end).min(self.hole_end);
        self.next += 1;
        while self.next < limit && !self.parent_has_data(self.next)? {
            self.next = self.skip_empty_pages(limit)?;
        }
        Ok(Planned::Skip(Skipped { first: index, count: self.next - index, why: Skip::Hole }))
    }

    /// Sets `hole_end` when a run of whole hole blocks starts at `next`.
    fn find_hole(&mut self) -> Result<()> {
        let end = match self.skipping {
            Skipping::Unmapped(mapped) => mapped.next(self.next, true),
            _ => self.next_data_block()?,
        };
        if end > self.next {
            self.hole_end = end;
            self.runs += 1;
            self.sample =
                self.runs.is_power_of_two().then(|| self.next + host::random_below(end - self.next));
        }
        Ok(())
    }

    fn next_data_block(&mut self) -> Result<BlockIndex> {
        let start = self.geometry.block_offset(self.next);
        if self.data.as_ref().is_some_and(|data| data.end <= start) {
            self.data = self.source.next_data(start)?;
        }
        Ok(match &self.data {
            Some(data) => self.geometry.block_of(data.start),
            None => self.geometry.block_count(),
        })
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

impl Iterator for Plan<'_> {
    type Item = Result<Planned>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.geometry.block_count()).then(|| self.step())
    }
}
