//! How a backup comes to be: lock, clean up, delta durable, manifest durable, record appears. And how it goes: the record
//! first, and only when that is durable its files.
//!
//! A crash at any instant leaves the old state or the new one: nothing counts that no record names. What a dead run left
//! is removed by the volume's next run, under the volume's lock. A finished file goes only once the record of its
//! sequence exists and names others: then its run can never commit, so a living run loses nothing even where the lock
//! does not keep hosts apart (network file systems).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Repository;
use super::chain::Chain;
use super::layout::{CONFIG, VolumeLayout};
use crate::backup_id::{BackupId, BackupRecord, Sequence, StoredFile};
use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ManifestHeader;
use crate::format::record;
use crate::manifest::stored::PageSpool;
use crate::storage::{LockGuard, ObjectWriter, Storage, is_unfinished, read_small};
use crate::sys::host;

/// Who holds a lock, for people.
pub(super) fn lock_note() -> String {
    let note = serde_json::json!({
        "host": host::hostname(),
        "pid": std::process::id(),
        "boot_id": host::boot_id(),
        "pid_namespace": host::pid_namespace(),
        "since": jiff::Timestamp::now().to_string(),
    });
    note.to_string()
}

/// The right to add backups to one volume, and to remove them.
pub struct Publisher<'a> {
    repository: &'a Repository,
    layout: VolumeLayout,
    /// Finished files that no record names, of sequences that have no record yet.
    doubtful: Mutex<Vec<String>>,
    lock: Box<dyn LockGuard>,
}

impl Repository {
    /// The locks of a volume: what each is for, and its name.
    pub fn locks(&self, volume: &str) -> Result<[(&'static str, String); 2]> {
        let layout = VolumeLayout::new(volume)?;
        Ok([("volume", layout.lock()), ("tags", layout.tags_lock())])
    }

    /// Takes a volume's lock and removes what dead runs left there.
    pub fn publisher(&self, volume: &str) -> Result<Publisher<'_>> {
        self.publisher_keeping(volume, Vec::new)
    }

    /// The same, but what is named stays, for a run that may go on from it. Asked when the lock is held.
    pub fn publisher_keeping(
        &self,
        volume: &str,
        kept: impl FnOnce() -> Vec<String>,
    ) -> Result<Publisher<'_>> {
        let layout = VolumeLayout::new(volume)?;
        let lock = self.storage().lock(&layout.lock(), &lock_note())?;
        self.refuse_rollback(volume)?;
        let mut publisher = Publisher { repository: self, layout, doubtful: Mutex::default(), lock };
        publisher.remove_leftovers(volume, &kept())?;
        Ok(publisher)
    }
}

