//! `backup`: the main job. Locks, cleans up, takes snapshots of all volumes at one moment, then for each volume one pass
//! against its parent's manifest; what changed becomes a delta; the record is the commit point; then the local state is
//! rolled forward and the older baseline goes.
//!
//! ```text
//! prepare every volume (lock, leftovers, newest) -> take all snapshots -> for each: run (attempt.rs) -> commit
//! ```
//! Whatever ends a run on the way (an error, a signal), snapshots go when they are dropped, and what a killed run leaves is
//! found by its name and removed by the volume's next run.

mod attempt;
mod going_on;
mod prepare;
mod resuming;

use std::path::PathBuf;

use serde::Serialize;

use super::gentleness::Gentleness;
use super::hinting::HintChoice;
use super::tracking::DEFAULT_QUEUE_DEPTH;
use crate::backup_id::{BackupId, BackupKind, BackupRecord, DatabasePosition};
use crate::cancel::CancelToken;
use crate::consistency::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::format::repository_config::Compression;
use crate::hint::proof::Proof;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::audit::AuditEvent;
use crate::snapshot::{self, CowSize};
use crate::throttle::governor::ThrottleReport;
use attempt::Attempt;
use prepare::Prepared;

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

/// Whether a snapshot stays as the baseline of the next hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepSnapshot {
    /// Where that costs the origin next to nothing: thin volumes and zvols.
    #[default]
    Auto,
    /// A thick one too: it slows first writes down and can overflow.
    Always,
    /// Never.
    Never,
}

/// Options of a backup.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Device, image file, or `zfs:POOL/VOL`.
    pub source: PathBuf,
    /// Name of the volume; HOST/NAME when absent.
    pub volume: Option<String>,
    /// Which kind.
    pub kind: WantedKind,
    /// Read a source that others may write to.
    pub allow_live: bool,
    /// Accept that the name stands for another volume from now on.
    pub new_identity: bool,
    /// Which layer takes a snapshot to read from; with none the source is read as it is.
    pub snapshot: snapshot::Wanted,
    /// Room for a thick snapshot.
    pub snapshot_size: CowSize,
    /// Whether the snapshot stays as the baseline of the next hint.
    pub keep_snapshot: KeepSnapshot,
    /// Where hints come from.
    pub hints: HintChoice,
    /// How hints are proven.
    pub proof: Proof,
    /// Reads in flight at most.
    pub queue_depth: u32,
    /// How gently; the default listens to whoever else uses the device.
    pub gentleness: Gentleness,
    /// Instead of the repository's.
    pub compression: Option<Compression>,
    /// Go on where an interrupted backup of the same unchanged source was. Of a read-only snapshot that the user names it
    /// goes on without being asked.
    pub resume: bool,
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
            snapshot: snapshot::Wanted::Auto,
            snapshot_size: CowSize::default(),
            keep_snapshot: KeepSnapshot::Auto,
            hints: HintChoice::Auto,
            proof: Proof::default(),
            queue_depth: DEFAULT_QUEUE_DEPTH,
            gentleness: Gentleness::default(),
            compression: None,
            resume: false,
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
    /// The offset at which it went on from an interrupted run; what that one had read is not in `bytes_read`.
    pub resumed_at: Option<u64>,
    /// Blocks that were stored again because what was stored of them is damaged.
    pub blocks_healed: u64,
    /// A hint was proven wrong; the volume was then read in full.
    pub alarm: Option<String>,
}

/// Volumes that are backed up together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Each with its own options.
    pub volumes: Vec<BackupOptions>,
    /// What is done around their snapshots.
    pub consistency: Consistency,
}

/// Backs a volume up.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<BackupReport> {
    let group = Group { volumes: vec![options.clone()], consistency: Consistency::default() };
    let mut reports = Vec::with_capacity(1);
    backup_group(repository, &group, progress, cancel, &mut |report| {
        reports.push(report);
        Ok(())
    })?;
    reports.pop().ok_or_else(|| Error::new(ErrorKind::WrongUse, "no volume was named"))
}

/// Backs volumes up whose snapshots are taken together. Each is committed by itself and told to `on_report`; the first
/// failure ends the rest, and those that are committed stay.
pub fn backup_group(
    repository: &Repository,
    group: &Group,
    progress: &Progress,
    cancel: &CancelToken,
    on_report: &mut dyn FnMut(BackupReport) -> Result<()>,
) -> Result<()> {
    let state = group.volumes.first().map(|options| &options.state);
    let repository = &state.map_or_else(|| repository.clone(), |state| repository.remembering(state));
    let prepared =
        group.volumes.iter().map(|options| Prepared::new(repository, options)).collect::<Result<Vec<_>>>()?;
    prepared.iter().try_for_each(|volume| volume.check_consistency(&group.consistency))?;
    let take_all = || prepared.iter().map(Prepared::take).collect::<Result<Vec<_>>>();
    let (taken, around) = group.consistency.around(prepared.len(), cancel, take_all)?;
    let several = prepared.len() > 1;
    let together = Together {
        group: prepared.first().filter(|_| several).map(|first| first.id),
        position: Some(around.position).filter(|position| *position != DatabasePosition::default()),
    };
    let mut warnings = around.warnings;
    if several && !group.consistency.holds_writers() {
        warnings.push("nothing held the writers back: the snapshots were taken one after the other".into());
    }
    for (prepared, taken) in prepared.into_iter().zip(taken) {
        let (volume, id) = (prepared.volume.clone(), prepared.id);
        let attempt = Attempt { prepared, taken, together: &together, progress, cancel };
        let done = attempt.run(std::mem::take(&mut warnings));
        let unlogged =
            repository.audit_or_warn(&AuditEvent::ended("backup", &done).volume(&volume).backups([id]));
        let mut report = done?;
        report.warnings.extend(unlogged);
        on_report(report)?;
    }
    Ok(())
}

/// What volumes have in common whose snapshots were taken together.
struct Together {
    group: Option<BackupId>,
    position: Option<DatabasePosition>,
}

fn decide_kind(wanted: &WantedKind, newest: Option<&BackupRecord>) -> BackupKind {
    match (wanted, newest) {
        (WantedKind::Full, _) | (WantedKind::Auto, None) => BackupKind::Full,
        (WantedKind::Differential, _) => BackupKind::Differential,
        (WantedKind::Auto | WantedKind::Incremental | WantedKind::Since(_), _) => BackupKind::Incremental,
    }
}
