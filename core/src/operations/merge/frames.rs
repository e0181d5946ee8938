//! The frames of a merge on their way: copied as they are, or encoded anew, by several threads; written in order.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::layout::{Counts, FrameWork, Layout, TakenRun};
use crate::cancel::CancelToken;
use crate::delta::reader::{DeltaReader, StoredFrame};
use crate::delta::writer::{DeltaWriter, References, Written};
use crate::digest::{BlockHasher, RootDigest};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::flow::{DeltaMessage, EncodedFrame, RawBytes, RawFrame};
use crate::format::delta::DeltaHeader;
use crate::format::repository_config::Compression;
use crate::operations::delta_pipe::write_messages;
use crate::operations::failure::Failure;
use crate::operations::shared_cache::SharedCache;
use crate::progress::Progress;
use crate::repository::chain::ChainTable;
use crate::storage::ObjectWriter;
use crate::storage::throttled::ThrottledWriter;
use crate::sys::host;
use crate::throttle::governor::Throttle;

/// Frames of the run that are held decompressed, by delta and offset.
type Frames = SharedCache<(usize, u64), Vec<u8>>;
const FRAMES_MAX: usize = 96;

/// What a merge of deltas needs to run.
pub struct Pipeline<'a> {
    /// The run's, newest first.
    pub deltas: &'a [Arc<DeltaReader>],
    pub compression: Compression,
    pub throttle: &'a Throttle,
    pub progress: &'a Progress,
    pub cancel: &'a CancelToken,
}

impl Pipeline<'_> {
    /// Writes the delta whose state `table` is, on top of `below`.
    pub fn run(
        &self,
        out: Box<dyn ObjectWriter>,
        header: &DeltaHeader,
        root: RootDigest,
        table: ChainTable,
        below: Option<ChainTable>,
        counts: &mut Counts,
    ) -> Result<Written> {
        let failure = Failure::default();
        // Each delta's present frame and the next one.
        let frames = Frames::new((2 * self.deltas.len()).clamp(8, FRAMES_MAX));
        let out = Box::new(ThrottledWriter::new(out, self.throttle.clone(), failure.stop.clone()));
        let mut writer = DeltaWriter::begin(out, header, References::Any)?;
        self.progress.begin(header.geometry.volume_size());
        std::thread::scope(|scope| {
            let workers = host::cores();
            let (work_to, work_from) = bounded::<FrameWork>(workers);
            let (messages_to, messages) = bounded::<DeltaMessage>(64);
            let failure = &failure;
            let frames = &frames;
            for _ in 0..workers {
                let (from, to) = (work_from.clone(), messages_to.clone());
                let hasher = BlockHasher::new(header.digest, header.geometry);
                scope.spawn(move || {
                    self.throttle.enter_thread();
                    failure.guard(|| self.work(hasher, frames, &from, &to));
                });
            }
            drop(work_from);
            let (writer, progress) = (&mut writer, self.progress);
            scope.spawn(move || {
                self.throttle.enter_thread();
                failure.guard(|| write_messages(writer, &messages, progress, |_| Ok(())));
            });
            failure.guard(|| {
                let mut layout = Layout::new(self.deltas, table, below, work_to, messages_to)?;
                layout.run(self.progress, self.cancel, &failure.stop)?;
                *counts = layout.finish()?;
                Ok(())
            });
        });
        failure.into_result()?;
        writer.finish(root, counts.changed)
    }

    fn work(
        &self,
        mut hasher: BlockHasher,
        frames: &Frames,
        from: &Receiver<FrameWork>,
        to: &Sender<DeltaMessage>,
    ) -> Result<()> {
        let mut encoder = Encoder::new(self.compression)?;
        for work in from {
            let frame = match work {
                FrameWork::Copy { number, delta, offset } => {
                    let StoredFrame { codec, raw_len, payload } = self.deltas[delta].stored_frame(offset)?;
                    EncodedFrame { number, codec, raw_len, payload }
                }
                FrameWork::Gather { number, runs } => {
                    let bytes = self.gather(&mut hasher, frames, &runs)?;
                    encoder.encode(&RawFrame { number, bytes: RawBytes::Gathered(bytes) })?
                }
            };
            if to.send(DeltaMessage::Frame(frame)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes grains out of their frames, each proven.
    fn gather(&self, hasher: &mut BlockHasher, frames: &Frames, runs: &[TakenRun]) -> Result<Vec<u8>> {
        let (mut out, mut proven) = (Vec::with_capacity(runs.iter().map(|run| run.len).sum()), Vec::new());
        for run in runs {
            let delta = &self.deltas[run.delta];
            let frame = frames.get((run.delta, run.frame), || delta.frame(run.frame))?;
            let bytes = frame.get(run.start..run.start + run.len).unwrap_or_default();
            hasher.hash(bytes, &mut proven);
            if proven != run.digests {
                return Err(Error::damaged("stored bytes do not match their digest")
                    .path(delta.object().display())
                    .at(run.frame, 0));
            }
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }
}
