//! The audit log: who did what. Each entry is an object of its own, created if absent, that carries the digest of the one
//! before it; the digest of the newest, the head, therefore stands for the whole log.
//!
//! ```text
//! what takes data away or gives it out (prune, merge, restore, key):  begun ... done | failed
//! what only adds (backup, tag), and unlock:                           done | failed
//! ```
//! So nothing is gone of which the log does not know, whatever crashes. Of two writers that want the same number the second
//! takes the next one. Heads are copied into backup records and into the memory of each host: whoever cuts or rewrites the
//! log contradicts them. Trade-off: entries are claims of those who wrote them; who may write to the storage may add lies,
//! and is only kept from taking away what others have seen.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::backup_id::{AuditHead, BackupId};
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::storage::{is_unfinished, read_small};
use crate::sys::host;

/// Folder of the log.
pub const AUDIT: &str = "audit";
/// Most ids in an entry; whoever has more writes several.
pub const IDS_MAX: usize = 10_000;
/// Newer entries that are looked for one by one before the whole folder is listed.
const STEPS_MAX: u32 = 64;
/// Longest detail in bytes.
const DETAIL_MAX: usize = 1000;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditOutcome {
    /// About to be done.
    Begun,
    /// Done.
    Done,
    /// It failed; the detail says why.
    Failed,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Version of this layout.
    pub schema_version: u32,
    /// The repository it belongs to.
    pub repository_id: BackupId,
    /// Its number, from 1.
    pub number: u32,
    /// BLAKE3 of all bytes of the entry before; absent in the first.
    pub previous: Option<String>,
    /// When, by the clock of that host.
    pub time: Timestamp,
    /// On which host.
    pub host: String,
    /// By which user.
    pub user: String,
    /// By which process.
    pub pid: u32,
    /// By which version.
    pub tool_version: String,
    /// What was done: the verb of the command.
    pub verb: String,
    /// How far it is.
    pub outcome: AuditOutcome,
    /// The volume, if it was one.
    pub volume: Option<String>,
    /// The backups that it was about.
    pub backups: Vec<BackupId>,
    /// More, in words.
    pub detail: String,
}

impl AuditEntry {
    /// The layout that this version writes.
    pub const SCHEMA_VERSION: u32 = 1;

    /// Whether backups that it names may be gone since.
    #[must_use]
    pub fn may_remove(&self) -> bool {
        matches!(self.verb.as_str(), "prune" | "merge")
    }
}

/// What is to be written down.
#[derive(Debug, Clone)]
pub struct AuditEvent<'a> {
    /// The verb of the command.
    pub verb: &'a str,
    /// How far it is.
    pub outcome: AuditOutcome,
    /// The volume, if it is one.
    pub volume: Option<&'a str>,
    /// The backups that it is about, at most [`IDS_MAX`].
    pub backups: Vec<BackupId>,
    /// More, in words; cut if it is long.
    pub detail: String,
}

impl<'a> AuditEvent<'a> {
    /// Without volume, backups and detail.
    #[must_use]
    pub fn new(verb: &'a str, outcome: AuditOutcome) -> Self {
        Self { verb, outcome, volume: None, backups: Vec::new(), detail: String::new() }
    }

    /// How something ended.
    #[must_use]
    pub fn ended<T>(verb: &'a str, result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self::new(verb, AuditOutcome::Done),
            Err(error) => Self { detail: error.full_text(), ..Self::new(verb, AuditOutcome::Failed) },
        }
    }

    /// Of this volume.
    #[must_use]
    pub fn volume(self, volume: &'a str) -> Self {
        Self { volume: Some(volume), ..self }
    }

    /// About these backups.
    #[must_use]
    pub fn backups(self, backups: impl IntoIterator<Item = BackupId>) -> Self {
        Self { backups: backups.into_iter().collect(), ..self }
    }

    /// With more in words; what an error has said stays in front.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let between = if self.detail.is_empty() || detail.is_empty() { "" } else { "; " };
        Self { detail: format!("{}{between}{detail}", self.detail), ..self }
    }
}

/// The object of an entry.
fn name_of(number: u32) -> String {
    format!("{AUDIT}/{number:010}.json")
}

fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".json")?.parse().ok().filter(|number: &u32| *number > 0)?;
    (format!("{number:010}.json") == name).then_some(number)
}

