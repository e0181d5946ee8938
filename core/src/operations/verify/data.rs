//! Every byte of backups that build on each other, each frame fetched and decoded once.
//!
//! ```text
//! planner (merged index, tables of all states, in order) ──> workers (a block in each of its states) ──> roots (in order)
//! ```
//! The states of a chain are walked side by side: what several of them share is proven once, and a frame is decoded while
//! all who need it are at the same block. On their way the deltas are digested as files. Trade-off: memory for the places
//! in all those deltas, so long chains go in groups, each of which reads again what it needs of the deltas below it; so
//! does each of several differential backups of one full.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::backup_id::BackupRecord;
use crate::cancel::CancelToken;
use crate::delta::merged::{BlockPlan, MergedIndex};
use crate::delta::passing::{Passing, Room};
use crate::delta::reader::DeltaReader;
use crate::digest::{BlockDigest, BlockHasher, DigestKind, RootBuilder, RootDigest, to_hex};
use crate::error::{Error, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::operations::assembly::{LostParts, note_lost_parts, tell_places};
use crate::operations::block_builder::{BlockBuilder, lost_ranges, wrong_block};
use crate::operations::damage::{MissingRange, Place, hurt, join};
use crate::operations::failure::{Failure, stopped};
use crate::progress::Progress;
use crate::repository::chain::{Chain, ChainTable};
use crate::sys::host;

use super::{Verifying, problem, problem_of_range};

/// States that are walked side by side.
const STATES_MAX: usize = 16;
const WORKERS_MAX: usize = 8;
/// Blocks that are in work at once may have so many bytes together, but for the least number of workers.
const IN_WORK: usize = 64 << 20;
const WORKERS_MIN: usize = 2;
const PATIENCE: Duration = Duration::from_millis(50);

impl Verifying<'_> {
    /// Reads all data of these backups, whose structure is sound.
    pub(super) fn data(&mut self, records: &[&BackupRecord]) -> Result<()> {
        let mut waiting = Vec::new();
        for record in records {
            let chain = self.repository.chain(record);
            waiting.extend(self.settle(record, chain)?);
        }
        while let Some((chain, states)) = next_group(&mut waiting) {
            self.group(&chain, &states)?;
        }
        Ok(())
    }

    /// Backups at these places of a chain. What fails as a whole is tried for each by itself, so that one that cannot be
    /// opened, or was removed meanwhile, says nothing of the others.
    fn group(&mut self, chain: &Chain, states: &[usize]) -> Result<()> {
        self.cancel.check()?;
        let error = match self.walk(chain, states) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let tip = &chain.records()[states[0]];
        if states.len() == 1 {
            return self.settle::<()>(tip, Err(error)).map(drop);
        }
        self.cancel.check()?;
        let before = (self.problems.len(), self.removed);
        for state in states {
            self.group(&chain.of(*state), &[0])?;
        }
        if before == (self.problems.len(), self.removed) {
            // What could be read only at the second try is not sound.
            self.problems.push(problem(Some(tip.backup_id), &error));
        }
        Ok(())
    }

    fn walk(&mut self, chain: &Chain, places: &[usize]) -> Result<()> {
        let (repository, room) = (self.repository, Arc::<Room>::default());
        let (mut deltas, table) = (repository.deltas(chain)?, repository.table(chain)?);
        let mut passing = Vec::new();
        for place in places {
            let (delta, passed) = deltas[*place].in_passing(&room);
            deltas[*place] = delta;
            passing.push(passed);
        }
        let tables: Vec<ChainTable> = places.iter().map(|place| table.of(*place)).collect();
        let states = places.iter().zip(&tables).map(|(place, table)| (*place, *table.geometry())).collect();
        let walk = Walk::new(&deltas, states, chain.tip().digest);
        let found = walk.run(tables, self.progress, self.cancel)?;
        let mut damaged = Vec::new();
        tell_places(&chain.delta_names(), &walk.blocks, &walk.lost, &mut damaged);
        for ((place, passed), found) in places.iter().zip(passing).zip(found).rev() {
            let record = &chain.records()[*place];
            let concluded = self.conclude(record, &passed, found, &damaged);
            let _ = self.settle(record, concluded)?;
        }
        self.places.extend(damaged.into_iter().map(|place| (chain.tip().volume.clone(), place)));
        Ok(())
    }

    /// What was found of one backup, and of its delta as a file.
    fn conclude(
        &mut self,
        record: &BackupRecord,
        passed: &Passing,
        found: Found,
        places: &[Place],
    ) -> Result<()> {
        let digest = passed.finish(|_| self.cancel.check());
        let proven = digest.and_then(|digest| match to_hex(&digest) == record.delta.blake3 {
            true => Ok(()),
            false => Err(Error::damaged("the delta is not the one its record names")
                .path(self.repository.storage().display(&record.delta.name))),
        });
        match &proven {
            Ok(()) => drop(self.sound.insert(record.delta.name.clone())),
            // What it does to the volume is said by the ranges that cannot be put together.
            Err(error) if error.is_damage() => {}
            Err(_) => return proven,
        }
        let mut missing = found.missing;
        if missing.is_empty() {
            if found.root != Some(record.root) {
                return Err(Error::damaged("the root of what was put together is not the backup's"));
            }
            // What could be read only at the second try is not sound.
            missing = hurt(self.repository, record, places)?;
        }
        let told = self.told.contains(&record.backup_id) || !missing.is_empty();
        self.problems.extend(missing.into_iter().map(|range| problem_of_range(record.backup_id, range)));
        if told { Ok(()) } else { proven }
    }
}

