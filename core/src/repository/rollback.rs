//! Whether a repository went back to an older state, or became another one, since this host last saw it.
//!
//! What this host has seen must still be there: the newest backup of each volume with its root, unless the audit log tells
//! that a prune or a merge took it, and the newest entry of the log. What others do (backups, prunes, merges, tags) keeps to
//! that. Trade-off: only what was seen is compared; a host that has seen nothing cannot know, and whoever loses its local
//! state is such a host.

use std::collections::BTreeSet;

use super::Repository;
use super::catalog::Catalog;
use super::memory::{Seen, SeenVolume};
use crate::error::{Error, ErrorKind, Result};

impl Repository {
    /// All in which the repository contradicts what this host has seen, of one volume or of all. When there is nothing, what
    /// is new is learnt. Without a memory (see [`Repository::remembering`]) nothing is found.
    pub fn rollbacks(&self, volume: Option<&str>) -> Result<Vec<Error>> {
        match &self.memory {
            Some(_) => Ok(self.catalog_and_rollbacks(volume)?.1),
            None => Ok(Vec::new()),
        }
    }

    /// The same, with the catalog that was read for it.
    pub fn catalog_and_rollbacks(&self, volume: Option<&str>) -> Result<(Catalog, Vec<Error>)> {
        let Some(memory) = &self.memory else { return Ok((self.catalog(volume)?, Vec::new())) };
        let seen = memory.seen();
        let mut found: Vec<Error> = self.compare_log(&seen)?.into_iter().collect();
        // The log first: a backup that goes between the two is looked for in what comes later.
        let head = if found.is_empty() { self.audit_head()? } else { None };
        let names: BTreeSet<String> = match volume {
            Some(volume) => [volume.to_owned()].into(),
            None => self.volumes()?.into_iter().chain(seen.volumes.keys().cloned()).collect(),
        };
        let (mut all, mut newest) = (Catalog::default(), Vec::new());
        for name in names {
            let catalog = self.catalog(Some(&name))?;
            if let Some(seen) = seen.volumes.get(&name) {
                found.extend(self.compare_volume(&name, seen, &catalog)?);
            }
            newest.extend(catalog.records.last().cloned());
            all.append(catalog);
        }
        if found.is_empty() {
            head.iter().for_each(|head| self.remember_head(head));
            self.remember_backups(newest.iter());
        } else {
            memory.doubt();
        }
        Ok((all, found))
    }

    /// For whoever is about to write: going on would hide what is gone.
    pub(super) fn refuse_rollback(&self, volume: &str) -> Result<()> {
        self.rollbacks(Some(volume))?.into_iter().next().map_or(Ok(()), Err)
    }

    /// Takes the repository as it is from now on.
    pub fn accept_rollback(&self) -> Result<()> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.forget())?;
        self.rollbacks(None).map(drop)
    }

    fn rollback(&self, what: &str) -> Error {
        let text =
            format!("the repository went back, or is another one, since this host last saw it: {what}");
        Error::new(ErrorKind::RolledBack, text).path(self.storage().display(""))
    }

    /// In what the audit log contradicts what was seen of it.
    fn compare_log(&self, seen: &Seen) -> Result<Option<Error>> {
        let Some(head) = &seen.audit else { return Ok(None) };
        let what = match self.audit_head_at(head.number)? {
            Some(now) if now == *head => return Ok(None),
            Some(_) => "is another one",
            None => "is gone",
        };
        Ok(Some(self.rollback(&format!("entry {} of the audit log {what}", head.number))))
    }

    /// In what a volume contradicts what was seen of it.
    fn compare_volume(&self, volume: &str, seen: &SeenVolume, catalog: &Catalog) -> Result<Option<Error>> {
        let SeenVolume { sequence, backup_id, root, .. } = seen;
        let now = catalog.records.iter().find(|record| record.sequence == *sequence);
        let what = match now {
            Some(record) if record.root == *root => None,
            Some(record) => Some(format!(
                "number {sequence} of '{volume}' was {backup_id}, and is {} now",
                record.backup_id
            )),
            // It may be the one that cannot be read, which is told as damage.
            None if !catalog.damaged.is_empty() => None,
            None if self.was_removed(seen)? => None,
            None => Some(format!(
                "backup {backup_id} (number {sequence} of '{volume}') is gone, and no prune or merge took it"
            )),
        };
        Ok(what.map(|what| self.rollback(&what)))
    }

    /// Whether the audit log tells since then that it was removed. Asked after the catalog was read: removals are written
    /// down before they are done.
    fn was_removed(&self, seen: &SeenVolume) -> Result<bool> {
        let newest = self.audit_head()?.map_or(0, |head| head.number);
        for number in seen.audit.saturating_add(1)..=newest {
            match self.read_audit(number) {
                Ok((entry, _)) if entry.may_remove() && entry.backups.contains(&seen.backup_id) => {
                    return Ok(true);
                }
                Err(error) if !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(false)
    }
}
