//! One volume's backup from the taken snapshot to the commit.

use std::time::Instant;

use jiff::Timestamp;

use super::super::change::Tell;
use super::going_on::GoingOn;
use super::prepare::{Prepared, Taken, told};
use super::{BackupReport, KeepSnapshot, Together, WantedKind, decide_kind};
use crate::backup_id::{BackupKind, BackupRecord, HintReport, StoredFile};
use crate::cancel::CancelToken;
use crate::digest::{RootDigest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::{DeltaHeader, DeltaParent};
use crate::format::manifest::{Form, ManifestHeader};
use crate::geometry::Geometry;
use crate::local_state::LocalState;
use crate::manifest::stored::PageSpool;
use crate::manifest::working::WorkingManifest;
use crate::operations::delta_pipe::DeltaOutput;
use crate::operations::hinting::{BaselineState, Hinting, Situation};
use crate::operations::plan::Skipping;
use crate::operations::snapshot_watch::SnapshotWatch;
use crate::operations::tracking::{Tracked, Tracking};
use crate::progress::Progress;
use crate::reader::Method;
use crate::repository::chain::ChainTable;
use crate::sys::{block_device, host};
use crate::throttle::governor::{Governor, Throttle};

/// A backup that is being made.
pub struct Attempt<'a> {
    pub prepared: Prepared<'a>,
    pub taken: Taken,
    pub together: &'a Together,
    pub progress: &'a Progress,
    pub cancel: &'a CancelToken,
}

/// The parent's record and its working manifest; `aside` when it is not the newest backup.
pub struct Parent {
    pub record: BackupRecord,
    manifest: WorkingManifest,
    aside: Option<LocalState>,
}

/// What the user should know although it is done.
#[derive(Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    pub fn add(&mut self, text: impl Into<String>) {
        let text = text.into();
        tracing::warn!("{text}");
        self.0.push(text);
    }
}

/// What a run up to the commit gives.
struct Made {
    record: BackupRecord,
    alarm: Option<String>,
    healed: u64,
}

