//! Removing backups where the lock can be lost, and a backup that builds on one of them at the same time.
//!
//! ```text
//! prune:   tombstone of each -> is anything new built on it? then it stays -> record, delta, manifest -> tombstone
//! backup:  record appears -> is there a tombstone of what it builds on? then the record is taken back, and it is told so
//! ```
//! Both write before they look, so at least one of the two sees the other, whoever stood still in between: no backup that
//! was told to be done loses what it builds on. A tombstone that a dead run left keeps others from building on its backup;
//! the volume's next run, which holds the lock, ends what was begun, unless something does build on it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::publish::Publisher;
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;

/// What a tombstone holds, for people.
#[derive(Serialize)]
struct Tombstone {
    schema_version: u32,
    backup_id: BackupId,
}

impl Publisher<'_> {
    /// Removes backups, every child before its parent. Those that another host has built on meanwhile stay and are returned.
    pub fn remove_all(&self, doomed: &[BackupRecord], cancel: &CancelToken) -> Result<Vec<BackupId>> {
        let kept = if self.can_lose_lock() { self.put_tombstones(doomed)? } else { BTreeSet::new() };
        let going = || doomed.iter().filter(|record| !kept.contains(&record.backup_id));
        let removed = going().try_for_each(|record| {
            cancel
                .check()
                .map_err(|error| error.hint("what is removed is removed; run it again for the rest"))?;
            self.check_lock()?;
            self.remove(record)?;
            tracing::info!(backup = %record.backup_id, volume = record.volume, "removed");
            self.take_tombstone(record)
        });
        if removed.is_err() {
            // They are our own, and we stop: nobody removes these any more.
            if let Err(error) = going().try_for_each(|record| self.take_tombstone(record)) {
                tracing::warn!(%error, "a tombstone stays; the volume's next run ends what was begun");
            }
        }
        removed.map(|()| kept.into_iter().collect())
    }

    /// Tombstones for all; then those on which something builds that is not doomed are let go.
    fn put_tombstones(&self, doomed: &[BackupRecord]) -> Result<BTreeSet<BackupId>> {
        for record in doomed {
            let tombstone = Tombstone { schema_version: 1, backup_id: record.backup_id };
            let name = self.layout().tombstone(record.sequence, record.backup_id);
            match self.storage().put_new(&name, &record::encode(&tombstone)?) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        let Some(first) = doomed.first() else { return Ok(BTreeSet::new()) };
        let catalog = self.repository().catalog(Some(&first.volume))?;
        let is_doomed =
            |record: &BackupRecord| doomed.iter().any(|other| other.backup_id == record.backup_id);
        let mut needed = BTreeSet::new();
        for tip in catalog.records.iter().filter(|record| !is_doomed(record)) {
            let mut child = tip;
            while let Some(parent) = parent_of(child, &catalog.records) {
                if is_doomed(parent) {
                    needed.insert(parent.backup_id);
                }
                child = parent;
            }
        }
        for record in doomed.iter().filter(|record| needed.contains(&record.backup_id)) {
            self.take_tombstone(record)?;
        }
        Ok(needed)
    }

    fn take_tombstone(&self, record: &BackupRecord) -> Result<()> {
        if !self.can_lose_lock() {
            return Ok(());
        }
        self.storage().remove(&self.layout().tombstone(record.sequence, record.backup_id))
    }

    /// Refuses a backup whose parents are being removed.
    pub(super) fn refuse_doomed(&self, chain: &[BackupRecord]) -> Result<()> {
        if !self.can_lose_lock() {
            return Ok(());
        }
        let names = self.storage().list(&self.layout().tombstones())?;
        let buried = |record: &&BackupRecord| {
            let full = self.layout().tombstone(record.sequence, record.backup_id);
            names.iter().any(|name| full.ends_with(name.as_str()))
        };
        match chain.iter().skip(1).find(buried) {
            None => Ok(()),
            Some(record) => {
                let text = format!("backup {} is being removed, and this one builds on it", record.backup_id);
                Err(Error::new(ErrorKind::Locked, text)
                    .path(self.storage().display(&self.layout().tombstones()))
                    .hint("run it again: it then builds on what is left"))
            }
        }
    }

    /// Ends what a dead run began, and tells whether there was anything. The caller holds the lock and knows all records.
    pub(super) fn end_removals(&self, records: &[BackupRecord]) -> Result<bool> {
        if !self.can_lose_lock() {
            return Ok(false);
        }
        let mut any = false;
        for name in self.storage().list(&self.layout().tombstones())? {
            let full = format!("{}/{name}", self.layout().tombstones());
            let of =
                |record: &&BackupRecord| self.layout().tombstone(record.sequence, record.backup_id) == full;
            if let Some(record) = records.iter().find(of) {
                let is_parent = |other: &BackupRecord| {
                    parent_of(other, records).is_some_and(|parent| parent.backup_id == record.backup_id)
                };
                if !record.is_pinned() && !records.iter().any(is_parent) {
                    tracing::info!(backup = %record.backup_id, "ending the removal that an interrupted run began");
                    self.check_lock()?;
                    self.remove(record)?;
                }
            }
            self.storage().remove(&full)?;
            any = true;
        }
        Ok(any)
    }
}

fn parent_of<'a>(child: &BackupRecord, records: &'a [BackupRecord]) -> Option<&'a BackupRecord> {
    let link = child.parent.filter(|link| link.sequence < child.sequence)?;
    records.iter().find(|record| (record.sequence, record.root) == (link.sequence, link.root))
}
