//! Putting blocks together from a chain and proving each before anybody sees it: the path that restore and verify share.
//!
//! ```text
//! planner (merged index, expected digests, in order) ──> workers (read frames, assemble, prove, put) ──> root (in order)
//! ```
//! A block is handed to the sink only after its digest matched the manifest's; the root is proven over what was handed on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::assembled_block::{Done, Job};
use super::block_builder::{BlockBuilder, wrong_block};
use super::damage::{MissingRange, Place, Spot, join};
use super::failure::{Failure, stopped};
use super::tracking::make_pool;
use crate::cancel::CancelToken;
use crate::delta::merged::{BlockPlan, MergedIndex};
use crate::delta::reader::DeltaReader;
use crate::digest::{BlockDigest, BlockHasher, DigestKind, RootBuilder, RootDigest};
use crate::error::{Error, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::progress::Progress;
use crate::repository::chain::ChainTable;
use crate::sink::Sink;
use crate::sys::host;

const PATIENCE: Duration = Duration::from_millis(50);
/// How often what was written is made durable, for a run that goes on after an interruption.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3);
/// Buffers beyond one for each worker: blocks that wait for their turn.
const SPARE_BUFFERS: u32 = 4;
/// Zero ranges are handed on in pieces of this size, so that progress and cancelling stay alive.
const ZERO_PIECE: u64 = 1 << 30;

/// What to put together.
pub struct Assembly<'a> {
    pub deltas: &'a [Arc<DeltaReader>],
    /// Their names in the repository.
    pub names: Vec<String>,
    pub table: &'a mut ChainTable,
    pub geometry: Geometry,
    pub digest: DigestKind,
    pub root: RootDigest,
    pub sink: &'a dyn Sink,
    /// Bytes of the volume that are wanted.
    pub range: std::ops::Range<u64>,
    /// Read the sink first and write only what differs.
    pub in_place: bool,
    /// An interrupted run has written what is before this offset: it is read first, and only what differs is written.
    pub resumed_to: u64,
    /// Told every few seconds how far everything is durable.
    pub checkpoint: Option<&'a (dyn Fn(u64) + Sync)>,
    /// Hand on what can be proven, and tell what is missing, instead of failing at the first damage.
    pub skip_damaged: bool,
    pub progress: &'a Progress,
    pub cancel: &'a CancelToken,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Assembled {
    /// Bytes handed to the sink, zeros not counted.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Whether the whole volume's root was proven.
    pub root_proven: bool,
    /// What could not be had of the range.
    pub missing: Vec<MissingRange>,
}

enum Task {
    Block(BlockPlan, BlockDigest),
    Zeros(BlockIndex, u64),
}

impl Assembly<'_> {
    /// Runs it; damaged places are added to `places` also when it fails.
    pub fn run(self, places: &mut Vec<Place>) -> Result<Assembled> {
        let whole = self.range == (0..self.geometry.volume_size());
        // Half of them wait for the target while the others compute.
        let workers = (2 * host::cores()).clamp(2, 16);
        let extra = u32::try_from(workers).unwrap_or(2) * u32::from(self.in_place || self.resumed_to > 0)
            + SPARE_BUFFERS;
        let pool = make_pool(extra, 2 * workers, 0, to_usize(u64::from(self.geometry.block_size())))?;
        let job = Job {
            geometry: self.geometry,
            digest: self.digest,
            blocks: BlockBuilder::new(self.geometry, self.deltas),
            sink: self.sink,
            range: self.range.clone(),
            in_place: self.in_place,
            resumed_to: self.resumed_to,
            skip_damaged: self.skip_damaged,
            pool: &pool,
            order: Mutex::new(()),
        };
        let lost_parts = LostParts::default();
        let failure = Failure::default();
        let mut result = Assembled::default();
        self.progress.begin(self.range.end - self.range.start);
        let blocks = block_span(&self.geometry, &self.range);
        std::thread::scope(|scope| {
            let (task_to, task_from) = bounded::<Task>(2);
            let (done_to, done_from) = bounded::<Done>(64);
            let (failure, job, geometry) = (&failure, &job, self.geometry);
            let (deltas, table, span) = (self.deltas, self.table, blocks.clone());
            let (skip_damaged, lost_parts) = (self.skip_damaged, &lost_parts);
            scope.spawn(move || {
                failure.guard(|| {
                    let mut index =
                        if skip_damaged { MergedIndex::tolerant(deltas)? } else { MergedIndex::new(deltas)? };
                    let mut planner =
                        Planner { index: &mut index, table, geometry, skip_damaged, lost_parts };
                    planner.run(span, &task_to, &failure.stop)
                });
            });
            for _ in 0..workers {
                let (from, to) = (task_from.clone(), done_to.clone());
                scope.spawn(move || failure.guard(|| work(job, &from, &to, &failure.stop)));
            }
            drop((task_from, done_to));
            failure.guard(|| {
                let root = whole.then(|| RootBuilder::new(self.digest, &self.geometry));
                let mut finish = Finish {
                    root,
                    next: blocks.start,
                    waiting: BTreeMap::new(),
                    result: &mut result,
                    checkpoint: self.checkpoint,
                    saved: Instant::now(),
                };
                finish.run(job, &done_from, self.progress, self.cancel)?;
                finish.prove(self.root, blocks.end)
            });
        });
        tell_places(&self.names, &job.blocks, &lost_parts, places);
        failure.into_result()?;
        self.sink.finish()?;
        result.missing = join(result.missing);
        Ok(result)
    }
}

