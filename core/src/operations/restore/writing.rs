//! One restore onto a target that is open: written, noted, proven, told.
//!
//! Damage is noted also when the restore fails for it; only what was written whole is read back. Were a target reported as
//! proven that was not read to its end, a user would throw the original away.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::resume::Resumable;
use super::{RestoreOptions, RestoreReport};
use crate::backup_id::BackupRecord;
use crate::cancel::CancelToken;
use crate::delta::reader::DeltaReader;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::Geometry;
use crate::operations::assembly::{Assembled, Assembly};
use crate::operations::damage::{Place, missing_bytes};
use crate::operations::digests::read_digests;
use crate::operations::healing;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::chain::{Chain, ChainTable};
use crate::sink::Sink;
use crate::sink::throttled::ThrottledSink;
use crate::source;
use crate::throttle::governor::{Throttle, ThrottleReport};
use crate::units::format_size;

/// A restore whose target is open.
pub(super) struct Restoring<'a> {
    pub repository: &'a Repository,
    pub record: &'a BackupRecord,
    pub options: &'a RestoreOptions,
    pub geometry: Geometry,
    pub range: Range<u64>,
    pub resumable: Option<Resumable>,
    pub throttle: &'a Throttle,
    pub progress: &'a Progress,
    pub cancel: &'a CancelToken,
    pub warnings: Vec<String>,
}

impl Restoring<'_> {
    /// Writes all that is wanted. What was found damaged is noted, also when the restore fails for it.
    pub fn write(
        &mut self,
        (chain, deltas, mut table): (Chain, Vec<Arc<DeltaReader>>, ChainTable),
        sink: &dyn Sink,
    ) -> Result<Assembled> {
        let checkpoint = |position| {
            if let Some(resumable) = &self.resumable {
                resumable.reached(position);
            }
        };
        let mut places = Vec::new();
        let done = Assembly {
            deltas: &deltas,
            names: chain.delta_names(),
            table: &mut table,
            geometry: self.geometry,
            digest: self.record.digest,
            root: self.record.root,
            sink: &ThrottledSink::new(sink, self.throttle, self.cancel),
            range: self.range.clone(),
            in_place: self.options.in_place,
            resumed_to: self.resumed_to(),
            checkpoint: self.resumable.as_ref().map(|_| &checkpoint as &(dyn Fn(u64) + Sync)),
            skip_damaged: self.options.skip_damaged,
            progress: self.progress,
            cancel: self.cancel,
        }
        .run(&mut places);
        self.note_damage(&places);
        let done = done.map_err(with_way_on)?;
        if let Some(resumable) = &self.resumable {
            resumable.done();
        }
        Ok(done)
    }

    fn resumed_to(&self) -> u64 {
        self.resumable.as_ref().map_or(0, |resumable| resumable.resumed_to)
    }

    /// For the next backup to heal.
    fn note_damage(&mut self, places: &[Place]) {
        if let Some(state) = &self.options.state
            && let Err(error) = healing::note(state, self.repository, &self.record.volume, places, &|_| false)
        {
            self.warnings.push(healing::not_noted(&error));
        }
    }

    /// Proves the target itself, if that is wanted and can be done. Returns whether it was.
    pub fn read_back(&mut self, done: &Assembled) -> Result<bool> {
        let Some(path) = self.options.target.path().filter(|_| self.options.read_back) else {
            return Ok(false);
        };
        if !done.missing.is_empty() {
            let text = "the target was not read back: without what is missing it has no root to prove";
            self.warnings.push(text.to_owned());
            return Ok(false);
        }
        prove_target(path, self.geometry, self.record, self.throttle, self.progress, self.cancel)?;
        Ok(true)
    }

    pub fn report(
        mut self,
        done: Assembled,
        read_back: bool,
        throttle: ThrottleReport,
        begun: Instant,
    ) -> RestoreReport {
        let bytes_missing = missing_bytes(&done.missing);
        if !done.missing.is_empty() {
            let damaged = format_size(bytes_missing);
            self.warnings
                .push(format!("{damaged} of the volume are damaged and missing: the root is not proven"));
        } else if !done.root_proven {
            let text = "only the blocks of the range are proven; the root of the whole volume is not";
            self.warnings.push(text.to_owned());
        }
        self.warnings.extend(throttle.warnings.iter().cloned());
        let (options, record) = (self.options, self.record);
        RestoreReport {
            backup_id: record.backup_id,
            volume: record.volume.clone(),
            target: options.target.told(),
            size_bytes: record.size_bytes,
            range: options.range.as_ref().map(|range| (range.start, range.end - range.start)),
            root: record.root,
            root_proven: done.root_proven,
            read_back,
            bytes_written: done.bytes_written,
            bytes_kept: done.bytes_kept,
            resumed_at: options.resume.then_some(self.resumed_to()),
            missing: done.missing,
            bytes_missing,
            duration_s: begun.elapsed().as_secs_f64(),
            throttled_s: throttle.throttled_s,
            throttle,
            warnings: self.warnings,
        }
    }
}

/// What to do after a restore that did not come to its end.
fn with_way_on(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Cancelled => {
            error.hint("the target is incomplete: --resume goes on (--in-place writes only the rest)")
        }
        ErrorKind::Damaged => error.hint(
            "--skip-damaged restores the rest and lists what is missing; `blkdelta verify --data` tells what else is hurt",
        ),
        _ => error,
    }
}

/// Reads the target again, past the page cache, and compares the root.
fn prove_target(
    path: &Path,
    geometry: Geometry,
    record: &BackupRecord,
    throttle: &Throttle,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<()> {
    let target = source::open(path, true, None)?;
    let read =
        read_digests(&*target, geometry, record.digest, throttle, progress, cancel, &mut |_, _, _| Ok(()))?;
    if read.root != record.root {
        return Err(Error::damaged("what was read back from the target is not what was written")
            .path(path)
            .hint("the target's device loses or changes data: look at the kernel log, use another device"));
    }
    Ok(())
}
