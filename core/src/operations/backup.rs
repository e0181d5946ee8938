//! `backup`: the main job. One pass over the source against the parent's manifest; what changed becomes a delta; the
//! record is the commit point; then the local state is rolled forward.

use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use super::gentleness::Gentleness;
use super::tracking::{DEFAULT_QUEUE_DEPTH, DeltaOutput, Tracked, Tracking, has_holes};
use crate::backup_id::{BackupId, BackupKind, BackupRecord, HintReport, Sequence, StoredFile};
use crate::cancel::CancelToken;
use crate::digest::{RootDigest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::{DeltaHeader, DeltaParent};
use crate::format::manifest::{Form, ManifestHeader};
use crate::format::repository_config::Compression;
use crate::geometry::Geometry;
use crate::local_state::LocalState;
use crate::manifest::stored::PageSpool;
use crate::manifest::working::WorkingManifest;
use crate::progress::Progress;
use crate::reader::Method;
use crate::repository::Repository;
use crate::repository::publish::Publisher;
use crate::source::{self, Source};
use crate::sys::{block_device, host};
use crate::throttle::governor::{Governor, Throttle, ThrottleReport};

/// Which kind of backup is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WantedKind {
    /// Full the first time, else incremental.
    #[default]
    Auto,
    /// Everything.
    Full,
    /// Since the newest backup.
    Incremental,
    /// Since the last full.
    Differential,
    /// Since this one.
    Since(String),
}

/// Options of a backup.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Device or image file.
    pub source: PathBuf,
    /// Name of the volume; HOST/NAME when absent.
    pub volume: Option<String>,
    /// Which kind.
    pub kind: WantedKind,
    /// Read a source that others may write to.
    pub allow_live: bool,
    /// Accept that the name stands for another volume from now on.
    pub new_identity: bool,
    /// Use hints (holes of files).
    pub hints: bool,
    /// Reads in flight.
    pub queue_depth: u32,
    /// How gently; the default listens to whoever else uses the device.
    pub gentleness: Gentleness,
    /// Instead of the repository's.
    pub compression: Option<Compression>,
    /// Labels.
    pub tags: Vec<String>,
    /// Base folder of local state.
    pub state: PathBuf,
}

impl BackupOptions {
    /// The usual options for this source.
    #[must_use]
    pub fn new(source: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            volume: None,
            kind: WantedKind::Auto,
            allow_live: false,
            new_identity: false,
            hints: true,
            queue_depth: DEFAULT_QUEUE_DEPTH,
            gentleness: Gentleness::default(),
            compression: None,
            tags: Vec::new(),
            state: state.into(),
        }
    }
}

/// What a backup did.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// The record that was committed.
    #[serde(flatten)]
    pub record: BackupRecord,
    /// What the user should know although it is done.
    pub warnings: Vec<String>,
    /// What the limits did.
    pub throttle: ThrottleReport,
    /// A hint was proven wrong; the volume was then read in full.
    pub alarm: Option<String>,
}

/// Backs a volume up.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<BackupReport> {
    let source = source::open(&options.source, options.allow_live)?;
    let volume = options.volume.clone().unwrap_or_else(|| default_volume(&options.source));
    let publisher = repository.publisher(&volume)?;
    let state = LocalState::new(&options.state, repository, &volume)?;
    state.remove_leftovers();
    let newest = repository.newest(&volume)?;
    let kind = decide_kind(&options.kind, newest.as_ref());
    let governor = options.gentleness.start(
        Some(&options.source),
        Some(&repository.storage().display("")),
        false,
        progress,
    )?;
    let mut run = Run {
        throttle: governor.throttle(),
        repository,
        options,
        source: &*source,
        volume: &volume,
        progress,
        cancel,
        warnings: Vec::new(),
    };
    run.check_identity(newest.as_ref())?;
    run.warn_about_self_noise();
    let parent = run.choose_parent(kind, newest.as_ref(), &state)?;
    let sequence = newest.map_or(Ok(1), |newest| next_sequence(newest.sequence))?;
    let id =
        host::random_bytes().map_err(|source| Error::io("reading random bytes", "/dev/urandom", source))?;
    let id = BackupId::from_bytes(id);
    let attempt =
        Attempt { publisher: &publisher, state: &state, kind, parent: parent.as_ref(), sequence, id };
    let made = run.make(&attempt, &governor);
    if made.is_err() {
        publisher.discard(sequence, id);
    }
    let (record, alarm) = made?;
    if let Err(error) = publisher.commit(&record) {
        publisher.discard_uncommitted(&record);
        return Err(error);
    }
    run.roll_state(&state, parent, &record);
    let throttle = governor.report();
    run.warnings.extend(throttle.warnings.iter().cloned());
    Ok(BackupReport { record, warnings: run.warnings, throttle, alarm })
}

fn next_sequence(newest: u32) -> Result<u32> {
    newest.checked_add(1).ok_or_else(|| Error::new(ErrorKind::WrongUse, "the volume has too many backups"))
}

/// HOST/NAME, NAME being the last part of the path.
fn default_volume(source: &Path) -> String {
    let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{}/{name}", host::hostname())
}