impl Attempt<'_> {
    pub fn run(mut self, already: Vec<String>) -> Result<BackupReport> {
        let mut warnings = Warnings::default();
        already.into_iter().for_each(|warning| warnings.add(warning));
        let options = self.prepared.options;
        let governor = options.gentleness.start(
            Some(self.taken.source.path()),
            Some(&self.prepared.repository.storage().display("")),
            false,
            self.progress,
        )?;
        self.warn_about_self_noise(&mut warnings);
        self.warn_about_the_clock(&mut warnings);
        let kind = decide_kind(&options.kind, self.prepared.newest.as_ref());
        let parent = self.choose_parent(kind)?;
        let going_on = self.go_on(parent.as_ref(), &mut warnings)?;
        let made = self.make_watched(kind, parent.as_ref(), &going_on, &governor, &mut warnings);
        let made = self.prepared.publisher.blame_lost_lock(made);
        if let Err(error) = &made {
            self.prepared.publisher.discard(self.prepared.sequence, self.prepared.id);
            self.give_up(&going_on, error.kind());
        }
        let Made { record, alarm, healed } = made.map_err(|error| self.told_how_to_go_on(error))?;
        let committed = self.prepared.publisher.commit(&record);
        if let Err(error) = &committed {
            self.prepared.publisher.discard_uncommitted(&record, error);
        }
        warnings.0.extend(committed?);
        self.settle(&going_on, &mut warnings);
        self.roll_state(parent, &record, &mut warnings);
        let resumed_at = going_on.resumed_at().map(|next| self.geometry().map(|g| g.span_len(0, next)));
        let resumed_at = resumed_at.transpose()?;
        self.let_go(&record, &mut warnings);
        let throttle = governor.report();
        warnings.0.extend(throttle.warnings.iter().cloned());
        Ok(BackupReport { record, warnings: warnings.0, throttle, resumed_at, blocks_healed: healed, alarm })
    }

    fn told_how_to_go_on(&self, error: Error) -> Error {
        let noted = error.kind() == ErrorKind::Cancelled && self.prepared.note.path().exists();
        if noted { error.hint("--resume goes on from there, if the source stays as it is") } else { error }
    }

    /// A repository or local state on the very volume that is read becomes part of every change.
    fn warn_about_self_noise(&self, warnings: &mut Warnings) {
        use std::os::unix::fs::MetadataExt;
        let options = self.prepared.options;
        let Ok(Some(number)) = block_device::number_of(&options.source) else { return };
        let family = block_device::built_on(number);
        let repository = self.prepared.repository.storage().display("");
        for (what, path) in [("repository", repository), ("local state", options.state.clone())] {
            if std::fs::metadata(&path).is_ok_and(|metadata| family.contains(&metadata.dev())) {
                warnings.add(format!("the {what} ({}) is on the volume that is backed up", path.display()));
            }
        }
    }

    /// Chains go by number, but whoever asks for a time is answered by the clocks of that time.
    fn warn_about_the_clock(&self, warnings: &mut Warnings) {
        let taken_at = self.taken.taken_at;
        let newest = self.prepared.newest.as_ref().filter(|newest| newest.taken_at > taken_at);
        if let Some(newest) = newest {
            warnings.add(format!(
                "the clock went back: this backup is of {taken_at}, number {} before it says {}; chains go by number, but                  --at and rules of prune go by these times",
                newest.sequence, newest.taken_at
            ));
        }
    }

    fn choose_parent(&self, kind: BackupKind) -> Result<Option<Parent>> {
        if kind == BackupKind::Full {
            return Ok(None);
        }
        let (repository, volume) = (self.prepared.repository, &self.prepared.volume);
        let newest = self.prepared.newest.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("'{volume}' has no backup to build on"))
                .path(repository.storage().display(""))
                .hint("make a full one first, or use --kind auto")
        })?;
        let record = match (&self.prepared.options.kind, kind) {
            (WantedKind::Since(name), _) => repository.resolve(name, Some(volume), None)?,
            (_, BackupKind::Differential) => {
                let chain = repository.chain(newest)?;
                chain.records().last().cloned().unwrap_or_else(|| newest.clone())
            }
            _ => newest.clone(),
        };
        let chain = repository.chain(&record)?;
        let state = &self.prepared.state;
        if record.sequence == newest.sequence {
            let manifest = state.at(repository, &chain)?;
            return Ok(Some(Parent { record, manifest, aside: None }));
        }
        let (aside, manifest) = state.aside(repository, &chain)?;
        Ok(Some(Parent { record, manifest, aside: Some(aside) }))
    }

    /// Everything up to the commit, while the snapshot is watched: one that is lost is the error, whatever it led to.
    fn make_watched(
        &mut self,
        kind: BackupKind,
        parent: Option<&Parent>,
        going_on: &GoingOn,
        governor: &Governor,
        warnings: &mut Warnings,
    ) -> Result<Made> {
        let begun = Instant::now();
        let (pass, hint_report, alarm) = {
            let snapshot = self.taken.snapshot.as_deref();
            SnapshotWatch::over(snapshot, self.cancel, |cancel| {
                self.track(parent, going_on, governor.throttle(), cancel)
            })?
        };
        if let Method::Pread(why) = &pass.tracked.method {
            warnings.add(why.clone());
        }
        alarm.iter().for_each(|alarm| warnings.add(alarm.as_str()));
        self.cancel.check()?;
        self.keep_snapshot(warnings);
        let healed = pass.tracked.healed;
        let record = self.record(kind, parent, pass, hint_report, governor, begun)?;
        Ok(Made { record, alarm, healed })
    }

    pub fn geometry(&self) -> Result<Geometry> {
        self.prepared.repository.geometry(self.taken.source.size())
    }

    fn track(
        &self,
        parent: Option<&Parent>,
        going_on: &GoingOn,
        throttle: &Throttle,
        cancel: &CancelToken,
    ) -> Result<(Pass, HintReport, Option<String>)> {
        let mut hinting = self.choose_hint(parent, going_on)?;
        let (tracked, name, alarm) = hinting.track(|skipping, reads_all| {
            let (tracked, name) = self.pass(parent, going_on, skipping, throttle, cancel)?;
            Ok((tracked, (name, reads_all && going_on.read_all())))
        })?;
        let report = hinting.report(&tracked);
        let (delta_name, reads_all) = name;
        Ok((Pass { tracked, delta_name, reads_all }, report, alarm))
    }

    fn choose_hint(&self, parent: Option<&Parent>, going_on: &GoingOn) -> Result<Hinting> {
        let (options, newest) = (self.prepared.options, self.prepared.newest.as_ref());
        let situation = Situation {
            source: &*self.taken.source,
            geometry: self.geometry()?,
            new_identity: options.new_identity,
            parent: parent.map(|parent| &parent.manifest),
            baseline: self.baseline_table(parent)?,
            baseline_state: newest.map(|newest| BaselineState {
                root: newest.root,
                size: newest.size_bytes,
                backup_id: Some(newest.backup_id),
            }),
            snapshot: self.taken.snapshot.as_deref().map(|snapshot| (snapshot, newest)),
            sequence: self.prepared.sequence,
            damaged: going_on.damaged.as_ref(),
        };
        Hinting::choose(&options.hints, options.proof, situation)
    }

    /// The table of the newest backup, for a run that builds on another one.
    fn baseline_table(&self, parent: Option<&Parent>) -> Result<Option<ChainTable>> {
        let (Some(Parent { aside: Some(_), .. }), Some(newest)) = (parent, &self.prepared.newest) else {
            return Ok(None);
        };
        let repository = self.prepared.repository;
        repository.table(&repository.chain(newest)?).map(Some)
    }

    fn pass(
        &self,
        parent: Option<&Parent>,
        going_on: &GoingOn,
        skipping: Skipping<'_>,
        throttle: &Throttle,
        cancel: &CancelToken,
    ) -> Result<(Tracked, String)> {
        let (prepared, config) = (&self.prepared, self.prepared.repository.config());
        let (geometry, header) = (self.geometry()?, self.delta_header(parent)?);
        let (name, out) = prepared.publisher.begin_delta(prepared.sequence, prepared.id)?;
        let extras = self.extras(going_on, &name, matches!(skipping, Skipping::Nothing));
        let compression = prepared.options.compression.unwrap_or(config.compression);
        let tracked = Tracking {
            source: &*self.taken.source,
            geometry,
            digest: config.digest,
            parent: parent.map(|parent| &parent.manifest),
            next: None,
            spool: Some(PageSpool::new(prepared.state.folder())?),
            delta: Some(DeltaOutput { out, header, compression }),
            sequence: prepared.sequence,
            queue_depth: prepared.options.queue_depth,
            skipping,
            throttle,
            cancel,
            progress: self.progress,
            tell: Tell::Ranges(&mut |_| Ok(())),
            on_digest: None,
            extras,
        }
        .run()?;
        Ok((tracked, name))
    }

    pub fn delta_header(&self, parent: Option<&Parent>) -> Result<DeltaHeader> {
        Ok(DeltaHeader {
            geometry: self.geometry()?,
            digest: self.prepared.repository.config().digest,
            identity: self.taken.source.identity().clone(),
            sequence: self.prepared.sequence,
            parent: parent.map(|parent| DeltaParent {
                sequence: parent.record.sequence,
                root: parent.record.root,
                size: parent.record.size_bytes,
            }),
        })
    }

    /// Lets the snapshot stay as baseline, if that is wanted; without one the next run reads everything.
    fn keep_snapshot(&mut self, warnings: &mut Warnings) {
        let keep = match self.prepared.options.keep_snapshot {
            KeepSnapshot::Auto => self.taken.keeps_cheaply,
            KeepSnapshot::Always => true,
            KeepSnapshot::Never => false,
        };
        if let Some(snapshot) = self.taken.snapshot.as_mut().filter(|_| keep)
            && let Err(error) = snapshot.keep()
        {
            warnings.add(format!("the snapshot cannot stay as baseline ({})", error.full_text()));
        }
    }

    fn record(
        &self,
        kind: BackupKind,
        parent: Option<&Parent>,
        pass: Pass,
        hint: HintReport,
        governor: &Governor,
        begun: Instant,
    ) -> Result<BackupRecord> {
        let (prepared, geometry) = (&self.prepared, self.geometry()?);
        let Pass { tracked, delta_name, reads_all } = pass;
        let delta = tracked.delta.ok_or_else(|| Error::new(ErrorKind::Io, "no delta was written"))?;
        let spool = tracked.spool.ok_or_else(|| Error::new(ErrorKind::Io, "no manifest was collected"))?;
        let header = self.manifest_header(parent, geometry, reads_all, tracked.root);
        let manifest = prepared.publisher.put_manifest(prepared.id, header, &spool)?;
        let mut statistics = tracked.statistics;
        statistics.bytes_stored = delta.size + manifest.size;
        statistics.throttled_s = governor.report().throttled_s;
        statistics.duration_s = begun.elapsed().as_secs_f64();
        let record = BackupRecord {
            schema_version: 0,
            backup_id: prepared.id,
            volume: prepared.volume.clone(),
            identity: self.taken.source.identity().clone(),
            host: host::hostname(),
            kind,
            sequence: prepared.sequence,
            parent: parent.map(|parent| parent.record.link()),
            source: told(&prepared.options.source),
            taken_at: self.taken.taken_at,
            finished_at: Timestamp::now(),
            size_bytes: geometry.volume_size(),
            block_size: geometry.block_size(),
            grain_size: geometry.grain_size(),
            digest: prepared.repository.config().digest,
            root: tracked.root,
            oldest_read: tracked.oldest_read,
            hint,
            statistics,
            snapshot: self.taken.snapshot.as_ref().map(|snapshot| snapshot.record().clone()),
            group: self.together.group,
            position: self.together.position.clone(),
            complete: true,
            tags: prepared.options.tags.clone(),
            delta: StoredFile { name: delta_name, size: delta.size, blake3: to_hex(&delta.blake3) },
            manifest,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: 0,
            replaces: Vec::new(),
            audit: prepared.repository.audit_head()?,
        };
        Ok(BackupRecord { schema_version: record.lowest_schema(), ..record })
    }

    fn manifest_header(
        &self,
        parent: Option<&Parent>,
        geometry: Geometry,
        reads_all: bool,
        root: RootDigest,
    ) -> ManifestHeader {
        let before = parent.map_or(0, |parent| parent.manifest.header().scanned_sequence);
        ManifestHeader {
            form: Form::Stored { pages: 0, full: parent.is_none() },
            geometry,
            digest: self.prepared.repository.config().digest,
            identity: self.taken.source.identity().clone(),
            sequence: self.prepared.sequence,
            parent_sequence: parent.map_or(0, |parent| parent.record.sequence),
            parent_root: parent.map_or(RootDigest::NONE, |parent| parent.record.root),
            scanned_sequence: if reads_all { self.prepared.sequence } else { before },
            root,
        }
    }

    /// The backup is committed; a state that cannot follow is rebuilt by the next run.
    fn roll_state(&self, parent: Option<Parent>, record: &BackupRecord, warnings: &mut Warnings) {
        let (state, repository) = (&self.prepared.state, self.prepared.repository);
        let rolled = match parent {
            None => state.advance(repository, None, record),
            Some(Parent { manifest, aside: None, .. }) => state.advance(repository, Some(manifest), record),
            Some(Parent { manifest, aside: Some(aside), .. }) => {
                aside.advance(repository, Some(manifest), record).and_then(|()| aside.replace(state))
            }
        };
        if let Err(error) = rolled {
            warnings.add(format!(
                "the backup is committed, but its local state is not ({}); the next run rebuilds it",
                error.full_text()
            ));
        }
    }

    /// The backup is committed: its snapshot goes unless it is the new baseline, and the older baseline goes.
    fn let_go(self, record: &BackupRecord, warnings: &mut Warnings) {
        let Taken { source, snapshot, .. } = self.taken;
        drop(source);
        drop(snapshot);
        if self.prepared.may_have_snapshots()
            && let Err(error) = self.prepared.sweep(Some(record))
        {
            warnings.add(format!(
                "a snapshot that is no longer needed stays ({}); the next run removes it",
                error.full_text()
            ));
        }
    }
}

/// A pass that went through.
struct Pass {
    tracked: Tracked,
    delta_name: String,
    reads_all: bool,
}
