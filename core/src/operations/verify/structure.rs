//! What can be proven of a backup without its data: its manifest as a file, and that index and tables agree.

use crate::backup_id::BackupRecord;
use crate::digest::BlockDigest;
use crate::error::{Error, Result};
use crate::format::index::IndexEntry;
use crate::geometry::{BlockIndex, to_usize};
use crate::repository::Repository;
use crate::repository::chain::{Chain, missing_part};

/// The manifest's bytes against the digest in the record.
pub(super) fn prove_manifest(repository: &Repository, record: &BackupRecord) -> Result<()> {
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

/// Every entry of the delta's index against the tables before and after it. Returns the parts of it that cannot be read:
/// first and last block, and why.
pub(super) fn check_index(
    repository: &Repository,
    record: &BackupRecord,
    chain: &Chain,
) -> Result<Vec<(BlockIndex, BlockIndex, String)>> {
    let delta = repository.delta(record)?;
    let mut after = repository.table(chain)?;
    let mut before = match chain.records().get(1) {
        Some(parent) => Some(repository.table(&repository.chain(parent)?)?),
        None => None,
    };
    let mut cursor = delta.cursor();
    let mut lost = Vec::new();
    loop {
        let entry = match cursor.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(lost),
            Err(error) => match cursor.lost().filter(|_| error.is_damage()) {
                Some(part) if *part.blocks.end() < after.geometry().block_count() => {
                    lost.push((*part.blocks.start(), *part.blocks.end(), part.what.clone()));
                    continue;
                }
                _ => return Err(error),
            },
        };
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
}
