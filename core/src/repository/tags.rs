//! Tags that were changed after the backup was made. Records never change, so the tags of a backup are an object of their
//! own, replaced whole: each change is a new generation under a new name, created if absent, and the greatest counts.
//!
//! Changes hold the tags' lock, for a moment only (a backup may hold the volume's for hours), and `prune` holds it while it
//! plans and removes: a pin is set before or after that, never unseen in between. On storage without locks two changes at
//! once end with one of them refused, as both want the same generation.

use serde::{Deserialize, Serialize};

use super::Repository;
use super::audit::AuditEvent;
use super::layout::VolumeLayout;
use super::publish::lock_note;
use crate::backup_id::{BackupId, BackupRecord, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::storage::{LockGuard, is_unfinished, read_small};

/// Longest tag in bytes.
const TAG_MAX: usize = 256;
/// Most tags of a backup.
const TAGS_MAX: usize = 256;

/// The tags of a backup, instead of those in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagsDocument {
    /// Version of this layout.
    pub schema_version: u32,
    /// The backup.
    pub backup_id: BackupId,
    /// All its tags.
    pub tags: Vec<String>,
}

impl TagsDocument {
    /// The layout that this version writes.
    pub const SCHEMA_VERSION: u32 = 1;
}

/// A name in the folder of tags, taken apart: `SEQUENCE-GENERATION.json`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TagsName {
    sequence: Sequence,
    generation: u32,
}

impl TagsName {
    /// `None` for what is not ours.
    fn parse(name: &str) -> Option<Self> {
        let (sequence, generation) = name.strip_suffix(".json")?.split_once('-')?;
        let number = |digits: &str| {
            digits.parse().ok().filter(|number: &u32| *number > 0 && format!("{number:010}") == digits)
        };
        Some(Self { sequence: number(sequence)?, generation: number(generation)? })
    }

    /// The generation that counts.
    fn newest(names: &[Self], sequence: Sequence) -> Option<u32> {
        names.iter().filter(|name| name.sequence == sequence).map(|name| name.generation).max()
    }
}

/// Refuses what could not be told from other tags, or would break a line.
pub fn check_tag(tag: &str) -> Result<()> {
    if tag.is_empty() || tag.len() > TAG_MAX || tag.chars().any(char::is_control) {
        let text = format!("'{}' cannot be a tag", tag.escape_debug());
        return Err(Error::new(ErrorKind::WrongUse, text)
            .hint(format!("use 1 to {TAG_MAX} bytes without control characters")));
    }
    Ok(())
}

impl Repository {
    /// Keeps others from changing the tags of a volume's backups.
    pub fn lock_tags(&self, volume: &str) -> Result<Box<dyn LockGuard>> {
        self.storage().lock(&VolumeLayout::new(volume)?.tags_lock(), &lock_note())
    }

