//! One pass over a source: plan, read, hash, compare, collect, and when a delta is wanted encode and write it.
//!
//! ```text
//! reader ──Read──> hashers (every core: hash, compare) ──Collected──> collector (this thread)
//!                                                                        │ RawFrame        │ entries
//!                                                                        v                 v
//!                                                               encoders (every core) ──> delta writer
//! ```
//! The first error of any stage ends all; what was begun is dropped, and nothing was committed.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::change::{Tell, Teller};
use super::collector::{Collection, Collector, OnDigest, TableBuilder};
use super::delta_pipe::{DeltaOutput, DeltaPipe};
use super::failure::{Failure, stopped};
use super::order::{ReadOrder, Reorder};
use super::plan::{Plan, Sample, Samples, Skipping};
use super::taking_over::{Due, Extras};
use crate::backup_id::{Sequence, Statistics};
use crate::cancel::CancelToken;
use crate::comparer::Comparer;
use crate::delta::writer::{ChangeCounts, Written};
use crate::digest::{BlockDigest, DigestKind, RootDigest};
use crate::error::Result;
use crate::flow::{Collected, Compared, Read, Skip, Skipped, Verdict};
use crate::geometry::{Geometry, to_usize};
use crate::hasher::Hasher;
use crate::manifest::stored::PageSpool;
use crate::manifest::working::WorkingManifest;
use crate::progress::Progress;
use crate::reader::{BlockReader, Method, ReadJob, Window};
use crate::source::Source;
use crate::storage::throttled::ThrottledWriter;
use crate::sys::buffer_pool::BufferPool;
use crate::sys::host;
use crate::throttle::governor::Throttle;

/// Memory that the buffer pool may take, whatever depth and block size are asked for.
const POOL_BYTES_MAX: usize = 160 << 20;
/// How often the collector looks at the cancel token while nothing arrives.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes of one read request. A block is read in pieces: deep queues of whole blocks come back in bursts, which leaves the
/// cores idle and then the device; pieces of this size keep both busy with less memory.
const REQUEST_LEN: u32 = 1 << 20;

/// Requests in flight at most, unless chosen otherwise. Twice as many read nothing measured faster since the buffers' cache
/// lines are claimed; more cost memory, and prolong what others wait until they are noticed.
pub const DEFAULT_QUEUE_DEPTH: u32 = 8;

/// What a pass needs to know.
pub struct Tracking<'a> {
    pub source: &'a dyn Source,
    pub geometry: Geometry,
    pub digest: DigestKind,
    pub parent: Option<&'a WorkingManifest>,
    /// Receives the table pages and grain runs of the new state.
    pub next: Option<&'a WorkingManifest>,
    /// Collects the table pages that differ from the parent's.
    pub spool: Option<PageSpool>,
    pub delta: Option<DeltaOutput>,
    pub sequence: Sequence,
    pub queue_depth: u32,
    /// What lets blocks be skipped.
    pub skipping: Skipping<'a>,
    pub throttle: &'a Throttle,
    pub cancel: &'a CancelToken,
    pub progress: &'a Progress,
    pub tell: Tell<'a>,
    pub on_digest: Option<OnDigest<'a>>,
    pub extras: Extras<'a>,
}

/// What a pass found out.
pub struct Tracked {
    pub root: RootDigest,
    pub statistics: Statistics,
    pub spool: Option<PageSpool>,
    pub oldest_read: Option<Sequence>,
    /// Blocks that were read to prove the hint: picked, and by the rolling scan.
    pub proofs: (u64, u64),
    pub delta: Option<Written>,
    pub method: Method,
    /// Offset of a block that proves the hint wrong.
    pub lie: Option<u64>,
    /// Blocks that were stored again because what the parent has of them is damaged.
    pub healed: u64,
}

/// Whether holes are worth asking for: the source knows them and has some.
pub fn has_holes(source: &dyn Source) -> Result<bool> {
    Ok(source.knows_holes() && source.size() > 0 && source.next_data(0)? != Some(0..source.size()))
}

