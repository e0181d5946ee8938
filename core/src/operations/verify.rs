//! `verify`: is what is stored whole, and does it give back the volumes it promises?
//!
//! Without data: records, chains, manifests (every page, the root), deltas (header, trailer, every index segment, and
//! that index and tables agree). With data: every byte too, by the path that a restore takes, up to the root. With a
//! sample: a share of what is stored; see [`sample`]. Each frame is read once, whatever number of backups needs it.
//!
//! Damage is told as what it does: the ranges of each backup that it hurts.

mod coverage;
mod data;
pub mod sample;
mod structure;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::audit;
use super::damage::{MissingRange, Place, Spot, hurt};
use super::gentleness::Gentleness;
use super::healing;
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::throttle::governor::ThrottleReport;
use sample::{Sample, Sampled};
use structure::{check_index, prove_manifest};

pub use coverage::Coverage;

/// Options of a verification.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Read every byte of every backup and prove each volume's root.
    pub data: bool,
    /// Prove a share of what is stored, that whose last proof is oldest.
    pub sample: Option<Sample>,
    /// Base folder of local state, where coverage is recorded, and damage for the next backup to heal.
    pub state: Option<PathBuf>,
    /// How gently.
    pub gentleness: Gentleness,
}

/// What sort of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// Stored data is wrong, or not there.
    Damaged,
    /// Written by a newer version: nothing can be said of it.
    Newer,
}

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The backup it hurts, if that can be told.
    pub backup_id: Option<BackupId>,
    /// What sort of problem.
    pub kind: ProblemKind,
    /// Where in the volume; where that cannot be told, in the file.
    pub offset: u64,
    /// How many bytes, 0 when it cannot be told.
    pub length: u64,
    /// What, with the path.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Nothing is wrong.
    pub ok: bool,
    /// Backups looked at.
    pub backups_checked: u64,
    /// Whether every byte was read.
    pub data: bool,
    /// What a sample proved.
    pub sampled: Option<Sampled>,
    /// How much has been proven by samples so far.
    pub coverage: Option<Coverage>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Seconds spent waiting for limits.
    pub throttled_s: f64,
    /// What the limits did.
    pub throttle: ThrottleReport,
}

impl VerifyReport {
    /// Whether anything is damaged; what a newer version wrote is not, as far as can be told.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind == ProblemKind::Damaged)
    }
}

/// The backups that are meant, and all that is wrong around them. Without `ids` they are those of the volume, or all; then
/// it is also looked at records and tags that cannot be read, at key slots, at the audit log, and whether the repository
/// contradicts what this host has seen of it.
///
/// # Errors
/// Of reading the repository; `NotFound` for an id of no backup.
pub fn wanted(
    repository: &Repository,
    ids: &[impl AsRef<str>],
    volume: Option<&str>,
) -> Result<(Vec<BackupRecord>, Vec<Error>)> {
    if !ids.is_empty() {
        let resolve = |id: &_| repository.resolve(AsRef::<str>::as_ref(id), volume, None);
        let records = ids.iter().map(resolve).collect::<Result<_>>()?;
        return Ok((records, Vec::new()));
    }
    let catalog = repository.catalog(volume)?;
    let mut wrong: Vec<Error> = catalog.damaged.into_iter().chain(catalog.damaged_tags).collect();
    wrong.extend(match volume {
        Some(volume) => repository.rollbacks(Some(volume))?,
        None => audit::prove(repository)?,
    });
    wrong.extend(repository.damaged_keys()?);
    Ok((catalog.records, wrong))
}

/// Verifies these backups; what is wrong around them goes into the report. Damage is reported, not returned as an error.
pub fn verify(
    repository: &Repository,
    records: &[BackupRecord],
    wrong: &[Error],
    options: &VerifyOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<VerifyReport> {
    let folder = repository.storage().display("");
    let governor = options.gentleness.start(Some(&folder), None, true, progress)?;
    let repository = &repository.throttled(governor.throttle(), cancel);
    let mut verifying = Verifying {
        repository,
        options,
        progress,
        cancel,
        problems: wrong.iter().map(|error| problem(None, error)).collect(),
        places: Vec::new(),
        sound: BTreeSet::new(),
        sound_places: BTreeSet::new(),
        told: BTreeSet::new(),
        removed: 0,
        warnings: Vec::new(),
    };
    verifying.each(records)?;
    let (mut sampled, mut covered) = (None, None);
    if let Some(sample) = options.sample {
        let (done, coverage) = verifying.sample(sample, records)?;
        (sampled, covered) = (Some(done), Some(coverage));
    }
    verifying.name_others(records)?;
    verifying.note_damage(records);
    let Verifying { mut problems, mut warnings, removed, .. } = verifying;
    problems.dedup_by(|a, b| {
        (a.backup_id, a.offset, a.length, &a.what) == (b.backup_id, b.offset, b.length, &b.what)
    });
    let throttle = governor.report();
    warnings.extend(throttle.warnings.iter().cloned());
    Ok(VerifyReport {
        ok: problems.is_empty(),
        backups_checked: records.len() as u64 - removed,
        data: options.data,
        sampled,
        coverage: covered,
        problems,
        warnings,
        throttled_s: throttle.throttled_s,
        throttle,
    })
}

fn problem(backup_id: Option<BackupId>, error: &Error) -> Problem {
    let (offset, length) = error.place().unwrap_or_default();
    let kind = match error.kind() {
        ErrorKind::Unsupported => ProblemKind::Newer,
        _ => ProblemKind::Damaged,
    };
    Problem { backup_id, kind, offset, length, what: error.full_text() }
}

fn problem_of_range(backup_id: BackupId, range: MissingRange) -> Problem {
    let MissingRange { offset, length, what } = range;
    Problem { backup_id: Some(backup_id), kind: ProblemKind::Damaged, offset, length, what }
}

/// A verification under way.
struct Verifying<'a> {
    repository: &'a Repository,
    options: &'a VerifyOptions,
    progress: &'a Progress,
    cancel: &'a CancelToken,
    problems: Vec<Problem>,
    /// Damaged places, each with the volume it is in.
    places: Vec<(String, Place)>,
    /// Deltas of which every byte was proven.
    sound: BTreeSet<String>,
    /// Places of the note that a sample found sound.
    sound_places: BTreeSet<(String, Spot)>,
    /// Backups of whose delta it was told already what is damaged.
    told: BTreeSet<BackupId>,
    /// Backups that were removed meanwhile.
    removed: u64,
    warnings: Vec<String>,
}

