//! `merge`: neighbouring backups of a chain become one, inside the repository, without the volume. With the full among
//! them the result is a full.
//!
//! ```text
//! choose the run -> layout (index entries in order; which frames are copied) -> frames copied or encoded -> delta writer
//!                -> the pages of the table -> record of the next revision -> what was replaced goes
//! ```
//! The result has the sequence, the root and the state of the run's last backup, so its children stay as they are, and its
//! id still finds that state. The record is the commit point: before it nothing has changed, after it the older revision
//! does not count and the volume's next run removes what a crash left of the run.

mod frames;
mod layout;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::gentleness::Gentleness;
use crate::backup_id::{BackupId, BackupKind, BackupRecord, ReplacedBackup, Statistics, StoredFile};
use crate::cancel::CancelToken;
use crate::delta::writer::Written;
use crate::digest::{BLOCKS_PER_PAGE, RootDigest, is_zero, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::{DeltaHeader, DeltaParent};
use crate::format::manifest::{Form, ManifestHeader};
use crate::format::repository_config::Compression;
use crate::geometry::Geometry;
use crate::local_state::LocalState;
use crate::manifest::stored::PageSpool;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::chain::{Chain, ChainTable};
use crate::repository::publish::Publisher;
use crate::sys::host;
use crate::throttle::governor::{Throttle, ThrottleReport};
use frames::Pipeline;
use layout::Counts;

/// Options of a merge.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The run's last backup: its state stays.
    pub last: BackupRecord,
    /// The run's first backup; the full when absent.
    pub first: Option<BackupRecord>,
    /// Of frames that are encoded anew; the repository's when absent.
    pub compression: Option<Compression>,
    /// How gently.
    pub gentleness: Gentleness,
    /// Base folder of local state.
    pub state: PathBuf,
}

/// A backup of the run that stays although it was merged.
#[derive(Debug, Clone, Serialize)]
pub struct KeptBackup {
    /// Which.
    pub backup_id: BackupId,
    /// Why.
    pub reason: String,
}

/// What a merge did.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    /// The record that was committed.
    #[serde(flatten)]
    pub record: BackupRecord,
    /// Bytes of frames that were copied as they are.
    pub bytes_copied: u64,
    /// Bytes of grains that were encoded anew.
    pub bytes_encoded: u64,
    /// Ids of the backups that were removed, newest first.
    pub removed: Vec<BackupId>,
    /// Backups of the run that others still need.
    pub kept: Vec<KeptBackup>,
    /// What the user should know although it is done.
    pub warnings: Vec<String>,
    /// What the limits did.
    pub throttle: ThrottleReport,
}