impl Tracking<'_> {
    /// Runs the pass.
    pub fn run(self) -> Result<Tracked> {
        let depth = self.queue_depth.clamp(1, 256);
        let hashers = host::cores().min(to_usize(u64::from(depth)).max(2));
        let block_len = self.geometry.block_size();
        let request_len = REQUEST_LEN.min(block_len);
        // Blocks that are being read at once, and as many again that wait for a hasher.
        let reading = (depth.saturating_mul(request_len).div_ceil(block_len)).saturating_mul(2);
        let lent = self.tell.buffers();
        let pool = make_pool(reading, hashers, lent, to_usize(u64::from(block_len)))?;
        let reader = BlockReader::choose(self.source.file(), &pool, depth, self.throttle);
        let method = reader.method().clone();
        tracing::debug!(?method, buffers = pool.count(), hashers, "reading");

        let (failure, window, samples) = (Failure::default(), Window::default(), Samples::default());
        let waiting = AtomicU64::new(0);
        let plan = Plan::new(self.source, self.geometry, self.parent, self.skipping, samples.clone())
            .start_at(self.extras.first_block());
        // A full backup stores nearly all that it reads: there is nothing to be balanced.
        let ahead = (self.delta.is_some() && self.parent.is_some()).then_some(&waiting);
        let plan = ReadOrder::new(plan, self.geometry, ahead, Instant::now());
        window.advance(self.extras.first_block());
        let comparer = Comparer::new(self.parent, self.geometry).heal(self.extras.damaged);
        let writer = self.delta.map(|output| {
            let out = Box::new(ThrottledWriter::new(output.out, self.throttle.clone(), failure.stop.clone()));
            DeltaPipe::open(DeltaOutput { out, ..output }, self.geometry, hashers)
        });
        let writer = writer.transpose()?;
        let (mut collection, mut lie, mut delta) = (None, None, None);
        self.progress.begin(self.geometry.volume_size());

        std::thread::scope(|scope| {
            let (read_to, read_from) = bounded(pool.count());
            let (collected_to, collected_from) = bounded(64);
            let (failure, window, pool, waiting) = (&failure, &window, &pool, &waiting);
            let geometry = self.geometry;
            let (source, throttle) = (self.source, self.throttle);
            scope.spawn(move || {
                let job = ReadJob {
                    file: source.file(),
                    geometry,
                    pool,
                    depth,
                    request_len,
                    throttle,
                    window,
                    cancel: &failure.stop,
                };
                throttle.enter_thread();
                failure.guard(|| reader.run(&job, Box::new(plan), &read_to));
            });
            for _ in 0..hashers {
                let (from, to, digest) = (read_from.clone(), collected_to.clone(), self.digest);
                let states = States { parent: self.parent, next: self.next };
                scope.spawn(move || {
                    throttle.enter_thread();
                    failure.guard(|| {
                        hash_and_compare(&from, &to, comparer, Hasher::new(digest, geometry), states)
                    });
                });
            }
            drop((read_from, collected_to));
            let (feed, written) = match writer {
                Some(pipe) => {
                    pipe.start(scope, failure, self.progress, throttle, self.extras.checkpoints, waiting)
                }
                None => (None, None),
            };
            failure.guard(|| {
                let reads_all = matches!(self.skipping, Skipping::Nothing);
                let table = TableBuilder::new(self.parent, self.next, self.spool, self.sequence, reads_all)?;
                let teller = Teller::new(self.tell);
                let mut collector = Collector::new(geometry, self.digest, table, teller, feed, self.progress);
                collector.on_digest = self.on_digest;
                collector.begin(self.extras.taken_over.as_ref())?;
                lie = collect(&collected_from, &mut collector, window, &samples, self.cancel, self.extras)?;
                collection = Some(collector.finish()?);
                Ok(())
            });
            // An early end must not leave a stage waiting for somebody to take its messages.
            drop(collected_from);
            delta = written
                .and_then(|written| written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        });
        failure.into_result()?;
        // Before anything gets its name: a smeared image must not replace what was there.
        self.source.check_unchanged()?;
        let Collection { root, spool, oldest_read, statistics, healed } = collection.ok_or_else(stopped)?;
        let counts = ChangeCounts {
            blocks: statistics.blocks_changed,
            grains: statistics.grains_changed,
            bytes: statistics.bytes_changed,
        };
        let delta = delta.filter(|_| lie.is_none()).map(|writer| writer.finish(root, counts)).transpose()?;
        let proofs = samples.count();
        Ok(Tracked { root, statistics, spool, oldest_read, proofs, delta, method, lie, healed })
    }
}