/// Takes the longest chain whose backup waits, with the places of those in it that wait too, newest first.
fn next_group(waiting: &mut Vec<Chain>) -> Option<(Chain, Vec<usize>)> {
    let longest = (0..waiting.len()).max_by_key(|number| waiting[*number].records().len())?;
    let chain = waiting.remove(longest);
    let mut places = vec![0];
    for (place, record) in chain.records().iter().enumerate().skip(1) {
        let waits = waiting.iter().position(|other| other.tip().backup_id == record.backup_id);
        if let Some(number) = waits.filter(|_| places.len() < STATES_MAX) {
            waiting.remove(number);
            places.push(place);
        }
    }
    Some((chain, places))
}

/// What was found of one state.
struct Found {
    missing: Vec<MissingRange>,
    /// If nothing is missing.
    root: Option<RootDigest>,
}

/// A block as neighbouring states have it.
struct Variant {
    states: Range<usize>,
    plan: BlockPlan,
    expected: BlockDigest,
}

/// The same when it was looked at.
struct Seen {
    states: Range<usize>,
    digest: BlockDigest,
    lost: Vec<MissingRange>,
}

/// A block in all states that have it, oldest first.
struct Block<T> {
    index: BlockIndex,
    variants: Vec<T>,
}

/// What the stages share.
struct Walk<'a> {
    deltas: &'a [Arc<DeltaReader>],
    blocks: BlockBuilder,
    /// Of each state, newest first: its place in the chain, and how the volume was cut.
    states: Vec<(usize, Geometry)>,
    digest: DigestKind,
    lost: LostParts,
}

impl<'a> Walk<'a> {
    fn new(deltas: &'a [Arc<DeltaReader>], states: Vec<(usize, Geometry)>, digest: DigestKind) -> Self {
        let blocks = BlockBuilder::new(states[0].1, deltas);
        Self { deltas, blocks, states, digest, lost: LostParts::default() }
    }

    fn run(
        &self,
        mut tables: Vec<ChainTable>,
        progress: &Progress,
        cancel: &CancelToken,
    ) -> Result<Vec<Found>> {
        let geometries = self.states.iter().map(|(_, geometry)| *geometry);
        let largest = geometries.clone().max_by_key(Geometry::volume_size).unwrap_or(self.states[0].1);
        let workers = host::cores().min(WORKERS_MAX).min(IN_WORK / block_len(&largest)).max(WORKERS_MIN);
        let root = |geometry| (RootBuilder::new(self.digest, &geometry), Vec::new());
        let mut ends: Vec<End> = geometries.map(root).collect();
        let failure = Failure::default();
        progress.begin(largest.volume_size());
        std::thread::scope(|scope| {
            let (task_to, task_from) = bounded(2);
            let (done_to, done_from) = bounded(64);
            let (failure, tables, largest) = (&failure, &mut tables, &largest);
            scope.spawn(move || {
                failure.guard(|| self.plan(tables, largest.block_count(), &task_to, &failure.stop));
            });
            for _ in 0..workers {
                let (from, to) = (task_from.clone(), done_to.clone());
                scope.spawn(move || failure.guard(|| self.work(&from, &to, &failure.stop)));
            }
            drop((task_from, done_to));
            failure.guard(|| collect(&mut ends, largest, &done_from, progress, cancel));
        });
        failure.into_result()?;
        let found = |(root, missing): End| match missing.is_empty() {
            true => Ok(Found { root: Some(root.finish()?), missing }),
            false => Ok(Found { root: None, missing: join(missing) }),
        };
        ends.into_iter().map(found).collect()
    }

