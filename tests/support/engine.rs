//! A repository with its local state, used through the library.

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::{Path, PathBuf};

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::digest::DigestKind;
use blkdelta_core::error::Result;
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::operations::ChangedRange;
use blkdelta_core::operations::apply::{ApplyReport, apply};
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, WantedKind, backup};
use blkdelta_core::operations::diff::{DiffReport, diff};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, MergeReport, merge};
use blkdelta_core::operations::prune::{PruneOptions, PruneReport, prune};
use blkdelta_core::operations::restore::{RestoreOptions, RestoreReport, RestoreTarget, restore};
use blkdelta_core::operations::scan::{ScanOptions, ScanReport, scan};
use blkdelta_core::operations::verify::{VerifyOptions, VerifyReport, verify};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::retention::Policy;
use blkdelta_core::storage::ObjectWriter;
use blkdelta_core::storage::local::FileReplacer;
use jiff::Timestamp;

use crate::expect::Cut;
use crate::scratch::{Scratch, read, write};

/// Small blocks and grains, so that a volume of a MiB has many.
#[must_use]
pub fn small() -> InitOptions {
    InitOptions {
        digest: DigestKind::Blake3,
        block_size: 64 << 10,
        grain_size: 4 << 10,
        compression: Compression::Zstd(1),
    }
}

/// The sizes of a format, for the model.
#[must_use]
pub fn cut_of(options: &InitOptions) -> Cut {
    let size = |bytes: u32| usize::try_from(bytes).expect("a 64-bit machine");
    Cut { block: size(options.block_size), grain: size(options.grain_size) }
}

/// A repository in a scratch folder. Its volume has one fixed name.
pub struct Engine {
    /// Where all lies: `repo`, `state`, and what the test adds.
    pub scratch: Scratch,
    /// The open repository.
    pub repository: Repository,
}

/// The volume's name.
pub const VOLUME: &str = "db";

impl Engine {
    /// A new repository.
    #[must_use]
    pub fn new(options: InitOptions) -> Self {
        let scratch = Scratch::new();
        let repository = Repository::init_local(&scratch.path("repo"), options).expect("init");
        Self { scratch, repository }
    }

    /// The file of the volume's local state.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        let folder = self.scratch.path("state").join(self.repository.config().repository_id.to_string());
        folder.join(format!("{VOLUME}.manifest"))
    }

    /// The usual options for an image.
    #[must_use]
    pub fn backup_options(&self, source: &Path, kind: WantedKind) -> BackupOptions {
        BackupOptions {
            volume: Some(VOLUME.to_owned()),
            kind,
            gentleness: Gentleness::full_speed(),
            ..BackupOptions::new(source, self.scratch.path("state"))
        }
    }

    /// Backs an image up.
    pub fn backup(&self, source: &Path, kind: WantedKind) -> Result<BackupReport> {
        self.backup_with(&self.backup_options(source, kind))
    }

    /// Backs up with these options.
    pub fn backup_with(&self, options: &BackupOptions) -> Result<BackupReport> {
        backup(&self.repository, options, &Progress::new(), &CancelToken::new())
    }

    /// Restores with these options.
    pub fn restore(&self, record: &BackupRecord, options: &RestoreOptions) -> Result<RestoreReport> {
        restore(&self.repository, record, options, &Progress::new(), &CancelToken::new())
    }

    /// Restores the whole volume to a path.
    pub fn restore_to(&self, record: &BackupRecord, target: &Path, in_place: bool) -> Result<RestoreReport> {
        self.restore(
            record,
            &RestoreOptions { in_place, gentleness: Gentleness::full_speed(), ..RestoreOptions::new(target) },
        )
    }

    /// The bytes that a restore into a stream writes.
    pub fn stream(&self, record: &BackupRecord, range: Option<Range<u64>>) -> Result<Vec<u8>> {
        let path = self.scratch.path("stream");
        let out =
            OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("making a file");
        let target = RestoreTarget::Stream(out);
        self.restore(
            record,
            &RestoreOptions {
                target,
                range,
                gentleness: Gentleness::full_speed(),
                ..RestoreOptions::new("")
            },
        )?;
        Ok(read(&path))
    }

    /// Removes all but the newest so many, and what those need.
    pub fn prune(&self, keep: u32) -> Result<PruneReport> {
        let policy = Policy { last: keep, ..Policy::default() };
        let options = PruneOptions { volume: Some(VOLUME.to_owned()), policy, dry_run: false };
        prune(&self.repository, &options, Timestamp::now(), &CancelToken::new())
    }

    /// All backups, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<BackupRecord> {
        let catalog = self.repository.catalog(None).expect("the catalog");
        assert!(catalog.damaged.is_empty(), "{:?}", catalog.damaged);
        catalog.records
    }

    /// Verifies everything.
    #[must_use]
    pub fn verify(&self, data: bool) -> VerifyReport {
        verify_all(&self.repository, data)
    }

    /// Merges the backups from `first`, or from the full, to `last`.
    pub fn merge(&self, last: &BackupRecord, first: Option<&BackupRecord>) -> Result<MergeReport> {
        let options = MergeOptions {
            last: last.clone(),
            first: first.cloned(),
            compression: None,
            gentleness: Gentleness::full_speed(),
            state: self.scratch.path("state"),
        };
        merge(&self.repository, &options, &Progress::new(), &CancelToken::new())
    }

    /// Compares two backups.
    pub fn diff(&self, from: &BackupRecord, to: &BackupRecord) -> Result<(DiffReport, Vec<ChangedRange>)> {
        let mut ranges = Vec::new();
        let take = &mut |range| {
            ranges.push(range);
            Ok(())
        };
        let report = diff(&self.repository, from, to, take, &CancelToken::new())?;
        Ok((report, ranges))
    }
}

/// Scans, with a delta when a path for one is given; returns the ranges too.
pub fn scan_with(options: &ScanOptions, delta: Option<&Path>) -> Result<(ScanReport, Vec<ChangedRange>)> {
    let ranges = std::cell::RefCell::new(Vec::new());
    let mut make = delta
        .map(|path| move || -> Result<Box<dyn ObjectWriter>> { Ok(Box::new(FileReplacer::begin(path)?)) });
    let report = scan(
        options,
        make.as_mut().map(|make| make as &mut dyn FnMut() -> Result<Box<dyn ObjectWriter>>),
        &mut |range| {
            ranges.borrow_mut().push(range);
            Ok(())
        },
        &mut || {
            ranges.borrow_mut().clear();
            Ok(())
        },
        &Progress::new(),
        &CancelToken::new(),
    )?;
    Ok((report, ranges.into_inner()))
}

/// Applies a delta.
pub fn apply_to(delta: &Path, target: &Path) -> Result<ApplyReport> {
    apply(delta, target, false, &Progress::new(), &CancelToken::new())
}

/// Makes a file with the content of another.
pub fn copy_file(from: &Path, to: &Path) {
    write(to, &read(from));
}

/// Verifies everything that is in a repository.
///
/// # Panics
/// When verifying fails; what it finds is in the report.
#[must_use]
pub fn verify_all(repository: &Repository, data: bool) -> VerifyReport {
    let catalog = repository.catalog(None).expect("the catalog");
    let options = VerifyOptions { data, gentleness: Gentleness::full_speed(), ..VerifyOptions::default() };
    let (progress, cancel) = (Progress::new(), CancelToken::new());
    verify(repository, &catalog.records, &catalog.damaged, &options, &progress, &cancel).expect("verify runs")
}