    /// Gives a backup tags and takes some away; returns what it has then.
    pub fn change_tags(
        &self,
        record: &BackupRecord,
        add: &[String],
        remove: &[String],
    ) -> Result<Vec<String>> {
        add.iter().try_for_each(|tag| check_tag(tag))?;
        let _lock = self.lock_tags(&record.volume)?;
        let layout = VolumeLayout::new(&record.volume)?;
        self.refuse_rollback(&record.volume)?;
        let mut now = self.read_again(record)?;
        let names = self.tags_names(&layout)?;
        self.read_tags_of(&layout, &names, &mut now)?;
        let mut tags: Vec<String> = now.tags.iter().filter(|tag| !remove.contains(tag)).cloned().collect();
        for tag in add {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        if tags.len() > TAGS_MAX {
            return Err(Error::new(ErrorKind::WrongUse, format!("a backup has at most {TAGS_MAX} tags"))
                .hint("take some away with --remove"));
        }
        if tags != now.tags {
            let done = self.put_tags(&layout, &now, &names, &tags);
            let event = AuditEvent::ended("tag", &done).volume(&now.volume).backups([now.backup_id]);
            if let Some(warning) = self.audit_or_warn(&event.detail(tags.join(", "))) {
                tracing::warn!("{warning}");
            }
            done?;
        }
        Ok(tags)
    }

    /// The record as it is now: a merge may have written it anew, a prune may have removed it.
    fn read_again(&self, record: &BackupRecord) -> Result<BackupRecord> {
        let id = record.backup_id.to_string();
        let records = self.catalog(Some(&record.volume))?.records;
        records.into_iter().find(|other| other.answers_to(&id)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("backup {id} was removed meanwhile"))
                .path(self.storage().display(""))
                .hint("`blkdelta list` shows what is there")
        })
    }

    fn put_tags(
        &self,
        layout: &VolumeLayout,
        record: &BackupRecord,
        names: &[TagsName],
        tags: &[String],
    ) -> Result<()> {
        let document = TagsDocument {
            schema_version: TagsDocument::SCHEMA_VERSION,
            backup_id: record.backup_id,
            tags: tags.to_vec(),
        };
        let too_many = || Error::new(ErrorKind::WrongUse, "the tags were changed too often");
        let generation =
            TagsName::newest(names, record.sequence).unwrap_or(0).checked_add(1).ok_or_else(too_many)?;
        let name = layout.tags_of(record.sequence, generation);
        self.storage().put_new(&name, &record::encode(&document)?).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::Locked, "the tags were changed by another at the same time")
                    .path(self.storage().display(&name))
            }
            _ => error,
        })?;
        self.sweep_tags(layout, &|_| false);
        Ok(())
    }

    /// Gives a backup the tags that it has elsewhere, before its record appears. The caller holds the tags' lock.
    pub(crate) fn carry_tags(&self, stored: &BackupRecord, tags: &[String]) -> Result<()> {
        let layout = VolumeLayout::new(&stored.volume)?;
        let names = self.tags_names(&layout)?;
        let mut now = stored.clone();
        self.read_tags_of(&layout, &names, &mut now)?;
        if now.tags == tags { Ok(()) } else { self.put_tags(&layout, stored, &names, tags) }
    }

    /// Removes the tags of backups that were removed. The caller holds the tags' lock.
    pub fn sweep_orphaned_tags(&self, volume: &str) -> Result<()> {
        let catalog = self.catalog(Some(volume))?;
        if catalog.damaged.is_empty() {
            let is_gone = |sequence| catalog.records.iter().all(|record| record.sequence != sequence);
            self.sweep_tags(&VolumeLayout::new(volume)?, &is_gone);
        }
        Ok(())
    }

    /// Removes tags that a newer generation replaced, and those of backups that are gone.
    fn sweep_tags(&self, layout: &VolumeLayout, is_gone: &dyn Fn(Sequence) -> bool) {
        let swept = self.storage().list(&layout.tags()).and_then(|listed| {
            let names: Vec<TagsName> = listed.iter().filter_map(|name| TagsName::parse(name)).collect();
            let dead = names.iter().filter(|name| {
                TagsName::newest(&names, name.sequence) != Some(name.generation) || is_gone(name.sequence)
            });
            let dead = dead.map(|name| layout.tags_of(name.sequence, name.generation));
            let unfinished = listed.iter().filter(|name| is_unfinished(name));
            let unfinished = unfinished.map(|name| format!("{}/{name}", layout.tags()));
            dead.chain(unfinished).try_for_each(|name| self.storage().remove(&name))
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "tags that do not count any more stay; the next change or prune removes them");
        }
    }

    /// Puts the present tags of a volume's backups into their records; returns those that cannot be read.
    pub(super) fn read_tags(
        &self,
        layout: &VolumeLayout,
        records: &mut [BackupRecord],
    ) -> Result<Vec<Error>> {
        let names = self.tags_names(layout)?;
        let mut damaged = Vec::new();
        for record in records {
            match self.read_tags_of(layout, &names, record) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    damaged.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    fn tags_names(&self, layout: &VolumeLayout) -> Result<Vec<TagsName>> {
        Ok(self.storage().list(&layout.tags())?.iter().filter_map(|name| TagsName::parse(name)).collect())
    }

    /// A generation that went after it was listed has been replaced: the names are read again then.
    fn read_tags_of(
        &self,
        layout: &VolumeLayout,
        names: &[TagsName],
        record: &mut BackupRecord,
    ) -> Result<()> {
        let Some(generation) = TagsName::newest(names, record.sequence) else { return Ok(()) };
        let name = layout.tags_of(record.sequence, generation);
        let bytes = match read_small(self.storage(), &name, record::MAX_LEN) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let newer = self.tags_names(layout)?;
                let replaced = TagsName::newest(&newer, record.sequence) != Some(generation);
                return if replaced { self.read_tags_of(layout, &newer, record) } else { Err(error) };
            }
            other => other?,
        };
        let place = |error: Error| {
            let hint =
                "put the file back from a copy, or remove it: the backup then has the tags it was made with";
            error.path(self.storage().display(&name)).hint(hint)
        };
        let document: TagsDocument = record::decode(&bytes).map_err(place)?;
        if document.schema_version != TagsDocument::SCHEMA_VERSION {
            return Err(place(Error::new(ErrorKind::Unsupported, "tags of an unknown version")));
        }
        // Of another backup that once had this number, they are not ours.
        if record.answers_to(&document.backup_id.to_string()) {
            record.tags = document.tags;
        }
        Ok(())
    }
}
