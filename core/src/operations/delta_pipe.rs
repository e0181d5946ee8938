//! The delta's side of a pass: encoders on every core, and the thread that writes what they and the collector send.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, bounded};

use super::delta_feed::DeltaFeed;
use super::failure::Failure;
use super::taking_over::Checkpoints;
use crate::delta::writer::{DeltaWriter, References};
use crate::encoder::Encoder;
use crate::error::Result;
use crate::flow::{DeltaMessage, RawBytes, RawFrame};
use crate::format::delta::DeltaHeader;
use crate::format::repository_config::Compression;
use crate::geometry::Geometry;
use crate::progress::Progress;
use crate::storage::ObjectWriter;
use crate::throttle::governor::Throttle;

/// A delta to be written along.
pub struct DeltaOutput {
    pub out: Box<dyn ObjectWriter>,
    pub header: DeltaHeader,
    pub compression: Compression,
}

/// The delta's side of the pass.
pub struct DeltaPipe {
    writer: DeltaWriter,
    geometry: Geometry,
    compression: Compression,
    encoders: usize,
}

pub type WriterThread<'scope> = std::thread::ScopedJoinHandle<'scope, Option<DeltaWriter>>;

impl DeltaPipe {
    pub fn open(output: DeltaOutput, geometry: Geometry, encoders: usize) -> Result<Self> {
        let writer = DeltaWriter::begin(output.out, &output.header, References::Forward)?;
        Ok(Self { writer, geometry, compression: output.compression, encoders })
    }

    pub fn start<'scope, 'env>(
        self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        failure: &'env Failure,
        progress: &'env Progress,
        throttle: &'env Throttle,
        checkpoints: Option<&'env dyn Checkpoints>,
        waiting: &'env AtomicU64,
    ) -> (Option<DeltaFeed>, Option<WriterThread<'scope>>) {
        let (frames, raw) = bounded::<RawFrame>(self.encoders);
        let (entries, messages) = bounded::<DeltaMessage>(64);
        let (used, spare) = bounded::<Vec<u8>>(self.encoders + 1);
        for _ in 0..self.encoders {
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
                write_messages(&mut writer, &messages, progress, |writer| {
                    waiting.store(writer.waiting_bytes(), Ordering::Relaxed);
                    save(writer, checkpoints)
                })?;
                whole = Some(writer);
                Ok(())
            });
            whole
        });
        (Some(DeltaFeed::new(self.geometry, frames, entries, spare)), Some(written))
    }
}

/// The delta writer's thread: until nobody sends any more.
pub fn write_messages(
    writer: &mut DeltaWriter,
    messages: &Receiver<DeltaMessage>,
    progress: &Progress,
    mut on_written: impl FnMut(&mut DeltaWriter) -> Result<()>,
) -> Result<()> {
    for message in messages {
        let before = writer.written();
        writer.accept(message)?;
        progress.add_stored(writer.written() - before);
        on_written(writer)?;
    }
    Ok(())
}

/// Notes how far the delta has come, where that is wanted and something is new.
fn save(writer: &mut DeltaWriter, checkpoints: Option<&dyn Checkpoints>) -> Result<()> {
    if let Some(checkpoints) = checkpoints.filter(|_| writer.has_passed()) {
        checkpoints.save(writer.make_durable()?);
    }
    Ok(())
}