impl Verifying<'_> {
    /// Each backup by itself, then the data of those whose structure could be read.
    fn each(&mut self, records: &[BackupRecord]) -> Result<()> {
        let mut readable = Vec::new();
        for record in records {
            self.cancel.check()?;
            let checked = self.structure(record);
            if self.settle(record, checked)?.is_some() {
                readable.push(record);
            }
        }
        if self.options.data { self.data(&readable) } else { Ok(()) }
    }

    /// What came of one backup: its error is a problem that is told, unless the backup was removed meanwhile.
    fn settle<T>(&mut self, record: &BackupRecord, result: Result<T>) -> Result<Option<T>> {
        match self.repository.unless_removed(record, result) {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // A prune took it while others were looked at.
            Err(error) if error.kind() == ErrorKind::NotFound => self.removed += 1,
            Err(error) => self.problems.push(problem(Some(record.backup_id), &error)),
        }
        Ok(None)
    }

    fn structure(&mut self, record: &BackupRecord) -> Result<()> {
        let repository = self.repository;
        let chain = repository.chain(record)?;
        let table = repository.table(&chain)?;
        table.prove_root()?;
        prove_manifest(repository, record)?;
        for (first, last, what) in check_index(repository, record, &chain)? {
            let place = Place { delta: record.delta.name.clone(), spot: Spot::Index(first, last), what };
            let hurt = hurt(repository, record, std::slice::from_ref(&place))?;
            if hurt.is_empty() {
                self.problems.push(problem(Some(record.backup_id), &Error::damaged(place.what.clone())));
            }
            self.told.insert(record.backup_id);
            self.problems.extend(hurt.into_iter().map(|range| problem_of_range(record.backup_id, range)));
            self.places.push((record.volume.clone(), place));
        }
        Ok(())
    }

    /// Damage that was found hurts backups too that were not looked at, or not by their data.
    fn name_others(&mut self, looked_at: &[BackupRecord]) -> Result<()> {
        let volumes: BTreeSet<String> = self.places.iter().map(|(volume, _)| volume.clone()).collect();
        for volume in volumes {
            let ours = self.places.iter().filter(|(of, _)| *of == volume);
            let places: BTreeSet<Place> = ours.map(|(_, place)| place.clone()).collect();
            let places: Vec<Place> = places.into_iter().collect();
            for record in self.repository.catalog(Some(&volume))?.records {
                let assembled =
                    self.options.data && looked_at.iter().any(|other| other.backup_id == record.backup_id);
                if assembled {
                    continue;
                }
                self.cancel.check()?;
                // What cannot be opened was told by its own check, or will be.
                let ranges = hurt(self.repository, &record, &places).unwrap_or_default();
                for range in ranges {
                    let told = |problem: &Problem| {
                        (problem.backup_id, problem.offset, problem.length)
                            == (Some(record.backup_id), range.offset, range.length)
                    };
                    if !self.problems.iter().any(told) {
                        self.problems.push(problem_of_range(record.backup_id, range));
                    }
                }
            }
        }
        Ok(())
    }

    fn note_damage(&mut self, records: &[BackupRecord]) {
        let Some(state) = &self.options.state else { return };
        let volumes: BTreeSet<&String> = records.iter().map(|record| &record.volume).collect();
        for volume in volumes {
            let ours = self.places.iter().filter(|(of, _)| of == volume);
            let places: Vec<Place> = ours.map(|(_, place)| place.clone()).collect();
            let sound = |place: &Place| {
                self.sound.contains(&place.delta)
                    || self.sound_places.contains(&(place.delta.clone(), place.spot))
            };
            if let Err(error) = healing::note(state, self.repository, volume, &places, &sound) {
                self.warnings.push(healing::not_noted(&error));
            }
        }
    }
}
