//! `audit`: the audit log, and the proof that it is whole and agrees with the backups.
//!
//! ```text
//! the chain: numbers without gaps, each entry with the digest of the one before
//! beside it: what this host has seen; the heads in the records; each backup that was logged is there, or was removed
//! ```
//! What a proof shows: nothing was cut out or changed behind the first entry that somebody still knows. What it cannot: an
//! end that was cut off together with all backups that knew it, for a host that had not seen it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::backup_id::{AuditHead, BackupId, BackupRecord};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::audit::{AuditEntry, AuditOutcome};
use crate::repository::catalog::Catalog;

/// The log.
#[derive(Debug, Clone, Serialize)]
pub struct AuditReport {
    /// Whose log.
    pub repository_id: BackupId,
    /// The newest entry; whoever keeps it elsewhere can tell later whether the log was cut or changed.
    pub head: Option<AuditHead>,
    /// Entries, oldest first; those that cannot be read are among the problems.
    pub entries: Vec<AuditEntry>,
    /// Nothing is wrong.
    pub ok: bool,
    /// All that is wrong.
    pub problems: Vec<String>,
}

/// Reads the log; with `check` it is proven too.
pub fn audit(repository: &Repository, check: bool) -> Result<AuditReport> {
    let (log, mut problems) = read(repository)?;
    if check {
        problems.extend(repository.rollbacks(None)?);
        problems.extend(compare(repository, &log)?);
    }
    Ok(AuditReport {
        repository_id: repository.config().repository_id,
        head: log.last().map(|(_, head)| head.clone()),
        entries: log.into_iter().map(|(entry, _)| entry).collect(),
        ok: problems.is_empty(),
        problems: problems.iter().map(Error::full_text).collect(),
    })
}

/// All in which the log contradicts itself, the backups, or what this host has seen.
pub fn prove(repository: &Repository) -> Result<Vec<Error>> {
    let (log, mut problems) = read(repository)?;
    problems.extend(repository.rollbacks(None)?);
    problems.extend(compare(repository, &log)?);
    Ok(problems)
}

type Log = Vec<(AuditEntry, AuditHead)>;

/// The entries that can be read, and what is wrong with the chain.
fn read(repository: &Repository) -> Result<(Log, Vec<Error>)> {
    let place = |error: Error| error.path(repository.storage().display(crate::repository::audit::AUDIT));
    let (mut log, mut problems) = (Log::new(), Vec::new());
    let mut expected = 1;
    for number in repository.audit_numbers()? {
        if number != expected {
            let text = format!("entries {expected} to {} of the audit log are gone", number - 1);
            problems.push(place(Error::damaged(text)));
        }
        expected = number.saturating_add(1);
        let (entry, head) = match repository.read_audit(number) {
            Ok(read) => read,
            Err(error) => {
                problems.push(error);
                continue;
            }
        };
        let before = log.last().filter(|(before, _)| before.number + 1 == number);
        let fits = match before {
            Some((_, head)) => entry.previous.as_ref() == Some(&head.digest),
            None => entry.previous.is_none() == (number == 1),
        };
        if !fits {
            let text = format!(
                "entry {number} of the audit log was written behind another entry than {}",
                number - 1
            );
            problems.push(place(Error::damaged(text)));
        }
        log.push((entry, head));
    }
    Ok((log, problems))
}

/// What the log and the backups say of each other.
fn compare(repository: &Repository, log: &Log) -> Result<Vec<Error>> {
    let catalog = repository.catalog(None)?;
    let comparing = Comparing { repository, log, catalog: &catalog };
    Ok(comparing.records().chain(comparing.missing()).collect())
}

struct Comparing<'a> {
    repository: &'a Repository,
    log: &'a Log,
    catalog: &'a Catalog,
}

impl Comparing<'_> {
    /// Records whose head is not in the log, and those that came from elsewhere without a copy.
    fn records(&self) -> impl Iterator<Item = Error> {
        let heads: BTreeMap<u32, &AuditHead> = self.log.iter().map(|(_, head)| (head.number, head)).collect();
        let copied = self.ids(|entry| entry.verb == "copy");
        let own = self.repository.config().repository_id;
        self.catalog.records.iter().filter_map(move |record| {
            let head = record.audit.as_ref()?;
            let text = if head.repository_id != own {
                if copied.contains(&record.backup_id) {
                    return None;
                }
                format!("was made in repository {}, and no copy brought it here", head.repository_id)
            } else if heads.get(&head.number).is_some_and(|now| *now == head) {
                return None;
            } else {
                format!("knows another entry {} of the audit log than there is now", head.number)
            };
            Some(self.problem(record, &text))
        })
    }

    /// Backups that the log knows of, and that neither are there nor were removed.
    fn missing(&self) -> impl Iterator<Item = Error> {
        let removed = self.ids(AuditEntry::may_remove);
        let there: BTreeSet<BackupId> = self.catalog.records.iter().flat_map(BackupRecord::all_ids).collect();
        // Which ones those are that cannot be read, nobody knows; they are told as damaged.
        let all_read = self.catalog.damaged.is_empty();
        let made = self.log.iter().map(|(entry, _)| entry);
        let made = made
            .filter(move |entry| all_read && entry.verb == "backup" && entry.outcome == AuditOutcome::Done);
        let ids = made.flat_map(|entry| entry.backups.iter().map(move |id| (entry, *id)));
        let lost = ids.filter(move |(_, id)| !there.contains(id) && !removed.contains(id));
        lost.map(|(entry, id)| {
            let volume = entry.volume.as_deref().unwrap_or_default();
            let text = format!(
                "backup {id} of '{volume}' is gone: entry {} of the audit log tells that it was made, and none that it was removed",
                entry.number
            );
            Error::damaged(text).path(self.repository.storage().display(""))
        })
    }

    /// All ids in such entries.
    fn ids(&self, such: impl Fn(&AuditEntry) -> bool) -> BTreeSet<BackupId> {
        let entries = self.log.iter().map(|(entry, _)| entry).filter(|entry| such(entry));
        entries.flat_map(|entry| entry.backups.iter().copied()).collect()
    }

    fn problem(&self, record: &BackupRecord, text: &str) -> Error {
        let text =
            format!("backup {} (number {} of '{}') {text}", record.backup_id, record.sequence, record.volume);
        Error::damaged(text).path(self.repository.storage().display(""))
    }
}
