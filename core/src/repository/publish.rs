//! How a backup comes to be: lock, clean up, delta durable, manifest durable, record appears.
//!
//! A crash at any instant leaves the old state or the new one: nothing counts that no record names. What a dead run left
//! is removed by the volume's next run, under the volume's lock, so a living run's files are never touched.

use super::Repository;
use super::layout::VolumeLayout;
use crate::backup_id::{BackupId, BackupRecord, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::storage::{LockGuard, ObjectWriter, is_unfinished};
use crate::sys::host;

/// The right to add a backup to one volume.
pub struct Publisher<'a> {
    repository: &'a Repository,
    layout: VolumeLayout,
    _lock: Box<dyn LockGuard>,
}

impl Repository {
    /// Takes a volume's lock and removes what dead runs left there.
    pub fn publisher(&self, volume: &str) -> Result<Publisher<'_>> {
        let layout = VolumeLayout::new(volume)?;
        let note = serde_json::json!({
            "host": host::hostname(),
            "pid": std::process::id(),
            "boot_id": host::boot_id(),
            "since": jiff::Timestamp::now().to_string(),
        });
        let lock = self.storage().lock(&layout.lock(), &note.to_string())?;
        let publisher = Publisher { repository: self, layout, _lock: lock };
        publisher.remove_leftovers(volume)?;
        Ok(publisher)
    }
}

impl Publisher<'_> {
    fn remove_leftovers(&self, volume: &str) -> Result<()> {
        let storage = self.repository.storage();
        let catalog = self.repository.catalog(Some(volume))?;
        let named = |name: &str| {
            catalog.records.iter().any(|record| record.delta.name == name || record.manifest.name == name)
        };
        for folder in [self.layout.records(), self.layout.deltas(), self.layout.manifests()] {
            for name in storage.list(&folder)? {
                let full = format!("{folder}/{name}");
                // With a damaged record nobody knows which files it names, so only unfinished ones are surely dead.
                let dead = is_unfinished(&name)
                    || (folder != self.layout.records() && catalog.damaged.is_empty() && !named(&full));
                if dead {
                    tracing::info!(name = full, "removing what an interrupted run left");
                    storage.remove(&full)?;
                }
            }
        }
        Ok(())
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
        for file in [&record.delta, &record.manifest] {
            if storage.open(&file.name)?.size() != file.size {
                return Err(Error::damaged("a file changed before its backup was committed")
                    .path(storage.display(&file.name)));
            }
        }
        let name = self.layout.record(record.sequence);
        storage.put_new(&name, &record::encode(record)?).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::Locked, "another writer has committed this backup's number first")
                    .path(storage.display(&name))
            }
            _ => error,
        })
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
