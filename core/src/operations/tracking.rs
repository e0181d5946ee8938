//! One pass over a source: plan, read, hash, compare, collect, and when a delta is wanted encode and write it.
//!
//! ```text
//! reader ──Read──> hashers (every core: hash, compare) ──Collected──> collector (this thread)
//!                                                                        │ RawFrame        │ entries
//!                                                                        v                 v
//!                                                               encoders (every core) ──> delta writer
//! ```
//! The first error of any stage ends all; what was begun is dropped, and nothing was committed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::change::{Tell, Teller};
use super::collector::{Collection, Collector, DeltaFeed, OnDigest, Reorder, TableBuilder, stopped};
use super::plan::{Plan, Sample, Samples, Skipping};
use super::taking_over::{Checkpoints, Due, Extras};
use crate::backup_id::{Sequence, Statistics};
use crate::cancel::CancelToken;
use crate::comparer::Comparer;
use crate::delta::writer::{ChangeCounts, DeltaWriter, References, Written};
use crate::digest::{BlockDigest, DigestKind, RootDigest};
use crate::encoder::{Encoder, Gatherer};
use crate::error::{Error, Result};
use crate::flow::{Collected, Compared, DeltaMessage, RawBytes, RawFrame, Read, Skip, Skipped, Verdict};
use crate::format::delta::DeltaHeader;
use crate::format::repository_config::Compression;
use crate::geometry::{Geometry, to_usize};
use crate::hasher::Hasher;
use crate::manifest::stored::PageSpool;
use crate::manifest::working::WorkingManifest;
use crate::progress::Progress;
use crate::reader::{BlockReader, Method, ReadJob, Window};
use crate::source::Source;
use crate::storage::ObjectWriter;
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

/// Requests in flight unless chosen otherwise. More gains nothing on the devices measured, and costs memory.
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

/// A delta to be written along.
pub struct DeltaOutput {
    pub out: Box<dyn ObjectWriter>,
    pub header: DeltaHeader,
    pub compression: Compression,
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

/// A stage that panics stops the others too, instead of leaving them waiting for its messages.
struct StopOnPanic<'a>(&'a CancelToken);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// The first error of any stage, and the token that stops the others.
#[derive(Default)]
pub struct Failure {
    first: Mutex<Option<Error>>,
    pub stop: CancelToken,
}

impl Failure {
    pub fn guard(&self, stage: impl FnOnce() -> Result<()>) {
        let _unwinding = StopOnPanic(&self.stop);
        if let Err(error) = stage() {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.stop.cancel();
        }
    }

    pub fn into_result(self) -> Result<()> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
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
        let plan = Plan::new(self.source, self.geometry, self.parent, self.skipping, samples.clone())
            .start_at(self.extras.first_block());
        window.advance(self.extras.first_block());
        let comparer = Comparer::new(self.parent, self.geometry).heal(self.extras.damaged);
        let writer = self.delta.map(|output| {
            let out = Box::new(ThrottledWriter::new(output.out, self.throttle.clone(), failure.stop.clone()));
            DeltaPipe::open(DeltaOutput { out, ..output }, self.geometry)
        });
        let writer = writer.transpose()?;
        let (mut collection, mut lie, mut delta) = (None, None, None);
        self.progress.begin(self.geometry.volume_size());

        std::thread::scope(|scope| {
            let (read_to, read_from) = bounded(pool.count());
            let (collected_to, collected_from) = bounded(64);
            let (failure, window, pool, geometry) = (&failure, &window, &pool, self.geometry);
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
                    pipe.start(scope, failure, hashers, self.progress, throttle, self.extras.checkpoints)
                }
                None => (None, None),
            };
            failure.guard(|| {
                let reads_all = matches!(self.skipping, Skipping::Nothing);
                let table = TableBuilder::new(self.parent, self.next, self.spool, self.sequence, reads_all)?;
                let teller = Teller::new(self.tell);
                let mut collector = Collector::new(geometry, self.digest, table, teller, feed, self.progress);
                collector.on_digest = self.on_digest;
                if let Some(taken) = &self.extras.taken_over {
                    collector.take_over(taken)?;
                }
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
                let hashed = hasher.hash(buffer);
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

/// Feeds the collector in order until all stages before it have ended; stops early when a sample proves the hint wrong.
fn collect(
    from: &Receiver<Collected>,
    collector: &mut Collector<'_>,
    window: &Window,
    samples: &Samples,
    cancel: &CancelToken,
    extras: Extras<'_>,
) -> Result<Option<u64>> {
    let mut order = Reorder::default();
    order.start_at(extras.first_block());
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
            Ok(item) => order.put(item),
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

/// The delta's side of the pass.
struct DeltaPipe {
    writer: DeltaWriter,
    geometry: Geometry,
    compression: Compression,
}

type WriterThread<'scope> = std::thread::ScopedJoinHandle<'scope, Option<DeltaWriter>>;

impl DeltaPipe {
    fn open(output: DeltaOutput, geometry: Geometry) -> Result<Self> {
        let writer = DeltaWriter::begin(output.out, &output.header, References::Forward)?;
        Ok(Self { writer, geometry, compression: output.compression })
    }

    fn start<'scope, 'env>(
        self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        failure: &'env Failure,
        encoders: usize,
        progress: &'env Progress,
        throttle: &'env Throttle,
        checkpoints: Option<&'env dyn Checkpoints>,
    ) -> (Option<DeltaFeed>, Option<WriterThread<'scope>>) {
        let (frames, raw) = bounded::<RawFrame>(encoders);
        let (entries, messages) = bounded::<DeltaMessage>(64);
        let (used, spare) = bounded::<Vec<u8>>(encoders + 1);
        for _ in 0..encoders {
            let (raw, encoded, used, compression) =
                (raw.clone(), entries.clone(), used.clone(), self.compression);
            scope.spawn(move || {
                throttle.enter_thread();
                failure.guard(|| {
                    let mut encoder = Encoder::new(compression)?;
                    for frame in &raw {
                        if encoded.send(DeltaMessage::Frame(encoder.encode(&frame)?)).is_err() {
                            break;
                        }
                        if let RawBytes::Gathered(bytes) = frame.bytes {
                            let _ = used.try_send(bytes);
                        }
                    }
                    Ok(())
                });
            });
        }
        let mut writer = self.writer;
        let written = scope.spawn(move || {
            let mut whole = None;
            throttle.enter_thread();
            failure.guard(|| {
                write_messages(&mut writer, &messages, progress, checkpoints)?;
                whole = Some(writer);
                Ok(())
            });
            whole
        });
        (Some(DeltaFeed::new(Gatherer::new(self.geometry, spare), frames, entries)), Some(written))
    }
}

/// The delta writer's thread: until nobody sends any more.
pub fn write_messages(
    writer: &mut DeltaWriter,
    messages: &Receiver<DeltaMessage>,
    progress: &Progress,
    checkpoints: Option<&dyn Checkpoints>,
) -> Result<()> {
    for message in messages {
        let before = writer.written();
        writer.accept(message)?;
        progress.add_stored(writer.written() - before);
        if let Some(checkpoints) = checkpoints.filter(|_| writer.has_passed()) {
            checkpoints.save(writer.make_durable()?);
        }
    }
    Ok(())
}
