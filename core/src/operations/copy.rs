//! `copy`: backups into another repository, byte for byte, proven while they are read.
//!
//! ```text
//! plan (what is missing there, with what it builds on) -> lock the volume there -> parents before children:
//!   delta, manifest (each against the digest in its record) -> tags -> record, the commit point
//! ```
//! Id, sequence and record stay the same, so a copy is the same backup and is there only once. What is there already is left
//! alone, and so an interrupted copy goes on with the first file that is not whole. Trade-off: inside a file it begins anew.
//! If a place there is taken by another backup, nothing is copied: two histories cannot be mixed.

mod file;
mod plan;

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use super::gentleness::Gentleness;
use super::merge::wait_for_tags;
use crate::backup_id::{BackupId, BackupKind, BackupRecord, Sequence};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::format::repository_config::RepositoryConfig;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::audit::{AuditEvent, AuditOutcome, IDS_MAX};
use crate::repository::layout::VolumeLayout;
use crate::repository::publish::Publisher;
use crate::throttle::governor::{Throttle, ThrottleReport};
use plan::{Item, VolumePlan};

/// Options of a copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Only these, and what they build on; all when there are none.
    pub chosen: Vec<BackupRecord>,
    /// Only this volume.
    pub volume: Option<String>,
    /// Read each file again there and compare its digest.
    pub read_back: bool,
    /// Only say what would be copied.
    pub dry_run: bool,
    /// How gently.
    pub gentleness: Gentleness,
}

/// A backup that was copied, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct CopiedBackup {
    /// Which.
    pub backup_id: BackupId,
    /// Its volume.
    pub volume: String,
    /// Its number there and here.
    pub sequence: Sequence,
    /// Full, incremental or differential.
    pub kind: BackupKind,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it was not asked for, but another one builds on it.
    pub needed: bool,
}

/// Something that could not be copied.
#[derive(Debug, Clone, Serialize)]
pub struct CopyProblem {
    /// Which backup, if that can be told.
    pub backup_id: Option<BackupId>,
    /// Why.
    pub what: String,
}

/// What a copy did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct CopyReport {
    /// Whether nothing was copied.
    pub dry_run: bool,
    /// The repository that was read.
    pub from_repository: BackupId,
    /// The repository that was written.
    pub to_repository: BackupId,
    /// Backups that were missing there, parents before children.
    pub backups: Vec<CopiedBackup>,
    /// How many of those that were asked for were there already.
    pub there_already: u64,
    /// Bytes that were written.
    pub bytes_copied: u64,
    /// Bytes of files that an interrupted copy had left whole.
    pub bytes_found: u64,
    /// What was asked for and is not there now.
    pub problems: Vec<CopyProblem>,
    /// What the user should know although it is done.
    pub warnings: Vec<String>,
    /// Wall time in seconds.
    pub duration_s: f64,
    /// Part of it spent waiting for limits, in seconds.
    pub throttled_s: f64,
    /// What the limits did.
    pub throttle: ThrottleReport,
}

/// Copies backups from one repository to another.
///
/// # Errors
/// `WrongUse` when the two do not cut volumes the same way; `AlreadyExists` when a place there is taken by another backup:
/// then nothing was copied. Damage here is told in the report, and what does not need it is copied.
pub fn copy(
    from: &Repository,
    to: &Repository,
    options: &CopyOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<CopyReport> {
    let begun = Instant::now();
    check_fit(from, to)?;
    let plans = plans(from, to, options)?;
    let (read, written) = (from.storage().display(""), to.storage().display(""));
    let governor = options.gentleness.start(Some(&read), Some(&written), true, progress)?;
    progress.begin(plans.iter().map(VolumePlan::bytes).sum());
    let mut copying = Copying {
        from: &from.throttled(governor.throttle(), cancel),
        to: &to.throttled(governor.throttle(), cancel),
        options,
        throttle: governor.throttle(),
        progress,
        cancel,
        report: empty_report(from, to, options.dry_run),
    };
    for plan in &plans {
        copying.volume(plan, plans.len() == 1).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error.hint("what is copied stays; run it again for the rest"),
            _ => error,
        })?;
    }
    let (mut report, throttle) = (copying.report, governor.report());
    report.warnings.extend(throttle.warnings.iter().cloned());
    report.duration_s = begun.elapsed().as_secs_f64();
    report.throttled_s = throttle.throttled_s;
    Ok(CopyReport { throttle, ..report })
}

