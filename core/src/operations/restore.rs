//! `restore`: a backup back onto a device, into a file or a stream, whole or in part, proven on what is written.

mod resume;
mod writing;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::damage::MissingRange;
use super::gentleness::Gentleness;
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::digest::RootDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::audit::{AuditEvent, AuditOutcome};
use crate::sink::device::DeviceSink;
use crate::sink::image_file::ImageFileSink;
use crate::sink::pipe::PipeSink;
use crate::sink::{Sink, Target};
use crate::sys::block_device;
use crate::throttle::governor::ThrottleReport;
use resume::Resumable;
use writing::Restoring;

/// Where to.
#[derive(Debug)]
pub enum RestoreTarget {
    /// A device or file.
    Path(PathBuf),
    /// A stream; `--range` writes only the range's bytes into it.
    Stream(File),
}

impl RestoreTarget {
    /// For people; `-` for a stream.
    fn told(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Stream(_) => "-".to_owned(),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stream(_) => None,
        }
    }
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
    /// Restore what can be proven and tell what is missing, instead of failing at the first damage. What is missing is
    /// zero on the target, but in place what is there stays.
    pub skip_damaged: bool,
    /// Go on where an interrupted restore of this backup onto this target was.
    pub resume: bool,
    /// Base folder of local state: there a restore under way is noted, and damage for the next backup to heal.
    pub state: Option<PathBuf>,
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
            skip_damaged: false,
            resume: false,
            state: None,
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
    /// Where an interrupted run had come to, if this one went on from there.
    pub resumed_at: Option<u64>,
    /// Ranges that are damaged and were skipped, in order.
    pub missing: Vec<MissingRange>,
    /// Bytes of these.
    pub bytes_missing: u64,
    /// Wall time in seconds.
    pub duration_s: f64,
    /// Part of it spent waiting for limits, in seconds.
    pub throttled_s: f64,
    /// What the limits did.
    pub throttle: ThrottleReport,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Restores a backup. Who took it out is written down before the first byte, where the repository can be written.
pub fn restore(
    repository: &Repository,
    record: &BackupRecord,
    options: &RestoreOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<RestoreReport> {
    let to = options.target.told();
    let about = |event| logged(event, record, &to);
    let unlogged = repository.audit_or_warn(&about(AuditEvent::new("restore", AuditOutcome::Begun)));
    let done = restore_unlogged(repository, record, options, progress, cancel);
    let unlogged = repository.audit_or_warn(&about(AuditEvent::ended("restore", &done))).or(unlogged);
    done.map(|mut report| {
        report.warnings.extend(unlogged);
        report
    })
}

fn logged<'a>(event: AuditEvent<'a>, record: &'a BackupRecord, to: &str) -> AuditEvent<'a> {
    event.volume(&record.volume).backups([record.backup_id]).detail(format!("to {to}"))
}

fn restore_unlogged(
    repository: &Repository,
    record: &BackupRecord,
    options: &RestoreOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<RestoreReport> {
    let begun = Instant::now();
    let range = check_range(options, record)?;
    // All of the chain is opened before the target is touched.
    let geometry = repository.geometry(record.size_bytes)?;
    let opened = repository.open_whole(record)?;
    let mut resumable = resumable(repository, record, options, range.clone())?;
    let sink = open_target(repository, record, options)?;
    if let Some(Err(error)) = resumable.as_mut().map(Resumable::begin) {
        resumable = not_resumable(&error);
    }
    let governor = options.gentleness.start(options.target.path(), options.target.path(), true, progress)?;
    let mut restoring = Restoring {
        repository,
        record,
        options,
        geometry,
        range,
        resumable,
        throttle: governor.throttle(),
        progress,
        cancel,
        warnings: Vec::new(),
    };
    let done = restoring.write(opened, &*sink)?;
    drop(sink);
    let read_back = restoring.read_back(&done)?;
    Ok(restoring.report(done, read_back, governor.report(), begun))
}

/// A restore onto a path is noted where there is a folder for notes.
fn resumable(
    repository: &Repository,
    record: &BackupRecord,
    options: &RestoreOptions,
    range: Range<u64>,
) -> Result<Option<Resumable>> {
    match (&options.target, &options.state) {
        (RestoreTarget::Path(target), Some(state)) => {
            let (in_place, resume) = (options.in_place, options.resume);
            match Resumable::new(state, repository, record, target, range, in_place, resume) {
                Err(error) if !resume => Ok(not_resumable(&error)),
                other => other.map(Some),
            }
        }
        _ if options.resume => Err(Error::new(ErrorKind::WrongUse, "this restore cannot be resumed")
            .hint("--resume needs a file or a device, and a folder for local state")),
        _ => Ok(None),
    }
}

/// A rescue system may have no place for notes: the restore must not fail for that.
fn not_resumable(error: &Error) -> Option<Resumable> {
    tracing::warn!(%error, "if this restore is interrupted it cannot be resumed");
    None
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

fn open_target(
    repository: &Repository,
    record: &BackupRecord,
    options: &RestoreOptions,
) -> Result<Box<dyn Sink>> {
    match &options.target {
        RestoreTarget::Stream(out) => {
            let out = out.try_clone().map_err(|source| Error::io("opening the target", "-", source))?;
            Ok(Box::new(PipeSink::new(out)))
        }
        RestoreTarget::Path(path) => open_sink(&Target {
            path: path.clone(),
            size: record.size_bytes,
            force: options.force,
            in_place: options.in_place,
            partial: options.range.is_some(),
            ours: options.resume,
            repository: Some(repository.storage().display("")),
            identity: Some(record.identity.as_str().to_owned()),
        }),
    }
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