    /// Walks index and tables in step.
    fn plan(
        &self,
        tables: &mut [ChainTable],
        blocks: u64,
        to: &Sender<Block<Variant>>,
        stop: &CancelToken,
    ) -> Result<()> {
        let mut merged = MergedIndex::tolerant(self.deltas)?;
        for index in 0..blocks {
            stop.check()?;
            let mut variants: Vec<Variant> = Vec::new();
            for (number, (place, geometry)) in self.states.iter().enumerate().rev() {
                if index >= geometry.block_count() {
                    continue;
                }
                let expected = tables[number].entry(index)?.digest;
                if let Some(below) = variants.last_mut().filter(|below| below.states.start == number + 1) {
                    let since = *place..self.states[number + 1].0;
                    if expected.same(&below.expected) && merged.is_passed_over(since, index) {
                        below.states.start = number;
                        continue;
                    }
                }
                let plan = merged.block_of(*place, index)?;
                if plan.doubt.is_some() {
                    note_lost_parts(&merged, &self.lost);
                }
                variants.push(Variant { states: number..number + 1, plan, expected });
            }
            if to.send(Block { index, variants }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn work(
        &self,
        from: &Receiver<Block<Variant>>,
        to: &Sender<Block<Seen>>,
        stop: &CancelToken,
    ) -> Result<()> {
        let geometry = self.states[0].1;
        let mut hasher = BlockHasher::new(self.digest, geometry);
        let mut buffer = vec![0; block_len(&geometry)];
        while let Ok(Block { index, variants }) = from.recv() {
            stop.check()?;
            let look = |Variant { states, plan, expected }: Variant| {
                let lost =
                    self.look(&mut hasher, &plan, expected, &mut buffer[..to_usize(u64::from(plan.len))])?;
                Ok(Seen { states, digest: expected, lost })
            };
            let variants = variants.into_iter().map(look).collect::<Result<_>>()?;
            if to.send(Block { index, variants }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts a block together in `buffer` and proves it; returns what cannot be had of it.
    fn look(
        &self,
        hasher: &mut BlockHasher,
        plan: &BlockPlan,
        expected: BlockDigest,
        buffer: &mut [u8],
    ) -> Result<Vec<MissingRange>> {
        if plan.runs.is_empty() && plan.doubt.is_none() && expected == BlockDigest::ZERO {
            return Ok(Vec::new());
        }
        match self.blocks.build(hasher, plan, expected, buffer) {
            Err(error) if error.is_damage() => {}
            other => return other.map(|_| Vec::new()),
        }
        let mut lost = self.blocks.salvage(hasher, plan, expected, buffer)?;
        let whole = lost.iter().all(Option::is_none);
        if whole && !hasher.hash(buffer, &mut Vec::new()).same(&expected) {
            let error = wrong_block(&self.states[0].1, plan.index, "a block does not match its manifest");
            lost.fill(Some(error.full_text()));
        }
        Ok(join(lost_ranges(&self.states[0].1, plan, lost).collect()))
    }
}

fn block_len(geometry: &Geometry) -> usize {
    to_usize(u64::from(geometry.block_size()))
}

/// What comes out of one state: its root as it grows, and what is missing.
type End = (RootBuilder, Vec<MissingRange>);

/// The end of the path, in volume order.
fn collect(
    ends: &mut [End],
    largest: &Geometry,
    from: &Receiver<Block<Seen>>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<()> {
    let (mut next, mut waiting) = (0, BTreeMap::new());
    loop {
        cancel.check()?;
        match from.recv_timeout(PATIENCE) {
            Ok(block) => drop(waiting.insert(block.index, block.variants)),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) if next == largest.block_count() => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
        }
        while let Some(variants) = waiting.remove(&next) {
            for Seen { states, digest, lost } in variants {
                for (root, missing) in &mut ends[states] {
                    root.push(digest);
                    missing.extend_from_slice(&lost);
                }
            }
            progress.add_done(largest.span_len(next, 1));
            next += 1;
        }
    }
}