fn empty_report(from: &Repository, to: &Repository, dry_run: bool) -> CopyReport {
    CopyReport {
        dry_run,
        from_repository: from.config().repository_id,
        to_repository: to.config().repository_id,
        backups: Vec::new(),
        there_already: 0,
        bytes_copied: 0,
        bytes_found: 0,
        problems: Vec::new(),
        warnings: Vec::new(),
        duration_s: 0.0,
        throttled_s: 0.0,
        throttle: ThrottleReport::default(),
    }
}

/// A record holds in a repository of the same cut and digest alone.
fn check_fit(from: &Repository, to: &Repository) -> Result<()> {
    let wrong = |text: &str, hint: &str| {
        Err(Error::new(ErrorKind::WrongUse, text).path(to.storage().display("")).hint(hint))
    };
    let (here, there) = (from.config(), to.config());
    if here.repository_id == there.repository_id {
        return wrong(
            "this is the same repository, or a copy of its files under the same id",
            "make another one with `blkdelta init --like REPO`, and copy into that",
        );
    }
    let cut = |config: &RepositoryConfig| (config.digest, config.block_size, config.grain_size);
    if cut(here) != cut(there) {
        return wrong(
            "the repositories differ in digest, block size or grain size",
            "make one that fits with `blkdelta init --like REPO`, and copy into that",
        );
    }
    Ok(())
}

/// One plan for each volume that has something to do with it.
fn plans(from: &Repository, to: &Repository, options: &CopyOptions) -> Result<Vec<VolumePlan>> {
    let mut volumes: BTreeSet<String> = options.chosen.iter().map(|record| record.volume.clone()).collect();
    if options.chosen.is_empty() {
        volumes = from.volumes()?.into_iter().collect();
        volumes.retain(|volume| options.volume.as_ref().is_none_or(|wanted| wanted == volume));
    }
    if let (Some(volume), true) = (&options.volume, volumes.is_empty()) {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no volume '{volume}'"))
            .path(from.storage().display(""))
            .hint("`blkdelta list` shows what is there"));
    }
    let plan = |volume: String| {
        let (here, there) = (from.catalog(Some(&volume))?, to.catalog(Some(&volume))?);
        VolumePlan::make(&volume, &here, &there.records, &options.chosen)
            .map_err(|error| error.path(to.storage().display("")))
    };
    volumes.into_iter().map(plan).collect()
}

struct Copying<'a> {
    from: &'a Repository,
    to: &'a Repository,
    options: &'a CopyOptions,
    throttle: &'a Throttle,
    progress: &'a Progress,
    cancel: &'a CancelToken,
    report: CopyReport,
}