/// Merges a run of backups into one.
///
/// # Errors
/// `WrongUse` when the backups are not such a run; `Locked` while another run works on the volume; `Damaged` when what is
/// to be merged cannot be proven: then nothing was changed.
pub fn merge(
    repository: &Repository,
    options: &MergeOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<MergeReport> {
    let begun = Instant::now();
    let volume = &options.last.volume;
    let publisher = repository.publisher(volume)?;
    let state = LocalState::new(&options.state, repository, volume)?;
    let run = Run::choose(repository, options)?;
    let folder = repository.storage().display("");
    let governor = options.gentleness.start(Some(&folder), Some(&folder), true, progress)?;
    let id =
        host::random_bytes().map_err(|source| Error::io("reading random bytes", "/dev/urandom", source))?;
    let merging = Merging {
        repository: &repository.throttled(governor.throttle(), cancel),
        publisher: &publisher,
        run: &run,
        id: BackupId::from_bytes(id),
        geometry: repository.geometry(run.last().size_bytes)?,
        compression: options.compression.unwrap_or(repository.config().compression),
        throttle: governor.throttle(),
        progress,
        cancel,
    };
    let made = merging.make(PageSpool::new(state.folder())?, begun);
    if made.is_err() {
        publisher.discard(run.last().sequence, merging.id);
    }
    let (record, counts) = made?;
    if let Err(error) = publisher.commit(&record) {
        publisher.discard_uncommitted(&record);
        return Err(error);
    }
    let (mut removed, mut kept, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    if let Err(error) = run.remove(repository, &publisher, &mut removed, &mut kept) {
        warnings.push(format!(
            "the backups are merged, but not all of the old ones are removed ({})",
            error.full_text()
        ));
    }
    let throttle = governor.report();
    warnings.extend(throttle.warnings.iter().cloned());
    let (bytes_copied, bytes_encoded) = (counts.bytes_copied, counts.bytes_encoded);
    Ok(MergeReport { record, bytes_copied, bytes_encoded, removed, kept, warnings, throttle })
}

/// Merges the oldest backups of a chain, if it is longer than `longest` backups; `None` when it is not.
///
/// # Errors
/// As for [`merge`].
pub fn shorten(
    repository: &Repository,
    longest: usize,
    options: &MergeOptions,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<Option<MergeReport>> {
    let chain = repository.chain(&options.last)?;
    if chain.records().len() <= longest {
        return Ok(None);
    }
    let Some(last) = chain.records().get(longest.saturating_sub(1)).cloned() else { return Ok(None) };
    let options = MergeOptions { last, first: None, ..options.clone() };
    merge(repository, &options, progress, cancel).map(Some)
}

/// The backups that become one, and what they build on.
struct Run {
    chain: Chain,
    /// How many of the chain's newest records are the run.
    len: usize,
}

impl Run {
    fn choose(repository: &Repository, options: &MergeOptions) -> Result<Self> {
        let (last, first) = (&options.last, options.first.as_ref());
        let chain = repository.chain(last)?;
        let len = match first {
            None => Some(chain.records().len()),
            Some(first) => chain
                .records()
                .iter()
                .position(|record| record.backup_id == first.backup_id)
                .map(|position| position + 1),
        };
        let wrong = |text: String, hint: &str| Err(Error::new(ErrorKind::WrongUse, text).hint(hint));
        match len {
            Some(len) if len > 1 => Ok(Self { chain, len }),
            Some(_) => wrong(
                format!("backup {} alone cannot be merged", last.sequence),
                "name a backup that builds on others, or A..B",
            ),
            None => wrong(
                format!("backup {} does not build on that one", last.sequence),
                "`blkdelta list` shows what builds on what; name the older one first",
            ),
        }
    }

    fn last(&self) -> &BackupRecord {
        self.chain.tip()
    }

    /// Newest first.
    fn records(&self) -> &[BackupRecord] {
        &self.chain.records()[..self.len]
    }

    fn first(&self) -> &BackupRecord {
        self.records().last().unwrap_or(self.last())
    }

    /// What the first one builds on.
    fn below(&self) -> Option<&BackupRecord> {
        self.chain.records().get(self.len)
    }

    fn replaces(&self) -> Vec<ReplacedBackup> {
        let mut replaces = Vec::new();
        for record in self.records().iter().rev() {
            replaces.extend_from_slice(&record.replaces);
            replaces.push(ReplacedBackup { backup_id: record.backup_id, sequence: record.sequence });
        }
        replaces
    }

    /// Removes what was merged, children before parents, but for pins and what other backups build on.
    fn remove(
        &self,
        repository: &Repository,
        publisher: &Publisher<'_>,
        removed: &mut Vec<BackupId>,
        kept: &mut Vec<KeptBackup>,
    ) -> Result<()> {
        publisher.remove(self.last())?;
        removed.push(self.last().backup_id);
        for record in &self.records()[1..] {
            match reason_to_keep(record, &repository.catalog(Some(&record.volume))?.records) {
                Some(reason) => kept.push(KeptBackup { backup_id: record.backup_id, reason }),
                None => {
                    publisher.remove(record)?;
                    removed.push(record.backup_id);
                }
            }
        }
        repository.sweep_orphaned_tags(&self.last().volume)
    }
}

/// Why a backup of the run stays, seeing all that are there now.
fn reason_to_keep(record: &BackupRecord, all: &[BackupRecord]) -> Option<String> {
    let is_child = |other: &&BackupRecord| {
        other.parent.is_some_and(|link| (link.sequence, link.root) == (record.sequence, record.root))
    };
    let pinned = |other: &&BackupRecord| other.backup_id == record.backup_id && other.is_pinned();
    let needed = all.iter().find(is_child).map(|child| format!("needed by {}", child.backup_id));
    needed.or_else(|| all.iter().find(pinned).map(|_| "it is pinned".to_owned()))
}

struct Merging<'a> {
    repository: &'a Repository,
    publisher: &'a Publisher<'a>,
    run: &'a Run,
    id: BackupId,
    geometry: Geometry,
    compression: Compression,
    throttle: &'a Throttle,
    progress: &'a Progress,
    cancel: &'a CancelToken,
}

impl Merging<'_> {
    /// Everything up to the commit.
    fn make(&self, mut spool: PageSpool, begun: Instant) -> Result<(BackupRecord, Counts)> {
        let table = self.repository.table(&self.run.chain)?;
        table.prove_root()?;
        let below = self.run.below().map(|record| self.repository.chain(record)).transpose()?;
        let below = below.map(|chain| self.repository.table(&chain)).transpose()?;
        self.put_pages(&table, below.as_ref(), &mut spool)?;
        let mut counts = Counts::default();
        let (name, delta) = self.write_delta(table, below, &mut counts)?;
        self.cancel.check()?;
        let manifest = self.write_manifest(&spool)?;
        let statistics = Statistics {
            blocks_total: self.geometry.block_count(),
            blocks_changed: counts.changed.blocks,
            grains_changed: counts.changed.grains,
            bytes_read: 0,
            bytes_carried: 0,
            bytes_changed: counts.changed.bytes,
            bytes_stored: delta.size + manifest.size,
            duration_s: begun.elapsed().as_secs_f64(),
            throttled_s: 0.0,
        };
        let delta = StoredFile { name, size: delta.size, blake3: to_hex(&delta.blake3) };
        Ok((self.record(statistics, delta, manifest), counts))
    }

    /// The pages of the table that differ from those below the run, or all that are not zero.
    fn put_pages(&self, table: &ChainTable, below: Option<&ChainTable>, spool: &mut PageSpool) -> Result<()> {
        for number in 0..self.geometry.block_count().div_ceil(BLOCKS_PER_PAGE) {
            self.cancel.check()?;
            let page = table.page(number)?;
            let same = match below {
                Some(below) => page == below.page(number)?,
                None => is_zero(&page),
            };
            if !same {
                spool.push(number, &page)?;
            }
        }
        Ok(())
    }

    fn write_delta(
        &self,
        table: ChainTable,
        below: Option<ChainTable>,
        counts: &mut Counts,
    ) -> Result<(String, Written)> {
        let last = self.run.last();
        let deltas = self.run.records().iter().map(|record| self.repository.delta(record));
        let deltas = deltas.collect::<Result<Vec<_>>>()?;
        let (name, out) = self.publisher.begin_delta(last.sequence, self.id)?;
        let header = DeltaHeader {
            geometry: self.geometry,
            digest: last.digest,
            identity: last.identity.clone(),
            sequence: last.sequence,
            parent: self.run.below().map(|below| DeltaParent {
                sequence: below.sequence,
                root: below.root,
                size: below.size_bytes,
            }),
        };
        let pipeline = Pipeline {
            deltas: &deltas,
            compression: self.compression,
            throttle: self.throttle,
            progress: self.progress,
            cancel: self.cancel,
        };
        let written = pipeline.run(out, &header, last.root, table, below, counts)?;
        Ok((name, written))
    }

    fn write_manifest(&self, spool: &PageSpool) -> Result<StoredFile> {
        let (last, below) = (self.run.last(), self.run.below());
        let header = ManifestHeader {
            form: Form::Stored { pages: 0, full: below.is_none() },
            geometry: self.geometry,
            digest: last.digest,
            identity: last.identity.clone(),
            sequence: last.sequence,
            parent_sequence: below.map_or(0, |below| below.sequence),
            parent_root: below.map_or(RootDigest::NONE, |below| below.root),
            scanned_sequence: self.repository.manifest(last)?.header().scanned_sequence,
            root: last.root,
        };
        let (name, mut out) = self.publisher.begin_manifest(last.sequence, self.id)?;
        let (size, blake3) = spool.write_to(header, below.is_none(), &mut *out)?;
        out.finish()?;
        Ok(StoredFile { name, size, blake3: to_hex(&blake3) })
    }

    fn record(&self, statistics: Statistics, delta: StoredFile, manifest: StoredFile) -> BackupRecord {
        let (last, first) = (self.run.last(), self.run.first());
        let kind = if first.parent.is_none() { BackupKind::Full } else { first.kind };
        BackupRecord {
            schema_version: BackupRecord::SCHEMA_VERSION,
            backup_id: self.id,
            kind,
            parent: first.parent,
            statistics,
            delta,
            manifest,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: last.revision + 1,
            replaces: self.run.replaces(),
            ..last.clone()
        }
    }
}
