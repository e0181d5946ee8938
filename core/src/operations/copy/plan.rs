//! What of a volume is missing in the other repository: pure, from the records of both.

use std::collections::BTreeMap;

use super::CopyProblem;
use crate::backup_id::{BackupRecord, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::catalog::Catalog;

/// A backup that is missing there.
pub struct Item {
    pub record: BackupRecord,
    /// Asked for; if not, another one builds on it.
    pub chosen: bool,
}

/// What is to be done for one volume.
pub struct VolumePlan {
    pub volume: String,
    /// Parents before children.
    pub items: Vec<Item>,
    pub there_already: u64,
    pub problems: Vec<CopyProblem>,
}

impl VolumePlan {
    /// For those of `chosen` that are of this volume, or for all when nothing was chosen at all.
    pub fn make(
        volume: &str,
        here: &Catalog,
        there: &[BackupRecord],
        chosen: &[BackupRecord],
    ) -> Result<Self> {
        let mut choosing = Choosing {
            here: here.records.iter().map(|record| (record.sequence, record)).collect(),
            there: there.iter().map(|record| (record.sequence, record)).collect(),
            wanted: BTreeMap::new(),
            there_already: 0,
            problems: Vec::new(),
        };
        if chosen.is_empty() {
            // What cannot be read cannot be copied either, and nobody has chosen to leave it out.
            choosing.problems.extend(here.damaged.iter().chain(&here.damaged_tags).map(problem));
            here.records.iter().try_for_each(|record| choosing.add(record))?;
        } else {
            let of_this = chosen.iter().filter(|record| record.volume == volume);
            of_this.into_iter().try_for_each(|record| choosing.add(record))?;
        }
        let Choosing { wanted, there_already, problems, .. } = choosing;
        let item = |(record, chosen): (&BackupRecord, bool)| Item { record: record.clone(), chosen };
        let items = wanted.into_values().map(item).collect();
        Ok(Self { volume: volume.to_owned(), items, there_already, problems })
    }

    /// Bytes of all files that are missing.
    pub fn bytes(&self) -> u64 {
        self.items.iter().flat_map(|item| item.record.files()).map(|file| file.size).sum()
    }
}

fn problem(error: &Error) -> CopyProblem {
    CopyProblem { backup_id: None, what: error.full_text() }
}

struct Choosing<'a> {
    here: BTreeMap<Sequence, &'a BackupRecord>,
    there: BTreeMap<Sequence, &'a BackupRecord>,
    wanted: BTreeMap<Sequence, (&'a BackupRecord, bool)>,
    there_already: u64,
    problems: Vec<CopyProblem>,
}

impl<'a> Choosing<'a> {
    /// Adds a backup and those that it needs and that are not there.
    fn add(&mut self, tip: &'a BackupRecord) -> Result<()> {
        if self.is_there(tip)? {
            self.there_already += 1;
            return Ok(());
        }
        let mut line = vec![tip];
        let mut record = tip;
        while let Some(link) = record.parent {
            let known = self.wanted.contains_key(&record.sequence);
            let there = self.there.get(&link.sequence).is_some_and(|parent| parent.root == link.root);
            if known || there {
                break;
            }
            let parent = self.here.get(&link.sequence).filter(|parent| parent.root == link.root);
            let Some(parent) = parent.filter(|parent| parent.sequence < record.sequence) else {
                let what = format!("needs {}, which is in neither repository", link.backup_id);
                self.problems.push(CopyProblem { backup_id: Some(tip.backup_id), what });
                return Ok(());
            };
            let _ = self.is_there(parent)?;
            line.push(parent);
            record = parent;
        }
        for record in line {
            self.wanted.entry(record.sequence).or_insert((record, false));
        }
        self.wanted.insert(tip.sequence, (tip, true));
        Ok(())
    }

    /// Whether it is there. Another backup in its place is an error: nothing is ever overwritten.
    fn is_there(&self, record: &BackupRecord) -> Result<bool> {
        let Some(other) = self.there.get(&record.sequence) else { return Ok(false) };
        if other.is_same_state(record) {
            return Ok(true);
        }
        let text = format!(
            "the place of backup {} (number {} of '{}') is taken there by {}",
            record.backup_id, record.sequence, record.volume, other.backup_id
        );
        Err(Error::new(ErrorKind::AlreadyExists, text).hint(
            "the volume has another history there: copy into a repository that holds copies of this one alone",
        ))
    }
}
