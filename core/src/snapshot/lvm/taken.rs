//! A snapshot of a logical volume that this run has taken: watched while it is read, removed or kept at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::changes::{self, Obstacle};
use super::metadata_snapshot::Pool;
use super::report::{self, LogicalVolumeReport};
use super::status;
use crate::backup_id::SnapshotRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::hint::ChangeMap;
use crate::snapshot::{NoHint, Snapshot};
use crate::sys::block_device;

/// How long udev may take to make the device's node.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// See [`crate::snapshot::Snapshot`].
pub struct Taken {
    report: LogicalVolumeReport,
    pool: Option<Pool>,
    device: PathBuf,
    record: SnapshotRecord,
    taken_at: Timestamp,
}

impl Taken {
    /// What `lvcreate` has just made, once it is proven to be a sound read-only snapshot of `origin`.
    pub fn new(name: &str, origin: &LogicalVolumeReport, taken_at: Timestamp) -> Result<Self> {
        let volumes = report::of(&[&origin.group])?;
        let ours = |volume: &&LogicalVolumeReport| volume.name == name;
        let wrong = |what: &str| {
            Error::new(ErrorKind::Io, format!("the snapshot {name} {what}")).path(&origin.device)
        };
        let report = volumes.iter().find(ours).ok_or_else(|| wrong("is not there after it was taken"))?;
        if report.origin_uuid != origin.uuid || !report.is_read_only() {
            return Err(wrong("is not a read-only snapshot of the volume"));
        }
        wait_for_device(report)?;
        let record = SnapshotRecord {
            kind: changes::kind(report).into(),
            name: report.full_name(),
            uuid: report.uuid.clone(),
            generation: changes::generation(report, origin),
            kept: false,
        };
        let pool = volumes.iter().find(|volume| volume.uuid == report.pool_uuid).map(Pool::new);
        let device = report.device.clone().into();
        let taken = Self { report: report.clone(), pool, device, record, taken_at };
        taken.check()?;
        Ok(taken)
    }

    /// What is wrong with it now.
    fn fault(&self) -> Result<Option<String>> {
        let line = status::status(&self.report.device_uuid())?;
        let Some(pool) = &self.pool else { return Ok(status::thick_fault(&line)) };
        Ok(match status::thin_fault(&line) {
            None => pool.status()?.fault,
            fault => fault,
        })
    }
}

/// Waits for the node, and makes sure that it is this volume's and that the kernel takes no writes to it.
fn wait_for_device(report: &LogicalVolumeReport) -> Result<()> {
    let device = Path::new(&report.device);
    let problem = |source| Error::io("opening the snapshot", device, source);
    let end = Instant::now() + PATIENCE;
    let wanted = report.device_uuid();
    let is_there = || {
        let number = block_device::number_of(device).ok().flatten()?;
        block_device::attribute(number, "dm/uuid").filter(|uuid| *uuid == wanted)
    };
    while is_there().is_none() {
        if Instant::now() >= end {
            return Err(Error::new(ErrorKind::NotFound, "the snapshot's device did not appear").path(device));
        }
        std::thread::sleep(LOOK);
    }
    let file = std::fs::File::open(device).map_err(problem)?;
    if !block_device::is_read_only(&file).map_err(problem)? {
        return Err(Error::new(ErrorKind::Io, "the snapshot's device can be written to").path(device));
    }
    Ok(())
}

impl Snapshot for Taken {
    fn device(&self) -> &Path {
        &self.device
    }

    fn record(&self) -> &SnapshotRecord {
        &self.record
    }

    fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    fn check(&self) -> Result<()> {
        let lost = |fault: &str| {
            let what = format!("the snapshot {} is lost: {fault}", self.record.name);
            Err(Error::new(ErrorKind::SnapshotLost, what))
        };
        match self.fault() {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => lost(&fault),
            Err(error) => lost(&error.full_text()),
        }
    }

    fn changes_since(
        &self,
        baseline: &SnapshotRecord,
        map: &mut ChangeMap,
    ) -> Result<std::result::Result<(), NoHint>> {
        Obstacle::told(changes::since(baseline, &self.report, map))
    }

    fn mapped(&self, map: &mut ChangeMap) -> Result<std::result::Result<(), NoHint>> {
        Obstacle::told(changes::mapped(&self.report, map))
    }

    fn keep(&mut self) -> Result<()> {
        self.record.kept = true;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.record.kept
            && let Err(error) = super::remove(&self.report)
        {
            tracing::warn!(
                snapshot = self.record.name,
                error = error.full_text(),
                "a snapshot was not removed"
            );
        }
    }
}
