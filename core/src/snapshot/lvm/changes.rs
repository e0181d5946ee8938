//! What changed between a kept baseline and a new snapshot of the same logical volume.
//!
//! Thin: both are trees of mappings in one pool, and `thin_delta` compares them. A read-only snapshot keeps its data
//! blocks for itself, so a chunk that is mapped to the same block in both was not written in between, whatever else
//! happened to the origin. Thick: the baseline's own table lists what was overwritten since it was taken; the new snapshot
//! exists when it is read, so nothing that the new one shows can be missing from it.
//! Everything that is not as it was when the baseline was recorded ends in a reason for a full scan, never in a guess.

use std::io::{self, BufReader};
use std::path::Path;

use super::metadata_snapshot::{MetadataSnapshot, Pool};
use super::report::{self, LogicalVolumeReport};
use super::status;
use crate::backup_id::SnapshotRecord;
use crate::digest::to_hex;
use crate::error::{Error, Result};
use crate::hint::{ChangeMap, lvm_cow, lvm_thin};
use crate::snapshot::NoHint;
use crate::sys::block_device;
use crate::sys::buffer_pool::BufferPool;
use crate::sys::command::Command;
use crate::sys::direct_file::{DirectFile, Mode};

/// Bytes of the exception store that are read at once.
const PIECE: usize = 1 << 20;

/// Why there are no changes to be had.
pub enum Obstacle {
    /// A doubt: the volume is read in full.
    NoHint(String),
    /// Something of ours could not be given back: the run fails.
    Failed(Error),
}

impl Obstacle {
    pub fn no_hint(reason: &str) -> Self {
        Self::NoHint(reason.to_owned())
    }

    /// As [`crate::snapshot::Snapshot::changes_since`] returns it.
    pub fn told(result: std::result::Result<(), Self>) -> Result<std::result::Result<(), NoHint>> {
        match result {
            Ok(()) => Ok(Ok(())),
            Err(Self::NoHint(reason)) => Ok(Err(NoHint(reason))),
            Err(Self::Failed(error)) => Err(error),
        }
    }
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self::NoHint(error.full_text())
    }
}

/// How records name the kind of a snapshot.
pub fn kind(snapshot: &LogicalVolumeReport) -> &'static str {
    if snapshot.is_thin() { "lvm-thin" } else { "lvm-thick" }
}

/// What must still be the same when a snapshot serves as baseline. Thin ids are given again after a removal; a thick
/// origin that lost extents and got others back may hold another volume's bytes that no snapshot saw coming.
pub fn generation(snapshot: &LogicalVolumeReport, origin: &LogicalVolumeReport) -> String {
    if snapshot.is_thin() {
        format!("pool {} thin id {}", snapshot.pool_uuid, snapshot.thin_id)
    } else {
        let layout = blake3::hash(format!("{} {}", origin.size, origin.layout).as_bytes());
        let layout = to_hex(&layout.as_bytes()[..8]);
        format!("origin {} layout {layout} chunk {}", origin.uuid, snapshot.chunk_size)
    }
}

/// Puts into `map` what changed between the baseline and the snapshot that `taken` reports.
pub fn since(
    baseline: &SnapshotRecord,
    taken: &LogicalVolumeReport,
    map: &mut ChangeMap,
) -> std::result::Result<(), Obstacle> {
    let volumes = report::of(&[&taken.group])?;
    let find = |uuid: &str| volumes.iter().find(|volume| volume.uuid == uuid);
    let Some(found) = find(&baseline.uuid) else {
        return Err(Obstacle::NoHint(format!("the baseline snapshot {} is gone", baseline.name)));
    };
    let origin =
        find(&taken.origin_uuid).ok_or_else(|| Obstacle::no_hint("the origin of the snapshot is gone"))?;
    if kind(found) != baseline.kind || found.origin_uuid != origin.uuid || !found.is_read_only() {
        return Err(Obstacle::NoHint(format!(
            "{} is no longer a read-only snapshot of the volume",
            baseline.name
        )));
    }
    if generation(found, origin) != baseline.generation {
        return Err(Obstacle::NoHint(format!(
            "the storage below {} was changed since it was taken",
            baseline.name
        )));
    }
    let mut filled = map.clone();
    if taken.is_thin() {
        thin(&volumes, found, taken, &mut filled)?;
    } else {
        thick(found, &mut filled)?;
    }
    *map = filled;
    Ok(())
}

