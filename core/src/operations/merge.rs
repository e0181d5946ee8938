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
mod shorten;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::gentleness::Gentleness;
use crate::backup_id::{
    AuditHead, BackupId, BackupKind, BackupRecord, ReplacedBackup, Statistics, StoredFile,
};
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
use crate::repository::audit::{AuditEvent, AuditOutcome, IDS_MAX};
use crate::repository::chain::{Chain, ChainTable};
use crate::repository::publish::Publisher;
use crate::storage::LockGuard;
use crate::sys::host;
use crate::throttle::governor::{Throttle, ThrottleReport};
use frames::Pipeline;
use layout::Counts;
pub use shorten::{Shortening, shorten};
use shorten::{is_parent, mates};

/// How often, and how long between two tries, the tags' lock is waited for.
const TAGS_TRIES: u32 = 100;
const TAGS_PATIENCE: Duration = Duration::from_millis(100);

/// Why a backup stays on which another host has built since it was decided that it goes.
const BUILT_ON: &str = "another host has built on it meanwhile";

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
    merge_leaving(repository, options, &BTreeSet::new(), progress, cancel)
}

/// The same where these backups, of other volumes, go too: they keep none of their group.
fn merge_leaving(
    repository: &Repository,
    options: &MergeOptions,
    leaving: &BTreeSet<BackupId>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<MergeReport> {
    let begun = Instant::now();
    let volume = &options.last.volume;
    let repository = &repository.remembering(&options.state);
    let publisher = repository.publisher(volume)?;
    let state = LocalState::new(&options.state, repository, volume)?;
    let run = Run::choose(repository, options)?;
    let folder = repository.storage().display("");
    let governor = options.gentleness.start(Some(&folder), Some(&folder), true, progress)?;
    let id = host::random_bytes()?;
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
    let made = publisher.blame_lost_lock(merging.make(PageSpool::new(state.folder())?, begun));
    // A pin is set before the tags are locked, and seen, or after that, on the new record.
    let made = made.and_then(|made| Ok((made, wait_for_tags(repository, volume)?)));
    // What goes is written down before it goes.
    let ids = || run.records().iter().map(|record| record.backup_id).take(IDS_MAX);
    let begun = AuditEvent::new("merge", AuditOutcome::Begun).volume(volume).backups(ids());
    let made = made.and_then(|made| repository.audit(&begun).map(|_| made));
    if made.is_err() {
        publisher.discard(run.last().sequence, merging.id);
    }
    let ((record, counts), _tags) = made?;
    let committed = publisher.commit(&record);
    let ended = AuditEvent::ended("merge", &committed).volume(volume).backups([record.backup_id]);
    let unlogged = repository.audit_or_warn(&ended);
    if let Err(error) = &committed {
        publisher.discard_uncommitted(&record, error);
    }
    let mut warnings = committed?;
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    if let Err(error) = run.remove(repository, &publisher, leaving, &mut removed, &mut kept) {
        warnings.push(format!(
            "the backups are merged, but not all of the old ones are removed ({})",
            error.full_text()
        ));
    }
    let throttle = governor.report();
    warnings.extend(throttle.warnings.iter().cloned().chain(unlogged));
    let (bytes_copied, bytes_encoded) = (counts.bytes_copied, counts.bytes_encoded);
    Ok(MergeReport { record, bytes_copied, bytes_encoded, removed, kept, warnings, throttle })
}

/// Whoever changes tags does so in a moment: hours of work are not lost to it.
pub(super) fn wait_for_tags(repository: &Repository, volume: &str) -> Result<Box<dyn LockGuard>> {
    let mut left = TAGS_TRIES;
    loop {
        match repository.lock_tags(volume) {
            Err(error) if error.kind() == ErrorKind::Locked && left > 0 => {
                left -= 1;
                std::thread::sleep(TAGS_PATIENCE);
            }
            other => return other,
        }
    }
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

    /// Removes what was merged, children before parents, but for pins, what other backups build on, and those of a group.
    fn remove(
        &self,
        repository: &Repository,
        publisher: &Publisher<'_>,
        leaving: &BTreeSet<BackupId>,
        removed: &mut Vec<BackupId>,
        kept: &mut Vec<KeptBackup>,
    ) -> Result<()> {
        publisher.check_lock()?;
        publisher.remove(self.last())?;
        removed.push(self.last().backup_id);
        let replaced = &self.records()[1..];
        let grouped = replaced.iter().any(|record| record.group.is_some());
        let volume = Some(self.last().volume.as_str()).filter(|_| !grouped);
        let mut left = repository.catalog(volume)?.records;
        left.retain(|other| other.volume == self.last().volume || !leaving.contains(&other.backup_id));
        let mut going = Vec::new();
        for record in replaced {
            match reason_to_keep(record, &left) {
                Some(reason) => kept.push(KeptBackup { backup_id: record.backup_id, reason }),
                None => {
                    left.retain(|other| other.backup_id != record.backup_id);
                    going.push(record.clone());
                }
            }
        }
        let needed = publisher.remove_all(&going, &CancelToken::new())?;
        for record in going {
            match needed.contains(&record.backup_id) {
                true => kept.push(KeptBackup { backup_id: record.backup_id, reason: BUILT_ON.to_owned() }),
                false => removed.push(record.backup_id),
            }
        }
        repository.sweep_orphaned_tags(&self.last().volume)
    }
}

/// Why a backup of the run stays, seeing all that are left.
fn reason_to_keep(record: &BackupRecord, left: &[BackupRecord]) -> Option<String> {
    if let Some(mate) = mates(record, left).next() {
        return Some(format!("of one group with {} ({} {})", mate.backup_id, mate.volume, mate.sequence));
    }
    let pinned = |other: &BackupRecord| other.backup_id == record.backup_id && other.is_pinned();
    let child = left.iter().find(|child| is_parent(record, child));
    let needed = child.map(|child| format!("needed by {}", child.backup_id));
    needed.or_else(|| left.iter().any(pinned).then(|| "it is pinned".to_owned()))
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
        let audit = self.repository.audit_head()?;
        Ok((self.record(statistics, delta, manifest, audit), counts))
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
        self.publisher.put_manifest(self.id, header, spool)
    }

    fn record(
        &self,
        statistics: Statistics,
        delta: StoredFile,
        manifest: StoredFile,
        audit: Option<AuditHead>,
    ) -> BackupRecord {
        let (last, first) = (self.run.last(), self.run.first());
        let kind = if first.parent.is_none() { BackupKind::Full } else { first.kind };
        let record = BackupRecord {
            backup_id: self.id,
            kind,
            parent: first.parent,
            statistics,
            delta,
            manifest,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: last.revision + 1,
            replaces: self.run.replaces(),
            audit,
            ..last.clone()
        };
        BackupRecord { schema_version: record.lowest_schema(), ..record }
    }
}