impl Repository {
    /// Writes an entry behind the newest one; returns the new head.
    pub fn audit(&self, event: &AuditEvent<'_>) -> Result<AuditHead> {
        let mut head = self.audit_head()?;
        loop {
            let entry = self.audit_entry(event, head.as_ref())?;
            let bytes = record::encode(&entry)?;
            match self.storage().put_new(&name_of(entry.number), &bytes) {
                Ok(()) => {
                    let head = AuditHead::of(self.config().repository_id, entry.number, &bytes);
                    self.remember_head(&head);
                    return Ok(head);
                }
                // Somebody was faster (NotFound: and has removed what we were about to name).
                Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    let newer = self.newer_head(head.clone())?;
                    if newer == head {
                        return Err(error);
                    }
                    head = newer;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes an entry where that must not stop what goes on; tells why it could not be written.
    #[must_use]
    pub fn audit_or_warn(&self, event: &AuditEvent<'_>) -> Option<String> {
        let error = self.audit(event).err()?;
        Some(format!("it is not in the audit log ({})", error.full_text()))
    }

    fn audit_entry(&self, event: &AuditEvent<'_>, head: Option<&AuditHead>) -> Result<AuditEntry> {
        let too_many = || Error::new(ErrorKind::WrongUse, "the audit log is full");
        let mut detail = event.detail.clone();
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
        Ok(AuditEntry {
            schema_version: AuditEntry::SCHEMA_VERSION,
            repository_id: self.config().repository_id,
            number: head.map_or(0, |head| head.number).checked_add(1).ok_or_else(too_many)?,
            previous: head.map(|head| head.digest.clone()),
            time: Timestamp::now(),
            host: host::hostname(),
            user: host::user(),
            pid: std::process::id(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            verb: event.verb.to_owned(),
            outcome: event.outcome,
            volume: event.volume.map(str::to_owned),
            backups: event.backups.clone(),
            detail,
        })
    }

    /// The newest entry; the log is listed only by a host that has not seen it for long.
    pub fn audit_head(&self) -> Result<Option<AuditHead>> {
        self.newer_head(self.remembered_head()?)
    }

    fn newer_head(&self, from: Option<AuditHead>) -> Result<Option<AuditHead>> {
        let Some(mut head) = from else { return self.listed_head() };
        for _ in 0..STEPS_MAX {
            match self.audit_head_at(head.number.saturating_add(1))? {
                Some(newer) => head = newer,
                None => return Ok(Some(head)),
            }
        }
        self.listed_head()
    }

    fn listed_head(&self) -> Result<Option<AuditHead>> {
        match self.audit_numbers()?.into_iter().max() {
            Some(number) => self.audit_head_at(number),
            None => Ok(None),
        }
    }

    /// Numbers of all entries, in order.
    pub(crate) fn audit_numbers(&self) -> Result<Vec<u32>> {
        Ok(self.storage().list(AUDIT)?.iter().filter_map(|name| number_of(name)).collect())
    }

    /// The head that the log had when this was its newest entry.
    pub(super) fn audit_head_at(&self, number: u32) -> Result<Option<AuditHead>> {
        let bytes = self.audit_bytes(number)?;
        Ok(bytes.map(|bytes| AuditHead::of(self.config().repository_id, number, &bytes)))
    }

    fn audit_bytes(&self, number: u32) -> Result<Option<Vec<u8>>> {
        match read_small(self.storage(), &name_of(number), record::MAX_LEN) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// An entry with its head.
    pub(crate) fn read_audit(&self, number: u32) -> Result<(AuditEntry, AuditHead)> {
        let display = self.storage().display(&name_of(number));
        let gone = || Error::damaged(format!("entry {number} of the audit log is gone")).path(&display);
        let bytes = self.audit_bytes(number)?.ok_or_else(gone)?;
        let entry: AuditEntry = record::decode(&bytes).map_err(|error| error.path(&display))?;
        if entry.schema_version != AuditEntry::SCHEMA_VERSION {
            let text = "an entry of the audit log of an unknown version";
            return Err(Error::new(ErrorKind::Unsupported, text).path(display));
        }
        if entry.number != number || entry.repository_id != self.config().repository_id {
            let text = format!("this is entry {} of repository {}", entry.number, entry.repository_id);
            return Err(Error::damaged(text).path(display));
        }
        Ok((entry, AuditHead::of(self.config().repository_id, number, &bytes)))
    }

    /// Removes entries that were begun by runs that died; one whose number is taken can never be finished.
    pub fn sweep_audit(&self) -> Result<()> {
        let names = self.storage().list(AUDIT)?;
        let newest = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0);
        let is_dead = |name: &&String| {
            let number = name.split('.').next().and_then(|digits| digits.parse::<u32>().ok());
            is_unfinished(name) && number.is_some_and(|number| number <= newest)
        };
        names.iter().filter(is_dead).try_for_each(|name| self.storage().remove(&format!("{AUDIT}/{name}")))
    }
}
