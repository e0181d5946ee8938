//! The metadata snapshot of a thin pool: a frozen copy of its mappings, which `thin_delta` reads while the pool lives on.
//!
//! A pool has one at most, it outlives the process that reserved it and even a reboot, and while it is there the pool
//! gives no metadata block back. So it is released on every path, and a marker file tells ours from other tools': it is
//! locked while we hold it, and holds the block of the snapshot's root. Marker written, nobody has the lock, the same
//! root still held: a run of ours died there, and the next one releases it. If a marker were lost, the pool would keep
//! its metadata snapshot, hints would be off, and the reason says how to release it by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::changes::Obstacle;
use super::report::{LogicalVolumeReport, plain};
use super::status;
use crate::error::{Error, Result};
use crate::sys::files::FileLock;

/// Not below /run: a metadata snapshot survives a reboot, so its marker has to.
const MARKERS: &str = "/var/lib/blkdelta/metadata-snapshots";
/// How long another run of ours may hold the pool's; reading the mappings of a TiB takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);
/// What the marker says from before the reservation until the root is known.
const RESERVING: &str = "reserving";

/// An active thin pool.
#[derive(Debug, Clone)]
pub struct Pool {
    uuid: String,
    device_uuid: String,
    /// The device with its metadata.
    pub metadata: PathBuf,
}

impl Pool {
    /// From the report of the pool itself.
    pub fn new(report: &LogicalVolumeReport) -> Self {
        Self {
            uuid: plain(&report.uuid),
            device_uuid: format!("{}-tpool", report.device_uuid()),
            metadata: format!("{}_tmeta", report.device).into(),
        }
    }

    /// How it is.
    pub fn status(&self) -> Result<status::PoolStatus> {
        Ok(status::pool(&status::status(&self.device_uuid)?))
    }

    fn message(&self, text: &str) -> Result<()> {
        status::message(&self.device_uuid, text)
    }

    fn release(&self) -> Result<()> {
        self.message("release_metadata_snap").map_err(|error| {
            error.hint(format!("release it, or the pool's metadata fills up: {}", self.release_by_hand()))
        })
    }

    fn release_by_hand(&self) -> String {
        format!("dmsetup message --uuid {} 0 release_metadata_snap", self.device_uuid)
    }
}

/// A reserved metadata snapshot; released when dropped, but only [`MetadataSnapshot::release`] tells whether it went well.
pub struct MetadataSnapshot<'a> {
    pool: &'a Pool,
    marker: Option<Marker>,
}

impl<'a> MetadataSnapshot<'a> {
    /// Reserves it, after whatever a dead run of ours left was released.
    pub fn reserve(pool: &'a Pool) -> std::result::Result<Self, Obstacle> {
        let Some(mut marker) = Marker::wait_for(Path::new(MARKERS), &pool.uuid)? else {
            return Err(Obstacle::no_hint(
                "another run has been reading the metadata of its pool for minutes",
            ));
        };
        if let Some(root) = pool.status()?.metadata_snapshot {
            if !marker.is_about(root)? {
                return Err(Obstacle::NoHint(format!(
                    "another tool holds the metadata snapshot of its pool (if none does, release it: {})",
                    pool.release_by_hand()
                )));
            }
            pool.release().map_err(Obstacle::Failed)?;
        }
        marker.write(RESERVING)?;
        let sent = pool.message("reserve_metadata_snap");
        let Some(root) = pool.status()?.metadata_snapshot else {
            marker.write("")?;
            sent?;
            return Err(Obstacle::no_hint("its pool reserved no metadata snapshot"));
        };
        let held = Self { pool, marker: Some(marker) };
        held.remember(root)
    }

    fn remember(mut self, root: u64) -> std::result::Result<Self, Obstacle> {
        if let Some(marker) = &mut self.marker {
            marker.write(&root.to_string())?;
        }
        Ok(self)
    }

    /// Gives it back.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        let Some(mut marker) = self.marker.take() else { return Ok(()) };
        self.pool.release()?;
        marker.write("")
    }
}

impl Drop for MetadataSnapshot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::warn!(
                error = error.full_text(),
                "the metadata snapshot of a thin pool was not released"
            );
        }
    }
}

/// Releases the metadata snapshots that dead runs of ours left in any of these pools.
pub fn release_left_behind(volumes: &[LogicalVolumeReport]) {
    let markers = fs::read_dir(MARKERS).into_iter().flatten().flatten();
    for pool in markers.filter_map(|entry| {
        let name = entry.file_name();
        volumes.iter().find(|volume| name.to_str() == Some(&plain(&volume.uuid))).map(Pool::new)
    }) {
        if let Err(error) = release_after_death(&pool) {
            tracing::warn!(
                error = error.full_text(),
                "a metadata snapshot that an earlier run left is still there"
            );
        }
    }
}

fn release_after_death(pool: &Pool) -> Result<()> {
    let Some(mut marker) = Marker::lock(Path::new(MARKERS), &pool.uuid)? else { return Ok(()) };
    if marker.text()?.is_empty() {
        return Ok(());
    }
    if let Some(root) = pool.status()?.metadata_snapshot
        && marker.is_about(root)?
    {
        pool.release()?;
    }
    marker.write("")
}

/// The marker file of one pool, locked.
struct Marker {
    lock: FileLock,
    path: PathBuf,
}

impl Marker {
    fn wait_for(folder: &Path, pool: &str) -> Result<Option<Self>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let locked = Self::lock(folder, pool)?;
            if locked.is_some() || Instant::now() >= end {
                return Ok(locked);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// `None` when another process has it.
    fn lock(folder: &Path, pool: &str) -> Result<Option<Self>> {
        let path = folder.join(pool);
        let problem = |source| Error::io("locking the marker of a pool's metadata snapshot", &path, source);
        let open = || -> io::Result<File> {
            fs::create_dir_all(folder)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
        };
        match FileLock::try_lock(open().map_err(problem)?) {
            Ok(lock) => Ok(Some(Self { lock, path })),
            Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err((_, error)) => Err(problem(error)),
        }
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        let mut file = self.lock.file();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        read.map(|_| text).map_err(|source| Error::io("reading", &self.path, source))
    }

    /// Whether the run that wrote it held the metadata snapshot with this root.
    fn is_about(&self, root: u64) -> Result<bool> {
        let text = self.text()?;
        Ok(text == RESERVING || text == root.to_string())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let mut file = self.lock.file();
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all());
        written.map_err(|source| Error::io("writing", &self.path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_tells_ours_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let marker = |pool| Marker::lock(folder.path(), pool).unwrap();
        let mut ours = marker("pool").unwrap();
        assert!(!ours.is_about(44).unwrap(), "nothing was ever reserved");
        ours.write(RESERVING).unwrap();
        assert!(ours.is_about(44).unwrap(), "a run that died before it knew the root");
        ours.write("44").unwrap();
        assert!(marker("pool").is_none(), "a run that lives has the lock");
        assert!(marker("another pool").is_some());
        drop(ours);
        let left = marker("pool").unwrap();
        assert!(left.is_about(44).unwrap(), "a run of ours died");
        assert!(!left.is_about(4).unwrap() && !left.is_about(45).unwrap(), "another tool came after it");
    }
}
