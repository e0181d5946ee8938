//! A repository with backups that a prune takes and backups that it keeps, one of them with changed tags.

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::Result;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::operations::prune::{PruneOptions, PruneReport, prune};
use blkdelta_core::repository::Repository;
use blkdelta_core::retention::Policy;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::lab::{Files, Lab, image, restored};

/// Backups 1 to 3 are a chain, 4 a full, 5 builds on it; the generation of each is its sequence.
pub struct Pruning {
    pub lab: Lab,
    pub saved: Files,
}

/// What stays when only the newest is kept.
pub const KEPT: [u32; 2] = [4, 5];

/// Keeps the newest, and what it needs.
pub fn keep_last() -> PruneOptions {
    let policy = Policy { last: 1, time_zone: TimeZone::UTC, ..Policy::default() };
    PruneOptions { volume: None, policy, dry_run: false }
}

/// Prunes a repository.
pub fn prune_all(repository: &Repository) -> Result<PruneReport> {
    prune(repository, &keep_last(), Timestamp::now(), &CancelToken::new())
}

impl Pruning {
    pub fn new() -> Self {
        let lab = Lab::with_backups(3);
        for (generation, kind) in [(4, WantedKind::Full), (5, WantedKind::Auto)] {
            lab.write_image(generation);
            lab.backup_as(kind).unwrap();
        }
        let pruning = Self { lab, saved: Files::new() };
        for sequence in [2, 5] {
            pruning.tag(sequence, "once").unwrap();
            pruning.tag(sequence, "twice").unwrap();
        }
        Self { saved: pruning.lab.save(), ..pruning }
    }

    pub fn record(&self, sequence: u32) -> BackupRecord {
        self.lab.records().into_iter().find(|record| record.sequence == sequence).unwrap()
    }

    pub fn tag(&self, sequence: u32, tag: &str) -> Result<Vec<String>> {
        let repository = self.lab.repository()?;
        let records = repository.catalog(None)?.records;
        let record = records.into_iter().find(|record| record.sequence == sequence).unwrap();
        repository.change_tags(&record, &[tag.to_owned()], &[])
    }

    pub fn prune(&self) -> Result<PruneReport> {
        prune_all(&self.lab.repository()?)
    }

    /// Sequences of the backups, each of which gives back its generation.
    pub fn assert_whole(&self, context: &str) -> Vec<u32> {
        let repository = self.lab.repository().unwrap();
        let records = self.lab.records();
        for record in &records {
            let same = restored(&repository, record) == *image(record.sequence);
            assert!(same, "{context}: backup {}", record.sequence);
        }
        let report = self.lab.verify().unwrap();
        assert!(report.ok, "{context}: {:?}", report.problems);
        records.iter().map(|record| record.sequence).collect()
    }

    /// A repeated prune ends what was begun, and nothing is left over.
    pub fn assert_can_be_ended(&self, context: &str) {
        let report = self.prune().unwrap_or_else(|error| panic!("{context}: repeating fails: {error:?}"));
        assert_eq!(report.kept, KEPT.len() as u64, "{context}");
        assert_eq!(self.assert_whole(context), KEPT, "{context}");
        assert_eq!(self.record(5).tags, ["once", "twice"], "{context}");
        self.lab.assert_next_backup_works(context);
    }
}
