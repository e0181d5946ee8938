//! Putting blocks together from a chain and proving each before anybody sees it: the path that restore and verify share.
//!
//! ```text
//! planner (merged index, expected digests, in order) ──> workers (read frames, assemble, prove, put) ──> root (in order)
//! ```
//! A block is handed to the sink only after its digest matched the manifest's; the root is proven over what was handed on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::assembled_block::{Done, Job};
use super::block_builder::{BlockBuilder, wrong_block};
use super::tracking::{Failure, make_pool};
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
/// Buffers beyond one for each worker: blocks that wait for their turn.
const SPARE_BUFFERS: u32 = 4;
/// Zero ranges are handed on in pieces of this size, so that progress and cancelling stay alive.
const ZERO_PIECE: u64 = 1 << 30;

/// What to put together.
pub struct Assembly<'a> {
    pub deltas: &'a [Arc<DeltaReader>],
    pub table: &'a mut ChainTable,
    pub geometry: Geometry,
    pub digest: DigestKind,
    pub root: RootDigest,
    pub sink: &'a dyn Sink,
    /// Bytes of the volume that are wanted.
    pub range: std::ops::Range<u64>,
    /// Read the sink first and write only what differs.
    pub in_place: bool,
    pub progress: &'a Progress,
    pub cancel: &'a CancelToken,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Assembled {
    /// Bytes handed to the sink, zeros not counted.
    pub bytes_written: u64,
    /// Bytes that were there already.
    pub bytes_kept: u64,
    /// Whether the whole volume's root was proven.
    pub root_proven: bool,
}

enum Task {
    Block(BlockPlan, BlockDigest),
    Zeros(BlockIndex, u64),
}

impl Assembly<'_> {
    /// Runs it.
    pub fn run(self) -> Result<Assembled> {
        let whole = self.range == (0..self.geometry.volume_size());
        // Half of them wait for the target while the others compute.
        let workers = (2 * host::cores()).clamp(2, 16);
        let extra = u32::try_from(workers).unwrap_or(2) * u32::from(self.in_place) + SPARE_BUFFERS;
        let pool = make_pool(extra, 2 * workers, 0, to_usize(u64::from(self.geometry.block_size())))?;
        let job = Job {
            geometry: self.geometry,
            digest: self.digest,
            blocks: BlockBuilder::new(self.geometry, self.deltas),
            sink: self.sink,
            range: self.range.clone(),
            in_place: self.in_place,
            pool: &pool,
            order: Mutex::new(()),
        };
        let failure = Failure::default();
        let mut result = Assembled::default();
        self.progress.begin(self.range.end - self.range.start);
        let blocks = block_span(&self.geometry, &self.range);
        std::thread::scope(|scope| {
            let (task_to, task_from) = bounded::<Task>(2);
            let (done_to, done_from) = bounded::<Done>(64);
            let (failure, job, geometry) = (&failure, &job, self.geometry);
            let (deltas, table, span) = (self.deltas, self.table, blocks.clone());
            scope.spawn(move || {
                failure.guard(|| plan(deltas, table, &geometry, span, &task_to, &failure.stop));
            });
            for _ in 0..workers {
                let (from, to) = (task_from.clone(), done_to.clone());
                scope.spawn(move || failure.guard(|| work(job, &from, &to, &failure.stop)));
            }
            drop((task_from, done_to));
            failure.guard(|| {
                let root = whole.then(|| RootBuilder::new(self.digest, &self.geometry));
                let mut finish =
                    Finish { root, next: blocks.start, waiting: BTreeMap::new(), result: &mut result };
                finish.run(job, &done_from, self.progress, self.cancel)?;
                finish.prove(self.root, blocks.end)
            });
        });
        failure.into_result()?;
        self.sink.finish()?;
        Ok(result)
    }
}

fn block_span(geometry: &Geometry, range: &std::ops::Range<u64>) -> std::ops::Range<BlockIndex> {
    if range.is_empty() {
        return 0..0;
    }
    geometry.block_of(range.start)..geometry.block_of(range.end - 1) + 1
}

/// Walks index and table in step.
fn plan(
    deltas: &[Arc<DeltaReader>],
    table: &mut ChainTable,
    geometry: &Geometry,
    blocks: std::ops::Range<BlockIndex>,
    to: &Sender<Task>,
    stop: &CancelToken,
) -> Result<()> {
    let mut index = MergedIndex::new(deltas)?;
    let mut next = blocks.start;
    let piece = (ZERO_PIECE / u64::from(geometry.block_size())).max(1);
    while next < blocks.end {
        stop.check()?;
        let zeros = index.zero_run(next)?.min(blocks.end - next).min(piece);
        let task = if zeros > 0 {
            check_zeros(table, next, zeros)?;
            next += zeros;
            Task::Zeros(next - zeros, zeros)
        } else {
            let plan = index.block(next)?;
            let expected = table.entry(next)?.digest;
            next += 1;
            Task::Block(plan, expected)
        };
        if to.send(task).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn check_zeros(table: &mut ChainTable, first: BlockIndex, count: u64) -> Result<()> {
    for index in first..first + count {
        if table.entry(index)?.digest != BlockDigest::ZERO {
            return Err(wrong_block(
                table.geometry(),
                index,
                "delta and manifest disagree on a block of zeros",
            ));
        }
    }
    Ok(())
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
                let existing = if job.in_place { Some(job.buffer(stop)?) } else { None };
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
            cancel.check()?;
            match from.recv_timeout(PATIENCE) {
                Ok(done) => drop(self.waiting.insert(done.first, done)),
                Err(crossbeam::channel::RecvTimeoutError::Timeout) => continue,
                Err(crossbeam::channel::RecvTimeoutError::Disconnected) => return Ok(()),
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
            return Err(super::collector::stopped());
        }
        let Some(root) = self.root.take() else { return Ok(()) };
        if root.finish()? != expected {
            return Err(Error::damaged("the root of what was put together is not the backup's"));
        }
        self.result.root_proven = true;
        Ok(())
    }
}