/// Adds the damaged places of a chain whose deltas have these names.
pub fn tell_places(names: &[String], blocks: &BlockBuilder, lost: &LostParts, places: &mut Vec<Place>) {
    let mut add = |delta: usize, spot: Spot, what: String| {
        let delta = names.get(delta).cloned().unwrap_or_default();
        places.push(Place { delta, spot, what });
    };
    for ((delta, frame), what) in blocks.damaged() {
        add(delta, Spot::Frame(frame), what);
    }
    for ((delta, first, last), what) in lost.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        add(*delta, Spot::Index(*first, *last), what.clone());
    }
}

/// Parts of indexes that cannot be read: delta of the chain, first and last block, why.
pub type LostParts = Mutex<BTreeMap<(usize, BlockIndex, BlockIndex), String>>;

fn block_span(geometry: &Geometry, range: &std::ops::Range<u64>) -> std::ops::Range<BlockIndex> {
    if range.is_empty() {
        return 0..0;
    }
    geometry.block_of(range.start)..geometry.block_of(range.end - 1) + 1
}

/// Walks index and table in step.
struct Planner<'a> {
    index: &'a mut MergedIndex,
    table: &'a mut ChainTable,
    geometry: Geometry,
    skip_damaged: bool,
    lost_parts: &'a LostParts,
}

impl Planner<'_> {
    fn run(
        &mut self,
        blocks: std::ops::Range<BlockIndex>,
        to: &Sender<Task>,
        stop: &CancelToken,
    ) -> Result<()> {
        let mut next = blocks.start;
        let piece = (ZERO_PIECE / u64::from(self.geometry.block_size())).max(1);
        while next < blocks.end {
            stop.check()?;
            let zeros = self.index.zero_run(next)?.min(blocks.end - next).min(piece);
            let zeros = self.proven_zeros(next, zeros)?;
            let task = if zeros > 0 {
                next += zeros;
                Task::Zeros(next - zeros, zeros)
            } else {
                let plan = self.index.block(next)?;
                if plan.doubt.is_some() {
                    note_lost_parts(self.index, self.lost_parts);
                }
                let expected = self.table.entry(next)?.digest;
                next += 1;
                Task::Block(plan, expected)
            };
            if to.send(task).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many of these blocks are zeros by the table too.
    fn proven_zeros(&mut self, first: BlockIndex, count: u64) -> Result<u64> {
        for index in first..first + count {
            if self.table.entry(index)?.digest == BlockDigest::ZERO {
                continue;
            }
            if self.skip_damaged {
                return Ok(index - first);
            }
            return Err(wrong_block(
                self.table.geometry(),
                index,
                "delta and manifest disagree on a block of zeros",
            ));
        }
        Ok(count)
    }
}

/// Adds the parts of indexes that could not be read so far.
pub fn note_lost_parts(index: &MergedIndex, noted: &LostParts) {
    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
    for (delta, part) in index.lost() {
        let key = (delta, *part.blocks.start(), *part.blocks.end());
        noted.entry(key).or_insert_with(|| part.what.clone());
    }
}

fn work(job: &Job<'_>, from: &Receiver<Task>, to: &Sender<Done>, stop: &CancelToken) -> Result<()> {
    let mut hasher = BlockHasher::new(job.digest, job.geometry);
    loop {
        let order = job.order.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(task) = from.recv() else { return Ok(()) };
        let done = match task {
            Task::Zeros(first, count) => {
                drop(order);
                job.zeros(&mut hasher, first, count, stop)?
            }
            Task::Block(plan, expected) => {
                let buffer = job.buffer(stop)?;
                let existing = if job.reads_first(plan.index) { Some(job.buffer(stop)?) } else { None };
                drop(order);
                job.block(&mut hasher, &plan, expected, buffer, existing)?
            }
        };
        if to.send(done).is_err() {
            return Ok(());
        }
    }
}

/// The end of the path, in volume order.
struct Finish<'a> {
    root: Option<RootBuilder>,
    next: BlockIndex,
    waiting: BTreeMap<BlockIndex, Done>,
    result: &'a mut Assembled,
    checkpoint: Option<&'a (dyn Fn(u64) + Sync)>,
    /// When the last checkpoint was made.
    saved: Instant,
}

