//! `prune`: removes backups that the rules of [`crate::retention`] do not keep.
//!
//! ```text
//! lock volumes and their tags -> look at all backups -> plan (pure) -> children before parents: record, delta, manifest
//! ```
//! Safe beside others: a backup holds its volume's lock, so the volumes of running backups are left alone and said so. A
//! restore opens all files of its chain before its first write and reads on from what it has open (a file that has lost its
//! name stays until it is closed). A crash leaves whole backups, and files that no record names, which the volume's next
//! run removes. If a storage kept no locks, a backup checks after its commit that its chain is still there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::backup_id::BackupRecord;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::repository::audit::{AuditEvent, AuditOutcome, IDS_MAX};
use crate::repository::publish::Publisher;
use crate::retention::{self, Candidate, Decision, Policy};
use crate::storage::LockGuard;

/// Options of a prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only this volume.
    pub volume: Option<String>,
    /// What is kept.
    pub policy: Policy,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A volume that was left alone.
#[derive(Debug, Clone, Serialize)]
pub struct PruneProblem {
    /// Its name.
    pub volume: String,
    /// Why.
    pub what: String,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct PruneReport {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Each backup, by volume and sequence, and why it stays or goes.
    pub backups: Vec<Decision>,
    /// How many stay.
    pub kept: u64,
    /// How many go.
    pub removed: u64,
    /// Bytes that those took.
    pub bytes_removed: u64,
    /// Volumes that were left alone although they were asked for.
    pub problems: Vec<PruneProblem>,
}

/// A volume that may be changed: its lock and that of its tags are held.
struct Held<'a> {
    publisher: Publisher<'a>,
    _tags: Box<dyn LockGuard>,
}

/// Prunes; `now` is what ages are counted from.
pub fn prune(
    repository: &Repository,
    options: &PruneOptions,
    now: Timestamp,
    cancel: &CancelToken,
) -> Result<PruneReport> {
    let mut pruning = Pruning { repository, options, held: BTreeMap::new(), problems: Vec::new() };
    let volumes = pruning.volumes()?;
    if !options.dry_run {
        pruning.hold(&volumes)?;
    }
    let candidates = pruning.candidates(&volumes)?;
    let mut plan = retention::plan(&candidates, &options.policy, now)?;
    plan.decisions.retain(|decision| volumes.contains(&decision.volume));
    if !options.dry_run {
        let removed = pruning.announce(&plan).and_then(|()| pruning.remove(&candidates, &mut plan, cancel));
        if plan.removed().next().is_some()
            && let Some(warning) = repository.audit_or_warn(&AuditEvent::ended("prune", &removed))
        {
            tracing::warn!("{warning}");
        }
        removed?;
    }
    let removed = || plan.removed().map(|decision| decision.bytes_stored);
    Ok(PruneReport {
        dry_run: options.dry_run,
        kept: (plan.decisions.len() - removed().count()) as u64,
        removed: removed().count() as u64,
        bytes_removed: removed().sum(),
        backups: plan.decisions,
        problems: pruning.problems,
    })
}

struct Pruning<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    held: BTreeMap<String, Held<'a>>,
    problems: Vec<PruneProblem>,
}

impl<'a> Pruning<'a> {
    /// The volumes that were asked for.
    fn volumes(&self) -> Result<Vec<String>> {
        let mut volumes = self.repository.volumes()?;
        let Some(wanted) = &self.options.volume else { return Ok(volumes) };
        volumes.retain(|volume| volume == wanted);
        if volumes.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no volume '{wanted}'"))
                .path(self.repository.storage().display(""))
                .hint("`blkdelta list` shows what is there"));
        }
        Ok(volumes)
    }

    fn hold(&mut self, volumes: &[String]) -> Result<()> {
        for volume in volumes {
            let (repository, alone) = (self.repository, volumes.len() == 1);
            let held = repository
                .publisher(volume)
                .and_then(|publisher| Ok(Held { publisher, _tags: repository.lock_tags(volume)? }));
            match held {
                Ok(held) => drop(self.held.insert(volume.clone(), held)),
                Err(error) if error.kind() == ErrorKind::Locked && !alone => {
                    self.leave_alone(volume, error.full_text());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn leave_alone(&mut self, volume: &str, what: String) {
        self.problems.push(PruneProblem { volume: volume.to_owned(), what });
    }

    /// All backups of the repository: those of other volumes may be of one group with ours.
    fn candidates(&mut self, wanted: &[String]) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for volume in self.repository.volumes()? {
            let catalog = self.repository.catalog(Some(&volume))?;
            let unread = catalog.damaged.iter().chain(&catalog.damaged_tags).next();
            let untouchable = if !wanted.contains(&volume) {
                Some("its volume was not asked for".to_owned())
            } else if !self.options.dry_run && !self.held.contains_key(&volume) {
                Some("its volume is locked by another run".to_owned())
            } else if let Some(error) = unread {
                self.leave_alone(&volume, error.full_text());
                Some("a record or tag of its volume cannot be read".to_owned())
            } else {
                None
            };
            for record in catalog.records {
                let damage = if wanted.contains(&volume) { self.damage(&record)? } else { None };
                candidates.push(Candidate { record, damage, untouchable: untouchable.clone() });
            }
        }
        Ok(candidates)
    }

    /// Whether the backup's own files are there and look like what their record names.
    fn damage(&self, record: &BackupRecord) -> Result<Option<String>> {
        let looked = self.repository.delta(record).map(drop);
        match looked.and_then(|()| self.repository.manifest(record).map(drop)) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Some(error.full_text())),
            Err(error) => Err(error),
        }
    }

    /// What goes is written down before it goes.
    fn announce(&self, plan: &retention::PrunePlan) -> Result<()> {
        for volume in self.held.keys() {
            let gone = plan.removed().filter(|decision| decision.volume == *volume);
            let ids: Vec<_> = gone.map(|decision| decision.backup_id).collect();
            for ids in ids.chunks(IDS_MAX) {
                let event = AuditEvent::new("prune", AuditOutcome::Begun).volume(volume);
                self.repository.audit(&event.backups(ids.iter().copied()))?;
            }
        }
        Ok(())
    }

    /// Children go before their parents, so that an interruption never leaves a broken chain.
    fn remove(
        &self,
        candidates: &[Candidate],
        plan: &mut retention::PrunePlan,
        cancel: &CancelToken,
    ) -> Result<()> {
        for (volume, held) in &self.held {
            let is_meant = |decision: &&Decision| decision.volume == *volume;
            let record = |decision: &Decision| {
                let found = candidates.iter().find(|at| at.record.backup_id == decision.backup_id);
                found.map(|candidate| candidate.record.clone())
            };
            let doomed: Vec<BackupRecord> = plan.removed().filter(is_meant).filter_map(record).collect();
            let needed = held.publisher.remove_all(&doomed, cancel)?;
            for decision in plan.decisions.iter_mut().filter(|decision| needed.contains(&decision.backup_id))
            {
                decision.keep = true;
                decision.reasons = vec!["another host has built on it meanwhile".to_owned()];
            }
        }
        self.held.keys().try_for_each(|volume| self.repository.sweep_orphaned_tags(volume))
    }
}
