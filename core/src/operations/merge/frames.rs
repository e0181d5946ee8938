//! The frames of a merge on their way: copied as they are, or encoded anew, by several threads; written in order.

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::layout::{Counts, FrameWork, Layout};
use crate::cancel::CancelToken;
use crate::delta::reader::{DeltaReader, StoredFrame};
use crate::delta::writer::{DeltaWriter, References, Written};
use crate::digest::RootDigest;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::flow::{DeltaMessage, EncodedFrame};
use crate::format::delta::DeltaHeader;
use crate::format::repository_config::Compression;
use crate::operations::tracking::Failure;
use crate::progress::Progress;
use crate::repository::chain::ChainTable;
use crate::storage::ObjectWriter;
use crate::storage::throttled::ThrottledWriter;
use crate::sys::host;
use crate::throttle::governor::Throttle;

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
        let out = Box::new(ThrottledWriter::new(out, self.throttle.clone(), failure.stop.clone()));
        let mut writer = DeltaWriter::begin(out, header, References::Any)?;
        self.progress.begin(header.geometry.volume_size());
        std::thread::scope(|scope| {
            let workers = host::cores();
            let (work_to, work_from) = bounded::<FrameWork>(workers);
            let (messages_to, messages) = bounded::<DeltaMessage>(64);
            let failure = &failure;
            for _ in 0..workers {
                let (from, to) = (work_from.clone(), messages_to.clone());
                scope.spawn(move || {
                    self.throttle.enter_thread();
                    failure.guard(|| self.work(&from, &to));
                });
            }
            drop(work_from);
            let (writer, progress) = (&mut writer, self.progress);
            scope.spawn(move || {
                self.throttle.enter_thread();
                failure.guard(|| {
                    for message in &messages {
                        let before = writer.written();
                        writer.accept(message)?;
                        progress.add_stored(writer.written() - before);
                    }
                    Ok(())
                });
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

    fn work(&self, from: &Receiver<FrameWork>, to: &Sender<DeltaMessage>) -> Result<()> {
        let mut encoder = Encoder::new(self.compression)?;
        for work in from {
            let frame = match work {
                FrameWork::Copy { number, delta, offset } => {
                    let StoredFrame { codec, raw_len, payload } = self.deltas[delta].stored_frame(offset)?;
                    EncodedFrame { number, codec, raw_len, payload }
                }
                FrameWork::Encode(raw) => encoder.encode(&raw)?,
            };
            if to.send(DeltaMessage::Frame(frame)).is_err() {
                break;
            }
        }
        Ok(())
    }
}