/// As many buffers as are read, hashed and held for their turn at once, within the memory bound, and those that are lent.
pub fn make_pool(depth: u32, workers: usize, lent: usize, block_len: usize) -> Result<BufferPool> {
    let depth = to_usize(u64::from(depth));
    let wanted = depth + workers.min(depth.div_ceil(2)) + 2;
    BufferPool::new(wanted.min(POOL_BYTES_MAX / block_len).max(2) + lent, block_len)
}

/// The state before, and the one that is being written.
#[derive(Clone, Copy)]
struct States<'a> {
    parent: Option<&'a WorkingManifest>,
    next: Option<&'a WorkingManifest>,
}

impl States<'_> {
    /// The grain runs of blocks that were not read are those of the parent.
    fn carry_runs(&self, skipped: &Skipped) -> Result<()> {
        let (Some(parent), Some(next)) = (self.parent, self.next) else { return Ok(()) };
        if skipped.why == Skip::Hole {
            return Ok(());
        }
        for index in skipped.first..skipped.first + skipped.count {
            if let Some(entry) = parent.entry(index)?
                && let Some(run) = parent.run(index, &entry.digest)?
            {
                next.put_run(index, &entry.digest, &run)?;
            }
        }
        Ok(())
    }
}

fn hash_and_compare(
    from: &Receiver<Read>,
    to: &Sender<Collected>,
    comparer: Comparer<'_>,
    mut hasher: Hasher,
    states: States<'_>,
) -> Result<()> {
    for read in from {
        let item = match read {
            Read::Skip(skipped) => {
                states.carry_runs(&skipped)?;
                Collected::Skip(skipped)
            }
            Read::Block { index, buffer } => {
                let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
                let mut hashed = hasher.hash(buffer);
                // It speeds up the device, which nobody waits for where blocks queue up here.
                if from.is_empty() {
                    hashed.buffer.claim();
                }
                if let Some(next) = states.next {
                    next.put_run(index, &hashed.digest, &hashed.grains)?;
                }
                let verdict = comparer.compare(index, hashed.digest, hashed.grains, hashed.buffer)?;
                Collected::Block(Compared { index, digest: hashed.digest, len, verdict })
            }
        };
        if to.send(item).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Feeds the collector in order until all stages before it have ended; tells where a sample has proven the hint wrong.
fn collect(
    from: &Receiver<Collected>,
    collector: &mut Collector<'_>,
    window: &Window,
    samples: &Samples,
    cancel: &CancelToken,
    extras: Extras<'_>,
) -> Result<Option<u64>> {
    let mut order = Reorder::new(collector.geometry, extras.first_block());
    let (mut lie, mut due) = (None, Due::new());
    loop {
        let cancelled = cancel.check();
        match extras.checkpoints.filter(|_| lie.is_none()) {
            Some(checkpoints) if cancelled.is_err() => collector.last_mark(order.next(), checkpoints)?,
            Some(_) if due.now() => collector.mark(order.next())?,
            _ => {}
        }
        cancelled?;
        match from.recv_timeout(PATIENCE) {
            Ok(item) => order.put(item, |item| collector.gather(item))?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while let Some(item) = order.take() {
            window.advance(order.next());
            let sample = match &item {
                Collected::Block(block) => samples.take(block.index),
                Collected::Skip(_) => None,
            };
            if let (Collected::Block(block), Some(sample)) = (&item, sample)
                && contradicts(block, sample)
            {
                lie.get_or_insert(collector.geometry.block_offset(block.index));
                if let Some(checkpoints) = extras.checkpoints {
                    checkpoints.forget();
                }
            }
            collector.take(item, sample == Some(Sample::Chance))?;
        }
    }
    if order.next() < collector.geometry.block_count() {
        return Err(stopped());
    }
    Ok(lie)
}

/// Whether a block that was read as a proof shows that the hint lies.
fn contradicts(block: &Compared, sample: Sample) -> bool {
    match sample {
        Sample::Hole => block.digest != BlockDigest::ZERO,
        Sample::Chance | Sample::Rolling => {
            matches!(block.verdict, Verdict::Changed(_)) && !block.is_healed()
        }
    }
}