impl Copying<'_> {
    fn volume(&mut self, plan: &VolumePlan, alone: bool) -> Result<()> {
        self.report.there_already += plan.there_already;
        self.report.problems.extend(plan.problems.iter().cloned());
        if plan.items.is_empty() || self.options.dry_run {
            self.report.backups.extend(plan.items.iter().map(|item| told(&item.record, item)));
            return Ok(());
        }
        let publisher = match self.to.publisher(&plan.volume) {
            Err(error) if error.kind() == ErrorKind::Locked && !alone => {
                self.problem(None, format!("'{}' was left alone: {}", plan.volume, error.full_text()));
                return Ok(());
            }
            other => other?,
        };
        self.announce(plan)?;
        let done = self.items(plan, &publisher);
        let done = publisher.blame_lost_lock(done);
        for repository in [self.from, self.to] {
            let ended = AuditEvent::ended("copy", &done).volume(&plan.volume).detail(self.told());
            self.report.warnings.extend(repository.audit_or_warn(&ended));
        }
        done
    }

    /// Who takes data out is written down here, if we may write; what comes from elsewhere is written down there.
    fn announce(&mut self, plan: &VolumePlan) -> Result<()> {
        let ids: Vec<BackupId> = plan.items.iter().map(|item| item.record.backup_id).collect();
        for ids in ids.chunks(IDS_MAX) {
            let begun = AuditEvent::new("copy", AuditOutcome::Begun).volume(&plan.volume).detail(self.told());
            let begun = begun.backups(ids.iter().copied());
            self.report.warnings.extend(self.from.audit_or_warn(&begun));
            self.to.audit(&begun)?;
        }
        Ok(())
    }

    fn told(&self) -> String {
        format!("from {} to {}", self.report.from_repository, self.report.to_repository)
    }

    fn items(&mut self, plan: &VolumePlan, publisher: &Publisher<'_>) -> Result<()> {
        let there = self.to.catalog(Some(&plan.volume))?;
        let mut missing = BTreeSet::new();
        for item in &plan.items {
            self.cancel.check()?;
            let record = &item.record;
            let id = Some(record.backup_id);
            if there.records.iter().any(|other| other.is_same_state(record)) {
                self.report.there_already += 1; // by another copy, before we had the lock
                continue;
            }
            let in_its_place = there.damaged.iter().find(|error| self.is_in_the_place_of(record, error));
            let lost = record.parent.filter(|parent| missing.contains(&parent.sequence));
            let done = match (in_its_place, lost) {
                (Some(error), _) => {
                    let text = format!("remove this record there, and copy again: {}", error.full_text());
                    Err(Error::damaged(text))
                }
                (_, Some(parent)) => self.without(record, parent.backup_id),
                _ => self.backup(publisher, record),
            };
            match done {
                Ok(Some(record)) => self.report.backups.push(told(&record, item)),
                Ok(None) => {
                    missing.insert(record.sequence);
                    let text = format!("backup {} was removed here meanwhile", record.backup_id);
                    if self.options.chosen.is_empty() {
                        self.report.warnings.push(text);
                    } else {
                        self.problem(id, text);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    missing.insert(record.sequence);
                    self.problem(id, error.full_text());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether this is an error about the record that has this one's name there.
    fn is_in_the_place_of(&self, record: &BackupRecord, error: &Error) -> bool {
        let name =
            VolumeLayout::new(&record.volume).map(|layout| layout.record(record.sequence, record.revision));
        name.is_ok_and(|name| error.error_path() == Some(&self.to.storage().display(&name)))
    }

    fn problem(&mut self, backup_id: Option<BackupId>, what: String) {
        self.report.problems.push(CopyProblem { backup_id, what });
    }

    /// What to say of a backup whose parent was not copied: `None` when both were removed.
    fn without(&self, record: &BackupRecord, parent: BackupId) -> Result<Option<BackupRecord>> {
        let now = self.from.catalog(Some(&record.volume))?.records;
        if now.iter().any(|other| other.is_same_state(record)) {
            return Err(Error::damaged(format!("needs {parent}, which was not copied")));
        }
        Ok(None)
    }

    /// Copies one backup, also when a merge here replaces it meanwhile; `None` when it was removed.
    fn backup(&mut self, publisher: &Publisher<'_>, planned: &BackupRecord) -> Result<Option<BackupRecord>> {
        let mut record = planned.clone();
        loop {
            let done = self.parts(publisher, &record);
            let error = match self.from.unless_removed(&record, done) {
                Ok(()) => return Ok(Some(record)),
                Err(error) if error.kind() == ErrorKind::NotFound => error,
                Err(error) => return Err(error),
            };
            let now = self.from.catalog(Some(&record.volume))?.records;
            match now.into_iter().find(|other| other.is_same_state(&record)) {
                Some(other) if other.backup_id == record.backup_id => return Err(error),
                now => {
                    publisher.discard(record.sequence, record.backup_id);
                    let Some(merged) = now else { return Ok(None) };
                    record = merged;
                }
            }
        }
    }

    /// Files, then tags, then the record: whoever sees the record finds the rest.
    fn parts(&mut self, publisher: &Publisher<'_>, record: &BackupRecord) -> Result<()> {
        let (bytes, stored) = self.from.stored_record(record)?;
        for file in stored.files() {
            self.file(file)?;
        }
        self.cancel.check()?;
        let _tags = wait_for_tags(self.to, &record.volume)?;
        self.to.carry_tags(&stored, &record.tags)?;
        self.report.warnings.extend(publisher.commit_as(&stored, &bytes)?);
        Ok(())
    }
}

fn told(record: &BackupRecord, item: &Item) -> CopiedBackup {
    CopiedBackup {
        backup_id: record.backup_id,
        volume: record.volume.clone(),
        sequence: record.sequence,
        kind: record.kind,
        bytes: record.files().iter().map(|file| file.size).sum(),
        needed: !item.chosen,
    }
}
