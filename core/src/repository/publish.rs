//! How a backup comes to be: lock, clean up, delta durable, manifest durable, record appears. And how it goes: the record
//! first, and only when that is durable its files.
//!
//! A crash at any instant leaves the old state or the new one: nothing counts that no record names. What a dead run left
//! is removed by the volume's next run, under the volume's lock. A finished file goes only once the record of its
//! sequence exists and names others: then its run can never commit, so a living run loses nothing even where the lock
//! does not keep hosts apart (network file systems).

use super::Repository;
use super::layout::VolumeLayout;
use crate::backup_id::{BackupId, BackupRecord, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::storage::{LockGuard, ObjectWriter, is_unfinished, read_small};
use crate::sys::host;

/// Who holds a lock, for people.
pub(super) fn lock_note() -> String {
    let note = serde_json::json!({
        "host": host::hostname(),
        "pid": std::process::id(),
        "boot_id": host::boot_id(),
        "since": jiff::Timestamp::now().to_string(),
    });
    note.to_string()
}

/// The right to add backups to one volume, and to remove them.
pub struct Publisher<'a> {
    repository: &'a Repository,
    layout: VolumeLayout,
    /// Finished files that no record names, of sequences that have no record yet.
    doubtful: Vec<String>,
    _lock: Box<dyn LockGuard>,
}

impl Repository {
    /// Takes a volume's lock and removes what dead runs left there.
    pub fn publisher(&self, volume: &str) -> Result<Publisher<'_>> {
        let layout = VolumeLayout::new(volume)?;
        let lock = self.storage().lock(&layout.lock(), &lock_note())?;
        let mut publisher = Publisher { repository: self, layout, doubtful: Vec::new(), _lock: lock };
        publisher.remove_leftovers(volume)?;
        Ok(publisher)
    }
}

impl Publisher<'_> {
    fn remove_leftovers(&mut self, volume: &str) -> Result<()> {
        let storage = self.repository.storage();
        let catalog = self.repository.catalog(Some(volume))?;
        let newest = catalog.records.last().map_or(0, |record| record.sequence);
        let named = |name: &str| {
            catalog.records.iter().any(|record| record.delta.name == name || record.manifest.name == name)
        };
        for folder in [self.layout.records(), self.layout.deltas(), self.layout.manifests()] {
            for name in storage.list(&folder)? {
                let full = format!("{folder}/{name}");
                // With a damaged record nobody knows which files it names, so only unfinished ones are surely dead.
                let unnamed = folder != self.layout.records() && catalog.damaged.is_empty() && !named(&full);
                let replaced = catalog.records.iter().any(|record| self.is_older_revision(record, &full));
                if is_unfinished(&name) || replaced || (unnamed && sequence_of(&name) <= newest) {
                    tracing::info!(name = full, "removing what an interrupted run left");
                    storage.remove(&full)?;
                } else if unnamed {
                    self.doubtful.push(full);
                }
            }
        }
        Ok(())
    }

    /// Whether this is a record whose place a merge took.
    fn is_older_revision(&self, record: &BackupRecord, name: &str) -> bool {
        (0..record.revision).any(|older| self.layout.record(record.sequence, older) == name)
    }

    /// Begins the delta of a backup; returns its name too.
    pub fn begin_delta(&self, sequence: Sequence, id: BackupId) -> Result<(String, Box<dyn ObjectWriter>)> {
        let name = self.layout.delta(sequence, id);
        Ok((name.clone(), self.repository.storage().create(&name)?))
    }

    /// Begins the manifest of a backup; returns its name too.
    pub fn begin_manifest(
        &self,
        sequence: Sequence,
        id: BackupId,
    ) -> Result<(String, Box<dyn ObjectWriter>)> {
        let name = self.layout.manifest(sequence, id);
        Ok((name.clone(), self.repository.storage().create(&name)?))
    }

    /// The commit point: the record appears, unless another writer was first with this sequence.
    pub fn commit(&self, record: &BackupRecord) -> Result<()> {
        let storage = self.repository.storage();
        let name = self.layout.record(record.sequence, record.revision);
        let outrun = |error: Error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound => {
                Error::new(ErrorKind::Locked, "another writer has committed this backup's number first")
                    .path(storage.display(&name))
            }
            _ => error,
        };
        for file in [&record.delta, &record.manifest] {
            // Only the winner of a race removes a finished file of this sequence.
            if storage.open(&file.name).map_err(outrun)?.size() != file.size {
                return Err(Error::damaged("a file changed before its backup was committed")
                    .path(storage.display(&file.name)));
            }
        }
        storage.put_new(&name, &record::encode(record)?).map_err(outrun)?;
        self.check_parents(record, &name)?;
        self.remove_outrun(record.sequence);
        Ok(())
    }

    /// Where the lock does not keep hosts apart, a prune may have removed what this backup builds on while it was made.
    fn check_parents(&self, record: &BackupRecord, name: &str) -> Result<()> {
        match self.repository.chain(record) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.repository.storage().remove(name)?;
                let text = "what this backup builds on was removed while it was made";
                Err(Error::new(ErrorKind::Locked, text).path(self.repository.storage().display(name)))
            }
            Err(error) => {
                tracing::warn!(%error, "the backup is committed, but its parents could not be looked at");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// With the record of their sequence there, files that were doubtful are dead.
    fn remove_outrun(&self, committed: Sequence) {
        let sequence = |name: &str| name.rsplit('/').next().map_or(Sequence::MAX, sequence_of);
        for name in self.doubtful.iter().filter(|name| sequence(name) <= committed) {
            if let Err(error) = self.repository.storage().remove(name) {
                tracing::warn!(%error, "a file of an interrupted run stays; the next run removes it");
            }
        }
    }

    /// Removes the files of a backup whose commit failed, unless its record appeared all the same.
    pub fn discard_uncommitted(&self, record: &BackupRecord) {
        let name = self.layout.record(record.sequence, record.revision);
        let appeared = match read_small(self.repository.storage(), &name, record::MAX_LEN) {
            Ok(bytes) => record::decode::<BackupRecord>(&bytes)
                .map_or(true, |found| found.backup_id == record.backup_id),
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        if !appeared {
            self.discard(record.sequence, record.backup_id);
        }
    }

    /// Removes a backup on which no other builds. A crash behind the record leaves files that do not count.
    pub fn remove(&self, record: &BackupRecord) -> Result<()> {
        let storage = self.repository.storage();
        storage.remove(&self.layout.record(record.sequence, record.revision))?;
        storage.remove(&record.delta.name)?;
        storage.remove(&record.manifest.name)
    }

    /// Removes the files of a backup that will not be committed.
    pub fn discard(&self, sequence: Sequence, id: BackupId) {
        for name in [self.layout.delta(sequence, id), self.layout.manifest(sequence, id)] {
            if let Err(error) = self.repository.storage().remove(&name) {
                tracing::warn!(%error, "a file of the failed run stays; the next run removes it");
            }
        }
    }
}

/// The sequence at the start of a file's name; that of a file which is not ours never counts as dead.
fn sequence_of(name: &str) -> Sequence {
    name.split_once('-').and_then(|(digits, _)| digits.parse().ok()).unwrap_or(Sequence::MAX)
}
