//! `restore`: a backup back onto a device, into a file or a stream, whole or in part, proven on what is written.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::assembly::Assembly;
use super::gentleness::Gentleness;
use super::tracking::read_digests;
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::digest::RootDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::Geometry;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::sink::device::DeviceSink;
use crate::sink::image_file::ImageFileSink;
use crate::sink::pipe::PipeSink;
use crate::sink::throttled::ThrottledSink;
use crate::sink::{Sink, Target};
use crate::source;
use crate::sys::block_device;
use crate::throttle::governor::{Throttle, ThrottleReport};

/// Where to.
#[derive(Debug)]
pub enum RestoreTarget {
    /// A device or file.
    Path(PathBuf),
    /// A stream; `--range` writes only the range's bytes into it.
    Stream(File),
}

/// Options of a restore.
#[derive(Debug)]
pub struct RestoreOptions {
    /// Where to.
    pub target: RestoreTarget,
    /// Only these bytes of the volume, at their own offset.
    pub range: Option<Range<u64>>,
    /// Write only what differs.
    pub in_place: bool,
    /// Overwrite a target that holds something.
    pub force: bool,
    /// Read the target again afterwards and prove the root on it.
    pub read_back: bool,
    /// How gently the target is treated; whoever restores waits for it, so the default takes no care of others.
    pub gentleness: Gentleness,
}

impl RestoreOptions {
    /// The whole volume to a path that is new or empty.
    #[must_use]
    pub fn new(target: impl Into<PathBuf>) -> Self {
        let target = RestoreTarget::Path(target.into());
        Self {
            target,
            range: None,
            in_place: false,
            force: false,
            read_back: false,
            gentleness: Gentleness::full_speed(),
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The backup.
    pub backup_id: BackupId,
    /// Its volume.
    pub volume: String,
    /// The target; `-` for a stream.
    pub target: String,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// The range that was restored: offset and length.
    pub range: Option<(u64, u64)>,
    /// Root of the backup.
    pub root: RootDigest,
    /// Whether the root was proven on all that was written; a range proves only its blocks.
    pub root_proven: bool,
    /// Whether it was also proven by reading the target again.
    pub read_back: bool,
    /// Bytes written, zeros made by the target itself not counted.
    pub bytes_written: u64,
    /// Bytes that were right already, or left as holes.
    pub bytes_kept: u64,
    /// Wall time in seconds.
    pub duration_s: f64,
    /// Part of it spent waiting for limits, in seconds.
    pub throttled_s: f64,
    /// What the limits did.
    pub throttle: ThrottleReport,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Restores a backup.
pub fn restore(
    repository: &Repository,
    record: &BackupRecord,
    options: RestoreOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<RestoreReport> {
    let begun = Instant::now();
    let geometry = repository.geometry(record.size_bytes)?;
    let range = check_range(&options, record)?;
    // All of the chain is opened before the target is touched.
    let (deltas, mut table) = repository.open_whole(record)?;

    let RestoreOptions { target, range: wanted, in_place, force, read_back, gentleness } = options;
    let (sink, path) = match target {
        RestoreTarget::Stream(out) => (Box::new(PipeSink::new(out)) as Box<dyn Sink>, None),
        RestoreTarget::Path(path) => {
            let target = Target {
                path: path.clone(),
                size: record.size_bytes,
                force,
                in_place,
                partial: wanted.is_some(),
                repository: Some(repository.storage().display("")),
                identity: Some(record.identity.as_str().to_owned()),
            };
            (open_sink(&target)?, Some(path))
        }
    };
    let governor = gentleness.start(path.as_deref(), path.as_deref(), true, progress)?;
    let throttle = governor.throttle();
    let done = Assembly {
        deltas: &deltas,
        table: &mut table,
        geometry,
        digest: record.digest,
        root: record.root,
        sink: &ThrottledSink::new(&*sink, throttle, cancel),
        range: range.clone(),
        in_place,
        progress,
        cancel,
    }
    .run()
    .map_err(|error| match error.kind() {
        ErrorKind::Cancelled => {
            error.hint("the target is incomplete: restore it again (--in-place writes only the rest)")
        }
        _ => error,
    })?;
    drop(sink);
    if let (true, Some(path)) = (read_back, &path) {
        prove_target(path, geometry, record, throttle, progress, cancel)?;
    }
    let mut warnings = Vec::new();
    if !done.root_proven {
        warnings
            .push("only the blocks of the range are proven; the root of the whole volume is not".to_owned());
    }
    let throttle = governor.report();
    warnings.extend(throttle.warnings.iter().cloned());
    Ok(RestoreReport {
        backup_id: record.backup_id,
        volume: record.volume.clone(),
        target: path.map_or_else(|| "-".into(), |path| path.display().to_string()),
        size_bytes: record.size_bytes,
        range: wanted.map(|range| (range.start, range.end - range.start)),
        root: record.root,
        root_proven: done.root_proven,
        read_back,
        bytes_written: done.bytes_written,
        bytes_kept: done.bytes_kept,
        duration_s: begun.elapsed().as_secs_f64(),
        throttled_s: throttle.throttled_s,
        throttle,
        warnings,
    })
}

fn check_range(options: &RestoreOptions, record: &BackupRecord) -> Result<Range<u64>> {
    let stream = matches!(options.target, RestoreTarget::Stream(_));
    let wrong = |text: String, hint: &str| Err(Error::new(ErrorKind::WrongUse, text).hint(hint));
    if stream && (options.in_place || options.read_back) {
        return wrong("a stream cannot be read".into(), "--in-place and --read-back need a file or a device");
    }
    let Some(range) = options.range.clone() else { return Ok(0..record.size_bytes) };
    if options.read_back {
        return wrong("a range cannot be read back".into(), "--read-back proves the root of a whole volume");
    }
    if range.is_empty() || range.end > record.size_bytes {
        let text = format!(
            "the range {}+{} is not inside the volume",
            range.start,
            range.end.saturating_sub(range.start)
        );
        return wrong(text, &format!("the volume has {} bytes", record.size_bytes));
    }
    Ok(range)
}

/// Opens a target after all checks.
pub(super) fn open_sink(target: &Target) -> Result<Box<dyn Sink>> {
    let device = target.path.exists() && {
        let number = block_device::number_of(&target.path);
        number.map_err(|source| Error::io("opening the target", &target.path, source))?.is_some()
    };
    if !device && target.path.exists() && !target.path.is_file() && !target.path.is_dir() {
        return Err(Error::new(
            ErrorKind::WrongUse,
            "the target is neither a block device nor a regular file",
        )
        .path(&target.path)
        .hint("use '-' and a redirection for pipes"));
    }
    if device {
        return Ok(Box::new(DeviceSink::open(target)?));
    }
    Ok(Box::new(ImageFileSink::open(target)?))
}

/// Reads the target again, past the page cache, and compares the root.
fn prove_target(
    path: &std::path::Path,
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