/// Puts into `map` what a thin snapshot maps to data, and nothing as changed: it is compared with itself.
pub fn mapped(taken: &LogicalVolumeReport, map: &mut ChangeMap) -> std::result::Result<(), Obstacle> {
    if !taken.is_thin() {
        return Err(Obstacle::no_hint("a thick volume maps all of itself"));
    }
    let volumes = report::of(&[&taken.group])?;
    let mut filled = map.clone();
    thin(&volumes, taken, taken, &mut filled)?;
    *map = filled;
    Ok(())
}

fn thin(
    volumes: &[LogicalVolumeReport],
    baseline: &LogicalVolumeReport,
    taken: &LogicalVolumeReport,
    map: &mut ChangeMap,
) -> std::result::Result<(), Obstacle> {
    // START LENGTH thin POOL ID, and a volume outside the pool that shows through where nothing is mapped.
    if status::table(&taken.device_uuid())?.split_ascii_whitespace().count() != 5 {
        return Err(Obstacle::no_hint("the volume has an external origin"));
    }
    let pool = volumes.iter().find(|volume| volume.uuid == taken.pool_uuid).map(Pool::new);
    let pool = pool.ok_or_else(|| Obstacle::no_hint("the thin pool is gone"))?;
    let held = MetadataSnapshot::reserve(&pool)?;
    let compared = compare(&pool, &baseline.thin_id, &taken.thin_id, map);
    held.release().map_err(Obstacle::Failed)?;
    let (told, status) = (compared?, status::status(&taken.device_uuid())?);
    if status::thin_mapped(&status) == Some(told) {
        return Ok(());
    }
    Err(Obstacle::NoHint(format!("thin_delta tells of {told} mapped sectors, the kernel says '{status}'")))
}

/// Returns how many sectors the newer one maps: chunks that were left out would be taken for unmapped, and never be read.
fn compare(pool: &Pool, old: &str, new: &str, map: &mut ChangeMap) -> Result<u64> {
    let mut output = Command::new("thin_delta")
        .args(["--metadata-snap", "--snap1", old, "--snap2", new])
        .arg(&pool.metadata)
        .stream()?;
    let parsed = lvm_thin::parse(BufReader::new(&mut output), map);
    match (parsed, output.finish()) {
        (Err(parsed), Err(ended)) => Err(parsed.because(ended)),
        (parsed, ended) => ended.and(parsed),
    }
}

fn thick(baseline: &LogicalVolumeReport, map: &mut ChangeMap) -> std::result::Result<(), Obstacle> {
    let store = format!("{}-cow", baseline.device);
    let file = DirectFile::open_read(Path::new(&store))?;
    if file.mode() != Mode::Direct {
        return Err(Obstacle::no_hint("the store of the baseline cannot be read past the page cache"));
    }
    let size = block_device::size(file.plain()).map_err(|source| Error::io("looking at", &store, source))?;
    let pool = BufferPool::new(1, PIECE)?;
    let mut buffer = pool.try_take().ok_or_else(|| Obstacle::no_hint("no buffer to read with"))?;
    let read = |offset: u64, wanted: &mut [u8]| {
        let mut place = offset;
        for piece in wanted.chunks_mut(PIECE) {
            file.read_block(&mut buffer, place, piece.len()).map_err(io::Error::other)?;
            piece.copy_from_slice(&buffer[..piece.len()]);
            place += piece.len() as u64;
        }
        Ok(())
    };
    lvm_cow::parse(read, size, map)?;
    match status::thick_fault(&status::status(&baseline.device_uuid())?) {
        Some(fault) => Err(Obstacle::NoHint(format!("the baseline snapshot is lost: {fault}"))),
        None => Ok(()),
    }
}
