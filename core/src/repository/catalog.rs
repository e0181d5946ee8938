//! Which backups there are: the records, and nothing else, say so.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::Repository;
use super::layout::{VOLUMES, VolumeLayout, decode_volume};
use super::memory::{KnownRecord, KnownRecords};
use crate::backup_id::BackupRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::format::record;
use crate::storage::{is_unfinished, read_small};

/// Records of one or all volumes, with those that could not be read.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Sound records, by volume name and sequence.
    pub records: Vec<BackupRecord>,
    /// Records that exist but cannot be read.
    pub damaged: Vec<Error>,
    /// Tags that were changed later and cannot be read; their backups are whole, and show the tags they were made with.
    pub damaged_tags: Vec<Error>,
}

impl Catalog {
    /// Takes those of another volume too.
    pub(super) fn append(&mut self, mut other: Self) {
        self.records.append(&mut other.records);
        self.damaged.append(&mut other.damaged);
        self.damaged_tags.append(&mut other.damaged_tags);
    }
}

impl Repository {
    /// Names of all volumes, sorted.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let mut names: Vec<_> =
            self.storage().folders(VOLUMES)?.iter().filter_map(|name| decode_volume(name)).collect();
        names.sort();
        Ok(names)
    }

    /// The backups of one volume, or of all.
    pub fn catalog(&self, volume: Option<&str>) -> Result<Catalog> {
        let volumes = match volume {
            Some(name) => vec![name.to_owned()],
            None => self.volumes()?,
        };
        let mut catalog = Catalog::default();
        for name in volumes {
            catalog.append(self.read_volume(&name)?);
        }
        Ok(catalog)
    }

    fn read_volume(&self, volume: &str) -> Result<Catalog> {
        let mut damaged = Vec::new();
        let layout = VolumeLayout::new(volume)?;
        let known = self.memory.as_ref().map(|memory| memory.known_records(volume)).unwrap_or_default();
        let (mut records, mut read) = (Vec::new(), KnownRecords::new());
        let mut listed = self.storage().list_stamped(&layout.records())?;
        listed.retain(|(name, _)| !is_unfinished(name));
        for (name, stamp) in &listed {
            if let Some(known) = known.get(name).filter(|known| Some(&known.stamp) == stamp.as_ref()) {
                records.push(known.record.clone());
                continue;
            }
            match self.read_record(&format!("{}/{name}", layout.records()), volume) {
                Ok(record) => {
                    if let Some(stamp) = stamp.clone() {
                        read.insert(name.clone(), KnownRecord { stamp, record: record.clone() });
                    }
                    records.push(record);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    damaged.push(error);
                }
                // Removed after it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.keep_known(volume, &known, read, &listed);
        records.sort_by_key(|record| (record.sequence, Reverse(record.revision)));
        // What a merge has written anew stands for the same state.
        records.dedup_by_key(|record| record.sequence);
        let damaged_tags = self.read_tags(&layout, &mut records)?;
        Ok(Catalog { records, damaged, damaged_tags })
    }

    /// Remembers the records that were read; those that are not listed any more are forgotten.
    fn keep_known(
        &self,
        volume: &str,
        known: &KnownRecords,
        mut read: KnownRecords,
        listed: &[(String, Option<String>)],
    ) {
        let gone = known.len() > listed.len();
        let Some(memory) = self.memory.as_ref().filter(|_| gone || !read.is_empty()) else { return };
        for (name, stamp) in listed {
            if let Some(known) = known.get(name).filter(|known| Some(&known.stamp) == stamp.as_ref()) {
                read.insert(name.clone(), known.clone());
            }
        }
        memory.keep_records(volume, read);
    }

    /// Reads one record and checks that it stands where it belongs.
    pub(super) fn read_record(&self, name: &str, volume: &str) -> Result<BackupRecord> {
        let bytes = read_small(self.storage(), name, record::MAX_LEN)?;
        let display = self.storage().display(name);
        let record: BackupRecord = record::decode(&bytes).map_err(|error| error.path(&display))?;
        if record.schema_version > BackupRecord::SCHEMA_VERSION {
            return Err(Error::new(ErrorKind::Unsupported, "the record was written by a newer blkdelta")
                .path(display));
        }
        let layout = VolumeLayout::new(volume)?;
        let belongs = record.volume == volume
            && layout.record(record.sequence, record.revision) == name
            && record.sequence > 0
            && record.schema_version > 0
            && is_right_in(&record.delta.name, &layout.deltas())
            && is_right_in(&record.manifest.name, &layout.manifests())
            && (record.block_size, record.grain_size, record.digest)
                == (self.config.block_size, self.config.grain_size, self.config.digest);
        if !belongs {
            return Err(Error::damaged("a record does not belong where it stands").path(display));
        }
        Ok(record)
    }

    /// A record as it is stored, without tags that were changed later: its bytes, and what they say.
    pub(crate) fn stored_record(&self, record: &BackupRecord) -> Result<(Vec<u8>, BackupRecord)> {
        let name = VolumeLayout::new(&record.volume)?.record(record.sequence, record.revision);
        let gone = |error: Error| match error.kind() {
            ErrorKind::NotFound => error.kind_is(ErrorKind::Damaged),
            _ => error,
        };
        let stored = self.read_record(&name, &record.volume).map_err(gone)?;
        let bytes = read_small(self.storage(), &name, record::MAX_LEN).map_err(gone)?;
        if stored.backup_id != record.backup_id {
            return Err(Error::damaged("the record is another one now").path(self.storage().display(&name)));
        }
        Ok((bytes, stored))
    }

    /// What reading a backup gave; damage that is none, because the backup was removed meanwhile, is told as that.
    pub fn unless_removed<T>(&self, record: &BackupRecord, read: Result<T>) -> Result<T> {
        let Err(error) = read else { return read };
        let name = VolumeLayout::new(&record.volume)?.record(record.sequence, record.revision);
        let gone = match self.read_record(&name, &record.volume) {
            Ok(found) => found.backup_id != record.backup_id,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if error.kind() != ErrorKind::Damaged || !gone {
            return Err(error);
        }
        let text = format!("backup {} was removed meanwhile", record.backup_id);
        Err(Error::new(ErrorKind::NotFound, text)
            .path(self.storage().display(&name))
            .hint("`blkdelta list` shows what is there"))
    }

    /// The newest backup of a volume. A damaged newest record is an error: going on from an older one would fork the chain.
    pub fn newest(&self, volume: &str) -> Result<Option<BackupRecord>> {
        let catalog = self.catalog(Some(volume))?;
        if let Some(error) = catalog.damaged.into_iter().next_back() {
            return Err(match error.is_damage() {
                true => error
                    .hint("put the record back from a copy of the repository, or remove it and its backup"),
                false => error,
            });
        }
        Ok(catalog.records.into_iter().next_back())
    }

    /// The backup that `name` means: a unique prefix of an id, `latest`, `latest~N`; `at` cuts off what was taken later.
    pub fn resolve(&self, name: &str, volume: Option<&str>, at: Option<Timestamp>) -> Result<BackupRecord> {
        let catalog = self.catalog(volume)?;
        let steps = back_steps(name)?;
        let mut damaged = catalog.damaged.into_iter();
        if let (Some(_), Some(error)) = (steps, damaged.next()) {
            // The damaged record may be the latest one: an older state would pass for it.
            return Err(error.hint("name the backup by its id: `blkdelta list` shows those that can be read"));
        }
        for error in damaged {
            tracing::warn!(%error, "a record cannot be read; its backup is left out");
        }
        let mut records = catalog.records;
        let merged_into = records
            .iter()
            .find(|record| steps.is_none() && record.was_merged_from(name))
            .map(|record| record.backup_id);
        records.retain(|record| at.is_none_or(|at| record.taken_at <= at));
        let found = match steps {
            Some(steps) => {
                one_volume(&records)?;
                records.into_iter().rev().nth(steps)
            }
            None => one_prefix(records, name)?,
        };
        found.ok_or_else(|| {
            let of = volume.map(|volume| format!(" of volume '{volume}'")).unwrap_or_default();
            Error::new(ErrorKind::NotFound, format!("no backup '{name}'{of}"))
                .path(self.storage().display(""))
                .hint(match merged_into {
                    Some(id) => format!("its state is gone: it was merged into {id}"),
                    None => "`blkdelta list` shows what is there".to_owned(),
                })
        })
    }
}

/// Whether a name from a record is a file of this folder: a record must not lead out of its volume.
fn is_right_in(name: &str, folder: &str) -> bool {
    let file = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
    file.is_some_and(|file| !file.is_empty() && file != "." && file != ".." && !file.contains('/'))
}

/// N of `latest~N`, 0 for `latest`, `None` for an id.
fn back_steps(name: &str) -> Result<Option<usize>> {
    let Some(rest) = name.strip_prefix("latest") else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(0));
    }
    let steps = rest.strip_prefix('~').and_then(|steps| steps.parse().ok());
    let wrong = || {
        Error::new(ErrorKind::WrongUse, format!("'{name}' is not a backup")).hint("write latest or latest~1")
    };
    steps.map(Some).ok_or_else(wrong)
}

fn one_volume(records: &[BackupRecord]) -> Result<()> {
    match (records.first(), records.last()) {
        (Some(first), Some(last)) if first.volume != last.volume => {
            let text =
                format!("'latest' of which volume? There are '{}' and '{}'", first.volume, last.volume);
            Err(Error::new(ErrorKind::WrongUse, text).hint("name one with --volume"))
        }
        _ => Ok(()),
    }
}

fn one_prefix(records: Vec<BackupRecord>, prefix: &str) -> Result<Option<BackupRecord>> {
    let mut fitting = records.into_iter().filter(|record| record.answers_to(prefix));
    let first = fitting.next();
    if prefix.is_empty() || fitting.next().is_some() {
        let text = format!("'{prefix}' is the beginning of several ids");
        return Err(Error::new(ErrorKind::WrongUse, text).hint("write more of the id"));
    }
    Ok(first)
}