impl Finish<'_> {
    fn run(
        &mut self,
        job: &Job<'_>,
        from: &Receiver<Done>,
        progress: &Progress,
        cancel: &CancelToken,
    ) -> Result<()> {
        loop {
            if let Err(cancelled) = cancel.check() {
                self.save(job)?;
                return Err(cancelled);
            }
            if self.saved.elapsed() >= CHECKPOINT_EVERY {
                self.save(job)?;
            }
            match from.recv_timeout(PATIENCE) {
                Ok(done) => drop(self.waiting.insert(done.first, done)),
                Err(crossbeam::channel::RecvTimeoutError::Timeout) => continue,
                Err(crossbeam::channel::RecvTimeoutError::Disconnected) => {
                    // The workers may hear of the interruption first.
                    return if cancel.is_cancelled() { self.save(job) } else { Ok(()) };
                }
            }
            while let Some(done) = self.waiting.remove(&self.next) {
                self.next += done.count;
                self.take(job, &done)?;
                let (start, end) = job.wanted(
                    job.geometry.block_offset(done.first),
                    job.geometry.span_len(done.first, done.count),
                );
                progress.add_done(end - start);
                progress.add_changed(done.written);
            }
        }
    }

    /// All blocks before the next one are on the target, durably: then that is told.
    fn save(&mut self, job: &Job<'_>) -> Result<()> {
        self.saved = Instant::now();
        let Some(checkpoint) = self.checkpoint else { return Ok(()) };
        job.sink.finish()?;
        checkpoint(job.geometry.span_len(0, self.next));
        Ok(())
    }

    fn take(&mut self, job: &Job<'_>, done: &Done) -> Result<()> {
        let offset = job.geometry.block_offset(done.first);
        if job.sink.in_order() {
            let (start, end) = job.wanted(offset, job.geometry.span_len(done.first, done.count));
            match &done.buffer {
                Some(buffer) => {
                    job.sink.put(start, &buffer[to_usize(start - offset)..to_usize(end - offset)])?;
                }
                None => job.sink.put_zeros(start, end - start)?,
            }
        }
        self.result.missing.extend_from_slice(&done.lost);
        if let Some(root) = &mut self.root {
            if done.digest == BlockDigest::ZERO {
                root.push_zeros(done.count);
            } else {
                root.push(done.digest);
            }
        }
        self.result.bytes_written += done.written;
        self.result.bytes_kept += done.kept;
        Ok(())
    }

    fn prove(&mut self, expected: RootDigest, end: BlockIndex) -> Result<()> {
        if self.next != end {
            return Err(stopped());
        }
        let Some(root) = self.root.take().filter(|_| self.result.missing.is_empty()) else { return Ok(()) };
        if root.finish()? != expected {
            return Err(Error::damaged("the root of what was put together is not the backup's"));
        }
        self.result.root_proven = true;
        Ok(())
    }
}
