//! `verify`: is what is stored whole, and does it give back the volumes it promises?
//!
//! Without data: records, chains, manifests (every page, the root), deltas (header, trailer, every index segment, and
//! that index and tables agree). With data: every byte too, by the path that a restore takes, up to the root.

use serde::Serialize;

use super::assembly::Assembly;
use super::gentleness::Gentleness;
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::digest::{BlockDigest, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::format::index::IndexEntry;
use crate::geometry::to_usize;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::chain::missing_part;
use crate::sink::comparing::ComparingSink;
use crate::throttle::governor::ThrottleReport;

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The backup it hurts, if that can be told.
    pub backup_id: Option<BackupId>,
    /// Where in `path`, or in the volume.
    pub offset: u64,
    /// How many bytes, 0 when it cannot be told.
    pub length: u64,
    /// What, with the path.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Nothing is wrong.
    pub ok: bool,
    /// Backups looked at.
    pub backups_checked: u64,
    /// Whether every byte was read.
    pub data: bool,
    /// All that is wrong.
    pub problems: Vec<Problem>,
    /// Seconds spent waiting for limits.
    pub throttled_s: f64,
    /// What the limits did.
    pub throttle: ThrottleReport,
}

/// Verifies these backups. Damage is reported, not returned as an error.
pub fn verify(
    repository: &Repository,
    records: &[BackupRecord],
    unreadable: &[Error],
    data: bool,
    gentleness: &Gentleness,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<VerifyReport> {
    let folder = repository.storage().display("");
    let governor = gentleness.start(Some(&folder), None, true, progress)?;
    let repository = &repository.throttled(governor.throttle(), cancel);
    let mut problems: Vec<Problem> = unreadable.iter().map(|error| problem(None, error)).collect();
    let mut removed = 0;
    for record in records {
        cancel.check()?;
        let verified = verify_one(repository, record, data, progress, cancel);
        match repository.unless_removed(record, verified) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // A prune took it while others were looked at.
            Err(error) if error.kind() == ErrorKind::NotFound => removed += 1,
            Err(error) => problems.push(problem(Some(record.backup_id), &error)),
        }
    }
    let throttle = governor.report();
    Ok(VerifyReport {
        ok: problems.is_empty(),
        backups_checked: records.len() as u64 - removed,
        data,
        problems,
        throttled_s: throttle.throttled_s,
        throttle,
    })
}

fn problem(backup_id: Option<BackupId>, error: &Error) -> Problem {
    let (offset, length) = error.place().unwrap_or_default();
    Problem { backup_id, offset, length, what: error.full_text() }
}

fn verify_one(
    repository: &Repository,
    record: &BackupRecord,
    data: bool,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<()> {
    let chain = repository.chain(record)?;
    let mut table = repository.table(&chain)?;
    table.prove_root()?;
    prove_manifest(repository, record)?;
    check_index(repository, record, &chain)?;
    if !data {
        return Ok(());
    }
    let deltas = repository.deltas(&chain)?;
    progress.begin(record.delta.size);
    let digest = deltas[0].prove_bytes(|bytes| {
        progress.add_done(bytes);
        cancel.check()
    })?;
    if to_hex(&digest) != record.delta.blake3 {
        return Err(
            Error::damaged("the delta is not the one its record names").path(deltas[0].object().display())
        );
    }
    Assembly {
        deltas: &deltas,
        table: &mut table,
        geometry: repository.geometry(record.size_bytes)?,
        digest: record.digest,
        root: record.root,
        sink: &ComparingSink,
        range: 0..record.size_bytes,
        in_place: false,
        progress,
        cancel,
    }
    .run()
    .map(drop)
}

/// The manifest's bytes against the digest in the record.
fn prove_manifest(repository: &Repository, record: &BackupRecord) -> Result<()> {
    let object = repository.storage().open(&record.manifest.name).map_err(missing_part)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < object.size() {
        let len = to_usize((object.size() - at).min(buffer.len() as u64));
        object.read_exact_at(&mut buffer[..len], at)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    if hasher.finalize().to_hex().as_str() != record.manifest.blake3 {
        return Err(Error::damaged("the manifest is not the one its record names").path(object.display()));
    }
    Ok(())
}

/// Every entry of the delta's index against the tables before and after it.
fn check_index(
    repository: &Repository,
    record: &BackupRecord,
    chain: &crate::repository::chain::Chain,
) -> Result<()> {
    let delta = repository.delta(record)?;
    let mut after = repository.table(chain)?;
    let mut before = match chain.records().get(1) {
        Some(parent) => Some(repository.table(&repository.chain(parent)?)?),
        None => None,
    };
    let mut cursor = delta.cursor();
    while let Some(entry) = cursor.next_entry()? {
        let (first, count) = entry.span();
        // A zero range is what the parent did not have; it may begin at its last, short block that the volume outgrew.
        let (old, new) = match &entry {
            IndexEntry::Grains(entry) => (Some(entry.old), entry.new),
            IndexEntry::Zero { old, .. } => (Some(*old), BlockDigest::ZERO),
            IndexEntry::ZeroRange { .. } => (None, BlockDigest::ZERO),
        };
        let mut fits = true;
        for index in first..first + count {
            fits &= after.entry(index)?.digest == new;
        }
        let before = before.as_mut().filter(|table| first < table.geometry().block_count());
        if let Some(before) = before {
            fits &= match old {
                Some(old) => old == before.entry(first)?.digest,
                None => {
                    let shorter = before.geometry().block_len(first) != after.geometry().block_len(first);
                    shorter && before.entry(first)?.digest == BlockDigest::ZERO
                }
            };
        }
        if !fits {
            return Err(Error::damaged("the delta's index and the manifests disagree")
                .path(delta.object().display())
                .at(after.geometry().block_offset(first), after.geometry().span_len(first, count)));
        }
    }
    Ok(())
}