fn decide_kind(wanted: &WantedKind, newest: Option<&BackupRecord>) -> BackupKind {
    match (wanted, newest) {
        (WantedKind::Full, _) | (WantedKind::Auto, None) => BackupKind::Full,
        (WantedKind::Differential, _) => BackupKind::Differential,
        (WantedKind::Auto | WantedKind::Incremental | WantedKind::Since(_), _) => BackupKind::Incremental,
    }
}

/// The parent's record and its working manifest; `aside` when it is not the newest backup.
struct Parent {
    record: BackupRecord,
    manifest: WorkingManifest,
    aside: Option<LocalState>,
}

/// The backup that is being made.
struct Attempt<'a> {
    publisher: &'a Publisher<'a>,
    state: &'a LocalState,
    kind: BackupKind,
    parent: Option<&'a Parent>,
    sequence: Sequence,
    id: BackupId,
}

struct Run<'a> {
    throttle: &'a Throttle,
    repository: &'a Repository,
    options: &'a BackupOptions,
    source: &'a dyn Source,
    volume: &'a str,
    progress: &'a Progress,
    cancel: &'a CancelToken,
    warnings: Vec<String>,
}

impl Run<'_> {
    fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        tracing::warn!("{text}");
        self.warnings.push(text);
    }

    fn check_identity(&self, newest: Option<&BackupRecord>) -> Result<()> {
        let Some(newest) = newest else { return Ok(()) };
        if newest.identity == *self.source.identity() || self.options.new_identity {
            return Ok(());
        }
        let text = format!(
            "another volume is behind this path: '{}' is {}, this is {}",
            self.volume,
            newest.identity,
            self.source.identity()
        );
        Err(Error::new(ErrorKind::IdentityMismatch, text)
            .path(self.source.path())
            .hint("check the path and --volume; --new-identity accepts it under this name from now on"))
    }

    /// A repository or local state on the very volume that is read becomes part of every change.
    fn warn_about_self_noise(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let Ok(Some(number)) = block_device::number_of(&self.options.source) else { return };
        let family = block_device::built_on(number);
        let repository = self.repository.storage().display("");
        for (what, path) in [("repository", repository), ("local state", self.options.state.clone())] {
            if std::fs::metadata(&path).is_ok_and(|metadata| family.contains(&metadata.dev())) {
                self.warn(format!("the {what} ({}) is on the volume that is backed up", path.display()));
            }
        }
    }

    fn choose_parent(
        &self,
        kind: BackupKind,
        newest: Option<&BackupRecord>,
        state: &LocalState,
    ) -> Result<Option<Parent>> {
        if kind == BackupKind::Full {
            return Ok(None);
        }
        let newest = newest.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("'{}' has no backup to build on", self.volume))
                .path(self.repository.storage().display(""))
                .hint("make a full one first, or use --kind auto")
        })?;
        let record = match (&self.options.kind, kind) {
            (WantedKind::Since(name), _) => self.repository.resolve(name, Some(self.volume), None)?,
            (_, BackupKind::Differential) => {
                let chain = self.repository.chain(newest)?;
                chain.records().last().cloned().unwrap_or_else(|| newest.clone())
            }
            _ => newest.clone(),
        };
        let chain = self.repository.chain(&record)?;
        if record.sequence == newest.sequence {
            let manifest = state.at(self.repository, &chain)?;
            return Ok(Some(Parent { record, manifest, aside: None }));
        }
        let (aside, manifest) = state.aside(self.repository, &chain)?;
        Ok(Some(Parent { record, manifest, aside: Some(aside) }))
    }

    /// Everything up to the commit.
    fn make(&mut self, attempt: &Attempt<'_>, governor: &Governor) -> Result<(BackupRecord, Option<String>)> {
        let (begun, taken_at) = (Instant::now(), Timestamp::now());
        let geometry = self.repository.geometry(self.source.size())?;
        let mut alarm = None;
        // A new identity turns hints off: what is known of the old volume says nothing of this one.
        let wanted = self.options.hints && !self.options.new_identity;
        let mut use_holes = wanted && has_holes(self.source)?;
        let (mut pass, mut delta_name) = self.pass(attempt, geometry, use_holes)?;
        if let Some(offset) = pass.lie {
            let text = format!(
                "the file system called offset {offset} a hole and it holds data: read in full instead"
            );
            self.warn(text.clone());
            alarm = Some(text);
            use_holes = false;
            (pass, delta_name) = self.pass(attempt, geometry, use_holes)?;
        }
        if let Method::Pread(why) = &pass.method {
            self.warn(why.clone());
        }
        self.cancel.check()?;

        let delta = pass.delta.ok_or_else(|| Error::new(ErrorKind::Io, "no delta was written"))?;
        let spool = pass.spool.ok_or_else(|| Error::new(ErrorKind::Io, "no manifest was collected"))?;
        let header = self.manifest_header(attempt, geometry, use_holes, pass.root);
        let manifest = put_manifest(attempt, &spool, header)?;
        let mut statistics = pass.statistics;
        statistics.bytes_stored = delta.size + manifest.size;
        statistics.throttled_s = governor.report().throttled_s;
        statistics.duration_s = begun.elapsed().as_secs_f64();
        let record = BackupRecord {
            schema_version: BackupRecord::SCHEMA_VERSION,
            backup_id: attempt.id,
            volume: self.volume.to_owned(),
            identity: self.source.identity().clone(),
            host: host::hostname(),
            kind: attempt.kind,
            sequence: attempt.sequence,
            parent: attempt.parent.map(|parent| parent.record.link()),
            source: std::path::absolute(&self.options.source).unwrap_or_default().display().to_string(),
            taken_at,
            finished_at: Timestamp::now(),
            size_bytes: geometry.volume_size(),
            block_size: geometry.block_size(),
            grain_size: geometry.grain_size(),
            digest: self.repository.config().digest,
            root: pass.root,
            oldest_read: pass.oldest_read,
            hint: self.hint_report(use_holes, wanted, pass.sampled_blocks, alarm.as_deref()),
            statistics,
            complete: true,
            tags: self.options.tags.clone(),
            delta: StoredFile { name: delta_name, size: delta.size, blake3: to_hex(&delta.blake3) },
            manifest,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok((record, alarm))
    }

    fn pass(&self, attempt: &Attempt<'_>, geometry: Geometry, use_holes: bool) -> Result<(Tracked, String)> {
        let config = self.repository.config();
        let (name, out) = attempt.publisher.begin_delta(attempt.sequence, attempt.id)?;
        let header = DeltaHeader {
            geometry,
            digest: config.digest,
            identity: self.source.identity().clone(),
            sequence: attempt.sequence,
            parent: attempt.parent.map(|parent| DeltaParent {
                sequence: parent.record.sequence,
                root: parent.record.root,
                size: parent.record.size_bytes,
            }),
        };
        let compression = self.options.compression.unwrap_or(config.compression);
        let tracked = Tracking {
            source: self.source,
            geometry,
            digest: config.digest,
            parent: attempt.parent.map(|parent| &parent.manifest),
            next: None,
            spool: Some(PageSpool::new(attempt.state.folder())?),
            delta: Some(DeltaOutput { out, header, compression }),
            sequence: attempt.sequence,
            queue_depth: self.options.queue_depth,
            use_holes,
            throttle: self.throttle,
            cancel: self.cancel,
            progress: self.progress,
            on_range: &mut |_| Ok(()),
            on_digest: None,
        }
        .run()?;
        Ok((tracked, name))
    }

    fn manifest_header(
        &self,
        attempt: &Attempt<'_>,
        geometry: Geometry,
        use_holes: bool,
        root: RootDigest,
    ) -> ManifestHeader {
        let parent = attempt.parent;
        let before = parent.map_or(0, |parent| parent.manifest.header().scanned_sequence);
        ManifestHeader {
            form: Form::Stored { pages: 0, full: parent.is_none() },
            geometry,
            digest: self.repository.config().digest,
            identity: self.source.identity().clone(),
            sequence: attempt.sequence,
            parent_sequence: parent.map_or(0, |parent| parent.record.sequence),
            parent_root: parent.map_or(RootDigest::NONE, |parent| parent.record.root),
            scanned_sequence: if use_holes { before } else { attempt.sequence },
            root,
        }
    }

    fn hint_report(&self, used: bool, wanted: bool, sampled_blocks: u64, alarm: Option<&str>) -> HintReport {
        let (kind, reason) = match (used, alarm) {
            (true, _) => ("holes", "the file has holes; those without data in the parent were not read"),
            (false, Some(alarm)) => ("none", alarm),
            (false, None) if !self.options.hints => ("none", "hints are off"),
            (false, None) if !wanted => ("none", "the volume has a new identity"),
            (false, None) => ("none", "the source tells nothing about changes; every block was read"),
        };
        HintReport { kind: kind.into(), reason: reason.into(), sampled_blocks }
    }

    /// The backup is committed; a state that cannot follow is rebuilt by the next run.
    fn roll_state(&mut self, state: &LocalState, parent: Option<Parent>, record: &BackupRecord) {
        let rolled = match parent {
            None => state.advance(self.repository, None, record),
            Some(Parent { manifest, aside: None, .. }) => {
                state.advance(self.repository, Some(manifest), record)
            }
            Some(Parent { manifest, aside: Some(aside), .. }) => {
                aside.advance(self.repository, Some(manifest), record).and_then(|()| aside.replace(state))
            }
        };
        if let Err(error) = rolled {
            self.warn(format!(
                "the backup is committed, but its local state is not ({}); the next run rebuilds it",
                error.full_text()
            ));
        }
    }
}

fn put_manifest(attempt: &Attempt<'_>, spool: &PageSpool, header: ManifestHeader) -> Result<StoredFile> {
    let (name, mut out) = attempt.publisher.begin_manifest(attempt.sequence, attempt.id)?;
    let (size, blake3) = spool.write_to(header, attempt.parent.is_none(), &mut *out)?;
    out.finish()?;
    Ok(StoredFile { name, size, blake3: to_hex(&blake3) })
}