impl Publisher<'_> {
    pub(super) fn repository(&self) -> &Repository {
        self.repository
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        self.repository.storage()
    }

    pub(super) fn layout(&self) -> &VolumeLayout {
        &self.layout
    }

    /// Whether another may take the lock while we believe to hold it.
    pub(super) fn can_lose_lock(&self) -> bool {
        self.lock.can_be_lost()
    }

    /// An error of kind `Locked` once the lock is another's.
    pub fn check_lock(&self) -> Result<()> {
        self.lock.check()
    }

    fn remove_leftovers(&mut self, volume: &str, kept: &[String]) -> Result<()> {
        let storage = self.repository.storage();
        let mut catalog = self.repository.catalog(Some(volume))?;
        if catalog.damaged.is_empty() && self.end_removals(&catalog.records)? {
            catalog = self.repository.catalog(Some(volume))?;
        }
        let newest = catalog.records.last().map_or(0, |record| record.sequence);
        let named: HashSet<&str> =
            catalog.records.iter().flat_map(BackupRecord::files).map(|file| file.name.as_str()).collect();
        let older: HashSet<String> =
            catalog.records.iter().flat_map(|record| self.older_revisions(record)).collect();
        let (mut doubtful, mut refused) = (Vec::new(), false);
        for folder in [self.layout.records(), self.layout.deltas(), self.layout.manifests()] {
            for name in storage.list(&folder)? {
                let full = format!("{folder}/{name}");
                if is_unfinished(&name) && kept.contains(&full) {
                    continue;
                }
                // With a damaged record nobody knows which files it names, so only unfinished ones are surely dead.
                let unnamed = folder != self.layout.records()
                    && catalog.damaged.is_empty()
                    && !named.contains(full.as_str());
                if is_unfinished(&name) || older.contains(&full) || (unnamed && sequence_of(&name) <= newest)
                {
                    refused = refused || !self.remove_dead(&full)?;
                } else if unnamed {
                    doubtful.push(full);
                }
            }
        }
        self.doubtful = Mutex::new(doubtful);
        Ok(())
    }

    /// Whether it could be removed: credentials that may not remove anything can add backups all the same.
    fn remove_dead(&self, name: &str) -> Result<bool> {
        tracing::info!(name, "removing what an interrupted run left");
        self.lock.check()?;
        match self.storage().remove(name) {
            Err(error) if error.kind() == ErrorKind::Refused => {
                tracing::warn!(%error, "what interrupted runs left stays");
                Ok(false)
            }
            removed => removed.map(|()| true),
        }
    }

    /// Names of the records whose place this one took.
    fn older_revisions(&self, record: &BackupRecord) -> impl Iterator<Item = String> {
        (0..record.revision).map(|older| self.layout.record(record.sequence, older))
    }

    /// Begins the delta of a backup; returns its name too.
    pub fn begin_delta(&self, sequence: Sequence, id: BackupId) -> Result<(String, Box<dyn ObjectWriter>)> {
        let name = self.layout.delta(sequence, id);
        Ok((name.clone(), self.repository.storage().create(&name)?))
    }

    /// Writes the manifest of a backup, with these pages of its table.
    pub fn put_manifest(
        &self,
        id: BackupId,
        header: ManifestHeader,
        pages: &PageSpool,
    ) -> Result<StoredFile> {
        let name = self.layout.manifest(header.sequence, id);
        let mut out = self.repository.storage().create(&name)?;
        let full = header.parent_sequence == 0;
        let (size, blake3) = pages.write_to(header, full, &mut *out)?;
        out.finish()?;
        Ok(StoredFile { name, size, blake3: to_hex(&blake3) })
    }

    /// The commit point: the record appears, unless another writer was first with this sequence. Returns what the user
    /// should know although it is done.
    pub fn commit(&self, record: &BackupRecord) -> Result<Vec<String>> {
        self.commit_as(record, &record::encode(record)?)
    }

    /// The same for a record that is there as bytes already, and must not change by a byte.
    pub fn commit_as(&self, record: &BackupRecord, bytes: &[u8]) -> Result<Vec<String>> {
        let storage = self.repository.storage();
        let name = self.layout.record(record.sequence, record.revision);
        let outrun = |error: Error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound => {
                Error::new(ErrorKind::Locked, "another writer has committed this backup's number first")
                    .path(storage.display(&name))
            }
            _ => error,
        };
        for file in record.files() {
            // Only the winner of a race removes a finished file of this sequence.
            if storage.open(&file.name).map_err(outrun)?.size() != file.size {
                return Err(Error::damaged("a file changed before its backup was committed")
                    .path(storage.display(&file.name)));
            }
        }
        self.lock.check()?;
        storage.put_new(&name, bytes).map_err(outrun)?;
        let warning = self.check_parents(record, &name)?;
        self.repository.remember_backups(std::iter::once(record));
        self.remove_outrun(record);
        Ok(warning.into_iter().collect())
    }

    /// Where the lock does not keep hosts apart, a prune may have removed what this backup builds on while it was made, or
    /// be about to.
    fn check_parents(&self, record: &BackupRecord, name: &str) -> Result<Option<String>> {
        let checked = self.repository.chain(record).and_then(|chain| {
            self.refuse_doomed(chain.records())?;
            Ok(chain)
        });
        match checked {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.repository.storage().remove(name)?;
                let text = "what this backup builds on was removed while it was made";
                Err(Error::new(ErrorKind::Locked, text).path(self.repository.storage().display(name)))
            }
            Err(error) if error.kind() == ErrorKind::Locked => {
                self.repository.storage().remove(name)?;
                Err(error)
            }
            Err(error) => {
                let text = "the backup is committed, but its parents could not be looked at";
                tracing::warn!(%error, text);
                Ok(Some(format!("{text} ({})", error.full_text())))
            }
            Ok(chain) => Ok(self.retain(&chain)),
        }
    }

    /// Extends the retention of a backup, of what it builds on and of what opens the repository, where the location asks
    /// for it.
    fn retain(&self, chain: &Chain) -> Option<String> {
        let error = self.try_retain(chain).err()?;
        tracing::warn!(%error, "the retention could not be extended");
        Some(format!("the backup is committed, but its retention was not extended ({})", error.full_text()))
    }

    fn try_retain(&self, chain: &Chain) -> Result<()> {
        let storage = self.repository.storage();
        let record = |record: &BackupRecord| self.layout.record(record.sequence, record.revision);
        let records: Vec<String> = chain.records().iter().map(record).collect();
        let files = chain.records().iter().flat_map(|record| [&record.delta.name, &record.manifest.name]);
        let names: Vec<&str> = records.iter().chain(files).map(String::as_str).collect();
        // The data first: keys that cannot be listed must not keep it from being retained.
        storage.retain(&names)?;
        let keys = self.repository.key_names()?;
        storage.retain(&[CONFIG].into_iter().chain(keys.iter().map(String::as_str)).collect::<Vec<_>>())
    }

    /// With the record of their sequence there, files that were doubtful are dead, but for those that it names.
    fn remove_outrun(&self, committed: &BackupRecord) {
        let sequence = |name: &str| name.rsplit('/').next().map_or(Sequence::MAX, sequence_of);
        let mut doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        doubtful.retain(|name| committed.files().iter().all(|file| file.name != *name));
        for name in doubtful.extract_if(.., |name| sequence(name) <= committed.sequence) {
            if let Err(error) = self.repository.storage().remove(&name) {
                tracing::warn!(%error, "a file of an interrupted run stays; the next run removes it");
            }
        }
    }

    /// Removes the files of a backup whose commit failed with `error`, unless its record appeared all the same, or may
    /// still appear.
    pub fn discard_uncommitted(&self, record: &BackupRecord, error: &Error) {
        if error.may_have_been_done() {
            tracing::warn!("whether the backup was committed is not known; `blkdelta list` tells later");
            return;
        }
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

    /// Removes what an interrupted run left and nobody goes on from.
    pub fn discard_unfinished(&self, name: &str) {
        self.discard_left(name, is_unfinished);
    }

    /// Removes the delta of an interrupted run of this sequence, from which the run with this id has gone on.
    pub fn discard_taken_over(&self, name: &str, sequence: Sequence, id: BackupId) {
        let own = self.layout.delta(sequence, id);
        self.discard_left(name, |file| sequence_of(file) == sequence && name != own);
    }

    /// The name comes from a note: it counts only as that of a file beside this volume's deltas, and a dead one.
    fn discard_left(&self, name: &str, is_dead: impl FnOnce(&str) -> bool) {
        let ours = name.strip_prefix(&self.layout.deltas()).and_then(|rest| rest.strip_prefix('/'));
        if !ours.is_some_and(|file| !file.contains('/') && is_dead(file)) {
            return;
        }
        if let Err(error) = self.repository.storage().remove(name) {
            tracing::warn!(%error, "what an interrupted run left stays; the next run removes it");
        }
    }

    /// A run whose lock is another's by now was hindered by that, whatever else it led to: the other has removed what it
    /// had begun.
    pub fn blame_lost_lock<T>(&self, done: Result<T>) -> Result<T> {
        match done {
            Err(error) if error.kind() != ErrorKind::Cancelled && self.lock.is_lost() => {
                self.lock.check().and(Err(error))
            }
            other => other,
        }
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
